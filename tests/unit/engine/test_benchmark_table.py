"""The arithmetic and the lines of the benchmarks' tables."""

from __future__ import annotations

import importlib
import platform
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[3] / "benchmarks"


@pytest.fixture
def table(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield importlib.import_module("against_torch")
    for name in ("against_torch", "duel", "marks", "measured"):
        sys.modules.pop(name, None)


def test_a_line_compares_the_medians_of_the_right_clock(table):
    timings = {
        "torch": table.Timing(wall=[9.0, 9.0, 9.0], cpu=[0.9, 0.2, 0.1]),
        "passl": table.Timing(wall=[3.0, 18.0, 18.0], cpu=[0.3, 0.1, 0.05]),
    }
    line = table.row("ti", "train", 1, timings)
    assert line == "| ViT-Ti/16, batch 8: training step | 1 | 200 ms | 100 ms | 0.50 | 1.1 |"
    assert "| 2 | 9000 ms | 18000 ms | 2.00 |" in table.row("ti", "train", 2, timings)


def test_contestants_take_turns_and_the_first_is_not_counted(table):
    asked = []

    class Fake:
        def __init__(self, name):
            self.name = name

        def ask(self, task):
            asked.append(self.name)
            return {"wall": float(len(asked)), "cpu": 0.0}

    timings = table.take_turns({"a": Fake("a"), "b": Fake("b")}, "train", 2)
    assert asked == ["a", "b"] * 3
    assert timings["a"].wall == [3.0, 5.0]
    assert timings["b"].wall == [4.0, 6.0]


def test_a_table_replaces_the_one_between_its_marks(table, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- table: x -->\nold\n<!-- end of table: x -->\nb\n")
    table.put_table(page, "x", "new")
    assert page.read_text() == "a\n<!-- table: x -->\n\nnew\n\n<!-- end of table: x -->\nb\n"
    with pytest.raises(SystemExit, match="no lines"):
        table.put_table(page, "y", "new")


def test_the_line_above_a_table_names_the_machine_and_what_is_installed(table, tmp_path):
    measured = sys.modules["measured"]
    line = measured.measured("numpy", "no-such-package")
    assert re.match(r"Measured \d{4}-\d\d-\d\d on .+, \d+ cores?; ", line)
    assert f"; Python {platform.python_version()}, paddlepaddle" in line
    assert line.endswith(f", numpy {version('numpy')}")
    facts = tmp_path / "cpuinfo"
    facts.write_text("processor\t: 0\nmodel name\t: A Fast One @ 2 GHz\nprocessor\t: 1\n")
    assert measured.processor(facts) == "A Fast One @ 2 GHz"


def test_another_interpreter_is_asked_without_importing_its_packages(table):
    folder = Path(sys.executable).parent
    other = f"{folder}/../{folder.name}/python"  # the same one, by another path
    found = sys.modules["measured"].versions(["numpy", "no-such-package"], other)
    assert found == [f"numpy {version('numpy')}"]


def test_every_table_of_the_page_says_where_it_was_measured():
    page = (BENCHMARKS / "README.md").read_text(encoding="utf-8")
    tables = re.findall(r"<!-- table: (\w+) -->\s*(.*)", page)
    assert tables
    said = re.compile(r"Measured \d{4}-\d\d-\d\d on .+, \d+ cores?; Python 3\.\d+\.\d+")
    assert [name for name, line in tables if not said.match(line)] == []


def test_no_script_makes_that_line_by_itself():
    own = [
        script.name
        for script in BENCHMARKS.glob("*.py")
        if "Measured {" in script.read_text(encoding="utf-8") and script.name != "measured.py"
    ]
    assert own == []
