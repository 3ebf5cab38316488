"""Mixed precision on a CPU, for tests of its logic.

Paddle switches its automatic casts off on a CPU.  With a tracer that says it is on a GPU they run:
weights, gradients of weights and casts are in half precision; an operation without a half-precision
kernel, which on a CPU is nearly every one, is computed in float32 from the rounded numbers.  So
rounding, overflow and dtypes of weights and their gradients are real; those of activations are not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import paddle
import pytest

from passl.engine import mixed_precision
from passl.layers.linear import cpu_kernels


class _Gpu:
    def is_gpu_place(self) -> bool:
        return True

    def is_xpu_place(self) -> bool:
        return False

    def is_custom_place(self) -> bool:
        return False


class _Tracer:
    """The real tracer, but for where it says it is."""

    def __init__(self, tracer: Any) -> None:
        object.__setattr__(self, "_tracer", tracer)

    def __getattr__(self, name: str) -> Any:
        return _Gpu() if name == "_expected_place" else getattr(self._tracer, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._tracer, name, value)


def cast_truncates() -> bool:
    """Paddle 2.6 on a CPU cuts the bits off; newer ones, and every GPU, round to the nearest."""
    return bool((paddle.to_tensor([0.6375]).astype("float16").astype("float32") < 0.6375).item())


@contextmanager
def forced() -> Iterator[None]:
    """Inside, ``paddle.amp.auto_cast`` casts on a CPU, and a run believes that it can."""
    paddle.amp.auto_cast  # noqa: B018  the package is loaded lazily
    module = sys.modules["paddle.amp.auto_cast"]
    tracer = _Tracer(module._dygraph_tracer())  # type: ignore[attr-defined]
    with ExitStack() as stack:
        for place, name, value in (
            (module, "_dygraph_tracer", tracer),
            (module, "_is_gpu_float16_supported", True),
            (module, "_is_gpu_bfloat16_supported", True),
            (mixed_precision, "why_not", None),
        ):
            stack.enter_context(mock.patch.object(place, name, return_value=value))
        # Paddle's own operations, as on a GPU: our kernels for CPUs are of float32 weights.
        stack.enter_context(cpu_kernels(False))
        yield


@pytest.fixture
def forced_amp() -> Iterator[None]:
    """The casts for one test."""
    with forced():
        yield
