"""The live line on a real pseudo terminal, seen through a small model of a screen."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys

import pytest
from terminal import on_terminal

from passl.logs.progress import CountProgress, ProgressBar

RUN = """
from passl.logs.logger import setup_logging
from passl.logs.progress import ProgressBar
logger = setup_logging(None)
bar = ProgressBar(min_interval_s=0.0)
for step in range(1, 4):
    bar.update(label="epoch 1/2", done=step, total=8, loss=2.5, lr=1e-3, ips=123.45, eta_s=3661)
    logger.info("line %d", step)
"""


def test_log_lines_stay_whole_above_the_live_line():
    screen, _ = on_terminal(RUN)
    assert [line[-6:] for line in screen.lines[:3]] == ["line 1", "line 2", "line 3"]
    assert all(re.match(r"\d\d:\d\d:\d\d line \d$", line) for line in screen.lines[:3])
    assert screen.lines[3:] == [
        "epoch 1/2 [#######-------------] 3/8  loss 2.5000  lr 0.001  123.5 img/s  eta 1:01:01"
    ]


def test_closing_leaves_only_the_log_lines():
    screen, _ = on_terminal(RUN + "bar.close()\nlogger.info('after')")
    assert len(screen.lines) == 5
    assert screen.lines[3].endswith("after")
    assert screen.lines[4] == ""


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (
            200,
            "epoch 1/2 [#######-------------] 3/8  loss 2.5000  lr 0.001  123.5 img/s  eta 1:01:01",
        ),
        (80, "epoch 1/2 [###-------] 3/8  loss 2.5000  lr 0.001  123.5 img/s  eta 1:01:01"),
        (70, "epoch 1/2 [###-------] 3/8  loss 2.5000  lr 0.001  eta 1:01:01"),
        (52, "epoch 1/2 [#######-------------] 3/8  eta 1:01:01"),
        (38, "epoch 1/2 3/8  eta 1:01:01"),
        (22, "3/8  eta 1:01:01"),
        (12, "3/8"),
    ],
)
def test_a_narrow_terminal_has_a_shorter_line_that_keeps_the_whole_time_left(columns, shown):
    screen, _ = on_terminal(RUN.replace('logger.info("line %d", step)', "pass"), columns=columns)
    assert screen.lines == [shown]


def test_it_is_drawn_at_most_five_times_a_second():
    code = (
        "from passl.logs.progress import ProgressBar\n"
        "hundredths = iter(range(100))\n"
        "with ProgressBar(clock=lambda: next(hundredths) / 100) as bar:\n"
        "    for _ in range(100):\n"
        "        bar.update(label='x', done=1, total=10)\n"
    )
    _, data = on_terminal(code)
    assert data.count(b"] 1/10") in (4, 5)  # 0.6 - 0.4 is a little less than 0.2


@pytest.mark.parametrize("term", ["dumb", ""])
def test_a_terminal_without_control_codes_gets_none(term):
    screen, data = on_terminal(RUN, term=term)
    assert b"\033" not in data
    assert len(screen.lines) == 4


def test_where_there_is_no_terminal_nothing_is_written():
    process = subprocess.run(
        [sys.executable, "-c", RUN], capture_output=True, text=True, check=True
    )
    assert process.stderr == ""
    assert "\r" not in process.stdout
    assert len(process.stdout.splitlines()) == 3


def test_the_last_step_is_always_drawn():
    stream = io.StringIO()
    bar = ProgressBar(stream, is_on=True, min_interval_s=1e9)
    for step in range(1, 6):
        bar.update(label="x", done=step, total=5)
    assert "1/5" in stream.getvalue()
    assert stream.getvalue().endswith("[####################] 5/5")


def test_a_closed_terminal_does_not_stop_the_run():
    stream = io.StringIO()
    bar = ProgressBar(stream, is_on=True, min_interval_s=0.0)
    stream.close()
    bar.update(label="x", done=1, total=5)
    assert not bar.is_on
    bar.close()


@pytest.mark.parametrize("columns", range(20, 110))
def test_the_line_leaves_room_for_what_a_terminal_shows_of_ctrl_c(columns, monkeypatch):
    monkeypatch.setattr("passl.logs.progress.columns_of", lambda _: columns)
    stream = io.StringIO()
    bar = ProgressBar(stream, is_on=True)
    bar.update(label="epoch 1/60", done=17, total=22, loss=2.3, lr=4e-4, ips=776.5, eta_s=107.0)
    line = stream.getvalue().replace("\r\033[K", "")
    assert len(line + "^C") < columns


def test_what_a_command_says_stands_on_lines_of_its_own():
    screen, _ = on_terminal("""
from passl.logs.progress import CountProgress
with CountProgress("hashing", unit="files") as progress:
    progress(1, 1)
    progress.say("writing the lists")
print("done")
""")
    assert [line for line in screen.lines if line] == ["writing the lists", "done"]


def test_what_was_known_tells_nothing_of_the_speed():
    """1000 files known in a second, then 10 a second: 90 that are left take 9 seconds."""
    clock, stream = iter([0.0, 1.0, 2.0]), io.StringIO()
    progress = CountProgress(
        "hashing", unit="files", stream=stream, every_s=0, clock=lambda: next(clock)
    )
    progress(1000, 1100, 1000)
    progress(1010, 1100, 1000)
    assert stream.getvalue() == "hashing: 1,010 of 1,100 files, 10 a second, eta 0:00:09\n"


def test_work_goes_on_when_the_reader_of_its_output_has_left(monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        progress = CountProgress("hashing")
        progress.say("listing")
        progress.say("x" * 100_000)
        monkeypatch.undo()
        os.dup2(os.open(os.devnull, os.O_WRONLY), writer)
    assert stdout.closed
