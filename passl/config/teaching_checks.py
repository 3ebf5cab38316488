"""Checks of ``Distillation`` that concern more than one value."""

from __future__ import annotations

from pathlib import PurePath
from typing import TYPE_CHECKING, Callable

from passl.config.suggest import did_you_mean
from passl.registry import MODELS

if TYPE_CHECKING:
    from passl.config.check import Checker
    from passl.config.config import Config
    from passl.config.teaching import TeacherSection

__all__ = ["check_distillation", "check_quantization"]

#: Suffixes of the file that names an exported model.
_EXPORTED = frozenset({".onnx", ".json", ".pdmodel"})
_TEACHER = "Distillation.teacher"


def check_distillation(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """A teacher is there, is one that can be built, and its loss is one that exists."""
    section = config.Distillation
    if section is None or not sound("Distillation"):
        return
    if section.form == "myrtle" and section.type == "hard":
        checker.report(
            "Distillation.type",
            "the form myrtle has no hard loss; write type: soft, or form: deit",
        )
    if section.type == "hard" and section.temperature != 1.0:
        checker.report(
            "Distillation.temperature",
            f"{section.temperature:g} has no effect with type: hard, which looks at the likeliest "
            "class only; leave it out, or write type: soft",
        )
    if section.type != "none" and section.teacher is None:
        checker.report(
            _TEACHER, "missing; distillation needs a teacher (or write Distillation.type: none)"
        )
    if section.teacher is not None:
        _check_teacher(section.teacher, config, checker)


def check_quantization(config: Config, checker: Checker, sound: Callable[..., bool]) -> None:
    """Whole numbers are rounded in one way only."""
    section = config.Quantization
    if section is None or not sound("Quantization"):
        return
    if section.format == "int8" and section.rounding != "ieee":
        checker.report("Quantization.rounding", "int8 knows no other rounding; leave it out")


def _check_teacher(teacher: TeacherSection, config: Config, checker: Checker) -> None:
    transform = teacher.transform
    for given, other in (("mean", "std"), ("std", "mean")):
        if getattr(transform, given) is not None and getattr(transform, other) is None:
            checker.report(
                f"{_TEACHER}.transform.{other}", f"missing beside {given}; give both or neither"
            )
    if PurePath(teacher.name).suffix in _EXPORTED:
        if teacher.pretrained is not None or teacher.arguments:
            key = "pretrained" if teacher.pretrained is not None else "arguments"
            checker.report(
                f"{_TEACHER}.{key}",
                f"{teacher.name} is an exported model and holds what it needs; remove the key",
            )
        return
    spec = MODELS.spec(teacher.name)
    if spec is None:
        if config.Global.imports:
            return  # it may be registered in a way that only running the module shows
        checker.report(
            f"{_TEACHER}.name",
            f"no model is called {teacher.name!r}{did_you_mean(teacher.name, MODELS.all_names())}; "
            "an exported one is named by its .onnx, .json or .pdmodel file",
        )
        return
    if teacher.pretrained is None:
        checker.report(
            f"{_TEACHER}.pretrained",
            "missing; a teacher without trained weights teaches noise",
        )
    for key, value in teacher.arguments.items():
        param, path = spec.param(key), f"{_TEACHER}.arguments.{key}"
        if param is None or param.runtime:
            known = [item.name for item in spec.configurable]
            checker.report(path, f"{spec.name} has no argument {key!r}{did_you_mean(key, known)}")
            continue
        for problem in param.type.check(value)[1]:
            checker.report(path, problem.message)
