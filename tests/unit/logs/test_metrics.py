"""metrics.jsonl and its curves: valid, flushed, and continued without overlap."""

from __future__ import annotations

import builtins
import json
import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from passl.logs import metrics as metrics_module
from passl.logs.logger import close_logging, setup_logging
from passl.logs.metrics import MetricsWriter, read_metrics
from passl.logs.writers.visualdl import VisualDL


@pytest.fixture(autouse=True)
def _logging():
    setup_logging(None)
    yield
    close_logging()


def with_curves(run_dir):
    return MetricsWriter(run_dir, [VisualDL(run_dir=run_dir)])


def train(step, **values):
    return {"kind": "train", "step": step, "epoch": 1, **values}


def steps(path):
    return [record["step"] for record in read_metrics(path)]


def curve(run_dir, tag):
    from visualdl import LogReader

    (file,) = (run_dir / "vdl").iterdir()
    reader = LogReader(file_path=str(file))
    return [(point.id, point.value) for point in reader.get_data("scalar", tag)]


def curve_tags(run_dir):
    from visualdl import LogReader

    (file,) = (run_dir / "vdl").iterdir()
    return sorted(LogReader(file_path=str(file)).get_tags()["scalar"])


def test_every_line_is_one_strict_json_object_written_at_once(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.append(train(10, loss=0.1, lr=1e-3, name="größe", on=True, nothing=None))
    writer.append({"kind": "eval", "step": 10, "epoch": 1, "top1": 0.5})
    lines = (tmp_path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    first, second = (json.loads(line) for line in lines)
    assert first.pop("time") > 1.6e9
    assert first == train(10, loss=0.1, lr=1e-3, name="größe", on=True, nothing=None)
    assert (second["kind"], second["top1"]) == ("eval", 0.5)


def test_floats_keep_all_their_bits(tmp_path):
    values = [1 / 3, 5e-324, 1.7976931348623157e308, -0.0]
    writer = MetricsWriter(tmp_path)
    for step, value in enumerate(values):
        writer.append(train(step, loss=value))
    found = [record["loss"] for record in read_metrics(writer.path)]
    assert [value.hex() for value in found] == [value.hex() for value in values]


def test_nan_and_infinities_are_valid_json_and_come_back(tmp_path):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    writer = with_curves(tmp_path)
    writer.append(train(1, loss=math.nan, top1=math.inf, low=-math.inf, lr=0.5))
    writer.close()
    record = json.loads(writer.path.read_text(), parse_constant=refuse)
    assert record["loss"] is record["top1"] is record["low"] is None
    assert record["nonfinite"] == {"loss": "nan", "top1": "inf", "low": "-inf"}
    (read,) = read_metrics(writer.path)
    assert math.isnan(read["loss"])
    assert (read["top1"], read["low"], read["lr"]) == (math.inf, -math.inf, 0.5)
    writer.truncate_after(1)
    assert next(read_metrics(writer.path))["top1"] == math.inf
    writer.close()
    ((step, value),) = curve(tmp_path, "train/loss")
    assert step == 1
    assert math.isnan(value)


def test_scalars_of_numpy_are_accepted(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.append(train(np.int64(3), loss=np.float32(0.5), bad=np.float64("nan")))
    (record,) = read_metrics(writer.path)
    assert (record["step"], record["loss"]) == (3, 0.5)
    assert math.isnan(record["bad"])


def test_curves_are_named_by_kind_and_field(tmp_path):
    writer = with_curves(tmp_path)
    writer.append(train(10, loss=2.5, lr=0.125, note="text", on=True))
    writer.append({"kind": "eval", "step": 10, "epoch": 1, "top1": 0.5})
    writer.close()
    assert [name.replace("%", "/") for name in curve_tags(tmp_path)] == [
        "eval/top1",
        "train/loss",
        "train/lr",
    ]
    assert curve(tmp_path, "train/loss") == [(10, 2.5)]


def test_without_visualdl_there_is_no_folder_of_curves(tmp_path):
    writer = MetricsWriter(tmp_path)
    writer.append(train(1, loss=1.0))
    writer.truncate_after(1)
    writer.close()
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_a_resumed_run_continues_records_and_curves_without_overlap(tmp_path):
    writer = with_curves(tmp_path)
    for step in (10, 20, 30, 40):
        writer.append(train(step, loss=float(step)))
    del writer  # killed: nothing is closed
    for resumed_at, later in ((25, (30, 40, 50)), (50, (60,))):  # twice in a row
        resumed = with_curves(tmp_path)
        resumed.truncate_after(resumed_at)
        for step in later:
            resumed.append(train(step, loss=step / 2))
        resumed.close()
    expected = [(10, 10.0), (20, 20.0), (30, 15.0), (40, 20.0), (50, 25.0), (60, 30.0)]
    assert [(record["step"], record["loss"]) for record in read_metrics(writer_path(tmp_path))] == (
        expected
    )
    assert curve(tmp_path, "train/loss") == expected
    assert len(list((tmp_path / "vdl").iterdir())) == 1


def writer_path(run_dir):
    return run_dir / "metrics.jsonl"


def test_curves_keep_their_times_when_rebuilt(tmp_path):
    from visualdl import LogReader

    writer_path(tmp_path).write_text(
        json.dumps({**train(1, loss=1.0), "time": 1600000000.5}) + "\n"
    )
    writer = with_curves(tmp_path)
    writer.truncate_after(1)
    writer.close()
    (file,) = (tmp_path / "vdl").iterdir()
    (point,) = LogReader(file_path=str(file)).get_data("scalar", "train/loss")
    assert point.timestamp == 1600000000500


@pytest.mark.parametrize(
    "torn", ['{"kind": "train", "st', '{"kind": "tr\udcff', "\x00\x00\x00", "[1]"]
)
def test_a_line_that_a_kill_tore_is_skipped_and_removed(tmp_path, torn):
    writer = MetricsWriter(tmp_path)
    writer.append(train(1, loss=1.0))
    writer.close()
    with open(writer.path, "ab") as file:
        file.write(torn.encode("utf-8", "surrogateescape"))
    writer.append(train(2, loss=2.0))
    assert steps(writer.path) == [1, 2]
    writer.truncate_after(2)
    writer.append(train(3, loss=3.0))
    writer.close()
    records = [json.loads(line) for line in writer.path.read_text().splitlines()]
    assert [record["step"] for record in records] == [1, 2, 3]


def test_truncating_what_is_not_there_is_nothing(tmp_path):
    writer = with_curves(tmp_path)
    writer.truncate_after(5)
    assert not writer.path.exists()


def test_starting_over_keeps_the_earlier_runs_records_beside(tmp_path):
    for expected in (None, "metrics.1.jsonl", "metrics.2.jsonl"):
        writer = with_curves(tmp_path)
        aside = writer.start_over()
        assert (aside and aside.name) == expected
        writer.append(train(1, loss=1.0))
        writer.close()
        assert steps(writer.path) == [1]
        assert curve(tmp_path, "train/loss") == [(1, 1.0)]
    assert steps(tmp_path / "metrics.1.jsonl") == [1]


def test_records_survive_a_kill(tmp_path):
    code = (
        "import sys, os, signal\n"
        "from passl.logs.metrics import MetricsWriter\n"
        "writer = MetricsWriter(sys.argv[1])\n"
        "for step in range(100):\n"
        "    writer.append({'kind': 'train', 'step': step, 'loss': 1.0})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert process.returncode == -signal.SIGKILL
    assert steps(writer_path(tmp_path)) == list(range(100))


def test_a_writer_that_fails_is_one_warning_and_nothing_else(tmp_path, monkeypatch, capsys):
    real_import = builtins.__import__

    def without_visualdl(name, *args, **kwargs):
        if name.startswith("visualdl"):
            raise ModuleNotFoundError(f"No module named {name!r}")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_visualdl)
    writer = with_curves(tmp_path)
    for step in (1, 2):
        writer.append(train(step, loss=1.0))
    writer.truncate_after(1)
    writer.close()
    assert steps(writer.path) == [1]
    out = capsys.readouterr().out
    assert out.count("WARNING") == 1
    assert "nothing more is shown in VisualDL, training goes on: ModuleNotFoundError: No mod" in out


def test_visualdl_prints_nothing(tmp_path, capfd):
    for _ in range(2):
        writer = with_curves(tmp_path)
        writer.append(train(1, loss=1.0))
        writer.close()
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_full_disk_costs_one_warning_and_not_the_run(tmp_path, monkeypatch, capsys):
    writer = MetricsWriter(tmp_path)
    writer.append(train(1, loss=1.0))
    writer.close()
    monkeypatch.setattr(
        metrics_module, "open", lambda *_, **__: real_open("/dev/full", "a"), raising=False
    )
    real_open = builtins.open
    writer.append(train(2, loss=1.0))
    writer.append(train(3, loss=1.0))
    out = capsys.readouterr().out
    assert out.count("WARNING") == 1
    assert "No space left on device. Training goes on." in out
    monkeypatch.undo()
    writer.append(train(4, loss=1.0))
    assert steps(writer.path) == [1, 4]


def test_a_file_that_is_moved_is_begun_anew(tmp_path):
    writer = MetricsWriter(tmp_path)
    for step in range(3):
        writer.append({"kind": "train", "step": step, "epoch": 1})
        if step == 1:
            (tmp_path / "metrics.jsonl").rename(tmp_path / "moved.jsonl")
    assert [record["step"] for record in read_metrics(tmp_path / "moved.jsonl")] == [0, 1]
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [2]
    writer.close()


def test_a_tag_may_have_a_percent_sign(tmp_path):
    writer = with_curves(tmp_path)
    writer.append(train(1, **{"top1 %": 50.0}))
    writer.close()
    assert curve(tmp_path, "train/top1 percent") == [(1, 50.0)]
    assert os.listdir(tmp_path / "vdl") == ["vdlrecords.passl.log"]


def test_a_line_that_is_nested_without_end_is_no_record(tmp_path):
    path = tmp_path / "metrics.jsonl"
    deep = "[" * 200_000 + "]" * 200_000
    lines = [f'{{"kind": "train", "step": 1, "x": {deep}}}', '{"kind": "train", "step": 2}']
    path.write_text("\n".join(lines) + "\n")
    assert [record["step"] for record in read_metrics(path)] == [2]
