"""Where the files of a tar archive are, found once and kept beside it.

A tar has no table of contents: finding its members means walking through all of it, which for
ImageNet takes minutes and, as objects of Python's library, half a gigabyte in every process.  Here
the walk is made once; offset, size and name of each member go to ``ARCHIVE.index`` in flat arrays,
20 bytes and the name each, mapped into memory by every process that reads the archive.  The index
is made anew when the archive has another size or time of change.

An archive in an archive (``ILSVRC2012_img_train.tar`` holds a tar for each class) is looked into:
its members lie in one piece in the outer file.  A gzip archive cannot be read at any place; it is
unpacked once, beside itself.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zlib
from array import array
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Optional

import numpy as np

from passl.checkpoint.disk import human_size
from passl.data.dataset import MissingDataError
from passl.data.kept import Arrays, kept_arrays
from passl.data.once import one_at_a_time, remove_left_overs
from passl.data.table import SampleTable, TableBuilder
from passl.data.table_file import open_table_file, write_table_file
from passl.data.tar_members import TAR_ERRORS, whole_members
from passl.errors import DataError
from passl.logs.logger import get_logger

__all__ = ["TarIndex", "cache_file", "index_tar"]

_VERSION = 3  # of what is in an index
_GZIP = b"\x1f\x8b"
_COMPRESSED = {b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"(\xb5/\xfd": "zstd"}


@dataclass(frozen=True)
class TarIndex:
    """The files of an archive, in its order; links to files of it count as such.

    Attributes:
        path: what to read from; for a gzip archive the unpacked copy.
        table: names, ``inner.tar/name`` for members of an inner archive; labels mean nothing.
        offsets: int64 [N], where each file's bytes begin.
        sizes: int64 [N].
        stamp: size and time of change of what is read from.
    """

    path: Path
    table: SampleTable
    offsets: np.ndarray
    sizes: np.ndarray
    stamp: dict[str, int]

    def __len__(self) -> int:
        return len(self.offsets)


def index_tar(path: Path, cache_dir: Optional[Path] = None) -> TarIndex:
    """The index of an archive, read from beside it or made.

    Processes that start together make it once: the first does, the others wait.

    Args:
        path: a tar, plain or gzip.
        cache_dir: where the index and an unpacked copy go; None: beside the archive.

    Raises:
        MissingDataError: there is no such file.
        DataError: it is no tar, damaged, or compressed otherwise.
    """
    if not path.is_file():
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise MissingDataError(f"{path}: there is no such archive{where}")
    folder = cache_dir or path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"cache_dir {folder}: cannot be made ({error.strerror})") from error
    readable = _plain(path, cache_dir)
    stamp = _stamp(readable)
    arrays = kept_arrays(
        cache_file(path, cache_dir, "index"),
        lambda: _stamp(readable),
        lambda: _arrays(_looked_through(readable, stamp)),
        is_current=lambda arrays: _is_within(arrays, stamp["size"]),
        worth_it=0,
        advice="name a folder that can be written with dataset.cache_dir",
    )
    table = SampleTable(
        arrays["names"], arrays["name_offsets"], np.zeros(len(arrays["offsets"]), np.int32)
    )
    return TarIndex(readable, table, arrays["offsets"], arrays["sizes"], stamp)


def cache_file(path: Path, cache_dir: Optional[Path], ending: str) -> Path:
    """Where something about an archive is kept: ``ARCHIVE.ending`` beside it, or in ``cache_dir``.

    There archives of one name come together (``train/0000.tar`` and ``val/0000.tar``), so the name
    also says in which folder the archive lies.
    """
    if cache_dir is None:
        return path.with_name(f"{path.name}.{ending}")
    folder = zlib.crc32(os.fsencode(path.absolute().parent))
    return cache_dir / f"{path.name}.{folder:08x}.{ending}"


def _is_within(arrays: Arrays, size: int) -> bool:
    """Whether every member lies in the archive, whoever wrote the index."""
    offsets, sizes = arrays["offsets"], arrays["sizes"]
    return not ((offsets > size) | (sizes > size - offsets)).any()


def _arrays(index: TarIndex) -> Arrays:
    return {
        "names": index.table.names,
        "name_offsets": index.table.offsets,
        "offsets": index.offsets,
        "sizes": index.sizes,
    }


def _looked_through(path: Path, stamp: dict[str, int]) -> TarIndex:
    get_logger().info(f"{path}: looking for its files, once ({human_size(stamp['size'])})")
    builder, offsets, sizes = TableBuilder(), array("q"), array("q")
    targets: dict[int, str] = {}  # of links, by row
    try:
        with path.open("rb") as file:
            for name, member, start in _members(file, path):
                if not member.isreg():
                    targets[len(builder)] = _target(name, member)
                builder.append(name, 0)
                offsets.append(start + member.offset_data)
                sizes.append(member.size)
    except TAR_ERRORS as error:
        raise DataError(
            f"{path}: is no tar archive, or a damaged one ({error}); was its download interrupted?"
        ) from error
    found = TarIndex(
        path, builder.finish(), np.array(offsets, np.int64), np.array(sizes, np.int64), stamp
    )
    return _with_links(found, targets) if targets else found


def _members(file: IO[bytes], path: Path) -> Iterator[tuple[str, tarfile.TarInfo, int]]:
    """Name of each regular file and link, its header, and where the archive it is in begins."""
    size = path.stat().st_size
    with tarfile.open(fileobj=file, mode="r:") as archive:
        for member in whole_members(archive, str(path)):
            if not _is_file(member):
                continue
            if member.isreg() and member.offset_data + member.size > size:
                raise tarfile.ReadError(f"it ends within {member.name}")
            if not member.name.endswith(".tar") or not member.isreg():
                yield member.name, member, 0
                continue
            inner_file = archive.extractfile(member)
            assert inner_file is not None  # it is a regular file
            with tarfile.open(fileobj=inner_file, mode="r:") as inner:
                for entry in whole_members(inner, f"{path}!{member.name}"):
                    if _is_file(entry):
                        yield f"{member.name}/{entry.name}", entry, member.offset_data


def _is_file(member: tarfile.TarInfo) -> bool:
    if member.isreg() and member.sparse is not None:
        raise tarfile.ReadError(f"{member.name} is stored as a sparse file; pack without --sparse")
    return member.isreg() or member.islnk() or member.issym()


def _target(name: str, member: tarfile.TarInfo) -> str:
    """Name of the member that a link leads to: within its archive, or from its own folder."""
    before = name[: len(name) - len(member.name)] if member.islnk() else os.path.dirname(name)
    return os.path.normpath(os.path.join(before, member.linkname))


def _with_links(index: TarIndex, targets: Mapping[int, str]) -> TarIndex:
    """The places of the files that links lead to; links to anything else are told of and go."""
    wanted, places = set(targets.values()), {}
    for row in range(len(index)):
        name = os.path.normpath(index.table.name(row))
        if name in wanted:
            places[name] = row  # the last of a name counts, as it does when unpacked
    lost = []
    for row, target in targets.items():
        seen = {row}
        found = places.get(target)
        while found is not None and found in targets and found not in seen:
            seen.add(found)
            found = places.get(targets[found])
        if found is None or found in targets:
            lost.append(row)
        else:
            index.offsets[row], index.sizes[row] = index.offsets[found], index.sizes[found]
    if not lost:
        return index
    get_logger().warning(
        f"{index.path}: {len(lost)} links lead to no file in the archive and are left out, such as "
        f"{index.table.name(lost[0])}"
    )
    builder, kept = TableBuilder(), np.delete(np.arange(len(index)), lost)
    for row in kept.tolist():
        builder.append(index.table.name(row), 0)
    return TarIndex(
        index.path, builder.finish(), index.offsets[kept], index.sizes[kept], index.stamp
    )


def _plain(path: Path, cache_dir: Optional[Path]) -> Path:
    """The archive itself, or the unpacked copy of one that is compressed.

    Raises:
        DataError: it is compressed in another way, or there is no room for the copy.
    """
    with path.open("rb") as file:
        head = file.read(6)
    for signature, name in _COMPRESSED.items():
        if head.startswith(signature):
            raise DataError(
                f"{path}: is compressed with {name}; unpack it first ({name} --decompress), since "
                "images are read at any place of it"
            )
    if not head.startswith(_GZIP):
        return path
    with one_at_a_time(cache_file(path, cache_dir, "lock")):
        return _unpacked(path, cache_dir)


def _unpacked(path: Path, cache_dir: Optional[Path]) -> Path:
    copy = cache_file(path, cache_dir, "unpacked")
    stamp, note = _stamp(path), cache_file(path, cache_dir, "unpacked.stamp")
    with suppress(OSError, DataError):
        if open_table_file(note)[0] == stamp and copy.is_file():
            return copy
    get_logger().info(f"{path}: unpacking it to {copy}, once")
    remove_left_overs(copy)
    beside = copy.with_name(f".{copy.name}.tmp-{os.getpid()}")
    try:
        with gzip.open(path, "rb") as packed, beside.open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked, 4 << 20)
        beside.replace(copy)
        write_table_file(note, stamp, {})
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"{path}: cannot be unpacked to {copy} ({error}); unpack it yourself, or name a folder "
            "with room for it with dataset.cache_dir"
        ) from error
    finally:
        beside.unlink(missing_ok=True)
    return copy


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"version": _VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
