"""Which config, which weights, and the trained model: what every picture of a model begins with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.checkpoint.resolve import resolve_checkpoint
from passl.config import Config, load_config, plan_batches
from passl.config.cross import Mode
from passl.data.build import build_loader
from passl.data.loader import Loader
from passl.engine.build import run_dir_of
from passl.errors import CheckpointError, ConfigError, DataError
from passl.registry import DATASETS, TRANSFORMS, import_user_modules
from passl.runtime import import_paddle, prepare

__all__ = [
    "Trained",
    "eval_dataset",
    "eval_loader",
    "eval_transforms",
    "find_config",
    "trained_model",
]

_LINKS = ("best", "latest")


@dataclass(frozen=True)
class Trained:
    """A model with its weights, in evaluation mode.

    Attributes:
        layer: the network.
        name: of the model, as in the config.
        weights: the file.
        step: optimizer steps it was trained for; None where the file does not say.
        notes: what is worth knowing of the weights.
    """

    layer: Any
    name: str
    weights: Path
    step: Optional[int]
    notes: tuple[str, ...] = ()

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
    above = list(folder.resolve().parents)[:3]
    found = next((place for place in (folder, *above) if _holds_config(place)), None)
    if found is None:
        raise ConfigError(
            f"{run}: no config.yaml there or in the folders above, which every run writes; name "
            f"the config: -c FILE -o Global.pretrained_model={run}"
        )
    config = load_config(found / "config.yaml", overrides, mode=mode)
    if _is_typed(config):
        return config, None
    if found != folder:
        return config, run
    link = next((folder / name for name in _LINKS if (folder / name).exists()), None)
    return config, None if link is None else str(link)


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
    prepare(config.Global.num_threads, device=config.Global.device)
    paddle = import_paddle()
    from passl.checkpoint.pretrained import load_pretrained
    from passl.engine.model_facts import check_external, check_weights, without_external_files
    from passl.engine.parts import choose_device
    from passl.engine.weights import differing_settings, record_beside, weights_to_evaluate
    from passl.models import create_model

    path = weights if weights is not None else weights_to_evaluate(config, run_dir_of(config))
    import_user_modules(config.Global.imports, execute=True)
    paddle.set_device(choose_device(config.Global.device, config.origin("Global.device")))
    record = record_beside(path)
    arguments = {key: value for key, value in config.Model.items() if key != "name"}
    arguments, notes = without_external_files(arguments, record, path)
    try:
        layer = create_model(config.Model["name"], seed=config.Global.seed, **arguments)
        check_external(layer, record, Path(path))
        report = load_pretrained(
            layer, path, finetune=True, allow_missing=config.Global.allow_missing
        )
        check_weights(layer)
    except ConfigError as error:
        raise ConfigError(f"{config.origin('Model')}: Model: {error}") from error
    if report.reinitialised:
        name, reason = next(iter(report.reinitialised.items()))
        raise CheckpointError(
            f"{path}: the classifier does not fit the model ({name}: {reason}), and one that was "
            "never trained shows nothing; set Model.class_num to that of the weights, or to 0"
        )
    notes += differing_settings(layer, record)
    notes += [f"resized {name}: {sizes}" for name, sizes in report.resized.items()]
    layer.eval()
    step = record["state"]["step"] if record else None
    file = resolve_checkpoint(path).weights
    return Trained(layer, config.Model["name"], file, step, tuple(notes))


def eval_dataset(config: Config) -> Any:
    """The data set of ``DataLoader.Eval``.

    Raises:
        ConfigError: the config has none, or the data is not at hand.
    """
    section = _eval_section(config)
    import_user_modules(config.Global.imports, execute=True)
    try:
        return DATASETS.build(section.dataset, class_num=config.Model.get("class_num"))
    except DataError as error:
        where = config.origin("DataLoader.Eval.dataset")
        raise ConfigError(f"{where}: DataLoader.Eval.dataset: {error}") from error


def eval_loader(config: Config) -> Loader:
    """The whole of ``DataLoader.Eval``, for this process alone.

    Raises:
        ConfigError: the config has none, or the data is not at hand.
    """
    section = _eval_section(config)
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


def _holds_config(folder: Path) -> bool:
    return (folder / "config.yaml").is_file()


def _is_typed(config: Config) -> bool:
    """``-o Global.pretrained_model`` stands on the command line."""
    origin = config.origin("Global.pretrained_model")
    return config.Global.pretrained_model is not None and origin.startswith("-o")
