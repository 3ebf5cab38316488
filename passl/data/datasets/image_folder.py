"""A folder with one folder of images for each class."""

from __future__ import annotations

import os
import time
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Callable, NoReturn, Optional

import numpy as np

from passl.data.dataset import FileDataset, MissingDataError
from passl.data.kept import Arrays, kept_arrays, table_arrays, table_of
from passl.data.table import SampleTable, TableBuilder
from passl.errors import DataError
from passl.registry import DATASETS, Component, Range

_MAX_NAMED = 5
_VERSION = 2  # of the table that is kept
_TOO_FRESH_NS = 2 * 10**9  # the coarsest clock of a file system


@DATASETS.register()
class ImageFolder(FileDataset):
    """``root/CLASS/.../IMAGE``: the folders below ``root``, sorted by name, are the classes.

    Files are taken in sorted order, at any depth below their class; links to folders are followed,
    but not to one that they lie in; other files do not count, nor do hidden files and folders. The
    table of many files is kept beside the folder, in ``ROOT.table``, until a folder changes.

    Args:
        root: folder of the class folders.
        extensions: file name endings of images, upper or lower case.
        class_num: number of classes; checked against the folders found.
        transform_ops: transforms applied to each image, in this order.

    Attributes:
        classes: class names by label. class_to_idx: label by class name.
    """

    def __init__(
        self,
        *,
        root: str,
        extensions: Sequence[str] = (
            ".jpg",
            ".jpeg",
            ".png",
            ".bmp",
            ".webp",
            ".tif",
            ".tiff",
            ".ppm",
        ),
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
    ) -> None:
        folder = _existing_folder(root)
        self.classes = sorted(
            entry.name for entry in os.scandir(folder) if entry.is_dir() and entry.name[0] != "."
        )
        if not self.classes:
            raise DataError(
                f"ImageFolder: {root} has no folders in it; it needs one folder of images a class "
                f"({root}/cat/1.jpg, {root}/dog/1.jpg)"
            )
        self.class_to_idx = {name: label for label, name in enumerate(self.classes)}
        if class_num is not None and class_num != len(self.classes):
            raise DataError(
                f"ImageFolder: {root} has {len(self.classes)} class folders "
                f"({_some(self.classes)}) but dataset.class_num is {class_num}"
            )
        endings = tuple(ending.lower() for ending in extensions)
        arrays = kept_arrays(
            folder.absolute().with_name(f"{folder.absolute().name}.table"),
            lambda: {"version": _VERSION, "endings": endings, "classes": len(self.classes)},
            lambda: _arrays(folder, self.classes, endings),
            is_current=lambda arrays: _is_current(folder, arrays),
        )
        table = table_of(arrays)
        counts = table.class_counts(len(self.classes))
        empty = [name for name, count in zip(self.classes, counts.tolist()) if not count]
        if empty:
            raise DataError(
                f"ImageFolder: {len(empty)} of {len(self.classes)} class folders of {root} have no "
                f"image in them ({_some(empty)}); wanted: files ending in {' '.join(endings)}. "
                "Remove the empty folders or fill them"
            )
        super().__init__(folder, table, transform_ops)
        self.class_num = len(self.classes)


def _existing_folder(root: str) -> Path:
    path = Path(root)
    if path.is_file():
        raise MissingDataError(f"ImageFolder: root {root} is a file; it must be a folder")
    if not path.is_dir():
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise MissingDataError(
            f"ImageFolder: root {root} does not exist{where}. Expected: one folder of images a "
            f"class, {root}/CLASS/IMAGE.jpg; docs/data.md shows how to prepare it."
        )
    return path


def _arrays(root: Path, classes: Sequence[str], endings: tuple[str, ...]) -> Arrays:
    """The images of all classes, and the folders that were looked into with their times."""
    images, folders = TableBuilder(), TableBuilder()
    times = array("q")

    def note(folder: str) -> None:
        folders.append(folder, 0)
        times.append(os.stat(root / folder).st_mtime_ns)

    note("")
    for label, name in enumerate(classes):
        _add_class(images, note, root, name, label, endings)
    seen = folders.finish()
    return {
        **table_arrays(images.finish()),
        "folder_names": seen.names,
        "folder_offsets": seen.offsets,
        "folder_times": np.array(times, np.int64),
        "made": np.array([time.time_ns()], np.int64),
    }


def _is_current(root: Path, arrays: Arrays) -> bool:
    """No folder has changed since, nor was one changed so late that its time could not tell."""
    times = arrays["folder_times"]
    seen = SampleTable(arrays["folder_names"], arrays["folder_offsets"], times)
    if int(times.max()) > int(arrays["made"][0]) - _TOO_FRESH_NS:
        return False
    try:
        return all(
            os.stat(root / seen.name(row)).st_mtime_ns == times[row] for row in range(len(seen))
        )
    except OSError:
        return False


def _add_class(
    builder: TableBuilder,
    note: Callable[[str], None],
    root: Path,
    name: str,
    label: int,
    endings: tuple[str, ...],
) -> None:
    """Add the images of one class, and note the folders they are looked for in."""
    top = str(root / name)
    above = {top: {_identity(top)}}  # of a folder: itself and those it lies in
    for folder, subfolders, files in os.walk(top, onerror=_refuse, followlinks=True):
        known, kept = above.pop(folder), []
        for sub in sorted(sub for sub in subfolders if sub[0] != "."):
            path = os.path.join(folder, sub)
            identity = _identity(path)
            if identity not in known:  # else a link to a folder above, and endless
                above[path] = {*known, identity}
                kept.append(sub)
        subfolders[:] = kept
        prefix = os.path.relpath(folder, root)
        note(prefix)
        for file in sorted(files):
            if file.lower().endswith(endings) and file[0] != ".":
                builder.append(f"{prefix}/{file}", label)


def _refuse(error: OSError) -> NoReturn:
    """Of a folder that cannot be read, which os.walk would pass over in silence."""
    raise DataError(
        f"ImageFolder: the folder {error.filename} cannot be read ({error.strerror}), so its "
        "images would be missing; mend its permissions or remove it"
    ) from error


def _identity(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
