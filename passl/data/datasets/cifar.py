"""CIFAR-10 and CIFAR-100 from the files their authors publish, packed or unpacked.

Both come in a "python" version (pickles, which are read without running them) and a "binary" one
(plain records); either will do, as the archive or as the folder that it unpacks to.

Source: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and the page
of the data sets (layouts, MD5 sums).
"""

from __future__ import annotations

import hashlib
import io
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Optional

import numpy as np

from passl.checkpoint.unpickle import ForbiddenName, load_inert, to_array
from passl.data.dataset import Dataset, MissingDataError
from passl.data.tar_members import TAR_ERRORS
from passl.errors import DataError
from passl.registry import DATASETS, Component

_PIXELS = 3 * 32 * 32  # an image is its red plane, its green and its blue, each by rows
_LARGEST_MEMBER = 400_000_000  # bytes; the largest of the originals has 155 million
_PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


@dataclass(frozen=True)
class _Release:
    """One published version: archive, the folder in it, and its files by split."""

    archive: str
    md5: str
    folder: str
    files: dict[str, tuple[str, ...]]
    labels: tuple[str, ...]  # keys of a pickle, or label bytes of a record, in order
    names: dict[str, str]  # of ``labels`` -> the file that has the names of its classes

    @property
    def is_binary(self) -> bool:
        return self.archive.endswith("-binary.tar.gz")


_TEN = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR10 = (
    _Release(
        "cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", "cifar-10-batches-py",
        {"train": _TEN, "val": ("test_batch",)}, ("labels",), {"labels": "batches.meta"},
    ),
    _Release(
        "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530", "cifar-10-batches-bin",
        {"train": tuple(f"{name}.bin" for name in _TEN), "val": ("test_batch.bin",)}, ("labels",),
        {"labels": "batches.meta.txt"},
    ),
)
_CIFAR100 = (
    _Release(
        "cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", "cifar-100-python",
        {"train": ("train",), "val": ("test",)}, ("coarse_labels", "fine_labels"),
        {"coarse_labels": "meta", "fine_labels": "meta"},
    ),
    _Release(
        "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8", "cifar-100-binary",
        {"train": ("train.bin",), "val": ("test.bin",)}, ("coarse_labels", "fine_labels"),
        {"coarse_labels": "coarse_label_names.txt", "fine_labels": "fine_label_names.txt"},
    ),
)  # fmt: skip


class _Cifar(Dataset):
    """What both share: all images of a split in one uint8 array [N, 3072], 3 KiB an image."""

    def __init__(
        self,
        releases: Sequence[_Release],
        root: str,
        split: str,
        label_key: str,
        class_num: int,
        verify: bool,
        transform_ops: Sequence[Any],
    ) -> None:
        super().__init__(transform_ops)
        release, place = _find(type(self).__name__, releases, Path(root))
        if verify and place.is_file():
            _verify(place, release)
        read = _read_binary if release.is_binary else _read_pickle
        names, named_in = release.files[split], release.names[label_key]
        *contents, described = _contents(place, names, named_in)
        parts = [
            read(data, f"{place}: {name}", release.labels, label_key)
            for name, data in zip(names, contents)
        ]
        self._files = np.repeat(np.arange(len(names)), [len(images) for images, _ in parts])
        self._names, self._place = names, place
        self._images = np.concatenate([images for images, _ in parts])
        self.labels = self._classes = np.concatenate([labels for _, labels in parts])
        self.class_num = class_num
        self.classes = _class_names(described, release, label_key)
        if self.classes is not None and len(self.classes) != class_num:
            self.warnings.append(
                f"{place}: {named_in} has {len(self.classes)} names for {class_num} classes; their "
                "numbers stand in place of names"
            )
            self.classes = None
        wrong = np.flatnonzero((self._classes < 0) | (self._classes >= class_num))
        if len(wrong):
            raise DataError(
                f"{self.path_of(int(wrong[0]))}: its label {self._classes[wrong[0]]} is not one of "
                f"the {class_num} classes"
            )
        published = {"train": 50000, "val": 10000}[split]
        if len(self) != published:
            self.warnings.append(
                f"{place}: {len(self)} images to {'train on' if split == 'train' else 'evaluate'}; "
                f"the published data set has {published}"
            )

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> tuple[np.ndarray, int]:
        """Image uint8 [32, 32, 3], RGB, and its class."""
        planes = self._images[index].reshape(3, 32, 32)
        return np.ascontiguousarray(planes.transpose(1, 2, 0)), int(self._classes[index])

    def path_of(self, index: int) -> str:
        """File, and position of the image in it."""
        file = self._files[index]
        return f"{self._place}: {self._names[file]} image {index - np.argmax(self._files == file)}"


@DATASETS.register()
class CIFAR10(_Cifar):
    """CIFAR-10: 50,000 training and 10,000 test images, 32 x 32 pixels, 10 classes.

    Args:
        root: ``cifar-10-python.tar.gz`` or ``cifar-10-binary.tar.gz``, the folder that one of them
            unpacks to, or a folder that holds any of these; the unpacked one starts faster.
        split: ``train``, or ``val`` for the 10,000 test images.
        verify: compare an archive with its published MD5.
        transform_ops: transforms applied to each image, in this order.
    """

    def __init__(
        self,
        *,
        root: str = "./dataset",
        split: Literal["train", "val"] = "train",
        verify: bool = True,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        super().__init__(_CIFAR10, root, split, "labels", 10, verify, transform_ops)


@DATASETS.register()
class CIFAR100(_Cifar):
    """CIFAR-100: 50,000 training and 10,000 test images, 32 x 32 pixels, 100 classes.

    Args:
        root: ``cifar-100-python.tar.gz`` or ``cifar-100-binary.tar.gz``, the folder that one of
            them unpacks to, or a folder that holds any of these; the unpacked one starts faster.
        split: ``train``, or ``val`` for the 10,000 test images.
        label: the 100 ``fine`` classes, or the 20 ``coarse`` ones they are grouped in.
        verify: compare an archive with its published MD5.
        transform_ops: transforms applied to each image, in this order.
    """

    def __init__(
        self,
        *,
        root: str = "./dataset",
        split: Literal["train", "val"] = "train",
        label: Literal["fine", "coarse"] = "fine",
        verify: bool = True,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        classes = 100 if label == "fine" else 20
        super().__init__(_CIFAR100, root, split, f"{label}_labels", classes, verify, transform_ops)


# -- finding ---------------------------------------------------------------------------------------


def _find(owner: str, releases: Sequence[_Release], root: Path) -> tuple[_Release, Path]:
    """Which version is at ``root``, and its folder or archive; folders come first."""
    for release in releases:
        for folder in (root / release.folder, root):
            if (folder / release.files["val"][0]).is_file():
                return release, folder
    for release in releases:
        if root.is_file() and root.name == release.archive:
            return release, root
        if (root / release.archive).is_file():
            return release, root / release.archive
    where = "" if root.is_absolute() else f" (looked in {Path.cwd()})"
    wanted = " or ".join(f"{release.archive}, unpacked {release.folder}/," for release in releases)
    raise MissingDataError(
        f"{owner}: there is no such data at {root}{where}. Wanted: {wanted} from {_PAGE}; name the "
        "folder that holds it with dataset.root"
    )


def _verify(archive: Path, release: _Release) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with archive.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    if digest.hexdigest() != release.md5:
        raise DataError(
            f"{archive}: MD5 is {digest.hexdigest()}, published is {release.md5}: the download was "
            f"interrupted, or this is another file. Fetch it again from {_PAGE}; for data of your "
            "own in this layout set dataset.verify=false"
        )


def _contents(place: Path, names: Sequence[str], extra: str) -> list[bytes]:
    """The bytes of files in a folder or archive; nothing is unpacked to disk.

    Args:
        place: the folder or archive.
        names: of files that must be there.
        extra: of one that may be missing; its bytes come last, and are none then.
    """
    try:
        if place.is_dir():
            found_extra = (place / extra).read_bytes() if (place / extra).is_file() else b""
            return [*((place / name).read_bytes() for name in names), found_extra]
        found: dict[str, bytes] = {}
        with tarfile.open(place, "r:*") as archive:
            for member in archive:
                name = Path(member.name).name
                if name in (*names, extra) and member.isfile() and name not in found:
                    found[name] = _member(archive, member, place)
                if len(found) == len(names) + 1:
                    break
    except FileNotFoundError as error:
        raise MissingDataError(
            f"{error.filename}: does not exist; unpack the archive again"
        ) from error
    except (OSError, zlib.error, *TAR_ERRORS) as error:
        raise DataError(f"{place}: cannot be read, truncated or broken ({error})") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise DataError(f"{place}: {', '.join(missing)} is not in this archive")
    return [*(found[name] for name in names), found.get(extra, b"")]


def _member(archive: tarfile.TarFile, member: tarfile.TarInfo, place: Path) -> bytes:
    file = archive.extractfile(member) if member.size <= _LARGEST_MEMBER else None
    if file is None:
        raise DataError(f"{place}: {member.name} has {member.size} bytes; that is no CIFAR file")
    return file.read()


# -- reading ---------------------------------------------------------------------------------------


def _read_binary(
    data: bytes, where: str, labels: Sequence[str], wanted: str
) -> tuple[np.ndarray, np.ndarray]:
    """Records of the label bytes and 3072 pixels -> uint8 [N, 3072], int32 [N]."""
    width = len(labels) + _PIXELS
    if not data or len(data) % width:
        raise DataError(f"{where} has {len(data)} bytes, no multiple of {width}; is it truncated?")
    records = np.frombuffer(data, dtype=np.uint8).reshape(-1, width)
    return records[:, len(labels) :], records[:, labels.index(wanted)].astype(np.int32)


def _read_pickle(
    data: bytes, where: str, labels: Sequence[str], wanted: str
) -> tuple[np.ndarray, np.ndarray]:
    """A pickled dictionary with ``data`` and labels -> uint8 [N, 3072], int32 [N]."""
    del labels
    try:
        content = load_inert(io.BytesIO(data))
        entries = {_text(key): value for key, value in content.items()}
        images: Optional[np.ndarray] = to_array(entries["data"])
        classes = np.asarray([int(label) for label in entries[wanted]], dtype=np.int32)
        if images is None or images.dtype != np.uint8 or images.shape != (len(classes), _PIXELS):
            raise ValueError(f"data is no array of {len(classes)} x {_PIXELS} bytes")
    except ForbiddenName as error:
        raise DataError(
            f"{where} is refused, because reading it would run {error}; the published files need "
            "no code. Nothing was run"
        ) from error
    except Exception as error:  # pickle documents that damage may raise anything
        raise DataError(f"{where} is no batch of CIFAR, or damaged ({error})") from error
    return images, classes


def _class_names(data: bytes, release: _Release, label_key: str) -> Optional[list[str]]:
    """Names by label; None where the file is missing or has none: they are a help and no more."""
    if not data:
        return None
    if release.is_binary:
        return [line.strip() for line in data.decode("latin-1").splitlines() if line.strip()]
    try:
        content = load_inert(io.BytesIO(data))
        entries = {_text(key): value for key, value in content.items()}
        return [_text(name) for name in entries[label_key.replace("labels", "label_names")]]
    except Exception:  # pickle documents that damage may raise anything; nothing was run
        return []


def _text(key: Any) -> str:
    return key.decode("latin-1") if isinstance(key, bytes) else str(key)
