"""Two processes through Paddle's launcher compute what one process computes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from launched import launch, launch_script
from small_run import assert_same_arrays
from spoiled import spoiled_data

from passl.checkpoint.files import read_arrays

pytestmark = pytest.mark.slow

# Dropout masks are drawn per rank, so they are off where two worlds are compared.
EXACT = (
    "Model.drop_rate=0.0",
    "Model.drop_path_rate=0.0",
    "Global.epochs=2",
    "Global.global_batch_size=250",
)


def test_two_processes_give_the_weights_and_figures_of_one(make_run, repo, user_environment):
    # 1438 samples in batches of 250: the last one has 188, 94 for each of the two.
    one, two = make_run("one"), make_run("two")
    drop_batch = "~DataLoader.Train.sampler.batch_size"
    assert one.train(drop_batch, *EXACT) == 0
    logs = launch(two, repo, user_environment, drop_batch, *EXACT)
    assert "global batch 250 = 2 processes x 125 images" in logs
    for name, value in one.weights().items():
        np.testing.assert_allclose(two.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    for mine, theirs in zip(one.records("train"), two.records("train")):
        assert mine["step"] == theirs["step"]
        for key in ("lr", "loss", "top1", "grad_norm", "samples_seen"):
            assert theirs[key] == pytest.approx(mine[key], rel=1e-4), key
    for mine, theirs in zip(one.records("eval"), two.records("eval")):
        assert (theirs["samples"], theirs["top1"]) == (
            mine["samples"],
            pytest.approx(mine["top1"], abs=0.006),
        )
    assert re.search(r"passl INFO", (two.dir / "rank_1.log").read_text())


STRATEGIES = {
    "accumulation": ("Global.micro_batch_size=50", "Loss.Train=[{CELoss: {epsilon: 0.1}}]"),
    "recomputation": ("Global.recompute=true", "Global.micro_batch_size=75"),
    "overlap": ("DistributedStrategy.overlap=true", "Global.recompute=2"),
    "sharding": ("DistributedStrategy.sharding={stage: 1}",),
}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_gives_the_steps_of_one_process(
    make_run, repo, user_environment, strategy
):
    # One process does each step in a single plain pass: what the strategies must not be seen in.
    one, two = make_run("one"), make_run("two")
    options = ("~DataLoader.Train.sampler.batch_size", *EXACT, "Global.print_batch_step=1")
    options += tuple(o for o in STRATEGIES[strategy] if o.startswith("Loss."))
    assert one.train(*options) == 0
    # One of them by the installed command, which the launcher finds on the PATH.
    command = "passl-train" if strategy == "accumulation" else ""
    launch(two, repo, user_environment, *options, *STRATEGIES[strategy], command=command)
    mine, theirs = one.records("train"), two.records("train")
    assert len(mine) == len(theirs) == 12  # the sixth and the last one with 188 images
    for own, other in zip(mine, theirs):
        for key in ("loss", "grad_norm"):
            assert other[key] == pytest.approx(own[key], rel=1e-4), (own["step"], key)
    for name, value in one.weights().items():
        np.testing.assert_allclose(two.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    states = one.optimizer(), two.optimizer()
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_allclose(states[1][name], value, rtol=0, atol=2e-5, err_msg=name)


def test_a_run_continues_on_other_numbers_of_processes_at_the_same_sample(
    make_run, repo, user_environment
):
    whole, moved = make_run("whole"), make_run("moved")
    options = ("~DataLoader.Train.sampler.batch_size", *EXACT, "Global.global_batch_size=246")
    options += ("Global.print_batch_step=1",)
    assert whole.train(*options) == 0
    launch(moved, repo, user_environment, *options, "Global.max_train_step=4")
    assert moved.train(*options, "Global.max_train_step=8") == 0
    text = "the run had 2 processes and has 1 now: it goes on at the same sample"
    assert text in moved.log()
    launch(moved, repo, user_environment, *options, processes=3)
    text = "the run had 1 process and has 3 now: it goes on at the same sample"
    assert text in moved.log()
    # Every step sees the samples of the run that was never moved: else its loss were another.
    mine, theirs = whole.records("train"), moved.records("train")
    assert [record["step"] for record in theirs] == [record["step"] for record in mine]
    for own, other in zip(mine, theirs):
        assert other["samples_seen"] == own["samples_seen"]
        for key in ("loss", "grad_norm", "lr"):
            assert other[key] == pytest.approx(own[key], rel=1e-4), (own["step"], key)
    for name, value in whole.weights().items():
        np.testing.assert_allclose(moved.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    assert "the run had 2 processes and has 1 now: it goes on at the same sample" in moved.log()
    assert moved.state()["samples_seen"] == whole.state()["samples_seen"]


def test_a_run_of_one_process_continues_on_two_with_another_split(make_run, repo, user_environment):
    """In the middle of an epoch, the batch given for each process, and split in micro-batches."""
    whole, moved = make_run("whole"), make_run("moved")
    batch = "DataLoader.Train.sampler.batch_size={}".format
    exact = EXACT[:-1]
    assert whole.train(*exact, batch(256)) == 0
    assert moved.train(*exact, batch(256), "Global.max_train_step=8") == 0
    status, logs = launch_script(
        moved,
        repo,
        user_environment,
        repo / "tools" / "train.py",
        *("-c", str(moved.config_file), "-o", *exact, batch(256)),
    )
    assert status != 0
    assert "-o Global.global_batch_size=256 keeps its batch" in "".join(logs)
    launch(moved, repo, user_environment, *exact, batch(128), "Global.accum_steps=2")
    assert "the run had 1 process and has 2 now: it goes on at the same sample" in moved.log()
    for name, value in whole.weights().items():
        np.testing.assert_allclose(moved.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    assert moved.state()["samples_seen"] == whole.state()["samples_seen"]


def test_two_processes_save_by_the_clock_of_one_and_wait_for_no_disk(
    make_run, repo, user_environment
):
    plain, clocked = make_run("plain"), make_run("clocked")
    settings = (*EXACT, "~DataLoader.Train.sampler.batch_size", "Global.imports=[slow_parts]")
    helpers = str(repo / "tests" / "helpers")
    environment = {
        **user_environment,
        "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}",
    }
    launch(plain, repo, environment, *settings)
    clock = ("Global.save_unit=minute", "Hooks=[{name: FastClockSlowDisk, every_s: 0.02}]")
    launch(clocked, repo, environment, *settings, *clock)
    assert_same_arrays(clocked.weights(), plain.weights())
    saved = [int(step) for step in re.findall(r"saved \S+/step_(\d+)", clocked.log())]
    assert set(saved) - {6, 12}, "evaluations alone do not explain them"


def test_a_process_without_samples_changes_nothing(make_run, repo, user_environment):
    # Half of the digits are 899: a batch of 898, then one of a single sample.
    options = (
        *EXACT[:-1],
        "Global.global_batch_size=898",
        "~DataLoader.Train.sampler.batch_size",
        "DataLoader.Train.dataset.val_ratio=0.5",
        "DataLoader.Eval.dataset.val_ratio=0.5",
        "DataLoader.Eval.dataset.split=train",
    )
    one, two = make_run("one"), make_run("two")
    assert one.train(*options) == 0
    launch(two, repo, user_environment, *options, "DataLoader.Eval.sampler.batch_size=449")
    assert one.state()["step"] == two.state()["step"] == 4
    for name, value in one.weights().items():
        np.testing.assert_allclose(two.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    for mine, theirs in zip(one.records("eval"), two.records("eval")):
        assert theirs["samples"] == mine["samples"] == 899
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)


TWO_FOLDERS = """
import os, sys
import passl

folder = sys.argv[2] + os.environ["PADDLE_TRAINER_ID"]
overrides = ["Global.output_dir=" + folder, *sys.argv[3:]]
passl.build_run(passl.load_config(sys.argv[1], overrides)).fit()
"""


def test_processes_that_find_different_states_do_not_train(
    make_run, repo, user_environment, tmp_path
):
    run = make_run("apart")
    folder = tmp_path / "folder"
    sizes = ("Global.global_batch_size=256", "~DataLoader.Train.sampler.batch_size")
    for rank, end in ((0, 2), (1, 4)):
        place = f"Global.output_dir={folder}{rank}"
        assert run.train(place, f"Global.max_train_step={end}", *sizes) == 0
    script = tmp_path / "two_folders.py"
    script.write_text(TWO_FOLDERS)
    arguments = (str(run.config_file), str(folder), *sizes)
    status, logs = launch_script(run, repo, user_environment, script, *arguments)
    assert status != 0
    assert "do not start from the same step; this one (rank 0) would start from step 2" in logs[1]
    assert "do not start from the same step; this one (rank 1) would start from step 4" in logs[2]


ONE_BAD_LOSS = """
import sys
import passl
from passl.engine.hooks.base import Hook

class BadLoss(Hook):
    def on_step_end(self, trainer):
        if trainer.state.step == 3 and trainer.parts.world.rank == 1:
            loss = trainer.parts.loss
            trainer.parts.loss = lambda logits, target: {
                name: value + (float("inf") if name == "loss" else 0.0)
                for name, value in loss(logits, target).items()
            }
            trainer.parts.loss.names = loss.names

run = passl.build_run(passl.load_config(sys.argv[1], ["Global.max_bad_steps=2"]))
run.trainer.parts.hooks = [BadLoss()]
run.fit()
"""


def test_a_bad_loss_of_one_process_is_skipped_and_told_by_all(
    make_run, repo, user_environment, tmp_path
):
    run = make_run("bad")
    script = tmp_path / "one_bad_loss.py"
    script.write_text(ONE_BAD_LOSS)
    status, logs = launch_script(run, repo, user_environment, script, str(run.config_file))
    assert status != 0
    for log in logs[1:3]:
        assert "2 steps in a row (the first: step 4) had a loss" in log
    assert "step 4 was skipped, the weights are as before it: the norm of the gradients" in logs[1]
    assert "step 4 was skipped, the weights are as before it: the loss was inf" in logs[2]
    reports = [
        json.loads((run.dir / "nan_step_00000004" / name).read_text())
        for name in ("report.json", "rank_1.json")
    ]
    assert [report["processes_with_bad_numbers"] for report in reports] == [[1], [1]]
    assert [report["rank"] for report in reports] == [0, 1]
    assert reports[0]["first_bad_layer"] is None
    assert reports[1]["first_bad_layer"]["name"] == "loss"
    # Each process reports its own half of the batch.
    ours, theirs = ({sample["index"] for sample in report["samples"]} for report in reports)
    assert len(ours) == len(theirs) == 256
    assert not ours & theirs


def test_two_processes_skip_the_bad_step_that_one_would_skip(make_run, repo, user_environment):
    helpers = str(repo / "tests" / "helpers")
    environment = {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}
    options = (
        *spoiled_data(5), *EXACT, "EMA={decay: 0.9}", "~DataLoader.Train.sampler.batch_size",
        "Global.print_batch_step=1",
    )  # fmt: skip
    one, two = make_run("one"), make_run("two")
    assert one.train(*options) == 0
    launch(two, repo, environment, *options)
    for field in ("step", "skipped_steps", "bad_steps", "ema"):
        assert two.state()[field] == one.state()[field], field
    assert one.state()["bad_steps"] == 2  # once an epoch
    for file in ("model.pdparams", "ema.pdparams"):
        mine, theirs = (read_arrays(run.dir / "latest" / file) for run in (one, two))
        for name, value in mine.items():
            np.testing.assert_allclose(theirs[name], value, rtol=0, atol=2e-5, err_msg=name)
    steps = [record["step"] for record in one.records("bad_step")]
    assert [record["step"] for record in two.records("bad_step")] == steps
