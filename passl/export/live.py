"""The trained model of a config, in this process, without a run's folder and logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.resolve import resolve_checkpoint
from passl.checkpoint.sources import open_source
from passl.config import Config, load_config
from passl.data.class_names import known_names
from passl.engine.trained import build_trained, config_of_run, newest_weights
from passl.errors import CheckpointError, DataError
from passl.registry import DATASETS, import_user_modules

__all__ = [
    "LiveModel",
    "build_dataset",
    "class_names",
    "live_model",
    "load_run_config",
    "read_labels",
]


@dataclass(frozen=True)
class LiveModel:
    """A model with its weights.

    Attributes:
        layer: in evaluation mode.
        weights: the file they are from.
        path: the same as it was named: a checkpoint's folder, for one.
        sha256: of that file, or of the list of files in a folder.
        report: what became of its tensors, and what is odd.
        notes: what is odd alone.
        classes: names of those it was trained on, by label; None: unknown.
    """

    layer: Any
    weights: Path
    path: str
    sha256: str
    report: str
    notes: tuple[str, ...]
    classes: Optional[list[str]] = None


def load_run_config(path: Path) -> tuple[Config, str]:
    """The config of a run and the weights to take.

    Args:
        path: a run's folder, or a checkpoint in it.

    Raises:
        CheckpointError: it is neither, or holds no weights.
    """
    found = config_of_run(path)
    if found is None:
        resolve_checkpoint(path)  # a sentence of its own where nothing is there
        raise CheckpointError(
            f"{path}: weights without a config.yaml in the folders above; name the config: "
            f"passl-infer -c CONFIG -o Global.pretrained_model={path}"
        )
    file, named = found
    config = load_config(file)
    if named is not None:
        return config, str(named)
    weights = newest_weights(path)
    if weights is None:
        raise CheckpointError(f"{path}: holds no checkpoint yet (looked for best and latest)")
    return config, weights


def live_model(config: Config, weights: Optional[str] = None, *, device: str = "cpu") -> LiveModel:
    """Build the model of ``config`` with its weights.

    Args:
        config: checked.
        weights: where they are; None: as ``passl-eval`` chooses.
        device: ``cpu`` or ``gpu``.

    Raises:
        CheckpointError: there are no weights, or they do not fit.
        ConfigError: the model cannot be built so.
    """
    trained = build_trained(config, weights, device=device)
    with open_source(trained.weights) as source:  # it knows folders of shards as well as files
        sha256 = source.sha256()
    notes = (*trained.notes, *_rounding_note(config))
    report = "\n".join([str(trained.loaded), *notes])
    return LiveModel(
        trained.layer, trained.weights, trained.path, sha256, report, notes, trained.classes
    )


def _rounding_note(config: Config) -> list[str]:
    """What a training that rounds is not here."""
    section = config.Quantization
    if section is None or section.format == "FP32" or section.mode != "qat":
        return []
    if config.Export is not None and config.Export.dtype == section.format:
        return []
    return [
        f"the config trains and evaluates in {section.format}; here the weights are as they are "
        "kept, in float32, and nothing is rounded as in training"
        + ("; passl-export --format onnx --dtype int8 rounds" * (section.format == "int8"))
    ]


def build_dataset(config: Config) -> Optional[Any]:
    """The data set of ``DataLoader.Eval``, or None where it is not at hand."""
    section = config.DataLoader.Eval
    if section is None:
        return None
    import_user_modules(config.Global.imports, execute=True)
    try:
        return DATASETS.build(section.dataset, class_num=config.Model.get("class_num"))
    except (DataError, OSError):
        return None


def class_names(
    config: Config,
    dataset: Optional[Any],
    labels: Optional[str] = None,
    learned: Optional[Sequence[str]] = None,
) -> Optional[list[str]]:
    """Names of the classes: of a file, else those the weights learned, else of the data set.

    Args:
        dataset: of ``DataLoader.Eval``, or None.
        labels: file of names, one a line; it outranks ``Export.labels``.
        learned: the names beside the weights; None: unknown.

    Raises:
        DataError: the file is not there, or has other classes than the model.
    """
    classes = config.Model.get("class_num")
    file = labels or (config.Export.labels if config.Export is not None else None)
    if file is not None:
        return read_labels(file, classes)
    if learned is not None:
        return list(learned)
    section = config.DataLoader.Eval
    names = known_names(dataset, section.dataset if section is not None else {})
    return names if names and classes in (None, len(names)) else None


def read_labels(file: str, class_num: Optional[int]) -> list[str]:
    """Class names, one a line, line ``i`` (from 0) being class ``i``.

    Raises:
        DataError: it cannot be read, or has not ``class_num`` lines.
    """
    try:
        names = Path(file).read_text(encoding="utf-8-sig").splitlines()  # Notepad's begin so
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"labels {file}: cannot be read: {error}") from error
    while names and not names[-1].strip():
        names.pop()
    if class_num and len(names) != class_num:
        raise DataError(
            f"labels {file}: {len(names)} lines, but the model has {class_num} classes; it must "
            "have the name of class 0 in the first line, and so on"
        )
    return [name.strip() for name in names]
