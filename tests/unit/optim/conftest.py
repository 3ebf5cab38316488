"""Small models of parameters for the optimizer tests."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from passl.optim.groups import build_param_groups

SHAPES = {
    "blocks.0.fc.weight": [5, 3],
    "blocks.0.fc.bias": [3],
    "norm.weight": [3],
    "pos_embed": [1, 4, 3],
}


def parameter(value, dtype="float32"):
    tensor = paddle.to_tensor(np.asarray(value, "float32")).astype(dtype)
    tensor.stop_gradient = False
    return tensor


@pytest.fixture
def make_parameters():
    def make(seed=0, dtype="float32", shapes=None):
        rng = np.random.default_rng(seed)
        return {
            name: parameter(rng.normal(size=shape), dtype)
            for name, shape in (shapes or SHAPES).items()
        }

    return make


@pytest.fixture
def set_gradients():
    def put(parameters, seed, scale=1.0):
        rng = np.random.default_rng(seed)
        for tensor in parameters.values():
            value = (scale * rng.normal(size=tensor.shape)).astype("float32")
            tensor.grad = paddle.to_tensor(value).astype(tensor.dtype)

    return put


@pytest.fixture
def make_groups():
    def make(parameters, **arguments):
        return build_param_groups(parameters.items(), **arguments)

    return make
