"""``FP16`` of a config: what the device can do of it, and half weights at level O2."""

from __future__ import annotations

import importlib
from typing import Any, Optional

import paddle

from passl.config import Config
from passl.config.suggest import did_you_mean
from passl.engine.model_facts import checkpoint_weights
from passl.engine.reports.reporting import Reporter
from passl.engine.train_parts import TrainParts
from passl.errors import ConfigError
from passl.precision.amp import LossScaler, Precision
from passl.precision.half_weights import HalfWeights, cast_weights

__all__ = ["build_precision", "halve_for_evaluation", "halve_for_training", "why_not"]

#: The oldest GPUs whose arithmetic Paddle uses: compute capability 7.0 and 8.0.
_LEAST_CAPABILITY = {"float16": 7, "bfloat16": 8}


#: Names of operators that no layer runs any more -> what Paddle calls the operation in its lists,
#: where a name that is not met does nothing.
_RUNS_AS = {
    "matmul": "matmul_v2", "mul": "matmul_v2", "sum": "reduce_sum",
    "transpose": "transpose2", "expand": "expand_v2",
    "lookup_table": "lookup_table_v2", "cross_entropy": "softmax_with_cross_entropy",
}  # fmt: skip


def why_not(device: str, dtype: str) -> Optional[str]:
    """Why Paddle cannot compute in ``dtype`` on ``device``; None if it can."""
    if device == "cpu":
        return "does not exist on a CPU"
    if device == "gpu":
        capability = paddle.device.cuda.get_device_capability()[0]
        if capability < _LEAST_CAPABILITY[dtype] and not paddle.is_compiled_with_rocm():
            return (
                f"needs a GPU of compute capability {_LEAST_CAPABILITY[dtype]}.0 or higher, and "
                f"{paddle.device.cuda.get_device_name()} has {capability}.x"
            )
    supported = getattr(paddle.amp, f"is_{dtype}_supported", None)
    if supported is not None and not supported():
        return f"is not supported by Paddle {paddle.__version__} on this {device}"
    return None


def build_precision(config: Config, reporter: Reporter) -> Precision:
    """Casts and loss scale; fp32 where there is nothing else, said or refused (``FP16.strict``).

    Raises:
        ConfigError: the device cannot do what is asked, and the config is strict; or a list names
            an operation that Paddle does not have.
    """
    settings = config.FP16
    level = settings.level
    problem = why_not(reporter.device, settings.dtype) if level != "O0" else None
    if problem is not None:
        if settings.strict:
            raise ConfigError(
                f"{config.origin('FP16.level')}: FP16.level: {level} {settings.dtype} {problem}; "
                "use -o FP16.level=O0, or FP16.strict=false to run in fp32 instead"
            )
        reporter.log(f"FP16 {level} {settings.dtype} {problem}: running in fp32")
        level = "O0"
    _check_operations(config)
    scaler = LossScaler(**vars(settings.GradScaler)) if settings.dtype == "float16" else None
    return Precision(
        level,
        settings.dtype,
        scaler,
        settings.fp16_custom_white_list,
        settings.fp16_custom_black_list,
    )


def _check_operations(config: Config) -> None:
    """Paddle takes any text in its lists, and a mistyped operation is then cast as before."""
    lists = {
        key: getattr(config.FP16, key) or []
        for key in ("fp16_custom_white_list", "fp16_custom_black_list")
    }
    known = _operations() if any(lists.values()) else set()
    for key, names in lists.items():
        for name in names:
            if name in _RUNS_AS:
                raise ConfigError(
                    f"{config.origin(f'FP16.{key}')}: FP16.{key}: no layer runs an operation "
                    f"{name!r}, and the entry would do nothing; write {_RUNS_AS[name]}"
                )
            if name not in known:
                raise ConfigError(
                    f"{config.origin(f'FP16.{key}')}: FP16.{key}: Paddle {paddle.__version__} has "
                    f"no operation {name!r}{did_you_mean(name, sorted(known))}"
                )
    for name in lists["fp16_custom_white_list"]:
        if name in lists["fp16_custom_black_list"]:
            raise ConfigError(
                f"{config.origin('FP16.fp16_custom_white_list')}: FP16.fp16_custom_white_list: "
                f"{name!r} is in fp16_custom_black_list as well; keep one"
            )


def _operations() -> set[str]:
    """Names of operators that Paddle's lists may hold, as ``matmul_v2`` or ``reduce_sum``."""
    lists = importlib.import_module("paddle.amp.amp_lists")
    named = [
        each for table in (lists.white_list(), lists.black_list()) for each in table.values()
    ]
    return {name for levels in named for names in levels.values() for name in names}.union(
        paddle.base.core.get_all_op_names()
    )


def halve_for_training(parts: TrainParts, config: Config, reporter: Reporter) -> None:
    """At O2 put the weights into half precision; optimizer and average go on with the masters.

    Everything is loaded by now, pretrained or resumed, in float32: the masters are those numbers,
    so a run continues bit for bit, also where it was saved at another level.

    Raises:
        ConfigError: the optimizer is of a kind that cannot use masters.
    """
    if not _is_wanted(parts.precision, config, reporter):
        return
    if not hasattr(parts.optimizer, "use_masters"):
        raise ConfigError(
            f"{config.origin('FP16.level')}: FP16.level: at O2 the weights are half and the "
            f"optimizer updates float32 masters, which {type(parts.optimizer).__name__} cannot, as "
            "it is no subclass of passl.optim.base.Optimizer; use -o FP16.level=O1"
        )
    saved = checkpoint_weights(parts.model)
    half = HalfWeights(parts.model, parts.precision.dtype, saved)
    parts.half = half
    parts.optimizer.use_masters(half.masters)
    if parts.ema is not None:
        parts.ema.follow(parts.optimizer.named_weights)
    reporter.log(_describe(parts.model, half))


def halve_for_evaluation(model: Any, precision: Precision, config: Config, log: Reporter) -> None:
    """At O2 compute with the weights that training computes with."""
    if _is_wanted(precision, config, log):
        cast_weights(model, precision.dtype)


def _is_wanted(precision: Precision, config: Config, reporter: Reporter) -> bool:
    if precision.level != "O2":
        return False
    if config.Quantization is not None and config.Quantization.format != "FP32":
        reporter.log("FP16 O2: weights stay float32, as Quantization rounds them by itself")
        return False
    return True


def _describe(model: Any, half: HalfWeights) -> str:
    sizes = {"half": 0, "fp32": 0}
    for _, parameter in model.named_parameters():
        kind = "fp32" if parameter.dtype == paddle.float32 else "half"
        sizes[kind] += int(parameter.size)
    return (
        f"FP16 O2: {sizes['half']:,} weights are {half.dtype} on the device, "
        f"{sum(int(each.size) for each in half.masters.values()):,} of them with a float32 master; "
        f"{sizes['fp32']:,} (normalisations and the like) are float32"
    )
