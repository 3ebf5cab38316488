"""Commands that prepare data do not get in each other's way, nor do those that were killed."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from pathlib import Path

import pytest

from passl.checkpoint.file_lock import FileLock
from passl.cli.data import main
from passl.data.prepare import alone
from passl.data.prepare.alone import alone_in
from passl.errors import ConfigError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone.alone_in.__wrapped__, "__defaults__", ((), 0.2))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        (tmp_path / f"root/{part}/n01440764").mkdir(parents=True)
        (tmp_path / f"root/{part}/n01440764/0.JPEG").write_bytes(b"x")
    return tmp_path / "root"


@pytest.mark.parametrize("command", ["imagenet21k", "imagenet1k", "lists"])
def test_a_second_command_in_a_folder_is_refused(
    root: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with alone_in(root):
        before = sorted(root.iterdir())
        assert main([command, str(root)]) == 2
        assert sorted(root.iterdir()) == before
    assert f"{root}: another passl-data is at work in this folder" in capsys.readouterr().err
    assert main([command, str(root)]) == 0


def test_a_restart_waits_for_what_is_left_of_a_killed_command(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    killed = FileLock(tmp_path / ".passl-data.lock")
    assert killed.acquire()
    child = context.Process(target=time.sleep, args=(0.5,))  # has the lock as well
    child.start()
    killed.release()  # as a killed command, which does not remove the file
    with alone_in(tmp_path, patience_s=60.0):
        child.join(300)
    assert child.exitcode == 0
    assert list(tmp_path.iterdir()) == []


def test_the_lock_ends_with_an_error(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), alone_in(tmp_path):
        raise ZeroDivisionError
    with alone_in(tmp_path), pytest.raises(ConfigError), alone_in(tmp_path):
        pass


def test_half_written_files_of_killed_commands_are_removed(root: Path) -> None:
    (root / ".image_all_list.txt.tmp-12345").write_bytes(b"half")
    (root / ".mine.tmp-1").write_bytes(b"not of this command")
    assert main(["imagenet21k", str(root)]) == 0
    assert [name for name in os.listdir(root) if ".tmp-" in name] == [".mine.tmp-1"]


def test_nobody_enters_by_a_lock_whose_file_was_removed(tmp_path: Path) -> None:
    """Who opened the file just before its holder removed it must not have a lock of his own."""
    holder, waiting, late = (FileLock(tmp_path / "lock") for _ in range(3))
    assert holder.acquire()
    entered: list[bool] = []
    thread = threading.Thread(target=lambda: entered.append(waiting.acquire()))
    thread.start()  # opens the file and waits
    time.sleep(0.1)
    holder.release(remove=True)
    thread.join(300)
    assert entered == [True]
    assert not late.acquire(patience_s=0.0)
    waiting.release(remove=True)
    assert late.acquire(patience_s=0.0)


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(ConfigError, match=r"cannot be written \(Permission denied\)"), alone_in(
        tmp_path
    ):
        pass
