"""Images listed one path a line, their classes named by a folder: myrtle-vision's layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Optional

from passl.data.dataset import FileDataset, MissingDataError
from passl.data.kept import kept_arrays, table_arrays, table_of
from passl.data.lists import line_number
from passl.data.names import printable, read_names
from passl.data.table import SampleTable, TableBuilder
from passl.errors import DataError
from passl.json_text import from_json
from passl.registry import DATASETS, Component, Range, Runtime

_LAYOUT = (
    "Expected: a folder with images/CLASS/FILE, *_imagepaths.txt and label_map.json; "
    "`passl-data lists DIR --style myrtle` makes the last two"
)


_VERSION = 1  # of the table that is kept


@DATASETS.register()
class LabelMapDataset(FileDataset):
    """``images/<class>/<file>`` named in a text file, labels from a JSON map.

    The table of a long list is kept beside it, in ``LIST.table``.

    Args:
        dataset_path: folder that paths are relative to.
        image_paths: the list, one path a line, relative to ``dataset_path``, such as
            ``train_imagepaths.txt``.
        label_map: JSON object of class name and label, relative to ``dataset_path``.
        class_num: number of classes; checked against the map.
        transform_ops: transforms applied to each image, in this order.
        check_files: whether to look for 100 of the files.

    Source: myrtle-vision's classification data (the class is the second part of a path).
    """

    def __init__(
        self,
        *,
        dataset_path: str,
        image_paths: str,
        label_map: str = "label_map.json",
        class_num: Optional[Annotated[int, Range(min=1)]] = None,
        transform_ops: Annotated[Sequence[Any], Component("transforms")] = (),
        check_files: Annotated[bool, Runtime()] = True,
    ) -> None:
        root = Path(dataset_path)
        label_of = _read_map(_existing(root, label_map))
        self.classes = sorted(label_of, key=label_of.__getitem__)
        source = _existing(root, image_paths)
        arrays = kept_arrays(
            source.with_name(f"{source.name}.table"),
            lambda: {"version": _VERSION, "list": _stamp(source), "classes": self.classes},
            lambda: table_arrays(_read(source, self.classes)),
        )
        super().__init__(root, table_of(arrays), transform_ops)
        self.class_num = len(self.classes)
        if class_num is not None and class_num != self.class_num:
            raise DataError(
                f"LabelMapDataset: {root / label_map} has {self.class_num} classes but "
                f"dataset.class_num is {class_num}"
            )
        missing = self.missing_of_sample() if check_files else []
        if missing:
            raise MissingDataError(
                f"{source}:{line_number(source, missing[0])}: the image "
                f"{printable(self.path_of(missing[0]))} does not exist ({len(missing)} of "
                f"{min(len(self), 100)} files looked at are missing). {_LAYOUT}."
            )


def _stamp(file: Path) -> list[int]:
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _read(path: Path, classes: Sequence[str]) -> SampleTable:
    """The images of a list, with the labels of their folders."""
    names = read_names(path)
    if not names:
        raise DataError(f"{path}: the list is empty")
    label_of = {name: label for label, name in enumerate(classes)}
    builder = TableBuilder()
    for index, name in enumerate(names):
        parts = name.split("/")
        if len(parts) < 3:
            where = f"{path}:{line_number(path, index)}"
            raise DataError(f"{where}: {printable(name)} is no image; wanted images/CLASS/FILE")
        if parts[1] not in label_of:
            raise DataError(
                f"{path}:{line_number(path, index)}: {printable(name)} lies in a folder that is "
                f"none of the {len(classes)} classes of the label map"
            )
        builder.append(name, label_of[parts[1]])
    return builder.finish()


def _read_map(path: Path) -> dict[str, int]:
    try:
        content = from_json(path.read_text(encoding="utf-8"))
        label_of = {str(name): label for name, label in content.items()}
    except (ValueError, AttributeError) as error:
        raise DataError(f"{path}: is no JSON object of class names and labels ({error})") from error
    if sorted(label_of.values(), key=str) != sorted(range(len(label_of)), key=str):
        raise DataError(
            f"{path}: the labels must be the numbers 0 to {len(label_of) - 1}, each once"
        )
    return label_of


def _existing(root: Path, name: str) -> Path:
    path = root / name
    if not path.is_file():
        where = "" if path.is_absolute() else f" (looked in {Path.cwd()})"
        raise MissingDataError(f"LabelMapDataset: {path} does not exist{where}. {_LAYOUT}.")
    return path
