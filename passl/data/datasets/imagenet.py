"""ImageNet and anything else that comes as a folder of images and a list file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

import numpy as np

from passl.data.dataset import FileDataset, MissingDataError, describe_classes
from passl.data.list_cache import read_list_once
from passl.data.lists import line_number
from passl.data.names import printable
from passl.errors import ConfigError, DataError
from passl.registry import DATASETS, Component, Range, Runtime

_LAYOUT = (
    "Expected: a folder such as ILSVRC2012/ with train/ and val/ below it, and a list file "
    "(train_list.txt, val_list.txt) with one 'relative/path label' a line; docs/data.md shows how "
    "to prepare them."
)


@DATASETS.register()
class ImageNetDataset(FileDataset):
    """Images named by a list file, one ``relative/path<delimiter>label`` a line.

    The label stands after the last delimiter of the line, so paths may contain it. The list is
    checked as it is read: the form of every line, the range of every label, and the existence of
    100 files spread over the list (``passl-check --data`` looks at all of them). A long list is
    parsed once; its table is kept beside it, in ``LIST.table``.

    Args:
        image_root: folder that the paths are relative to.
        cls_label_path: the list file.
        delimiter: one character between path and label.
        multi_label: a label is a comma-separated set, ``path 3,17,250``; the target of a batch is
            then multi-hot, float32 [B, class_num].
        class_num: number of classes; checked against every label. Needed for multi_label.
        transform_ops: transforms applied to each image, in this order.
        check_files: whether to look for those 100 files.

    Source: PASSL's ``ImageNetDataset`` (argument names and list format).
    """

    def __init__(
        self,
        *,
        image_root: str,
        cls_label_path: str,
        delimiter: str = " ",
        multi_label: bool = False,
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
        check_files: Annotated[bool, Runtime()] = True,
    ) -> None:
        if multi_label and class_num is None:
            raise ConfigError(
                "ImageNetDataset: multi_label needs class_num, the length of the multi-hot targets "
                "(21841 for ImageNet-21K)"
            )
        self.list_path = _existing_list(cls_label_path)
        root = _existing_root(image_root)
        table = read_list_once(
            self.list_path, delimiter=delimiter, multi_label=multi_label, class_num=class_num
        )
        super().__init__(root, table, transform_ops)
        self.class_num = class_num
        if check_files:
            self._check_some_files()
        if class_num is not None:
            empty = np.flatnonzero(table.class_counts(class_num) == 0).tolist()
            if empty:
                self.warnings.append(
                    f"{self.list_path}: {describe_classes(empty)} of {class_num} without an image"
                )

    def _check_some_files(self) -> None:
        missing = self.missing_of_sample()
        if missing:
            first = missing[0]
            raise MissingDataError(
                f"{self.list_path}:{line_number(self.list_path, first)}: the image "
                f"{printable(self.path_of(first))} does not exist ({len(missing)} of "
                f"{min(len(self), 100)} files looked at are missing). Paths in the list are "
                f"relative to image_root, {self.root}. `passl-check --data` looks at all of them."
            )


def _existing_list(name: str) -> Path:
    path = Path(name)
    if path.is_dir():
        raise MissingDataError(
            f"cls_label_path {name} is a folder; it must be the list file itself. {_LAYOUT}"
        )
    if not path.is_file():
        raise MissingDataError(f"cls_label_path {name} does not exist{_from(path)}. {_LAYOUT}")
    try:
        with path.open("rb"):
            return path
    except OSError as error:
        raise DataError(f"cls_label_path {name} cannot be read: {error.strerror}") from error


def _existing_root(name: str) -> Path:
    path = Path(name)
    if path.is_file():
        raise MissingDataError(f"image_root {name} is a file; it must be a folder. {_LAYOUT}")
    if not path.is_dir():
        raise MissingDataError(f"image_root {name} does not exist{_from(path)}. {_LAYOUT}")
    return path


def _from(path: Path) -> str:
    return "" if path.is_absolute() else f" (looked in {Path.cwd()})"
