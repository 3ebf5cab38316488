"""Where a run computes, and the flags of Paddle that it sets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import paddle

from passl.errors import ConfigError

__all__ = ["choose_device", "set_flags"]

#: Flags that only a build for GPUs knows; PASSL's configs name those of cuDNN.
_OF_GPUS = re.compile(r"cudnn|cublas|cuda|nccl|gpu", re.IGNORECASE)


def set_flags(flags: Mapping[str, Any], where: str) -> list[str]:
    """Set Paddle's ``FLAGS_*``; those of GPUs are left out by a build that has none, and returned.

    Args:
        flags: by name.
        where: their origin, for the message.

    Raises:
        ConfigError: Paddle does not know one, or not with such a value.
    """
    is_for_gpus = paddle.device.is_compiled_with_cuda()
    left_out = [] if is_for_gpus else [name for name in flags if _OF_GPUS.search(name)]
    try:
        paddle.set_flags({name: flags[name] for name in flags if name not in left_out})
    except (ValueError, TypeError) as error:
        raise ConfigError(
            f"{where}: Global.flags: Paddle refuses these flags: {error} Correct or remove them"
        ) from error
    return left_out


def choose_device(wanted: str, where: str) -> str:
    """The device to compute on.

    Args:
        wanted: ``auto``, ``cpu``, ``gpu``, ``xpu`` or ``npu``.
        where: origin of the wish, for the message.

    Raises:
        ConfigError: the device is not there.
    """
    has_gpu = paddle.device.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    if wanted == "auto":
        return "gpu" if has_gpu else "cpu"
    if wanted == "gpu" and not has_gpu:
        built = paddle.device.is_compiled_with_cuda()
        why = "no GPU is visible" if built else "this Paddle is built for CPUs only"
        raise ConfigError(
            f"{where}: Global.device: a GPU is asked for, but {why}; use -o Global.device=auto to "
            "take what there is, or install paddlepaddle-gpu"
        )
    if wanted == "xpu" and not paddle.device.is_compiled_with_xpu():
        raise ConfigError(
            f"{where}: Global.device: this Paddle is not built for XPUs; use auto or cpu"
        )
    if wanted == "npu" and "npu" not in paddle.device.get_all_custom_device_type():
        raise ConfigError(f"{where}: Global.device: this Paddle knows no NPU; use auto or cpu")
    return wanted
