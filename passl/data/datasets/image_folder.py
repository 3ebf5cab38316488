"""A folder with one folder of images for each class."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

from passl.data.dataset import FileDataset, MissingDataError
from passl.data.table import TableBuilder
from passl.errors import DataError
from passl.registry import DATASETS, Component, Range

_MAX_NAMED = 5


@DATASETS.register()
class ImageFolder(FileDataset):
    """``root/CLASS/.../IMAGE``: the folders below ``root``, sorted by name, are the classes.

    Files are taken in sorted order, at any depth below their class; links to folders are followed;
    other files and hidden folders do not count.

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
        builder, endings = TableBuilder(), tuple(ending.lower() for ending in extensions)
        empty = [
            name
            for label, name in enumerate(self.classes)
            if not _add_class(builder, folder, name, label, endings)
        ]
        if empty:
            raise DataError(
                f"ImageFolder: {len(empty)} of {len(self.classes)} class folders of {root} have no "
                f"image in them ({_some(empty)}); wanted: files ending in {' '.join(endings)}. "
                "Remove the empty folders or fill them"
            )
        super().__init__(folder, builder.finish(), transform_ops)
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


def _add_class(
    builder: TableBuilder, root: Path, name: str, label: int, endings: tuple[str, ...]
) -> int:
    """Add the images of one class; returns how many there are."""
    before = len(builder)
    for folder, subfolders, files in os.walk(root / name, followlinks=True):
        subfolders[:] = sorted(sub for sub in subfolders if sub[0] != ".")
        prefix = os.path.relpath(folder, root)
        for file in sorted(files):
            if file.lower().endswith(endings):
                builder.append(f"{prefix}/{file}", label)
    return len(builder) - before


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_MAX_NAMED]) + (", ..." if len(names) > _MAX_NAMED else "")
