"""The picture of a schedule has the numbers that training has."""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from small_run import digits_config

from passl.config import load_config
from passl.errors import ConfigError
from passl.visualize import schedule as pictures
from passl.visualize.schedule import draw_schedule, plan_schedule, save_schedule


def _config(tmp_path: Path, **changes) -> Path:
    config = digits_config(tmp_path / "out")
    config["Hooks"] = [
        {"DropSchedule": {"target": "drop_path", "rate": 0.3, "mode": "late", "cutoff_epochs": 2}},
        {"DropSchedule": {"target": "dropout", "rate": 0.2, "schedule": "linear",
                          "cutoff_epochs": 1}},
        {"EarlyStop": {"patience": 3}},
    ]
    config["Global"]["eval_during_train"] = True
    config["EMA"] = {"decay": 0.99, "every": 2}
    config.update(changes)
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_every_curve_is_the_one_of_training(tmp_path):
    schedule = plan_schedule(load_config(_config(tmp_path), mode="train"))
    assert (schedule.steps_per_epoch, schedule.last_step) == (6, 30)
    np.testing.assert_array_equal(schedule.steps, np.arange(30))
    curves = {curve.name: curve.values for curve in schedule.curves}
    assert list(curves) == ["lr", "drop_path_rate", "drop_rate", "ema_decay"]
    np.testing.assert_allclose(curves["lr"][:4], [0, 0.01 / 3, 0.02 / 3, 0.01], rtol=1e-6)
    np.testing.assert_array_equal(curves["drop_path_rate"], [0.0] * 12 + [0.3] * 18)
    np.testing.assert_allclose(curves["drop_rate"][:7], [0.2, 0.16, 0.12, 0.08, 0.04, 0, 0])
    expected = [min(0.99, (1 + step // 2) / (10 + step // 2)) for step in range(30)]
    np.testing.assert_allclose(curves["ema_decay"], expected)
    assert schedule.constants == {"weight_decay": 0.05, "beta1": 0.9, "beta2": 0.999}


def test_a_decay_that_stays_is_a_number_and_no_curve(tmp_path):
    config = load_config(_config(tmp_path), ["EMA={decay: 0.99996, warmup: false}"], mode="train")
    schedule = plan_schedule(config)
    assert "ema_decay" not in [curve.name for curve in schedule.curves]
    assert schedule.constants["ema_decay"] == 0.99996


@pytest.mark.slow
def test_the_rates_are_those_that_a_run_logs(run_folder):
    assert run_folder.train() == 0
    schedule = plan_schedule(load_config(run_folder.config_file, mode="train"))
    rates = schedule.curves[0].values
    records = run_folder.records("train")
    assert records
    for record in records:  # a line reports the rate of the update before it
        assert record["lr"] == pytest.approx(rates[record["step"] - 1], rel=1e-6)


def test_of_a_long_run_the_ends_and_the_highest_rate_are_among_the_points(tmp_path):
    file = _config(tmp_path, LRScheduler={
        "name": "ViTLRScheduler", "learning_rate": 0.01, "warmup_steps": 777
    })
    schedule = plan_schedule(load_config(file, ["Global.epochs=90"], mode="train"), 1251)
    assert schedule.last_step == 90 * 1251
    assert len(schedule.steps) < 2200
    assert schedule.steps[0] == 0
    assert schedule.steps[-1] == schedule.last_step - 1
    assert schedule.steps[np.argmax(schedule.curves[0].values)] == 777


def test_without_data_the_number_of_steps_is_asked_for(tmp_path):
    loader = digits_config(tmp_path)["DataLoader"]
    loader["Train"]["dataset"] = {"name": "ImageFolder", "root": str(tmp_path / "gone")}
    config = load_config(_config(tmp_path, DataLoader=loader), mode="train")
    with pytest.raises(ConfigError, match="--steps-per-epoch N"):
        plan_schedule(config)
    assert plan_schedule(config, 10).last_step == 50


def test_picture_and_csv_are_written(tmp_path):
    schedule = plan_schedule(load_config(_config(tmp_path), mode="train"))
    image = cv2.imread(str(draw_schedule(schedule, tmp_path / "s.png", title="run\nfile")))
    assert image.shape[0] > image.shape[1] > 1000  # four panels
    assert image.std() > 10
    with open(save_schedule(schedule, tmp_path / "s.csv"), encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["drop_path_rate"]) for row in rows[11:13]] == [0.0, 0.3]
    assert float(rows[9]["epoch"]) == 1.5


def test_a_run_of_one_step_is_a_point_and_words_hold_together(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: seen.append(figure) or path)
    config = load_config(_config(tmp_path), ["Global.max_train_step=1"], mode="train")
    draw_schedule(plan_schedule(config), tmp_path / "s.png", title="x")
    (figure,) = seen
    figure.draw_without_rendering()
    note = figure.texts[1].get_text()
    assert note.startswith("1 step, 0.1667 epochs of 6 steps; constant: ")
    assert "weight_decay=0.05" in note  # in one piece, however the note is wrapped
    rate = figure.axes[0]
    assert rate.lines[0].get_marker() == "o"
    assert all(float(tick).is_integer() for tick in figure.axes[-1].get_xticks())
