"""Which config, which weights, and the trained model: what every picture of a model begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.config import Config, load_config
from passl.config.cross import Mode
from passl.data.build import build_dataset
from passl.engine.trained import build_trained, config_of_run, eval_loader, newest_weights
from passl.errors import CheckpointError, ConfigError, DataError
from passl.registry import TRANSFORMS, import_user_modules

__all__ = [
    "Trained",
    "eval_dataset",
    "eval_loader",
    "eval_transforms",
    "find_config",
    "trained_model",
]


@dataclass(frozen=True)
class Trained:
    """A model with its weights, in evaluation mode.

    Attributes:
        layer: the network.
        name: of the model, as in the config.
        weights: the file.
        step: optimizer steps it was trained for; None where the file does not say.
        notes: what is worth knowing of the weights.
        classes: names of those it was trained on, by label; None: unknown.
    """

    layer: Any
    name: str
    weights: Path
    step: Optional[int]
    notes: tuple[str, ...] = ()
    classes: Optional[list[str]] = None

    def title(self) -> str:
        """``ViT_base_patch16_224, step 1234``, and in the next line the file of the weights."""
        step = "" if self.step is None else f", step {self.step:,}"
        return f"{self.name}{step}\n{self.weights}"


def find_config(
    run: Optional[str],
    file: Optional[str],
    overrides: Sequence[str],
    mode: Optional[Mode] = None,
) -> tuple[Config, Optional[str]]:
    """The config, and the weights that the folder of a run means.

    Args:
        run: a run's folder (``best`` is meant, else ``latest``), or a checkpoint in one.
        file: a config file; one of the two is given.
        overrides: texts after ``-o``.
        mode: which sections it must have.

    Returns:
        the config, and where its weights are: None where the config decides, or there are none.

    Raises:
        ConfigError: both or none are given, the folder is none of a run, or mistakes in the config.
    """
    if (run is None) == (file is None):
        raise ConfigError("name the folder of a run, such as output/X, or a config with -c FILE")
    if run is None:
        assert file is not None
        return load_config(file, overrides, mode=mode), None
    folder = Path(run).expanduser()
    found = config_of_run(folder)
    if found is None:
        raise ConfigError(
            f"{run}: no config.yaml there or in the folders above, which every run writes; name "
            f"the config: -c FILE -o Global.pretrained_model={run}"
        )
    config = load_config(found[0], overrides, mode=mode)
    if _is_typed(config):
        return config, None
    return config, newest_weights(folder) if found[1] is None else run


def trained_model(config: Config, weights: Optional[str] = None) -> Trained:
    """Build the model of a config with its weights.

    Positions and patches are resized to ``Model.img_size`` and ``patch_size`` where they differ.

    Args:
        config: checked.
        weights: where they are; None: as ``passl-eval`` chooses.

    Raises:
        CheckpointError: there are none, or they do not fit.
        ConfigError: the model cannot be built so.
    """
    trained = build_trained(config, weights, resize=True)
    report = trained.loaded
    if report.reinitialised:
        name, reason = next(iter(report.reinitialised.items()))
        raise CheckpointError(
            f"{trained.path}: the classifier does not fit the model ({name}: {reason}), and one "
            "that was never trained shows nothing; set Model.class_num to that of the weights, or "
            "to 0"
        )
    resized = [f"resized {name}: {sizes}" for name, sizes in report.resized.items()]
    record = trained.record
    step = record["state"]["step"] if record else None
    notes = (*trained.notes, *resized)
    return Trained(
        trained.layer, config.Model["name"], trained.weights, step, notes, trained.classes
    )


def eval_dataset(config: Config) -> Any:
    """The data set of ``DataLoader.Eval``.

    Raises:
        ConfigError: the config has none, or the data is not at hand.
    """
    section = _eval_section(config)
    import_user_modules(config.Global.imports, execute=True)
    try:
        return build_dataset(section, class_num=config.Model.get("class_num"))
    except DataError as error:
        where = config.origin("DataLoader.Eval.dataset")
        raise ConfigError(f"{where}: DataLoader.Eval.dataset: {error}") from error


def eval_transforms(config: Config) -> list[Any]:
    """The transforms of ``DataLoader.Eval``; the data itself is not needed.

    Raises:
        ConfigError: the config has none.
    """
    section = _eval_section(config)
    import_user_modules(config.Global.imports, execute=True)
    return [TRANSFORMS.build(item) for item in section.dataset.get("transform_ops") or ()]


def _eval_section(config: Config) -> Any:
    section = config.DataLoader.Eval
    if section is None:
        raise ConfigError(
            f"{config.source_path}: DataLoader.Eval: missing; its transforms say how a picture "
            "becomes what the model takes"
        )
    return section


def _is_typed(config: Config) -> bool:
    """``-o Global.pretrained_model`` stands on the command line."""
    origin = config.origin("Global.pretrained_model")
    return config.Global.pretrained_model is not None and origin.startswith("-o")
