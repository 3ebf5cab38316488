"""The first convolution of one patch size or number of channels, for another.

Both keep what the layer computes as nearly as the other size allows, so that fine-tuning begins
from the pretrained features.
"""

from __future__ import annotations

import numpy as np

from passl.checkpoint.pos_embed import resize_weights

__all__ = ["adapt_channels", "resize_patch_embed"]

#: Channels that weights can be brought from: grey and RGB.
_KNOWN_CHANNELS = (1, 3)


def resize_patch_embed(
    weight: np.ndarray, patch_size: tuple[int, int], *, method: str = "bicubic_antialias"
) -> np.ndarray:
    """Resize the kernel so that a resized patch keeps its token: the pseudo-inverse resize.

    With ``B`` the matrix that resizes a patch of the old size to the new one, the new kernel is
    ``pinv(B^T) w``, the least-squares solution of ``<B x, w'> = <x, w>``; exact where the patch
    grows.  ``B`` is a product of one matrix an axis, and so is its pseudo-inverse.

    Args:
        weight: [D, channels, height, width], any float.
        patch_size: height and width wanted.
        method: how a patch would be resized, one of
            :data:`~passl.checkpoint.pos_embed.RESIZE_METHODS`.

    Returns:
        [D, channels, *patch_size] float32; the same bits if the size is the same.

    Source: Beyer et al. 2023, "FlexiViT" (arXiv 2212.08013), section 3.4; bicubic with
        antialiasing as timm's ``resample_patch_embed``.
    """
    height, width = weight.shape[2:]
    if (height, width) == tuple(patch_size):
        return weight.astype(np.float32)
    down_hv = np.linalg.pinv(resize_weights(height, patch_size[0], method))
    across_wu = np.linalg.pinv(resize_weights(width, patch_size[1], method))
    kernel = weight.astype(np.float64)
    resized = np.einsum("dchw,hv,wu->dcvu", kernel, down_hv, across_wu, optimize=True)
    return resized.astype(np.float32)


def adapt_channels(weight: np.ndarray, in_chans: int) -> np.ndarray:
    """The kernel for images of ``in_chans`` channels.

    From any number to 1 the channels are summed: a grey image gives what the same image repeated
    gave.  Else they are repeated in turn, cut to ``in_chans``, and scaled by old / new, so that
    the sum over channels of equal values stays nearly the same.

    Args:
        weight: [D, 1 or 3, height, width], any float.
        in_chans: channels wanted.

    Returns:
        [D, in_chans, height, width] float32.

    Raises:
        ValueError: the source is neither grey nor RGB, so nobody knows what its channels mean.

    Source: timm's ``adapt_input_conv``.
    """
    old = weight.shape[1]
    if old == in_chans:
        return weight.astype(np.float32)
    if in_chans == 1:
        return weight.astype(np.float32).sum(axis=1, keepdims=True)
    if old not in _KNOWN_CHANNELS:
        raise ValueError(f"weights for {old} channels cannot become weights for {in_chans}")
    repeated = weight.astype(np.float32)[:, np.arange(in_chans) % old]
    return repeated * np.float32(old / in_chans)
