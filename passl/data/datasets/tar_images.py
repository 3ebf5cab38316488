"""Images in a tar archive, read where they lie."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np

from passl.data.archives import ArchiveDataset
from passl.data.class_names import label_by_name, read_class_names
from passl.data.dataset import MissingDataError
from passl.data.kept import Arrays, kept_arrays, table_arrays, table_of
from passl.data.lists import read_list
from passl.data.names import printable
from passl.data.table import SampleTable, TableBuilder
from passl.data.tar_index import TarIndex, cache_file, index_tar
from passl.errors import DataError
from passl.logs.logger import get_logger
from passl.registry import DATASETS, Component, Range

_VERSION = 2  # of the table that is kept
_ENDINGS = (".jpeg", ".jpg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm")


@DATASETS.register()
class TarImageDataset(ArchiveDataset):
    """The images of one tar archive; its name in the archive says the class of each.

    The class is the folder that an image lies in (``train/n01440764/x.JPEG``,
    ``./n01440764/x.JPEG`` and ``n01440764/x.JPEG`` alike), or, in an archive of archives such as
    ``ILSVRC2012_img_train.tar``, the name of the inner one. An archive of images without folders
    needs ``cls_label_path``. Samples are in the order of the archive; of several with one name the
    last counts, as when it is unpacked.

    The archive is looked through once; its index is kept beside it in ``ARCHIVE.index``, and where
    there are many samples, their table in ``ARCHIVE.samples``. A gzip archive is unpacked once, to
    ``ARCHIVE.unpacked``.

    Args:
        path: the archive, such as ``train.tar``.
        cls_label_path: a list of ``member label``, one a line: only these members, in this order.
        classes_path: class names, one a line, in the order of the labels; default: the names in
            the archive, sorted.
        cache_dir: folder for the index and an unpacked copy; default: beside the archive.
        class_num: number of classes; checked.
        transform_ops: transforms applied to each image, in this order.

    Source: the layout of LM4VisualEncoding's tar data (``train.tar``, ``val.tar``).
    """

    def __init__(
        self,
        *,
        path: str,
        cls_label_path: Optional[str] = None,
        classes_path: Optional[str] = None,
        cache_dir: Optional[str] = None,
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        folder = Path(cache_dir) if cache_dir else None
        index = index_tar(Path(path), folder)
        arrays = _samples(index, folder, Path(path), cls_label_path, classes_path, class_num)
        self.classes: list[str] = json.loads(arrays["classes"].tobytes())
        table = table_of(arrays)
        super().__init__(
            [index.path],
            table,
            np.zeros(len(table), np.int32),
            arrays["places"],
            arrays["sizes"],
            transform_ops,
            stamps=[index.stamp],
        )
        self.class_num = class_num if cls_label_path is not None else len(self.classes)
        if class_num is not None and self.class_num != class_num:
            raise DataError(
                f"TarImageDataset: {path} has {self.class_num} classes but dataset.class_num is "
                f"{class_num}"
            )


def _samples(
    index: TarIndex,
    folder: Optional[Path],
    path: Path,
    cls_label_path: Optional[str],
    classes_path: Optional[str],
    class_num: Optional[int],
) -> Arrays:
    """Names, labels and places of the samples, and the class names as JSON; of many, made once."""
    chosen = {"list": cls_label_path, "classes": classes_path}

    def key() -> dict[str, Any]:
        stamps = {name: _stamp(file) for name, file in chosen.items() if file is not None}
        limit = class_num if cls_label_path is not None else None
        return {"version": _VERSION, "archive": index.stamp, "class_num": limit, **stamps}

    def make() -> Arrays:
        classes: list[str] = []
        if cls_label_path is not None:
            rows, table = _listed(index, Path(cls_label_path), class_num)
        else:
            rows, table, classes = _by_folder(index, classes_path)
        return {
            **table_arrays(table),
            "places": index.offsets[rows],
            "sizes": index.sizes[rows],
            "classes": np.frombuffer(json.dumps(classes).encode(), np.uint8),
        }

    return kept_arrays(cache_file(path, folder, "samples"), key, make)


def _stamp(file: str) -> Optional[list[int]]:
    try:
        status = os.stat(file)
    except OSError:  # told of where it is read
        return None
    return [status.st_size, status.st_mtime_ns]


def _by_folder(
    index: TarIndex, classes_path: Optional[str]
) -> tuple[np.ndarray, SampleTable, list[str]]:
    """Members that are images, with labels from their folders, and the class names."""
    names: list[str] = []
    rows: list[int] = []
    for row in range(len(index)):
        parts = index.table.name(row).split("/")
        if not parts[-1].lower().endswith(_ENDINGS) or parts[-1].startswith("."):
            continue
        folder = parts[-2] if len(parts) > 1 else ""
        if folder in ("", ".", ".."):
            raise DataError(
                f"TarImageDataset: {index.path} holds {index.table.name(row)}, which lies in no "
                "class folder; name its label in a list with cls_label_path"
            )
        rows.append(row)
        names.append(folder.removesuffix(".tar") if folder.endswith(".tar") else folder)
    if not rows:
        raise DataError(
            f"TarImageDataset: {index.path} has no images among its {len(index)} files; wanted: "
            f"names that end in {' '.join(_ENDINGS)}"
        )
    replaced = _replaced(index, rows)
    if replaced:
        get_logger().warning(
            f"{index.path}: {len(replaced)} of its images stand there again further on, such as "
            f"{printable(index.table.name(min(replaced)))}; the last of a name counts, as it does "
            "when the archive is unpacked"
        )
        names = [name for row, name in zip(rows, names) if row not in replaced]
        rows = [row for row in rows if row not in replaced]
    classes = read_class_names(classes_path) if classes_path else sorted(set(names))
    labels = label_by_name(names, classes, str(index.path))
    builder = TableBuilder()
    for row, label in zip(rows, labels):
        builder.append(index.table.name(row), label)
    return np.array(rows, np.int64), builder.finish(), classes


def _replaced(index: TarIndex, rows: Sequence[int]) -> set[int]:
    """Those of the rows that another of the same name follows, as ``tar --append`` leaves them."""
    hashes = np.fromiter((hash(_normal(index.table.name(row))) for row in rows), np.int64)
    values, counts = np.unique(hashes, return_counts=True)
    suspects = np.flatnonzero(np.isin(hashes, values[counts > 1]))
    last: dict[str, int] = {}
    replaced = set()
    for row in np.asarray(rows)[suspects].tolist():
        name = _normal(index.table.name(row))
        if name in last:
            replaced.add(last[name])
        last[name] = row
    return replaced


def _listed(
    index: TarIndex, path: Path, class_num: Optional[int]
) -> tuple[np.ndarray, SampleTable]:
    """The members that a list names."""
    if not path.is_file():
        raise MissingDataError(f"cls_label_path {path} does not exist; it lists 'member label'")
    table = read_list(path, class_num=class_num)
    place = {_normal(index.table.name(row)): row for row in range(len(index))}
    rows = np.empty(len(table), np.int64)
    for number in range(len(table)):
        row = place.get(_normal(table.name(number)))
        if row is None:
            raise MissingDataError(
                f"{path}: {table.name(number)} is not in {index.path}, which holds for example "
                f"{index.table.name(0) if len(index) else 'nothing'}"
            )
        rows[number] = row
    return rows, table


def _normal(name: str) -> str:
    return os.path.normpath(name)
