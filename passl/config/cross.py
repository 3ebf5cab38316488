"""Checks that concern more than one value: what a mode needs, and what contradicts what."""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Callable, Literal, Optional

from passl.config.check import Checker
from passl.config.config import Config
from passl.config.durations import parse_duration
from passl.config.loss_checks import check_losses
from passl.config.schema import LoaderSection
from passl.config.teaching_checks import check_distillation, check_quantization
from passl.config.tree import find, is_null
from passl.errors import ConfigError

__all__ = ["Mode", "check_together", "require"]

Mode = Literal["train", "eval"]

#: Sections that a mode cannot do without, and what they are for.
_NEEDS: dict[str, tuple[tuple[str, str], ...]] = {
    "train": (
        ("Loss.Train", "training needs a loss"),
        ("LRScheduler", "training needs a learning rate"),
        ("Optimizer", "training needs an optimizer"),
        ("DataLoader.Train", "training needs data"),
    ),
    "eval": (("DataLoader.Eval", "evaluation needs data"),),
}

Report = Callable[[str, str], None]


def require(config: Config, mode: Mode) -> None:
    """Refuse a config that lacks what ``mode`` needs.

    Raises:
        ConfigError: every missing part, one line each.
    """
    problems: list[str] = []

    def report(path: str, message: str) -> None:
        origin = config.origins.get(path, str(config.source_path))
        problems.append(f"{origin}: {path}: {message}")

    _check_mode(config, mode, report, lambda *_: True)
    if problems:
        raise ConfigError(problems)


def check_together(config: Config, checker: Checker, mode: Optional[Mode]) -> None:
    """Report to ``checker`` what does not go together; values that failed before are left alone."""

    def sound(*paths: str) -> bool:
        """No problem at, above or (for a section) below these paths."""
        return not any(
            failed == path or failed.startswith(path + ".") or path.startswith(failed + ".")
            for failed in checker.failed
            for path in paths
        )

    if mode is not None:
        _check_mode(config, mode, checker.report, sound)
    _check_batches(config, checker, sound)
    _check_compilation(config, checker, sound)
    _check_precision(config, checker, sound)
    _check_patterns(config, checker, sound)
    _check_sizes(config, checker, sound)
    _check_classes(config, checker, sound)
    _check_max_time(config, checker, sound)
    _check_samples(config, checker, sound)
    check_losses(config, checker, sound)
    check_distillation(config, checker, sound)
    check_quantization(config, checker, sound)
    _check_sharding(config, checker, sound)


def _check_mode(config: Config, mode: Mode, report: Report, sound: Callable[..., bool]) -> None:
    for path, reason in _NEEDS[mode]:
        value: Any = config
        for key in path.split("."):
            value = getattr(value, key)
        if not value and sound(path):
            report(path, f"missing; {reason}")
    if (
        mode == "eval"
        and not config.Metric.Eval
        and not config.Loss.Eval
        and sound("Metric", "Loss")
    ):
        report("Metric.Eval", "missing; evaluation needs a metric (or Loss.Eval)")
    if mode == "train":
        _check_training(config, report, sound)
    _check_strict(config, report, sound)


def _check_strict(config: Config, report: Report, sound: Callable[..., bool]) -> None:
    """Precision that no CPU has; what a GPU can do is known where it is."""
    low = config.FP16
    if (
        low.strict
        and low.level != "O0"
        and config.Global.device == "cpu"
        and sound("FP16", "Global.device")
    ):
        report(
            "FP16.level",
            f"{low.level} {low.dtype} does not exist on a CPU; use -o "
            "FP16.level=O0, or FP16.strict=false to run in fp32 instead",
        )


def _check_training(config: Config, report: Report, sound: Callable[..., bool]) -> None:
    run = config.Global
    if (
        run.epochs is None
        and run.max_train_step is None
        and sound("Global.epochs", "Global.max_train_step")
    ):
        report("Global.epochs", "missing; give epochs or max_train_step")
    if (
        run.finetune
        and run.pretrained_model is None
        and sound("Global.pretrained_model", "Global.finetune")
    ):
        report(
            "Global.finetune",
            "is true, but Global.pretrained_model is null; give the weights to start from",
        )
    if (
        run.finetune_head == "new"
        and run.pretrained_model is not None
        and not run.finetune
        and sound("Global.finetune", "Global.finetune_head")
    ):
        report(
            "Global.finetune_head",
            "'new' has no effect without Global.finetune: true, which adapts weights to other "
            "classes; write that as well, or leave this out",
        )
    train = config.DataLoader.Train
    if (
        train is not None
        and run.global_batch_size is None
        and train.sampler.batch_size is None
        and sound("Global.global_batch_size", "DataLoader.Train.sampler.batch_size")
    ):
        report(
            "Global.global_batch_size",
            "missing; give it (images of all processes) or DataLoader.Train.sampler.batch_size "
            "(of one process)",
        )
    if not run.eval_during_train:
        return
    if config.DataLoader.Eval is None and sound("DataLoader"):
        report(
            "Global.eval_during_train",
            "is true, but there is no DataLoader.Eval; add it, or write false",
        )
    elif not config.Metric.Eval and sound("Metric.Eval"):
        report(
            "Global.eval_during_train",
            "is true, but there is no Metric.Eval; add it, or write false",
        )


def _check_batches(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    run, train = config.Global, config.DataLoader.Train
    total, accum = run.global_batch_size, run.accum_steps
    batch = train.sampler.batch_size if train is not None else None
    per_process = "DataLoader.Train.sampler.batch_size"
    if not sound("Global.global_batch_size", "Global.accum_steps", per_process):
        return
    if total is not None and batch is not None and total % batch:
        checker.report(
            "Global.global_batch_size",
            f"{total} is no multiple of {per_process}={batch} "
            f"({checker.origins.get(per_process)}), "
            "so no number of processes fits; keep one of them",
        )
    images, what = (
        (batch, "images of one process") if batch is not None else (total, "images of a step")
    )
    if images is not None and accum is not None and images % accum:
        checker.report("Global.accum_steps", f"{accum} does not divide the {images} {what}")


def _check_compilation(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """What a compiled model cannot do, or was never seen to do."""
    if not (sound("Global.to_static") and config.Global.to_static):
        return
    distillation, quantization = config.Distillation, config.Quantization
    for path, is_on in (
        ("Global.recompute", bool(config.Global.recompute)),
        ("Distillation", distillation is not None and distillation.type != "none"),
        ("Quantization", quantization is not None and quantization.format != "FP32"),
    ):
        if sound(path) and is_on:
            checker.report("Global.to_static", f"does not go with {path}; write false for one")


def _check_precision(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    written = {
        field.name: find(checker.tree, ["FP16", field.name])
        for field in dataclasses.fields(config.FP16)
    }
    beside = [key for key, node in written.items() if node is not None and not is_null(node)]
    if written["level"] is None and beside and sound("FP16"):
        checker.report(
            "FP16.level",
            f"missing beside {beside[0]}; write O1 or O2 (O2 was PASSL's default), or O0 for "
            "float32",
            checker.origins.get("FP16"),
        )
    grad_scaler = config.FP16.GradScaler
    if sound("FP16.GradScaler") and grad_scaler.init_loss_scaling > grad_scaler.max_loss_scaling:
        checker.report(
            "FP16.GradScaler.init_loss_scaling",
            f"{grad_scaler.init_loss_scaling:g} is above "
            f"max_loss_scaling={grad_scaler.max_loss_scaling:g}",
        )


def _check_patterns(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    optimizer = config.Optimizer
    patterns = {
        f"Optimizer.param_groups.{position}.pattern": rule.pattern
        for position, rule in enumerate(optimizer.param_groups if optimizer is not None else [])
        if rule is not None and isinstance(rule.pattern, str)  # what is missing is told of
    }
    lists = {"Global.allow_missing": config.Global.allow_missing}
    if optimizer is not None:
        lists["Optimizer.freeze"] = optimizer.freeze
    for path, texts in lists.items():
        if sound(path):
            patterns.update({f"{path}.{position}": text for position, text in enumerate(texts)})
    for path, pattern in patterns.items():
        if not sound(path):
            continue
        try:
            re.compile(pattern)
        except re.error as error:
            checker.report(path, f"{pattern!r} is not a regular expression: {error}")


def _check_max_time(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    if config.Global.max_time is not None and sound("Global.max_time"):
        try:
            parse_duration(config.Global.max_time)
        except ValueError as error:
            checker.report("Global.max_time", str(error))


#: Transforms after which an image has exactly the size they are given.
_SIZING = frozenset(
    {"RandCropImage", "CenterCropImage", "ResizeImage", "RandomResizedCrop", "CenterCrop"}
)


def _check_sizes(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """The images that the transforms make are those that the model takes."""
    wanted = config.Model.get("img_size") if config.Model else None
    if not isinstance(wanted, int) or not sound("Model"):
        return
    for mode in ("Train", "Eval"):
        section: Optional[LoaderSection] = getattr(config.DataLoader, mode)
        path = f"DataLoader.{mode}.dataset"
        if section is None or not section.dataset or not sound(path):
            continue
        steps = section.dataset.get("transform_ops") or ()
        sized = [
            (position, step)
            for position, step in enumerate(steps)
            if step.get("name") in _SIZING and isinstance(step.get("size"), int)
        ]
        if sized and sized[-1][1]["size"] != wanted:
            position, step = sized[-1]
            found = f"{path}.transform_ops.{position}.size"
            origin = checker.origins.get("Model.img_size") or checker.origins.get("Model.name")
            checker.report(
                found,
                f"{step['name']} makes images of {step['size']}, but Model.img_size is {wanted} "
                f"({origin})",
            )


def _check_classes(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """A data set that is told its number of classes is told the model's."""
    classes = config.Model.get("class_num") if config.Model else None
    for mode in ("Train", "Eval"):
        section: Optional[LoaderSection] = getattr(config.DataLoader, mode)
        path = f"DataLoader.{mode}.dataset.class_num"
        told = section.dataset.get("class_num") if section is not None and section.dataset else None
        if classes is not None and told is not None and told != classes and sound("Model", path):
            origin = checker.origins.get("Model.class_num") or checker.origins.get("Model.name")
            checker.report(path, f"{told} contradicts Model.class_num={classes} ({origin})")


def _check_samples(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """Evaluation leaves nothing out; more than one sample is a whole number of them."""
    evaluation = config.DataLoader.Eval
    drop_last = "DataLoader.Eval.sampler.drop_last"
    if evaluation is not None and sound(drop_last) and evaluation.sampler.drop_last:
        checker.report(
            drop_last,
            "true leaves samples out, which ones depends on the batch and the processes, and an "
            "accuracy over other images is another number; write false (nothing is padded)",
        )
    for mode in ("Train", "Eval"):
        section: Optional[LoaderSection] = getattr(config.DataLoader, mode)
        path = f"DataLoader.{mode}.loader"
        if section is None or not sound(path):
            continue
        if mode == "Eval" and section.loader.bad_sample == "skip":
            checker.report(
                f"{path}.bad_sample",
                "'skip' is for training only: an accuracy over other images is another number; "
                "write error, and repair or unlist what `passl-check --data` finds",
            )
        limit = section.loader.max_bad_samples
        if limit is not None and limit > 1 and limit != int(limit):
            checker.report(
                f"{path}.max_bad_samples",
                f"{limit:g} is neither a fraction below 1 nor a whole number of samples",
            )
        elif limit is not None and section.loader.bad_sample == "error":
            checker.report(
                f"{path}.max_bad_samples",
                "has no effect with bad_sample: error, which ends the run at the first one; "
                + ("leave it out" if mode == "Eval" else "leave it out, or write bad_sample: skip"),
            )


def _check_sharding(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """Only the optimizer's state can be kept in parts."""
    sharding, path = config.DistributedStrategy.sharding, "DistributedStrategy.sharding.stage"
    if sharding is not None and sound(path) and sharding.stage > 1:
        checker.report(
            path,
            f"stage {sharding.stage} (gradients, weights in parts) is not available: Paddle's own "
            "group sharding works with Paddle's optimizers only; write stage: 1 (the optimizer's "
            "state in parts, on any device), and Global.recompute: true for more memory",
        )
