"""Decoding means what Pillow means, and a damaged file is never half a picture."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image

from passl.data.images import decode, jpeg_size
from passl.data.transforms.decode import DecodeImage
from passl.errors import DataError

RNG = np.random.default_rng(0)


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("quality", [30, 90, 100])
def test_jpeg_pixels_equal_pillows(photo, encode, subsampling, progressive, quality):
    odd = np.ascontiguousarray(photo[:333, :501])
    data = encode(odd, subsampling=subsampling, progressive=progressive, quality=quality)
    assert jpeg_size(data) == (333, 501)
    np.testing.assert_array_equal(decode(data), by_pillow(data))


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        ("JPEG", "L", {}),
        ("JPEG", "CMYK", {}),
        ("JPEG", "RGB", {"restart_marker_blocks": 4}),
        ("JPEG", "RGB", {"optimize": True, "dpi": (72, 72), "comment": b"\xff\xd9 not the end"}),
        ("PNG", "RGB", {}),
        ("PNG", "L", {}),
        ("PNG", "1", {}),
        ("PNG", "P", {}),
        ("PNG", "LA", {}),
        ("WEBP", "RGB", {"quality": 80}),
        ("BMP", "RGB", {}),
        ("GIF", "P", {}),
        ("TIFF", "RGB", {}),
        ("PPM", "RGB", {}),
    ],
)
def test_every_kind_of_file_becomes_pillows_rgb(photo, encode, kind, mode, options):
    data = encode(photo[:60, :80].copy(), kind, mode, **options)
    image = decode(data)
    assert image.dtype == np.uint8
    assert image.shape == (60, 80, 3)
    np.testing.assert_array_equal(image, by_pillow(data))


def test_adobe_cmyk_is_not_negative(photo, encode):
    data = encode(photo[:64, :64].copy(), mode="CMYK", quality=95)
    assert np.abs(decode(data).astype(int) - photo[:64, :64]).mean() < 5


def test_transparency_is_dropped_not_blended(encode):
    rgba = np.full((4, 4, 4), 200, dtype=np.uint8)
    rgba[..., 3] = 0
    assert (decode(encode(rgba, "PNG")) == 200).all()


def test_sixteen_bits_are_scaled_not_clipped(encode):
    ramp = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    image = decode(encode(ramp, "PNG"))
    np.testing.assert_array_equal(image[..., 0].ravel(), np.arange(256))


def test_exif_orientation_is_not_applied(photo, encode):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    turned = encode(photo[:40, :80].copy(), exif=exif.tobytes())
    assert b"Exif" in turned
    assert decode(turned).shape == (40, 80, 3)
    np.testing.assert_array_equal(decode(turned), by_pillow(turned))


def test_bytes_after_the_end_marker_do_not_matter(photo, encode):
    data = encode(photo[:64, :64].copy())
    for tail in (b"\0" * 10, b"some trailing bytes", b"\0" * 500):
        np.testing.assert_array_equal(decode(data + tail), decode(data))


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9, 0.99])
def test_truncated_jpeg_is_an_error_at_any_length(photo, encode, share, progressive):
    data = encode(photo, quality=90, progressive=progressive)
    with pytest.raises(DataError, match=r"truncated or broken image|not an image"):
        decode(data[: int(len(data) * share)])


def test_jpeg_without_its_last_byte_is_an_error_or_whole(photo, encode):
    data = encode(photo[:64, :64].copy())
    for cut in range(1, 40):
        try:
            image = decode(data[:-cut])
        except DataError:
            continue
        np.testing.assert_array_equal(image, decode(data))  # only the end marker was missing


@pytest.mark.parametrize("marker", [0x76, 0x8A, 0xA3, 0xC6])
def test_a_marker_that_libjpeg_refuses_is_an_error_not_grey(photo, encode, marker):
    data = bytearray(encode(photo, quality=90))
    at = len(data) // 2
    data[at : at + 2] = bytes((0xFF, marker))
    with pytest.raises(OSError, match="broken data stream"):
        by_pillow(bytes(data))
    with pytest.raises(DataError, match="broken data stream"):
        decode(bytes(data))


@pytest.mark.parametrize("before", [110, 130, 150])
def test_a_jpeg_cut_within_a_table_before_another_is_an_error(photo, encode, before):
    cut = encode(photo[:9, :9, 0].copy())
    data = cut[: cut.find(b"\xff\xda") - before] + encode(photo[:40, :70, 0], progressive=True)
    with pytest.raises(OSError, match="broken data stream"):
        by_pillow(data)
    with pytest.raises(DataError, match="broken data stream"):
        decode(data)


def test_markers_in_a_profile_are_no_reason_to_leave_opencv(photo, encode, monkeypatch):
    data = encode(photo[:64, :64].copy(), icc_profile=b"\xff\x76\xff\xc6" * 50, progressive=True)
    expected = by_pillow(data)
    monkeypatch.setattr("passl.data.images._decode_with_pillow", lambda _: None)
    np.testing.assert_array_equal(decode(data), expected)


@pytest.mark.parametrize("side", [14000, 65500])
def test_a_small_file_that_claims_to_be_gigabytes_is_refused_as_by_pillow(encode, side):
    data = bytearray(encode(np.zeros((64, 64), np.uint8)))
    at = data.find(b"\xff\xc0") + 5
    data[at : at + 4] = 2 * side.to_bytes(2, "big")
    with pytest.raises(Image.DecompressionBombError):
        by_pillow(bytes(data))
    assert jpeg_size(bytes(data)) is None  # so no faster way takes it either
    with pytest.raises(DataError, match="refused as too large"):
        decode(bytes(data))


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "GIF", "BMP"])
def test_other_truncated_files_are_errors(photo, encode, kind):
    mode = "P" if kind == "GIF" else ""
    data = encode(photo[:100, :100].copy(), kind, mode)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(DataError, match=r"truncated or broken|not an image"):
            decode(data[: len(data) // 2])


def test_a_broken_png_checksum_is_an_error(photo, encode):
    data = bytearray(encode(photo[:50, :50].copy(), "PNG"))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(DataError, match="truncated or broken"):
        decode(bytes(data))


def test_any_error_of_a_format_of_pillows_says_that_the_image_is_broken(photo, encode):
    data = bytearray(encode(photo[:20, :20].copy(), "DDS"))
    data[80:84] = (138).to_bytes(4, "little")  # flags of its pixel format
    with pytest.raises(NotImplementedError):
        by_pillow(bytes(data))
    with pytest.raises(DataError, match="truncated or broken"):
        decode(bytes(data))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the file is empty"),
        (b"hello, I am a text file", "not an image that Pillow knows (23 bytes)"),
        (b"\xff\xd8\xff\xd9", "not an image that Pillow knows (4 bytes)"),
        (b"\xff\xd8\xff\xe0\x00\x02\xff\xd9", "not an image that Pillow knows (8 bytes)"),
    ],
)
def test_what_is_no_image_says_so(data, text):
    with pytest.raises(DataError) as error:
        decode(data)
    assert text in str(error.value)


def test_decode_image_orders_channels_as_asked(photo, encode):
    data = encode(photo[:20, :30].copy(), "PNG")
    rgb = DecodeImage()(data, RNG)
    np.testing.assert_array_equal(rgb, photo[:20, :30])
    np.testing.assert_array_equal(DecodeImage(to_rgb=False)(data, RNG), rgb[:, :, ::-1])
    np.testing.assert_array_equal(
        DecodeImage(channel_first=True)(data, RNG), rgb.transpose(2, 0, 1)
    )


def test_decode_image_leaves_plain_images_alone(photo):
    assert DecodeImage()(photo, RNG) is photo
