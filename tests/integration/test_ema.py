"""The averaged weights in real runs: evaluated, saved, continued, never pruned, evaluated alone."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest
from small_run import RunFolder, assert_same_arrays, without_times
from spoiled import spoiled_data
from started import ends_of_starts

from passl import build_run, load_config
from passl.checkpoint.files import read_arrays
from passl.cli import eval as eval_command
from passl.engine.stopping import RunStopped

EMA = ("EMA={decay: 0.95}", "Global.save_unit=step")


def averaged(run: RunFolder, link: str = "latest") -> dict[str, np.ndarray]:
    return read_arrays(run.dir / link / "ema.pdparams")


def assert_same_run(stopped: RunFolder, whole: RunFolder) -> None:
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    assert_same_arrays(averaged(stopped), averaged(whole))
    assert stopped.state()["ema"] == whole.state()["ema"]


def assert_same_average(stopped: RunFolder, whole: RunFolder) -> None:
    assert_same_run(stopped, whole)
    assert_same_arrays(averaged(stopped, "best_ema"), averaged(whole, "best_ema"))
    for field in ("best", "best_ema", "bad_steps", "skipped_steps"):
        assert stopped.state()[field] == whole.state()[field], field
    for kind in ("train", "eval", "bad_step"):
        assert without_times(stopped.records(kind)) == without_times(whole.records(kind))


def test_both_weights_are_evaluated_logged_and_linked(run_folder):
    assert run_folder.train("EMA={decay: 0.95, eval_start_epoch: 1}", "Global.epochs=3") == 0
    records = run_folder.records("eval")
    assert ["ema_top1" in record for record in records] == [False, True, True]
    assert {"ema_loss", "ema_top5", "ema_metric", "best_ema"} <= records[-1].keys()
    assert records[-1]["best_ema"] == max(record["ema_metric"] for record in records[1:])
    assert records[-1]["ema_loss"] != records[-1]["loss"]
    log = run_folder.log()
    assert "[Eval][Epoch 1][Avg]ema_" not in log
    assert "[Eval][Epoch 2][Avg]ema_CELoss: " in log
    assert ", ema_top1: " in log
    assert "[Eval][Epoch 3][best ema_metric: " in log
    assert f"averaged weights: {run_folder.dir}/best_ema/ema.pdparams" in log
    best = run_folder.state("best_ema")["best_ema"]
    assert best["metric"] == records[-1]["best_ema"]
    assert averaged(run_folder).keys() == run_folder.weights().keys()
    assert run_folder.state()["ema"] == {"updates": 18, "steps": 18}


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ("every: 13", "EMA.every: 13 is more than the 12 steps of the run: the average stays as"),
        ("every: 12", None),
        ("eval_start_epoch: 2", "EMA.eval_start_epoch: the average is evaluated in epochs after 2, "
         "and the run has 2: never, and there will be no best_ema"),
        ("eval_start_epoch: 1", None),
        ("eval_start_epoch: null", None),
    ],
)  # fmt: skip
def test_an_average_that_would_never_move_or_be_evaluated_is_told_of(run_folder, setting, told):
    build_run(
        load_config(run_folder.config_file, [f"EMA={{{setting}}}", "Global.epochs=2"])
    ).close()
    assert (told in run_folder.log()) if told else ("EMA." not in run_folder.log())


def test_the_average_begins_with_the_pretrained_weights(make_run):
    first, second = make_run("first"), make_run("second")
    assert first.train("Global.epochs=1") == 0
    start = f"Global.pretrained_model={first.dir / 'latest'}"
    options = ("EMA={decay: 0.999, warmup: false}", start, "Global.max_train_step=1")
    assert second.train(*options, "LRScheduler.warmup_steps=0") == 0
    before, after, got = first.weights(), second.weights(), averaged(second)
    name = "blocks.0.mlp.fc1.weight"
    assert (before[name] != after[name]).any()
    wanted = before[name] + np.float32(0.001) * (after[name] - before[name])
    np.testing.assert_allclose(got[name], wanted, rtol=1e-6, atol=1e-9)


def test_passl_eval_of_best_ema_gives_the_figure_of_the_run(run_folder, capsys):
    assert run_folder.train("EMA={decay: 0.95}", "Global.epochs=3") == 0
    best = run_folder.state()["best_ema"]["metric"]
    for name in ("best_ema", "best_ema/ema.pdparams", "best_ema/ema"):
        path = f"Global.pretrained_model={run_folder.dir / name}"
        assert eval_command.main(["-c", str(run_folder.config_file), "-o", path]) == 0
        out = capsys.readouterr().out
        assert f"weights from {run_folder.dir}" in out
        assert "/ema.pdparams: " in out
        assert f"metric: {best:.5f}" in out


@pytest.mark.parametrize("stops", [(5,), (8, 11)], ids=str)
def test_stopping_changes_nothing_of_the_average(make_run, stops):
    whole, stopped = make_run("whole"), make_run("stopped")
    assert whole.train(*EMA, "Global.epochs=2") == 0
    for step in stops:
        # An evaluation is made where a run ends, so that of the whole run is left out.
        options = (*EMA, "Global.epochs=2", "Global.eval_during_train=false")
        assert stopped.train(*options, f"Global.max_train_step={step}") == 0
    assert stopped.train(*EMA, "Global.epochs=2") == 0
    assert_same_run(stopped, whole)


def test_best_ema_is_never_pruned(run_folder):
    # The average of the first epoch is the best one: after it the rate destroys what was learned.
    options = (*EMA, "Global.save_interval=1", "LRScheduler.learning_rate=0.003")
    assert run_folder.train(*options, "Global.epochs=2") == 0
    best = run_folder.state()["best_ema"]
    assert best["step"] in (6, 12)
    ruined = (*EMA, "Global.save_interval=1", "LRScheduler.learning_rate=3.0")
    assert run_folder.train(*ruined, "Global.epochs=5") == 0
    assert run_folder.state()["best_ema"] == best
    assert (run_folder.dir / "best_ema").resolve().name == f"step_{best['step']:08d}"
    assert averaged(run_folder, "best_ema")
    assert len(list((run_folder.dir / "checkpoints").glob("step_*"))) <= 4


def test_an_average_may_be_added_to_a_run_and_left_out_again(run_folder):
    assert run_folder.train("Global.epochs=1") == 0
    assert run_folder.train("EMA={decay: 0.9}", "Global.epochs=2") == 0
    assert "holds no averaged weights; the average begins here" in run_folder.log()
    assert run_folder.state()["ema"] == {"updates": 6, "steps": 6}
    best = run_folder.state()["best_ema"]
    assert run_folder.train("Global.epochs=3") == 0
    assert "are not used: there is no section EMA" in run_folder.log()
    assert run_folder.state()["ema"] == {}
    assert run_folder.state()["best_ema"] == best


def test_a_stop_in_the_evaluation_of_the_average_leaves_no_trace(make_run):
    whole, stopped = make_run("whole"), make_run("stopped")
    for run in (whole, stopped):
        done = run.root / "done"
        if run is whole:
            done.touch()
        # Four batches an evaluation: the sixth call is in that of the average of the first epoch.
        hook = f"{{SignalInEvaluation: {{call: 6, number: {int(signal.SIGTERM)}, done: {done}}}}}"
        config = load_config(
            run.config_file,
            [
                "EMA={decay: 0.95}", "Global.epochs=2", "Global.imports=[slow_parts]",
                f"Metric.Eval=[{{TopkAcc: {{topk: [1, 5]}}}}, {hook}]",
                "DataLoader.Eval.sampler.batch_size=100",
            ],
        )  # fmt: skip
        if run is stopped:
            first = build_run(config)
            with pytest.raises(RunStopped, match="after step 6, before the evaluation that is due"):
                first.fit()
            assert run.state()["evaluation_due"]
            assert run.state()["best"] is run.state()["best_ema"] is None
            own = {name: value.numpy() for name, value in first.model.state_dict().items()}
            assert_same_arrays(run.weights(), own)
        build_run(config).fit()
    assert_same_average(stopped, whole)


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 7, 11])
def test_a_killed_run_with_average_and_bad_steps_ends_as_one_never_killed(
    make_run, repo, user_environment, step
):
    helpers = str(repo / "tests" / "helpers")
    environment = {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}
    whole, killed = make_run("whole"), make_run("killed")
    for run in (whole, killed):
        done = run.root / "done"
        if run is whole:
            done.touch()
        options = (
            *spoiled_data(5, 700), *EMA, "Global.epochs=3", "Global.save_interval=2",
            f"Hooks=[{{name: KillOnce, step: {step}, done: {done}}}]",
        )  # fmt: skip
        ends = ends_of_starts(run, environment, *options)
        assert ends == ([0] if run is whole else [-signal.SIGKILL, 0])
    assert whole.state()["bad_steps"] > 0
    assert os.path.exists(killed.root / "done")
    assert_same_average(killed, whole)
