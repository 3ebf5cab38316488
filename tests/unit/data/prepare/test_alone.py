"""Commands that prepare data do not get in each other's way, nor do those that were killed."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from passl.cli.data import main
from passl.data.prepare import alone
from passl.data.prepare.alone import alone_in
from passl.errors import ConfigError


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "_PATIENCE_S", 0.2)


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
    before = sorted(root.iterdir())
    with alone_in(root):
        assert main([command, str(root)]) == 2
    assert f"{root}: another passl-data is at work in this folder" in capsys.readouterr().err
    assert sorted(root.iterdir()) == before
    assert main([command, str(root)]) == 0


def test_a_restart_waits_for_what_is_left_of_a_killed_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alone, "_PATIENCE_S", 60.0)
    context = multiprocessing.get_context("fork")
    with alone_in(tmp_path):
        child = context.Process(target=time.sleep, args=(0.5,))  # has the lock as well
        child.start()
    with alone_in(tmp_path):
        child.join(10)
    assert child.exitcode == 0


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
