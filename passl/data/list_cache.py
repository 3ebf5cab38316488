"""A list file as a table beside it, so that it is parsed once, not by every process of every run.

Fourteen million lines take ten seconds and more to parse and check, and the table as much memory in
each process as the list is long.  ``LIST.table`` is mapped instead: it is there at once, and all
processes of a machine share its pages.  It is made anew when the list has another size or time of
change, or is read with other options.  Short lists are parsed as ever, and leave no file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from passl.data.lists import read_list
from passl.data.once import one_at_a_time
from passl.data.table import SampleTable
from passl.data.table_file import open_table_file, write_table_file
from passl.errors import DataError
from passl.logs.logger import get_logger

__all__ = ["read_list_once"]

_VERSION = 1  # of what is in a table
_WORTH_IT = 16 << 20  # bytes of a list, which are parsed in about a quarter of a second


def read_list_once(
    path: Path,
    *,
    delimiter: str = " ",
    multi_label: bool = False,
    class_num: Optional[int] = None,
) -> SampleTable:
    """What :func:`passl.data.lists.read_list` gives, from ``LIST.table`` where that is of use.

    Args:
        path, delimiter, multi_label, class_num: as there.

    Raises:
        DataError, ConfigError: as there.
    """
    options: dict[str, Any] = {
        "delimiter": delimiter,
        "multi_label": multi_label,
        "class_num": class_num,
    }
    if path.stat().st_size < _WORTH_IT:
        return read_list(path, **options)
    cache = path.with_name(f"{path.name}.table")
    with one_at_a_time(path.with_name(f"{path.name}.table.lock")):
        key = _key(path, options)
        known = _known(cache, key)
        if known is not None:
            return known
        get_logger().info(f"{path}: reading the list, once; its table is kept in {cache}")
        table = read_list(path, **options)
        return _kept(cache, key, table) if key == _key(path, options) else table


def _key(path: Path, options: dict[str, Any]) -> dict[str, Any]:
    status = path.stat()
    key = {"version": _VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
    return {**key, **options}


def _known(cache: Path, key: dict[str, Any]) -> Optional[SampleTable]:
    try:
        meta, arrays = open_table_file(cache)
        if meta != key:
            return None
        return SampleTable(
            arrays["names"], arrays["offsets"], arrays["labels"], arrays.get("label_offsets")
        )
    except FileNotFoundError:
        return None
    except (DataError, OSError, KeyError) as error:
        get_logger().warning(f"the table of the list is made anew: {error}")
        return None


def _kept(cache: Path, key: dict[str, Any], table: SampleTable) -> SampleTable:
    """The table as it is mapped from its file, or as it was where that cannot be written."""
    arrays = {"names": table.names, "offsets": table.offsets, "labels": table.labels}
    if table.label_offsets is not None:
        arrays["label_offsets"] = table.label_offsets
    try:
        write_table_file(cache, key, arrays)
    except OSError as error:
        get_logger().warning(
            f"{cache}: the table cannot be kept ({error.strerror}), so every process parses the "
            "list for itself; put the list into a folder that can be written"
        )
        return table
    return _known(cache, key) or table
