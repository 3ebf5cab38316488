"""myrtle-vision's JSON configs as configs of this package.

A training config (``train_configs/deit_tiny.json``) names a data config; both become one YAML file.
The first version of their code and its head differ in what the same keys mean, so which of the two
a file is for is told from its keys: the head knows ``pretrained_backbone`` and ``decoder``.

Source: myrtle-vision, ``classification`` (d5089bc and 2b3665d), its README and its JSON files.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from passl.config.dump import emit
from passl.config.myrtle_transforms import transforms
from passl.config.numeric import ratio_giving
from passl.config.suggest import did_you_mean
from passl.errors import ConfigError
from passl.json_text import from_json

__all__ = ["Imported", "import_myrtle"]

_IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
_FORMATS = {"FP16_32": "FP16_32", "FP16_16": "FP16_16", "TF32": "TF32", "PyTorchINT8": "int8"}
_SCHEDULER_ONLY = "the schedule has no such setting; their code ignores it too"
#: Names of timm's create_optimizer and create_scheduler -> ours.
_OPTIMIZERS = {
    "adamw": "AdamW", "sgd": "Momentum", "nesterov": "Momentum", "momentum": "Momentum",
    "lamb": "Lamb", "lars": "LARS", "nlars": "LARS",
}  # fmt: skip
_SCHEDULES = {"cosine": "TimmCosine", "step": "MultiStepDecay"}
_LAUNCHER = "the launcher decides, as in python -m paddle.distributed.launch --devices=0,1"

#: Keys that nothing becomes of, with the reason; by section.
_UNUSED = {
    "train_config": {
        "distributed": _LAUNCHER,
        "decay_epochs": _SCHEDULER_ONLY,
        "decay_rate": _SCHEDULER_ONLY,
        "patience_epochs": _SCHEDULER_ONLY,
        "cooldown_epochs": "it has no effect there: the number of epochs is fixed",
        "lr_noise_pct": "it belongs to lr_noise",
        "lr_noise_std": "it belongs to lr_noise",
    },
    "dist_config": {"dist_backend": _LAUNCHER, "dist_url": _LAUNCHER},
}


@dataclass
class Imported:
    """What became of a config.

    Attributes:
        variant: ``d5089bc`` (their first version) or ``2b3665d`` (their head).
        config: the YAML's content.
        mapped: their key -> ours and its value, in a sentence.
        unmapped: their key -> why nothing became of it.
    """

    variant: str
    config: dict[str, Any] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    unmapped: dict[str, str] = field(default_factory=dict)

    def to_yaml(self, name: str) -> str:
        """The YAML file, whose comments say what became of every key.

        Args:
            name: of the JSON file.
        """
        lines = [f"# {name} of myrtle-vision ({self.variant})."]
        lines += [f"#   {key} -> {what}" for key, what in self.mapped.items()]
        lines += [f"#   {key} not mapped: {why}" for key, why in self.unmapped.items()]
        return "\n".join(lines) + "\n" + emit(self.config)


def import_myrtle(path: Path, data_path: Optional[Path] = None) -> Imported:
    """Read a training config and its data config.

    Args:
        path: the training config.
        data_path: the data config; None: what ``data_config_path`` names, looked for in the current
            folder, beside ``path`` and one folder up.

    Raises:
        ConfigError: a file is missing or no JSON object, or asks for what there is not here.
    """
    content = _read(path)
    reader = _Reader(content, path)
    data_path = data_path or _find_data(reader, path)
    reader.convert(_read(data_path), data_path)
    return reader.result


class _Reader:
    """Takes one key after another; what is left at the end is named as well."""

    def __init__(self, content: Mapping[str, Any], path: Path) -> None:
        self._path = path
        self._left = _flat(content)
        self._keys = frozenset(self._left)
        is_head = {"train_config.pretrained_backbone", "vit_config.decoder"} & self._keys
        self._is_head = bool(is_head)
        self.result = Imported("2b3665d" if is_head else "d5089bc")
        self._has_teacher = any(key.startswith("distiller_config") for key in self._keys)

    # -- reading -----------------------------------------------------------------------------

    def take(self, key: str, default: Any = None) -> Any:
        """The value of a key, which then counts as read."""
        return self._left.pop(key, default)

    def need(self, key: str, kind: type = int) -> Any:
        """The value of a key that must be there, of a type.

        Raises:
            ConfigError: it is missing or of another type.
        """
        value = self.take(key)
        wanted = (int, float) if kind is float else kind
        if not isinstance(value, wanted) or isinstance(value, bool):
            found = "missing" if key not in self._keys else f"found {value!r}"
            raise ConfigError(f"{self._path}: {key}: expected {_KINDS[kind]}, {found}")
        return value

    def put(self, key: str, target: str, value: Any, why: str = "") -> None:
        """``target`` of our config gets ``value``, because of ``key``."""
        node = self.result.config
        *sections, last = target.split(".")
        for section in sections:
            node = node.setdefault(section, {})
        node[last] = value
        shown = json.dumps(value) if not isinstance(value, (dict, list)) else ""
        text = f"{target} {shown}".rstrip() + (f" ({why})" if why else "")
        before = self.result.mapped.get(key)
        self.result.mapped[key] = f"{before}, {text}" if before else text

    def leave(self, key: str, why: str) -> None:
        """Nothing becomes of ``key``."""
        self.take(key)
        if key in self._keys:
            self.result.unmapped[key] = why

    # -- converting --------------------------------------------------------------------------

    def convert(self, data: Mapping[str, Any], data_path: Path) -> None:
        """Everything, in the order of our sections."""
        self._run()
        self._model(data.get("number_of_classes"), data_path)
        self._optimizer()
        for section in ("Loss", "Metric"):
            self.result.config[section] = _STANDARD[section]
        self._teacher()
        self._quantization()
        self._data(data, data_path)
        for section, keys in _UNUSED.items():
            for key, why in keys.items():
                self.leave(f"{section}.{key}", why)
        for key in list(self._left):
            known = [name.rpartition(".")[2] for name in _KNOWN]
            hint = did_you_mean(key.rpartition(".")[2], known)
            self.leave(key, f"no key of theirs, so their code does not read it{hint}")

    def _run(self) -> None:
        for key, target, kind in (
            ("output_directory", "Global.output_dir", str),
            ("epochs", "Global.epochs", int),
            ("seed", "Global.seed", int),
            ("global_batch_size", "Global.global_batch_size", int),
            ("local_batch_size", "Global.micro_batch_size", int),
            ("iters_per_checkpoint", "Global.save_interval", int),
            ("iters_per_val", "Global.eval_interval", int),
        ):
            why = "no date is added: the same command continues" if kind is str else ""
            key = f"train_config.{key}"
            self.put(key, target, self.need(key, kind), why)
        for key, target in (("checkpoint", "save"), ("val", "eval")):
            self.put(f"train_config.iters_per_{key}", f"Global.{target}_unit", "step")
        weights = self.take("train_config.checkpoint_path", "")
        if weights:
            why = "its weights; optimizer and iteration begin anew"
            self.put("train_config.checkpoint_path", "Global.pretrained_model", weights, why)
        else:
            self.leave_empty("train_config.checkpoint_path")
        backbone = self.take("train_config.pretrained_backbone")
        if backbone:
            self.result.unmapped["train_config.pretrained_backbone"] = (
                f"nothing is downloaded; passl-models --pretrained knows where {backbone} is; "
                "then -o Global.pretrained_model=FILE Global.finetune=true"
            )
        else:
            self.leave_empty("train_config.pretrained_backbone")

    def leave_empty(self, key: str) -> None:
        """A key that is there and says nothing."""
        if key in self._keys:
            self.result.unmapped[key] = "it is empty"

    def _model(self, classes: Any, data_path: Path) -> None:
        decoder = self.take("vit_config.decoder")
        if decoder not in (None, "classification"):
            raise ConfigError(
                f"{self._path}: vit_config.decoder is {decoder!r}; only classification is there"
            )
        if not isinstance(classes, int):
            raise ConfigError(
                f"{data_path}: number_of_classes: expected a whole number, found {classes!r}"
            )
        name = "MyrtleDistilledVisionTransformer" if self._has_teacher else "VisionTransformer"
        why = "with a teacher" if self._has_teacher else "without a teacher"
        if decoder is not None:
            self.put("vit_config.decoder", "Model.name", name, why)
        self.result.config["Model"] = {"name": name}
        self.put("number_of_classes", "Model.class_num", classes)
        dim, heads = self.need("vit_config.embed_dim"), self.need("vit_config.heads")
        hidden = self.need("vit_config.mlp_dim")
        if min(heads, hidden) < 1:
            raise ConfigError(f"{self._path}: vit_config: heads and mlp_dim must be at least 1")
        if heads * 64 != dim:
            raise ConfigError(
                f"{self._path}: vit_config.heads: {heads} heads of theirs have 64 channels each, "
                f"{heads * 64} in all, and embed_dim is {dim}; here they must be as many"
            )
        self.put("vit_config.embed_dim", "Model.embed_dim", dim)
        self.put("vit_config.heads", "Model.num_heads", heads)
        for key, target in (("image_size", "img_size"), ("patch_size", "patch_size"),
                            ("depth", "depth")):  # fmt: skip
            self.put(f"vit_config.{key}", f"Model.{target}", self.need(f"vit_config.{key}"))
        self.put("vit_config.mlp_dim", "Model.mlp_ratio", ratio_giving(hidden, dim),
                 f"{hidden} / {dim}")  # fmt: skip
        dropout = self.need("vit_config.dropout", float)
        self.put("vit_config.dropout", "Model.drop_rate", float(dropout))
        embedding = self.take("vit_config.emb_dropout", dropout)
        if embedding == dropout:
            self.put("vit_config.emb_dropout", "Model.drop_rate", float(dropout))
        else:
            self.result.unmapped["vit_config.emb_dropout"] = (
                f"it is {embedding} and the other dropout {dropout}; here one rate is for both"
            )
        model = self.result.config["Model"]
        model["qkv_bias"], model["epsilon"] = self._is_head, 1e-5

    def _optimizer(self) -> None:
        name = self.take("train_config.optimizer", "adamw")
        if name not in _OPTIMIZERS:
            raise ConfigError(
                f"{self._path}: train_config.optimizer is {name!r}; {', '.join(_OPTIMIZERS)} are "
                "converted, and passl-check --list optimizers has others to write into the YAML"
            )
        has_betas = _OPTIMIZERS[name] in ("AdamW", "Lamb")
        self.put("train_config.optimizer", "Optimizer.name", _OPTIMIZERS[name])
        decay = self.take("train_config.weight_decay", 0.0)
        self.put("train_config.weight_decay", "Optimizer.weight_decay", float(decay),
                 "not of biases and normalisations, as in timm")  # fmt: skip
        self.result.config["Optimizer"]["no_weight_decay_1d"] = True
        eps, betas = self.take("train_config.opt_eps"), self.take("train_config.opt_betas")
        momentum = self.take("train_config.momentum")
        if has_betas:
            least = 1e-6 if name == "lamb" else 1e-8
            self.put("train_config.opt_eps", "Optimizer.eps", least if eps is None else float(eps))
            self.put("train_config.opt_betas", "Optimizer.betas", betas or [0.9, 0.999])
            self.result.unmapped["train_config.momentum"] = f"{_OPTIMIZERS[name]} has none"
        else:
            nesterov = name in ("sgd", "nesterov", "nlars")
            self.put("train_config.momentum", "Optimizer.momentum", float(momentum or 0.9))
            self.put("train_config.momentum", "Optimizer.use_nesterov", nesterov)
            for key in ("opt_eps", "opt_betas"):
                self.result.unmapped[f"train_config.{key}"] = f"{name} has none"
        clip = self.take("train_config.clip_grad")
        if clip is None and name == "lamb":
            self.put("train_config.optimizer", "Optimizer.grad_clip.clip_norm", 1.0,
                     "which timm's Lamb does itself")  # fmt: skip
        if clip is None:
            self.leave_empty("train_config.clip_grad")
        else:
            self.put("train_config.clip_grad", "Optimizer.grad_clip.clip_norm", float(clip),
                     "of the whole step, not of each pass")  # fmt: skip
        self._schedule()

    def _schedule(self) -> None:
        name = self.take("train_config.scheduler", "cosine")
        if name not in _SCHEDULES:
            raise ConfigError(
                f"{self._path}: train_config.scheduler is {name!r}; cosine and step are converted, "
                "passl-check --list schedules has others to write into the YAML"
            )
        self.put("train_config.scheduler", "LRScheduler.name", _SCHEDULES[name])
        self.result.config["LRScheduler"]["unit"] = "epoch"
        rate = self.need("train_config.lr", float)
        if self._is_head:
            self.put("train_config.lr", "LRScheduler.learning_rate", float(rate))
        else:
            batch = self.result.config["Global"]["global_batch_size"]
            self.put("train_config.lr", "LRScheduler.learning_rate", rate * batch / 512.0,
                     f"{rate} * {batch} / 512, which their code multiplies")  # fmt: skip
        start = float(self.need("train_config.warmup_lr", float))
        self.put("train_config.warmup_lr", "LRScheduler.warmup_start_lr", start)
        length = self.need("train_config.warmup_epochs")
        if name == "step":
            self._steps(length)
        else:
            least = float(self.need("train_config.min_lr", float))
            self.put("train_config.min_lr", "LRScheduler.eta_min", least)
            self.put("train_config.warmup_epochs", "LRScheduler.warmup_epoch", length)
        noise = self.take("train_config.lr_noise")
        if noise is None:
            self.leave_empty("train_config.lr_noise")
        else:
            self.result.unmapped["train_config.lr_noise"] = "no schedule here is random"

    def _steps(self, warmup: int) -> None:
        """timm's ``step``: a factor every so many epochs, the warm-up counted."""
        every = self.need("train_config.decay_epochs")
        if every < max(1, warmup):
            raise ConfigError(
                f"{self._path}: train_config.decay_epochs: {every} epochs are shorter than the "
                f"warm-up of {warmup}, and here a warm-up leads to the rate that follows it; write "
                "the LRScheduler by hand"
            )
        epochs = self.result.config["Global"]["epochs"]
        self.put("train_config.decay_epochs", "LRScheduler.milestones",
                 list(range(every, epochs, every)), f"every {every} epochs")  # fmt: skip
        factor = float(self.need("train_config.decay_rate", float))
        self.put("train_config.decay_rate", "LRScheduler.gamma", factor)
        self.put("train_config.warmup_epochs", "LRScheduler.warmup_epochs", warmup)
        self.leave("train_config.min_lr", "steps of a factor have no lowest rate")

    def _teacher(self) -> None:
        if not self._has_teacher:
            return
        at = "distiller_config"
        self.result.config["Distillation"] = {"form": "myrtle", "type": "soft"}
        self.put(f"{at}.temperature", "Distillation.temperature",
                 float(self.need(f"{at}.temperature", float)))  # fmt: skip
        self.put(f"{at}.alpha", "Distillation.alpha", float(self.need(f"{at}.alpha", float)))
        weights = self.need(f"{at}.teacher_weights_path", str)
        self.put(f"{at}.teacher_weights_path", "Distillation.teacher.pretrained", weights)
        teacher = self.result.config["Distillation"]["teacher"]
        self.result.config["Distillation"]["teacher"] = {"name": "ResNet50", **teacher}
        if self._is_head:
            self.put(f"{at}.teacher_weights_path", "Distillation.teacher.transform", _IMAGENET,
                     "what it was tuned with; theirs sees the student's numbers")  # fmt: skip

    def _quantization(self) -> None:
        given = {
            key: self.take(key)
            for key in ("vit_config.q_format", "vit_config.q_config", "train_config.q_config")
            if key in self._keys
        }
        if len(set(given.values())) > 1:
            listed = ", ".join(f"{key} is {value!r}" for key, value in given.items())
            raise ConfigError(f"{self._path}: {listed}; their code reads q_format only: keep it")
        for key, value in given.items():
            if value in (None, "FP32"):
                self.result.unmapped[key] = "FP32 is what there is without it"
                continue
            if value not in _FORMATS:
                known = ", ".join(("FP32", *_FORMATS))
                raise ConfigError(f"{self._path}: {key}: expected one of {known}, found {value!r}")
            slip = "" if key == "vit_config.q_format" else "what their README calls q_format"
            self.put(key, "Quantization.format", _FORMATS[value], slip)
            mode = "ptq" if value == "PyTorchINT8" else "qat"
            why = "measured on a trained model, as theirs; qat trains in int8" * (mode == "ptq")
            self.put(key, "Quantization.mode", mode, why)
            if mode == "ptq":
                self.put(key, "Quantization.calibration.method", "minmax",
                         "theirs; its weights have one scale, here one a channel")  # fmt: skip

    def _data(self, data: Mapping[str, Any], path: Path) -> None:
        left = {key: value for key, value in data.items() if key != "number_of_classes"}
        self._keys = self._keys | {f"data.{key}" for key in left}
        root, labels = left.pop("dataset_path", None), left.pop("label_map", "label_map.json")
        if not isinstance(root, str):
            raise ConfigError(f"{path}: dataset_path: expected text, found {root!r}")
        drop_last = bool(self.take("train_config.drop_last_batch", True))
        self.result.config["DataLoader"] = {}
        for mode, files, ops in (("Train", "train_files", "transform_ops_train"),
                                 ("Eval", "valid_files", "transform_ops_val")):  # fmt: skip
            names = left.pop(files, None)
            if not isinstance(names, str):
                raise ConfigError(f"{path}: {files}: expected text, found {names!r}")
            at = f"DataLoader.{mode}.dataset"
            self.result.config["DataLoader"][mode] = {"dataset": {"name": "LabelMapDataset"}}
            self.put("data.dataset_path", f"{at}.dataset_path", root)
            self.put(f"data.{files}", f"{at}.image_paths", names)
            self.put("data.label_map", f"{at}.label_map", labels)
            steps = transforms(left.pop(ops, {}), f"{path}: {ops}")
            self.put(f"data.{ops}", f"{at}.transform_ops", steps, "in the order of their code")
        sampler = "DataLoader.Train.sampler"
        self.put("train_config.drop_last_batch", f"{sampler}.drop_last", drop_last,
                 "an evaluation sees every image")  # fmt: skip
        batch = self.result.config["Global"]["micro_batch_size"]
        self.result.config["DataLoader"]["Eval"]["sampler"] = {"batch_size": batch}
        test = left.pop("test_files", None)
        if test is not None:
            self.result.unmapped["data.test_files"] = (
                f"to test: passl-eval -o DataLoader.Eval.dataset.image_paths={test}"
            )
        for key in left:
            self.result.unmapped[f"data.{key}"] = "no key of theirs, so their code does not read it"


_KINDS = {int: "a whole number", float: "a number", str: "text"}
_STANDARD: dict[str, Any] = {
    "Loss": {
        "Train": [{"CELoss": {"weight": 1.0}}], "Eval": [{"CELoss": {"weight": 1.0}}],
    },
    "Metric": {
        "Train": [{"TopkAcc": {"topk": [1]}}], "Eval": [{"TopkAcc": {"topk": [1]}}],
    },
}  # fmt: skip
#: Every key of a training config, for "did you mean".
_KNOWN = (
    *(f"train_config.{key}" for key in (
        "output_directory", "checkpoint_path", "epochs", "local_batch_size", "global_batch_size",
        "iters_per_checkpoint", "iters_per_val", "seed", "drop_last_batch", "optimizer", "opt_eps",
        "opt_betas", "momentum", "weight_decay", "clip_grad", "scheduler", "lr", "lr_noise",
        "lr_noise_pct", "lr_noise_std", "warmup_lr", "min_lr", "warmup_epochs", "decay_epochs",
        "cooldown_epochs", "patience_epochs", "decay_rate", "distributed", "pretrained_backbone",
    )),
    *(f"vit_config.{key}" for key in (
        "decoder", "image_size", "patch_size", "embed_dim", "depth", "heads", "mlp_dim", "dropout",
        "emb_dropout", "q_format",
    )),
    "data_config_path",
)  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    try:
        content = from_json(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: expected a JSON object, found {type(content).__name__}")
    return content


def _flat(content: Mapping[str, Any]) -> dict[str, Any]:
    """``section.key -> value``; keys outside of a section as they are."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat.update({f"{key}.{inner}": item for inner, item in value.items()})
        else:
            flat[key] = value
    return flat


def _find_data(reader: _Reader, path: Path) -> Path:
    keys = ("data_config_path", "train_config.data_config_path")
    named = next((value for value in map(reader.take, keys) if value is not None), None)
    if not isinstance(named, str):
        raise ConfigError(
            f"{path}: data_config_path: expected the path of the data config, found {named!r}; "
            "name it with --data FILE"
        )
    places = [Path(named), path.parent / named, path.parent.parent / named]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ConfigError(
            f"{path}: data_config_path: {named} is not in {', '.join(map(str, places))}; name it "
            "with --data FILE"
        )
    reader.result.mapped["data_config_path"] = f"DataLoader (read from {named})"
    return found
