"""ImageNet-1K from the published archives, or from folders, to PASSL's lists.

    ROOT/ILSVRC2012_img_train.tar        a tar of one tar a class
    ROOT/ILSVRC2012_img_val.tar          50,000 images, flat
    ROOT/ILSVRC2012_devkit_t12.tar.gz    the labels of those

become ``train/CLASS/IMAGE``, ``val/IMAGE``, ``train_list.txt`` and ``val_list.txt``.  Class ``i``
is the ``i``-th of the sorted synset names, as everywhere.  An interrupted extraction goes on: a
class folder appears only when it is complete.

Source: the readme of the ILSVRC2012 development kit: line ``k`` of
``data/ILSVRC2012_validation_ground_truth.txt`` is the ILSVRC2012_ID of validation image ``k``, and
``data/meta.mat`` has the WNID of each ID; IDs 1 to 1000 are the classes.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Callable, Optional

import numpy as np

from passl.checkpoint.disk import remove_tree
from passl.data.names import list_name, names_text, printable
from passl.data.prepare.alone import alone_in
from passl.data.prepare.listing import Excluded, left_out, list_images
from passl.data.prepare.merge import write_bytes
from passl.data.table import SampleTable, TableBuilder
from passl.data.tar_members import TAR_ERRORS, whole_members
from passl.errors import ConfigError, DataError

__all__ = ["Sources", "prepare"]

TRAIN_TAR, VAL_TAR, DEVKIT = (
    "ILSVRC2012_img_train.tar",
    "ILSVRC2012_img_val.tar",
    "ILSVRC2012_devkit_t12",
)
_NUM_CLASSES, _NUM_TRAIN, _NUM_VAL = 1_000, 1_281_167, 50_000
TRAIN_LIST, VAL_LIST, CLASSES = "train_list.txt", "val_list.txt", "classes.txt"
_IMAGE = re.compile(r"[\w.-]+\.JPEG")
_VAL_NUMBER = re.compile(rb"ILSVRC2012_val_(\d{8})\.JPEG")
_CLASS_TAR = re.compile(r"(n\d{8})\.tar")
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"

Say = Callable[[str], None]
Progress = Callable[[int, int, int], None]  # done, in all, done before


@dataclass(frozen=True)
class Sources:
    """Where things are; a name that is None is looked for in ``root`` under its published name.

    Attributes:
        root: gets ``train/``, ``val/`` and the lists.
        train_tar, val_tar: the archives; not needed where the folders are there.
        devkit: the development kit, packed or as a folder; not needed where ``val/`` has class
            folders.
    """

    root: Path
    train_tar: Optional[Path] = None
    val_tar: Optional[Path] = None
    devkit: Optional[Path] = None


def prepare(sources: Sources, say: Say, progress: Optional[Progress] = None) -> list[str]:
    """Extract what is not there yet and write the lists; returns sentences for the terminal.

    Raises:
        ConfigError: something is missing, nothing can be written, or another command is at work.
        DataError: an archive is damaged, or labels and images do not fit.
    """
    root = sources.root
    if not root.is_dir():
        raise ConfigError(f"{root}: there is no such folder")
    with alone_in(root, (TRAIN_LIST, VAL_LIST, CLASSES)):
        return _prepare(sources, say, progress)


def _prepare(sources: Sources, say: Say, progress: Optional[Progress]) -> list[str]:
    root = sources.root
    try:
        if not _is_done(root / "train"):
            _extract_train(_given(sources.train_tar, root, TRAIN_TAR, "train"), root, say, progress)
        if not _is_done(root / "val"):
            _extract_val(_given(sources.val_tar, root, VAL_TAR, "val"), root, say, progress)
        say("listing the images")
        train = list_images(root, "train")
        val, excluded = _label_validation(sources, train.classes, say)
        lines = [
            _write(root / TRAIN_LIST, train.table),
            _write(root / VAL_LIST, val),
        ]
        write_bytes(root / CLASSES, names_text(train.classes))
    except OSError as error:
        raise ConfigError(
            f"{error.filename or root}: {error.strerror}; check the path, its rights and the free "
            "space"
        ) from error
    lines += left_out([*train.excluded, *excluded])
    number = len(train.classes)
    if number != _NUM_CLASSES:
        noun = "class" if number == 1 else "classes"
        lines.append(f"warning: {number} {noun}; ImageNet-1K has {_NUM_CLASSES}")
    else:
        for part, found, wanted in (("train", len(train), _NUM_TRAIN), ("val", len(val), _NUM_VAL)):
            if found != wanted:
                lines.append(f"warning: {found:,} images in {part}/; ImageNet-1K has {wanted:,}")
    return lines


# -- labels ----------------------------------------------------------------------------------------


def _label_validation(
    sources: Sources, classes: list[str], say: Say
) -> tuple[SampleTable, list[Excluded]]:
    """The validation images with their classes, from their folders or from the development kit.

    Also what is left out.
    """
    root = sources.root
    rank = {name: index for index, name in enumerate(classes)}
    folders = [entry for entry in (root / "val").iterdir() if entry.is_dir()]
    if any(not entry.name.startswith(".") for entry in folders):
        val = list_images(root, "val")
        strange = sorted(set(val.classes) - set(classes))
        if strange:
            raise DataError(
                f"{root / 'val'}: {len(strange)} folders are no class of train/, such as "
                f"{printable(strange[0])}"
            )
        labels = np.array([rank[name] for name in val.classes], dtype=np.int32)[val.table.labels]
        return SampleTable(val.table.names, val.table.offsets, labels), val.excluded
    truth = _validation_classes(sources, say)
    builder, excluded = TableBuilder(), []
    for name in sorted(os.listdir(os.fsencode(root / "val"))):
        path = f"val/{os.fsdecode(name)}"
        match = _VAL_NUMBER.fullmatch(name)
        if match is None:
            excluded.append(Excluded(path, "not named as a validation image"))
            continue
        number = int(match[1])
        if not 1 <= number <= len(truth):
            raise DataError(f"{path}: the development kit has labels for {len(truth)} images")
        wnid = truth[number - 1]
        if wnid not in rank:
            raise DataError(f"{path} is of class {wnid}, which train/ lacks")
        builder.append(path, rank[wnid])
    if len(builder) != len(truth):
        raise DataError(
            f"{root / 'val'}: {len(builder)} validation images, but the development kit has labels "
            f"for {len(truth)}"
        )
    return builder.finish(), excluded


def _validation_classes(sources: Sources, say: Say) -> list[str]:
    """WNID of each validation image, in the order of their numbers."""
    if sources.devkit is not None and not sources.devkit.exists():
        raise ConfigError(f"--devkit {sources.devkit}: there is no such file or folder")
    found = [sources.devkit] if sources.devkit else sorted(sources.root.glob(f"{DEVKIT}*"))
    if not found:
        raise ConfigError(
            f"{sources.root}: val/ has no class folders, so its labels are needed: put "
            f"{DEVKIT}.tar.gz there, or name it with --devkit"
        )
    say(f"labels of the validation images from {found[0]}")
    truth, meta = _devkit_files(found[0])
    wnid = _wnids(meta, found[0])
    try:
        return [wnid[int(line)] for line in truth.split()]
    except (ValueError, KeyError) as error:
        raise DataError(f"{found[0]}: {_TRUTH} has a line that is no class: {error}") from error


def _devkit_files(path: Path) -> tuple[bytes, bytes]:
    """Ground truth and meta data."""
    contents: dict[str, bytes] = {}
    if path.is_dir():
        for name in (_TRUTH, _META):
            for file in sorted(path.rglob(name)):
                contents.setdefault(name, file.read_bytes())
    else:
        with _naming(path), tarfile.open(path) as archive:
            for member in archive:
                name = os.path.basename(member.name)
                stream = archive.extractfile(member) if name in (_TRUTH, _META) else None
                if stream is not None:
                    contents.setdefault(name, stream.read())
    missing = [name for name in (_TRUTH, _META) if name not in contents]
    if missing:
        raise DataError(f"{path}: {missing[0]} is not in it; is it the ILSVRC2012 task 1 kit?")
    return contents[_TRUTH], contents[_META]


def _wnids(meta: bytes, path: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> WNID."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise ConfigError(
            f"{path}: reading {_META} needs SciPy: pip install scipy (or put the validation images "
            "into class folders)"
        ) from error
    try:
        synsets = loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"]
        return {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in synsets}
    except Exception as error:  # SciPy has many for a file that is damaged
        raise DataError(f"{path}: {_META} is not as expected ({error})") from error


# -- archives --------------------------------------------------------------------------------------


def _extract_train(path: Path, root: Path, say: Say, progress: Optional[Progress]) -> None:
    say(f"extracting {path} to {root / 'train'}")
    target = root / "train.partial"
    target.mkdir(exist_ok=True)
    num_known = 0
    with _naming(path), tarfile.open(path, "r:") as outer:
        members = [member for member in whole_members(outer, str(path)) if member.isfile()]
        for number, member in enumerate(members, start=1):
            match = _CLASS_TAR.fullmatch(os.path.basename(member.name))
            if match is None:
                raise DataError(
                    f"{path}: holds {member.name!r}; expected one tar a class, such as "
                    "n01440764.tar"
                )
            if (target / match[1]).is_dir():
                num_known += 1
            else:
                stream = outer.extractfile(member)
                assert stream is not None  # it is a regular file
                _extract_images(stream, target / match[1], say)
            if progress is not None:
                progress(number, len(members), num_known)
    target.rename(root / "train")


def _extract_val(path: Path, root: Path, say: Say, progress: Optional[Progress]) -> None:
    say(f"extracting {path} to {root / 'val'}")
    with _naming(path), path.open("rb") as stream:
        _extract_images(stream, root / "val", say)
    if progress is not None:
        progress(1, 1, 0)


def _extract_images(stream: IO[bytes], folder: Path, say: Say) -> None:
    """The images of a tar into a folder, which appears when all are there.

    Only plain file names that look like an image's are written, so that no archive can write
    anywhere else.
    """
    others: list[str] = []
    with _appearing(folder) as partial, tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in whole_members(archive, folder.name):
            name = os.path.basename(member.name)
            wanted = member.isfile() and _IMAGE.fullmatch(name)  # a link leads anywhere
            source = archive.extractfile(member) if wanted else None
            if source is not None:
                with open(partial / name, "wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
            elif not member.isdir():
                others.append(member.name)
    if others:
        which = (
            "1 member of its archive is not extracted, since it is no file called NAME.JPEG: "
            if len(others) == 1
            else f"{len(others):,} members of its archive are not extracted, since they are no "
            "files called NAME.JPEG, such as "
        )
        say(f"warning: {folder.name}: {which}{printable(others[0])}")


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Errors of an archive name it."""
    try:
        yield
    except (*TAR_ERRORS, gzip.BadGzipFile, zlib.error) as error:
        reason = str(error).split("\n", maxsplit=1)[0].rstrip(":")
        raise DataError(f"{path}: is damaged, or no archive ({reason}); fetch it again") from error


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    partial = folder.with_name(f".{folder.name}.partial")
    remove_tree(partial)
    partial.mkdir()
    yield partial
    partial.rename(folder)


def _given(path: Optional[Path], root: Path, name: str, folder: str) -> Path:
    path = path or root / name
    if not path.is_file():
        raise ConfigError(
            f"{root}: there is neither a folder {folder}/ nor {name}; put one of them there, or "
            f"name the archive with --{folder}-tar"
        )
    return path


def _is_done(folder: Path) -> bool:
    return folder.is_dir()


def _write(path: Path, table: SampleTable) -> str:
    lines = [
        b"%s %d\n" % (list_name(os.fsencode(table.name(index))), table.label(index))
        for index in range(len(table))
    ]
    if not lines:
        raise DataError(f"{path.parent}: no images for {path.name}")
    write_bytes(path, b"".join(lines))
    return f"{path}: {len(lines):,} images"
