"""A list file as a table beside it, so that it is parsed once, not by every process of every run.

Fourteen million lines take ten seconds and more to parse and check, and the table as much memory in
each process as the list is long.  ``LIST.table`` is mapped instead: it is there at once, and all
processes of a machine share its pages.  It is made anew when the list has another size or time of
change, or is read with other options.  Short lists are parsed as ever, and leave no file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from passl.data.kept import Arrays, kept_arrays, table_arrays, table_of
from passl.data.lists import read_list
from passl.data.table import SampleTable
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

    def key() -> dict[str, Any]:
        status = path.stat()
        stamp = {"version": _VERSION, "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        return {**stamp, **options}

    def make() -> Arrays:
        get_logger().info(f"{path}: reading the list, once; its table is kept in {cache}")
        return table_arrays(read_list(path, **options))

    return table_of(kept_arrays(cache, key, make, worth_it=0))
