"""Write docs/images/architecture.svg, the diagram of docs/architecture.md.

    python tools/draw_architecture.py

Black on light tints that differ in brightness too, so that a grey print and a colour-blind eye lose
nothing: every box says what it is.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple, Optional
from xml.sax.saxutils import escape

__all__ = ["diagram", "main"]

_TARGET = Path(__file__).resolve().parents[1] / "docs/images/architecture.svg"
_WIDTH, _HEIGHT = 1000, 640
_LINE = 18  # pixels between lines of text
# Tints of Okabe and Ito's blue, orange and bluish green, and a grey.
_BLUE, _ORANGE, _GREEN, _GREY = "#cfe3f3", "#fbe6c0", "#d5f0e6", "#eeeeee"


class _Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float
    fill: str
    title: str
    lines: tuple[str, ...] = ()


_CONFIG = _Box(
    215,
    40,
    235,
    96,
    _BLUE,
    "config/",
    ("read, merge, check as a whole;", "the origin of every value;", "never imports Paddle"),
)
_YAML = _Box(20, 40, 150, 96, _GREY, "YAML file", ("its bases,", "-o KEY=VALUE"))
_BUILD = _Box(
    500,
    40,
    220,
    96,
    _BLUE,
    "engine/build.py",
    ("one builder a part,", "in one order; changes", "no config"),
)
_RUN = _Box(770, 40, 210, 96, _BLUE, "Run", ("fit()", "evaluate()"))
_REGISTRY = _Box(
    215,
    180,
    505,
    56,
    _GREY,
    "registry.py",
    ("a name -> its class; the signature is the schema, read from the source",),
)
_PARTS = [
    _Box(20 + 138.5 * i, 282, 129, 62, _ORANGE, title, (line,))
    for i, (title, line) in enumerate(
        [
            ("data/", "sets, transforms"),
            ("models/", "built of layers/"),
            ("losses/", "terms of a sum"),
            ("metrics/", "counts of hits"),
            ("schedules/", "of the step"),
            ("optim/", "groups, clipping"),
            ("engine/hooks/", "and your own"),
        ]
    )
]
_STEPS = [
    _Box(20 + 162 * i, 406, 146, 62, _GREEN, title, (line,))
    for i, (title, line) in enumerate(
        [
            ("a batch", "data/loader.py"),
            ("forward, backward", "models/, losses/"),
            ("sum over ranks", "distributed/"),
            ("clip, update", "optim/, precision/"),
            ("average, hooks", "precision/ema.py"),
            ("if due", "log, evaluate, save"),
        ]
    )
]
_FILES = _Box(
    20,
    540,
    452,
    76,
    _GREY,
    "output/<Model.name>/",
    (
        "checkpoints/ (checkpoint/ writes them whole or not at all),",
        "train.log, metrics.jsonl, config.yaml",
    ),
)
_USERS = _Box(
    540,
    540,
    440,
    76,
    _BLUE,
    "passl-eval, -infer, -export, -visualize, -convert",
    ("begin from a checkpoint: engine/, export/,", "visualize/, checkpoint/convert/"),
)


def diagram() -> str:
    """The picture, as SVG text."""
    boxes = [_YAML, _CONFIG, _BUILD, _RUN, _REGISTRY, *_PARTS, *_STEPS, _FILES, _USERS]
    arrows = [
        *(
            _arrow(_right(a), _left(b))
            for a, b in [(_YAML, _CONFIG), (_CONFIG, _BUILD), (_BUILD, _RUN)]
        ),
        _arrow((332, 180), (332, 136), "schemas"),
        _arrow((610, 180), (610, 136), "classes"),
        _arrow((467, 282), (467, 236), "declare themselves"),
        *(_arrow(_right(a), _left(b)) for a, b in zip(_STEPS, _STEPS[1:])),
        _path([(903, 468), (903, 494), (93, 494), (93, 468)], "next step", (498, 510)),
        _path(
            [(875, 136), (875, 262), (994, 262), (994, 376), (93, 376), (93, 406)],
            "Trainer.fit: once an optimizer step",
            (498, 394),
        ),
        _path([(840, 468), (840, 524), (246, 524), (246, 540)], "", (0, 0)),
        _arrow(_right(_FILES), _left(_USERS)),
        _path([(20, 578), (8, 578), (8, 437), (20, 437)], "", (0, 0)),
    ]
    body = "\n".join([*map(_draw_box, boxes), *arrows, _label((14, 532), "resume", "start")])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'font-family="sans-serif" font-size="14" role="img">\n'
        "<title>From a YAML file to a trained model</title>\n"
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z"/></marker></defs>\n'
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>\n{body}\n</svg>\n'
    )


def main() -> int:
    """Run the command; returns its exit status."""
    _TARGET.write_text(diagram(), encoding="utf-8")
    return 0


def _draw_box(box: _Box) -> str:
    middle = box.x + box.width / 2
    top = box.y + box.height / 2 - _LINE * len(box.lines) / 2 + 5
    texts = [
        f'<text x="{middle:g}" y="{top + _LINE * i:g}" text-anchor="middle"'
        f"{' font-weight=' + chr(34) + 'bold' + chr(34) if i == 0 else ''}>{escape(line)}</text>"
        for i, line in enumerate((box.title, *box.lines))
    ]
    frame = (
        f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="6" '
        f'fill="{box.fill}" stroke="black"/>'
    )
    return "\n".join([frame, *texts])


def _arrow(start: tuple[float, float], end: tuple[float, float], text: str = "") -> str:
    at = (start[0] + 8, (start[1] + end[1]) / 2 + 5)
    return _path([start, end], text, at, "start")


def _path(
    points: list[tuple[float, float]],
    text: str,
    at: tuple[float, float],
    anchor: str = "middle",
) -> str:
    route = " ".join(f"{x:g},{y:g}" for x, y in points)
    line = f'<polyline points="{route}" fill="none" stroke="black" marker-end="url(#tip)"/>'
    return line + ("\n" + _label(at, text, anchor) if text else "")


def _label(at: tuple[float, float], text: str, anchor: Optional[str] = "middle") -> str:
    return (
        f'<text x="{at[0]:g}" y="{at[1]:g}" text-anchor="{anchor}" font-style="italic">'
        f"{escape(text)}</text>"
    )


def _right(box: _Box) -> tuple[float, float]:
    return box.x + box.width, box.y + box.height / 2


def _left(box: _Box) -> tuple[float, float]:
    return box.x, box.y + box.height / 2


if __name__ == "__main__":
    sys.exit(main())
