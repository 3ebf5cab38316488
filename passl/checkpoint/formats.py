"""Telling what a file is from its first bytes, and what to do about one that is not for us."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from typing import BinaryIO, Optional

from passl.checkpoint.zips import ZipBomb, open_zip

__all__ = ["READABLE", "READ_FORMATS", "FileKind", "foreign_format", "recognise"]

#: What is read directly, for the end of a message.
READ_FORMATS = (
    "Weights are read from .pdparams files and optimizer states from .pdopt files, "
    "as Paddle writes them."
)
#: What is read as a source of weights, for the end of a message.
READABLE = (
    "Weights are read from files of PyTorch (.pth, .pt, .bin), safetensors, NumPy (.npz) and "
    "Paddle (.pdparams)."
)

#: The integer that opens a file of torch.save before version 1.6, pickled with protocol 2.
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_WEB_PAGE = "a web page, not weights; the download went wrong"
_SIGNATURES = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?)"),
    (b"\x93NUMPY", "a single NumPy array (.npy)"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ\x00", "an xz archive; unpack it first"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'",
    ),
    (b"<!DOCTYPE", _WEB_PAGE),
    (b"<html", _WEB_PAGE),
)
_OLD_TAR = (
    "a tar archive (PyTorch before 0.1.10?). Where torch is installed, load it and save its "
    "tensors again; unpack any other first"
)
_MAX_HEADER_BYTES = 1 << 27


@dataclass(frozen=True)
class FileKind:
    """What a file is.

    Args:
        text: as it reads after "this is".
        reader: ``"pickle"``, ``"torch zip"``, ``"torch legacy"``, ``"safetensors"`` or ``"npz"``;
            None if nothing here reads it.
    """

    text: str
    reader: Optional[str] = None


def recognise(file: BinaryIO) -> FileKind:
    """What the file is, told by its content.

    Args:
        file: open for reading at its start; the position is not restored.
    """
    head = file.read(512)
    size = file.seek(0, os.SEEK_END)
    if not head:
        return FileKind("an empty file (was the disk full when it was written?)")
    if not head.strip(b"\0"):
        return FileKind("a file of zeros (a write that was cut off by a crash)")
    if head.startswith(_TORCH_LEGACY):
        return FileKind("a PyTorch file (the format before version 1.6)", "torch legacy")
    for signature, kind in _SIGNATURES:
        if head.lstrip().lower().startswith(signature.lower()):
            return FileKind(kind)
    if head.startswith(b"PK\x03\x04"):
        return _recognise_zip(file)
    if head[257:262] == b"ustar":
        return FileKind(_OLD_TAR)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= max(size, _MAX_HEADER_BYTES):
        return FileKind("a safetensors file", "safetensors")
    if all(byte in b"\t\n\r" or 32 <= byte < 127 or byte >= 160 for byte in head):
        return FileKind(f"a text file (it begins with {head[:30].decode('utf-8', 'replace')!r})")
    if not head.startswith(b"\x80"):
        return FileKind("of a format that is not known here")
    return FileKind("a pickle, as Paddle writes them", "pickle")


def foreign_format(file: BinaryIO) -> Optional[str]:
    """Why the file cannot be one of Paddle's, as a sentence; None if it may be.

    Args:
        file: open for reading at its start; the position is not restored.
    """
    found = recognise(file)
    if found.reader == "pickle":
        return None
    hint = " passl-convert makes a .pdparams file of it." if found.reader else ""
    return f"this is {found.text}.{hint} {READ_FORMATS}"


def _recognise_zip(file: BinaryIO) -> FileKind:
    try:
        with open_zip(file) as archive:
            names = archive.namelist()
    except ZipBomb as error:
        return FileKind(f"a zip archive that is refused: {error}")
    except zipfile.BadZipFile:
        return FileKind(
            "a zip file that is cut off (a PyTorch file whose download was interrupted?)"
        )
    if any(name.endswith("data.pkl") for name in names):
        return FileKind("a PyTorch file", "torch zip")
    if names and all(name.endswith(".npy") for name in names):
        return FileKind("a NumPy archive (.npz)", "npz")
    return FileKind("a zip archive; unpack it first")
