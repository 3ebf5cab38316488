"""Images are read inside archives: the same bytes as from the library, indexed once."""

from __future__ import annotations

import gzip
import io
import multiprocessing
import os
import random
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from passl.data import kept, tar_index
from passl.data.archives import _OpenFiles
from passl.data.dataset import MissingDataError
from passl.data.datasets.shards import ShardDataset, expand_shards
from passl.data.datasets.tar_images import TarImageDataset
from passl.data.table_file import open_table_file, write_table_file
from passl.data.tar_index import index_tar
from passl.errors import DataError

CLASSES = ("n01440764", "n01443537", "n02102040")


def content_of(name: str) -> bytes:
    return random.Random(name).randbytes(700 + len(name) * 37)


def add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def make_tar(
    path: Path, prefix: str = "train/", count: int = 4, form: int = tarfile.PAX_FORMAT
) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        for class_name in reversed(CLASSES):
            folder = tarfile.TarInfo(f"{prefix}{class_name}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            for number in range(count):
                name = f"{prefix}{class_name}/{class_name}_{number}.JPEG"
                add(archive, name, content_of(name))
        add(archive, f"{prefix}{CLASSES[0]}/notes.txt", b"no image")
    return path


@pytest.mark.parametrize("prefix", ["train/", "./", ""])
def test_classes_are_the_folders_whatever_stands_before_them(tmp_path: Path, prefix: str) -> None:
    dataset = TarImageDataset(path=str(make_tar(tmp_path / "train.tar", prefix)), class_num=3)
    assert (len(dataset), dataset.classes) == (12, list(CLASSES))
    for index in range(len(dataset)):
        archive, _, name = dataset.path_of(index).partition("!")
        data, label = dataset.load(index)
        assert archive == str(tmp_path / "train.tar")
        assert data == content_of(name)
        assert dataset.classes[int(label)] == name.split("/")[-2]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_format_are_read(tmp_path: Path, form: int) -> None:
    name = "train/" + "/".join(["folder" * 3] * 4) + "/n01440764/" + "x" * 80 + ".jpg"
    with tarfile.open(tmp_path / "x.tar", "w", format=form) as archive:
        add(archive, name, content_of(name))
    dataset = TarImageDataset(path=str(tmp_path / "x.tar"))
    assert dataset.load(0) == (content_of(name), 0)


def test_an_archive_of_archives_is_read_in_place(tmp_path: Path) -> None:
    """The form of ILSVRC2012_img_train.tar."""
    with tarfile.open(tmp_path / "all.tar", "w") as outer:
        for class_name in CLASSES:
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as inner:
                for number in range(3):
                    add(inner, f"{class_name}_{number}.JPEG", content_of(f"{class_name}{number}"))
            add(outer, f"{class_name}.tar", buffer.getvalue())
    dataset = TarImageDataset(path=str(tmp_path / "all.tar"), class_num=3)
    assert dataset.classes == list(CLASSES)
    assert [int(dataset.load(i)[1]) for i in range(9)] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert dataset.load(4)[0] == content_of("n014435371")


def test_a_gzip_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = make_tar(tmp_path / "plain.tar")
    packed = tmp_path / "train.tar.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    first = TarImageDataset(path=str(packed))
    name = first.path_of(5).partition("!")[2]
    assert first.load(5)[0] == content_of(name)

    def forbidden(*_: object) -> None:
        raise AssertionError("unpacked twice")

    monkeypatch.setattr(gzip, "open", forbidden)
    assert len(TarImageDataset(path=str(packed))) == 12


def test_the_index_is_made_once_and_again_after_a_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tar(tmp_path / "train.tar")
    walks = 0
    real = tar_index._members

    def counting(*arguments: object) -> object:
        nonlocal walks
        walks += 1
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(tar_index, "_members", counting)
    for _ in range(3):
        assert len(index_tar(path)) == 13
    assert walks == 1
    make_tar(path, count=5)
    assert len(index_tar(path)) == 16
    assert walks == 2
    index = tmp_path / "train.tar.index"
    index.write_bytes(index.read_bytes()[:-300])
    assert len(index_tar(path)) == 16, "a damaged index is made anew"
    assert walks == 3


@pytest.mark.parametrize(
    ("name", "spoil"),
    [
        ("offsets", lambda values: values - 10**6),
        ("offsets", lambda values: values + 2**62),
        ("offsets", lambda values: values.astype(np.float64)),
        ("sizes", lambda values: values + 2**62),
        ("sizes", lambda values: values[:-1]),
        ("names", lambda values: values[:-1]),
        ("name_offsets", lambda values: values[::-1].copy()),
        ("name_offsets", lambda values: values.reshape(1, -1)),
        ("names", None),
    ],
)
def test_an_index_that_another_wrote_leads_nowhere_else(tmp_path: Path, name: str, spoil) -> None:
    """Data that many may write: its stamp and checksums are right, and what is in it is not."""
    path = make_tar(tmp_path / "train.tar")
    whole = index_tar(path)
    cache = tmp_path / "train.tar.index"
    meta, arrays = open_table_file(cache)
    arrays = {key: np.array(values) for key, values in arrays.items()}
    if spoil is None:
        del arrays[name]
    else:
        arrays[name] = spoil(arrays[name])
    write_table_file(cache, meta, arrays)
    again = index_tar(path)
    assert again.offsets.tolist() == whole.offsets.tolist()
    assert again.sizes.tolist() == whole.sizes.tolist()
    assert again.table.name(5) == whole.table.name(5)


def test_the_index_is_mapped_not_copied(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "train.tar")
    index_tar(path)
    again = index_tar(path)
    assert isinstance(again.offsets, np.memmap)
    assert isinstance(again.table.names, np.memmap)


def test_a_folder_that_cannot_be_written_only_costs_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_tar(tmp_path / "train.tar")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kept, "write_table_file", refuse)
    assert len(TarImageDataset(path=str(path))) == 12
    assert not (tmp_path / "train.tar.index").exists()


def test_cache_dir_keeps_the_archives_folder_clean(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    path = make_tar(tmp_path / "data/train.tar")
    TarImageDataset(path=str(path), cache_dir=str(tmp_path / "cache"))
    assert [entry.name for entry in path.parent.iterdir()] == ["train.tar"]
    assert len(list((tmp_path / "cache").glob("train.tar.*.index"))) == 1


def test_threads_and_forked_processes_read_the_same_bytes(tmp_path: Path) -> None:
    dataset = TarImageDataset(path=str(make_tar(tmp_path / "train.tar", count=40)))
    expected = [dataset.load(index)[0] for index in range(len(dataset))]
    wrong: list[int] = []

    def read_all(order: list[int]) -> None:
        wrong.extend(index for index in order if dataset.load(index)[0] != expected[index])

    orders = [random.Random(seed).sample(range(len(dataset)), len(dataset)) for seed in range(4)]
    threads = [threading.Thread(target=read_all, args=(order,)) for order in orders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_first_bytes, [(dataset, index) for index in range(20)]) == [
            data[:8] for data in expected[:20]
        ]


def _first_bytes(work: tuple[TarImageDataset, int]) -> bytes:
    dataset, index = work
    data = dataset.load(index)[0]
    assert isinstance(data, bytes)
    return data[:8]


def test_more_shards_than_open_files_are_allowed(tmp_path: Path) -> None:
    paths = []
    for number in range(20):
        paths.append(tmp_path / str(number))
        paths[-1].write_bytes(bytes([number]) * 10)
    files = _OpenFiles(paths)
    files._most = 4
    for number in [*range(20), *range(19, -1, -1)]:
        assert files.read(number, 2, 3) == bytes([number]) * 3
        assert len(files._handles) <= 4


def test_a_list_gives_labels_to_an_archive_without_folders(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        for number in range(3):
            add(archive, f"./val_{number}.JPEG", content_of(str(number)))
    with pytest.raises(DataError, match="lies in no class folder"):
        TarImageDataset(path=str(tmp_path / "val.tar"))
    (tmp_path / "list.txt").write_text("val_2.JPEG 1\nval_0.JPEG 0\n")
    dataset = TarImageDataset(
        path=str(tmp_path / "val.tar"), cls_label_path=str(tmp_path / "list.txt"), class_num=2
    )
    assert [dataset.load(index) for index in range(2)] == [
        (content_of("2"), 1),
        (content_of("0"), 0),
    ]
    (tmp_path / "list.txt").write_text("val_9.JPEG 1\n")
    with pytest.raises(MissingDataError, match=r"val_9.JPEG is not in"):
        TarImageDataset(path=str(tmp_path / "val.tar"), cls_label_path=str(tmp_path / "list.txt"))


def test_class_names_from_a_file_keep_the_labels_of_training(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "val.tar", "w") as archive:
        add(archive, f"val/{CLASSES[2]}/x.JPEG", b"x" * 100)
    (tmp_path / "classes.txt").write_text("\n".join(CLASSES))
    dataset = TarImageDataset(
        path=str(tmp_path / "val.tar"), classes_path=str(tmp_path / "classes.txt"), class_num=3
    )
    assert dataset.load(0)[1] == 2
    (tmp_path / "classes.txt").write_text("cat\n")
    with pytest.raises(DataError, match="not among the 1 known ones"):
        TarImageDataset(path=str(tmp_path / "val.tar"), classes_path=str(tmp_path / "classes.txt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no tar archive"),
        (b"<html>not found</html>" * 100, "is no tar archive"),
        (b"BZh91AY", "compressed with bzip2"),
        (b"\xfd7zXZ\x00", "compressed with xz"),
        (b"\x1f\x8b\x08\x00broken", "cannot be unpacked"),
    ],
)
def test_what_is_no_archive_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.tar").write_bytes(content)
    with pytest.raises(DataError, match=message):
        TarImageDataset(path=str(tmp_path / "x.tar"))


def test_a_truncated_archive_is_refused(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "train.tar")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2 + 100])
    with pytest.raises(DataError, match="damaged"):
        TarImageDataset(path=str(path))


def test_an_archive_that_shrinks_while_it_is_used_is_noticed(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "train.tar")
    dataset = TarImageDataset(path=str(path))
    dataset.load(0)  # opens it
    os.truncate(path, 2000)
    with pytest.raises(DataError, match="changed after it was indexed"):
        dataset.sample(11, np.random.default_rng(0))


def test_missing_archives_and_wrong_class_numbers_are_named(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="no such archive"):
        TarImageDataset(path=str(tmp_path / "x.tar"))
    with pytest.raises(DataError, match=r"3 classes but dataset\.class_num is 4"):
        TarImageDataset(path=str(make_tar(tmp_path / "train.tar")), class_num=4)


# -- shards ----------------------------------------------------------------------------------------


def make_shards(folder: Path, count: int = 3, per_shard: int = 5) -> str:
    for shard in range(count):
        with tarfile.open(folder / f"train-{shard:06d}.tar", "w") as archive:
            for number in range(per_shard):
                key = f"{shard:03d}/{number:04d}"
                label = str((shard * per_shard + number) % 7)
                members = [("jpg", content_of(key)), ("txt", b"a caption")]
                if number % 2:
                    members.append(("json", f'{{"label": {label}}}'.encode()))
                else:
                    members.insert(0, ("cls", label.encode()))
                for ending, content in members:
                    add(archive, f"{key}.{ending}", content)
    return str(folder / f"train-{{000000..{count - 1:06d}}}.tar")


def test_shards_are_one_data_set_in_their_order(tmp_path: Path) -> None:
    dataset = ShardDataset(shards=make_shards(tmp_path), class_num=7)
    assert len(dataset) == 15
    for index in range(15):
        data, label = dataset.load(index)
        assert label == index % 7
        assert data == content_of(f"{index // 5:03d}/{index % 5:04d}")
    assert dataset.path_of(7).endswith("train-000001.tar!001/0002.jpg")
    assert len(ShardDataset(shards=str(tmp_path / "train-*.tar"))) == 15


def test_ranges_and_missing_shards(tmp_path: Path) -> None:
    pattern = make_shards(tmp_path)
    assert [path.name for path in expand_shards(pattern)] == [
        f"train-{number:06d}.tar" for number in range(3)
    ]
    (tmp_path / "train-000001.tar").unlink()
    with pytest.raises(MissingDataError, match=r"train-000001.tar does not exist \(1 of 3"):
        expand_shards(pattern)
    with pytest.raises(DataError, match="is no range"):
        expand_shards("x-{5..10}.tar")
    with pytest.raises(MissingDataError, match="all are missing"):
        expand_shards(str(tmp_path / "nothing-*.tar"))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], "has no label"),
        ([("a.jpg", b"x"), ("a.cls", b"cat")], "is no label"),
        ([("a.jpg", b"x"), ("a.json", b"{}")], "is no label"),
        ([("a.jpg", b"x"), ("a.json", b'{"label": 1.5}')], "is no label"),
        ([("a.jpg", b"x"), ("a.cls", b"7")], "out of range"),
        ([("a.jpg", b"x"), ("a.cls", b"-1")], "the label -1 is out of range"),
        ([("a.jpg", b"x"), ("a.cls", b"99999999999")], "is out of range"),
        ([("a.jpg", b"x"), ("a.json", b"[" * 50000)], "is no label"),
        ([("a.jpg", b"x"), ("a.cls", b"1"), ("a.jpg", b"y")], "stands there twice"),
        ([("a.txt", b"x")], "no image in them"),
    ],
)
def test_bad_shards_are_refused(
    tmp_path: Path, members: list[tuple[str, bytes]], message: str
) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in members:
            add(archive, name, content)
    with pytest.raises(DataError, match=message):
        ShardDataset(shards=str(tmp_path / "x.tar"), class_num=7)


@pytest.mark.parametrize("order", [1, -1])
def test_what_counts_in_a_sample_does_not_hang_on_the_order_of_its_members(
    tmp_path: Path, order: int
) -> None:
    """As of ImageNet's public shards, whose ``.json`` need not hold the class."""
    members = [("a.JPG", b"x"), ("a.png", b"mask"), ("a.Cls", b"3"), ("a.json", b'{"width": 9}')]
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in members[::order]:
            add(archive, name, content)
    assert ShardDataset(shards=str(tmp_path / "x.tar")).load(0) == (b"x", 3)


# -- the file of an index --------------------------------------------------------------------------


def test_table_files_keep_arrays_and_meta_data(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(7, dtype=np.int64),
        "b": np.zeros((0, 3), np.float32),
        "c": np.arange(6, dtype=">i4").reshape(2, 3),
    }
    write_table_file(tmp_path / "t", {"key": 1}, arrays)
    meta, read = open_table_file(tmp_path / "t")
    assert meta == {"key": 1}
    for name, array in arrays.items():
        np.testing.assert_array_equal(read[name], array)
        assert read[name].shape == array.shape


def test_damaged_table_files_are_refused_and_never_crash(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_table_file(path, {"key": 1}, {"a": np.arange(50, dtype=np.int64)})
    whole = path.read_bytes()
    rng, refused = random.Random(0), []
    for _ in range(300):
        damaged = bytearray(whole[: rng.randrange(len(whole) + 1)])
        for _ in range(rng.randrange(3)):
            if damaged:
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        path.write_bytes(bytes(damaged))
        try:
            open_table_file(path)
        except DataError as error:
            refused.append(str(error))
    assert len(refused) > 250
    assert all("made anew" in text for text in refused)


def test_no_damage_to_a_table_file_goes_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "t"
    write_table_file(path, {"key": 1}, {"a": np.arange(50, dtype=np.int64)})
    whole = path.read_bytes()
    header = 24 + int.from_bytes(whole[8:16], "little")
    for place in range(header + 50 * 8):  # what follows only fills up the file
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="made anew"):
            open_table_file(path)
