"""The quick decoding keeps the boxes and every draw, and stays close to Pillow's pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from passl.config.schema import LoaderSection, SamplerSection, WorkerSection
from passl.data import fast_decode
from passl.data.build import build_loader
from passl.data.fast_decode import FastDecodeAndCrop, fast_resize, reduction, with_fast_decoding
from passl.data.resize import resize
from passl.data.transforms.decode import DecodeImage
from passl.data.transforms.flip import RandFlipImage
from passl.data.transforms.random_crop import RandCropImage, RandomCrop, RandomResizedCrop
from passl.errors import DataError


def chain(interpolation: Any = "bicubic", size: Any = 224, **decode: Any) -> list[Any]:
    crop = RandCropImage(size=size, interpolation=interpolation)
    return [DecodeImage(**decode), crop, RandFlipImage()]


def run(transforms: list[Any], data: Any, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The image, and the state in which the generator is left."""
    rng = np.random.default_rng(seed)
    for transform in transforms:
        data = transform(data, rng)
    return data, dict(rng.bit_generator.state)


def boxes_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """Every box that is drawn from now on."""
    boxes: list[tuple[int, int, int, int]] = []
    draw = RandCropImage.draw

    def spy(self: RandCropImage, *given: Any) -> tuple[int, int, int, int]:
        boxes.append(draw(self, *given))
        return boxes[-1]

    monkeypatch.setattr(RandCropImage, "draw", spy)
    return boxes


@pytest.fixture(scope="module")
def jpegs(photo, encode) -> list[bytes]:
    """Eight parts of a photograph at 500 x 375, quality 90."""
    files = []
    for number in range(8):
        top, left = 9 * number, 15 * number
        part = Image.fromarray(photo[top : top + 354, left : left + 472]).resize((500, 375))
        files.append(encode(np.asarray(part), quality=90))
    return files


@pytest.mark.parametrize(("interpolation", "mean"), [("bicubic", 1.5), ("bilinear", 1.0)])
def test_boxes_and_flips_are_equal_and_pixels_close(jpegs, monkeypatch, interpolation, mean):
    boxes = boxes_of(monkeypatch)
    exact, fast = chain(interpolation), with_fast_decoding(chain(interpolation))
    assert len(fast) == 2
    errors = []
    for seed, data in enumerate(jpegs * 4):
        expected, state = run(exact, data, seed)
        image, fast_state = run(fast, data, seed)
        assert boxes.pop() == boxes.pop()
        assert fast_state == state
        assert image.shape == expected.shape == (224, 224, 3)
        assert image.dtype == np.uint8
        errors.append(np.abs(image.astype(int) - expected))
    assert np.mean(errors) < mean
    assert max(error.mean() for error in errors) < 4  # the worst image
    assert np.mean([error > 16 for error in errors]) < 0.005


@pytest.mark.parametrize(
    ("box", "target", "factor"),
    [
        ((447, 900), (224, 224), 1),
        ((448, 448), (224, 224), 2),
        ((896, 1000), (224, 224), 4),
        ((5000, 1792), (224, 224), 8),
        ((9999, 9999), (384, 128), 8),
        ((800, 300), (384, 128), 2),
        ((100, 100), (224, 224), 1),
    ],
)
def test_the_reduced_image_still_covers_the_result(box, target, factor):
    assert reduction(box, target) == factor


@pytest.mark.parametrize("orientation", [1, 6])
def test_large_photographs_are_decoded_at_a_fraction(photo, encode, monkeypatch, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation  # which is not applied, reduced or not
    large = np.asarray(Image.fromarray(photo).resize((1603, 1069), Image.Resampling.BICUBIC))
    data = encode(large, quality=90, exif=exif)
    boxes, factors, errors = boxes_of(monkeypatch), set(), []
    decode_part = fast_decode._decode_part

    def spy(data: bytes, box: Any, factor: int) -> Any:
        factors.add(factor)
        return decode_part(data, box, factor)

    monkeypatch.setattr(fast_decode, "_decode_part", spy)
    for seed in range(12):
        expected, state = run(chain(size=128), data, seed)
        image, fast_state = run(with_fast_decoding(chain(size=128)), data, seed)
        assert boxes.pop() == boxes.pop()
        assert (fast_state, image.shape) == (state, expected.shape)
        errors.append(np.abs(image.astype(int) - expected).mean())
    assert {2, 4} <= factors
    assert np.mean(errors) < 5


@pytest.mark.parametrize(("interpolation", "mean"), [("bicubic", 2.5), ("bilinear", 2.0)])
@pytest.mark.parametrize("side", [90, 200, 224, 240, 260, 300, 330, 420])
def test_every_way_of_resizing_is_close_to_pillows(photo, side, interpolation, mean):
    part = photo[3 : 3 + side, 11 : 11 + side]
    close = fast_resize(part, 224, 224, interpolation).astype(int)
    exact = resize(part, 224, 224, interpolation, "pil")
    assert np.abs(close - exact).mean() < mean


def test_what_is_no_plain_jpeg_is_as_in_the_exact_chain(photo, encode):
    part = photo[:300, :400].copy()
    for data in (encode(part, "PNG"), encode(part, mode="CMYK"), part):
        expected, state = run(chain(), data, 5)
        image, fast_state = run(with_fast_decoding(chain()), data, 5)
        np.testing.assert_array_equal(image, expected)
        assert fast_state == state


def test_damaged_files_are_the_same_errors(jpegs):
    broken = bytearray(jpegs[0])
    broken[1000:1004] = b"\xff\xd9\xff\xd9"
    for data in (jpegs[0][:-500], b"", b"no image"):
        messages = []
        for transforms in (chain(), with_fast_decoding(chain())):
            with pytest.raises(DataError) as error:
                run(transforms, data, 0)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


def test_bgr_stays_bgr(jpegs):
    rgb, _ = run(with_fast_decoding(chain()), jpegs[0], 1)
    bgr, _ = run(with_fast_decoding(chain(to_rgb=False)), jpegs[0], 1)
    np.testing.assert_array_equal(rgb, bgr[:, :, ::-1])


def test_opencvs_filter_is_kept_where_it_was_asked_for(jpegs):
    transforms = [DecodeImage(), RandCropImage(size=224, interpolation="bicubic", backend="cv2")]
    for seed in range(5):
        expected, _ = run(transforms, jpegs[0], seed)
        image, _ = run(with_fast_decoding(transforms), jpegs[0], seed)
        np.testing.assert_array_equal(image, expected)


def test_chains_that_cannot_be_fused_stay_as_they_are():
    crop = RandCropImage(size=8)
    for transforms in (
        [crop],
        [DecodeImage()],
        [DecodeImage(channel_first=True), crop],
        [DecodeImage(), RandomCrop(size=8)],
        [DecodeImage(), RandFlipImage(), crop],
    ):
        assert with_fast_decoding(transforms) == transforms
        assert with_fast_decoding(transforms, exact=True) == transforms
    fused = with_fast_decoding([DecodeImage(), RandomResizedCrop(size=8)])
    assert isinstance(fused[0], FastDecodeAndCrop)


@pytest.mark.parametrize("backend", ["pil", "cv2"])
@pytest.mark.parametrize("size", [224, [100, 333], 40])
def test_the_exact_chain_is_fused_without_changing_a_pixel(jpegs, encode, photo, backend, size):
    grey = encode(photo[:333, :401, 0].copy(), quality=70)
    for filter_name in ("bilinear", "bicubic", "lanczos", "nearest"):
        crop = RandCropImage(size=size, interpolation=filter_name, backend=backend)
        plain = [DecodeImage(), crop, RandFlipImage()]
        fused = with_fast_decoding(plain, exact=True)
        assert len(fused) == 2
        for seed, data in enumerate([*jpegs[:3], grey]):
            expected, state = run(plain, data, seed)
            image, fused_state = run(fused, data, seed)
            np.testing.assert_array_equal(image, expected)
            assert fused_state == state


def test_a_crop_of_the_very_size_of_the_result_is_memory_of_its_own(jpegs):
    crop = RandCropImage(size=[375, 500], scale=(1.0, 1.0), ratio=(4 / 3, 4 / 3))
    for exact in (False, True):
        fused = with_fast_decoding([DecodeImage(), crop], exact)[0]
        first = fused(jpegs[0], np.random.default_rng(0))
        expected = first.copy()
        fused(jpegs[1], np.random.default_rng(0))
        np.testing.assert_array_equal(first, expected)


@pytest.mark.parametrize(
    ("mode", "exact", "is_exact"),
    [("train", False, False), ("train", True, True), ("eval", False, True), ("eval", True, True)],
)
def test_evaluation_is_always_exact(image_tree: Path, mode, exact, is_exact):
    section = LoaderSection(
        dataset={
            "name": "ImageFolder",
            "root": str(image_tree / "images"),
            "transform_ops": [{"name": "DecodeImage"}, {"name": "RandCropImage", "size": 8}],
        },
        sampler=SamplerSection(),
        loader=WorkerSection(exact=exact),
    )
    loader = build_loader(section, mode=mode, global_batch_size=4, class_num=3)
    first = loader.dataset.transforms[0]
    assert isinstance(first, FastDecodeAndCrop)
    assert first.exact is is_exact
