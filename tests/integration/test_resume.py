"""A run that is stopped and started again ends as one that never stopped, bit for bit."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from small_run import RunFolder, assert_same_arrays, without_times
from started import start_training

import passl
from passl.cli import eval as eval_command
from passl.data.datasets.digits import DigitsDataset
from passl.engine import run_record
from passl.engine.changes import config_changes
from passl.engine.resume import check_continuable
from passl.engine.run_record import classes_digest, labels_digest, read_state
from passl.errors import CheckpointError


def assert_same_run(stopped: RunFolder, whole: RunFolder) -> None:
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    assert stopped.state()["step"] == whole.state()["step"]
    assert stopped.state()["samples_seen"] == whole.state()["samples_seen"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    """A run that is never stopped."""
    run = RunFolder(tmp_path_factory.mktemp("resume") / "whole")
    assert run.train() == 0
    return run


# 1438 training digits in batches of 256: 6 steps an epoch, the last one ragged (158 samples).
@pytest.mark.parametrize("stops", [(1,), (4,), (6,), (9, 14), (29,)], ids=str)
def test_stopping_after_any_step_changes_nothing(make_run, whole, stops):
    stopped = make_run("stopped")
    for step in stops:
        assert stopped.train(f"Global.max_train_step={step}") == 0
        assert stopped.state()["step"] == step
    assert stopped.train() == 0
    assert_same_run(stopped, whole)


def test_accumulation_and_mixed_batches_continue_exactly(make_run):
    overrides = (
        "Global.accum_steps=4",
        "~Metric.Train",
        "DataLoader.Train.batch_transform=[{Mixup: {alpha: 0.8}}]",
        "Optimizer.name=Momentum",
        "Global.epochs=3",
    )
    whole, stopped = make_run("whole"), make_run("stopped")
    assert whole.train(*overrides) == 0
    assert stopped.train(*overrides, "Global.max_train_step=8") == 0
    assert stopped.train(*overrides, "DataLoader.Train.loader.num_workers=3") == 0
    assert_same_run(stopped, whole)


MIXED = (
    "Global.accum_steps=2",
    "~Metric.Train",
    "DataLoader.Train.batch_transform=[{TransformOpSampler: {ops: "
    "[{Mixup: {alpha: 0.8, prob: 0.5}}, {Cutmix: {alpha: 1.0, prob: 0.5}}]}}]",
    "Global.epochs=3",
)


@pytest.fixture(scope="module")
def whole_mixed(tmp_path_factory) -> RunFolder:
    """A run with mixed batches that is never stopped."""
    run = RunFolder(tmp_path_factory.mktemp("mixed") / "whole")
    assert run.train(*MIXED) == 0
    return run


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_random_batches_continue_exactly_with_any_number_of_workers(
    make_run, whole_mixed, workers
):
    """Dropout and drop path are on in the small config, Mixup and CutMix here."""
    stopped = make_run("stopped")
    for step in (3, 5, 13):
        assert stopped.train(*MIXED, f"Global.max_train_step={step}") == 0
    assert stopped.train(*MIXED, f"DataLoader.Train.loader.num_workers={workers}") == 0
    assert_same_run(stopped, whole_mixed)
    mine, theirs = stopped.records("train"), whole_mixed.records("train")
    assert without_times(mine) == without_times(theirs)


def test_a_resume_reads_no_image_of_the_batches_that_are_done(run_folder, monkeypatch):
    load, read = DigitsDataset.load, Counter()

    def counting_load(self, index):
        read[(len(self), index)] += 1
        return load(self, index)

    assert run_folder.train("Global.max_train_step=4", "Global.eval_during_train=false") == 0
    monkeypatch.setattr(DigitsDataset, "load", counting_load)
    assert run_folder.train("Global.epochs=1", "Global.eval_during_train=false") == 0
    # 6 batches an epoch, four of them done: one of 256 and one of 158 are left.
    assert sum(read.values()) == 256 + 158
    assert set(read.values()) == {1}


def test_a_clock_that_goes_back_does_not_confuse_a_resume(make_run, monkeypatch):
    whole, stopped = make_run("whole"), make_run("stopped")
    every = ("Global.save_unit=step", "Global.save_interval=2", "Global.epochs=3")
    assert whole.train(*every) == 0
    now = time.time()
    for start, end in enumerate((5, 9, 13, 18)):
        # Every start lives an hour before the last one, and so do its files.
        with monkeypatch.context() as patch:
            patch.setattr(time, "time", lambda start=start: now - 3600.0 * start)
            assert stopped.train(*every, f"Global.max_train_step={end}") == 0
        assert stopped.state()["step"] == end
        for path in stopped.dir.rglob("*"):
            os.utime(path, (now - 7200.0 * start, now - 7200.0 * start), follow_symlinks=False)
    assert_same_run(stopped, whole)
    assert without_times(stopped.records("train")) == without_times(whole.records("train"))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_kills_at_random_moments_change_no_bit(make_run, user_environment, repo, tmp_path, seed):
    """Twice in a row, each start with another number of workers, checkpoints every other step."""
    rng = random.Random(seed)
    options = (*MIXED, "Global.save_unit=step", "Global.save_interval=2")
    whole, killed = make_run("whole"), make_run("killed")
    assert whole.train(*options) == 0
    notes = tmp_path / "notes"
    notes.mkdir()
    step_file = notes / "rank_0.step"
    environment = {
        **user_environment,
        "PYTHONPATH": f"{repo / 'tests' / 'helpers'}:{user_environment['PYTHONPATH']}",
        "PASSL_ATTEMPT_DIR": str(notes),
    }
    # Held before the end, should the kill come late.
    hooks = "Hooks=[{name: Pause, seconds: 0.05}, {name: Hold, step: 17}]"
    pause = ("Global.imports=[slow_parts]", hooks)
    for least, workers in ((3, 1), (9, 3)):
        workers_option = f"DataLoader.Train.loader.num_workers={workers}"
        with start_training(killed, environment, *options, *pause, workers_option) as started:
            started.wait_for_file(killed.dir / "latest")  # the disk may be slow
            started.wait_until(
                lambda least=least: step_file.exists() and int(step_file.read_text() or 0) >= least,
                f"step {least}",
            )
            time.sleep(rng.uniform(0.0, 0.2))
            started.send(signal.SIGKILL)
            assert started.end() == -signal.SIGKILL
        step_file.unlink()
    assert killed.train(*options, "DataLoader.Train.loader.num_workers=0") == 0
    assert killed.log().count("continuing from") == 2
    assert_same_run(killed, whole)
    assert without_times(killed.records()) == without_times(whole.records())
    assert killed.state()["best"] == whole.state()["best"]


def test_the_logged_figures_continue_as_if_nothing_had_happened(make_run):
    whole, stopped = make_run("whole"), make_run("stopped")
    whole.train("Global.eval_during_train=false", "Global.save_unit=step", "Global.save_interval=4")
    # The first start is cut off after step 9, so its last checkpoint is that of step 9; what it
    # logged after a checkpoint must not appear twice.
    stopped.train(
        "Global.eval_during_train=false",
        "Global.save_unit=step",
        "Global.save_interval=4",
        "Global.max_train_step=10",
    )
    newest = stopped.dir / "checkpoints" / "step_00000010"
    (newest / "model.pdparams").write_bytes(b"torn")
    stopped.train(
        "Global.eval_during_train=false", "Global.save_unit=step", "Global.save_interval=4"
    )
    assert without_times(stopped.records("train")) == without_times(whole.records("train"))
    assert "model.pdparams" in stopped.log()  # says which checkpoint was passed over, and why


def test_a_finished_run_started_again_trains_nothing_and_says_so(run_folder):
    assert run_folder.train("Global.epochs=1") == 0
    weights, records = run_folder.weights(), run_folder.records()
    assert run_folder.train("Global.epochs=1") == 0
    assert_same_arrays(run_folder.weights(), weights)
    assert run_folder.records() == records


def test_a_longer_run_is_planned_anew_and_says_so(run_folder):
    assert run_folder.train("Global.epochs=1") == 0
    assert run_folder.train("Global.epochs=2") == 0
    assert run_folder.state()["step"] == 12
    assert "the run is now 12 steps long (it was 6)" in run_folder.log()


def test_the_best_evaluation_survives_a_resume(run_folder):
    assert run_folder.train("Global.epochs=2") == 0
    best = run_folder.state()["best"]
    # With a rate that ruins the model, nothing later can be better.
    assert (
        run_folder.train("Global.epochs=3", "LRScheduler.learning_rate=10", "~Optimizer.grad_clip")
        == 0
    )
    assert run_folder.state()["best"] == best
    assert run_folder.state("best")["step"] == best["step"]


def test_early_stopping_is_remembered(run_folder):
    hooks = "Hooks=[{name: EarlyStop, patience: 1, min_delta: 0.9}]"
    assert run_folder.train(hooks) == 0
    step = run_folder.state()["step"]
    assert step == 12  # the second evaluation cannot be better by 0.9
    assert run_folder.train(hooks) == 0
    assert run_folder.state()["step"] == step


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("Global.seed=7", "Global.seed was 2021 and is 7"),
        ("Optimizer.name=Momentum", "Optimizer.name was 'AdamW' and is 'Momentum'"),
        ("DataLoader.Train.sampler.batch_size=128", "Global.global_batch_size was 256 and is 128"),
        ("Model.depth=1", "Model.depth was 2 and is 1"),
        # The data set is the same; what is left out of its end is not.
        (
            "DataLoader.Train.sampler.drop_last=true",
            ": number of samples in an epoch was 1438 and is 1280; steps per epoch was 6 and is 5.",
        ),
    ],
)
def test_what_cannot_continue_is_refused(run_folder, capsys, override, sentence):
    assert run_folder.train("Global.epochs=1") == 0
    capsys.readouterr()
    assert run_folder.train("Global.epochs=2", override) == 1
    assert sentence in capsys.readouterr().err


def test_the_best_of_another_criterion_is_forgotten(run_folder):
    """A top-1 accuracy cannot beat a top-5 one."""
    metric = "Metric.Eval=[{TopkAcc: {topk: [%s]}}]"
    hook = "Hooks=[EarlyStop]"
    assert run_folder.train("Global.epochs=1", hook, metric % "5, 1") == 0
    of_top5 = run_folder.state()["best"]["metric"]
    assert run_folder.train("Global.epochs=1", hook, metric % "5") == 0  # judged as before
    assert run_folder.state()["best"]["metric"] == of_top5
    assert "is forgotten" not in run_folder.log()
    assert run_folder.train("Global.epochs=2", hook, metric % "1, 5") == 0
    assert run_folder.state()["hooks"]["EarlyStop"] == {
        "best": run_folder.state()["best"]["metric"],
        "waited": 0,
    }
    best = run_folder.state("best")["best"]
    assert best["step"] == 12
    assert best["metric"] == run_folder.state()["last_eval"]["top1"] < of_top5
    assert "judged by top1 now" in run_folder.log()


# -- another config --------------------------------------------------------------------------------


def test_what_changed_in_the_config_is_said_line_by_line(run_folder):
    assert run_folder.train("Global.epochs=1") == 0
    changed = ("Global.epochs=2", "LRScheduler.learning_rate=0.02", "Model.drop_rate=0.2")
    assert run_folder.train(*changed) == 0
    said = [
        line.split("changed since the checkpoint: ")[1]
        for line in run_folder.log().splitlines()
        if "changed since the checkpoint: " in line
    ]
    assert said == [
        "Model.drop_rate was 0.1 and is 0.2 (-o Model.drop_rate=0.2)",
        "Global.epochs was 1 and is 2 (-o Global.epochs=2)",
        "LRScheduler.learning_rate was 0.01 and is 0.02 (-o LRScheduler.learning_rate=0.02)",
    ]


def test_a_change_of_the_software_is_said(run_folder, monkeypatch):
    """Another environment computes other numbers, and the config does not show it."""
    monkeypatch.setattr(run_record, "versions", lambda: {"paddle": "2.6.2", "numpy": "1.26.4"})
    assert run_folder.train("Global.epochs=1") == 0
    monkeypatch.setattr(run_record, "versions", lambda: {"paddle": "3.3.1", "numpy": "1.26.4"})
    assert run_folder.train("Global.epochs=2") == 0
    said = "changed since the checkpoint: it was made with paddle 2.6.2 and is 3.3.1 now; the state"
    assert said in run_folder.log()
    assert "numpy" not in run_folder.log()


def test_nothing_is_said_of_a_config_that_is_the_same(run_folder):
    assert run_folder.train("Global.max_train_step=3") == 0
    assert run_folder.train("Global.max_train_step=3") == 0
    assert "changed since the checkpoint" not in run_folder.log()


def test_a_default_that_is_written_is_no_change(run_folder):
    """Also for a checkpoint of a version that did not know the key yet."""
    config = passl.load_config(run_folder.config_file)
    before = config.to_dict()
    assert config_changes(before, config) == []
    for section, key in (("Model", "qkv_bias"), ("Model", "epsilon"), ("Global", "max_time")):
        del before[section][key]
    assert config_changes(before, config) == []
    other = passl.load_config(run_folder.config_file, ["Model.qkv_bias=true"])
    assert [str(change) for change in config_changes(before, other)] == [
        "Model.qkv_bias was False and is True"
    ]


def test_lists_of_components_are_compared_item_by_item(run_folder):
    config = passl.load_config(run_folder.config_file)
    key = "DataLoader.Train.dataset.transform_ops.0.NormalizeImage.std"
    other = passl.load_config(run_folder.config_file, [f"{key}=[1.0]"])
    assert [str(change) for change in config_changes(config.to_dict(), other)] == [
        "DataLoader.Train.dataset.transform_ops.0.std was [0.5] and is [1.0]"
    ]


def test_true_is_not_one(run_folder):
    one, true = (
        passl.load_config(run_folder.config_file, [f"Global.flags={{FLAGS_benchmark: {value}}}"])
        for value in ("1", "true")
    )
    assert [str(change) for change in config_changes(one.to_dict(), true)] == [
        "Global.flags.FLAGS_benchmark was 1 and is True"
    ]


def test_a_section_that_was_null_is_told_by_its_keys(run_folder):
    plain = passl.load_config(run_folder.config_file)
    sharded = passl.load_config(run_folder.config_file, ["DistributedStrategy.sharding.stage=1"])
    key = "DistributedStrategy.sharding.stage"
    there, back = (
        [str(change) for change in config_changes(before.to_dict(), now)]
        for before, now in ((plain, sharded), (sharded, plain))
    )
    assert there == [f"{key} was absent and is 1"]
    assert back == [f"{key} was 1 and is absent"]


def test_what_is_allowed_may_change_and_is_said(run_folder, capsys):
    assert run_folder.train("Global.epochs=1") == 0
    other = ("Global.epochs=2", "Optimizer.name=Momentum", "Global.seed=7")
    assert run_folder.train(*other, "Global.allow_config_change=[Optimizer.*]") == 1
    said = capsys.readouterr().err
    assert "Global.seed was 2021 and is 7" in said
    assert "Optimizer.name" not in said
    assert "-o Global.allow_config_change=[Global.seed]" in said
    assert run_folder.train(*other, "Global.allow_config_change=[Optimizer.*,Global.seed]") == 0
    assert run_folder.state()["step"] == 12
    assert "the optimizer is another one: it begins anew" in run_folder.log()
    assert set(run_folder.optimizer()) != set()


def test_other_samples_are_refused_though_the_steps_are_as_many(run_folder, capsys):
    assert run_folder.train("Global.epochs=1") == 0
    # 1420 instead of 1438 samples: the last batch is smaller, and every order is another one.
    fewer = "DataLoader.Train.dataset.val_ratio=0.21"
    assert run_folder.train("Global.epochs=2", fewer) == 1
    said = capsys.readouterr().err
    assert "number of samples in an epoch was 1438 and is 1420" in said
    assert "Global.allow_config_change=[DataLoader.Train.dataset]" in said
    assert (
        run_folder.train(
            "Global.epochs=2", fewer, "Global.allow_config_change=[DataLoader.Train.dataset]"
        )
        == 0
    )


def test_other_labels_are_refused_though_the_samples_are_as_many(run_folder, capsys, monkeypatch):
    """As after a class folder was renamed: the numbers mean other classes than before."""
    assert run_folder.train("Global.epochs=1") == 0
    load = DigitsDataset.__init__

    def relabelled(self, *arguments, **options):
        load(self, *arguments, **options)
        self.labels = (self.labels + 1) % 10

    monkeypatch.setattr(DigitsDataset, "__init__", relabelled)
    assert run_folder.train("Global.epochs=2") == 1
    said = capsys.readouterr().err
    assert "digest of the samples' labels was " in said
    assert "Global.allow_config_change=[DataLoader.Train.dataset]" in said


@pytest.mark.parametrize("name", ["labels", "classes"])
def test_what_one_of_two_starts_does_not_know_of_the_data_is_no_difference(name):
    config = SimpleNamespace(Global=SimpleNamespace(allow_config_change=[]))
    plan = {"global_batch_size": 2, "num_samples": 5, "steps_per_epoch": 3, "seed": 0,
            "num_processes": 1, "labels": "a1", "classes": "b2"}  # fmt: skip

    def check(before, now):
        check_continuable({"plan": before}, {"plan": now}, [], Path("step_00000001"), config)

    check(plan, plan)
    check({**plan, name: None}, plan)
    check(plan, {**plan, name: None})
    check({key: value for key, value in plan.items() if key != name}, plan)  # of an older version
    with pytest.raises(CheckpointError, match=f"digest of .*{name} was "):
        check({**plan, name: "c3"}, plan)


def test_the_names_of_classes_count_and_a_data_set_without_labels_has_no_digest():
    data = SimpleNamespace(labels=np.array([0, 1], np.int32), classes=["cat", "dog"])
    other = SimpleNamespace(labels=np.array([0, 1], np.int64), classes=["dog", "wolf"])
    swapped = SimpleNamespace(labels=np.array([1, 0]))
    assert labels_digest(data) == labels_digest(other) != labels_digest(swapped)
    assert classes_digest(data) != classes_digest(other)
    unknown = SimpleNamespace(labels=None, classes=None)
    assert labels_digest(unknown) is classes_digest(unknown) is None


def test_another_number_of_steps_per_epoch_cannot_be_allowed(run_folder, capsys):
    assert run_folder.train("Global.epochs=1") == 0
    other = "DataLoader.Train.sampler.batch_size=128"
    assert run_folder.train("Global.epochs=2", other, "Global.allow_config_change=['*']") == 1
    said = capsys.readouterr().err
    assert "steps per epoch was 6 and is 12" in said
    assert "allow_config_change" not in said


def test_a_run_that_continues_does_not_read_its_pretrained_weights_again(make_run):
    first, second = make_run("first"), make_run("second")
    assert first.train("Global.epochs=1") == 0
    start = first.dir / "latest" / "model.pdparams"
    options = (f"Global.pretrained_model={start}", "Global.epochs=2")
    assert second.train(*options, "Global.max_train_step=8") == 0
    start.write_bytes(b"torn")  # would be an error if it were read
    assert second.train(*options) == 0
    assert second.state()["step"] == 12


def test_an_evaluation_names_the_epoch_of_the_checkpoint(run_folder, capsys):
    for end, epoch in ((3, 1), (6, 1), (9, 2)):
        assert run_folder.train("Global.epochs=2", f"Global.max_train_step={end}") == 0
        capsys.readouterr()
        latest = f"Global.pretrained_model={run_folder.dir / 'latest'}"
        assert eval_command.main(["-c", str(run_folder.config_file), "-o", latest]) == 0
        assert f"[Eval][Epoch {epoch}][Avg]" in capsys.readouterr().out


def test_a_state_of_something_else_is_refused_in_words(run_folder, capsys):
    assert run_folder.train("Global.epochs=1") == 0
    folder = (run_folder.dir / "latest").resolve()
    (folder / "state.json").write_text("[]")
    with pytest.raises(CheckpointError, match="it is not the record of a training run"):
        read_state(folder)


def test_going_back_by_name_is_warned_of_where_it_costs_later_checkpoints(run_folder):
    assert run_folder.train("Global.epochs=2") == 0
    first, second = (
        run_folder.dir / "checkpoints" / f"step_{step:08d}" for step in (6, 12)
    )
    named = "Global.checkpoint="
    assert run_folder.train("Global.epochs=2", f"{named}{second}") == 0
    assert "the run goes back" not in run_folder.log()
    assert run_folder.train("Global.epochs=2", f"{named}{first}") == 0
    assert f"the run goes back to {first.name}: {second.name} (best leads to one" in (
        run_folder.log()
    )
