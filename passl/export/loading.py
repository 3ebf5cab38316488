"""``passl.load_model``: whatever holds a trained model -> something that predicts."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional, Union

from passl.config import Config, load_config
from passl.errors import CheckpointError, ConfigError
from passl.export.card import CARD_NAME, ModelCard
from passl.export.live import (
    build_dataset,
    class_names,
    live_model,
    load_run_config,
    read_labels,
)
from passl.export.plan import plan_export
from passl.export.predictor import ModelFacts, Predictor, default_workers
from passl.export.preprocess import Preprocessor, eval_steps
from passl.export.sessions import LiveSession, open_session

__all__ = ["load_config_model", "load_model"]

#: Files of exported models.
_EXPORTED = (".onnx", ".pdmodel", ".pdiparams")


def load_model(
    path: Union[str, os.PathLike[str]],
    *,
    config: Union[str, os.PathLike[str], Config, None] = None,
    backend: Optional[str] = None,
    device: str = "cpu",
    labels: Optional[str] = None,
    batch_size: int = 32,
    num_workers: Optional[int] = None,
) -> Predictor:
    """A predictor from an exported folder, a run's folder, a checkpoint, or a file of weights.

    Args:
        path: a folder that ``passl-export`` wrote; a run's folder (``best`` is taken, else
            ``latest``); a checkpoint in one; or, with ``config``, any path to weights that
            ``Global.pretrained_model`` takes.
        config: a config, its file or the name of one that ships, where the weights are not beside
            the run's own.
        backend: of an exported model: ``onnx`` or ``paddle``; None takes what is installed.
        device: ``cpu`` or ``gpu``.
        labels: file of class names, one a line, in place of the known ones.
        batch_size: pictures at a time.
        num_workers: threads that read and transform pictures; None: up to four.

    Raises:
        CheckpointError: nothing there can be used; says what was looked for.
        ConfigError: the config cannot be used.
    """
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "num_workers": default_workers() if num_workers is None else num_workers,
    }
    folder = Path(os.path.expanduser(path))
    if config is None and (folder / CARD_NAME).is_file():
        return _exported(folder, backend, device, labels, settings)
    if folder.suffix in _EXPORTED and folder.is_file():
        raise CheckpointError(_one_file(folder))
    if backend is not None:
        raise CheckpointError(
            f"{folder}: is no exported model (it has no {CARD_NAME}), so it cannot be run by "
            f"{backend}; `passl-export` makes one"
        )
    if config is None:
        loaded, weights = load_run_config(folder)
    else:
        loaded = config if isinstance(config, Config) else load_config(os.fspath(config))
        weights = str(folder)
    return load_config_model(loaded, weights, device=device, labels=labels, **settings)


def _one_file(path: Path) -> str:
    if (path.parent / CARD_NAME).is_file():
        return f"{path}: is one file of an exported model; name its folder: {path.parent}"
    return (
        f"{path}: is an exported model without {CARD_NAME} beside it, which says how a picture "
        "becomes an input and what the classes are called; `passl-export` writes both"
    )


def load_config_model(
    config: Config,
    weights: Optional[str] = None,
    *,
    device: str = "cpu",
    labels: Optional[str] = None,
    **settings: Any,
) -> Predictor:
    """A predictor of the model that a config describes.

    Args:
        config: checked.
        weights: where they are; None: as ``passl-eval`` chooses.
        device, labels: see :func:`load_model`.
        **settings: of :class:`Predictor`.
    """
    steps = eval_steps(config)
    if steps is None:
        raise ConfigError(
            f"{config.source_path}: DataLoader.Eval: missing; its transforms say how a picture "
            "becomes an input of the model"
        )
    plan = plan_export(_without_export(config))
    live = live_model(config, weights, device=device)
    dataset = None if labels or live.classes else build_dataset(config)
    names = class_names(config, dataset, labels, live.classes)
    facts = ModelFacts(
        config.Model["name"],
        plan.graph_shape[1:],
        None,
        plan.meaning,
        names,
        str(config.source_path),
        live.notes,
    )
    return Predictor(
        LiveSession(live.layer), Preprocessor(steps, plan.channels), facts, **settings
    )


def _exported(
    folder: Path,
    backend: Optional[str],
    device: str,
    labels: Optional[str],
    settings: dict[str, Any],
) -> Predictor:
    card = ModelCard.read(folder)
    path = str(folder / CARD_NAME)
    if card.preprocess is None:
        raise CheckpointError(
            f"{path}: preprocess is null: the model was exported from a config without "
            "DataLoader.Eval, so nobody says how a picture becomes an input; write the transforms "
            "there, in the words of a config"
        )
    names = read_labels(labels, int(card.output["shape"][-1])) if labels else card.labels
    facts = ModelFacts(
        str(card.model.get("name")),
        tuple(int(side) for side in card.input["shape"][1:]),
        card.batch_size,
        str(card.output["meaning"]),
        names,
        path,
    )
    preprocessor = Preprocessor(card.preprocess, card.channels)
    session = open_session(folder, card, backend, device=device)
    return Predictor(session, preprocessor, facts, **settings)


def _without_export(config: Config) -> Config:
    """The config with the model's own input size: what is exported does not concern it."""
    section = config.Export
    if section is None:
        return config
    return replace(config, Export=replace(section, preprocess=False, softmax=False))
