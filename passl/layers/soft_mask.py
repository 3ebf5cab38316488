"""Attention whose probabilities are masked *after* the softmax, and are not normalised again.

    out = (softmax(q k' * scale) * mask) v      mask[i, j] = 1 for j <= i, else the soft-mask rate

This is iLLaMA's attention as released.  The denominator of the softmax sees every key, so the rows
of early tokens sum to less than one: it is not causal attention, and released weights need
exactly this.  At rate 1 it is plain bidirectional attention.

With ``lse`` the logarithm of a softmax's denominator the same output is

    (1 - rate) * exp(lse_causal - lse_full) * causal(q, k, v) + rate * full(q, k, v)

so that fused kernels can compute it (:func:`attention_by_kernels`).

Source: the released iLLaMA models (Wang et al. 2024, "Adapting LLaMA Decoder to Vision
Transformer", section 3.5, describes the schedule of the rate).
"""

from __future__ import annotations

from typing import Any, Callable, Optional

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle.autograd import PyLayer

from passl.layers.flash import has_flash_kernel

__all__ = ["attention_by_kernels", "fused_kernel", "soft_mask", "soft_masked_attention"]

#: ``(q, k, v, is_causal) -> (out [b, n, h, d], lse [b, h, n])``; q, k and v are [b, n, h, d].
Kernel = Callable[
    [paddle.Tensor, paddle.Tensor, paddle.Tensor, bool], tuple[paddle.Tensor, paddle.Tensor]
]


def soft_mask(num_tokens: int, rate: float) -> np.ndarray:
    """[n, n] fp32: 1 on and below the diagonal, ``rate`` above it."""
    return np.tril(np.full((num_tokens, num_tokens), 1.0 - rate, np.float32)) + np.float32(rate)


def soft_masked_attention(
    scores_bhnn: paddle.Tensor, v_bhnd: paddle.Tensor, mask_nn: paddle.Tensor
) -> paddle.Tensor:
    """``(softmax(scores) * mask) v [b, h, n, d]``; the softmax is computed in fp32.

    On a CPU the probabilities are kept once for the backward pass, masked again there in place,
    instead of once before and once after the mask.
    """
    if _use_cpu_kernel(scores_bhnn):
        return _SoftMasked.apply(scores_bhnn, v_bhnd, mask_nn)
    probs = F.softmax(scores_bhnn.astype("float32"), axis=-1)
    return paddle.matmul((probs * mask_nn).astype(v_bhnd.dtype), v_bhnd)


def attention_by_kernels(
    q_bnhd: paddle.Tensor,
    k_bnhd: paddle.Tensor,
    v_bnhd: paddle.Tensor,
    rate: float,
    kernel: Kernel,
) -> paddle.Tensor:
    """The same [b, n, h, d] from a kernel that gives causal and full attention with their ``lse``.

    Not for training: kernels pass no gradient through ``lse``.
    """
    causal_bnhd, lse_causal_bhn = kernel(q_bnhd, k_bnhd, v_bnhd, True)
    full_bnhd, lse_full_bhn = kernel(q_bnhd, k_bnhd, v_bnhd, False)
    seen_bhn = paddle.exp(lse_causal_bhn - lse_full_bhn)  # part of the softmax below the mask
    weight_bnh1 = (seen_bhn * (1.0 - rate)).transpose([0, 2, 1]).unsqueeze(-1)
    return causal_bnhd * weight_bnh1.astype(causal_bnhd.dtype) + full_bnhd * rate


def fused_kernel(q: paddle.Tensor) -> Optional[Kernel]:
    """Paddle's fused attention where it gives ``lse``: in half precision on a GPU, Paddle 3.

    None elsewhere, and while gradients are recorded.
    """
    if paddle.is_grad_enabled() or not has_flash_kernel(q, q.shape[-1]):
        return None
    attention = getattr(F, "flashmask_attention", None)
    if attention is None:
        return None

    def kernel(
        q: paddle.Tensor, k: paddle.Tensor, v: paddle.Tensor, is_causal: bool
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        out, lse = attention(q, k, v, causal=is_causal, return_softmax_lse=True)
        return out, lse[:, :, : q.shape[1]]  # its length is rounded up

    return kernel


class _SoftMasked(PyLayer):
    """Softmax, mask and product in one, so that the masked probabilities need not be kept."""

    @staticmethod
    def forward(
        ctx: Any, scores: paddle.Tensor, v: paddle.Tensor, mask: paddle.Tensor
    ) -> paddle.Tensor:
        probs = F.softmax(scores, axis=-1)
        out = paddle.matmul(probs * mask, v)
        ctx.save_for_backward(probs, v, out, mask)
        return out

    @staticmethod
    def backward(ctx: Any, grad: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor, None]:
        probs, v, out, mask = ctx.saved_tensor()
        grad_v = paddle.matmul(probs * mask, grad, transpose_x=True)
        # d scores = probs * (mask * (grad v') - sum over keys of probs * mask * (grad v')), and
        # that sum is grad . out
        grad_scores = paddle.matmul(grad, v, transpose_y=True)
        grad_scores.multiply_(mask)
        grad_scores.subtract_((grad * out).sum(axis=-1, keepdim=True))
        return grad_scores.multiply_(probs), grad_v, None


def _use_cpu_kernel(scores: paddle.Tensor) -> bool:
    return (
        paddle.in_dynamic_mode()
        and paddle.is_grad_enabled()
        and not scores.stop_gradient
        and scores.dtype == paddle.float32
        and scores.place.is_cpu_place()
    )
