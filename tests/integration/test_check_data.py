"""``passl-check --data`` as a real command: interrupted, killed, on a terminal, and its report."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import RunFolder, digits_config
from terminal import on_terminal

from passl.cli import check


@pytest.fixture
def checked(tmp_path: Path) -> RunFolder:
    """A config over 300 training and 20 evaluation JPEG files named by lists."""
    run = RunFolder(tmp_path / "run")
    config = digits_config(run.root / "out")
    rng = np.random.default_rng(0)
    for part, count in (("Train", 300), ("Eval", 20)):
        folder = tmp_path / part
        folder.mkdir()
        lines = []
        for number in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.jpg")
            lines.append(f"{number}.jpg {number % 10}")
        (tmp_path / f"{part}.txt").write_text("\n".join(lines) + "\n")
        config["DataLoader"][part]["dataset"] = {
            "name": "ImageNetDataset",
            "image_root": str(folder),
            "cls_label_path": str(tmp_path / f"{part}.txt"),
        }
    run.config_file.write_text(yaml.safe_dump(config, sort_keys=False))
    return run


def check_data(run: RunFolder, *options: str) -> int:
    return check.main(["-c", str(run.config_file), "--data", *options])


def command(run: RunFolder, repo: Path, *options: str) -> list[str]:
    return [
        sys.executable, str(repo / "tools/check.py"), "-c", str(run.config_file), "--data", *options
    ]  # fmt: skip


def test_whole_data_gives_status_0_and_leaves_no_file(checked, capsys):
    assert check_data(checked) == 0
    out = capsys.readouterr().out
    assert "DataLoader.Train: 300 of 300 samples checked" in out
    assert "0 images in both data sets" in out
    assert not (checked.root / "out").exists()


def test_missing_files_are_all_named_though_a_run_would_not_start(checked, tmp_path, capsys):
    for number in (0, 150, 299):  # of 100 files that a run looks at are the first and the last
        (tmp_path / "Train" / f"{number}.jpg").unlink()
    assert check_data(checked) == 2
    out = capsys.readouterr().out
    assert "DataLoader.Train: 300 of 300 samples checked" in out
    assert "3 missing" in out
    assert "DataLoader.Eval: 20 of 20 samples checked" in out


def test_the_report_names_everything_that_is_wrong(checked, tmp_path, capsys):
    train, report = tmp_path / "Train", tmp_path / "report.json"
    whole = (train / "7.jpg").read_bytes()
    (train / "7.jpg").write_bytes(whole[: len(whole) // 2])
    (train / "8.jpg").write_text("not an image")
    (train / "9.jpg").write_bytes(b"")
    Image.open(train / "10.jpg").save(train / "10.png")
    (train / "10.png").replace(train / "10.jpg")  # a PNG named .jpg is an image
    (train / "299.jpg").write_bytes((tmp_path / "Eval/5.jpg").read_bytes())
    (train / "298.jpg").write_bytes((train / "20.jpg").read_bytes())
    (train / "150.jpg").unlink()
    assert check_data(checked, "--report", str(report)) == 2
    found = json.loads(report.read_text())
    assert (found["ok"], found["data"]["Train"]["ok"], found["data"]["Eval"]["ok"]) == (
        False, False, True
    )  # fmt: skip
    section = found["data"]["Train"]
    assert [fault["index"] for fault in section["unreadable"]] == [7, 8, 9]
    assert section["unreadable"][2]["reason"] == "the file is empty"
    assert [fault["index"] for fault in section["missing"]] == [150]
    assert section["label_range"] == [0, 9]
    assert sum(section["class_counts"]) == 300
    (leak,) = found["duplicates"]["between"]
    assert [(copy["section"], copy["index"]) for copy in leak] == [("Train", 299), ("Eval", 5)]
    (conflict, _) = found["duplicates"]["conflicting"]
    assert [(copy["index"], copy["label"]) for copy in conflict] == [(20, 0), (298, 8)]
    out = capsys.readouterr().out
    assert "3 unreadable" in out
    assert f"the whole report is in {report}" in out
    assert not Path(f"{report}.tmp").exists()


def test_copies_alone_are_told_but_are_no_mistake(checked, tmp_path, capsys):
    (tmp_path / "Train/299.jpg").write_bytes((tmp_path / "Eval/9.jpg").read_bytes())
    assert check_data(checked) == 0
    assert "1 image in both data sets: evaluation is not on unseen" in capsys.readouterr().out


def test_labels_that_the_model_has_no_class_for_are_a_mistake(checked, capsys):
    assert check_data(checked, "-o", "Model.class_num=9") == 2
    out = capsys.readouterr().out
    assert "30 with a label out of range" in out
    assert "the label 9 is not from 0 to 8" in out


def test_empty_classes_are_told(checked, capsys):
    assert check_data(checked, "-o", "Model.class_num=12") == 0
    assert "2 classes (10, 11) without a sample" in capsys.readouterr().out


def test_a_picture_of_the_classes_is_drawn(checked, tmp_path, capsys):
    picture = tmp_path / "classes.png"
    assert check_data(checked, "--picture", str(picture)) == 0
    assert f"the picture of the classes is in {picture}" in capsys.readouterr().out
    with Image.open(picture) as image:
        assert image.height == 640  # Train and Eval


def test_a_report_that_cannot_be_written_is_told_before_anything_is_read(checked, capsys):
    assert check_data(checked, "--report", str(checked.root / "none/report.json")) == 2
    captured = capsys.readouterr()
    assert "a file cannot be written there" in captured.err
    assert "samples checked" not in captured.out


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[Any]) -> None:
    while not condition():
        assert process.poll() is None, "the command ended before it was stopped"
        time.sleep(0.01)


HANGING = """
import sys, time
from passl.cli import check
from passl.data.dataset import FileDataset

load = FileDataset.load

def hanging(dataset, index):
    if dataset.path_of(index).endswith("Train/251.jpg"):
        time.sleep(3600)  # as a dead network disk does
    return load(dataset, index)

FileDataset.load = hanging
sys.exit(check.main())
"""


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT], ids=lambda s: s.name)
def test_a_stopped_check_continues_where_it_was(
    checked, tmp_path, repo, user_environment, stop, capsys
):
    state = tmp_path / "state"
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING, *command(checked, repo, "--state", str(state))[2:]],
        env=user_environment, cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_for(lambda: state.exists() and '"start": 128' in state.read_text(), process)
    process.send_signal(stop)
    _, err = process.communicate(timeout=300)
    if stop is signal.SIGINT:
        assert process.returncode == 130
        assert f"the same command continues from {state}" in err
        assert "Traceback" not in err
    secret = tmp_path / "Train/10.jpg"  # other bytes, same size and times: seen only if read again
    status = secret.stat()
    secret.write_bytes(b"x" * status.st_size)
    os.utime(secret, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check_data(checked, "--state", str(state)) == 0
    out = capsys.readouterr().out
    assert "192 of 300 samples were checked before" in out
    assert "DataLoader.Train: 300 of 300 samples checked" in out
    assert not state.exists()  # complete: the next check reads everything
    assert check_data(checked, "--state", str(state)) == 2


def test_progress_and_time_left_are_shown_on_a_terminal(checked, repo, user_environment):
    """On a pseudo terminal the command believes in, as a person would see it."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        command(checked, repo, "--workers", "1"),
        env={**user_environment, "TERM": "xterm"}, cwd=repo, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown = b""
    while True:
        readable, _, _ = select.select([master], [], [], 300)
        assert readable, "the command said nothing for five minutes"
        try:
            data = os.read(master, 4096)
        except OSError:  # the other end is closed
            break
        if not data:
            break
        shown += data
    os.close(master)
    assert process.wait(300) == 0
    text = shown.decode()
    speed = r"\d+(\.\d)? samples/s"
    assert re.search(rf"DataLoader\.Train \[#+-*\] \d+/300 +{speed} +eta \d+:\d\d:\d\d", text)
    assert "DataLoader.Train [####################] 300/300" in text
    assert text.rstrip().splitlines()[-1].startswith("  0 images with copies")


def test_the_report_wraps_between_words_on_a_terminal(checked):
    code = (
        "from passl.cli import check\n"
        f"check.main(['-c', {str(checked.config_file)!r}, '--data', '--workers', '1'])"
    )
    screen, _ = on_terminal(code, columns=60, may_wrap=True)
    said = [line.rstrip() for line in screen.lines]
    start = said.index("DataLoader.Train: 300 of 300 samples checked")
    assert max(map(len, said[start:])) < 60
    assert said[start + 1].startswith("  10 classes with 30 to 30 samples, ")
    assert said[start + 2].startswith("    "), "the rest of a line is told from the next"
    assert "  0 missing" in said
