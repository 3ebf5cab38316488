"""Which device a run computes on, and Paddle's flags for it."""

from __future__ import annotations

import paddle

from passl.config import Config
from passl.errors import ConfigError

__all__ = ["choose_device", "use_device"]


def use_device(config: Config) -> str:
    """Set ``Global.flags`` and make Paddle compute on ``Global.device``; returns the device.

    Raises:
        ConfigError: Paddle refuses a flag, or the device is not there.
    """
    device = choose_device(config.Global.device, config.origin("Global.device"))
    if config.Global.flags:
        try:
            paddle.set_flags(dict(config.Global.flags))
        except (ValueError, TypeError) as error:
            where = config.origin("Global.flags")
            raise ConfigError(
                f"{where}: Global.flags: Paddle refuses these flags: {error}"
            ) from error
    paddle.set_device(device)
    return device


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
