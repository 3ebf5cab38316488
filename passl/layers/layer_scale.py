"""A learned factor for each channel of a residual branch.

Source: Touvron et al. 2021, "Going deeper with Image Transformers", section 2.
"""

from __future__ import annotations

import paddle
from paddle import nn

__all__ = ["LayerScale"]


class LayerScale(nn.Layer):
    """``x [..., dim] -> x * gamma``; the parameter ``gamma`` [dim] starts at ``init_value``."""

    keep_fp32 = True  # 1e-6 has four significant bits in float16

    def __init__(self, dim: int, init_value: float) -> None:
        super().__init__()
        self.gamma = self.create_parameter(
            [dim], default_initializer=nn.initializer.Constant(init_value)
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Same shape as ``x``, dtype of ``gamma``.

        Under AMP O1 ``gamma`` is float32 and so is the result: 1e-6, what DeiT III starts with, has
        four significant bits in float16.
        """
        return x.astype(self.gamma.dtype) * self.gamma
