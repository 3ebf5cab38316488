"""Fonts with a few letters, made here: a square stands for each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from passl.logs import fonts

CAT, DOG = "\u732b", "\u72d7"


def write_font(path: Path, name: str, letters: str) -> Path:
    """A TrueType font of upright letters."""
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    shapes = {".notdef": (100, 200), **{f"l{ord(letter)}": (0, 900) for letter in letters}}
    glyphs = {}
    for glyph, (low, high) in shapes.items():
        pen = TTGlyphPen(None)
        pen.moveTo((low, 0))
        for point in ((low, high), (high, high), (high, 0)):
            pen.lineTo(point)
        pen.closePath()
        glyphs[glyph] = pen.glyph()
    font = FontBuilder(1000, isTTF=True)
    font.setupGlyphOrder(list(shapes))
    font.setupCharacterMap({ord(letter): f"l{ord(letter)}" for letter in letters})
    font.setupGlyf(glyphs)
    font.setupHorizontalMetrics(dict.fromkeys(shapes, (1000, 0)))
    font.setupHorizontalHeader(ascent=900, descent=-100)
    font.setupNameTable({"familyName": name, "styleName": "Regular"})
    font.setupOS2()
    font.setupPost()
    font.save(path)
    return path


def only_these_fonts(
    monkeypatch: pytest.MonkeyPatch, folder: Path, letters: Mapping[str, str]
) -> None:
    """The machine has these fonts, family -> letters, beside what comes with matplotlib."""
    there = [
        str(write_font(folder / f"{name}.ttf", name, these)) for name, these in letters.items()
    ]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: there)
    monkeypatch.setattr(fonts, "_installed", fonts._installed.__wrapped__)
    for memory in ("_owner", "_told"):
        monkeypatch.setattr(fonts, memory, type(getattr(fonts, memory))())
