"""The files below a folder, in an order that does not depend on the file system.

Names are kept as bytes, as the file system spells them: spaces, line ends and bytes that are no
UTF-8 are as good as any other.  The class of a file is the folder it lies in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

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
    """

    table: SampleTable
    classes: list[str]
    excluded: list[Excluded] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.table)

    def keep(self, wanted: np.ndarray) -> Listing:
        """The files with a true entry in ``wanted`` (bool [N]); classes left empty go as well."""
        table = _select(self.table, np.flatnonzero(wanted))
        used = np.unique(table.labels)
        rank = np.full(len(self.classes), -1, dtype=np.int32)
        rank[used] = np.arange(len(used), dtype=np.int32)
        table = SampleTable(table.names, table.offsets, rank[table.labels])
        return Listing(table, [self.classes[index] for index in used], self.excluded)


class ListingBuilder:
    """Collects files whose classes become known on the way.

    Args:
        class_part: which part of a path names the class: -2 the folder that the file lies in, 0
            the first folder.
    """

    def __init__(self, class_part: int = -2) -> None:
        self._class_part = class_part
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
        parts = path.split(b"/")
        if not -len(parts) <= self._class_part < len(parts) - 1 or not parts[self._class_part]:
            raise ValueError("it lies in no class folder")
        return self._numbers.setdefault(parts[self._class_part], len(self._numbers))

    def finish(self) -> Listing:
        """The listing; labels become ranks of the sorted class names."""
        table = self._table.finish()
        names = sorted(self._numbers)
        rank = np.zeros(len(names), dtype=np.int32)
        for position, name in enumerate(names):
            rank[self._numbers[name]] = position
        labels = rank[table.labels] if len(names) else table.labels
        table = SampleTable(table.names, table.offsets, labels)
        return Listing(table, [os.fsdecode(name) for name in names], self.excluded)


def list_images(root: Path, below: str = "", *, class_part: int = -2) -> Listing:
    """All image files below ``root/below``, sorted by the bytes of each part of their paths.

    Symbolic links are followed.  Files of other kinds, hidden files and folders, empty folders and
    what is no file, such as a link that leads nowhere, are in ``excluded``, unless they lie right
    in ``root``, where lists are.

    Args:
        root: folder that paths are relative to.
        below: only look into this folder of it.
        class_part: see :class:`ListingBuilder`.

    Raises:
        ConfigError: the folder cannot be read.
    """
    builder = ListingBuilder(class_part)
    top = os.path.join(os.fsencode(root), os.fsencode(below)) if below else os.fsencode(root)
    start = len(os.fsencode(root).rstrip(b"/")) + 1
    for path, files in _walk(top, seen=()):
        folder = path[start:] + b"/" if len(path) >= start else b""
        found = []
        for name, fault in files:
            is_image = name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(b".")
            if not folder and not is_image:
                continue  # lists, notes and the like, beside the class folders
            if fault:
                builder.excluded.append(Excluded(os.fsdecode(folder + name), fault))
            elif name.startswith(b"."):
                builder.excluded.append(Excluded(os.fsdecode(folder + name), "a hidden file"))
            elif not is_image:
                reason = "no image by its suffix"
                builder.excluded.append(Excluded(os.fsdecode(folder + name), reason))
            else:
                found.append(name)
        try:
            if found:
                builder.extend(folder, found)
        except ValueError as error:
            builder.excluded += [
                Excluded(os.fsdecode(folder + name), str(error)) for name in found
            ]
    return builder.finish()


def _walk(
    folder: bytes, seen: Sequence[tuple[int, int]]
) -> Iterator[tuple[bytes, list[tuple[bytes, str]]]]:
    """Folders and what is right in them, parts of paths in the order of their bytes.

    Of each entry the name and why it is no file, which is empty for a regular one.  A folder comes
    several times where other folders stand between its files.
    """
    try:
        status = os.stat(folder)
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(
            f"{os.fsdecode(folder)}: cannot be read ({error.strerror}); check the path and its "
            "rights"
        ) from error
    here = (status.st_dev, status.st_ino)
    if here in seen:  # a link to a folder above
        return
    files = [] if found else [(b"", "an empty folder, and no class")]
    for entry in found:
        if entry.is_dir() and entry.name.startswith(b"."):
            files.append((entry.name, "a hidden folder"))
        elif entry.is_dir():
            if files:
                yield folder, files
            files = []
            yield from _walk(entry.path, (*seen, here))
        else:
            files.append((entry.name, "" if entry.is_file() else _no_file(entry)))
    if files:
        yield folder, files


def _no_file(entry: os.DirEntry[bytes]) -> str:
    return "a link that leads to no file" if entry.is_symlink() else "no regular file"


def left_out(excluded: Sequence[Excluded]) -> list[str]:
    """A sentence about files that are left out, if there are any."""
    if not excluded:
        return []
    first = excluded[0]
    count = f"{len(excluded):,} files are" if len(excluded) > 1 else "1 file is"
    return [f"{count} left out, such as {first.name}: {first.reason}"]


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
