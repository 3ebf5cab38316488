"""Names of classes, and the labels they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import numpy as np

from passl.data.dataset import MissingDataError
from passl.data.names import read_names
from passl.errors import DataError

__all__ = ["CLASSES_FILE", "classes_of", "known_names", "label_by_name", "read_class_names"]

#: As ``passl-data`` leaves it beside a list of images.
CLASSES_FILE = "classes.txt"


def classes_of(dataset: Any) -> Optional[list[str]]:
    """Names of a data set's classes by label; None where its ``classes`` is no list of them.

    A data set of one's own may keep anything under that name, such as their number.
    """
    found = getattr(dataset, "classes", None)
    if isinstance(found, np.ndarray) and found.ndim == 1:
        found = found.tolist()
    return [str(name) for name in found] if isinstance(found, (list, tuple)) and found else None


def known_names(dataset: Any, section: Mapping[str, Any]) -> Optional[list[str]]:
    """Names of the classes by label: of the data set itself, else of ``classes.txt`` beside it.

    Args:
        dataset: built; None where it is not at hand.
        section: of the config that it is built from; the file may be beside the list of images,
            in its folder, or beside the shards.

    Returns:
        the names; None if nobody knows them, or the file cannot be read.
    """
    names = classes_of(dataset)
    if names:
        return names
    for folder in _folders(section):
        if (folder / CLASSES_FILE).is_file():
            try:
                return read_names(folder / CLASSES_FILE)
            except (DataError, OSError):  # names are a help, and their lack stops nothing
                return None
    return None


def _folders(section: Mapping[str, Any]) -> list[Path]:
    """Where ``classes.txt`` of a data set may be."""
    listed, shards = section.get("cls_label_path"), section.get("shards")
    folders = []
    if isinstance(listed, str):
        folders += [Path(listed).parent, Path(str(section.get("image_root") or "."))]
    if isinstance(shards, str):
        folders.append(Path(shards).parent)
    return folders


def read_class_names(path: str) -> list[str]:
    """One name a line, line ``i`` (from 0) being class ``i``, as ``passl-data`` writes them.

    Raises:
        MissingDataError: there is no such file.
        DataError: a name stands there twice, or none at all.
    """
    file = Path(path)
    if not file.is_file():
        raise MissingDataError(f"classes_path {path} does not exist; it has a class name a line")
    names = read_names(file)
    twice = sorted({name for name in names if names.count(name) > 1}) if _repeats(names) else []
    if twice or not names:
        raise DataError(
            f"classes_path {path}: " + (f"{twice[0]} stands there twice" if twice else "is empty")
        )
    return names


def label_by_name(names: Sequence[str], classes: Sequence[str], source: str) -> list[int]:
    """The label of each name.

    Raises:
        DataError: a name is no class.
    """
    label = {name: index for index, name in enumerate(classes)}
    unknown = sorted(set(names) - set(label))
    if unknown:
        raise DataError(
            f"{source}: {len(unknown)} class names are not among the {len(classes)} known ones, "
            f"such as {unknown[0]}"
        )
    return [label[name] for name in names]


def _repeats(names: Sequence[str]) -> bool:
    return len(set(names)) != len(names)
