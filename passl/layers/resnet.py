"""The residual network in front of Google's hybrid transformers.

Bottlenecks with the nonlinearity after the addition, the stride in the 3x3 convolution, group
normalisation in 32 groups and standardised weights (:mod:`passl.layers.std_conv`).

Source: He et al. 2016, "Deep Residual Learning for Image Recognition"; Kolesnikov et al. 2020, "Big
Transfer"; google-research/vision_transformer, whose block is called pre-activation and is not.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
import paddle.nn.functional as F
from paddle import nn

from passl.layers.std_conv import StdConv2D

__all__ = ["EXPANSION", "NUM_GROUPS", "Bottleneck", "ResNet", "ResNetStem"]

NUM_GROUPS = 32
#: Channels that a bottleneck returns, as a multiple of those it works in.
EXPANSION = 4
#: Added to the variance in a group normalisation.
_EPSILON = {"google": 1e-6, "timm": 1e-5}


class ResNetStem(nn.Layer):
    """``x [b, in_chans, h, w] -> [b, width, h / 4, w / 4]``, sizes rounded up.

    A 7x7 convolution and a 3x3 maximum, each with stride 2.
    """

    def __init__(self, in_chans: int, width: int, style: str) -> None:
        super().__init__()
        self.num_channels = width
        self.conv = StdConv2D(in_chans, width, 7, stride=2, style=style)
        self.norm = _group_norm(width, style)

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Features of the images."""
        x_bchw = F.relu(self.norm(self.conv(x_bchw)))
        return F.max_pool2d(x_bchw, kernel_size=3, stride=2, padding="SAME")


class Bottleneck(nn.Layer):
    """``x [b, in_chans, h, w] -> [b, 4 * width, h / stride, w / stride]``, sizes rounded up.

    Convolutions 1x1, 3x3 and 1x1, added to the input, which is projected where its shape differs.
    """

    def __init__(self, in_chans: int, width: int, stride: int, style: str) -> None:
        super().__init__()
        out_chans = EXPANSION * width
        self.downsample = (
            _Projection(in_chans, out_chans, stride, style)
            if stride != 1 or in_chans != out_chans
            else nn.Identity()
        )
        self.conv1 = StdConv2D(in_chans, width, 1, style=style)
        self.norm1 = _group_norm(width, style)
        self.conv2 = StdConv2D(width, width, 3, stride=stride, style=style)
        self.norm2 = _group_norm(width, style)
        self.conv3 = StdConv2D(width, out_chans, 1, style=style)
        self.norm3 = _LastNorm(NUM_GROUPS, out_chans, epsilon=_EPSILON[style])

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Apply the block."""
        branch = F.relu(self.norm1(self.conv1(x_bchw)))
        branch = F.relu(self.norm2(self.conv2(branch)))
        return F.relu(self.norm3(self.conv3(branch)) + self.downsample(x_bchw))


class ResNet(nn.Layer):
    """``x [b, in_chans, h, w] -> [b, num_channels, h / stride, w / stride]``, sizes rounded up.

    Args:
        in_chans: channels of the images.
        layers: bottlenecks of each stage; the width doubles and, but for the first stage, the sides
            halve from stage to stage.
        width: channels after the stem, and those the first stage works in.
        style: whose constants: ``google`` or ``timm`` (:class:`StdConv2D`, and 1e-6 or 1e-5 added
            to the variance in a group normalisation).

    Attributes:
        num_channels: channels of the result.
    """

    def __init__(self, in_chans: int, layers: Sequence[int], width: int, style: str) -> None:
        super().__init__()
        self.stem = ResNetStem(in_chans, width, style)
        self.stages = nn.LayerList()
        self.num_channels = width
        for index, num_blocks in enumerate(layers):
            stage = _Stage(
                self.num_channels, width * 2**index, num_blocks, 1 if index == 0 else 2, style
            )
            self.stages.append(stage)
            self.num_channels = EXPANSION * width * 2**index

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Features of the images."""
        x_bchw = self.stem(x_bchw)
        for stage in self.stages:
            x_bchw = stage(x_bchw)
        return x_bchw


class _Stage(nn.Layer):
    """Bottlenecks of one width; the first has the stride."""

    def __init__(
        self, in_chans: int, width: int, num_blocks: int, stride: int, style: str
    ) -> None:
        super().__init__()
        self.blocks = nn.LayerList([Bottleneck(in_chans, width, stride, style)])
        for _ in range(num_blocks - 1):
            self.blocks.append(Bottleneck(EXPANSION * width, width, 1, style))

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        for block in self.blocks:
            x_bchw = block(x_bchw)
        return x_bchw


class _Projection(nn.Layer):
    """A 1x1 convolution with a normalisation: the shortcut where shapes differ."""

    def __init__(self, in_chans: int, out_chans: int, stride: int, style: str) -> None:
        super().__init__()
        self.conv = StdConv2D(in_chans, out_chans, 1, stride=stride, style=style)
        self.norm = _group_norm(out_chans, style)

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        return self.norm(self.conv(x_bchw))


class _LastNorm(nn.GroupNorm):
    """A group normalisation whose weight learns even where it is 0, as it is at first.

    Paddle's kernel for CPUs, of 2.6 and 3.3 alike, finds the normalised input by dividing the
    output by the weight, and where that is 0 it returns a gradient of 0: such a weight would stay
    0, and the branch before it would never learn.  The kernel for GPUs takes the input.
    """

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Normalise."""
        if not self.training or (paddle.in_dynamic_mode() and x_bchw.place.is_gpu_place()):
            return nn.GroupNorm.forward(self, x_bchw)  # 2.6 turns no super() into a graph
        _, channels, height, width = x_bchw.shape
        size = channels // self._num_groups * height * width  # of a group
        groups_bgn = x_bchw.reshape([-1, self._num_groups, size])
        normal_bgn = F.layer_norm(groups_bgn, [size], epsilon=self._epsilon)
        normal = normal_bgn.reshape([-1, channels, height, width])
        weight_c11, bias_c11 = (p.reshape([-1, 1, 1]) for p in (self.weight, self.bias))
        return normal * weight_c11.astype(normal.dtype) + bias_c11.astype(normal.dtype)


def _group_norm(channels: int, style: str) -> nn.GroupNorm:
    return nn.GroupNorm(NUM_GROUPS, channels, epsilon=_EPSILON[style])
