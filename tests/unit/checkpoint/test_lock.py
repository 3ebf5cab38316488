"""Two runs never write into one folder, and nobody who is dead keeps another out."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from passl.checkpoint import file_lock as lock_module
from passl.checkpoint.lock import RunLock
from passl.checkpoint.store import CheckpointStore
from passl.errors import CheckpointError

_HOLDER = """
import sys, time
from pathlib import Path
from passl.checkpoint.lock import RunLock
lock = RunLock(Path(sys.argv[1]))
lock.acquire()
print("locked", flush=True)
time.sleep(3600)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that has the lock of ``tmp_path``."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path, holder):
    with pytest.raises(CheckpointError) as caught:
        RunLock(tmp_path).acquire(patience_s=0.0)
    said = str(caught.value)
    host = socket.gethostname()
    assert said.startswith(
        f"{tmp_path} is in use by another run (process {holder.pid} on {host}, since "
        f"{time.strftime('%Y-')}"
    )
    assert f"touch {tmp_path / 'STOP'}" in said
    assert "-o Global.output_dir=PATH" in said


def test_a_killed_run_keeps_nobody_out(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    assert RunLock(tmp_path).acquire(patience_s=300) is None  # until the kernel is done with it
    assert (tmp_path / "run.lock").read_text().startswith(f'{{"pid": {os.getpid()}')


def test_a_file_of_a_lock_locks_nothing(tmp_path):
    (tmp_path / "run.lock").write_text('{"pid": 1, "host": "somewhere", "since": "yesterday"}')
    assert RunLock(tmp_path).acquire(patience_s=0.0) is None


def test_two_runs_of_one_process_are_refused_as_well(tmp_path, monkeypatch):
    monkeypatch.setattr(RunLock.acquire, "__defaults__", (0.0,))
    first, second = CheckpointStore(tmp_path), CheckpointStore(tmp_path)
    first.prepare()
    first.prepare()  # the same one again is no other run
    (first.folder / ".step_00000001.tmp-1").mkdir()
    with pytest.raises(CheckpointError, match="is in use by another run of this very process"):
        second.prepare()
    assert (first.folder / ".step_00000001.tmp-1").exists(), "it may be what the other run writes"
    first.close()
    second.prepare()
    assert not (first.folder / ".step_00000001.tmp-1").exists()


def test_readers_need_no_lock(tmp_path, holder):
    store = CheckpointStore(tmp_path)
    assert store.latest() is None


def test_a_lock_that_nobody_holds_any_more_is_gone(tmp_path):
    RunLock(tmp_path).acquire()  # the object is dropped at once
    assert RunLock(tmp_path).acquire(patience_s=0.0) is None


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, code):
    def no_locks(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(lock_module.fcntl, "flock", no_locks)
    said = CheckpointStore(tmp_path).prepare()
    assert said is not None
    assert said.startswith(f"{tmp_path / 'run.lock'}: the file system cannot lock files (")
    assert "no second run writes into this folder" in said


def test_a_full_disk_does_not_keep_a_run_from_its_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    lock = RunLock(tmp_path)
    assert lock.acquire() is None
    with pytest.raises(CheckpointError, match=r"in use by another run \(another process\)"):
        RunLock(tmp_path).acquire(patience_s=0.0)
    lock.release()
