"""A trained model without its run: found by its folder, built with its weights, and its data.

What exports, predicts and draws begins here; each gives its own picture of the outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.resolve import resolve_checkpoint
from passl.config import Config, plan_batches
from passl.data.build import build_loader
from passl.data.loader import Loader
from passl.engine.build import run_dir_of
from passl.errors import CheckpointError, ConfigError, DataError
from passl.registry import import_user_modules
from passl.runtime import import_paddle, prepare

__all__ = ["TrainedModel", "build_trained", "config_of_run", "eval_loader", "newest_weights"]

_LINKS = ("best", "latest")


@dataclass(frozen=True)
class TrainedModel:
    """A model with its weights, in evaluation mode.

    Attributes:
        layer: the network.
        path: the weights as they were named.
        weights: the file, or the folder of another system's, that they are in.
        record: the ``state.json`` beside them; empty if there is none.
        loaded: what became of every tensor.
        classes: names of those it was trained on, by label; None: unknown.
        notes: what is odd: files that are not there, settings of the training that differ now.
    """

    layer: Any
    path: str
    weights: Path
    record: Mapping[str, Any]
    loaded: Any
    classes: Optional[list[str]]
    notes: tuple[str, ...]


def config_of_run(path: Path) -> Optional[tuple[Path, Optional[Path]]]:
    """The config of the run that ``path`` belongs to, and the checkpoint that ``path`` names.

    Args:
        path: a run's folder, or a checkpoint in it.

    Returns:
        config.yaml and the checkpoint (None: the run's folder was given); None if it is neither.
    """
    if (path / "config.yaml").is_file():
        return path / "config.yaml", None
    try:
        inside = resolve_checkpoint(path).weights
    except CheckpointError:  # whoever reads the weights says what is wrong with them
        inside = path
    for folder in list(inside.resolve().parents)[:4]:
        if (folder / "config.yaml").is_file():
            return folder / "config.yaml", path
    return None


def newest_weights(run_dir: Path) -> Optional[str]:
    """``best`` of a run's folder, else ``latest``; None if there is neither."""
    found = next((run_dir / name for name in _LINKS if (run_dir / name).exists()), None)
    return None if found is None else str(found)


def build_trained(
    config: Config,
    weights: Optional[str] = None,
    *,
    device: Optional[str] = None,
    resize: bool = False,
) -> TrainedModel:
    """Build the model of ``config`` with its weights.

    Args:
        config: checked.
        weights: where they are; None: as ``passl-eval`` chooses.
        device: ``cpu`` or ``gpu``; None: as ``Global.device`` says.
        resize: positions and patches are resized to ``Model.img_size`` and ``patch_size`` where
            they differ; else every tensor must fit as it is.

    Raises:
        CheckpointError: there are no weights, or they do not fit.
        ConfigError: the model cannot be built so.
    """
    prepare(config.Global.num_threads, device=device or config.Global.device)
    paddle = import_paddle()
    from passl.checkpoint.pretrained import load_pretrained
    from passl.engine.device import choose_device
    from passl.engine.model_facts import check_external, check_weights, without_external_files
    from passl.engine.run_record import learned_classes, record_beside
    from passl.engine.weights import differing_settings, weights_to_evaluate
    from passl.models import create_model

    path = weights if weights is not None else weights_to_evaluate(config, run_dir_of(config))
    file = resolve_checkpoint(path).weights
    import_user_modules(config.Global.imports, execute=True)
    where = config.origin("Global.device")
    paddle.set_device(device or choose_device(config.Global.device, where))
    arguments = {key: value for key, value in config.Model.items() if key != "name"}
    record = record_beside(path)
    arguments, notes = without_external_files(arguments, record, path)
    settings: dict[str, Any] = {}
    if resize:
        settings = {"finetune": True, "allow_missing": config.Global.allow_missing}
    try:
        layer = create_model(config.Model["name"], seed=config.Global.seed, **arguments)
        check_external(layer, record, Path(path))
        loaded = load_pretrained(layer, path, **settings)
        check_weights(layer)
    except ConfigError as error:
        raise ConfigError(f"{config.origin('Model')}: Model: {error}") from error
    notes += differing_settings(layer, record)
    layer.eval()
    classes = learned_classes(record, config.Model.get("class_num"))
    return TrainedModel(layer, path, file, record, loaded, classes, tuple(notes))


def eval_loader(config: Config) -> Loader:
    """The whole of ``DataLoader.Eval``, for this process alone.

    Raises:
        ConfigError: the config has none, or the data is not at hand.
    """
    section = config.DataLoader.Eval
    if section is None:
        raise ConfigError(f"{config.source_path}: DataLoader.Eval: missing")
    import_user_modules(config.Global.imports, execute=True)
    try:
        return build_loader(
            section,
            mode="eval",
            global_batch_size=plan_batches(config, 1, mode="eval").eval_batch_size,
            class_num=config.Model.get("class_num"),
            seed=config.Global.seed,
        )
    except DataError as error:
        where = config.origin("DataLoader.Eval.dataset")
        raise ConfigError(f"{where}: DataLoader.Eval.dataset: {error}") from error
