"""Rounding to fewer bits: NumPy's float16, and the definition computed with whole numbers."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.quant import rounding
from passl.quant.rounding import FP16, TF32, round_half_even, straight_through

HALVES = np.arange(65536, dtype=np.uint16).view(np.float16).astype(np.float32)


def interesting() -> np.ndarray:
    """Every half, what lies between two of them and its neighbours, and numbers of any size."""
    rng = np.random.default_rng(0)
    finite = HALVES[np.isfinite(HALVES)]
    finite = np.sort(finite)
    between = (finite[1:] + finite[:-1]) / np.float32(2)
    near = [np.nextafter(between, np.float32(way)) for way in (-np.inf, np.inf)]
    exponents = rng.integers(-30, 20, 20000).astype(np.float32)
    anything = rng.normal(size=20000).astype(np.float32) * np.float32(2) ** exponents
    tiny = rng.normal(size=4000).astype(np.float32) * np.float32(2) ** rng.integers(-126, -24, 4000)
    edges = np.float32([65504, 65519.99, 65520, 65536, 131008, 1e6, 3e38, 0.0, -0.0])
    parts = [HALVES, between, *near, anything, tiny, edges, -edges]
    return np.concatenate(parts).astype(np.float32)


@pytest.fixture(params=["cast", "arithmetic"])
def way(request, monkeypatch):
    """Paddle's cast where it is exact, or the arithmetic that works anywhere."""
    if request.param == "arithmetic":
        monkeypatch.setattr(rounding, "_casts_exactly", lambda place: False)


@pytest.mark.usefixtures("way")
def test_fp16_is_numpys_on_every_half_and_between():
    x = interesting()
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = x.astype(np.float16).astype(np.float32)
    found = FP16.round(paddle.to_tensor(x)).numpy()
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
    told = ~np.isnan(wanted)
    np.testing.assert_array_equal(np.signbit(found)[told], np.signbit(wanted)[told])


def test_tf32_cuts_thirteen_bits_half_to_even():
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2**32, 40000, dtype=np.uint32)
    ties = (bits & np.uint32(0xFFFFE000)) | np.uint32(0x1000)
    x = np.concatenate([bits, ties]).view(np.float32)
    normal = np.abs(x) >= np.float32(2.0**-126)
    x = x[np.isfinite(x) & normal]
    whole = x.view(np.uint32).astype(np.uint64)
    even = (whole >> np.uint64(13)) & np.uint64(1)
    cut = (whole + np.uint64(0xFFF) + even) & np.uint64(0xFFFFE000)
    wanted = cut.astype(np.uint32).view(np.float32)
    np.testing.assert_array_equal(TF32.round(paddle.to_tensor(x)).numpy(), wanted)


def test_qpytorch_rounds_halves_away_and_ends_at_131008():
    step = np.float32(2.0**-10)
    x = np.float32([1 + step / 2, 1 + 3 * step / 2, 1e6, -1e6, 65520, 2.0**-25, 3 * 2.0**-26])
    wanted = np.float32([1 + step, 1 + 2 * step, 131008, -131008, 65536, 2.0**-24, 2.0**-24])
    found = FP16.round(paddle.to_tensor(x), "qpytorch").numpy()
    np.testing.assert_array_equal(found, wanted)
    ours = FP16.round(paddle.to_tensor(x)).numpy()
    np.testing.assert_array_equal(ours[:2], np.float32([1.0, 1 + 2 * step]))
    assert ours[2] == np.inf


@pytest.mark.parametrize("mode", ["ieee", "qpytorch"])
@pytest.mark.parametrize("number_format", [FP16, TF32], ids=["fp16", "tf32"])
def test_rounding_again_changes_nothing(number_format, mode):
    x = paddle.to_tensor(interesting())
    once = number_format.round(x, mode)
    np.testing.assert_array_equal(number_format.round(once, mode).numpy(), once.numpy())


def test_whole_numbers_half_to_even():
    x = np.float64([0.5, 1.5, 2.5, -0.5, -1.5, 2.4999, 1e12 + 0.5])
    np.testing.assert_array_equal(round_half_even(paddle.to_tensor(x)).numpy(), np.rint(x))


def test_the_gradient_goes_straight_through():
    x = paddle.to_tensor(np.float32([0.1, 1 / 3, 7e4]), stop_gradient=False)
    y = straight_through(FP16.round, x)
    np.testing.assert_array_equal(y.numpy(), FP16.round(x.detach()).numpy())
    (y * paddle.to_tensor(np.float32([1.0, 2.0, 0.0]))).sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), np.float32([1.0, 2.0, 0.0]))
