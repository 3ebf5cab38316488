"""What all pictures share: words stay words, lines fit, and what cannot be drawn is said."""

from __future__ import annotations

import logging
import os

import numpy as np
import pytest
from font_files import CAT, DOG, only_these_fonts

from passl.errors import ConfigError
from passl.visualize import schedule
from passl.visualize.figure import (
    add_heading,
    new_figure,
    require_folder,
    save_figure,
    short,
    wrapped,
)


def test_dollars_in_names_are_no_formulas(tmp_path):
    with new_figure(4, 1) as figure:
        add_heading(figure, "from $5 to $6", "a_$b$")
        assert not any(text.get_parse_math() for text in figure.texts)
        save_figure(figure, tmp_path / "a.png")


def test_the_ticks_of_a_logarithmic_axis_are_numbers(tmp_path, monkeypatch):
    seen = []

    def save(figure, path):
        figure.draw_without_rendering()
        seen.extend(label.get_text() for label in figure.axes[-1].get_yticklabels())
        return path

    monkeypatch.setattr(schedule, "save_figure", save)
    steps = np.arange(1000)
    curves = [
        schedule.Curve("lr", "learning rate", np.ones(1000)),
        schedule.Curve("ema_decay", "1 - decay", 1 - 1 / (1.0 + steps), is_log=True),
    ]
    plan = schedule.RunSchedule(steps, 100, 1000, curves, {}, [])
    schedule.draw_schedule(plan, tmp_path / "a.png", title="x")
    numbers = [text.replace("\N{MINUS SIGN}", "-") for text in seen if text]
    assert 0.01 in [float(text) for text in numbers]


def test_letters_without_a_font_are_named_once(tmp_path, caplog):
    lacking = chr(0x10FFFD)  # for private use: no font has it
    with caplog.at_level(logging.WARNING, "passl"), new_figure(4, 1) as figure:
        add_heading(figure, f"x{lacking}", f"{lacking}{lacking}")
        save_figure(figure, tmp_path / "a.png")
    (record,) = caplog.records
    assert f"a.png: no font on this machine has {lacking}; codes" in record.getMessage()
    assert [text.get_text() for text in figure.texts] == ["x\\U0010fffd", "\\U0010fffd" * 2]


def test_labels_of_ticks_have_codes_too_and_the_font_that_has_their_letters(
    tmp_path, monkeypatch
):
    only_these_fonts(monkeypatch, tmp_path, {"Cats": CAT})
    with new_figure(4, 2) as figure:
        axes = figure.add_subplot()
        axes.set_xticks([0, 1], [f"{CAT}", f"1 {DOG}"])
        save_figure(figure, tmp_path / "a.png")
    first, second = axes.get_xticklabels()
    assert (first.get_text(), second.get_text()) == (CAT, "1 \\u72d7")
    assert first.get_fontfamily() == ["DejaVu Sans", "Cats"]


@pytest.mark.parametrize("columns", [20, 31, 200])
def test_paths_are_broken_after_a_slash(columns):
    text = "output/quickstart/VisionTransformer/checkpoints/step_00000044/model.pdparams"
    lines = wrapped(text, columns).splitlines()
    assert "".join(lines) == text
    assert all(len(line) <= columns for line in lines)
    assert all(line.endswith("/") for line in lines[:-1])


def test_words_are_wrapped_as_ever():
    assert wrapped("the quick brown fox jumps", 10) == "the quick\nbrown fox\njumps"
    assert wrapped("x" * 25, 10) == "\n".join(["x" * 10, "x" * 10, "x" * 5])


def test_a_place_that_takes_no_pictures_is_refused_first(tmp_path, monkeypatch):
    require_folder(tmp_path / "of" / "it")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="file is a file; name another folder"):
        require_folder(tmp_path / "file" / "of")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="no file can be written there"):
        require_folder(tmp_path / "of")


def test_a_cut_text_takes_the_room_it_may():
    assert short("four", 4) == "four"
    assert short("fives", 4) == "fiv\N{HORIZONTAL ELLIPSIS}"
    assert short("\u732b\u72d7\u9e1f", 6) == "\u732b\u72d7\u9e1f"
    assert short("\u732b\u72d7\u9e1f", 5) == "\u732b\u72d7\N{HORIZONTAL ELLIPSIS}"
