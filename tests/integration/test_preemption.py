"""A run that is asked to stop saves, says 75, and goes on as if it had never stopped."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
from small_run import RunFolder, assert_same_arrays, built, without_times
from started import start_training

from passl.checkpoint.store import CheckpointStore
from passl.cli import eval as evaluate
from passl.config import load_config
from passl.engine.build import build_run
from passl.engine.hooks.base import Hook
from passl.engine.stopping import RunStopped, StopRequest

# 359 digits to evaluate in 6 batches; 6 steps an epoch, evaluated and saved at its end.
SHORT = ("Global.epochs=3", "DataLoader.Eval.sampler.batch_size=64", "Global.imports=[slow_parts]")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def signal_at(step: int, number: int, done: Path, times: int = 1) -> str:
    return (
        f"Hooks=[{{name: SignalAt, step: {step}, number: {number}, times: {times}, done: {done}}}]"
    )


def signal_in_evaluation(call: int, number: int, done: Path) -> str:
    ours = f"{{SignalInEvaluation: {{call: {call}, number: {number}, done: {done}}}}}"
    return f"Metric.Eval=[{{TopkAcc: {{topk: [1, 5]}}}}, {ours}]"


def assert_same_end(stopped: RunFolder, whole: RunFolder) -> None:
    """Weights, optimizer, best, counters and every recorded figure, bit for bit."""
    for link in ("latest", "best"):
        assert_same_arrays(stopped.weights(link), whole.weights(link))
        assert_same_arrays(stopped.optimizer(link), whole.optimizer(link))
        mine, theirs = stopped.state(link), whole.state(link)
        for state in (mine, theirs):
            del state["train_time_s"], state["hooks"]
        assert mine == theirs
    assert without_times(stopped.records()) == without_times(whole.records())


def saved_step(run: RunFolder) -> int:
    """The step of the newest checkpoint, which must be whole."""
    store = CheckpointStore(run.dir)
    folder = store.latest()
    assert folder is not None
    assert store.skipped == []
    return int(folder.name.partition("_")[2])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    """A run that is never stopped."""
    run = RunFolder(tmp_path_factory.mktemp("preemption") / "whole")
    assert run.train(*SHORT) == 0
    return run


# Step 6 ends an epoch, with an evaluation and a checkpoint due; 18 is the last step.
@pytest.mark.parametrize(
    ("step", "number"),
    [
        (1, signal.SIGTERM),
        (6, signal.SIGTERM),
        (18, signal.SIGTERM),
        (9, signal.SIGINT),
        (9, signal.SIGUSR1),
        pytest.param(9, signal.SIGHUP, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_a_signal_ends_the_step_and_saves_it(run_folder, whole, capfd, step, number):
    before = [signal.getsignal(other) for other in SIGNALS]
    overrides = (*SHORT, signal_at(step, number, run_folder.root / "done", times=3))
    assert run_folder.train(*overrides) == 75
    said = capfd.readouterr().err
    assert f"stopped after step {step}" in said
    assert f"by {number.name}; the state is saved" in said
    assert said.count("run the same command again to continue") == 1
    assert saved_step(run_folder) == step
    assert [signal.getsignal(other) for other in SIGNALS] == before
    assert run_folder.train(*overrides) == 0
    assert_same_end(run_folder, whole)


@pytest.fixture(scope="module")
def whole_with_signal(tmp_path_factory) -> RunFolder:
    """A run whose evaluation has the metric that sends a signal, after it was sent."""
    run = RunFolder(tmp_path_factory.mktemp("with_signal") / "whole")
    done = run.root / "done"
    done.touch()
    assert run.train(*SHORT, signal_in_evaluation(1, signal.SIGTERM, done)) == 0
    return run


@pytest.mark.parametrize("call", [1, 3, 6, 8, 18], ids=lambda call: f"evaluation batch {call}")
def test_an_evaluation_that_was_cut_off_is_made_after_the_resume(
    run_folder, whole_with_signal, call
):
    # Calls 1 to 6 are the first evaluation, after step 6; 13 to 18 the last one, after step 18.
    done = run_folder.root / "done"
    evaluation = signal_in_evaluation(call, signal.SIGTERM, done)
    first = run_folder.train(*SHORT, evaluation)
    cut_off = call % 6 != 0  # in the last batch there is nothing left to cut off
    number = (call - 1) // 6 + 1
    if cut_off:
        assert first == 75
        state = run_folder.state()
        assert (state["step"], state["evaluation_due"]) == (6 * number, True)
        assert len(run_folder.records("eval")) == number - 1
        assert state["last_eval"].get("step", 0) == 6 * (number - 1)
    else:
        assert first == (0 if call == 18 else 75)
        assert not run_folder.state()["evaluation_due"]
        assert len(run_folder.records("eval")) == number
    assert run_folder.train(*SHORT, evaluation) == 0
    assert done.exists()
    assert_same_end(run_folder, whole_with_signal)


def test_twice_in_a_row_before_and_in_the_same_evaluation(run_folder, whole):
    at_step = signal_at(6, signal.SIGTERM, run_folder.root / "first")
    assert run_folder.train(*SHORT, at_step) == 75
    in_evaluation = signal_in_evaluation(2, signal.SIGUSR1, run_folder.root / "second")
    assert run_folder.train(*SHORT, at_step, in_evaluation) == 75
    assert run_folder.state()["evaluation_due"]
    assert run_folder.train(*SHORT, at_step) == 0
    assert_same_end(run_folder, whole)


def test_a_kill_between_a_late_evaluation_and_its_checkpoint_records_it_once(run_folder, whole):
    """The evaluation that is made up for is not in the checkpoint until the next one."""
    overrides = (*SHORT, signal_at(6, signal.SIGTERM, run_folder.root / "done"))
    assert run_folder.train(*overrides) == 75
    with open(run_folder.dir / "metrics.jsonl", "a") as file:
        record = next(record for record in whole.records("eval") if record["step"] == 6)
        file.write(json.dumps(record) + "\n")
    assert run_folder.train(*overrides) == 0
    assert_same_end(run_folder, whole)


def test_a_wish_during_the_build_stops_before_the_first_step(run_folder, whole):
    overrides = (*SHORT, signal_at(0, signal.SIGTERM, run_folder.root / "done"))
    assert run_folder.train(*overrides) == 75
    assert "stopped after step 0, by SIGTERM; nothing was trained yet" in run_folder.log()
    assert not (run_folder.dir / "latest").exists()
    assert run_folder.train(*overrides) == 0
    assert_same_end(run_folder, whole)


def test_a_wish_during_a_checkpoint_is_honoured_right_after_it(run_folder, whole, monkeypatch):
    save = CheckpointStore.save
    steps, asked = [], run_folder.root / "asked"
    # The checkpoint of step 6 is written beside the training, which waits for it at the next step.
    hold = f"Hooks=[{{name: Hold, step: 7, until: {asked}}}]"

    def save_with_signal(self, step, *arguments, **named):
        steps.append(step)
        if len(steps) == 1:
            signal.raise_signal(signal.SIGTERM)
            asked.touch()
        return save(self, step, *arguments, **named)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointStore, "save", save_with_signal)
        assert run_folder.train(*SHORT, hold) == 75
    assert steps in ([6], [6, 7])
    assert saved_step(run_folder) == steps[-1]
    assert run_folder.train(*SHORT) == 0
    assert_same_end(run_folder, whole)


def test_a_wish_that_comes_after_the_last_step_is_done_changes_nothing(run_folder, monkeypatch):
    from passl.engine.reports.reporting import Reporter

    finished = Reporter.finished

    def finished_with_signal(self, trainer):
        signal.raise_signal(signal.SIGTERM)
        finished(self, trainer)

    monkeypatch.setattr(Reporter, "finished", finished_with_signal)
    assert run_folder.train("Global.epochs=1") == 0
    assert "done: 6 steps" in run_folder.log()


def test_a_full_disk_at_the_stop_is_a_failure_and_keeps_the_old_checkpoint(
    run_folder, monkeypatch, capfd
):
    save = CheckpointStore.save

    def full(self, step, *arguments, **named):
        if step == 9:
            raise train_error
        return save(self, step, *arguments, **named)

    from passl.errors import CheckpointError

    train_error = CheckpointError("cannot write checkpoint: no space")
    monkeypatch.setattr(CheckpointStore, "save", full)
    overrides = (*SHORT, signal_at(9, signal.SIGTERM, run_folder.root / "done"))
    assert run_folder.train(*overrides) == 1
    assert "no space" in capfd.readouterr().err
    assert saved_step(run_folder) == 6


def test_max_time_ends_the_run_and_the_next_start_goes_on(run_folder, whole):
    pause = "Hooks=[{name: Pause, seconds: 0.1}]"
    assert run_folder.train(*SHORT, pause, "Global.max_time=0.6s") == 75
    assert "by Global.max_time (0.6 s)" in run_folder.log()
    assert 0 < saved_step(run_folder) < 18
    assert run_folder.train(*SHORT) == 0
    assert_same_end(run_folder, whole)


def test_a_max_time_without_room_for_a_step_is_told(run_folder):
    assert run_folder.train(*SHORT, "Global.max_time=0.001s") == 75
    assert "no step fits into that time; run the command again with a larger" in run_folder.log()


def test_the_file_stop_ends_a_run_and_is_removed(run_folder, whole):
    run = built(run_folder, *SHORT)
    run.trainer.parts.hooks = [TouchesStop(7)]
    with pytest.raises(RunStopped, match=r"after step [78], by .*/STOP; the state is saved"):
        run.fit()
    assert not (run_folder.dir / "STOP").exists()
    assert saved_step(run_folder) in (7, 8)
    assert run_folder.train(*SHORT) == 0
    assert_same_end(run_folder, whole)


class TouchesStop(Hook):
    """A person who asks for the end of the run, after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, trainer) -> None:
        if trainer.state.step == self.step:
            (trainer.parts.reporter.run_dir / "STOP").touch()


def test_a_stop_right_after_a_start_from_a_named_checkpoint_is_saved_here(make_run, whole):
    other, run_folder = make_run("other"), make_run("here")
    assert other.train(*SHORT, "Global.max_train_step=7") == 0
    named = f"Global.checkpoint={other.dir}/latest"
    run_folder.dir.mkdir(parents=True)
    (run_folder.dir / "STOP").touch()
    assert run_folder.train(*SHORT, named) == 75
    assert saved_step(run_folder) == 7
    assert "run the command again with -o Global.checkpoint=auto" in run_folder.log()
    assert run_folder.train(*SHORT) == 0
    assert_same_arrays(run_folder.weights(), whole.weights())
    assert_same_arrays(run_folder.optimizer(), whole.optimizer())


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1x30m", "'1x30m' is no length of time; write seconds, or 45m, 1h30m, 2d"),
        ("-5", "-5.0 is not above zero"),
        ("''", "'' is no length of time"),
        ("0h", "'0h' is not above zero"),
    ],
)
def test_a_wrong_max_time_never_starts(run_folder, capsys, text, sentence):
    assert run_folder.train(f"Global.max_time={text}") == 2
    said = capsys.readouterr().err
    assert sentence in said
    assert "Global.max_time" in said


def test_from_python_a_stop_is_an_exception_and_needs_no_main_thread(run_folder):
    run = build_run(load_config(run_folder.config_file, ["Global.imports=[slow_parts]"]), "train")
    request, caught = StopRequest(), []
    run.trainer.parts.hooks = [StopsAt(4, request)]

    def fit() -> None:
        try:
            run.fit(stop=request)
        except RunStopped as error:
            caught.append(error)

    thread = threading.Thread(target=fit)
    thread.start()
    thread.join()
    assert "stopped after step 4, by the notebook" in str(caught[0])
    assert saved_step(run_folder) == 4


def test_a_stopped_run_can_be_evaluated_and_that_evaluation_be_stopped(run_folder):
    request = StopRequest()
    request.set("somebody")
    run = build_run(load_config(run_folder.config_file), "train")
    with pytest.raises(RunStopped, match="somebody"):
        run.fit(stop=request)
    assert run.evaluate().samples == 359
    with pytest.raises(RunStopped, match="no result"):
        run.evaluate(stop=request)


class StopsAt(Hook):
    """A hook that asks from Python."""

    def __init__(self, step: int, request: StopRequest) -> None:
        self.step, self.request = step, request

    def on_step_end(self, trainer) -> None:
        if trainer.state.step == self.step:
            self.request.set("the notebook")


# -- processes of their own ------------------------------------------------------------------------


@pytest.fixture
def environment(user_environment, repo) -> dict[str, str]:
    helpers = str(repo / "tests" / "helpers")
    return {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}


@pytest.mark.parametrize("moment", ["while Paddle is imported", "while it trains"])
def test_a_process_that_is_told_three_times_ends_once(
    run_folder, whole, environment, moment, tmp_path
):
    """Paddle's import puts a handler of its own over that of SIGTERM; it must not stay."""
    held = tmp_path / "held"
    hold = f"Hooks=[{{name: Hold, step: 3, reached: {held}}}]"
    with start_training(run_folder, environment, *SHORT, hold) as started:
        if moment == "while it trains":
            started.wait_for_file(held)
        else:
            libraries = Path(f"/proc/{started.process.pid}/maps")
            started.wait_until(lambda: "libpaddle" in libraries.read_text(), "Paddle is loaded")
        for _ in range(3):
            started.send(signal.SIGTERM)
        assert started.end() == 75, started.text
    assert started.text.count("run the same command again to continue") == 2  # log and command
    assert "Termination signal" not in started.text
    assert run_folder.train(*SHORT) == 0
    assert_same_end(run_folder, whole)


def test_an_evaluation_that_is_stopped_has_no_result(run_folder, environment):
    assert run_folder.train("Global.epochs=1") == 0
    evaluation = signal_in_evaluation(2, signal.SIGTERM, run_folder.root / "done")
    overrides = (*SHORT, evaluation)
    with start_training(run_folder, environment, *overrides, command="eval.py") as started:
        assert started.end() == 75, started.text
    assert "there is no result: run the same command again" in started.text
    assert "evaluated 359 samples" not in started.text
    assert evaluate.main(["-c", str(run_folder.config_file), "-o", *overrides]) == 0
    assert "evaluated 359 samples" in run_folder.log("eval.log")


def test_arrays_are_compared_bit_for_bit():
    with pytest.raises(AssertionError):
        assert_same_arrays({"w": np.float32([1])}, {"w": np.nextafter(np.float32([1]), 2)})
