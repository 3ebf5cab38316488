"""The few things a converter may do to a tensor, each with a name that reports print.

An operation knows the shape of its result before anything is read, so that a whole conversion can
be checked against a model first, and it belongs to a layer's *type*, never to a number of axes: a
square Linear weight that is copied instead of transposed has the right shape and the wrong values.

Layouts: torch stores a Linear weight as [out, in], flax and Paddle as [in, out]; a convolution is
[out, in, height, width] in torch and Paddle and [height, width, in, out] in flax; flax keeps the
heads of an attention on an axis of their own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable

import numpy as np

__all__ = ["OPERATIONS", "Operation", "Shape"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operation:
    """One named operation.

    Args:
        name: what reports and tables call it.
        num_sources: tensors it takes.
        summary: one line for the documentation.
        shape: shapes of the sources -> shape of the result.
        apply: the sources -> the result; may return a view.
    """

    name: str
    num_sources: int
    summary: str
    shape: Callable[[Sequence[Shape]], Shape]
    apply: Callable[[Sequence[np.ndarray]], np.ndarray]


class _WrongShape(ValueError):
    """The tensor is not what the operation is for."""


def _copy_shape(shapes: Sequence[Shape]) -> Shape:
    return shapes[0]


def _transpose_shape(shapes: Sequence[Shape]) -> Shape:
    rows, columns = _axes(shapes[0], 2, "a Linear weight has two axes")
    return (columns, rows)


def _conv_shape(shapes: Sequence[Shape]) -> Shape:
    height, width, inputs, outputs = _axes(shapes[0], 4, "a convolution has four axes")
    return (outputs, inputs, height, width)


def _flatten_shape(shapes: Sequence[Shape]) -> Shape:
    return (math.prod(shapes[0]),)


def _merge_output_heads_shape(shapes: Sequence[Shape]) -> Shape:
    heads, head_dim, outputs = _axes(shapes[0], 3, "an output kernel is [heads, head width, out]")
    return (heads * head_dim, outputs)


def _qkv_kernels_shape(shapes: Sequence[Shape]) -> Shape:
    same = _all_same(shapes)
    inputs, heads, head_dim = _axes(same, 3, "a query kernel is [in, heads, head width]")
    return (inputs, 3 * heads * head_dim)


def _qkv_weights_shape(shapes: Sequence[Shape]) -> Shape:
    outputs, inputs = _axes(_all_same(shapes), 2, "a Linear weight has two axes")
    return (inputs, 3 * outputs)


def _qkv_columns_shape(shapes: Sequence[Shape]) -> Shape:
    inputs, outputs = _axes(_all_same(shapes), 2, "a Linear weight has two axes")
    return (inputs, 3 * outputs)


def _qkv_biases_shape(shapes: Sequence[Shape]) -> Shape:
    return (3 * math.prod(_all_same(shapes)),)


def _patch_linear_shape(shapes: Sequence[Shape]) -> Shape:
    outputs, pixels = _axes(shapes[0], 2, "a Linear weight has two axes")
    side = math.isqrt(pixels // 3)
    if 3 * side * side != pixels:
        raise _WrongShape(f"{pixels} inputs are no square patch of three channels")
    return (outputs, 3, side, side)


def _zero_class_shape(shapes: Sequence[Shape]) -> Shape:
    one, tokens, dim = _axes(shapes[0], 3, "a position embedding is [1, tokens, width]")
    return (one, tokens + 1, dim)


def _without_class_shape(shapes: Sequence[Shape]) -> Shape:
    one, tokens, dim = _axes(shapes[0], 3, "a position embedding is [1, tokens, width]")
    return (one, tokens - 1, dim)


def _axes(shape: Shape, num: int, what: str) -> Shape:
    if len(shape) != num:
        raise _WrongShape(f"{what}, not {list(shape)}")
    return shape


def _all_same(shapes: Sequence[Shape]) -> Shape:
    if len(set(shapes)) != 1:
        raise _WrongShape(f"query, key and value differ: {[list(shape) for shape in shapes]}")
    return shapes[0]


def _patch_linear(arrays: Sequence[np.ndarray]) -> np.ndarray:
    outputs, channels, side, _ = _patch_linear_shape([arrays[0].shape])
    return arrays[0].reshape(outputs, side, side, channels).transpose(0, 3, 1, 2)


def _zero_class(arrays: Sequence[np.ndarray]) -> np.ndarray:
    grid_1nd = arrays[0]
    return np.concatenate([np.zeros_like(grid_1nd[:, :1]), grid_1nd], axis=1)


#: Every operation by name.
OPERATIONS: dict[str, Operation] = {
    operation.name: operation
    for operation in (
        Operation("copy", 1, "as it is", _copy_shape, lambda a: a[0]),
        Operation("transpose", 1, "Linear weight [out, in] -> [in, out]", _transpose_shape,
                  lambda a: a[0].T),
        Operation("hwio_to_oihw", 1, "convolution [h, w, in, out] -> [out, in, h, w]", _conv_shape,
                  lambda a: a[0].transpose(3, 2, 0, 1)),
        Operation("flatten", 1, "one axis, as [1, 1, 1, C] -> [C]", _flatten_shape,
                  lambda a: a[0].reshape(-1)),
        Operation("merge_heads", 1, "output kernel [heads, head width, out] -> [in, out]",
                  _merge_output_heads_shape, lambda a: a[0].reshape(-1, a[0].shape[-1])),
        Operation("concat_qkv_kernels", 3,
                  "three kernels [in, heads, head width] -> [in, q | k | v]", _qkv_kernels_shape,
                  lambda a: np.concatenate([x.reshape(x.shape[0], -1) for x in a], axis=1)),
        Operation("concat_qkv_transposed", 3, "three weights [out, in] -> [in, q | k | v]",
                  _qkv_weights_shape, lambda a: np.concatenate([x.T for x in a], axis=1)),
        Operation("concat_qkv_columns", 3, "three weights [in, out] -> [in, q | k | v]",
                  _qkv_columns_shape, lambda a: np.concatenate(list(a), axis=1)),
        Operation("concat_qkv_biases", 3, "three biases -> one", _qkv_biases_shape,
                  lambda a: np.concatenate([x.reshape(-1) for x in a])),
        Operation("patch_linear_to_conv", 1,
                  "Linear over (row, column, channel) of a patch -> convolution",
                  _patch_linear_shape, _patch_linear),
        Operation("zero_class_position", 1, "a zero position for the class token, then the grid",
                  _zero_class_shape, _zero_class),
        Operation("class_plus_position", 2, "class token + its row of the position embedding",
                  _copy_shape, lambda a: a[0] + a[1][:, :1]),
        Operation("drop_class_position", 1, "position embedding without the class token's row",
                  _without_class_shape, lambda a: a[0][:, 1:]),
    )
}
