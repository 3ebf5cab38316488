"""The two-layer perceptron of a transformer block, with GELU or one of its approximations."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.cpu_kernels import CpuGelu, fits_inference, fits_training
from passl.layers.errors import ModelArgumentError
from passl.layers.linear import Linear

__all__ = ["Mlp", "hidden_width"]

_ACTIVATIONS = ("gelu", "gelu_tanh", "quick_gelu")
_QUICK = 1.702


class Mlp(nn.Layer):
    """``x [b, n, c] -> fc2(gelu(fc1(x))) [b, n, c]``, with dropout after both layers.

    Parameters ``fc1.weight`` [c, hidden_dim], ``fc1.bias``, ``fc2.weight`` [hidden_dim, c],
    ``fc2.bias``.

    Args:
        dim: c.
        hidden_dim: width between the two layers.
        act: ``gelu`` (erf), or ``gelu_tanh``: 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))),
            which differs by less than 5e-4, or ``quick_gelu``: x sigmoid(1.702 x), by up to 0.021.
            Source: Hendrycks and Gimpel 2016, section 2.
        drop_rate: dropout after both layers.
        fused_linear: let both linear layers use Paddle's fused kernel.

    Raises:
        ModelArgumentError: there is no such activation.
    """

    def __init__(
        self,
        dim: int,
        hidden_dim: int,
        *,
        act: str = "gelu",
        drop_rate: float = 0.0,
        fused_linear: bool = False,
    ) -> None:
        super().__init__()
        if act not in _ACTIVATIONS:
            raise ModelArgumentError(
                f"act {act!r} is no activation of the perceptron; "
                f"{', '.join(_ACTIVATIONS[:-1])} or {_ACTIVATIONS[-1]}"
            )
        self.act = act
        self.fc1 = Linear(dim, hidden_dim, fused=fused_linear)
        self.fc2 = Linear(hidden_dim, dim, fused=fused_linear)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x_bnc: paddle.Tensor) -> paddle.Tensor:
        """Transform each token by itself."""
        return self.drop(self.fc2(self.drop(self._activated(self.fc1(x_bnc)))))

    def _activated(self, x: paddle.Tensor) -> paddle.Tensor:
        if self.act == "quick_gelu":
            return x * F.sigmoid(x * _QUICK)
        if self.act == "gelu" and x.dtype == paddle.float32:
            if fits_training(x):
                return CpuGelu.apply(x)
            if fits_inference(x):
                return CpuGelu.value(x)
        return F.gelu(x, approximate=self.act == "gelu_tanh")


def hidden_width(dim: int, mlp_ratio: float) -> int:
    """Channels between the two layers: ``mlp_ratio`` times those of a token, rounded down.

    Raises:
        ModelArgumentError: none are left.
    """
    width = int(dim * mlp_ratio)
    if width < 1:
        raise ModelArgumentError(
            f"mlp_ratio {mlp_ratio} of embed_dim {dim} leaves the perceptron no hidden "
            f"channel; mlp_ratio must be at least {1 / dim:g}"
        )
    return width
