"""A disk that is full when a run goes on: it says so, and what was there stays as it was."""

from __future__ import annotations

import errno
import os

import pytest

from passl.checkpoint import disk


def no_room(*_arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("place", ["metrics.jsonl", "config.yaml"])
def test_a_start_on_a_full_disk_leaves_the_files_of_the_one_before(
    run_folder, monkeypatch, capsys, place
):
    assert run_folder.train("Global.epochs=1") == 0
    kept = {
        path: path.read_bytes()
        for path in run_folder.dir.rglob("*")
        if path.is_file() and path.name not in ("train.log", "run.lock")
    }
    with monkeypatch.context() as patched:
        if place == "metrics.jsonl":
            patched.setattr(os, "fsync", no_room)
        else:
            patched.setattr(disk.HashingFile, "write", no_room)
        assert run_folder.train("Global.epochs=2") == 1
    said = capsys.readouterr().err
    assert f"cannot write {run_folder.dir / place}: the disk is full" in said
    files = {path for path in run_folder.dir.rglob("*") if path.is_file()}
    assert {path.name for path in files - set(kept)} == {"train.log", "run.lock"}
    assert {path: path.read_bytes() for path in kept} == kept
    assert run_folder.train("Global.epochs=2") == 0
