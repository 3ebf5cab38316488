"""The passl logger: one line, once, in the right places."""

from __future__ import annotations

import io
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from passl.errors import PasslError
from passl.logs.logger import close_logging, get_logger, release_log, setup_logging

STAMP = r"\[\d{4}/\d\d/\d\d \d\d:\d\d:\d\d\] "


@pytest.fixture(autouse=True)
def _quiet_afterwards():
    yield
    close_logging()


def test_the_prefix_is_that_of_passl_on_screen_and_in_the_file(tmp_path, capsys):
    setup_logging(tmp_path / "run").info("hello %d", 3)
    screen = capsys.readouterr()
    assert re.fullmatch(STAMP + "passl INFO: hello 3\n", screen.out)
    assert screen.err == ""
    assert (tmp_path / "run" / "train.log").read_text() == screen.out


def test_a_name_that_is_no_utf_8_is_in_the_file_and_no_defect_of_the_log(tmp_path, capsys):
    setup_logging(tmp_path).info("sample 3 (no utf\udcff.jpg) cannot be used")
    assert (tmp_path / "train.log").read_text().endswith("(no utf\\udcff.jpg) cannot be used\n")
    screen = capsys.readouterr()
    assert screen.out.endswith("(no utf\\udcff.jpg) cannot be used\n")
    assert "Logging error" not in screen.err


def test_setting_up_twice_prints_once_and_continues_the_file(tmp_path, capsys):
    setup_logging(tmp_path).info("one")
    setup_logging(tmp_path).info("two")
    assert capsys.readouterr().out.count("\n") == 2
    lines = (tmp_path / "train.log").read_text().splitlines()
    assert [line[-3:] for line in lines] == ["one", "two"]


def test_a_handler_on_the_root_logger_does_not_double_lines(tmp_path, capsys):
    """Paddle 2.6 installs one."""
    handler = logging.StreamHandler(sys.stdout)
    logging.getLogger().addHandler(handler)
    try:
        setup_logging(tmp_path).info("once")
    finally:
        logging.getLogger().removeHandler(handler)
    assert capsys.readouterr().out.count("once") == 1


@pytest.mark.parametrize(
    ("rank", "mode", "name"),
    [
        (0, "train", "train.log"),
        (0, "eval", "eval.log"),
        (3, "train", "rank_3.log"),
        (3, "eval", "eval_rank_3.log"),
    ],
)
def test_each_rank_has_its_file(tmp_path, rank, mode, name):
    setup_logging(tmp_path, rank, mode).info("hello")
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_what_is_held_back_touches_no_file_before_its_release(tmp_path, capsys):
    logger = setup_logging(tmp_path / "run", 1, held_back=True)
    logger.info("early")
    logger.error("seen")
    assert not (tmp_path / "run").exists()
    assert "seen" in capsys.readouterr().out
    release_log()
    logger.info("late")
    lines = (tmp_path / "run" / "rank_1.log").read_text().splitlines()
    assert [line.split("passl ")[1] for line in lines] == [
        "INFO: early",
        "ERROR: seen",
        "INFO: late",
    ]
    setup_logging(tmp_path / "other", 1, held_back=True).info("refused")
    close_logging()
    assert not (tmp_path / "other").exists()


def test_other_ranks_put_only_warnings_and_errors_on_screen_and_say_who_they_are(tmp_path, capsys):
    logger = setup_logging(tmp_path, rank=3)
    logger.info("quiet")
    logger.warning("loud")
    logger.error("louder")
    assert re.fullmatch(
        f"{STAMP}passl WARNING: \\[rank 3\\] loud\n{STAMP}passl ERROR: \\[rank 3\\] louder\n",
        capsys.readouterr().out,
    )
    lines = (tmp_path / "rank_3.log").read_text().splitlines()
    assert [line.split("passl ")[1] for line in lines] == [
        "INFO: quiet",
        "WARNING: loud",
        "ERROR: louder",
    ]


def test_colours_are_for_terminals_only(tmp_path, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, expected in (
        (io.StringIO(), "passl WARNING: x"),
        (Terminal(), "\033[33mWARNING\033[0m: x"),
    ):
        monkeypatch.setattr(sys, "stdout", stream)
        setup_logging(tmp_path).warning("x")
        assert expected in stream.getvalue()
    assert "\033" not in (tmp_path / "train.log").read_text()


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    setup_logging(None).info("hello")
    assert "hello" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_log_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(PasslError) as caught:
        setup_logging(tmp_path / "run")
    assert str(caught.value).startswith(f"cannot write the log {tmp_path / 'run' / 'train.log'}: ")
    assert str(caught.value).endswith("choose another Global.output_dir.")


def test_before_any_set_up_information_is_not_printed(capsys):
    get_logger().info("hello")
    assert capsys.readouterr().out == ""


def test_logging_does_not_import_paddle_or_numpy():
    code = (
        "import sys, passl.logs.logger, passl.logs.lines, passl.logs.progress, passl.logs.metrics\n"
        "print(sorted({'paddle', 'numpy', 'visualdl'} & set(sys.modules)))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_a_reader_that_leaves_does_not_disturb_the_run(tmp_path):
    code = (
        "import sys\n"
        "from passl.logs.logger import setup_logging\n"
        f"logger = setup_logging({str(tmp_path)!r})\n"
        "for number in range(20000):\n"
        "    logger.info('line %d', number)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert "line 0" in writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == ""
    assert writer.wait() == 0
    log = (tmp_path / "train.log").read_text()
    assert log.count("the screen is gone") == 1
    assert log.endswith("line 19999\n")


def test_forced_colours_paint_good_news_in_a_pipe_too(monkeypatch, capsys):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    logger = setup_logging(None)
    logger.info("best so far", extra={"is_good": True})
    logger.info("as ever")
    good, plain = capsys.readouterr().out.splitlines()
    assert good.startswith("\033[32m[")
    assert good.endswith("best so far\033[0m")
    assert "\033" not in plain


def test_a_log_that_is_moved_or_deleted_goes_on_in_a_new_file(tmp_path, capsys):
    logger = setup_logging(tmp_path)
    path = tmp_path / "train.log"
    logger.info("one")
    path.rename(tmp_path / "train.log.1")
    logger.info("two")
    path.unlink()
    logger.info("three")
    assert (tmp_path / "train.log.1").read_text().endswith("one\n")
    assert path.read_text().endswith("three\n")
    assert path.read_text().count("\n") == 1
    assert capsys.readouterr().err == ""


def test_a_log_whose_folder_is_gone_makes_it_anew(tmp_path):
    logger = setup_logging(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    logger.info("still here")
    assert (tmp_path / "run" / "train.log").read_text().endswith("still here\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_costs_lines_and_one_warning_until_there_is_room(tmp_path, capsys):
    logger = setup_logging(tmp_path)
    path = tmp_path / "train.log"
    path.unlink()
    path.symlink_to("/dev/full")
    for number in range(3):
        logger.info("line %d", number)
    screen = capsys.readouterr()
    assert screen.err == ""
    assert screen.out.count("the log is not written") == 1
    assert "No space left on device. Training goes on." in screen.out
    assert [f"line {number}" in screen.out for number in range(3)] == [True] * 3
    path.unlink()
    logger.info("room again")
    assert path.read_text().endswith("room again\n")


def test_a_program_without_a_screen_has_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    logger = setup_logging(tmp_path)
    logger.info("hello", extra={"is_detail": True})
    logger.warning("world")
    assert (tmp_path / "train.log").read_text().count("passl") == 2
