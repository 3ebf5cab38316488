"""Convolution with standardised weights and the padding of TensorFlow, as Google's hybrids use it.

Source: Qiao et al. 2019, "Micro-Batch Training with Batch-Channel Normalization and Weight
Standardization"; google-research/vision_transformer for the constants.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

__all__ = ["StdConv2D"]

_GOOGLE_EPSILON = 1e-5  # added to the standard deviation
_TIMM_EPSILON = 1e-8  # added to the variance
# Far below both epsilons: keeps the derivative of the root finite where all weights are equal.
_LEAST_VARIANCE = 1e-24


class StdConv2D(nn.Layer):
    """``x [b, in_chans, h, w] -> [b, out_chans, ceil(h / stride), ceil(w / stride)]``, no bias.

    The weights of each output channel are shifted and scaled to mean 0 and standard deviation 1
    before they are used; the parameter ``weight`` [out_chans, in_chans, kernel, kernel] stays as it
    is.  Zeros are padded as TensorFlow's SAME does: the odd one below and to the right.

    Args:
        in_chans: channels of the input.
        out_chans: channels of the output.
        kernel: side of the window.
        stride: step of the window.
        style: ``google`` divides by ``std + 1e-5``, ``timm`` by ``sqrt(var + 1e-8)``.
    """

    keep_fp32 = True  # the weights are standardised in float32 and then cast

    def __init__(
        self, in_chans: int, out_chans: int, kernel: int, *, stride: int = 1, style: str = "google"
    ) -> None:
        super().__init__()
        self.stride, self.style, self.folded = stride, style, False
        self.weight = self.create_parameter(
            [out_chans, in_chans, kernel, kernel],
            default_initializer=nn.initializer.Constant(0.0),
        )

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Convolve."""
        weight = self.weight if self.folded else self.standardised().astype(self.weight.dtype)
        return F.conv2d(x_bchw, weight, stride=self.stride, padding="SAME")

    def fold(self) -> None:
        """Standardise the weights once and for all: for a model that is only run from now on."""
        if not self.folded:
            self.weight.set_value(self.standardised().detach().astype(self.weight.dtype))
            self.folded = True

    def standardised(self) -> paddle.Tensor:
        """The weights that are used, float32; computed in it under AMP too."""
        with paddle.amp.auto_cast(enable=False):
            weight = self.weight.astype("float32")
            centred = weight - weight.mean(axis=[1, 2, 3], keepdim=True)
            variance = (centred * centred).mean(axis=[1, 2, 3], keepdim=True)
            if self.style == "timm":
                return centred / paddle.sqrt(variance + _TIMM_EPSILON)
            return centred / (paddle.sqrt(variance.clip(min=_LEAST_VARIANCE)) + _GOOGLE_EPSILON)
