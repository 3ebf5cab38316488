"""Normalising on the device gives what normalising on the host gives."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.data.device import HostNormalize, split_normalize
from passl.data.transforms.flip import RandFlipImage
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage
from passl.errors import DataError

RNG = np.random.default_rng(0)
HALF = {"mean": [0.5] * 3, "std": [0.5] * 3}


@pytest.mark.parametrize(
    "chain",
    [
        [NormalizeImage(order="hwc"), ToCHWImage()],
        [NormalizeImage(order="", **HALF), ToCHWImage()],
        [ToCHWImage(), NormalizeImage(order="chw", scale=1 / 128)],
        [NormalizeImage(order="hwc", mean=0.1, std=0.3), ToCHWImage()],
    ],
)
def test_device_and_host_agree(photo, chain):
    images = np.stack([photo[:32, :48], photo[50:82, 60:108]])
    kept, device = split_normalize([RandFlipImage(), *chain])
    assert [type(op) for op in kept] == [RandFlipImage]
    assert device is not None
    host = []
    for image in images:
        for op in chain:
            image = op(image, RNG)
        host.append(image)
    for _ in range(2):  # the constants are kept after the first batch
        tensor = device(paddle.to_tensor(images))
        assert tensor.dtype == paddle.float32
        assert list(tensor.shape) == [2, 3, 32, 48]
        np.testing.assert_allclose(tensor.numpy(), np.stack(host), rtol=0, atol=1e-6)


def test_one_channel_is_normalised_on_the_device_too():
    _, device = split_normalize([NormalizeImage(order="hwc", mean=0.5, std=0.5), ToCHWImage()])
    images = np.arange(2 * 4 * 4, dtype=np.uint8).reshape(2, 4, 4, 1)
    expected = images.transpose(0, 3, 1, 2) / 127.5 - 1.0
    np.testing.assert_allclose(device(paddle.to_tensor(images)).numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(
    "chain",
    [
        [],
        [ToCHWImage()],
        [NormalizeImage(order="hwc")],
        [NormalizeImage(order="chw"), ToCHWImage()],
        [ToCHWImage(), NormalizeImage(order="hwc")],
        [NormalizeImage(order="hwc", output_fp16=True), ToCHWImage()],
        [NormalizeImage(order="hwc", channel_num=4), ToCHWImage()],
        [NormalizeImage(order="hwc"), RandFlipImage(), ToCHWImage()],
        [NormalizeImage(order="hwc"), ToCHWImage(), RandFlipImage()],
    ],
)
def test_other_endings_stay_on_the_host(chain):
    assert split_normalize(chain) == (chain, None)


def test_a_wrong_number_of_channels_is_seen_before_the_device():
    _, device = split_normalize([NormalizeImage(order="hwc"), ToCHWImage()])
    with pytest.raises(DataError, match="mean has 3 values but the image has 1 channels"):
        device.check(np.zeros((4, 4, 1), np.uint8))


@pytest.mark.parametrize(
    "chain",
    [
        [NormalizeImage(order="hwc"), ToCHWImage()],
        [ToCHWImage(), NormalizeImage(order="chw", scale=1 / 128)],
        [NormalizeImage(order="hwc", mean=0.1, std=0.3), ToCHWImage()],
    ],
)
@pytest.mark.parametrize("kind", ["rgb", "bgr", "part", "grey", "float"])
def test_normalising_into_the_batch_is_equal_to_the_last_bit(photo, chain, kind):
    image = {
        "rgb": photo[:32, :48].copy(),
        "bgr": photo[:32, :48, ::-1],
        "part": photo[100:132, 60:108],
        "grey": photo[:32, :48, :1],
        "float": photo[:32, :48].astype(np.float32) + 0.25,
    }[kind]
    if kind == "grey":
        chain = [type(op)(order=order_of(op), mean=0.5, std=0.5) if isinstance(op, NormalizeImage)
                 else op for op in chain]  # fmt: skip
    _, device = split_normalize(chain)
    assert device is not None
    expected = image
    for op in chain:
        expected = op(expected, RNG)
    batch = np.full((2, *expected.shape), 7, np.float32)
    HostNormalize(device.normalize).put(image, batch[1])
    np.testing.assert_array_equal(batch[1], expected)
    assert (batch[0] == 7).all()


def order_of(op: NormalizeImage) -> str:
    return "chw" if op.channel_axis == 0 else "hwc"
