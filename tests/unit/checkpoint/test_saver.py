"""Saving beside training: the loop never waits for a disk, and a failing one costs no run."""

from __future__ import annotations

import errno
import os
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest

import passl.checkpoint.saver as module
from passl.checkpoint.files import read_arrays
from passl.checkpoint.saver import Saver
from passl.checkpoint.store import CheckpointStore
from passl.errors import CheckpointError


def parts(value: float = 0.0):
    return {
        "model.pdparams": {"w": np.full((4, 4), value, np.float32)},
        "state.json": {"value": value},
    }


class SlowStore(CheckpointStore):
    """Waits before each write until it is allowed; notes what it writes and whether two overlap."""

    def __init__(self, run_dir) -> None:
        super().__init__(run_dir, keep_latest=100)
        self.may_write = threading.Semaphore(0)
        self.has_begun = threading.Semaphore(0)
        self.written: list[int] = []
        self.errors: list[OSError] = []
        self._busy = threading.Lock()

    def save(self, step, parts, links=("latest",)):
        assert self._busy.acquire(blocking=False), "two writes at a time"
        try:
            self.has_begun.release()
            self.may_write.acquire()
            if self.errors:
                error = self.errors.pop(0)
                raise CheckpointError(f"cannot write: {error.strerror}") from error
            self.written.append(step)
            return super().save(step, parts, links)
        finally:
            self._busy.release()


@pytest.fixture
def store(tmp_path):
    made = SlowStore(tmp_path / "run")
    made.prepare()
    yield made
    for _ in range(100):
        made.may_write.release()
    made.close()


@pytest.fixture
def told():
    return []


@pytest.fixture
def saver(store, told) -> Saver:
    return Saver(store, told.append, pauses_s=(0.001, 0.001))


def leads_to(store: CheckpointStore, link: str) -> str:
    return os.readlink(store.run_dir / link).rpartition("_")[2].lstrip("0")


def writers() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name == "passl-checkpoints"]


def test_the_loop_goes_on_while_a_write_is_stuck(store, saver, told):
    saver.submit(1, parts())
    store.has_begun.acquire()
    saver.poll()
    assert told == []
    store.may_write.release()
    saver.finish()
    assert [(result.step, result.tries, result.error) for result in told] == [(1, 1, None)]
    assert told[0].folder == store.folder / "step_00000001"
    assert store.latest() == told[0].folder


def test_a_disk_that_does_not_answer_is_told_of_while_training_and_at_the_end(
    store, saver, monkeypatch, caplog
):
    now = [1000.0]
    monkeypatch.setattr(module, "_LONG_AT_END_S", 0.05)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    saver.submit(1, parts())
    store.has_begun.acquire()
    saver.poll()
    assert caplog.text == ""  # not at once
    now[0] += module._LONG_S
    saver.poll()
    saver.poll()
    assert caplog.text.count("the checkpoint of step 1 has been written to ") == 1
    assert str(store.folder) in caplog.text
    now[0] += 1.0
    released, warning = [], module.get_logger().warning

    def release_after_the_warning(*told):
        warning(*told)
        released.append(store.may_write.release())

    monkeypatch.setattr(module.get_logger(), "warning", release_after_the_warning)
    saver.finish()
    assert caplog.text.count("does not answer; those before it are kept") == 2
    assert len(released) == 1
    assert store.written == [1]


def test_of_what_is_due_during_a_write_the_newest_is_kept(store, saver):
    for step in range(1, 6):
        saver.submit(step, parts(step))
        if step == 1:
            store.has_begun.acquire()
    for _ in range(5):
        store.may_write.release()
    saver.finish()
    assert store.written == [1, 5]
    assert leads_to(store, "latest") == "5"


def test_best_gets_the_weights_of_its_own_step_however_busy_the_disk_is(store, saver):
    saver.submit(1, parts(1))
    store.has_begun.acquire()
    saver.submit(2, parts(2), ("latest", "best"), {"best": 0.2})
    saver.submit(3, parts(3))
    saver.submit(4, parts(4), ("latest", "best"), {"best": 0.4})  # 2 is no longer the best
    saver.submit(5, parts(5), ("latest", "best_ema"), {"best_ema": 0.5})
    saver.submit(6, parts(6))
    saver.submit(7, parts(7))
    for _ in range(7):
        store.may_write.release()
    saver.finish()
    assert store.written == [1, 4, 5, 7]
    assert [leads_to(store, link) for link in ("best", "best_ema", "latest")] == ["4", "5", "7"]
    assert read_arrays(store.run_dir / "best" / "model.pdparams")["w"][0, 0] == 4.0
    assert saver.scores == {"best": 0.4, "best_ema": 0.5}


def test_without_a_background_every_write_is_waited_for(store, told):
    saver = Saver(store, told.append, in_background=False)
    for step in range(1, 4):
        store.may_write.release()
        saver.submit(step, parts())
        assert [result.step for result in told] == list(range(1, step + 1))
    assert store.written == [1, 2, 3]


@pytest.mark.parametrize(
    ("code", "tries"), [(errno.EIO, 3), (errno.ESTALE, 3), (errno.ENOSPC, 1), (errno.EROFS, 1)]
)
def test_a_write_that_fails_is_given_up_with_a_reason_and_later_ones_are_made(
    store, saver, told, code, tries
):
    store.errors = [OSError(code, os.strerror(code))] * tries
    for _ in range(tries + 1):
        store.may_write.release()
    saver.submit(1, parts())
    while not told:
        saver.poll()
        time.sleep(0.001)
    assert (told[0].folder, told[0].tries) == (None, tries)
    assert os.strerror(code) in str(told[0].error)
    saver.submit(2, parts())
    saver.finish()
    assert told[1].folder == store.folder / "step_00000002"


def test_a_hiccup_of_the_disk_is_survived_with_files_written_anew(store, saver, told):
    store.errors = [OSError(errno.EIO, "Input/output error")]
    store.may_write.release()
    store.may_write.release()
    saver.submit(1, parts())
    saver.finish()
    assert (told[0].tries, told[0].error) == (2, None)
    store.verify(store.folder / "step_00000001")


def test_only_the_end_insists_on_its_checkpoint(store, saver, told):
    store.errors = [OSError(errno.ENOSPC, "No space left on device")]
    saver.submit(9, parts())
    store.may_write.release()  # it fails after the last look of the loop
    with pytest.raises(CheckpointError, match="No space left on device"):
        saver.finish()
    assert told == []  # the error says it; "training goes on" would be wrong


def test_what_failed_before_does_not_fail_the_end(store, saver, told):
    store.errors = [OSError(errno.ENOSPC, "No space left on device")]
    saver.submit(1, parts())
    store.has_begun.acquire()
    saver.submit(2, parts())
    store.may_write.release()
    store.may_write.release()
    saver.finish()
    assert [(result.step, result.folder is None) for result in told] == [(1, True), (2, False)]


def test_best_that_could_not_be_written_is_beaten_by_less(store, saver):
    store.may_write.release()
    saver.submit(1, parts(), ("latest", "best"), {"best": 0.5})
    saver.finish()
    store.errors = [OSError(errno.ENOSPC, "No space left on device")]
    saver.submit(2, parts(), ("latest", "best"), {"best": 0.9})
    assert not saver.is_better("best", 0.7)  # as long as 0.9 may still arrive
    store.may_write.release()
    with pytest.raises(CheckpointError):
        saver.finish()
    assert saver.is_better("best", 0.7)
    assert not saver.is_better("best", 0.5)
    assert leads_to(store, "best") == "1"


def test_a_link_to_nowhere_is_beaten_by_any_number(saver):
    assert saver.is_better("best", -1.0)
    assert saver.is_better("best", float("-inf"))
    assert not saver.is_better("best", float("nan"))


def test_a_defect_of_the_program_is_not_taken_for_a_failing_disk(store, saver):
    saver.submit(1, {"model.pdparams": {"w": np.array(["text"])}})
    store.may_write.release()
    with pytest.raises(TypeError, match="cannot be stored"):
        saver.finish()


def test_no_thread_stays_behind(store, saver, monkeypatch):
    before, write_all = set(threading.enumerate()), saver._write_all
    has_written = threading.Event()

    def ends_late():
        write_all()
        has_written.set()
        time.sleep(0.1)

    monkeypatch.setattr(saver, "_write_all", ends_late)
    store.may_write.release()
    saver.submit(1, parts())
    has_written.wait()
    saver.finish()
    assert set(threading.enumerate()) <= before


def test_a_failing_run_waits_a_little_and_never_raises(store, saver, told):
    saver.submit(1, parts())
    store.has_begun.acquire()
    saver.submit(2, parts())
    began = time.monotonic()
    saver.abandon(patience_s=0.05)
    assert time.monotonic() - began > 0.04
    assert told == []
    store.may_write.release()
    store.may_write.release()
    while writers():
        time.sleep(0.001)
    assert store.written == [1]  # what had begun is finished, what waited is dropped
    saver.abandon()


def test_a_failing_run_still_writes_what_it_handed_over(store, saver, told):
    saver.submit(1, parts(), ("latest", "best"), {"best": 0.5})
    store.has_begun.acquire()
    saver.submit(2, parts())
    store.may_write.release()
    store.may_write.release()
    saver.abandon()
    assert [result.step for result in told] == [1, 2]
