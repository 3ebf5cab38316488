"""Initial weights, drawn by numpy so that one seed gives the same weights everywhere.

Paddle's own initialisers differ between its versions (``TruncatedNormal(std=0.02)`` cuts at two
standard deviations in 2.6 and at the absolute values -2 and 2 in 3.3) and draw from the generator
that dropout uses.  Here each parameter has a generator of its own, seeded by the model's seed and
the parameter's name: adding a layer, or another number of classes, leaves the others as they were.

    with init_seed(2021):
        normal_(model.pos_embed, rng_for("pos_embed"), std=0.02)
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Callable, Optional

import numpy as np
import paddle

__all__ = [
    "Initializer",
    "constant_",
    "fans",
    "init_enabled",
    "init_seed",
    "lecun_normal_",
    "no_init",
    "normal_",
    "rng_for",
    "trunc_normal_",
    "uniform_",
    "xavier_uniform_",
]

#: Fills a parameter in place, drawing from the generator.
Initializer = Callable[[paddle.Tensor, np.random.Generator], None]

# Context variables, not globals: two runs in one process do not share them.
_SEED: ContextVar[Optional[int]] = ContextVar("passl_init_seed", default=None)
_ENABLED: ContextVar[bool] = ContextVar("passl_init_enabled", default=True)


@contextmanager
def init_seed(seed: int) -> Iterator[None]:
    """Models built inside draw their weights from ``seed`` (>= 0)."""
    token = _SEED.set(seed)
    try:
        yield
    finally:
        _SEED.reset(token)


@contextmanager
def no_init() -> Iterator[None]:
    """Models built inside keep their zeros; with ``paddle.LazyGuard`` nothing is allocated."""
    token = _ENABLED.set(False)
    try:
        yield
    finally:
        _ENABLED.reset(token)


def init_enabled() -> bool:
    """False inside :func:`no_init`."""
    return _ENABLED.get()


def rng_for(name: str) -> np.random.Generator:
    """The generator of the parameter called ``name``.

    Outside of :func:`init_seed` the seed is drawn from Paddle's generator: ``paddle.seed`` rules.
    """
    seed = _SEED.get()
    if seed is None:
        seed = int(paddle.randint(0, 2**31 - 1, [1]).item())
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def constant_(tensor: paddle.Tensor, value: float) -> None:
    """Fill with ``value``."""
    tensor.set_value(np.full(tensor.shape, value, np.float32))


def uniform_(tensor: paddle.Tensor, rng: np.random.Generator, *, bound: float) -> None:
    """Fill from the uniform distribution on [-bound, bound)."""
    values = rng.random(tuple(tensor.shape), dtype=np.float32)
    values -= np.float32(0.5)
    values *= np.float32(2.0 * bound)
    tensor.set_value(values)


def normal_(tensor: paddle.Tensor, rng: np.random.Generator, *, std: float = 0.02) -> None:
    """Fill from the normal distribution of mean 0 and standard deviation ``std``."""
    values = rng.standard_normal(tuple(tensor.shape), dtype=np.float32)
    values *= np.float32(std)
    tensor.set_value(values)


def trunc_normal_(tensor: paddle.Tensor, rng: np.random.Generator, *, std: float = 0.02) -> None:
    """Fill from the normal distribution of mean 0, cut at plus and minus two ``std``.

    Values outside are drawn again.  ``std`` is that of the uncut distribution; what results is
    0.8796 times as wide.
    """
    values = rng.standard_normal(tuple(tensor.shape), dtype=np.float32).reshape(-1)
    outside = np.flatnonzero(np.abs(values) > 2.0)
    while outside.size:
        values[outside] = rng.standard_normal(outside.size, dtype=np.float32)
        outside = outside[np.abs(values[outside]) > 2.0]
    values *= np.float32(std)
    tensor.set_value(values.reshape(tuple(tensor.shape)))


def lecun_normal_(tensor: paddle.Tensor, rng: np.random.Generator) -> None:
    """Fill from a truncated normal distribution of variance 1 / fan_in after the cut.

    Source: ``variance_scaling(1.0, "fan_in", "truncated_normal")`` of JAX, Flax's default for
    kernels; 0.8796 is the standard deviation of a unit normal cut at plus and minus two.
    """
    std = math.sqrt(1.0 / fans(tensor)[0]) / 0.87962566103423978
    trunc_normal_(tensor, rng, std=std)


def xavier_uniform_(tensor: paddle.Tensor, rng: np.random.Generator, *, parts: int = 1) -> None:
    """Fill from the uniform distribution of bound sqrt(6 / (fan_in + fan_out)).

    Args:
        tensor: weight [in, out] of a Linear, or [out, in, kh, kw] of a convolution.
        rng: the generator to draw from.
        parts: how many matrices lie side by side in the weight, each with its own fan_out (3 for
            a joint query, key and value).

    Source: Glorot and Bengio 2010, equation 16.
    """
    fan_in, fan_out = fans(tensor)
    uniform_(tensor, rng, bound=math.sqrt(6.0 / (fan_in + fan_out / parts)))


def fans(tensor: paddle.Tensor) -> tuple[int, int]:
    """(fan_in, fan_out) of a Linear weight [in, out] or a convolution's [out, in, kh, kw]."""
    shape = tuple(int(size) for size in tensor.shape)
    if len(shape) == 2:
        return shape
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field
