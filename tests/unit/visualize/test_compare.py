"""Curves of several runs, told apart by name, over steps, epochs or hours."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from passl.errors import ConfigError
from passl.visualize import compare
from passl.visualize.compare import draw_comparison, read_runs, summary_rows


def _run(folder: Path, tops: list[float], *, lr: float = 0.1) -> str:
    folder.mkdir(parents=True)
    lines = []
    for epoch, top in enumerate(tops, start=1):
        for part in (5, 10):
            step = 10 * (epoch - 1) + part
            lines.append({"kind": "train", "step": step, "epoch": epoch, "loss": 2 / step, "lr": lr,
                          "time": 100.0 + 360 * step})
        lines.append({"kind": "eval", "step": 10 * epoch, "epoch": epoch, "loss": 1 / epoch,
                      "top1": top, "time": 100.0 + 360 * step})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "metrics.jsonl").write_text(text)
    return str(folder)


def test_runs_of_one_model_are_told_apart_by_their_folders(tmp_path):
    runs = read_runs([_run(tmp_path / name / "ViT", [0.5]) for name in ("a", "b")])
    assert [run.name for run in runs] == ["a", "b"]
    (alone,) = read_runs([str(tmp_path / "a" / "ViT" / "metrics.jsonl")])
    assert alone.name == "ViT"


def test_curves_have_the_axis_that_is_asked_for(tmp_path):
    (run,) = read_runs([_run(tmp_path / "a", [0.2, 0.4])])
    x, y = run.curve("train", "loss")
    np.testing.assert_array_equal(x, [5, 10, 15, 20])
    np.testing.assert_allclose(y, [0.4, 0.2, 2 / 15, 0.1])
    np.testing.assert_allclose(run.curve("train", "loss", "epoch")[0], [0.5, 1, 1.5, 2])
    np.testing.assert_allclose(run.curve("eval", "top1", "hours")[0], [0.5, 1.5])
    assert len(run.curve("train", "no_such")[0]) == 0


def test_the_table_has_the_best_values_and_their_steps(tmp_path):
    runs = read_runs([_run(tmp_path / "a", [0.2, 0.6, 0.4])])
    assert summary_rows(runs)[1] == ["a", "30", "0.0667", "0.6000", "20", "0.3333", "30"]


def test_numbers_that_are_not_finite_are_left_out_of_the_best(tmp_path):
    path = _run(tmp_path / "a", [0.2])
    with open(Path(path) / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"kind": "eval", "step": 20, "epoch": 2, "top1": null, "loss": null, '
                   '"nonfinite": {"top1": "nan", "loss": "nan"}}\n')
    assert summary_rows(read_runs([path]))[1][3:] == ["0.2000", "10", "1.0000", "10"]


def test_nine_runs_are_drawn(tmp_path):
    runs = read_runs([_run(tmp_path / f"run{i}", [0.1 * i, 0.2], lr=i) for i in range(9)])
    image = cv2.imread(str(draw_comparison(runs, tmp_path / "c.png", axis="epoch")))
    assert image.shape[1] == 1410
    assert image.std() > 10


def test_a_folder_without_a_run_is_refused_with_those_below_it(tmp_path):
    _run(tmp_path / "output" / "ViT", [0.1])
    with pytest.raises(ConfigError, match=r"no metrics\.jsonl.*did you mean .*output/ViT"):
        read_runs([str(tmp_path / "output")])
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(ConfigError, match="no record"):
        read_runs([str(tmp_path)])


@pytest.fixture
def figures(monkeypatch):
    """Figures in the place of files."""
    seen = []
    monkeypatch.setattr(compare, "save_figure", lambda figure, path: seen.append(figure) or path)
    return seen


def test_long_names_stay_different_and_no_label_leaves_the_picture(tmp_path, figures):
    common = "of the same " * 6
    runs = read_runs([_run(tmp_path / f"{common}{end}", [0.1, 0.2]) for end in "ab"])
    draw_comparison(runs, tmp_path / "c.png", axis="hours")
    (figure,) = figures
    figure.draw_without_rendering()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [f"{common}a", f"{common}b"]  # one below the other, there is room for all of it
    for box in [figure.legends[0].get_window_extent(), *(a.get_tightbbox() for a in figure.axes)]:
        assert 0 <= box.x0 < box.x1 <= figure.bbox.width


def test_names_beyond_all_room_keep_both_ends():
    name = f"first{'x' * 200}last"
    assert compare._shortened(name, 48).startswith("firstx")
    assert compare._shortened(name, 48).endswith("xlast")
    assert len(compare._shortened(name, 48)) <= 48


def test_a_loss_that_becomes_nan_is_marked_where_it_did(tmp_path, figures):
    path = _run(tmp_path / "a", [0.2, 0.3])
    with open(Path(path) / "metrics.jsonl", "a", encoding="utf-8") as file:
        for step in (25, 30):
            file.write(f'{{"kind": "train", "step": {step}, "epoch": 3, "loss": null, "time": 1, '
                       '"nonfinite": {"loss": "nan"}}\n')
    draw_comparison(read_runs([path]), tmp_path / "c.png")
    losses = figures[0].axes[0]
    (cross,) = [line for line in losses.lines if line.get_marker() == "x"]
    assert list(cross.get_xdata()) == [25]
    assert any("crosses" in text.get_text() for text in figures[0].texts)


def test_a_metric_of_another_name_is_compared_where_there_is_no_top1(tmp_path, figures):
    path = Path(_run(tmp_path / "a", [0.2, 0.3]))
    file = path / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if "top1" in line:
            line["recall"] = line["metric"] = line.pop("top1")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    runs = read_runs([str(path)])
    assert summary_rows(runs)[0][3] == "best metric"
    assert summary_rows(runs)[1][3:5] == ["0.3000", "20"]
    draw_comparison(runs, tmp_path / "c.png")
    assert "evaluation metric" in [axes.get_title() for axes in figures[0].axes]


def test_epochs_are_counted_in_whole_numbers(tmp_path, figures):
    draw_comparison(read_runs([_run(tmp_path / "a", [0.1] * 6)]), tmp_path / "c.png", axis="epoch")
    ticks = figures[0].axes[0].get_xticks()
    assert all(float(tick).is_integer() for tick in ticks), ticks


def test_a_single_value_is_its_own_tick_and_no_value_has_none(tmp_path, figures):
    path = tmp_path / "a" / "metrics.jsonl"
    path.parent.mkdir()
    path.write_text(
        '{"kind": "train", "step": 1, "epoch": 1, "loss": null, "lr": 0.1, "time": 1, '
        '"nonfinite": {"loss": "nan"}}\n'
        '{"kind": "eval", "step": 1, "epoch": 1, "loss": 2.5, "top1": 0.123457, "time": 2}\n'
    )
    draw_comparison(read_runs([str(path)]), tmp_path / "c.png")
    (figure,) = figures
    figure.draw_without_rendering()
    ticks = {axes.get_title(): list(axes.get_yticks()) for axes in figure.axes}
    assert ticks["training loss"] == []
    assert ticks["evaluation loss"] == [2.5]
    for axes in figure.axes:
        assert list(axes.get_xticks()) in ([1.0], [0.0, 1.0, 2.0], [0, 1], [1, 2]), axes.get_title()
        assert axes.get_tightbbox().x0 >= 0
