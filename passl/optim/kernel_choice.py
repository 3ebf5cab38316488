"""Which form of an update is computed: the fastest that works on the device at hand.

Each is tried on small tensors when the first optimizer is built (:mod:`passl.trial`), and must
agree with NumPy; the composition of public operations takes its place where it does not.
``docs/optimization.md`` has the measurements behind the order.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Optional

import numpy as np
import paddle

from passl.optim.kernels import (
    ADAMW_FORMS,
    LAUNCH_CHUNK,
    AdamWForm,
    AdamWScalars,
    MomentumKernel,
    momentum_composed,
    momentum_fused,
    signatures,
)
from passl.optim.parallel import on_cpu, on_gpu
from passl.trial import works_here

__all__ = ["adamw_kernel", "momentum_kernel"]

_INSTEAD = "a slower form takes its place"


def adamw_kernel() -> AdamWForm:
    """The fastest form for this Paddle and this device that computes what it should there."""
    for name in _candidates():
        form = ADAMW_FORMS[name]
        what = f"Paddle's kernel for AdamW ({name})"
        if works_here(what, functools.partial(_problem_of_adamw, form), _INSTEAD):
            return form
    return ADAMW_FORMS["composed"]


def momentum_kernel() -> MomentumKernel:
    """The fastest form for this Paddle and this device that computes what it should there."""
    if signatures() == "unknown":
        return momentum_composed
    form = momentum_fused
    trial = functools.partial(_problem_of_momentum, form)
    works = works_here("Paddle's kernel for Momentum", trial, _INSTEAD)
    return form if works else momentum_composed


def _candidates() -> tuple[str, ...]:
    """Forms of AdamW with kernels of Paddle, the fastest first."""
    if signatures() == "unknown":
        return ()
    if on_cpu():
        # Paddle has a vectorised AdamW for AVX-512 only, a vectorised Adam for AVX as well; on AMD
        # the latter is faster where it has both (Zen 4: 1.3 against 1.7 ns a number, one thread).
        return ("by_size" if _prefers_avx512() else "decay_then_adam",)
    if on_gpu() and hasattr(paddle._C_ops, "fused_adam_"):
        return ("listed", "fused")
    return ("fused",)


def _problem_of_adamw(form: AdamWForm) -> Optional[str]:
    """What is wrong with one update of a few tensors, or of lists too long for one launch."""
    s = AdamWScalars.at(3, 1e-2, (0.9, 0.99), 1e-8, 0.1)
    sizes = _FEW if form.update_list is None else _MANY
    p, g, m, v = ([_probe_values(kind, each) for each in sizes] for kind in range(4))
    tensors = [[paddle.to_tensor(each) for each in values] for values in (p, g, m, v)]
    with paddle.no_grad():
        if form.update_list is not None:
            form.update_list(tensors[0], tensors[1], tensors[2], tensors[3], s)
        else:
            for param, grad, first, second in zip(*tensors):
                form.update(param, grad, first, second, s)
        found = [[each.numpy() for each in values] for values in tensors]
    m = [s.beta1 * a + (1.0 - s.beta1) * b for a, b in zip(m, g)]
    v = [s.beta2 * a + (1.0 - s.beta2) * b * b for a, b in zip(v, g)]
    p = [a * (1.0 - s.decay) - s.lr * b / (np.sqrt(c) + s.eps) for a, b, c in zip(p, m, v)]
    wanted = {
        "parameter": (found[0], p),
        "first moment": (found[2], m),
        "second moment": (found[3], v),
    }
    return _first_wrong(wanted)


def _problem_of_momentum(form: MomentumKernel) -> Optional[str]:
    """What is wrong with one update of two parameters."""
    for size in _FEW:
        p, g, v = (_probe_values(kind, size) for kind in range(3))
        param, grad, velocity = (paddle.to_tensor(each) for each in (p, g, v))
        with paddle.no_grad():
            rate = paddle.full([1], 0.1, dtype="float32")
            form(param, grad, velocity, rate, 0.9, 0.01, False)
            found = param.numpy(), velocity.numpy()
        v = 0.9 * v + g + 0.01 * p
        wrong = _first_wrong(
            {"parameter": ([found[0]], [p - 0.1 * v]), "velocity": ([found[1]], [v])}
        )
        if wrong:
            return wrong
    return None


_FEW = (3, 70)
#: More tensors than one launch of Paddle's multi-tensor kernel takes, the last in two chunks.
_MANY = _FEW * 31 + (LAUNCH_CHUNK + 5,)


def _probe_values(kind: int, size: int) -> np.ndarray:
    return np.random.default_rng([kind, size]).uniform(0.1, 1.0, size).astype(np.float32)


def _first_wrong(pairs: Mapping[str, tuple[list[np.ndarray], list[np.ndarray]]]) -> Optional[str]:
    for name, (found, wanted) in pairs.items():
        if not all(np.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(found, wanted)):
            return f"the {name} it computes is wrong"
    return None


@functools.lru_cache(maxsize=1)
def _prefers_avx512() -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            text = file.read()
    except OSError:
        return False
    return " avx512f" in text and "AuthenticAMD" not in text
