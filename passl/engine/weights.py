"""Which weights a command means that uses a trained model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passl.config import Config
from passl.engine.model_facts import evaluation_choices, evaluation_settings
from passl.errors import CheckpointError

__all__ = ["differing_settings", "weights_to_evaluate"]


def weights_to_evaluate(config: Config, run_dir: Path) -> str:
    """What the command line names, else what the run itself trained.

    A ``pretrained_model`` in the file is where training began, so it comes last.

    Args:
        config: of the run.
        run_dir: folder of the run; it need not exist.

    Raises:
        CheckpointError: there are no weights.
    """
    settings = config.Global
    pretrained = settings.pretrained_model
    if pretrained is not None and config.origin("Global.pretrained_model").startswith("-o"):
        return pretrained
    if settings.checkpoint not in (None, "auto"):
        return str(settings.checkpoint)
    for link in ("best", "latest"):
        if (run_dir / link).exists():
            return str(run_dir / link)
    if pretrained is None:
        raise CheckpointError(
            f"there are no weights yet: {run_dir} holds no checkpoint; name other weights with -o "
            "Global.pretrained_model=PATH, or train first"
        )
    return pretrained


def differing_settings(model: Any, record: Mapping[str, Any]) -> list[str]:
    """A sentence for each setting that was another one when the weights were saved."""
    chosen = record.get("evaluation_choices", {})
    choices = [
        f"the weights were trained with {name}: {chosen[name]}, and are evaluated with {value}, "
        f"which computes something else; -o Model.{name}={chosen[name]} evaluates them as trained"
        for name, value in evaluation_choices(model).items()
        if chosen.get(name, value) != value
    ]
    before = record.get("evaluation_settings", {})
    return choices + [
        f"the weights were saved while {name} was {before[name]:g}; to evaluate them "
        f"as they were trained, use -o Model.{name}={before[name]:g}"
        for name, value in evaluation_settings(model).items()
        if before.get(name, value) != value
    ]
