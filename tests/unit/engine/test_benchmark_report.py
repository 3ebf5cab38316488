"""What a benchmark says of its numbers, and that the file holds all of them."""

from __future__ import annotations

import json

import pytest

from passl.engine.measuring.benchmark_report import (
    Report,
    Timing,
    compare,
    read_report,
    write_report,
)
from passl.errors import ConfigError


def report(loader: float, step: float, passes: float = 0.0) -> Report:
    """Images a second of each part, for batches of 100 images and 6 GFLOP an image."""

    def timing(speed: float) -> Timing:
        return Timing(100 / speed, 90 / speed, 120 / speed, 100, 600e9, 1 / speed)

    timings = {"loader": timing(loader), "step": timing(step)}
    if passes:
        timings["forward_backward"] = timing(passes)
    about = {"model": "ViT", "num_workers": 4, "cores": 8}
    return Report(about, 1e12, 1, timings, {"host": 2**30})


@pytest.mark.parametrize(
    ("figures", "sentence"),
    [
        (
            (80, 100, 110),
            "The loader: alone it gives 80 images/s, a step alone takes 100; try more "
            "loader.num_workers (4 on 8 cores now), lighter transforms, or smaller images on disk.",
        ),
        (
            (500, 100, 105),
            "Computing: forward and backward are 95% of a step at 63% of the speed of a large "
            "matrix product; the loader could feed 5.0 times as much.",
        ),
        (
            (500, 50, 100),
            "The update: 50% of a step is neither forward nor backward (clipping, optimizer, "
            'metrics); passl-train -p "start=20;stop=30" shows which; the loader could feed 10.0 '
            "times as much.",
        ),
        ((500, 100), "The step; the loader could feed 5.0 times as much."),
    ],
)
def test_the_bottleneck_is_one_sentence(figures, sentence):
    assert report(*figures).bottleneck() == sentence


def test_utilisation_is_of_all_processes():
    one = report(500, 100, 100)
    two = Report(one.about, one.peak_flops, 2, one.timings, one.memory)
    assert one.utilisation("step") == pytest.approx(0.6)
    assert two.utilisation("step") == pytest.approx(0.3)
    assert one.utilisation("together") is None
    one.peak_flops = None
    assert one.utilisation("step") is None


def test_a_report_survives_its_file(tmp_path):
    written = report(500, 100, 105)
    path = tmp_path / "report.json"
    write_report(written, path)
    assert read_report(path) == written
    content = json.loads(path.read_text())
    assert content["timings"]["step"]["images_per_s"] == pytest.approx(100)
    assert content["timings"]["step"]["utilisation"] == pytest.approx(0.6)
    assert content["bottleneck"] == written.bottleneck()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("{", "is not JSON"),
        ("[]", "is not a report of passl-benchmark"),
        ('{"format": 7}', "is not a report of passl-benchmark"),
    ],
)
def test_a_file_that_is_no_report_is_refused(tmp_path, text, message):
    path = tmp_path / "x.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_report(path)


def test_two_reports_are_compared_by_what_both_measured():
    before, after = report(500, 100), report(400, 150, 200)
    after.about = {**after.about, "model": "ViT-S"}
    after.memory = {"host": 2**29}
    lines = compare(before, after).splitlines()
    assert lines[0] == "model: ViT -> ViT-S"
    rows = {line[:26].strip(): line[26:].split() for line in lines[2:]}
    assert rows["loader alone, im/s"] == ["500.0", "400.0", "0.8"]
    assert rows["step alone, im/s"] == ["100.0", "150.0", "1.5"]
    assert rows["memory MiB, host"] == ["1,024.0", "512.0", "0.5"]
    assert "forward and backward, im/s" not in rows


def test_the_table_shows_what_is_known_and_a_dash_for_what_is_not():
    shown = report(500, 100, 105)
    shown.timings["loader"] = Timing(0.2, 0.1, 0.3, 100)
    rows = [line.split() for line in shown.text().splitlines()]
    assert ["step", "alone", "1000.00", "900.00", "1200.00", "100.0", "600.0", "60%", "1%"] in rows
    assert ["loader", "alone", "200.00", "100.00", "300.00", "500.0", "-", "-", "-"] in rows
    assert "peak memory, host: 1,024 MiB" in shown.text()
