"""A part of a JPEG decoded alone has the pixels that it has in the whole image."""

from __future__ import annotations

import io
import threading
from typing import Any

import numpy as np
import pytest
from PIL import Image

from passl.data import turbojpeg
from passl.data.images import decode, decode_reduced, opencv

needs_library = pytest.mark.skipif(
    turbojpeg._library() is None, reason="the extra fast-jpeg is not installed"
)
SAMPLINGS = ("444", "422", "420", "440", "411")


@pytest.fixture(autouse=True)
def trusted(monkeypatch):
    monkeypatch.setattr(turbojpeg._Distrust, "is_on", False)
    monkeypatch.setattr(turbojpeg._Distrust, "is_settled", False)


def boxes(height: int, width: int, count: int, seed: int) -> list[tuple[int, int, int, int]]:
    """Random parts, and those at the corners."""
    rng = np.random.default_rng(seed)
    found = [(0, 0, height, width), (0, 0, 1, 1), (height - 1, width - 1, 1, 1)]
    for _ in range(count):
        h, w = (int(rng.integers(1, side + 1)) for side in (height, width))
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        found.append((top, left, h, w))
    return found


def by_opencv(image: np.ndarray, sampling: str, *flags: int) -> bytes:
    cv2 = opencv()
    kind = getattr(cv2, f"IMWRITE_JPEG_SAMPLING_FACTOR_{sampling}")
    given = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, kind, cv2.IMWRITE_JPEG_QUALITY, 88, *flags]
    return bytes(cv2.imencode(".jpg", image[:, :, ::-1], given)[1])


def pillows(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@needs_library
@pytest.mark.parametrize("sampling", SAMPLINGS)
@pytest.mark.parametrize("kind", ["baseline", "progressive", "restarts"])
def test_every_part_equals_pillows_pixels(photo, sampling, kind):
    cv2 = opencv()
    flags = {
        "baseline": (),
        "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
        "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 3),
    }[kind]
    for number, (height, width) in enumerate([(149, 211), (64, 96), (17, 33)]):
        data = by_opencv(photo[:height, 7 : 7 + width], sampling, *flags)
        whole = pillows(data)
        for top, left, h, w in boxes(height, width, 25, number):
            part = turbojpeg.decode_region(data, (top, left, h, w))
            np.testing.assert_array_equal(part, whole[top : top + h, left : left + w])


@needs_library
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_parts_of_reduced_images_equal_opencvs(photo, factor):
    for sampling in SAMPLINGS[:3]:
        data = by_opencv(photo[:301, :419], sampling)
        whole = decode_reduced(data, factor)
        assert whole is not None
        for top, left, h, w in boxes(*whole.shape[:2], 20, factor):
            part = turbojpeg.decode_region(data, (top, left, h, w), factor)
            np.testing.assert_array_equal(part, whole[top : top + h, left : left + w])


@needs_library
def test_grey_becomes_three_channels(photo, encode):
    data = encode(photo[:80, :90, 0].copy(), quality=90)
    part = turbojpeg.decode_region(data, (10, 20, 30, 40))
    np.testing.assert_array_equal(part, decode(data)[10:40, 20:60])


@needs_library
def test_what_libjpeg_warns_of_is_left_to_the_others(photo):
    data = bytearray(by_opencv(photo[:120, :160], "420"))
    for at in range(len(data) // 2, len(data) // 2 + 40):
        data[at] = 0xAA  # whatever comes of it, it is no whole image
    data[-2:] = b"\0\0"
    assert turbojpeg.decode_region(bytes(data), (0, 0, 120, 160)) is None


@needs_library
def test_a_box_outside_and_a_file_that_is_no_jpeg_are_left_to_the_others(photo):
    data = by_opencv(photo[:40, :40], "420")
    assert turbojpeg.decode_region(data, (10, 0, 31, 5)) is None
    assert turbojpeg.decode_region(b"no image at all", (0, 0, 1, 1)) is None


@needs_library
def test_threads_do_not_write_into_each_others_images(photo):
    files = [by_opencv(photo[n : n + 100, n : n + 140], "420") for n in range(8)]
    whole = [pillows(data) for data in files]
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(40):
            part = turbojpeg.decode_region(files[number], (11, 13, 70, 80))
            if part is None or not (part == whole[number][11:81, 13:93]).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@needs_library
@pytest.mark.parametrize("factor", [1, 2, 8])
def test_a_library_with_other_pixels_is_told_of_and_not_used(photo, monkeypatch, factor):
    data = by_opencv(photo[:60, :60], "420")
    region = turbojpeg._Decoder.region
    monkeypatch.setattr(
        turbojpeg._Decoder, "region", lambda *given: np.asarray(region(*given)) // 2
    )
    said: list[str] = []
    monkeypatch.setattr(turbojpeg.get_logger(), "warning", said.append)
    assert turbojpeg.decode_region(data, (1, 1, 6, 6), factor) is None
    assert "libturbojpeg" in said[0]
    assert not turbojpeg.is_available()
    assert turbojpeg.decode_region(data, (0, 0, 20, 20)) is None


@needs_library
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_a_good_library_is_trusted_after_the_first_image(photo, factor):
    data = by_opencv(photo[:61, :59], "420")
    box = (0, 0, -(-61 // factor), -(-59 // factor))
    assert turbojpeg.decode_region(data, box, factor) is not None
    assert turbojpeg._Distrust.is_settled
    assert not turbojpeg._Distrust.is_on


def test_libraries_that_are_too_old_or_no_libraries_are_passed_over(monkeypatch, tmp_path):
    other = tmp_path / "libturbojpeg.so"
    other.write_bytes(b"no library")
    monkeypatch.setattr(turbojpeg, "_candidates", lambda: iter([str(other), "libc.so.6"]))
    assert turbojpeg._library.__wrapped__() is None


def test_without_the_library_the_pixels_are_the_same(photo, encode, monkeypatch):
    from passl.data.fast_decode import FastDecodeAndCrop
    from passl.data.transforms.decode import DecodeImage
    from passl.data.transforms.random_crop import RandCropImage

    data = encode(photo[:400, :600].copy(), quality=90)
    fused = [
        FastDecodeAndCrop(DecodeImage(), RandCropImage(size=size, interpolation="bicubic"), exact)
        for size in (48, 160)
        for exact in (False, True)
    ]

    def images() -> list[Any]:
        return [op(data, np.random.default_rng(seed)) for op in fused for seed in range(5)]

    first = images()
    monkeypatch.setattr(turbojpeg, "_library", lambda: None)
    for here, there in zip(first, images()):
        np.testing.assert_array_equal(here, there)
