"""A part of a JPEG file without the rest of it, by libjpeg-turbo 3 where it is installed.

A random crop covers half of a photograph on average.  The TurboJPEG API decodes the rows and the
columns of blocks that a region touches, stops below it, and writes into memory that is already
there.  The pixels are those of a full decode, which the first image of a process is compared to.

The library is optional: taken from the package ``turbojpeg`` (``pip install turbojpeg``),
which brings it along, or from the system, where that has version 3.0 or later.  Without it
everything is as it was, but slower.

Source: libjpeg-turbo's ``turbojpeg.h``, version 3 of the API; the numbers of its enumerations.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import importlib.metadata
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

from passl.data.images import decode, jpeg_size
from passl.errors import DataError
from passl.logs.logger import get_logger

__all__ = ["decode_region", "is_available"]

_INIT_DECOMPRESS = 1
_STOP_ON_WARNING, _SUBSAMPLING, _WIDTH, _HEIGHT = 0, 4, 5, 6
_RGB, _RGBX = 0, 2
#: Width of a block of samples by TJSAMP: 4:4:4, 4:2:2, 4:2:0, grey, 4:4:0, 4:1:1, 4:4:1.
_BLOCK_WIDTHS = (8, 16, 16, 8, 8, 32, 8)
#: Pixels decoded around a region, so that its colours are interpolated as in the whole image.
_MARGIN = 4
_KEPT_BYTES = 32 << 20  # of memory that a thread keeps for its next image


class _Fraction(ctypes.Structure):
    _fields_ = (("num", ctypes.c_int), ("denom", ctypes.c_int))


class _Region(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_int) for name in "xywh")


@dataclass(frozen=True)
class _Library:
    """The functions that are used; the short ones keep Python's lock: giving it up costs more."""

    start: Any
    set: Any
    get: Any
    read_header: Any
    scale: Any
    crop: Any
    decompress: Any
    end: Any


def is_available() -> bool:
    """Whether :func:`decode_region` can be of use in this process."""
    return _library() is not None and not _Distrust.is_on


def decode_region(
    data: bytes, box: tuple[int, int, int, int], factor: int = 1, channels: int = 3
) -> Optional[np.ndarray]:
    """Decode part of a JPEG: uint8 [h, w, channels], valid until the thread's next call.

    Args:
        data: what :func:`passl.data.images.jpeg_size` knows the size of.
        box: top, left, height and width of the part, in pixels of the image as it is decoded, that
            is ``factor`` times smaller.
        factor: 1, 2, 4 or 8.
        channels: 3 for RGB, 4 for RGB and a byte without a meaning, as Pillow keeps its pictures.

    Returns:
        None where the library is not there, the file is unusual, or libjpeg-turbo has anything to
        say against it; :func:`passl.data.images.decode` then sees to it.
    """
    library = _library()
    if library is None or _Distrust.is_on:
        return None
    decoder: Optional[_Decoder] = getattr(_local, "decoder", None)
    if decoder is None:
        decoder = _local.decoder = _Decoder(library)
    if not _Distrust.is_settled and not _is_trusted(decoder, data, box, factor):
        return None
    return decoder.region(data, box, factor, channels)


class _Decoder:
    """A decompressor and the memory that it writes to; of one thread."""

    def __init__(self, library: _Library) -> None:
        self._library = library
        self._handle = library.start(_INIT_DECOMPRESS)
        self._memory = np.empty(0, np.uint8)
        if self._handle:
            library.set(self._handle, _STOP_ON_WARNING, 1)
            weakref.finalize(self, library.end, self._handle)

    def region(
        self, data: bytes, box: tuple[int, int, int, int], factor: int, channels: int
    ) -> Optional[np.ndarray]:
        library, handle = self._library, self._handle
        if not handle or library.read_header(handle, data, len(data)):
            return None
        subsampling = library.get(handle, _SUBSAMPLING)
        if not 0 <= subsampling < len(_BLOCK_WIDTHS):
            return None
        top, left, height, width = box
        full_height, full_width = (
            -(-library.get(handle, side) // factor) for side in (_HEIGHT, _WIDTH)
        )
        if top + height > full_height or left + width > full_width:
            return None
        block = max(1, _BLOCK_WIDTHS[subsampling] // factor)
        x, y = max(0, left - _MARGIN) // block * block, max(0, top - _MARGIN)
        right = min(full_width, left + width + _MARGIN)
        bottom = min(full_height, top + height + _MARGIN)
        region = _Region(x, y, right - x, bottom - y)
        if library.scale(handle, _Fraction(1, factor)) or library.crop(handle, region):
            return None
        pixels = self._room((bottom - y, right - x, channels))
        layout = _RGBX if channels == 4 else _RGB
        if library.decompress(handle, data, len(data), pixels.ctypes.data, 0, layout):
            return None
        return pixels[top - y : top - y + height, left - x : left - x + width]

    def _room(self, shape: tuple[int, int, int]) -> np.ndarray:
        """Memory that is not given back to the system between images, if it is not too large.

        There is room for another row behind it, see :func:`passl.data.resize.resize_padded`.
        """
        row = shape[1] * shape[2]
        size = shape[0] * row
        if size + row > _KEPT_BYTES:
            return np.empty(size + row, np.uint8)[:size].reshape(shape)
        if size + row > len(self._memory):
            self._memory = np.empty(size + row, np.uint8)
        return self._memory[:size].reshape(shape)


_local = threading.local()


class _Distrust:
    """What the comparison of the first image said; of the process, like the library."""

    is_settled = False
    is_on = False


def _is_trusted(
    decoder: _Decoder, data: bytes, box: tuple[int, int, int, int], factor: int
) -> bool:
    """Whether the box, at full size, has the pixels that it has in the whole image."""
    top, left, height, width = (side * factor for side in box)
    size = jpeg_size(data) or (0, 0)
    height, width = min(height, size[0] - top), min(width, size[1] - left)
    part = decoder.region(data, (top, left, height, width), 1, 3)
    if part is None:  # nothing to compare: the next image may tell
        return True
    try:
        whole = decode(data)
    except DataError:  # broken in another place
        return True
    if not np.array_equal(part, whole[top : top + height, left : left + width]):
        _Distrust.is_on = True
        get_logger().warning(
            "libturbojpeg gives other pixels for a part of an image than for the whole; it is not "
            "used, and decoding is slower. Is there a newer release of it?"
        )
        return False
    _Distrust.is_settled = True
    return True


# -- finding it ------------------------------------------------------------------------------------


@functools.cache
def _library() -> Optional[_Library]:
    """The first library found that can decode regions, which those before 3.0 cannot."""
    for path in _candidates():
        try:
            return _functions(path)
        except (OSError, AttributeError):  # of another system, or too old
            continue
    return None


def _candidates() -> Iterator[str]:
    try:
        files = importlib.metadata.files("turbojpeg") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name.startswith(("libturbojpeg", "turbojpeg-")):
            yield str(file.locate())
    found = ctypes.util.find_library("turbojpeg")
    if found is not None:
        yield found


def _functions(path: str) -> _Library:
    holding, releasing = ctypes.PyDLL(path), ctypes.CDLL(path)
    pointer, number, size, text = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p

    def function(of: ctypes.CDLL, name: str, result: Any, *arguments: Any) -> Any:
        found = getattr(of, name)
        found.restype, found.argtypes = result, arguments
        return found

    return _Library(
        start=function(holding, "tj3Init", pointer, number),
        set=function(holding, "tj3Set", number, pointer, number, number),
        get=function(holding, "tj3Get", number, pointer, number),
        read_header=function(holding, "tj3DecompressHeader", number, pointer, text, size),
        scale=function(holding, "tj3SetScalingFactor", number, pointer, _Fraction),
        crop=function(holding, "tj3SetCroppingRegion", number, pointer, _Region),
        decompress=function(
            releasing, "tj3Decompress8", number, pointer, text, size, pointer, number, number
        ),
        end=function(holding, "tj3Destroy", None, pointer),
    )
