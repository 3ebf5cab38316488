"""List files, ``relative/path<delimiter>label`` one a line, read into a compact table.

The label stands after the *last* delimiter of the line, so that a path may contain it; with
``multi_label`` it is a comma-separated set, ``path 3,17,250``.  Blank lines and white space at the
end of a line do not count, nor does the byte-order mark that some editors put before a text.  A
path with a line end in it is escaped as md5sum does it, and its line begins with a backslash
(:mod:`passl.data.names`).  A file is read in blocks and each block is taken apart with array
operations, without a Python object for each line.

Source: the list format of PASSL's ImageNet data sets (``train_list.txt``, ``image_all_list.txt``).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import numpy as np

from passl.data.names import BYTE_ORDER_MARK, unescape_name
from passl.data.table import SampleTable
from passl.errors import ConfigError, DataError

__all__ = ["line_number", "read_list"]

_BLOCK = 4 << 20  # bytes; the arrays made of a block stay near the cache
_NEWLINE, _COMMA, _BACKSLASH = 0x0A, 0x2C, 0x5C
_BLANKS = (0x20, 0x09, 0x0D)
_MAX_DIGITS = 9  # what always fits in int32
_OTHER_DELIMITER = re.compile(r"([\t ,;:|])[\d,]+\s*$")


def read_list(
    path: Path,
    *,
    delimiter: str = " ",
    multi_label: bool = False,
    class_num: Optional[int] = None,
) -> SampleTable:
    """Read and check a list file.

    Args:
        path: an existing file.
        delimiter: one ASCII character between path and label.
        multi_label: labels are comma-separated sets.
        class_num: labels must be below it, if given.

    Raises:
        DataError: the first bad line with its number and text, or an empty list.
        ConfigError: a delimiter that cannot work.
    """
    code = _delimiter_code(delimiter, multi_label)
    # Pages never written are never resident, so a buffer as long as the file costs only the paths.
    names = np.empty(path.stat().st_size, dtype=np.uint8)
    used = first_line = 0
    lengths: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    counts: list[np.ndarray] = []
    for block in _blocks(path):
        parsed = _Block(block, code, multi_label)
        bad = parsed.first_bad(class_num)
        if bad is not None:
            text = os.fsdecode(parsed.line(bad))
            reason = _explain(text, delimiter, multi_label, class_num)
            where = f"{path}:{first_line + bad + 1}"
            raise DataError(f"{where}: {reason}\n  the line: {_shorten(text)}")
        kept, kept_lengths = parsed.path_bytes(), parsed.path_lengths()
        if parsed.has_escapes:
            kept, kept_lengths = _unescape(path, first_line, parsed)
        first_line += parsed.num_lines
        names[used : used + len(kept)] = kept
        used += len(kept)
        lengths.append(kept_lengths.astype(np.int32))
        labels.append(parsed.labels)
        counts.append(parsed.label_counts)
    if used == 0:
        raise DataError(f"{path}: the list is empty; it needs one 'path{delimiter}label' a line")
    return SampleTable(
        names[:used],
        _offsets(lengths),
        np.concatenate(labels),
        _offsets(counts) if multi_label else None,
    )


def line_number(path: Path, index: int) -> int:
    """Line (from 1) of entry ``index`` of a list file, blank lines counted; for error messages."""
    seen = -1
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(BYTE_ORDER_MARK)
            seen += bool(line.strip())
            if seen == index:
                return number
    raise IndexError(f"{path} has no entry {index}")


class _Block:
    """Whole lines of a list file, taken apart.

    ``start`` (line), ``split`` (last delimiter) and ``end`` (of the label) are int64 [lines], byte
    positions in ``data``; ``rows`` are the numbers of the lines that are not blank.
    """

    def __init__(self, data: np.ndarray, delimiter: int, multi_label: bool) -> None:
        self.data = data
        end = np.flatnonzero(data == _NEWLINE)
        start = np.concatenate(([0], end[:-1] + 1))
        self.num_lines = len(end)
        end = _strip_right(data, start, end)
        self.rows = np.flatnonzero(end > start)
        self.start, self.end = start[self.rows], end[self.rows]
        delimiters = np.flatnonzero(data == delimiter)
        before = np.searchsorted(delimiters, self.end) - 1
        found = np.append(delimiters, -1)[before]  # -1 picks the appended "none"
        self.has_split = found > self.start
        self.split = np.where(self.has_split, found, self.end - 1)
        if multi_label:
            self._parse_sets()
        else:
            self.labels, wrong = _parse_numbers(data, self.split + 1, self.end)
            self.wrong = wrong | ~self.has_split
            self.label_counts = np.ones(len(self.rows), dtype=np.int32)
            self._largest = self.labels

    def first_bad(self, class_num: Optional[int]) -> Optional[int]:
        """Line (from 0, within the block) of the first line that is wrong."""
        wrong = self.wrong if class_num is None else self.wrong | (self._largest >= class_num)
        position = int(wrong.argmax()) if len(wrong) else 0
        return int(self.rows[position]) if len(wrong) and wrong[position] else None

    def line(self, number: int) -> bytes:
        """Bytes of line ``number`` of the block, without its end."""
        position = int(np.searchsorted(self.rows, number))
        return self.data[self.start[position] : self.end[position]].tobytes()

    @property
    def has_escapes(self) -> bool:
        """A line begins with a backslash: see :mod:`passl.data.names`."""
        return bool((self.data[self.start] == _BACKSLASH).any())

    def path_lengths(self) -> np.ndarray:
        """Bytes of each path: int64 [rows]."""
        return self.split - self.start

    def path_bytes(self) -> np.ndarray:
        """The paths one after another: uint8."""
        change = np.zeros(len(self.data) + 1, dtype=np.int8)
        change[self.start] = 1
        change[self.split] -= 1
        inside = np.cumsum(change, dtype=np.int8)[:-1]
        return self.data[inside.view(bool)]

    def _parse_sets(self) -> None:
        commas = np.flatnonzero(self.data == _COMMA)
        row = np.searchsorted(self.start, commas, side="right") - 1
        inside = (row >= 0) & (commas > self.split[row]) & (commas < self.end[row])
        commas, row = commas[inside], row[inside]
        begin = np.sort(np.concatenate((self.split, commas))) + 1
        stop = np.sort(np.concatenate((commas, self.end)))
        counts = np.bincount(row, minlength=len(self.rows)) + 1
        self.label_counts = counts.astype(np.int32)
        self.labels, bad_number = _parse_numbers(self.data, begin, stop)
        first = np.cumsum(counts) - counts
        if len(first):
            self.wrong = np.logical_or.reduceat(bad_number, first) | ~self.has_split
            self._largest = np.maximum.reduceat(self.labels, first)
        else:
            self.wrong, self._largest = np.zeros(0, bool), self.labels


def _unescape(path: Path, first_line: int, block: _Block) -> tuple[np.ndarray, np.ndarray]:
    """The paths of a block with escaped ones, and their lengths."""
    names = []
    for row, start, split in zip(block.rows, block.start, block.split):
        name = block.data[start:split].tobytes()
        if name.startswith(b"\\"):
            try:
                name = unescape_name(name[1:])
            except ValueError as error:
                raise DataError(
                    f"{path}:{first_line + row + 1}: {error}; a line that begins with a backslash "
                    "has an escaped path, in which \\n, \\r and \\\\ stand for a line end, a "
                    "carriage return and a backslash"
                ) from error
        names.append(name)
    joined = np.frombuffer(b"".join(names), dtype=np.uint8)
    return joined, np.array([len(name) for name in names], dtype=np.int64)


def _parse_numbers(
    data: np.ndarray, begin: np.ndarray, end: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Decimal numbers at ``data[begin:end]``: int32 values and which of them are no number."""
    width = end - begin
    wrong = (width < 1) | (width > _MAX_DIGITS)
    value = np.zeros(len(begin), dtype=np.int32)
    last = max(len(data) - 1, 0)
    for column in range(min(int(width.max(initial=0)), _MAX_DIGITS)):
        here = column < width
        digit = data[np.minimum(begin + column, last)].astype(np.int32) - ord("0")
        wrong |= here & ((digit < 0) | (digit > 9))
        value = np.where(here & ~wrong, value * 10 + digit, value)
    return value, wrong


def _strip_right(data: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    while True:
        byte = data[np.maximum(end - 1, 0)]
        blank = (end > start) & np.isin(byte, _BLANKS)
        if not blank.any():
            return end
        end = end - blank


def _blocks(path: Path) -> Iterator[np.ndarray]:
    """The file as uint8 arrays of whole lines, the last one ended if the file does not."""
    rest = b""
    with path.open("rb") as file:
        if file.read(len(BYTE_ORDER_MARK)) != BYTE_ORDER_MARK:
            file.seek(0)
        while True:
            read = file.read(_BLOCK)
            if not read:
                break
            cut = read.rfind(b"\n") + 1
            if cut == 0:
                rest += read
                continue
            yield np.frombuffer(rest + read[:cut], dtype=np.uint8)
            rest = read[cut:]
    if rest:
        yield np.frombuffer(rest + b"\n", dtype=np.uint8)


def _offsets(parts: list[np.ndarray]) -> np.ndarray:
    total = np.zeros(sum(map(len, parts)) + 1, dtype=np.int64)
    at = 1
    while parts:
        part = parts.pop(0)
        total[at : at + len(part)] = part
        at += len(part)
    return np.cumsum(total, out=total)


def _delimiter_code(delimiter: str, multi_label: bool) -> int:
    if len(delimiter) != 1 or not delimiter.isascii() or delimiter in "\n\r" or delimiter.isdigit():
        raise ConfigError(
            f"dataset.delimiter is {delimiter!r}; it must be one ASCII character that is neither a "
            "digit nor a line end, such as ' ' or '\\t'"
        )
    if multi_label and delimiter == ",":
        raise ConfigError(
            "dataset.delimiter is ',', which separates the labels of a multi_label list; "
            "use another one, such as ' '"
        )
    return ord(delimiter)


def _explain(text: str, delimiter: str, multi_label: bool, class_num: Optional[int]) -> str:
    path, found, label = text.rpartition(delimiter)
    form = f"path{delimiter}label" + (",label,..." if multi_label else "")
    if not found:
        other = _OTHER_DELIMITER.search(text)
        instead = f", but {other[1]!r} before a number" if other is not None else ""
        return (
            f"no label: there is no delimiter {delimiter!r} in the line{instead}; wanted: '{form}'"
        )
    if not path:
        return f"no path before the delimiter {delimiter!r}; wanted: '{form}'"
    for number in label.split(",") if multi_label else [label]:
        try:
            value = int(number)
        except ValueError:
            return f"the label {number!r} is not a whole number; wanted: '{form}'"
        if value < 0:
            return f"the label {value} is negative; labels count from 0"
        if class_num is not None and value >= class_num:
            return (
                f"the label {value} is out of range: class_num is {class_num}, so labels go from 0 "
                f"to {class_num - 1}"
            )
        if not (number.isascii() and number.isdigit()) or len(number) > _MAX_DIGITS:
            return f"the label {number!r} must be written with 1 to {_MAX_DIGITS} digits"
    return f"the line cannot be read; wanted: '{form}'"


def _shorten(text: str, limit: int = 200) -> str:
    shown = text.encode("utf-8", "backslashreplace").decode()
    return shown if len(shown) <= limit else shown[:limit] + "..."
