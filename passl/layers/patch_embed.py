"""An image cut into patches, each projected to a token.

Source: Dosovitskiy et al. 2021, "An Image is Worth 16x16 Words", equation 1.
"""

from __future__ import annotations

import paddle
from paddle import nn

from passl.layers.errors import InputShapeError, ModelArgumentError

__all__ = ["PatchEmbed", "check_images"]


class PatchEmbed(nn.Layer):
    """``x [b, in_chans, height, width] -> tokens [b, rows * columns, embed_dim]``, row by row.

    A convolution whose stride is its kernel: parameters ``proj.weight``
    [embed_dim, in_chans, patch, patch] and ``proj.bias`` [embed_dim], zero at first.

    Args:
        img_size: (height, width) of the images, in pixels.
        patch_size: side of a patch, in pixels.
        in_chans: channels of the images.
        embed_dim: channels of a token.
        ignore_border: let the last rows and columns that fill no patch go unseen.
        bias: whether there is a ``proj.bias``.

    Raises:
        ModelArgumentError: the image is not a whole number of patches, or smaller than one.
    """

    def __init__(
        self,
        img_size: tuple[int, int],
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        *,
        ignore_border: bool = False,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if min(img_size) < patch_size or (
            not ignore_border and any(side % patch_size for side in img_size)
        ):
            height, width = img_size
            near = [max(1, round(side / patch_size)) * patch_size for side in img_size]
            raise ModelArgumentError(
                f"img_size {height}x{width} is not a whole number of patches of {patch_size} "
                f"pixels; the nearest size that is: img_size={_written(near)}"
            )
        self.img_size, self.patch_size, self.in_chans = img_size, patch_size, in_chans
        self.grid_size = (img_size[0] // patch_size, img_size[1] // patch_size)
        self.num_patches = self.grid_size[0] * self.grid_size[1]
        zero = paddle.ParamAttr(initializer=nn.initializer.Constant(0.0))
        self.proj = nn.Conv2D(
            in_chans,
            embed_dim,
            patch_size,
            stride=patch_size,
            weight_attr=zero,
            bias_attr=zero if bias else False,
        )

    def forward(self, x_bchw: paddle.Tensor) -> paddle.Tensor:
        """Tokens of the images.

        Raises:
            InputShapeError: the images are not of the size the model was built for.
        """
        check_images(x_bchw, self.in_chans, self.img_size)
        return self.proj(x_bchw).flatten(2).transpose([0, 2, 1])  # [b, c, r, c] -> [b, n, c]


def check_images(x_bchw: paddle.Tensor, in_chans: int, img_size: tuple[int, int]) -> None:
    """Refuse a batch that is not ``[b, in_chans, *img_size]``.

    Raises:
        InputShapeError: says what was given and what to change.
    """
    found = [int(size) for size in x_bchw.shape]
    wanted = [in_chans, *img_size]
    if len(found) != 4:
        raise InputShapeError(
            f"the model takes a batch of images [batch, {', '.join(map(str, wanted))}], "
            f"and was given an array of shape {found}"
        )
    # -1: an axis that a static graph leaves open
    if all(have in (want, -1) for have, want in zip(found[1:], wanted)):
        return
    channels, height, width = found[1:]
    if channels not in (in_chans, -1):
        raise InputShapeError(
            f"the images have {channels} channels (shape {found}, read as [batch, channels, "
            f"height, width]) and the model takes {in_chans}; build it with "
            f"in_chans={channels} (Model.in_chans in a config), or change the images"
        )
    raise InputShapeError(
        f"the images are {height}x{width} pixels and the model was built for "
        f"{img_size[0]}x{img_size[1]}; build it with img_size={_written([height, width])} "
        "(Model.img_size in a config), or resize the images"
    )


def _written(size: list[int]) -> str:
    """A size as a config or a call would write it."""
    return str(size[0]) if size[0] == size[1] else str(size)
