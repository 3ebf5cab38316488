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
from passl.data.names import printable
from passl.errors import ConfigError, DataError
from passl.layers.errors import InputShapeError
from passl.logs.fonts import drawable
from passl.visualize.attention import attention_of
from passl.visualize.figure import (
    OKABE_ITO,
    add_heading,
    new_figure,
    save_figure,
    short,
    show_image,
)
from passl.visualize.inputs import Picture, Seen, blend, multiply, prepare, scale, spread
from passl.visualize.rollout import HeadFusion, TokenLayout, rollout, token_layout

__all__ = ["AttentionMaps", "draw_attention", "look", "save_arrays", "save_overlay"]

Style = Literal["multiply", "heat"]
_COLUMNS, _CELL, _GAP = 7, 1.3, 0.1  # of the maps of layers and heads; inches
_TALLEST = 1.4  # height over width of what is drawn; taller pictures are drawn narrower
_CLASSES_WIDTH = 1.75  # inches
# One patch often outshines all others (Darcet et al. 2024, "Vision Transformers Need Registers"):
# maps in colour are cut here, so that the others can be seen.
_PERCENTILE = 98.0
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
        style: ``multiply`` by the map over its largest value, as the ViT paper draws it; ``heat``
            lays the map in colours over the picture, cut at its 98th percentile.

    Raises:
        ConfigError: the file cannot be written.
    """
    laid = _laid(maps, layer, style)
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
    note: str = "attention rollout",
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
    heads = maps.heads(layer)
    layer %= len(maps.layers)
    images = np.concatenate([heads.mean(axis=0, keepdims=True), heads])
    titles = ["mean of the heads", *(f"head {i}, most {m:.1%}" for i, m in enumerate(_most(heads)))]
    sections = (
        ("Rollout after each layer", maps.rollout, _layer_titles(maps.layers)),
        (f"Layer {layer}: what the {_query(maps.layout)} attends to", images, titles),
    )
    shown = _overview(maps, layer)
    width = _COLUMNS * _CELL + 0.4
    has_classes = len(maps.probabilities) > 0
    side = (width - 0.4 - _CLASSES_WIDTH * has_classes) / len(shown)
    tall = maps.seen.image.shape[0] / maps.seen.image.shape[1]
    large = (side - _GAP) * min(tall, _TALLEST) + 0.45
    large = max(large, 2.1 if has_classes else 0.0)
    left, top, right, bottom = maps.seen.box
    shape = (bottom - top) / (right - left)
    small = (_CELL - _GAP) * min(shape, _TALLEST) + 0.32
    rows = sum(math.ceil(len(images) / _COLUMNS) for _, images, _ in sections)
    height = 0.9 + large + rows * small + len(sections) * 0.35
    with new_figure(width, height) as figure:
        place = _Rows(figure, height - add_heading(figure, title, f"{maps.picture.source}; {note}"))
        place.top -= 0.15
        for number, (words, pixels) in enumerate(shown):
            axes = place.axes(0.2 + number * side, side - _GAP, large - 0.45)
            axes.set_anchor("N")
            show_image(axes, pixels, words)
        if has_classes:
            room = _CLASSES_WIDTH - 0.2
            _draw_classes(place.axes(width - 0.2 - room, room, 1.65), maps, names)
        place.top -= large - 0.1
        for words, images, titles in sections:
            place.title(f"{words} (each map over its own 98th percentile)")
            place.maps([scale(image, _PERCENTILE) for image in images], shape, small, titles)
        return save_figure(figure, path)


def class_label(number: int, names: Optional[Sequence[str]]) -> str:
    """``7 cat``, or ``class 7`` where there are no names, or no font that has the letters."""
    if not names or number >= len(names):
        return f"class {number}"
    return drawable(f"{number} {printable(names[number])}", f"class {number}", "a picture")


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

    def maps(
        self, maps: Sequence[np.ndarray], shape: float, cell: float, titles: Sequence[str]
    ) -> None:
        width = min(_CELL - _GAP, (cell - 0.32) / shape)
        for number, (values, title) in enumerate(zip(maps, titles)):
            column = number % _COLUMNS
            left = 0.2 + column * _CELL + (_CELL - _GAP - width) / 2
            axes = self.axes(left, width, cell - 0.32)
            show_image(axes, values, title, limits=(0, 1), fill=True)
            if column == _COLUMNS - 1 or number == len(maps) - 1:
                self.top -= cell


def _overview(maps: AttentionMaps, layer: int) -> list[tuple[str, np.ndarray]]:
    return [
        ("picture", multiply(maps.seen.image, spread(np.ones(maps.layout.grid), maps.seen))),
        (f"rollout after layer {layer}, times picture", _laid(maps, layer, "multiply")),
        ("the same rollout in colours", _laid(maps, layer, "heat")),
    ]


def _laid(maps: AttentionMaps, layer: int, style: Style) -> np.ndarray:
    """The picture under the rollout: uint8 [H, W, 3]."""
    flow, coverage = maps.rollout[layer], maps.layout.coverage
    if style == "multiply":
        return multiply(maps.seen.image, spread(flow, maps.seen, coverage))
    return blend(maps.seen.image, spread(flow, maps.seen, coverage, _PERCENTILE))


def _most(heads: np.ndarray) -> list[float]:
    return [float(head.max()) for head in heads]


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
