"""Paddle's fused linear layer for GPUs: product and bias in one kernel, and so in the gradient.

``paddle.incubate.nn.functional.fused_linear`` is cuBLASLt's product with the bias as its epilogue;
it exists in builds for CUDA 11.6 and later, Paddle 2.6 and 3 alike.  The formula is that of
``F.linear``; in half precision it rounds once where the plain layer rounds after the product and
after the sum.  It is tried on a small layer first (:mod:`passl.trial`), and must agree with the
plain one.  ``docs/performance.md`` says which other fused operators are left out, and why.
"""

from __future__ import annotations

from typing import Callable, Optional

import numpy as np
import paddle
import paddle.nn.functional as F

from passl.trial import works_here

__all__ = ["fused_linear_works", "takes_fused_linear"]

_HALVES = (paddle.float16, paddle.bfloat16)
#: The probe's numbers are of the size of 1, where float16 has steps of 0.001.
_PROBE_TOLERANCE = 0.01

_Linear = Callable[[paddle.Tensor, paddle.Tensor, paddle.Tensor], paddle.Tensor]


def fused_linear_works() -> bool:
    """Whether there is a fused linear layer for the current device, and it computes what it should.

    Asked when a layer is built; the first time on a CUDA device it costs one small computation.
    """
    if not paddle.is_compiled_with_cuda() or paddle.is_compiled_with_rocm():
        return False
    if not str(paddle.device.get_device()).startswith("gpu"):
        return False
    return works_here(
        "Paddle's fused linear layer",
        lambda: probe(paddle.incubate.nn.functional.fused_linear),
        "the plain one, which needs more launches, takes its place",
    )


def probe(fused: _Linear) -> Optional[str]:
    """What is wrong with ``fused`` in float16 on the current device, None if nothing is."""
    found, wanted = _results(fused, "float16"), _results(F.linear, "float32")
    for name, ours, theirs in zip(("value", "input", "weight", "bias"), found, wanted):
        if ours.shape != theirs.shape or not np.allclose(
            ours, theirs, rtol=_PROBE_TOLERANCE, atol=_PROBE_TOLERANCE
        ):
            return f"its {'' if name == 'value' else 'gradient of the '}{name} is wrong"
    return None


def takes_fused_linear(
    x: paddle.Tensor, weight: paddle.Tensor, bias: paddle.Tensor
) -> bool:
    """Whether this call is one for the fused layer: half precision on a GPU, nothing frozen."""
    if not (on_gpu_in_half(x) and x.dtype == weight.dtype == bias.dtype):
        return False
    if not paddle.is_grad_enabled():
        return True
    return not (x.stop_gradient or weight.stop_gradient or bias.stop_gradient)


def on_gpu_in_half(x: paddle.Tensor) -> bool:
    """Whether ``x`` is of half precision, on a GPU, and no graph is being recorded."""
    return x.dtype in _HALVES and paddle.in_dynamic_mode() and x.place.is_gpu_place()


def _results(linear: _Linear, dtype: str) -> list[np.ndarray]:
    """Value and gradients of a small layer [2, 8, 16] -> [2, 8, 24], as float32."""
    rng = np.random.default_rng(0)
    tensors = []
    for shape, size in (([2, 8, 16], 1.0), ([16, 24], 0.25), ([24], 1.0)):
        values = (rng.standard_normal(shape) * size).astype(np.float16).astype(np.float32)
        tensor = paddle.to_tensor(values).astype(dtype)
        tensor.stop_gradient = False
        tensors.append(tensor)
    upstream = rng.uniform(0.1, 0.4, [2, 8, 24]).astype(np.float16).astype(np.float32)
    with paddle.enable_grad():
        value = linear(*tensors)
        gradients = paddle.grad(value, tensors, paddle.to_tensor(upstream).astype(dtype))
    return [tensor.astype("float32").numpy() for tensor in (value, *gradients)]
