"""Images to tokens through a convolutional network: the patches are cut from its features.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import paddle
from paddle import nn

from passl.layers.errors import ModelArgumentError
from passl.layers.patch_embed import check_images
from passl.layers.resnet import NUM_GROUPS, ResNet, ResNetStem

__all__ = ["HybridEmbed", "feature_size"]


class HybridEmbed(nn.Layer):
    """``x [b, in_chans, height, width] -> tokens [b, rows * columns, embed_dim]``, row by row.

    Parameters ``backbone.*`` and the projection of a patch, ``proj.weight`` [embed_dim, channels,
    patch, patch] and ``proj.bias``.  A backbone without stages is its stem alone, whose parameters
    are called ``backbone.conv.weight`` and ``backbone.norm.*``, as in timm.

    Args:
        img_size: (height, width) of the images, in pixels.
        patch_size: side of a patch, in cells of the feature map.
        in_chans: channels of the images.
        embed_dim: channels of a token.
        layers: bottlenecks of each stage of the backbone.
        width: channels of its stem; a multiple of 32.
        style: ``google`` or ``timm``, see :class:`~passl.layers.resnet.ResNet`.

    Raises:
        ModelArgumentError: the feature map is not a whole number of patches, or the width cannot be
            normalised in 32 groups.
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        *,
        layers: Sequence[int],
        width: int,
        style: str = "google",
    ) -> None:
        super().__init__()
        if width % NUM_GROUPS:
            near = max(1, round(width / NUM_GROUPS)) * NUM_GROUPS
            raise ModelArgumentError(
                f"backbone_width {width} cannot be normalised in {NUM_GROUPS} groups; the nearest "
                f"width that can: {near}"
            )
        rows, columns = (feature_size(side, len(layers)) for side in img_size)
        if rows % patch_size or columns % patch_size:
            stride = 4 * 2 ** max(0, len(layers) - 1)
            raise ModelArgumentError(
                f"img_size {img_size[0]}x{img_size[1]} gives a feature map of {rows}x{columns}, "
                f"which is not a whole number of patches of {patch_size}; make both sides "
                f"multiples of {stride * patch_size}"
            )
        self.img_size, self.patch_size, self.in_chans = img_size, patch_size, in_chans
        self.grid_size = (rows // patch_size, columns // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        self.backbone = (
            ResNet(in_chans, layers, width, style)
            if layers
            else ResNetStem(in_chans, width, style)
        )
        zero = paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
        self.proj = nn.Conv2D(
            self.backbone.num_channels,
            embed_dim,
            patch_size,
            stride=patch_size,
            weight_attr=zero,
            bias_attr=zero,
        )

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Tokens of the images.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
        """
        check_images(x_bchw, self.in_chans, self.img_size)
        # [b, c, r, c] -> [b, n, c]
        return self.proj(self.backbone(x_bchw)).flatten(2).transpose([0, 2, 1])


def feature_size(side: int, num_stages: int) -> int:
    """Cells along a side of ``side`` pixels after the stem and ``num_stages`` stages."""
    for _ in range(2 + max(0, num_stages - 1)):  # the stem halves twice, the first stage does not
        side = -(-side // 2)
    return side
