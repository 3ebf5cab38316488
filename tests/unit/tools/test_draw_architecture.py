"""The diagram of docs/architecture.md is current, and names what exists."""

from __future__ import annotations

import re

from tools import draw_architecture


def test_the_diagram_is_what_its_script_draws(repo):
    drawn = (repo / "docs/images/architecture.svg").read_text(encoding="utf-8")
    assert drawn == draw_architecture.diagram(), "run python tools/draw_architecture.py"


def test_the_diagram_names_only_what_exists(repo):
    named = re.findall(r">((?:\w+/)*\w+(?:/|\.py))<", draw_architecture.diagram())
    assert len(named) > 8
    for name in named:
        assert (repo / "passl" / name).exists(), name
