"""What a model may tell the engine beside its outputs; each question has an answer for any model.

==================================== ======================================================
``checkpoint_state_dict()``          weights that belong into a checkpoint (default: all)
``external_weights()``               weights in files of their own, by the argument of the
                                     model that names the file (default: none)
``check_weights()``                  raises ConfigError if weights were never put in place
``evaluation_settings()``            what besides the weights decides the outputs
``evaluation_choices()``             arguments, by name, that change the outputs and leave no
                                     trace in the weights; another one is warned of
``recompute_every``                  of the class: it runs its blocks through
                                     :func:`passl.layers.recompute.run_blocks`
==================================== ======================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from passl.config import Config
from passl.errors import CheckpointError, ConfigError
from passl.layers.recompute import can_recompute

__all__ = [
    "check_external",
    "check_weights",
    "checkpoint_weights",
    "evaluation_choices",
    "evaluation_settings",
    "model_record",
    "set_recompute",
    "without_external_files",
]


def checkpoint_weights(model: Any) -> dict[str, Any]:
    """The weights that a checkpoint holds."""
    answer = getattr(model, "checkpoint_state_dict", model.state_dict)
    return dict(answer())


def check_weights(model: Any) -> None:
    """Refuse a model that lacks weights it cannot learn.

    Raises:
        ConfigError: saying which, and how to give them.
    """
    if hasattr(model, "check_weights"):
        model.check_weights()


def evaluation_settings(model: Any) -> dict[str, float]:
    """What besides the weights decides the outputs now."""
    return dict(model.evaluation_settings()) if hasattr(model, "evaluation_settings") else {}


def evaluation_choices(model: Any) -> dict[str, str]:
    """Arguments of the model that decide the outputs and that no weight shows."""
    return dict(model.evaluation_choices()) if hasattr(model, "evaluation_choices") else {}


def set_recompute(model: Any, config: Config) -> None:
    """Let the model recompute activations as ``Global.recompute`` asks.

    Raises:
        ConfigError: the model cannot.
    """
    every = int(config.Global.recompute)
    if not every:
        return
    if not can_recompute(model):
        raise ConfigError(
            f"{config.origin('Global.recompute')}: Global.recompute: {config.Model['name']} cannot "
            "recompute its activations, as it does not run its blocks through "
            "passl.layers.recompute.run_blocks; write false, or save memory with a smaller "
            "Global.micro_batch_size"
        )
    model.recompute_every = every


def model_record(model: Any) -> dict[str, Any]:
    """What a checkpoint remembers of the model beside its weights."""
    external = model.external_weights() if hasattr(model, "external_weights") else {}
    return {
        "external": external,
        "evaluation_settings": evaluation_settings(model),
        "evaluation_choices": evaluation_choices(model),
    }


def check_external(model: Any, record: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on with other weights in a file of their own than the checkpoint was made with.

    Args:
        model: built, its files read.
        record: the checkpoint's ``state.json``.
        folder: of the checkpoint.

    Raises:
        CheckpointError: a file holds other weights.
    """
    external = model_record(model)["external"]
    for key, before in record.get("external", {}).items():
        now = external.get(key, {"sha256": None})
        if before["sha256"] in (None, now["sha256"]):
            continue
        begin = f"{folder} was trained with the weights of {before['path']}"
        if now["sha256"] is None:
            raise CheckpointError(
                f"{begin} and does not hold them; give their place with -o Model.{key}=PATH"
            )
        raise CheckpointError(
            f"{begin} (SHA-256 of their values: {before['sha256'][:12]}...), and {now['path']} "
            f"holds others ({now['sha256'][:12]}...); give the file it was trained with"
        )


def without_external_files(
    arguments: Mapping[str, Any], record: Mapping[str, Any], weights: str
) -> tuple[dict[str, Any], list[str]]:
    """Arguments to build a model for evaluation where files named by them are not at hand.

    Weights that hold everything need no other file: an argument ``*_path`` that leads nowhere is
    dropped.  The sizes that the checkpoint remembers take the place of such an argument, and of
    one that is null.

    Args:
        arguments: of the model.
        record: the ``state.json`` beside the weights; empty if there is none.
        weights: what messages call them.

    Returns:
        the arguments, and a sentence for the log for each file.

    Raises:
        CheckpointError: the checkpoint relies on the file that is missing.
    """
    kept, notes = dict(arguments), []
    remembered = record.get("external", {})
    for key, before in remembered.items():
        if arguments.get(key) is None and before.get("sha256") is None:
            kept.update(before.get("arguments", {}))
    for key, value in arguments.items():
        if not key.endswith("_path") or value is None or Path(value).expanduser().exists():
            continue
        before = remembered.get(key, {})
        if before.get("sha256") is not None:
            raise CheckpointError(
                f"{weights} does not hold the weights that Model.{key} names, and {value} does not "
                f"exist; they were read from {before['path']}. Give the place with "
                f"-o Model.{key}=PATH"
            )
        kept[key] = None
        kept.update(before.get("arguments", {}))
        notes.append(f"Model.{key}: {value} does not exist; {weights} must hold its weights")
    return kept, notes
