"""A step of ours launches fewer operators than the same step written as PASSL writes it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"
SIZES = {
    "img_size": 32, "patch_size": 16, "in_chans": 3, "class_num": 10,
    "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 2.0,
}


@pytest.fixture
def counting(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("launches")
    for name in ("launches", "stock_vit"):
        sys.modules.pop(name, None)


def test_fewer_operators_than_passls_way(counting):
    ours = counting.launches(*counting.our_parts(SIZES))
    passls = counting.launches(*counting.passl_parts(SIZES))
    assert ours[0] < passls[0]  # forward and backward
    assert ours[1] < passls[1]  # clipping
    assert ours[2] < passls[2]  # update
    assert sum(ours) < sum(passls)


def test_every_launch_is_counted(counting):
    import paddle

    x = paddle.ones([2, 2])

    def three() -> None:
        paddle.matmul(x, x).add(x).exp()

    assert counting.launches(three) == [3]
