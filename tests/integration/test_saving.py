"""Checkpoints of a run on disks that are slow, full, failing or read-only: training goes on."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from small_run import RunFolder, assert_same_arrays, built, without_times

from passl.checkpoint.lock import RunLock
from passl.checkpoint.store import CheckpointStore
from passl.engine import build
from passl.engine.evaluator import EvalResult
from passl.engine.hooks.base import Hook
from passl.engine.save_clock import SaveClock
from passl.errors import CheckpointError

# 6 steps an epoch: 18 in all.
SHORT = ("Global.epochs=3",)
EVERY_STEP = ("Global.save_unit=step", "Global.save_interval=1")


class At(Hook):
    """Calls functions after chosen steps."""

    def __init__(self, actions) -> None:
        self.actions = actions

    def on_step_end(self, trainer) -> None:
        if trainer.state.step in self.actions:
            self.actions[trainer.state.step](trainer)


def short(run: RunFolder, *overrides: str):
    return built(run, *SHORT, *overrides)


def assert_same_end(run: RunFolder, whole: RunFolder) -> None:
    assert_same_arrays(run.weights(), whole.weights())
    assert_same_arrays(run.optimizer(), whole.optimizer())
    assert without_times(run.records()) == without_times(whole.records())


def step_of(run: RunFolder, link: str) -> int:
    """The step that a link leads to; the checkpoint must be whole."""
    folder = (run.dir / link).resolve()
    CheckpointStore(run.dir).verify(folder)
    return int(folder.name.partition("_")[2])


def failing_fsync(monkeypatch, is_failing, code: int = errno.EIO) -> None:
    """The disk refuses to sync files of checkpoints while ``is_failing()``."""
    fsync = os.fsync

    def sync(handle: int) -> None:
        if threading.current_thread().name == "passl-checkpoints" and is_failing():
            raise OSError(code, os.strerror(code))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", sync)


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> RunFolder:
    """A run on a good disk that waits for each of its checkpoints."""
    run = RunFolder(tmp_path_factory.mktemp("saving") / "whole")
    assert run.train(*SHORT, "Global.save_in_background=false") == 0
    return run


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of four megabytes."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


# -- beside training -------------------------------------------------------------------------------


def test_what_is_saved_does_not_change_with_the_steps_after_it(run_folder):
    taken = {}

    def take(trainer) -> None:
        trainer.saving.note_in_state()
        taken.update(trainer.saving.contents())
        for name in ("model.pdparams", "optimizer.pdopt"):
            taken[name + " copied"] = {key: a.copy() for key, a in taken[name].items()}

    run = short(run_folder)
    run.trainer.parts.hooks = [At({7: take})]
    run.fit()
    for name in ("model.pdparams", "optimizer.pdopt"):
        assert_same_arrays(taken[name], taken[name + " copied"])
    assert taken["state.json"]["state"]["step"] == 7
    last = run_folder.weights()
    assert any((last[name] != value).any() for name, value in taken["model.pdparams"].items())


def test_a_slow_disk_holds_up_no_step_and_changes_nothing(run_folder, whole, monkeypatch):
    save, written, steps = CheckpointStore.save, [], []

    def slow_save(self, step, *arguments):
        assert threading.current_thread() is not threading.main_thread()
        written.append(step)
        while len(written) == 1 and len(steps) < 15:  # the first write takes 14 steps
            time.sleep(0.001)
        return save(self, step, *arguments)

    monkeypatch.setattr(CheckpointStore, "save", slow_save)
    run = short(run_folder, *EVERY_STEP)
    run.trainer.parts.hooks = [
        At({step: lambda trainer: steps.append(trainer.state.step) for step in range(1, 19)})
    ]
    run.fit()
    assert written[0] == 1
    assert written[-1] == 18
    # Those of the evaluations keep the weights of their own steps, if they were the best.
    bests = {record["step"] for record in whole.records("eval") if record["step"] < 15}
    assert set(written[1:]) & set(range(1, 14)) <= bests
    assert_same_end(run_folder, whole)
    assert step_of(run_folder, "best") == step_of(whole, "best")
    assert_same_arrays(run_folder.weights("best"), whole.weights("best"))


def test_the_clock_decides_when_to_save_and_nothing_else(run_folder, whole):
    run = short(run_folder, "Global.save_unit=minute", "Global.save_interval=1")
    seconds = iter(range(0, 10_000, 25))
    run.trainer.saving.clock = SaveClock(60.0, lambda: float(next(seconds)))
    run.trainer.parts.saver._in_background = False
    run.fit()
    saved = [int(step) for step in re.findall(r"saved \S+/step_(\d+)", run_folder.log())]
    assert len(saved) > 5
    assert set(saved) - {6, 12, 18}, "evaluations alone do not explain them"
    assert_same_end(run_folder, whole)


def test_without_a_background_every_due_step_is_saved(run_folder):
    assert (
        run_folder.train(
            *SHORT,
            *EVERY_STEP,
            "Global.save_in_background=false",
            "Global.max_num_latest_checkpoint=100",
        )
        == 0
    )
    names = [path.name for path in (run_folder.dir / "checkpoints").iterdir()]
    assert sorted(names) == [f"step_{step:08d}" for step in range(1, 19)]


def test_an_exception_leaves_no_thread_and_no_lock(run_folder):
    run = short(run_folder, *EVERY_STEP)

    def fail(trainer) -> None:
        raise RuntimeError("a mistake")

    run.trainer.parts.hooks = [At({5: fail})]
    with pytest.raises(RuntimeError, match="a mistake"):
        run.fit()
    assert [t.name for t in threading.enumerate() if t.name == "passl-checkpoints"] == []
    assert step_of(run_folder, "latest") == 4, "what was handed over is written"
    assert RunLock(run_folder.dir).acquire(patience_s=0.0) is None


# -- disks that fail -------------------------------------------------------------------------------


def test_a_disk_that_fails_for_a_while_costs_only_its_checkpoints(run_folder, whole, monkeypatch):
    state = {"fails": False}
    failing_fsync(monkeypatch, lambda: state["fails"])
    run = short(run_folder, *EVERY_STEP)
    run.trainer.parts.saver._pauses_s = (0.001,)
    run.trainer.parts.saver._in_background = False

    def set_to(fails: bool):
        return lambda trainer: state.update(fails=fails)

    run.trainer.parts.hooks = [At({5: set_to(True), 14: set_to(False)})]
    run.fit()
    monkeypatch.undo()
    log = run_folder.log()
    assert "step 9 is not saved after 2 tries, training goes on: cannot write checkpoint" in log
    assert "the disk reported an input/output error" in log
    assert "step 13 is not saved" in log
    assert "step 14 is not saved" not in log
    assert_same_end(run_folder, whole)
    assert step_of(run_folder, "latest") == 18


def test_a_hiccup_of_the_disk_is_not_even_a_warning(run_folder, whole, monkeypatch):
    calls = []
    failing_fsync(monkeypatch, lambda: calls.append(None) or len(calls) == 3)
    run = short(run_folder)
    run.trainer.parts.saver._pauses_s = (0.001,)
    run.fit()
    monkeypatch.undo()
    assert "at the 2th try" not in run_folder.log()
    assert "at try 2" in run_folder.log()
    assert "WARN" not in run_folder.log()
    assert_same_end(run_folder, whole)


def test_a_disk_that_fails_at_the_end_fails_the_run_and_keeps_what_is_there(
    run_folder, monkeypatch, capfd
):
    assert run_folder.train(*SHORT, "Global.max_train_step=8") == 0
    before = {link: step_of(run_folder, link) for link in ("latest", "best")}
    with monkeypatch.context() as patch:
        failing_fsync(patch, lambda: True, errno.EDQUOT)
        assert run_folder.train(*SHORT, "Global.eval_during_train=false") == 1
    said = capfd.readouterr().err
    assert "cannot write checkpoint" in said
    assert "your disk quota is used up" in said
    assert {link: step_of(run_folder, link) for link in ("latest", "best")} == before
    assert run_folder.train(*SHORT) == 0


def test_a_start_on_a_failing_disk_is_told_in_a_sentence(run_folder, monkeypatch, capfd):
    assert run_folder.train("Global.epochs=1") == 0

    def fail(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    assert run_folder.train(*SHORT) == 1
    assert "metrics.jsonl: the disk is full" in capfd.readouterr().err


def test_best_leads_to_an_older_one_if_the_best_cannot_be_written(run_folder, monkeypatch):
    save = CheckpointStore.save

    def failing_save(self, step, *arguments):
        if step == 6:
            raise CheckpointError("cannot write checkpoint: the disk is full.")
        return save(self, step, *arguments)

    values = iter([0.25, 0.75, 0.5, 0.125])

    def evaluate(self, poll):
        return EvalResult({"loss": 1.0, "top1": 0.0, "metric": next(values)}, 359, 1.0)

    monkeypatch.setattr(CheckpointStore, "save", failing_save)
    # Evaluations after steps 3, 6, 9 and 10; only that of step 6 cannot be saved.
    run = short(run_folder, "Global.eval_unit=step", "Global.eval_interval=3", *EVERY_STEP)
    run.trainer.plan = type(run.trainer.plan)(**{**vars(run.trainer.plan), "last_step": 10})
    run.trainer.parts.saver._in_background = False
    monkeypatch.setattr(type(run.trainer.validation), "of_weights", evaluate)
    seen = {}
    run.trainer.parts.hooks = [
        At({8: lambda trainer: seen.update(best=step_of(run_folder, "best"))})
    ]
    state = run.fit()
    log = run_folder.log()
    assert seen["best"] == 3
    assert "step 6 is not saved, training goes on" in log
    assert "best keeps leading to an older one" in log
    # 0.5 is not the best, but better than what could be saved; the state does not pretend.
    assert step_of(run_folder, "best") == 9
    assert (state.best.metric, state.best.step) == (0.75, 6)
    assert "best leads to a checkpoint of 0.50000" in log


def test_a_full_disk_costs_the_checkpoints_until_there_is_room_again(small_disk, whole, capfd):
    run_folder = RunFolder(small_disk / "run")
    run = short(run_folder, *EVERY_STEP)
    run.trainer.parts.saver._in_background = False
    ballast = small_disk / "ballast"

    def fill(trainer) -> None:
        handle = os.open(ballast, os.O_WRONLY | os.O_CREAT)
        for size in (1 << 16, 1 << 12, 1):
            with suppress(OSError):
                while os.write(handle, bytes(size)) == size:
                    pass
        os.close(handle)
        assert os.statvfs(small_disk).f_bavail == 0

    run.trainer.parts.hooks = [At({8: fill, 14: lambda trainer: ballast.unlink()})]
    run.fit()
    said = capfd.readouterr()  # not in the log, which is on that disk
    assert "step 10 is not saved, training goes on: cannot write checkpoint" in said.out + said.err
    assert step_of(run_folder, "latest") == 18
    assert_same_arrays(run_folder.weights(), whole.weights())
    assert_same_arrays(run_folder.optimizer(), whole.optimizer())


def test_a_disk_that_stays_full_fails_the_run_at_its_end(small_disk, capfd):
    run_folder = RunFolder(small_disk / "run")
    assert run_folder.train(*SHORT, "Global.max_train_step=8") == 0
    before = {link: step_of(run_folder, link) for link in ("latest", "best")}
    ballast = small_disk / "ballast"
    free = os.statvfs(small_disk)
    ballast.write_bytes(bytes(free.f_bavail * free.f_frsize - 20_000))
    assert run_folder.train(*SHORT) == 1
    assert "Free some space or choose another Global.output_dir" in capfd.readouterr().err
    assert {link: step_of(run_folder, link) for link in ("latest", "best")} == before
    ballast.unlink()
    assert run_folder.train(*SHORT) == 0
    assert step_of(run_folder, "latest") == 18


def test_a_folder_that_turns_read_only_is_said_and_fails_only_the_end(run_folder, capfd):
    checkpoints = run_folder.dir / "checkpoints"
    run = short(run_folder, *EVERY_STEP)
    run.trainer.parts.saver._in_background = False
    mounted = []

    def make_read_only(trainer) -> None:
        bind = ["mount", "--bind", str(checkpoints), str(checkpoints)]
        if subprocess.run(bind, capture_output=True, check=False).returncode:
            pytest.skip("needs the right to mount")
        mounted.append(checkpoints)
        subprocess.run(["mount", "-o", "remount,bind,ro", str(checkpoints)], check=True)

    run.trainer.parts.hooks = [At({8: make_read_only})]
    try:
        with pytest.raises(CheckpointError, match="the file system is read-only"):
            run.fit()
        assert run.trainer.state.step == 18
        assert step_of(run_folder, "latest") == 7
        assert "step 9 is not saved, training goes on" in run_folder.log()
    finally:
        for place in mounted:
            subprocess.run(["umount", str(place)], check=True)
    assert run_folder.train(*SHORT) == 0


# -- two runs --------------------------------------------------------------------------------------


def test_a_second_run_in_the_same_folder_is_refused_and_touches_nothing(
    run_folder, capsys, monkeypatch
):
    monkeypatch.setattr(RunLock.acquire, "__defaults__", (0.0,))
    first = short(run_folder)
    (run_folder.dir / "metrics.jsonl").write_text('{"kind": "train", "step": 1}\n')
    log = run_folder.log()
    assert run_folder.train(*SHORT) == 1
    said = capsys.readouterr().err
    assert "is in use by another run of this very process" in said
    assert (run_folder.dir / "metrics.jsonl").read_text() == '{"kind": "train", "step": 1}\n'
    assert run_folder.log() == log
    first.fit()
    assert run_folder.train(*SHORT) == 0  # a run that ended keeps nobody out
    short(run_folder).close()
    assert run_folder.train(*SHORT) == 0  # nor does one that was closed


def test_a_run_that_ended_while_another_started_anew_is_not_overwritten(
    run_folder, monkeypatch, capsys
):
    """``Global.checkpoint: null`` looks before the seconds of Paddle's import, and after."""
    original = build.import_paddle

    def meanwhile():
        (run_folder.dir / "checkpoints" / "step_00000007").mkdir(parents=True)
        return original()

    monkeypatch.setattr(build, "import_paddle", meanwhile)
    assert run_folder.train("Global.checkpoint=null") == 2
    assert "already holds step_00000007 of an earlier run" in capsys.readouterr().err
    assert not (run_folder.dir / "train.log").exists()


def test_a_start_that_fails_keeps_nobody_out(run_folder, capsys):
    assert run_folder.train("Global.epochs=1") == 0
    assert run_folder.train("Global.epochs=2", "Global.seed=7") == 1
    assert RunLock(run_folder.dir).acquire(patience_s=0.0) is None
