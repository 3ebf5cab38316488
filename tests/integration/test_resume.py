"""A run that is stopped and started again ends as one that never stopped, bit for bit."""

from __future__ import annotations

import pytest
from small_run import RunFolder, assert_same_arrays

from passl.cli import eval as eval_command
from passl.engine.resume import read_state
from passl.errors import CheckpointError

TIMES = {"batch_cost", "reader_cost", "ips", "eta", "time", "eta_s", "max_mem_gb"}


def without_times(records: list[dict]) -> list[dict]:
    return [{key: value for key, value in record.items() if key not in TIMES} for record in records]


def assert_same_run(stopped: RunFolder, whole: RunFolder) -> None:
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    assert stopped.state()["step"] == whole.state()["step"]
    assert stopped.state()["samples_seen"] == whole.state()["samples_seen"]


# 1438 training digits in batches of 256: 6 steps an epoch, the last one ragged (158 samples).
@pytest.mark.parametrize("stops", [(1,), (4,), (6,), (9, 14), (29,)], ids=str)
def test_stopping_after_any_step_changes_nothing(make_run, stops):
    whole, stopped = make_run("whole"), make_run("stopped")
    assert whole.train() == 0
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
    ],
)
def test_what_cannot_continue_is_refused(run_folder, capsys, override, sentence):
    assert run_folder.train("Global.epochs=1") == 0
    capsys.readouterr()
    assert run_folder.train("Global.epochs=2", override) == 1
    assert sentence in capsys.readouterr().err


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
