"""Telling what a file is that is not Paddle's, from its first bytes, and what to do about it."""

from __future__ import annotations

import os
import struct
import zipfile
from typing import BinaryIO, Optional

__all__ = ["READ_FORMATS", "foreign_format"]

#: What can be read, for the end of a message.
READ_FORMATS = (
    "Weights are read from .pdparams files and optimizer states from .pdopt files, "
    "as Paddle writes them."
)

#: The integer that opens a file of torch.save before version 1.6, pickled with protocol 2.
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_SIGNATURES = (
    (_TORCH_LEGACY, "a PyTorch file (the format before version 1.6)"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?)"),
    (b"\x93NUMPY", "a single NumPy array (.npy)"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'",
    ),
    (b"<!DOCTYPE", "a web page, not weights; the download went wrong"),
    (b"<html", "a web page, not weights; the download went wrong"),
)


def foreign_format(file: BinaryIO) -> Optional[str]:
    """Why the file cannot be one of Paddle's, as a sentence; None if it may be.

    Args:
        file: open for reading at its start; the position is not restored.
    """
    head = file.read(512)
    size = file.seek(0, os.SEEK_END)
    kind = _kind(file, head, size)
    return None if kind is None else f"this is {kind}. {READ_FORMATS}"


def _kind(file: BinaryIO, head: bytes, size: int) -> Optional[str]:
    if not head:
        return "an empty file (was the disk full when it was written?)"
    if not head.strip(b"\0"):
        return "a file of zeros (a write that was cut off by a crash)"
    for signature, kind in _SIGNATURES:
        if head.lower().startswith(signature.lower()):
            return kind
    if head.startswith(b"PK\x03\x04"):
        return _kind_of_zip(file)
    if len(head) >= 9 and head[8:9] == b"{" and struct.unpack("<Q", head[:8])[0] <= size - 8:
        return "a safetensors file"
    if all(byte in b"\t\n\r" or 32 <= byte < 127 or byte >= 160 for byte in head):
        return f"a text file (it begins with {head[:30].decode('utf-8', 'replace')!r})"
    if not head.startswith(b"\x80"):
        return "of a format that is not known here"
    return None


def _kind_of_zip(file: BinaryIO) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return "a zip file that is cut off (a PyTorch file whose download was interrupted?)"
    if any(name.endswith("data.pkl") for name in names):
        return "a PyTorch file"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)"
    return "a zip archive; unpack it first"
