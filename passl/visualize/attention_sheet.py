"""Attention over a picture: the maps as arrays, laid over it, and all of them on one sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Optional, Union

import numpy as np
import paddle
import paddle.nn.functional as F

from passl.data.images import opencv
from passl.errors import ConfigError, DataError
from passl.layers.errors import InputShapeError
from passl.visualize.attention import attention_of
from passl.visualize.figure import (
    OKABE_ITO,
    add_heading,
    new_figure,
    save_figure,
    short,
    show_image,
)
from passl.visualize.inputs import Picture, Seen, blend, multiply, prepare, spread
from passl.visualize.rollout import HeadFusion, TokenLayout, rollout, token_layout

__all__ = ["AttentionMaps", "draw_attention", "look", "save_arrays", "save_overlay"]

Style = Literal["multiply", "heat"]
_COLUMNS, _CELL = 6, 1.5  # of the maps of layers and heads; inches
_TOP = 5  # classes


@dataclass(frozen=True)
class AttentionMaps:
    """What a model did with a picture.

    Attributes:
        picture: it.
        seen: what the model saw of it.
        layout: of the tokens.
        layers: names of the attention layers.
        attention: probabilities of each layer, float32 [h, n, n].
        rollout: after each layer, float64 [layers, rows, columns].
        probabilities: float32 [classes]; empty for a model without classes.
    """

    picture: Picture
    seen: Seen
    layout: TokenLayout
    layers: list[str]
    attention: list[np.ndarray]
    rollout: np.ndarray
    probabilities: np.ndarray

    def heads(self, layer: int) -> np.ndarray:
        """What the classified token sees in each head of a layer: [h, rows, columns]."""
        return self.layout.maps(self.attention[layer])

    def top(
        self, names: Optional[Sequence[str]] = None, most: int = _TOP
    ) -> list[tuple[str, float]]:
        """The likeliest classes with their probabilities, the likeliest first."""
        order = np.argsort(-self.probabilities, kind="stable")[:most]
        return [(class_label(int(i), names), float(self.probabilities[i])) for i in order]


def look(
    model: Any,
    picture: Picture,
    transforms: Sequence[Any],
    *,
    head_fusion: HeadFusion = "mean",
    discard_ratio: float = 0.0,
    with_llama: bool = False,
) -> AttentionMaps:
    """Show a picture to a model and follow its attention.

    Args:
        model: in evaluation mode.
        picture: what to show.
        transforms: of the evaluation.
        head_fusion, discard_ratio: of :func:`~passl.visualize.rollout.rollout`.
        with_llama: let the rollout pass ViT-LLaMA's frozen block as well, in place of ending with
            the last block of the vision transformer.

    Raises:
        DataError: the picture does not become what the model takes.
        ConfigError: the model has no attention, or not the LLaMA block that is asked for.
    """
    layout, seen = token_layout(model), prepare(picture, transforms)
    with attention_of(model) as found, paddle.no_grad():
        try:
            output_bc = model(paddle.to_tensor(seen.input_chw[None]))
        except InputShapeError as error:
            raise DataError(f"{picture.source}: {error}") from error
    layers = {name: probs[0] for name, probs in found.items() if with_llama or not _is_llama(name)}
    if with_llama and len(layers) == len([name for name in found if not _is_llama(name)]):
        raise ConfigError(f"--llama: {type(model).__name__} has no LLaMA block")
    flows = rollout(list(layers.values()), head_fusion=head_fusion, discard_ratio=discard_ratio)
    has_classes = bool(getattr(model, "class_num", output_bc.shape[1]))
    probabilities = F.softmax(output_bc.astype("float32"), axis=-1).numpy()[0]
    return AttentionMaps(
        picture,
        seen,
        layout,
        list(layers),
        list(layers.values()),
        layout.maps(flows),
        probabilities if has_classes else probabilities[:0],
    )


def save_overlay(maps: AttentionMaps, layer: int, style: Style, path: Path) -> Path:
    """The picture at its own size under the rollout after ``layer``.

    Args:
        layer: from 0; negative ones count from the last.
        style: ``multiply`` darkens what is not attended to, ``heat`` colours the map.

    Raises:
        ConfigError: the file cannot be written.
    """
    heat = spread(maps.rollout[layer], maps.seen, maps.layout.coverage)
    laid = multiply(maps.seen.image, heat) if style == "multiply" else blend(maps.seen.image, heat)
    encoded, data = opencv().imencode(".png", np.ascontiguousarray(laid[:, :, ::-1]))
    assert encoded
    return _write(path, data.tobytes())


def save_arrays(maps: AttentionMaps, path: Path) -> Path:
    """Everything as an ``.npz``: attention, rollout, probabilities, and what was seen.

    ``attention`` is float32 [layers, h, n, n]; where layers have different numbers of heads there
    is ``attention_<i>`` [h, n, n] for each.  ``rollout`` is float32 [layers, rows, columns], not
    scaled; ``box`` is left, top, right, bottom in pixels of the picture.

    Raises:
        ConfigError: the file cannot be written.
    """
    arrays: dict[str, Any] = {
        "layers": np.array(maps.layers),
        "rollout": maps.rollout.astype(np.float32),
        "probabilities": maps.probabilities,
        "box": np.array(maps.seen.box, np.int64),
        "input": maps.seen.input_chw,
    }
    if len({probs.shape for probs in maps.attention}) == 1:
        arrays["attention"] = np.stack(maps.attention)
    else:
        arrays |= {f"attention_{i}": probs for i, probs in enumerate(maps.attention)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, **arrays)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return path


def draw_attention(
    maps: AttentionMaps,
    path: Path,
    *,
    title: str,
    layer: int = -1,
    names: Optional[Sequence[str]] = None,
    note: str = "",
) -> Path:
    """One sheet: the picture, the rollout over it, the likeliest classes, all layers, all heads.

    Args:
        maps: what to draw.
        path: of the file.
        title: model, step and weights.
        layer: after which the rollout is laid over the picture, and whose heads are drawn.
        names: of the classes.
        note: how the rollout was made.

    Raises:
        ConfigError: matplotlib is missing, or the file cannot be written.
    """
    heads, count = maps.heads(layer), len(maps.layers)
    layer %= count
    tall = min(1.6, max(0.6, maps.seen.image.shape[0] / maps.seen.image.shape[1]))
    small = _CELL * min(1.6, max(0.6, maps.layout.grid[0] / maps.layout.grid[1])) + 0.28
    large = 3 * _CELL * 0.66 * tall + 0.35
    rows = [math.ceil(number / _COLUMNS) for number in (count, len(heads))]
    width = _COLUMNS * _CELL + 0.4
    height = 0.9 + large + sum(rows) * small + 2 * 0.35 + 0.1
    with new_figure(width, height) as figure:
        used = add_heading(figure, title, f"{maps.picture.source}{note and '; '}{note}")
        place = _Rows(figure, height - used)
        _draw_overview(place, large, maps, layer, names)
        last = maps.rollout.max(axis=(1, 2), keepdims=True)
        place.title("Rollout after each layer, each over its own largest value")
        place.maps(maps.rollout / np.where(last > 0, last, 1), small, _layer_titles(maps.layers))
        place.title(f"Heads of layer {layer}: what the {_query(maps.layout)} attends to")
        most = heads.max(axis=(1, 2), keepdims=True)
        titles = [f"head {i}, most {value:.1%}" for i, value in enumerate(most[:, 0, 0])]
        place.maps(heads / np.where(most > 0, most, 1), small, titles)
        return save_figure(figure, path)


def class_label(number: int, names: Optional[Sequence[str]]) -> str:
    """``7 cat``, or ``class 7`` where there are no names."""
    return f"{number} {names[number]}" if names and number < len(names) else f"class {number}"


class _Rows:
    """Places axes from the top of a figure down; everything in inches."""

    def __init__(self, figure: Any, top: float) -> None:
        self.figure, self.top = figure, top
        self.width, self.height = (float(side) for side in figure.get_size_inches())

    def axes(self, left: float, width: float, height: float) -> Any:
        bottom = self.top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    def title(self, text: str) -> None:
        self.figure.text(0.2 / self.width, (self.top - 0.14) / self.height, text, weight="bold")
        self.top -= 0.35

    def maps(self, maps: np.ndarray, cell: float, titles: Sequence[str]) -> None:
        for number, (values, title) in enumerate(zip(maps, titles)):
            column = number % _COLUMNS
            axes = self.axes(0.2 + column * _CELL, _CELL - 0.12, cell - 0.28)
            show_image(axes, values, title, limits=(0, 1))
            if column == _COLUMNS - 1 or number == len(maps) - 1:
                self.top -= cell


def _draw_overview(
    place: _Rows, height: float, maps: AttentionMaps, layer: int, names: Optional[Sequence[str]]
) -> None:
    heat = spread(maps.rollout[layer], maps.seen, maps.layout.coverage)
    image, side = maps.seen.image, 2 * _CELL
    place.top -= 0.2
    shown = (
        ("picture", image if not np.isnan(heat).any() else _boxed(image, heat)),
        (f"rollout after layer {layer}, times the picture", multiply(image, heat)),
        ("the same as a map", blend(image, heat)),
    )
    bars = len(maps.probabilities) > 0
    side = (place.width - 0.4 - (1.7 if bars else 0.0)) / len(shown)
    for number, (title, pixels) in enumerate(shown):
        axes = place.axes(0.2 + number * side, side - 0.12, height - 0.35)
        axes.set_anchor("N")
        show_image(axes, pixels, title)
    if bars:
        _draw_classes(place.axes(place.width - 1.75, 1.55, min(1.7, height - 0.35)), maps, names)
    place.top -= height - 0.1


def _draw_classes(axes: Any, maps: AttentionMaps, names: Optional[Sequence[str]]) -> None:
    """The likeliest classes as bars under their names; the right one, if known, stands out."""
    top, label = maps.top(names), maps.picture.label
    right = None if label is None else class_label(label, names)
    for row, (name, value) in enumerate(top):
        is_right = name == right
        axes.barh(-row, value, height=0.34, color=OKABE_ITO[2] if is_right else OKABE_ITO[0])
        mark = "\N{CHECK MARK} " if is_right else ""
        axes.text(0, -row + 0.27, f"{mark}{short(name, 18)}", fontsize=8, va="bottom")
        axes.text(1.0, -row + 0.27, f"{value:.1%}", fontsize=8, va="bottom", ha="right")
    axes.set(xlim=(0, 1), ylim=(-len(top) + 0.6, 0.85), xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)
    truth = "" if right is None else f"; it is {short(right, 12)}"
    axes.set_title(f"probability{truth}", fontsize=8, pad=3)


def _boxed(image: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The image with what is not seen faded."""
    return multiply(image, np.where(np.isnan(heat), np.nan, 1.0).astype(np.float32))


def _layer_titles(layers: Sequence[str]) -> list[str]:
    return [f"layer {i}{' (LLaMA)' if _is_llama(name) else ''}" for i, name in enumerate(layers)]


def _query(layout: TokenLayout) -> str:
    return "average patch" if layout.query is None else "class token"


def _is_llama(name: str) -> bool:
    return name.startswith("llama.")


def _write(path: Path, data: Union[bytes, bytearray]) -> Path:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
    return path
