"""WebDataset shards: tars in which the files of a sample have one name and different endings."""

from __future__ import annotations

import glob
import hashlib
import json
import os
import re
from array import array
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Optional

import numpy as np

from passl.data.archives import ArchiveDataset
from passl.data.dataset import MissingDataError
from passl.data.kept import Arrays, kept_arrays, table_arrays, table_of
from passl.data.table import TableBuilder
from passl.data.tar_index import TarIndex, cache_file, index_tar
from passl.errors import DataError
from passl.json_text import from_json
from passl.registry import DATASETS, Component, Range

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_ENDINGS = ("jpg", "jpeg", "png", "webp", "bmp")
_LABELS = ("cls", "json")
_MAX_LABEL_BYTES = 1 << 16
_HIGHEST = 2**31 - 1  # of a table
_VERSION = 2  # of the table that is kept


@DATASETS.register()
class ShardDataset(ArchiveDataset):
    """Shards such as ``train-{000000..000999}.tar``, on local or shared disks.

    A sample is a run of members with one name up to the first dot: ``n01/x.jpg`` is the image,
    ``n01/x.cls`` its label as a number (or, where there is none, ``n01/x.json`` an object with the
    number under ``label_key``); of several images ``.jpg`` counts before ``.png``, and other
    members are passed over. A few thousand large files are quick to open where millions of small
    ones are not; the order of an epoch is as random as with single files, since every sample is
    read at its place. Of many samples the labels are read once; the table of them is kept beside
    the first shard, in ``SHARD.COUNT.samples``.

    Args:
        shards: path with a range in braces, or with ``*``, or of one shard.
        label_key: key of the label in a ``.json`` member.
        cache_dir: folder for the shards' indexes; default: beside each shard.
        class_num: number of classes; checked against every label.
        transform_ops: transforms applied to each image, in this order.

    Source: the naming convention of the WebDataset library.
    """

    def __init__(
        self,
        *,
        shards: str,
        label_key: str = "label",
        cache_dir: Optional[str] = None,
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        paths = expand_shards(shards)
        folder = Path(cache_dir) if cache_dir else None
        indexes = [index_tar(path, folder) for path in paths]
        arrays = kept_arrays(
            cache_file(paths[0], folder, f"{len(paths)}.samples"),
            lambda: _key(indexes, label_key),
            lambda: _arrays(indexes, label_key),
        )
        table = table_of(arrays)
        if not len(table):
            raise DataError(
                f"ShardDataset: {shards}: {len(paths)} shards and no image in them; wanted: "
                f"members that end in {', '.join(_ENDINGS)}"
            )
        super().__init__(
            [index.path for index in indexes],
            table,
            arrays["archive_of"],
            arrays["places"],
            arrays["sizes"],
            transform_ops,
            stamps=[index.stamp for index in indexes],
        )
        self.class_num = class_num
        if class_num is not None:
            self._check_labels(class_num)

    def _check_labels(self, class_num: int) -> None:
        wrong = (self.table.labels < 0) | (self.table.labels >= class_num)
        if wrong.any():
            first = int(wrong.argmax())
            raise DataError(
                f"{self.path_of(first)}: the label {self.table.label(first)} is out of range; "
                f"class_num is {class_num}, so labels go from 0 to {class_num - 1}"
            )


def _key(indexes: Sequence[TarIndex], label_key: str) -> dict[str, Any]:
    """What the samples are made of."""
    found = [[index.path.name, index.stamp] for index in indexes]
    digest = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    return {"version": _VERSION, "label_key": label_key, "shards": digest}


def _arrays(indexes: Sequence[TarIndex], label_key: str) -> Arrays:
    """The samples of all shards, with their places; every label is read."""
    builder = TableBuilder()
    archive_of, places, sizes = array("i"), array("q"), array("q")
    for number, index in enumerate(indexes):
        for name, row, label in _samples(index, label_key):
            builder.append(name, label)
            archive_of.append(number)
            places.append(int(index.offsets[row]))
            sizes.append(int(index.sizes[row]))
    return {
        **table_arrays(builder.finish()),
        "archive_of": np.array(archive_of, np.int32),
        "places": np.array(places, np.int64),
        "sizes": np.array(sizes, np.int64),
    }


def expand_shards(pattern: str) -> list[Path]:
    """The files that a pattern names, in order.

    Raises:
        MissingDataError: none, or one of a range, is there.
    """
    match = _BRACES.search(pattern)
    if match is not None:
        first, last = match[1], match[2]
        if len(first) != len(last) or int(first) > int(last):
            raise DataError(
                f"shards {pattern}: {match[0]} is no range; write it like {{000000..000999}}"
            )
        numbers = range(int(first), int(last) + 1)
        paths = [
            Path(f"{pattern[: match.start()]}{number:0{len(first)}d}{pattern[match.end() :]}")
            for number in numbers
        ]
    else:
        paths = [Path(name) for name in sorted(glob.glob(pattern))]
    missing = [path for path in paths if not path.is_file()]
    if missing or not paths:
        shown = missing[0] if missing else pattern
        count = f"{len(missing)} of {len(paths)}" if paths else "all"
        raise MissingDataError(f"shards {pattern}: {shown} does not exist ({count} are missing)")
    return paths


def _samples(index: TarIndex, label_key: str) -> Iterator[tuple[str, int, int]]:
    """Name and row of each image, and its label, read from the member beside it."""
    with index.path.open("rb") as file:
        key = ""  # of the sample that is being collected
        rows: dict[str, int] = {}  # of its members, by ending
        for row in range(len(index) + 1):
            name = index.table.name(row) if row < len(index) else ""
            folder, base = os.path.split(name)
            stem, _, ending = base.partition(".")
            here = f"{folder}/{stem}" if row < len(index) else ""
            if here != key:
                image = next((rows[known] for known in _ENDINGS if known in rows), None)
                if image is not None:
                    label = _label(index, file, rows, image, label_key)
                    yield index.table.name(image), image, label
                key, rows = here, {}
            ending = ending.lower()
            if ending in rows:
                raise DataError(
                    f"{index.path}!{name} stands there twice, for one sample; name samples apart"
                )
            if ending in (*_ENDINGS, *_LABELS):
                rows[ending] = row


def _label(
    index: TarIndex, file: BinaryIO, rows: Mapping[str, int], image: int, label_key: str
) -> int:
    """The label of a sample with these members: of its ``.cls``, or else of its ``.json``."""
    ending = next((known for known in _LABELS if known in rows), None)
    if ending is None:
        raise DataError(
            f"{index.path}!{index.table.name(image)} has no label: wanted a member of the same "
            "name that ends in .cls (a number) or .json, right before or after it"
        )
    row = rows[ending]
    where, size = f"{index.path}!{index.table.name(row)}", int(index.sizes[row])
    if size > _MAX_LABEL_BYTES:
        raise DataError(f"{where}: a label of {size} bytes")
    data = os.pread(file.fileno(), size, int(index.offsets[row]))
    try:
        value = from_json(data)[label_key] if ending == "json" else data.decode("ascii")
        if isinstance(value, (bool, float)):
            raise ValueError(f"{value!r} is no class")
        label = int(value)
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(f"{where}: is no label ({error!r}); wanted a whole number") from error
    if not 0 <= label <= _HIGHEST:
        raise DataError(f"{where}: the label {label} is out of range; labels count from 0")
    return label
