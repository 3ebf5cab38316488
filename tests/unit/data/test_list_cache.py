"""A long list is parsed once; a change of anything makes its table anew."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np
import pytest

from passl.data import kept, list_cache
from passl.data.list_cache import read_list_once
from passl.data.lists import read_list
from passl.data.table import SampleTable
from passl.errors import DataError


@pytest.fixture
def every_list(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Lists of any length are kept; the names of those that are parsed."""
    parsed = []

    def spy(path: Path, **options: object) -> SampleTable:
        parsed.append(path.name)
        return read_list(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(list_cache, "_WORTH_IT", 0)
    monkeypatch.setattr(list_cache, "read_list", spy)
    return parsed


def equal(one: SampleTable, other: SampleTable) -> bool:
    pairs = zip(
        (one.names, one.offsets, one.labels, one.label_offsets),
        (other.names, other.offsets, other.labels, other.label_offsets),
    )
    return all((a is None and b is None) or np.array_equal(a, b) for a, b in pairs)  # type: ignore[arg-type]


@pytest.mark.parametrize("multi_label", [False, True])
def test_the_table_is_the_one_of_the_list_and_is_mapped(tmp_path, every_list, multi_label):
    path = tmp_path / "list.txt"
    path.write_bytes(b"a b.jpg 1\n\\new\\nline.jpg 0\n\xff.jpg 2" + b",1" * multi_label)
    first = read_list_once(path, multi_label=multi_label)
    second = read_list_once(path, multi_label=multi_label)
    assert every_list == ["list.txt"]
    assert equal(first, second)
    assert equal(first, read_list(path, multi_label=multi_label))
    assert isinstance(first.names, np.memmap)  # of the process that made it, too
    assert second.name(1) == "new\nline.jpg"


def test_a_changed_list_and_other_options_are_read_anew(tmp_path, every_list):
    path = tmp_path / "list.txt"
    path.write_text("a 1\nb 2\n")
    read_list_once(path)
    path.write_text("a 1\nb 3\n")  # of the same size
    os.utime(path, ns=(1, 1))
    assert read_list_once(path).label(1) == 3
    assert read_list_once(path, class_num=4).label(1) == 3
    assert read_list_once(path, multi_label=True).multi_label
    with pytest.raises(DataError, match=r"list.txt:2: the label 3 is out of range"):
        read_list_once(path, class_num=3)
    assert len(every_list) == 5


def test_a_damaged_table_is_made_anew(tmp_path, every_list, caplog):
    path, cache = tmp_path / "list.txt", tmp_path / "list.txt.table"
    path.write_text("a 1\nb 2\n")
    read_list_once(path)
    cache.write_bytes(cache.read_bytes()[:-80])
    with caplog.at_level(logging.WARNING, logger="passl"):
        assert len(read_list_once(path)) == 2
    assert "list.txt.table is made anew" in caplog.text
    assert len(every_list) == 2


def test_a_folder_that_cannot_be_written_costs_a_warning(tmp_path, every_list, caplog, monkeypatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(kept, "write_table_file", refuse)
    path = tmp_path / "list.txt"
    path.write_text("a 1\nb 2\n")
    with caplog.at_level(logging.WARNING, logger="passl"):
        assert equal(read_list_once(path), read_list(path))
    assert "the table cannot be kept (Permission denied)" in caplog.text


def test_short_lists_leave_no_file(tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("a 1\nb 2\n")
    assert len(read_list_once(path)) == 2
    assert os.listdir(tmp_path) == ["list.txt"]
