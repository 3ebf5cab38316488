"""What a user names as pictures: files, folders, patterns, lists, videos, images in memory."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional, Union

import numpy as np

from passl.data.images import decode, from_pillow, opencv
from passl.errors import ConfigError, DataError

__all__ = ["IMAGE_ENDINGS", "VIDEO_ENDINGS", "Picture", "expand", "pictures_of"]

IMAGE_ENDINGS = (
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm",
)  # fmt: skip
VIDEO_ENDINGS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
#: Those whose files say how many frames there are.
_COUNTED = (".mp4", ".m4v", ".mov", ".avi")
#: So many frames, or so large a part of them, may be announced too many: of edit lists, say.
_FEW_FRAMES, _FEW_PART = 2, 0.01
_MOST_FRAMES = 1e12  # what announces more has no number at all
_NO_VIDEO = (
    "OpenCV cannot read it as a video: it is damaged, or this build has no decoder for it; extract "
    "its frames with ffmpeg and name their folder"
)
#: A path, an image of Pillow, or uint8 [H, W], [H, W, 1] or [H, W, 3] (RGB).
PictureLike = Union[str, "os.PathLike[str]", np.ndarray, Any]


@dataclass(frozen=True)
class Picture:
    """One picture, not yet decoded.

    Attributes:
        source: what messages and results call it.
        content: a path or an image in memory; an exception where it is known to be unreadable.
    """

    source: str
    content: Any

    def pixels(self) -> np.ndarray:
        """uint8 [H, W, 1 or 3], RGB.

        Raises:
            DataError: it is no picture, or broken; says which and why.
        """
        try:
            return _pixels(self.content)
        except FileNotFoundError:
            reason = "there is no such file"
        except OSError as error:
            reason = str(error.strerror or error)
        except DataError as error:
            reason = str(error)
        raise DataError(f"{self.source}: {reason}")


def expand(names: Sequence[str], listed: Optional[Iterable[str]] = None) -> list[str]:
    """Paths of files, in the order of the names; a folder or pattern gives its files sorted.

    Args:
        names: files, folders (looked through, hidden ones left out), patterns with ``*``, ``?`` or
            ``[``, or ``-`` for ``listed``.
        listed: lines of a list, one path a line.

    Raises:
        ConfigError: a folder or pattern without a picture.
    """
    paths: list[str] = []
    for name in names:
        if name == "-":
            lines = (line.rstrip("\r\n") for line in listed or ())
            paths += [line for line in lines if line.strip()]
        elif os.path.isdir(name):
            paths += _in_folder(name)
        elif not os.path.exists(name) and glob.has_magic(name):
            found = sorted(path for path in glob.glob(name, recursive=True) if os.path.isfile(path))
            if not found:
                raise ConfigError(f"{name}: no file matches this pattern")
            paths += found
        else:
            paths.append(name)
    return paths


def pictures_of(path: str, every: int = 1) -> Iterator[Picture]:
    """The picture in a file, or the frames of a video.

    Args:
        path: a file; by its ending it is a video or an image.
        every: take one frame of so many.
    """
    if path.lower().endswith(VIDEO_ENDINGS):
        yield from _frames(path, every)
    else:
        yield Picture(path, path)


def as_picture(given: PictureLike, position: int) -> Picture:
    """What :meth:`Predictor.predict` was given, with a name."""
    if isinstance(given, Picture):
        return given
    if isinstance(given, (str, os.PathLike)):
        return Picture(os.fspath(given), os.fspath(given))
    return Picture(f"image {position}", given)


def _pixels(content: Any) -> np.ndarray:
    if isinstance(content, Exception):
        raise content
    if isinstance(content, (str, os.PathLike)):
        if os.path.isdir(content):
            raise DataError("it is a folder")
        return decode(Path(content).read_bytes())
    if isinstance(content, np.ndarray):
        return _checked(content)
    if not (hasattr(content, "convert") and hasattr(content, "mode")):  # no image of Pillow
        raise DataError(
            f"a {type(content).__name__} is no picture; give a path, an image of Pillow, or a "
            "uint8 array [height, width, 3]"
        )
    return _checked(from_pillow(content))


def _checked(pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    is_picture = pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] in (1, 3)
    if not is_picture or not pixels.size:
        raise DataError(
            f"an array of {pixels.dtype} {list(pixels.shape)} is no picture; give uint8 [height, "
            "width], or [height, width, 3] in the order red, green, blue"
        )
    return pixels


def _in_folder(folder: str) -> list[str]:
    found = []
    for base, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(base, name)
            for name in sorted(files)
            if name.lower().endswith((*IMAGE_ENDINGS, *VIDEO_ENDINGS))
            and not name.startswith(".")
        ]
    if not found:
        raise ConfigError(
            f"{folder}: no picture in this folder or below it (looked for "
            f"{', '.join(IMAGE_ENDINGS)} and videos)"
        )
    return found


def _frames(path: str, every: int) -> Iterator[Picture]:
    if not os.path.isfile(path):
        yield Picture(path, FileNotFoundError(path))
        return
    cv2 = opencv()
    video = cv2.VideoCapture(path)
    try:
        number = 0
        while video.isOpened() and video.grab():
            if number % every == 0:
                is_whole, frame = video.retrieve()
                name = f"{path}#{number}"
                if is_whole:
                    yield Picture(name, np.ascontiguousarray(frame[:, :, ::-1]))
                else:
                    yield Picture(name, DataError("this frame cannot be decoded"))
            number += 1
        reason = _cut_short(path, video, number) if number else _NO_VIDEO
        if reason:
            yield Picture(path, DataError(reason))
    finally:
        video.release()


def _cut_short(path: str, video: Any, found: int) -> str:
    """Why a video that gave ``found`` frames is not whole; empty if nothing speaks against it.

    How many frames there are stands in the files of :data:`_COUNTED`.  Of others OpenCV makes it of
    length and rate, which is wrong where the rate varies, so the last frame must also be early.
    """
    cv2 = opencv()
    announced, rate = video.get(cv2.CAP_PROP_FRAME_COUNT), video.get(cv2.CAP_PROP_FPS)
    if not found + max(_FEW_FRAMES, announced * _FEW_PART) < announced < _MOST_FRAMES:
        return ""
    if not path.lower().endswith(_COUNTED):
        # In frames: from the last one that was read to the end.
        lacking = announced - 1 - video.get(cv2.CAP_PROP_POS_MSEC) / 1000 * rate
        if not lacking > max(_FEW_FRAMES, announced * _FEW_PART):
            return ""
    return (
        f"the video announces {announced:.0f} frames, and {found} can be read: it was cut short "
        "or is damaged; copy it again"
    )
