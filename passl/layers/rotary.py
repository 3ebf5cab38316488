"""Rotary position embedding: a query or key is turned by angles that grow with its position.

Channels ``2i`` and ``2i + 1`` are one pair, the real and imaginary part of a number that position
``p`` multiplies by ``exp(1j * p * theta ** (-2i / d))``.  These are LLaMA's own, interleaved pairs;
Hugging Face's files hold rows permuted for pairs ``(i, i + d/2)``.

Source: Su et al. 2021, "RoFormer", equation 34; the pairs of LLaMA v1.
"""

from __future__ import annotations

import numpy as np
import paddle
from paddle import nn

from passl.layers.errors import ModelArgumentError

__all__ = ["Rotary"]


class Rotary(nn.Layer):
    """``x [..., n, d] -> [..., n, d]``: token ``p`` turned by the angles of position ``p``.

    Has no parameter, and its table is in no state dict.

    Args:
        head_dim: d, even.
        num_tokens: n.
        theta: base of the frequencies.

    Raises:
        ModelArgumentError: ``head_dim`` is odd.
    """

    def __init__(self, head_dim: int, num_tokens: int, *, theta: float = 10000.0) -> None:
        super().__init__()
        if head_dim % 2:
            raise ModelArgumentError(
                f"rotary embedding turns pairs of channels, and a head of {head_dim} channels has "
                "an odd number; embed_dim / num_heads must be even"
            )
        # In fp32 throughout, as the released models computed it.
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        frequencies = np.float32(1.0) / np.float32(theta) ** exponents
        angles = np.outer(np.arange(num_tokens, dtype=np.float32), frequencies)
        self.register_buffer("cos", paddle.to_tensor(np.cos(angles)), persistable=False)
        self.register_buffer("sin", paddle.to_tensor(np.sin(angles)), persistable=False)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Turn ``x``; computed in fp32, returned in the dtype of ``x``."""
        pairs = x.astype("float32").reshape([*x.shape[:-1], x.shape[-1] // 2, 2])
        if paddle.in_dynamic_mode():
            # a sixth of the time of the form below, on a CPU
            turned = paddle.as_real(paddle.as_complex(pairs) * paddle.complex(self.cos, self.sin))
        else:  # exported models know no complex numbers
            real, imaginary = pairs.unbind(-1)
            turned = paddle.stack(
                [
                    real * self.cos - imaginary * self.sin,
                    real * self.sin + imaginary * self.cos,
                ],
                axis=-1,
            )
        return turned.reshape(x.shape).astype(x.dtype)
