"""Nothing lies about once something is made, whoever was killed while making it."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import threading
import time
from pathlib import Path

import pytest

from passl.data import kept
from passl.data.datasets.image_folder import ImageFolder
from passl.data.datasets.tar_images import TarImageDataset
from passl.data.once import one_at_a_time, remove_left_overs


def test_those_who_wait_take_turns_and_the_lock_goes(tmp_path: Path) -> None:
    inside, most = 0, 0

    def enter() -> None:
        nonlocal inside, most
        with one_at_a_time(tmp_path / "lock"):
            inside += 1
            most = max(most, inside)
            time.sleep(0.01)
            inside -= 1

    with one_at_a_time(tmp_path / "lock"):
        threads = [threading.Thread(target=enter) for _ in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.1)  # all wait
    for thread in threads:
        thread.join()
    assert most == 1
    assert list(tmp_path.iterdir()) == []


def test_data_sets_leave_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images/cat").mkdir(parents=True)
    (tmp_path / "images/cat/0.jpg").write_bytes(b"x")
    old = time.time() - 60
    for folder in ("images", "images/cat"):
        os.utime(tmp_path / folder, (old, old))
    ImageFolder(root=str(tmp_path / "images"))
    assert os.listdir(tmp_path) == ["images"]
    monkeypatch.setattr(kept, "WORTH_IT", 0)
    ImageFolder(root=str(tmp_path / "images"))
    assert sorted(os.listdir(tmp_path)) == ["images", "images.table"]


def test_what_killed_processes_left_goes_and_what_is_written_stays(tmp_path: Path) -> None:
    member = tarfile.TarInfo("cat/0.jpg")
    member.size = 1
    with io.BytesIO() as memory:
        with tarfile.open(fileobj=memory, mode="w") as archive:
            archive.addfile(member, io.BytesIO(b"x"))
        (tmp_path / "a.tar.gz").write_bytes(gzip.compress(memory.getvalue()))
    for name in (".a.tar.gz.unpacked.tmp-1", ".a.tar.gz.index.tmp-1", ".b.tar.index.tmp-1"):
        (tmp_path / name).write_bytes(b"half")
        os.utime(tmp_path / name, (1e9, 1e9))
    (tmp_path / ".a.tar.gz.index.tmp-2").write_bytes(b"being written")
    assert len(TarImageDataset(path=str(tmp_path / "a.tar.gz"))) == 1
    assert sorted(os.listdir(tmp_path)) == [
        ".a.tar.gz.index.tmp-2",
        ".b.tar.index.tmp-1",
        "a.tar.gz",
        "a.tar.gz.index",
        "a.tar.gz.unpacked",
        "a.tar.gz.unpacked.stamp",
    ]


def test_names_with_brackets_are_names(tmp_path: Path) -> None:
    left = tmp_path / ".[1].tar.index.tmp-7"
    left.write_bytes(b"half")
    os.utime(left, (1e9, 1e9))
    remove_left_overs(tmp_path / "[1].tar.index")
    assert not left.exists()
