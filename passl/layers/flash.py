"""Where Paddle's fused attention runs: the one answer for all layers.

Paddle picks its flash kernel on every GPU, and where there is none for the GPU, the size of a head
or the CUDA it was built with, the kernel raises in the middle of the first step.  So it is asked
for only where it exists; the products are written out elsewhere, softmax in float32.

Source: the conditions at the start of the functions of Paddle's fork of flash-attention
(``csrc/capi``): compute capability 8.x or 9.0, heads of at most 256 numbers that are a multiple of
8, and in the backward pass of at most 192 but on 8.0 and 9.0; CUDA 11.4 from the maintainers'
answer in github.com/PaddlePaddle/Paddle/issues/63568.  Paddle 3 asks its kernel on up to 12.1
(``init_config`` in its ``nn/functional/sdpa.py``).
"""

from __future__ import annotations

import functools

import paddle

__all__ = ["has_flash_kernel"]

_HALF = (paddle.float16, paddle.bfloat16)


def has_flash_kernel(x: paddle.Tensor, head_dim: int) -> bool:
    """Whether ``F.scaled_dot_product_attention`` of tensors like ``x`` runs as one kernel.

    Args:
        x: queries, keys or values: their dtype and device count.
        head_dim: numbers in a head.
    """
    return (
        x.dtype in _HALF
        and head_dim % 8 == 0
        and paddle.in_dynamic_mode()
        and x.place.is_gpu_place()
        and head_dim <= _largest_head(x.place.gpu_device_id())
    )


@functools.cache
def _largest_head(device: int) -> int:
    """Numbers in the largest head that both passes take; 0 without a kernel."""
    if paddle.is_compiled_with_rocm():  # never tried there
        return 0
    version = str(paddle.version.cuda()).split(".")
    if not version[0].isdigit():
        return 0
    cuda = tuple(int(part) for part in version[:2])
    capability = tuple(paddle.device.cuda.get_device_capability(device))
    newest = (9, 0) if paddle.__version__.startswith("2.") else (12, 1)
    if cuda < (11, 4) or not (8, 0) <= capability <= newest:
        return 0
    return 256 if capability in ((8, 0), (9, 0)) else 192
