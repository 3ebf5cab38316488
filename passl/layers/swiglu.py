"""The gated perceptron of LLaMA: ``fc2(silu(fc1(x)) * fc3(x))``, without biases.

Source: Shazeer 2020, "GLU Variants Improve Transformer", equation 6; Touvron et al. 2023, "LLaMA",
section 2.2, for the hidden width.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.linear import Linear

__all__ = ["SwiGLU", "gated_width", "swiglu"]

#: silu and its gradient are below 2e-33 from here on; Paddle's gradient is infinite from -84.5 on,
#: on a CPU, and NaN from -88.75.
_LEAST = -80.0


class SwiGLU(nn.Layer):
    """``x [b, n, c] -> [b, n, c]``.

    Parameters ``fc1.weight`` (the gate) and ``fc3.weight`` [c, hidden_dim], ``fc2.weight``
    [hidden_dim, c].
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.fc1 = Linear(dim, hidden_dim, bias=False)
        self.fc2 = Linear(hidden_dim, dim, bias=False)
        self.fc3 = Linear(dim, hidden_dim, bias=False)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        """Transform each token by itself."""
        return self.fc2(swiglu(self.fc1(x_bnc), self.fc3(x_bnc)))


def swiglu(gate: paddle.Tensor, value: paddle.Tensor) -> paddle.Tensor:
    """``silu(gate) * value``, element by element."""
    if paddle.is_grad_enabled() and not gate.stop_gradient:
        gate = gate.clip(min=_LEAST)
    return F.silu(gate) * value


def gated_width(width: int, multiple_of: int) -> int:
    """The hidden width that costs as much as an ungated perceptron of ``width``.

    Two thirds of it, as there are three matrices and not two, rounded up to ``multiple_of``.
    """
    return multiple_of * -(-max(1, int(2 * width / 3)) // multiple_of)
