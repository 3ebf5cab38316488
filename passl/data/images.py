"""Encoded images -> uint8 arrays, with one meaning whatever library does the work.

The meaning is Pillow's ``Image.open(file).convert("RGB")``, as in timm and torchvision:

- grey is repeated to three channels; palettes are looked up; transparency is dropped, not blended;
- CMYK is converted without a colour profile (Adobe's inverted values are recognised);
- the EXIF orientation is not applied (nor is it by TensorFlow; PASSL's OpenCV call applies it);
- an animation gives its first frame.

Different from Pillow where Pillow does harm: 16-bit images are scaled to 8 bits rather than clipped
at 255.  OpenCV decodes ordinary JPEG files about 1.3 times as fast into equal pixels, so those go
to it; but it returns the missing part of a truncated file as grey, without a word, and what follows
a marker that libjpeg refuses; and it decodes any number of pixels, where Pillow refuses what a few
hundred bytes may claim to be gigabytes of.  So a JPEG goes to OpenCV only if it has a plain header,
is not larger than Pillow allows, has no strange marker, and ends with the end-of-image marker.
"""

from __future__ import annotations

import functools
import io
import re
from types import ModuleType
from typing import Any, Optional

import numpy as np

from passl.errors import DataError

__all__ = ["decode", "decode_reduced", "from_pillow", "jpeg_size", "opencv"]

_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"
# Start-of-frame markers that libjpeg decodes: baseline, extended and progressive Huffman.
_JPEG_FRAMES = (0xC0, 0xC1, 0xC2)
# Lossless, hierarchical and arithmetic coding: left to Pillow to accept or refuse.
_OTHER_FRAMES = (0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
_JPEG_SCAN = 0xDA
# Behind the first scan: what is not compressed data, a restart marker, another scan or its tables.
_STRANGE_MARKER = re.compile(rb"\xff[^\x00\xc4\xd0-\xd7\xd9-\xdb\xdd\xff]")
#: Pixels above which Pillow refuses a file (twice its ``MAX_IMAGE_PIXELS``).
_MOST_PIXELS = 178_956_970
_SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N", "I")


def decode(data: bytes) -> np.ndarray:
    """Decode an image file into uint8 [H, W, 3], RGB.

    Args:
        data: the bytes of a JPEG, PNG, WebP, BMP, GIF, TIFF, ... file.

    Raises:
        DataError: no image, a truncated or a broken one.
    """
    if not data:
        raise DataError("the file is empty")
    image = _decode_with_opencv(data) if jpeg_size(data) is not None else None
    return _decode_with_pillow(data) if image is None else image


def decode_reduced(data: bytes, factor: int) -> Optional[np.ndarray]:
    """Decode a JPEG to a fraction of its size: uint8 [ceil(H / factor), ceil(W / factor), 3].

    libjpeg leaves out the high frequencies of each block of 8 x 8, which saves most of the inverse
    transform and of the colour conversion; the result resembles the mean of the pixels.

    Args:
        data: what :func:`jpeg_size` knows the size of.
        factor: 1, 2, 4 or 8.

    Returns:
        None where OpenCV cannot decode it; :func:`decode` then says why.
    """
    return _decode_with_opencv(data, factor)


def jpeg_size(data: bytes) -> Optional[tuple[int, int]]:
    """Height and width of a whole, plain JPEG of one or three channels; else None.

    None as well if it has more pixels than Pillow decodes.
    There is nothing after such a file but zero bytes. Within the compressed data 0xFF is always
    followed by 0x00 or a restart marker, so a truncated file does not end with the end-of-image
    marker.  Source: ITU-T T.81, annex B.
    """
    if data[:3] != _JPEG_START or data[-64:].rstrip(b"\0")[-2:] != _JPEG_END:
        return None
    at, size = 2, len(data)
    while at + 9 < size and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in _JPEG_FRAMES:
            if data[at + 4] != 8 or data[at + 9] not in (1, 3):
                return None
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            width = int.from_bytes(data[at + 7 : at + 9], "big")
            return (height, width) if height * width <= _MOST_PIXELS else None
        if marker == _JPEG_SCAN or marker in _OTHER_FRAMES:
            return None
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


@functools.cache
def opencv() -> ModuleType:
    """OpenCV, told not to start threads: the loader's threads are the parallelism."""
    import cv2

    cv2.setNumThreads(0)
    return cv2


@functools.cache
def _rgb_flag() -> int:
    return int(getattr(opencv(), "IMREAD_COLOR_RGB", 0))  # since OpenCV 4.11


@functools.cache
def _opencv_flags() -> int:
    cv2 = opencv()
    return int((_rgb_flag() or cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION)


def _has_strange_marker(data: bytes) -> bool:
    """Whether a JPEG has a marker in its scans that libjpeg may refuse, or its header none."""
    at = 2
    while at + 4 < len(data) and data[at] == 0xFF and data[at + 1] != _JPEG_SCAN:
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    if data[at : at + 2] != bytes((0xFF, _JPEG_SCAN)):
        return True  # cut off within a table, which then took in some of what follows
    return _STRANGE_MARKER.search(data, at + 2) is not None


def _decode_with_opencv(data: bytes, factor: int = 1) -> Optional[np.ndarray]:
    if _has_strange_marker(data):
        return None
    cv2 = opencv()
    flags = _opencv_flags()
    if factor > 1:  # there are no such flags for RGB
        flags = getattr(cv2, f"IMREAD_REDUCED_COLOR_{factor}") | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), flags)
    if image is None or flags & _rgb_flag():
        return image
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def _decode_with_pillow(data: bytes) -> np.ndarray:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(data)) as image:
            return from_pillow(image)
    except UnidentifiedImageError:
        raise DataError(f"not an image that Pillow knows ({len(data)} bytes)") from None
    except Image.DecompressionBombError as error:
        raise DataError(f"refused as too large: {error}") from None
    except MemoryError:
        raise
    except Exception as error:  # each of Pillow's formats has others, SyntaxError among them
        raise DataError(f"truncated or broken image ({len(data)} bytes): {error}") from None


def from_pillow(image: Any) -> np.ndarray:
    """An image of Pillow's as :func:`decode` would give it: uint8 [H, W, 3], RGB."""
    if image.mode in _SIXTEEN_BITS:
        return _from_sixteen_bits(np.asarray(image))
    return np.array(image.convert("RGB"))


def _from_sixteen_bits(image: np.ndarray) -> np.ndarray:
    eight = (np.clip(image, 0, 65535).astype(np.uint32) >> 8).astype(np.uint8)
    return np.repeat(eight[:, :, None], 3, axis=2)
