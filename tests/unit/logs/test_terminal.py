"""What a person at a terminal sees, and what files and pipes get, on a real pseudo terminal."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys

import pytest
from terminal import on_terminal

from passl.logs.logger import (
    close_logging,
    get_logger,
    setup_logging,
    warnings_of_command,
)

SAY = """
from passl.logs.logger import setup_logging
logger = setup_logging(None)
logger.info("short")
logger.warning("a warning")
logger.info("the whole", extra={"fields": ["one", "two two two", "three"]})
logger.info("a detail", extra={"is_detail": True})
logger.info("well done", extra={"is_good": True})
logger.info("a sentence of many words that does not fit into the width of this terminal at all")
logger.info("  passl-eval -c some/long/path/to/a/config.yaml -o Global.output_dir=/tmp/elsewhere")
"""
CLOCK = r"\d\d:\d\d:\d\d "


@pytest.fixture(autouse=True)
def _no_colour_settings(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)


def text(data: bytes) -> list[str]:
    plain = re.sub(r"\033\[\d*m", "", data.decode())
    return plain.replace("\r", "").splitlines()


def piped(**environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", SAY],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **environment},
    ).stdout


def test_lines_on_a_terminal_are_short_and_as_wide_as_it():
    _, data = on_terminal(SAY.replace("  passl-eval", "x"), columns=46)
    lines = text(data)
    assert re.fullmatch(CLOCK + "short", lines[0])
    assert re.fullmatch(CLOCK + "WARNING: a warning", lines[1])
    assert re.fullmatch(CLOCK + "one  two two two  three", lines[2])
    assert re.fullmatch(CLOCK + "well done", lines[3])
    assert re.fullmatch(CLOCK + "a sentence of many words that does", lines[4])
    assert lines[5] == " " * 9 + "not fit into the width of this"
    assert "a detail" not in data.decode()


@pytest.mark.parametrize(("columns", "shown"), [(22, "one"), (30, "one  two two two")])
def test_fields_that_do_not_fit_are_left_out_from_the_end(columns, shown):
    _, data = on_terminal(SAY.split("logger.info")[0] + '''
logger.info("the whole", extra={"fields": ["one", "two two two", "three"]})''', columns=columns)
    assert re.fullmatch(CLOCK + shown, text(data)[0])


def test_a_command_to_copy_is_one_line_with_nothing_before_it():
    main = SAY.split("logger.info")[0] + "logger.info" + SAY.split("logger.info")[-1]
    _, data = on_terminal(main, columns=200)
    assert text(data) == [
        "  passl-eval -c some/long/path/to/a/config.yaml -o Global.output_dir=/tmp/elsewhere"
    ]


def test_files_and_pipes_get_whole_plain_lines():
    lines = piped().splitlines()
    assert len(lines) == 7
    head = r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] passl (INFO|WARNING): "
    assert [re.sub(head, "", line) for line in lines[:5]] == [
        "short", "a warning", "the whole", "a detail", "well done",
    ]
    assert all(re.match(head, line) for line in lines)
    assert "\033" not in "".join(lines)


def test_colours_are_for_terminals_and_no_color_takes_them_off(monkeypatch):
    _, data = on_terminal(SAY, columns=200)
    assert b"\033[33mWARNING\033[0m" in data
    assert b"\033[32mwell done\033[0m" in data
    monkeypatch.setenv("NO_COLOR", "1")
    _, data = on_terminal(SAY, columns=200)
    assert b"\033" not in data


def test_force_color_brings_colours_into_a_pipe_and_no_color_wins():
    assert "passl \033[33mWARNING\033[0m: a warning" in piped(FORCE_COLOR="1")
    assert "\033" not in piped(FORCE_COLOR="0")
    assert "\033" not in piped(FORCE_COLOR="1", NO_COLOR="1")


def test_a_mistake_in_the_command_is_wrapped_between_words():
    code = (
        "from passl.cli import train\n"
        "train.main(['-c', 'configs/there_is_no_such_file_of_this_long_name.yaml', '-o', 'x=1'])"
    )
    _, data = on_terminal(code, columns=60)
    assert all(len(line) < 60 or " " not in line.strip() for line in text(data)), data


def test_each_of_several_mistakes_begins_further_left_than_it_goes_on():
    code = (
        "from passl.cli import check\n"
        "check.main(['-c', 'quickstart/ViT_micro_digits', '-o', 'Global.epoch=3', 'Model.depth=0'])"
    )
    _, data = on_terminal(code, columns=40)
    first, *others = [line for line in text(data) if line.strip()]
    assert first.endswith("2 mistakes:")
    begun = [line for line in others if line.startswith("  -o ")]
    assert len(begun) == 2
    assert len(others) > 2
    assert all(line.startswith("    ") for line in others if line not in begun), others


def test_a_warning_of_a_command_is_told_once_as_its_errors_are(capsys, monkeypatch):
    """Paddle puts a handler of its own on the root logger, with the place in the source."""
    monkeypatch.setattr(get_logger(), "propagate", True)  # as in a process that has just begun
    before, root = list(get_logger().handlers), logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(root)
    try:
        with warnings_of_command("passl-visualize"):
            get_logger().warning("boxes stand for %s", "x")
            get_logger().info("a detail")
    finally:
        logging.getLogger().removeHandler(root)
    assert capsys.readouterr() == ("", "passl-visualize: boxes stand for x\n")
    assert get_logger().handlers == before
    assert get_logger().propagate


def test_a_run_takes_the_warnings_of_its_command_over(capsys, tmp_path):
    try:
        with warnings_of_command("passl-train"):
            setup_logging(tmp_path)
            get_logger().warning("odd")
    finally:
        close_logging()
    shown = capsys.readouterr()
    assert shown.err == ""
    assert shown.out.count("odd") == 1
