"""A contact sheet has names in any script, or numbers, and says which font would help."""

from __future__ import annotations

import logging

import numpy as np
from font_files import CAT, DOG, only_these_fonts
from PIL import Image

from passl.export.predictor import Guess, Prediction
from passl.export.sheet import write_sheet


def sheet(path, *names: str) -> np.ndarray:
    guesses = tuple(Guess(number, name, 0.25) for number, name in enumerate(names))
    write_sheet(path, [Prediction("a.png", guesses, np.zeros((4, 4, 3), np.uint8))])
    return np.asarray(Image.open(path))


def test_a_name_that_cannot_be_drawn_is_the_number_of_its_class(tmp_path, monkeypatch, caplog):
    only_these_fonts(monkeypatch, tmp_path, {"Cats": CAT})
    with caplog.at_level(logging.WARNING, "passl"):
        found = sheet(tmp_path / "a.png", CAT, f"{DOG}{CAT}")
        sheet(tmp_path / "b.png", DOG, DOG)
    (record,) = caplog.records
    assert f"a.png: no font on this machine has {DOG}; " in record.getMessage()
    np.testing.assert_array_equal(found, sheet(tmp_path / "c.png", CAT, "class 1"))
    assert (found != sheet(tmp_path / "d.png", "class 0", "class 1")).any()
