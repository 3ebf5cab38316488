"""The files beside an ONNX file that hold its weights, found without the package ``onnx``.

A protobuf message is a row of fields, each a number, a kind and a value; what is not looked for is
passed over by its length.  Source: the encoding of protocol buffers, and ``onnx.proto``, whose
numbers of fields are in :data:`_INSIDE`.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Union

from passl.errors import CheckpointError

__all__ = ["external_files"]

#: Message -> number of a field -> the message in it, on the ways that lead to a tensor.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}  # fmt: skip
_VARINT, _EIGHT, _BYTES, _FOUR = 0, 1, 2, 5
_DEEPEST = 64  # messages in messages
_Data = Union[bytes, mmap.mmap]


def external_files(path: Path) -> list[Path]:
    """Files that hold weights of an ONNX file, each once, in their order.

    Raises:
        CheckpointError: one is missing, or its name leads out of the folder.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            names = list(dict.fromkeys(_locations(data, 0, len(data), "model", 0)))
    except (ValueError, IndexError):
        return []  # empty or no protobuf: whoever runs it says so
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from error
    return [_beside(path, name) for name in names]


def _beside(path: Path, name: str) -> Path:
    file = path.parent / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise CheckpointError(
            f"{path}: its weights are in {name!r}, outside of its folder; nothing is read there. "
            "Export it again into one folder"
        )
    if not file.is_file():
        raise CheckpointError(
            f"{file}: is missing; {path.name} keeps weights in it. Copy it beside that file"
        )
    return file


def _locations(data: _Data, at: int, end: int, kind: str, depth: int) -> Iterator[str]:
    """Values of ``location`` in the tensors of a message.

    Raises:
        ValueError, IndexError: this is no such message.
    """
    if depth > _DEEPEST:
        raise ValueError("too deep")
    for number, begin, stop in _fields(data, at, end):
        inside = _INSIDE[kind].get(number)
        if inside == "entry":
            entry = {key: data[first:last] for key, first, last in _fields(data, begin, stop)}
            if entry.get(1) == b"location":
                yield entry.get(2, b"").decode("utf-8", "surrogateescape")
        elif inside is not None:
            yield from _locations(data, begin, stop, inside, depth + 1)


def _fields(data: _Data, at: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Number, begin and end of each field that has a length."""
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _BYTES:
            length, at = _varint(data, at)
            if length > end - at:
                raise ValueError("a field is longer than its message")
            yield tag >> 3, at, at + length
            at += length
        elif kind == _VARINT:
            _, at = _varint(data, at)
        elif kind in (_EIGHT, _FOUR):
            at += 8 if kind == _EIGHT else 4
        else:
            raise ValueError(f"there is no kind of field {kind}")


def _varint(data: _Data, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not byte & 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number is too long")
