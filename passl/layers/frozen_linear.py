"""Linear layer without bias for a large frozen weight that may be stored in half precision.

The gradient of the input passes; none is computed for the weight.  On a CPU, which computes
in fp32, a weight stored in half precision is widened for the moment of the product, forward and
backward, and never kept wide: a frozen LLaMA block of 405 MB stays 405 MB.  On a GPU the product
runs in the precision of the weight.
"""

from __future__ import annotations

from typing import Any

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.autograd import PyLayer

__all__ = ["FrozenLinear"]


class FrozenLinear(nn.Layer):
    """``x [..., in] -> x W [..., out]``.

    The parameter ``weight`` [in_features, out_features] starts at zero.

    Args:
        in_features, out_features: sizes.
        dtype: of the stored weight: ``float32``, ``float16`` or ``bfloat16``.
        trainable: True makes it an ordinary parameter.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        dtype: str = "float32",
        trainable: bool = False,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = self.create_parameter(
            [in_features, out_features],
            attr=paddle.ParamAttr(trainable=trainable),
            dtype=dtype,
            default_initializer=nn.initializer.Constant(0.0),
        )

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        """Apply the layer to the last axis of ``x``."""
        if self.weight.dtype == paddle.float32:
            return F.linear(x, self.weight)
        if paddle.in_dynamic_mode() and x.place.is_cpu_place():
            return _WidenedProduct.apply(x, self.weight)
        return F.linear(x.astype(self.weight.dtype), self.weight)

    def extra_repr(self) -> str:
        """What ``print(model)`` shows."""
        return f"{self.in_features} -> {self.out_features}, {self.weight.dtype}"


class _WidenedProduct(PyLayer):
    """``x W`` of an fp32 ``x`` and a frozen half-precision ``W``."""

    @staticmethod
    def forward(ctx: Any, x: paddle.Tensor, weight: paddle.Tensor) -> paddle.Tensor:
        ctx.weight = weight
        return paddle.matmul(x, weight.astype(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[paddle.Tensor, None]:
        return paddle.matmul(grad, ctx.weight.astype(grad.dtype), transpose_y=True), None
