"""Checkpoints of somebody else, who gave no right to read them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from passl.checkpoint import disk
from passl.checkpoint.store import CheckpointStore
from passl.errors import CheckpointError


def test_a_newer_checkpoint_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    """Going on from an older one would silently undo what its owner's run has trained."""
    store = CheckpointStore(tmp_path / "run")
    for step in (1, 2):
        store.save(step, {"state.json": {}})

    def forbidden(path):
        if "step_00000002" in str(path):
            raise PermissionError(errno.EACCES, "Permission denied")
        return disk.digest_of(path)

    monkeypatch.setattr("passl.checkpoint.manifest.digest_of", forbidden)
    with pytest.raises(CheckpointError, match=r"step_00000002.*permission denied"):
        store.latest()


def test_a_folder_that_may_not_be_looked_into_is_a_sentence(tmp_path, monkeypatch):
    store = CheckpointStore(tmp_path / "run")
    store.save(1, {"state.json": {}})

    def forbidden(path):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_file", forbidden)  # which tells of it, unlike of a missing file
    with pytest.raises(CheckpointError, match=r"manifest\.json: permission denied"):
        store.latest()
