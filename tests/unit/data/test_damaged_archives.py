"""Archives with links, damaged, changed, or of one name: never fewer or other images in silence."""

from __future__ import annotations

import gzip
import io
import logging
import os
import pickle
import random
import tarfile
from pathlib import Path

import pytest

from passl.data import tar_index
from passl.data.datasets import tar_images
from passl.data.datasets.cifar import CIFAR10
from passl.data.datasets.shards import ShardDataset
from passl.data.datasets.tar_images import TarImageDataset
from passl.data.prepare.imagenet1k import Sources, prepare
from passl.errors import DataError


def make(path: Path, count: int = 8, content: str = "a") -> list[tarfile.TarInfo]:
    """An archive of ``count`` files of one block in two classes, and its members."""
    with tarfile.open(path, "w") as archive:
        for number in range(count):
            member = tarfile.TarInfo(f"n0000000{number % 2}/{number}.jpg")
            data = f"{content} {number}".encode()
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with tarfile.open(path) as archive:
        return archive.getmembers()


@pytest.mark.parametrize("damage", ["flipped", "cut", "random"])
def test_a_header_that_is_none_is_no_end_of_an_archive(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "train.tar"
    middle = make(path)[4].offset
    data = bytearray(path.read_bytes())
    if damage == "flipped":
        data[middle + 3] ^= 1  # in the name: the checksum is wrong
    elif damage == "cut":
        data = data[: middle + 100]
    else:
        data[middle : middle + 512] = os.urandom(512)
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"at byte {middle} there is neither another file nor"):
        TarImageDataset(path=str(path))


def test_an_archive_without_an_end_is_read_with_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "train.tar"
    data, end = path, make(path)[-1].offset + 1024
    path.write_bytes(data.read_bytes()[:end])
    with caplog.at_level(logging.WARNING, logger="passl"):
        assert len(TarImageDataset(path=str(path))) == 8
    assert "ends without the mark that ends an archive" in caplog.text


def test_archives_joined_by_cat_are_refused_not_half_read(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    make(path)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(DataError, match="another archive begins at byte 10240"):
        TarImageDataset(path=str(path))


def test_padding_behind_the_end_is_let_be(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    make(path)
    path.write_bytes(path.read_bytes() + bytes(3 << 20) + b"a signature")
    assert len(TarImageDataset(path=str(path))) == 8


@pytest.mark.parametrize("packed", [False, True])
def test_archives_of_one_name_share_a_cache_folder(tmp_path: Path, packed: bool) -> None:
    datasets = []
    for part in ("train", "val"):
        path = tmp_path / part / "images.tar"
        path.parent.mkdir()
        make(path, content=part)
        if packed:
            path = path.with_name("images.tar.gz")
            path.write_bytes(gzip.compress(path.with_name("images.tar").read_bytes()))
        # Equal layouts and times: nothing but the folder tells the two archives from each other.
        os.utime(path, ns=(10**18, 10**18))
        datasets.append(TarImageDataset(path=str(path), cache_dir=str(tmp_path / "cache")))
    for part, dataset in zip(("train", "val"), datasets):
        assert dataset.load(3)[0] == f"{part} 3".encode()
    assert len(list((tmp_path / "cache").glob("*.index"))) == 2


def test_an_archive_that_is_replaced_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    make(path)
    tars = TarImageDataset(path=str(path))
    sent = pickle.dumps(tars)  # as to a worker process
    make(path, content="b")  # of the same length
    os.utime(path, ns=(10**18, 10**18))
    for dataset in (tars, pickle.loads(sent)):  # noqa: S301 - just made
        with pytest.raises(DataError, match=r"train\.tar: was changed after its samples"):
            dataset.load(0)


def test_a_shard_that_is_replaced_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"

    def write(label: str) -> None:
        with tarfile.open(path, "w") as archive:
            for name, data in (("x.jpg", b"image"), ("x.cls", label.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))

    write("1")
    shards = ShardDataset(shards=str(path))
    write("2")
    os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(DataError, match="was changed after its samples were found"):
        shards.load(0)
    assert ShardDataset(shards=str(path)).load(0)[1] == 2


def linked(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize("inner", [False, True])
def test_links_to_files_of_the_archive_are_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inner: bool
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tar_index.get_logger(), "warning", said.append)
    with io.BytesIO() as memory:
        with tarfile.open(fileobj=memory, mode="w") as archive:
            archive.addfile(linked("./cat/first.jpg", tarfile.SYMTYPE, "../dog/hard.jpg"))
            for name in ("./cat/1.jpg", "./dog/2.jpg"):
                member = tarfile.TarInfo(name)
                member.size = len(name)
                archive.addfile(member, io.BytesIO(name.encode()))
            archive.addfile(linked("./dog/hard.jpg", tarfile.LNKTYPE, "./cat/1.jpg"))
            archive.addfile(linked("./dog/lost.jpg", tarfile.SYMTYPE, "/elsewhere/1.jpg"))
            archive.addfile(linked("./dog/a.jpg", tarfile.SYMTYPE, "b.jpg"))
            archive.addfile(linked("./dog/b.jpg", tarfile.SYMTYPE, "a.jpg"))
        content = memory.getvalue()
    path = tmp_path / "all.tar"
    if inner:
        with tarfile.open(path, "w") as archive:
            member = tarfile.TarInfo("in.tar")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    else:
        path.write_bytes(content)
    for _ in range(2):  # from the archive, and from its index
        dataset = TarImageDataset(path=str(path))
        found = {dataset.path_of(i).partition("./")[2]: dataset.load(i) for i in range(4)}
        assert found == {
            "cat/first.jpg": (b"./cat/1.jpg", 0),
            "cat/1.jpg": (b"./cat/1.jpg", 0),
            "dog/2.jpg": (b"./dog/2.jpg", 1),
            "dog/hard.jpg": (b"./cat/1.jpg", 1),
        }
        assert len(dataset) == 4
    assert len(said) == 1
    assert "3 links lead to no file in the archive and are left out, such as" in said[0]


def test_a_gzip_archive_with_damage_within_is_refused(tmp_path: Path) -> None:
    """Python's gzip raises zlib's own error there, which is no OSError."""
    packed = bytearray(gzip.compress(random.Random(0).randbytes(20_000)))
    packed[10:400] = b"\xff" * 390
    (tmp_path / "a.tar.gz").write_bytes(packed)
    with pytest.raises(DataError, match="cannot be unpacked"):
        tar_index.index_tar(tmp_path / "a.tar.gz")


def test_of_images_of_one_name_the_last_counts_as_when_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(tar_images.get_logger(), "warning", said.append)
    path = tmp_path / "train.tar"
    make(path)
    with tarfile.open(path, "a") as archive:  # as tar --append and --update do
        for name in ("./n00000001/3.jpg", "n00000000/9.jpg"):
            member = tarfile.TarInfo(name)
            member.size = 3
            archive.addfile(member, io.BytesIO(b"new"))
    dataset = TarImageDataset(path=str(path))
    names = [dataset.table.name(index) for index in range(len(dataset))]
    assert names == [
        *(f"n0000000{number % 2}/{number}.jpg" for number in (0, 1, 2, 4, 5, 6, 7)),
        "./n00000001/3.jpg",
        "n00000000/9.jpg",
    ]
    assert [dataset.load(index) for index in (3, 7, 8)] == [(b"a 4", 0), (b"new", 1), (b"new", 0)]
    assert len(said) == 1
    assert "1 of its images stand there again further on, such as n00000001/3.jpg" in said[0]


def test_an_extended_header_that_makes_no_sense_is_damage_like_any_other(tmp_path: Path) -> None:
    path = tmp_path / "train.tar"
    make(path)
    with tarfile.open(path, "a") as archive:
        member = tarfile.TarInfo("n00000001/sparse.jpg")
        member.size = 3  # where the map of the holes should be
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(member, io.BytesIO(b"new"))
    with pytest.raises(DataError, match=r"train\.tar: is no tar archive, or a damaged one"):
        TarImageDataset(path=str(path))
    cifar = tmp_path / "cifar-10-python.tar.gz"
    cifar.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DataError, match=r"cannot be read, truncated or broken"):
        CIFAR10(root=str(tmp_path), verify=False)
    path.rename(tmp_path / "ILSVRC2012_img_train.tar")
    with pytest.raises(DataError, match="is damaged, or no archive"):
        prepare(Sources(tmp_path), lambda _: None)
