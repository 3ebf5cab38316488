"""The files below a folder, in an order that does not depend on the file system.

Names are kept as bytes, as the file system spells them: spaces, line ends and bytes that are no
UTF-8 are as good as any other.  The class of a file is the folder it lies in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional

import numpy as np

from passl.data.names import printable
from passl.data.table import SampleTable, TableBuilder
from passl.errors import ConfigError

__all__ = ["IMAGE_SUFFIXES", "Excluded", "Listing", "ListingBuilder", "left_out", "list_images"]

#: What counts as an image, whatever the case of its letters.
IMAGE_SUFFIXES = (b".jpeg", b".jpg", b".png", b".bmp", b".gif", b".webp", b".tif", b".tiff")


@dataclass(frozen=True)
class Excluded:
    """A file that is left out, and why."""

    name: str
    reason: str


@dataclass
class Listing:
    """Files and their classes.

    Attributes:
        table: paths relative to the root; labels are ranks of the class names.
        classes: class names, sorted as bytes.
        excluded: files that were found and left out.
        first: the first part of a path that may name a class.
    """

    table: SampleTable
    classes: list[str]
    excluded: list[Excluded] = field(default_factory=list)
    first: int = 0

    def __len__(self) -> int:
        return len(self.table)

    def keep(self, wanted: np.ndarray) -> Listing:
        """The files with a true entry in ``wanted`` (bool [N]); classes left empty go as well."""
        if wanted.all():
            return self
        table = _select(self.table, np.flatnonzero(wanted))
        used = np.unique(table.labels)
        rank = np.full(len(self.classes), -1, dtype=np.int32)
        rank[used] = np.arange(len(used), dtype=np.int32)
        table = SampleTable(table.names, table.offsets, rank[table.labels])
        classes = [self.classes[index] for index in used]
        return Listing(table, classes, self.excluded, self.first)


class ListingBuilder:
    """Collects files whose classes become known on the way.

    Args:
        first: the first part of a path that may name a class.
        deepest: the class is the folder that a file lies in; else the first that may name one.
    """

    def __init__(self, first: int = 0, *, deepest: bool = True) -> None:
        self._first, self._deepest = first, deepest
        self._table = TableBuilder()
        self._numbers: dict[bytes, int] = {}
        self.excluded: list[Excluded] = []

    def append(self, name: bytes) -> None:
        """Add a path.

        Raises:
            ValueError: the path has no folder that names its class.
        """
        self._table.append(os.fsdecode(name), self._number(name))

    def extend(self, folder: bytes, names: Sequence[bytes]) -> None:
        """Add files of one folder.

        Args:
            folder: ends with a slash, or is empty.
            names: what follows it in each path; of the same class.

        Raises:
            ValueError: the paths have no folder that names their class.
        """
        number = self._number(folder + names[0])
        self._table.extend([folder + name for name in names], number)

    def _number(self, path: bytes) -> int:
        """A number for the class of a path, in the order in which classes come."""
        folders = path.split(b"/")[self._first : -1]
        name = folders[-1 if self._deepest else 0] if folders else b""
        if not name:
            raise ValueError("it lies in no class folder")
        return self._numbers.setdefault(name, len(self._numbers))

    def finish(self) -> Listing:
        """The listing; labels become ranks of the sorted class names."""
        table = self._table.finish()
        names = sorted(self._numbers)
        rank = np.zeros(len(names), dtype=np.int32)
        for position, name in enumerate(names):
            rank[self._numbers[name]] = position
        labels = rank[table.labels] if len(names) else table.labels
        table = SampleTable(table.names, table.offsets, labels)
        classes = [os.fsdecode(name) for name in names]
        return Listing(table, classes, self.excluded, self._first)


def list_images(
    root: Path, *below: str, deepest: bool = True, lists: Optional[Path] = None
) -> Listing:
    """All image files below ``root``, sorted by the bytes of each part of their paths.

    Symbolic links are followed.  Files of other kinds, hidden files and folders, empty folders,
    images in no class folder and what is no file, such as a link that leads nowhere, are in
    ``excluded``, unless they lie right in ``root``, where lists are.

    Args:
        root: folder that paths are relative to.
        below: only look into these folders of it; the class folders lie in them.
        deepest: see :class:`ListingBuilder`.
        lists: a folder that is passed over if it lies among those of the classes.

    Raises:
        ConfigError: the folder cannot be read.
    """
    builder = ListingBuilder(1 if below else 0, deepest=deepest)
    start = len(os.fsencode(root).rstrip(b"/")) + 1
    for name in below or ("",):
        top = os.path.join(os.fsencode(root), os.fsencode(name)).rstrip(b"/") or b"/"
        passed_over = [_identity(os.fsencode(lists))] if lists and lists.is_dir() else []
        if passed_over == [_identity(top)]:
            passed_over = []
        for path, files in _walk(top, passed_over):
            folder = path[start:] + b"/" if len(path) >= start else b""
            _take(builder, folder, files)
    return builder.finish()


def _take(builder: ListingBuilder, folder: bytes, files: Sequence[tuple[bytes, str]]) -> None:
    """Sort what is right in a folder into images and others."""

    def leave_out(name: bytes, reason: str) -> None:
        builder.excluded.append(Excluded(os.fsdecode(folder + name), reason))

    found = []
    for name, fault in files:
        is_image = name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(b".")
        if not folder and not is_image:
            continue  # lists, notes and the like, beside the class folders
        if fault:
            leave_out(name, fault)
        elif name.startswith(b"."):
            leave_out(name, "a hidden file")
        elif not is_image:
            leave_out(name, "no image by its suffix")
        else:
            found.append(name)
    try:
        if found:
            builder.extend(folder, found)
    except ValueError as error:
        for name in found:
            leave_out(name, str(error))


_DEEPEST = 200  # folders in folders: no data set, and Python's functions nest no deeper than 1000
_Identity = tuple[int, int]  # device and number of a folder


def _walk(
    folder: bytes, seen: Sequence[_Identity]
) -> Iterator[tuple[bytes, list[tuple[bytes, str]]]]:
    """Folders and what is right in them, parts of paths in the order of their bytes.

    Of each entry the name and why it is no file, which is empty for a regular one.  A folder comes
    several times where other folders stand between its files.  Folders in ``seen`` are passed over.
    """
    here = _identity(folder)
    if here in seen:  # such as a link to a folder above
        return
    if len(seen) > _DEEPEST:
        raise ConfigError(
            f"{os.fsdecode(folder)[:200]}...: lies more than {_DEEPEST} folders deep; is this the "
            "right folder?"
        )
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, error) from error
    files = [] if found else [(b"", "an empty folder, and no class")]
    for entry in found:
        is_folder, fault = _kind(entry)
        if not is_folder or fault:
            files.append((entry.name, fault))
            continue
        if files:
            yield folder, files
        files = []
        yield from _walk(entry.path, (*seen, here))
    if files:
        yield folder, files


def _identity(folder: bytes) -> _Identity:
    try:
        status = os.stat(folder)
    except OSError as error:
        raise _unreadable(folder, error) from error
    return status.st_dev, status.st_ino


def _unreadable(folder: bytes, error: OSError) -> ConfigError:
    return ConfigError(
        f"{os.fsdecode(folder)}: cannot be read ({error.strerror}); check the path and its rights"
    )


def _kind(entry: os.DirEntry[bytes]) -> tuple[bool, str]:
    """Whether it is a folder, and why it is left out; the latter is empty for what is taken."""
    try:
        if entry.is_dir():
            return True, "a hidden folder" if entry.name.startswith(b".") else ""
        if entry.is_file():
            return False, ""
    except OSError as error:  # a link to itself, or to a place that we may not look at
        return False, f"cannot be looked at ({error.strerror})"
    return False, "a link that leads to no file" if entry.is_symlink() else "no regular file"


def left_out(excluded: Sequence[Excluded]) -> list[str]:
    """A line for each reason why things are left out: how many, and one of them."""
    by_reason: dict[str, list[str]] = {}
    for entry in excluded:
        by_reason.setdefault(entry.reason, []).append(entry.name)
    return [
        f"left out: {f'{len(names):,}, such as ' if len(names) > 1 else ''}{printable(names[0])}: "
        f"{reason}"
        for reason, names in sorted(by_reason.items(), key=lambda item: -len(item[1]))
    ]


def folders_without_images(listing: Listing) -> list[str]:
    """Names of folders that would be classes if the files in them were not all left out."""
    names = set()
    for entry in listing.excluded:
        folders = entry.name.split("/")[listing.first : -1]
        names.update(folders[-1:])
    return sorted(names - set(listing.classes))


def _select(table: SampleTable, rows: np.ndarray) -> SampleTable:
    """The samples ``rows`` (int64, ascending) of a table with one label each."""
    lengths = np.diff(table.offsets)[rows]
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    names = np.empty(int(offsets[-1]), dtype=np.uint8)
    # Runs of neighbours are copied in one piece: most selections keep nearly all.
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for run in np.split(np.arange(len(rows)), breaks) if len(rows) else []:
        begin, end = rows[run[0]], rows[run[-1]] + 1
        source = table.names[table.offsets[begin] : table.offsets[end]]
        names[offsets[run[0]] : offsets[run[-1] + 1]] = source
    return SampleTable(names, offsets, table.labels[rows])
