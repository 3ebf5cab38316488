"""What to export, from ``Export`` of a config; nothing is built and Paddle is not imported."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from passl.config import Config
from passl.config.schema import ExportSection
from passl.errors import ConfigError
from passl.models import model_spec
from passl.models.summary import image_size

__all__ = ["TOLERANCES", "ExportPlan", "plan_export"]

#: Largest difference to the live model, relative to its largest output or to 1.
TOLERANCES = {"float32": 1e-4, "float16": 1e-2, "int8": 1e-2}
#: The first version of ONNX's operators with a scale for each channel.
_INT8_OPSET = 13


@dataclass(frozen=True)
class ExportPlan:
    """An export, decided.

    Attributes:
        formats: among ``paddle`` and ``onnx``.
        batch_size: images of an input; None: any number.
        channels, height, width: of an image.
        dtype: of the stored weights.
        opset: of ONNX.
        softmax: end in probabilities.
        preprocess: normalise inside.
        simplify: simplify the ONNX graph.
        tolerance: largest difference accepted.
        class_num: outputs; 0: features.
    """

    formats: tuple[str, ...]
    batch_size: Optional[int]
    channels: int
    height: int
    width: int
    dtype: str
    opset: int
    softmax: bool
    preprocess: bool
    simplify: bool
    tolerance: float
    class_num: int

    @property
    def graph_shape(self) -> tuple[Optional[int], int, int, int]:
        """Shape of the input."""
        if self.preprocess:
            return (self.batch_size, self.height, self.width, self.channels)
        return (self.batch_size, self.channels, self.height, self.width)

    @property
    def graph_dtype(self) -> str:
        """Type of the input's numbers."""
        return "uint8" if self.preprocess else "float32"

    @property
    def meaning(self) -> str:
        """What the outputs are."""
        if self.class_num == 0:
            return "features"
        return "probabilities" if self.softmax else "logits"


def plan_export(config: Config) -> ExportPlan:
    """Decide what is exported.

    Raises:
        ConfigError: ``Export`` contradicts the model.
    """
    section = config.Export or ExportSection()
    channels, height, width = _image_of_model(config)
    batch: Optional[int] = None
    if section.input_shape is not None:
        batch = _checked(section.input_shape, (channels, height, width), config)
    if section.batch_size is not None:
        batch = None if section.batch_size == "free" else int(section.batch_size)
    _check_int8(section, config)
    class_num = _argument(config, "class_num", 1)
    if section.softmax and class_num == 0:
        raise ConfigError(
            f"{config.origin('Export.softmax')}: Export.softmax: the model has no classes "
            "(Model.class_num is 0): its features are no probabilities"
        )
    kind = section.export_type
    return ExportPlan(
        formats=("paddle", "onnx") if kind == "both" else (kind,),
        batch_size=batch,
        channels=channels,
        height=height,
        width=width,
        dtype=section.dtype,
        opset=section.opset,
        softmax=section.softmax,
        preprocess=section.preprocess,
        simplify=section.simplify,
        tolerance=section.tolerance or TOLERANCES[section.dtype],
        class_num=class_num,
    )


def _check_int8(section: ExportSection, config: Config) -> None:
    if section.dtype != "int8":
        return
    where = config.origin("Export.dtype")
    if section.export_type != "onnx":
        raise ConfigError(
            f"{where}: Export.dtype: int8 leaves in ONNX only (--format onnx): Paddle's inference "
            "format takes int8 from Paddle's own quantization, which does not run (docs/deploy.md)"
        )
    if section.opset < _INT8_OPSET:
        raise ConfigError(
            f"{config.origin('Export.opset')}: Export.opset: {section.opset}; int8 has a scale for "
            f"each channel, which ONNX knows from opset {_INT8_OPSET} on"
        )


def _image_of_model(config: Config) -> tuple[int, int, int]:
    """Channels, height and width of what the model takes."""
    arguments = {key: value for key, value in config.Model.items() if key != "name"}
    size = image_size(config.Model["name"], arguments)
    shape = config.Export.input_shape if config.Export is not None else None
    if size is not None:
        return (_argument(config, "in_chans", 3), *size)
    if shape is None or len(shape) != 4 or None in shape[1:]:
        raise ConfigError(
            f"{config.source_path}: Export.input_shape: {config.Model['name']} does not say which "
            "images it takes (it has no argument img_size); write [null, CHANNELS, HEIGHT, WIDTH]"
        )
    channels, height, width = (int(side) for side in shape[1:] if side is not None)
    return channels, height, width


def _checked(
    shape: list[Optional[int]], image: tuple[int, int, int], config: Config
) -> Optional[int]:
    """The batch of ``Export.input_shape``, whose other sizes are the model's."""
    where = f"{config.origin('Export.input_shape')}: Export.input_shape"
    wanted = f"[null, {', '.join(map(str, image))}]"
    if len(shape) != 4:
        raise ConfigError(f"{where}: {len(shape)} sizes; write four, such as {wanted}")
    for name, have, want in zip(("channels", "height", "width"), shape[1:], image):
        if have is None:
            raise ConfigError(
                f"{where}: {name} cannot be free: the model is built for {want}; write {wanted}"
            )
        if have != want:
            raise ConfigError(
                f"{where}: {name} {have}, but the model takes {want}; write {wanted}, or change "
                "the model"
            )
    return shape[0]


def _argument(config: Config, name: str, default: int) -> int:
    value: Any = config.Model.get(name)
    if value is None:
        param = model_spec(config.Model["name"]).param(name)
        value = param.default if param is not None and not param.required else default
    return int(value)
