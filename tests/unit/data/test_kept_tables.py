"""Tables of large data sets are made once, mapped, and made anew when the data changes."""

from __future__ import annotations

import io
import os
import tarfile
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from passl.data import kept
from passl.data.dataset import Dataset
from passl.data.datasets import image_folder, label_map, shards, tar_images
from passl.data.datasets.image_folder import ImageFolder
from passl.data.datasets.label_map import LabelMapDataset
from passl.data.datasets.shards import ShardDataset
from passl.data.datasets.tar_images import TarImageDataset
from passl.errors import DataError

Build = Callable[[], Dataset]


@pytest.fixture
def makings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Tables of any size are kept; the names of the modules that made one."""
    made: list[str] = []
    monkeypatch.setattr(kept, "WORTH_IT", 0)
    for module, name in ((image_folder, "_arrays"), (shards, "_arrays"), (tar_images, "_by_folder"),
                         (tar_images, "_listed"), (label_map, "_read")):  # fmt: skip
        original = getattr(module, name)

        def spy(*given: Any, original: Any = original, module: Any = module) -> Any:
            made.append(module.__name__.rpartition(".")[2])
            return original(*given)

        monkeypatch.setattr(module, name, spy)
    return made


def add(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def a_folder(root: Path) -> Build:
    for name in ("a/1.jpg", "b/deep/er/2.jpg", "b/3.jpg"):
        (root / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "images" / name).write_bytes(name.encode())
    for folder in (root / "images").rglob(""):
        os.utime(folder, (1e9, 1e9))
    return lambda: ImageFolder(root=str(root / "images"))


def a_tar(root: Path) -> Build:
    add(root / "all.tar", {"b/1.jpg": b"1", "readme": b"", "a/x/2.jpg": b"22", "a/3.jpg": b"333"})
    return lambda: TarImageDataset(path=str(root / "all.tar"))


def a_listed_tar(root: Path) -> Build:
    add(root / "flat.tar", {"1.jpg": b"1", "2.jpg": b"22"})
    (root / "list.txt").write_text("2.jpg 5\n1.jpg 0\n")
    return lambda: TarImageDataset(
        path=str(root / "flat.tar"), cls_label_path=str(root / "list.txt"), class_num=6
    )


def some_shards(root: Path) -> Build:
    for number in range(2):
        members = {f"{number}.jpg": b"x" * (number + 1), f"{number}.cls": b"%d" % (number + 3)}
        add(root / f"s-{number}.tar", members)
    return lambda: ShardDataset(shards=str(root / "s-{0..1}.tar"), class_num=5)


def a_labelled_list(root: Path) -> Build:
    for number, name in enumerate(("images/a/1.jpg", "images/b/2.jpg")):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(b"x" * number)
    (root / "label_map.json").write_text('{"b": 0, "a": 1}')
    (root / "paths.txt").write_text("images/a/1.jpg\nimages/b/2.jpg\n")
    return lambda: LabelMapDataset(dataset_path=str(root), image_paths="paths.txt")


CACHES = (".samples", ".table", ".index")
KINDS = (a_folder, a_tar, a_listed_tar, some_shards, a_labelled_list)


def contents(dataset: Dataset) -> list[Any]:
    return [(dataset.path_of(n), *dataset.load(n)) for n in range(len(dataset))]


@pytest.mark.parametrize("kind", KINDS)
def test_the_second_process_maps_what_the_first_made(tmp_path, makings, kind, monkeypatch):
    build = kind(tmp_path)
    first, second = build(), build()
    assert len(makings) == 1
    assert contents(first) == contents(second)
    assert (first.class_num, getattr(first, "classes", None)) == (
        second.class_num,
        getattr(second, "classes", None),
    )
    for dataset in (first, second):
        assert isinstance(dataset.table.names, np.memmap)
        assert isinstance(dataset.table.labels, np.memmap)
    monkeypatch.setattr(kept, "WORTH_IT", 1 << 40)
    for cache in [*tmp_path.glob("*.samples"), *tmp_path.glob("*.table")]:
        cache.unlink()
    fresh = build()
    assert not isinstance(fresh.table.names, np.memmap)
    assert contents(fresh) == contents(first)
    assert not [*tmp_path.glob("*.samples"), *tmp_path.glob("*.table")]


def test_a_new_file_at_any_depth_is_seen(tmp_path, makings):
    build = a_folder(tmp_path)
    assert len(build()) == 3
    (tmp_path / "images/b/deep/er/4.jpg").write_bytes(b"4")
    assert len(build()) == 4
    os.utime(tmp_path / "images/b/deep/er", (1.1e9, 1.1e9))
    assert len(build()) == 4
    (tmp_path / "images/b/deep/er/4.jpg").unlink()
    (tmp_path / "images/c").mkdir()
    with pytest.raises(DataError, match=r"1 of 3 class folders .* no image in them \(c\)"):
        build()


def test_a_folder_that_changed_just_now_is_not_trusted(tmp_path, makings):
    build = a_folder(tmp_path)
    soon = time.time() + 600  # just now, however long this takes
    os.utime(tmp_path / "images/a", (soon, soon))
    build()
    build()
    assert len(makings) == 2


def test_changed_labels_archives_and_options_are_read_anew(tmp_path, makings):
    build = a_listed_tar(tmp_path)
    build()
    (tmp_path / "list.txt").write_text("2.jpg 4\n1.jpg 0\n")
    os.utime(tmp_path / "list.txt", (1, 1))
    assert build().load(0)[1] == 4
    build = some_shards(tmp_path)
    build()
    add(tmp_path / "s-1.tar", {"1.jpg": b"xx", "1.cls": b"0", "2.jpg": b"y", "2.cls": b"1"})
    assert [label for _, _, label in contents(build())] == [3, 0, 1]
    with pytest.raises(DataError, match=r"s-0.tar!0.jpg: the label 3 is out of range; class_num"):
        ShardDataset(shards=str(tmp_path / "s-{0..1}.tar"), class_num=2)
    build = a_labelled_list(tmp_path)
    assert [label for _, _, label in contents(build())] == [1, 0]
    (tmp_path / "label_map.json").write_text('{"b": 1, "a": 0}')
    assert [label for _, _, label in contents(build())] == [0, 1]
    (tmp_path / "paths.txt").write_text("images/b/2.jpg\n")
    assert [label for _, _, label in contents(build())] == [1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_flipped_bit_in_a_kept_table_is_no_wrong_label(tmp_path, makings, kind):
    build = kind(tmp_path)
    expected = contents(build())
    for cache in [path for path in tmp_path.iterdir() if path.suffix in CACHES]:
        data = bytearray(cache.read_bytes())
        start = 24 + int.from_bytes(data[8:16], "little")
        for at in range(start, len(data), 64):  # every array begins at such a place
            data[at] ^= 1
        cache.write_bytes(data)
    assert contents(build()) == expected
    assert len(makings) == 2
