"""List files are read exactly, compactly, and their first fault is named."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from passl.data import lists
from passl.data.lists import line_number, read_list
from passl.data.names import read_names
from passl.data.table import TableBuilder
from passl.errors import ConfigError, DataError


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "list.txt"
    path.write_bytes(data)
    return path


def slow_read(data: bytes, delimiter: bytes) -> list[tuple[bytes, list[int]]]:
    """The format read line by line: the oracle."""
    entries = []
    for line in data.split(b"\n"):
        line = line.rstrip(b" \t\r")
        if line:
            path, _, label = line.rpartition(delimiter)
            entries.append((path, [int(number) for number in label.split(b",")]))
    return entries


@pytest.mark.parametrize("block", [7, 64, 1 << 22])
@pytest.mark.parametrize("multi_label", [False, True])
@pytest.mark.parametrize("delimiter", [" ", "\t", ";"])
def test_block_reader_equals_line_by_line_reader(
    tmp_path, monkeypatch, block, multi_label, delimiter
):
    monkeypatch.setattr(lists, "_BLOCK", block)
    rng = np.random.default_rng(1)
    names = ["a.jpg", "dir/b c.jpg", "n01/ü 😀.JPEG", "x,y/3,4.png", "p" * 300 + "/q.jpg", "1 2"]
    ends = ["\n", "\r\n", " \n", "\n\n", "\n  \r\n", "\t\n"]
    text = ""
    for _ in range(200):
        count = int(rng.integers(1, 5)) if multi_label else 1
        labels = ",".join(str(v) for v in rng.integers(0, 21841, count))
        text += rng.choice(names) + delimiter + labels + rng.choice(ends)
    data = text.encode() + b"last/\xff\xfe.jpg" + delimiter.encode() + b"7"  # no newline at the end
    path = write(tmp_path, data)
    table = read_list(path, delimiter=delimiter, multi_label=multi_label, class_num=21841)
    expected = slow_read(data, delimiter.encode())
    assert len(table) == len(expected) == 201
    for index, (name, labels) in enumerate(expected):
        assert table.name(index) == name.decode("utf-8", "surrogateescape")
        found = table.label(index)
        assert (found.tolist() if multi_label else [found]) == labels
    counts = np.bincount([label for _, labels in expected for label in labels], minlength=21841)
    np.testing.assert_array_equal(table.class_counts(21841), counts)


def test_line_numbers_count_blank_lines(tmp_path):
    path = write(tmp_path, b"\n\na 1\n  \nb 2\n")
    assert [line_number(path, index) for index in (0, 1)] == [3, 5]
    with pytest.raises(IndexError):
        line_number(path, 2)
    assert line_number(write(tmp_path, b"\xef\xbb\xbf\r\na 1\r\n"), 0) == 2


ONE = "wanted: 'path label'"
SET = "wanted: 'path label,label,...'"


@pytest.mark.parametrize(
    ("line", "multi_label", "text"),
    [
        ("cat.jpg", False, f"no label: there is no delimiter ' ' in the line; {ONE}"),
        ("cat.jpg ", False, f"no label: there is no delimiter ' ' in the line; {ONE}"),
        (
            "cat.jpg\t5",
            False,
            "no label: there is no delimiter ' ' in the line, but '\\t' before a number; wanted",
        ),
        (
            "a.jpg,5",
            False,
            "no label: there is no delimiter ' ' in the line, but ',' before a number; wanted",
        ),
        (" 5", False, f"no path before the delimiter ' '; {ONE}"),
        ("a.jpg cat", False, f"the label 'cat' is not a whole number; {ONE}"),
        ("a.jpg 1.5", False, f"the label '1.5' is not a whole number; {ONE}"),
        ("a.jpg 1,2", False, f"the label '1,2' is not a whole number; {ONE}"),
        ("a.jpg -1", False, "the label -1 is negative; labels count from 0"),
        ("a.jpg +1", False, "the label '+1' must be written with 1 to 9 digits"),
        (
            "a.jpg 1234567890",
            True,
            "the label 1234567890 is out of range: class_num is 10, so labels",
        ),
        (
            "a.jpg 10",
            False,
            "the label 10 is out of range: class_num is 10, so labels go from 0 to 9",
        ),
        (
            "a.jpg 3,10,4",
            True,
            "the label 10 is out of range: class_num is 10, so labels go from 0 ",
        ),
        ("a.jpg 3,,4", True, f"the label '' is not a whole number; {SET}"),
        ("a.jpg 3,4,", True, f"the label '' is not a whole number; {SET}"),
        ("a.jpg ,3", True, f"the label '' is not a whole number; {SET}"),
        ("a.jpg 3,-4", True, "the label -4 is negative; labels count from 0"),
        ("a.jpg", True, f"no label: there is no delimiter ' ' in the line; {SET}"),
    ],
)
@pytest.mark.parametrize("block", [16, 1 << 22])
def test_first_bad_line_is_named_with_its_text(
    tmp_path, monkeypatch, block, line, multi_label, text
):
    monkeypatch.setattr(lists, "_BLOCK", block)
    good = "fine/path 3.jpg 9\n\n" * 20
    path = write(tmp_path, f"{good}{line}\nalso bad\n{good}".encode())
    with pytest.raises(DataError) as error:
        read_list(path, multi_label=multi_label, class_num=10)
    assert str(error.value).startswith(f"{path}:41: {text}")
    assert str(error.value).endswith(f"  the line: {line.rstrip()}")


def test_a_very_long_bad_line_is_shortened(tmp_path):
    path = write(tmp_path, b"x" * 5000 + b"\n")
    with pytest.raises(DataError) as error:
        read_list(path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("data", [b"", b"\n\n", b"  \n\t\r\n"])
def test_an_empty_list_is_an_error(tmp_path, data):
    path = write(tmp_path, data)
    with pytest.raises(DataError) as error:
        read_list(path)
    assert str(error.value) == f"{path}: the list is empty; it needs one 'path label' a line"


@pytest.mark.parametrize("delimiter", ["", "::", "\n", "5", "é"])
def test_a_delimiter_that_cannot_work_is_refused(tmp_path, delimiter):
    with pytest.raises(ConfigError, match="must be one ASCII character"):
        read_list(write(tmp_path, b"a 1\n"), delimiter=delimiter)


def test_commas_cannot_be_delimiter_and_label_separator_at_once(tmp_path):
    with pytest.raises(ConfigError, match="separates the labels of a multi_label list"):
        read_list(write(tmp_path, b"a,1\n"), delimiter=",", multi_label=True)
    assert read_list(write(tmp_path, b"a,1\n"), delimiter=",").label(0) == 1


def test_a_large_list_costs_its_bytes_and_little_more(tmp_path):
    count = 200_000
    lines = [f"n{i % 21841:08d}/n{i % 21841:08d}_{i}.JPEG {i % 21841}\n" for i in range(count)]
    data = "".join(lines).encode()
    path = write(tmp_path, data)
    paths = sum(len(line.rpartition(" ")[0]) for line in lines)
    del lines
    tracemalloc.start()
    table = read_list(path, class_num=21841)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert table.nbytes == paths + 8 * (count + 1) + 4 * count
    # What stays: the table (its path buffer is as long as the file, the rest never touched).
    assert kept < len(data) + 12 * count + 100_000
    # 2 GB for 14 million are 153 bytes an entry; the fixed cost of one block of lines is set apart.
    block_cost = 30 * lists._BLOCK
    assert peak < 100 * count + block_cost
    index = count - 1
    assert table.name(index) == f"n{index % 21841:08d}/n{index % 21841:08d}_{index}.JPEG"


@pytest.mark.parametrize("block", [1, 1 << 20])
def test_the_mark_of_an_editor_is_no_part_of_the_first_path(tmp_path, monkeypatch, block):
    monkeypatch.setattr(lists, "_BLOCK", block)
    path = write(tmp_path, b"\xef\xbb\xbfa.jpg 1\nb.jpg 2\n")
    table = read_list(path)
    assert [(table.name(i), table.label(i)) for i in range(2)] == [("a.jpg", 1), ("b.jpg", 2)]
    path.write_bytes(b"\xef\xbb\xbfcat\ndog\n")
    assert read_names(path) == ["cat", "dog"]


def test_builder_makes_the_same_table_entry_by_entry():
    builder = TableBuilder()
    entries = [("a/b.jpg", 0), ("ü/\udcff.jpg", 7), ("", 3)]
    for name, label in entries:
        builder.append(name, label)
    table = builder.finish()
    assert [(table.name(i), table.label(i)) for i in range(len(table))] == entries
    assert table.labels.dtype == np.int32
    assert not table.multi_label
