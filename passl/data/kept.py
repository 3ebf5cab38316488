"""Tables that take long to make, kept in a file that every process of a machine maps.

The first process that wants a table makes it, the others wait for it; all share its pages.  It is
made anew when what it was made of is another, which its key says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from passl.data.once import one_at_a_time, remove_left_overs
from passl.data.table import SampleTable
from passl.data.table_file import open_table_file, write_table_file
from passl.errors import DataError
from passl.logs.logger import get_logger

__all__ = ["Arrays", "kept_arrays", "table_arrays", "table_of"]

Arrays = dict[str, np.ndarray]

#: Bytes of a table below which it is made by every process: that takes about a second.
WORTH_IT = 8 << 20


def kept_arrays(
    cache: Path,
    key: Callable[[], Mapping[str, Any]],
    make: Callable[[], Arrays],
    *,
    is_current: Callable[[Arrays], bool] = lambda _: True,
    worth_it: Optional[int] = None,
    advice: str = "put the data into a folder that can be written",
) -> Arrays:
    """The arrays from ``cache``, or made and put there.

    Args:
        cache: the file; beside it lies a lock while it is made.
        key: says what the arrays are made of, JSON-able; asked before and after they are made.
        make: makes them.
        is_current: a further look at arrays with the right key.
        worth_it: bytes from which on arrays are kept; None: :data:`WORTH_IT`.
        advice: what to do where they cannot be kept.
    """
    least = WORTH_IT if worth_it is None else worth_it
    wanted = _plain(key())
    known = _known(cache, wanted, is_current)
    if known is not None:
        return known
    with one_at_a_time(cache.with_name(f"{cache.name}.lock")):
        known = _known(cache, wanted, is_current)
        if known is not None:
            return known
        arrays = make()
        is_large = sum(array.nbytes for array in arrays.values()) >= least
        if not is_large or _plain(key()) != wanted or not is_current(arrays):
            return arrays
        try:
            remove_left_overs(cache)
            write_table_file(cache, wanted, arrays)
        except OSError as error:
            get_logger().warning(
                f"{cache}: the table cannot be kept ({error.strerror}), so every process makes its "
                f"own; {advice}"
            )
            return arrays
        return _known(cache, wanted, is_current) or arrays


def table_arrays(table: SampleTable) -> Arrays:
    """The arrays of a table, by name."""
    arrays = {"names": table.names, "offsets": table.offsets, "labels": table.labels}
    if table.label_offsets is not None:
        arrays["label_offsets"] = table.label_offsets
    return arrays


def table_of(arrays: Arrays) -> SampleTable:
    """The table that :func:`table_arrays` took apart."""
    return SampleTable(
        arrays["names"], arrays["offsets"], arrays["labels"], arrays.get("label_offsets")
    )


#: Columns with one number a row, none of them negative.
_PLACES = ("places", "sizes", "archive_of")


def _check(arrays: Arrays, cache: Path) -> None:
    """Anybody may have written what lies beside data that many can write: places must be places.

    Raises:
        DataError: offsets lead out of what they are of, or columns differ in length.
    """
    columns: tuple[str, ...] = _PLACES
    ends = "offsets"
    if "name_offsets" in arrays:  # an index, whose ``offsets`` are in the archive
        columns, ends = (*_PLACES, "offsets"), "name_offsets"
    rows = _rows(arrays, ends, "names", cache)
    if "label_offsets" in arrays:
        labelled = _rows(arrays, "label_offsets", "labels", cache)
    else:
        labelled = len(arrays["labels"]) if ends == "offsets" else rows
    if labelled != rows:
        raise DataError(f"{cache}: not every row has its label")
    for name in columns:
        column = arrays.get(name)
        if column is not None and (
            column.shape != (rows,) or column.dtype.kind not in "iu" or (column < 0).any()
        ):
            raise DataError(f"{cache}: its {name} are no places")


def _rows(arrays: Arrays, ends: str, parts: str, cache: Path) -> int:
    """How many parts there are, each from one offset to the next."""
    offsets, data = arrays[ends], arrays[parts]
    if (
        any(array.ndim != 1 or array.dtype.kind not in "iu" for array in (offsets, data))
        or not len(offsets)
        or offsets[0] != 0
        or offsets[-1] != len(data)
        or (offsets[1:] < offsets[:-1]).any()
    ):
        raise DataError(f"{cache}: its {ends} do not divide its {parts}")
    return len(offsets) - 1


def _plain(key: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(key))


def _known(cache: Path, key: Any, is_current: Callable[[Arrays], bool]) -> Optional[Arrays]:
    try:
        meta, arrays = open_table_file(cache)
        if meta != key:
            return None
        _check(arrays, cache)
        return arrays if is_current(arrays) else None
    except FileNotFoundError:
        return None
    except (DataError, OSError, KeyError) as error:
        get_logger().warning(f"{cache} is made anew: {error}")
        return None
