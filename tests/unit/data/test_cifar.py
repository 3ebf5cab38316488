"""CIFAR in both published layouts, packed or not; damage is named, and nothing in a file is run."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest

from passl.data.dataset import MissingDataError
from passl.data.datasets.cifar import CIFAR10, CIFAR100
from passl.errors import DataError

PER_FILE = 4
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]
LAYOUTS = {
    "CIFAR10": {
        "python": ("cifar-10-batches-py", TRAIN, ["test_batch"]),
        "binary": (
            "cifar-10-batches-bin", [f"{name}.bin" for name in TRAIN], ["test_batch.bin"],
        ),
    },
    "CIFAR100": {
        "python": ("cifar-100-python", ["train"], ["test"]),
        "binary": ("cifar-100-binary", ["train.bin"], ["test.bin"]),
    },
}  # fmt: skip
CLASSES = {"CIFAR10": CIFAR10, "CIFAR100": CIFAR100}


def images_of(number: int) -> np.ndarray:
    """uint8 [4, 3072] of the ``number``-th file."""
    return np.random.default_rng(number).integers(0, 256, (PER_FILE, 3072)).astype(np.uint8)


def fine_of(number: int) -> list[int]:
    return [(number + image) % 10 for image in range(PER_FILE)]


def coarse_of(number: int) -> list[int]:
    return [label // 5 for label in fine_of(number)]


def as_python_3_writes_it(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def as_python_2_wrote_it(images: np.ndarray, labels: dict[str, list[int]]) -> bytes:
    """The originals' opcodes, by hand: text and bytes are one type there, both ``U`` or ``T``."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01M" + struct.pack("<H", len(images)) + b"M\x00\x0c\x86"
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        + b"T" + struct.pack("<i", images.nbytes) + images.tobytes() + b"tb"
    )  # fmt: skip
    entries = text(b"batch_label") + text(b"batch 1 of 5") + text(b"data") + array
    for key, classes in labels.items():
        entries += text(key.encode()) + b"](" + b"".join(b"K" + bytes([c]) for c in classes) + b"e"
    return b"\x80\x02}(" + entries + b"u."


def file_content(name: str, version: str, number: int) -> bytes:
    images, fine, coarse = images_of(number), fine_of(number), coarse_of(number)
    labels = {"labels": fine} if name == "CIFAR10" else {
        "fine_labels": fine, "coarse_labels": coarse,
    }  # fmt: skip
    if version == "python":
        return as_python_2_wrote_it(images, labels)
    columns = [fine] if name == "CIFAR10" else [coarse, fine]
    label_bytes = np.array(columns, np.uint8).T
    return np.concatenate([label_bytes, images], axis=1).tobytes()


def write_folder(root: Path, name: str, version: str) -> Path:
    folder, train, val = LAYOUTS[name][version]
    (root / folder).mkdir(parents=True)
    for number, file in enumerate([*train, *val]):
        (root / folder / file).write_bytes(file_content(name, version, number))
    return root / folder


def pack(folder: Path, name: str, version: str) -> Path:
    digits = name.removeprefix("CIFAR")
    archive = folder.parent / f"cifar-{digits}-{version}.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, folder.name)
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return archive


@pytest.mark.parametrize("packed", ["folder", "its parent", "archive", "folder of the archive"])
@pytest.mark.parametrize("version", ["python", "binary"])
@pytest.mark.parametrize("name", CLASSES)
def test_every_layout_gives_the_same_images(tmp_path, name, version, packed):
    folder = write_folder(tmp_path, name, version)
    root = folder if packed == "folder" else tmp_path
    if "archive" in packed:
        archive = pack(folder, name, version)
        root = archive if packed == "archive" else tmp_path
    train = CLASSES[name](root=str(root), verify=False)
    held_out = CLASSES[name](root=str(root), split="val", verify=False)
    files = 5 if name == "CIFAR10" else 1
    assert (len(train), len(held_out)) == (files * PER_FILE, PER_FILE)
    assert train.class_num == int(name.removeprefix("CIFAR"))
    for dataset, first in ((train, 0), (held_out, files)):
        for index in range(len(dataset)):
            number, position = first + index // PER_FILE, index % PER_FILE
            image, label = dataset.load(index)
            planes = images_of(number)[position].reshape(3, 32, 32)
            assert (image.dtype, image.shape) == (np.uint8, (32, 32, 3))
            np.testing.assert_array_equal(image, planes.transpose(1, 2, 0))
            assert label == fine_of(number)[position] == dataset.labels[index]
    assert train.path_of(len(train) - 1).endswith(f" image {PER_FILE - 1}")
    assert f"{len(train)} images to train on; the published data set has 50000" in train.warnings[0]


@pytest.mark.parametrize("version", ["python", "binary"])
def test_cifar_100_has_twenty_coarse_classes(tmp_path, version):
    write_folder(tmp_path, "CIFAR100", version)
    dataset = CIFAR100(root=str(tmp_path), label="coarse")
    assert dataset.class_num == 20
    assert dataset.labels.tolist() == coarse_of(0)


NAMES = [f"thing {number}" for number in range(100)]
GROUPS = [f"group {number}" for number in range(20)]


def write_names(folder: Path, name: str, version: str) -> None:
    """The file of names of each layout, as its authors wrote them."""
    named = {"label_names": NAMES[:10]} if name == "CIFAR10" else {
        "fine_label_names": NAMES, "coarse_label_names": GROUPS,
    }  # fmt: skip
    if version == "python":
        file = "batches.meta" if name == "CIFAR10" else "meta"
        (folder / file).write_bytes(as_python_3_writes_it(named))
        return
    for key, names in named.items():
        file = "batches.meta.txt" if name == "CIFAR10" else f"{key}.txt"
        (folder / file).write_text("\n".join(names) + "\n\n")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("version", ["python", "binary"])
def test_the_names_of_the_classes_are_those_in_the_files(tmp_path, version, packed):
    for name in CLASSES:
        folder = write_folder(tmp_path, name, version)
        write_names(folder, name, version)
        if packed:
            pack(folder, name, version)
    assert CIFAR10(root=str(tmp_path), split="val", verify=False).classes == NAMES[:10]
    assert CIFAR100(root=str(tmp_path), verify=False).classes == NAMES
    assert CIFAR100(root=str(tmp_path), label="coarse", verify=False).classes == GROUPS


def test_names_that_are_missing_or_damaged_stop_nothing(tmp_path):
    folder = write_folder(tmp_path, "CIFAR10", "python")
    assert CIFAR10(root=str(tmp_path)).classes is None
    for damage in (b"nonsense", as_python_3_writes_it({"label_names": NAMES[:9]}),
                   b"cos\nsystem\n(S'false'\ntR."):
        (folder / "batches.meta").write_bytes(damage)
        dataset = CIFAR10(root=str(tmp_path))
        assert dataset.classes is None
        assert "names for 10 classes" in dataset.warnings[0]


def test_an_archive_that_is_not_the_published_one_is_refused_unless_told_otherwise(tmp_path):
    archive = pack(write_folder(tmp_path, "CIFAR10", "python"), "CIFAR10", "python")
    with pytest.raises(DataError, match=r"published is c58f30108f718f92721af3b95e74349a: .*verify"):
        CIFAR10(root=str(archive))
    assert len(CIFAR10(root=str(archive), verify=False)) == 20


def test_data_that_is_not_there_says_what_is_wanted(tmp_path):
    with pytest.raises(MissingDataError) as error:
        CIFAR100(root=str(tmp_path))
    assert str(error.value) == (
        f"CIFAR100: there is no such data at {tmp_path}. Wanted: cifar-100-python.tar.gz, unpacked "
        "cifar-100-python/, or cifar-100-binary.tar.gz, unpacked cifar-100-binary/, from "
        "https://www.cs.toronto.edu/~kriz/cifar.html; name the folder that holds it with "
        "dataset.root"
    )


def test_a_file_missing_in_a_folder_or_archive_is_named(tmp_path):
    folder = write_folder(tmp_path, "CIFAR10", "binary")
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(MissingDataError, match=r"data_batch_3\.bin: does not exist"):
        CIFAR10(root=str(tmp_path))
    archive = pack(folder, "CIFAR10", "binary")
    with pytest.raises(DataError, match=r"data_batch_3\.bin is not in this archive"):
        CIFAR10(root=str(archive), verify=False)


class _Runs:
    def __reduce__(self):
        return Path.touch, (Path("it_ran"),)


def test_a_file_that_would_run_code_is_refused_without_running_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = write_folder(tmp_path, "CIFAR10", "python")
    (folder / "data_batch_2").write_bytes(as_python_3_writes_it({"data": _Runs()}))
    with pytest.raises(DataError, match="data_batch_2 is refused, because reading it would run"):
        CIFAR10(root=str(folder))
    assert not Path("it_ran").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"hello", "is no batch of CIFAR, or damaged"),
        (as_python_3_writes_it([1, 2]), "is no batch of CIFAR, or damaged"),
        (as_python_3_writes_it({"data": images_of(0)}), "is no batch of CIFAR, or damaged"),
        (as_python_3_writes_it({"data": images_of(0)[:, :-1], "labels": fine_of(0)}),
         "data is no array of 4 x 3072 bytes"),
        (as_python_3_writes_it({"data": images_of(0), "labels": [0, 1, 2, 10]}),
         "data_batch_1 image 3: its label 10 is not one of the 10 classes"),
    ],
)  # fmt: skip
def test_a_damaged_batch_is_named(tmp_path, content, message):
    folder = write_folder(tmp_path, "CIFAR10", "python")
    (folder / "data_batch_1").write_bytes(content)
    with pytest.raises(DataError, match=message):
        CIFAR10(root=str(folder))


def test_truncated_records_and_archives_are_named(tmp_path):
    folder = write_folder(tmp_path, "CIFAR10", "binary")
    path = folder / "data_batch_1.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_1\.bin has 12291 bytes, no multiple of 3073"):
        CIFAR10(root=str(folder))
    archive = pack(folder, "CIFAR10", "binary")
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(DataError, match="cannot be read, truncated or broken"):
        CIFAR10(root=str(archive), verify=False)


def test_a_link_in_an_archive_leads_nowhere(tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(file_content("CIFAR100", "binary", 0))
    archive = tmp_path / "cifar-100-binary.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        link = tarfile.TarInfo("cifar-100-binary/train.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        file.addfile(link, io.BytesIO())
    with pytest.raises(DataError, match=r"train\.bin is not in this archive"):
        CIFAR100(root=str(archive), verify=False)
