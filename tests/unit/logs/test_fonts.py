"""Letters are drawn in a font that has them, or their codes are written: never a box."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from font_files import CAT, DOG, only_these_fonts
from PIL import Image, ImageDraw

from passl.logs import fonts
from passl.logs.fonts import Pen, can_draw, escaped, fonts_for, tell_of_lacking

pytest.importorskip("matplotlib")
INK = (0, 0, 0)


def drawn(text: str, base=None) -> np.ndarray:
    picture = Image.new("RGB", (400, 24), (255, 255, 255))
    Pen(ImageDraw.Draw(picture), 14, "a.png", base).write((0, 0), text, INK)
    return np.asarray(picture)


def test_a_letter_is_taken_from_the_installed_font_that_has_it(tmp_path, monkeypatch):
    only_these_fonts(monkeypatch, tmp_path, {"Cats": CAT, "Dogs": DOG})
    assert can_draw(f"gr\u00f6\u00dfe {CAT}{DOG}")
    assert [file.stem for file in fonts_for(f"x{DOG}{CAT}")] == ["Dogs", "Cats"]
    assert escaped(f"{CAT}a") == f"{CAT}a"
    # The square of the font that was made, not the box of a font without the letter.
    only_cat = drawn(CAT)[..., 0] < 128
    rows, columns = np.flatnonzero(only_cat.any(1)), np.flatnonzero(only_cat.any(0))
    assert only_cat[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].mean() > 0.9
    assert (drawn(f"a{CAT}") != drawn("a")).any()


def test_a_letter_that_no_font_has_is_its_code(tmp_path, monkeypatch):
    only_these_fonts(monkeypatch, tmp_path, {"Cats": CAT})
    assert not can_draw(f"{CAT}{DOG}")
    assert escaped(f"{CAT}{DOG}\n") == f"{CAT}\\u72d7\n"
    np.testing.assert_array_equal(drawn(f"a{DOG}"), drawn("a\\u72d7"))


def test_what_would_help_is_said_once(tmp_path, monkeypatch, caplog):
    only_these_fonts(monkeypatch, tmp_path, {})
    with caplog.at_level(logging.WARNING, "passl"):
        tell_of_lacking("only Latin", "a.png")
        tell_of_lacking(f"{CAT}{CAT}", "a.png")
        tell_of_lacking(f"{CAT}\u0905", "b.png")
        tell_of_lacking(f"{CAT}{DOG}", "c.png")
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith(f"a.png: no font on this machine has {CAT}; codes")
    assert "Noto Sans CJK (Debian: fonts-noto-cjk)" in first
    assert second.startswith("b.png: no font on this machine has \u0905; ")
    assert "Noto Sans Devanagari" in second


def test_damaged_fonts_and_coloured_pictures_are_passed_over(tmp_path, monkeypatch):
    only_these_fonts(monkeypatch, tmp_path, {"Cats": CAT})
    (tmp_path / "Aaa.ttf").write_bytes(b"\0\1\0\0nonsense")
    there = [str(tmp_path / "Aaa.ttf"), str(tmp_path / "Cats.ttf"), str(tmp_path / "gone.ttf")]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: there)
    assert [file.stem for file in fonts_for(CAT)] == ["Cats"]
    assert not can_draw(DOG)


def test_upright_letters_of_the_families_with_many_come_first():
    order = ["NotoSansCJK-Regular.ttc", "wqy-microhei.ttc", "Zebra.ttf", "NotoSansCJK-Bold.ttc"]
    ranked = sorted(map(fonts.Path, order), key=fonts._preference)
    assert ranked[0].name == "NotoSansCJK-Regular.ttc"
    assert [fonts._preference(file)[1] for file in map(fonts.Path, order)] == [0, 0, 0, 1]


def test_without_matplotlib_pillows_own_font_is_asked(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.font_manager", None)
    monkeypatch.setattr(fonts, "_base", fonts._base.__wrapped__)
    monkeypatch.setattr(fonts, "_installed", fonts._installed.__wrapped__)
    monkeypatch.setattr(fonts, "_owner", {})
    assert can_draw("cat")
    assert escaped(CAT) == "\\u732b"
