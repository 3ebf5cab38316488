"""The picture shows each run where its values and its result are."""

from __future__ import annotations

import pytest
from swept import swept

from passl.sweep import picture
from passl.sweep.report import read_results

LR, DECAY, MODEL, SEED = (
    "LRScheduler.learning_rate", "Optimizer.weight_decay", "Model.name", "Global.seed",
)


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a sweep; the figure as it was saved."""
    agg = pytest.importorskip("matplotlib.backends.backend_agg")
    figures = []

    def keep(figure, path):
        agg.FigureCanvasAgg(figure).draw()
        figures.append(figure)
        return path

    monkeypatch.setattr(picture, "save_figure", keep)

    def draw(keys, runs, by=None):
        records = [swept(tmp_path, values, scores, state=s) for values, scores, s in runs]
        picture.draw_results(read_results(keys, records, tmp_path, by), tmp_path / "x.png")
        return figures[-1]

    return draw


def texts(axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def test_one_factor_is_a_curve_through_the_means(drawn):
    runs = [
        ({LR: lr, SEED: seed}, (lr * 10 + seed / 100,), "done")
        for lr in (0.01, 0.03) for seed in (1, 2)
    ]
    figure = drawn([LR, SEED], [*runs, ({LR: 0.09, SEED: 1}, (), "failed")])
    (axes,) = figure.axes
    lines = {line.get_label(): line for line in axes.lines}
    assert sorted(lines["run"].get_xdata()) == [0.01, 0.01, 0.03, 0.03]
    assert list(lines["mean"].get_ydata()) == pytest.approx([0.115, 0.315])
    assert list(lines["failed or not run"].get_xdata()) == [0.09]
    assert list(lines["best"].get_ydata()) == pytest.approx([0.32])
    assert axes.get_xscale() == "log"


def test_two_factors_are_a_map_with_the_best_framed(drawn):
    runs = [
        ({LR: lr, DECAY: wd}, (0.5 + lr + wd,), "done")
        for lr in (0.1, 0.2, 0.3) for wd in (0.05, 0.1)
    ]
    runs[0] = (runs[0][0], (), "failed")  # the others: 70, 75, 80, 85 and 90 %
    figure = drawn([LR, DECAY], runs)
    axes, scale = figure.axes
    assert axes.get_xlabel() == "learning_rate"
    assert sorted(texts(axes)) == ["70.0", "75.0", "80.0", "85.0", "90.0", "failed"]
    shown = axes.images[0].get_array()
    assert shown.shape == (2, 3)
    assert shown.mask.sum() == 1
    frame = axes.patches[-1]
    assert (frame.get_x(), frame.get_y()) == pytest.approx((2 - 0.47, 1 - 0.46))
    assert "top1" in scale.get_ylabel()


def test_two_drawn_factors_are_two_panels(drawn):
    runs = [({LR: 0.1 + n / 97, DECAY: n / 89}, (n / 30,), "done") for n in range(12)]
    figure = drawn([LR, DECAY], runs)
    assert [axes.get_xlabel() for axes in figure.axes] == ["learning_rate", "weight_decay"]


def test_more_factors_are_a_panel_each(drawn):
    runs = [
        ({LR: lr, DECAY: wd, MODEL: m}, (lr + wd,), "done")
        for lr in (0.1, 0.2) for wd in (0.1, 0.2) for m in ("a", "b")
    ]
    figure = drawn([LR, DECAY, MODEL], runs)
    names = [axes.get_xlabel() for axes in figure.axes]
    assert names == ["learning_rate", "weight_decay", "Model"]
    assert [t.get_text() for t in figure.axes[2].get_xticklabels()] == ["a", "b"]


def test_no_word_is_cut_off_by_the_edge(drawn):
    names = [f"ViT_{size}_patch16_224" for size in ("tiny", "small", "base")]
    runs = [({MODEL: name}, (0.5,), "done") for name in names]
    figure = drawn([MODEL], runs)
    (axes,) = figure.axes
    for label in (*axes.get_xticklabels(), axes.xaxis.label, axes.yaxis.label):
        box = label.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0


def test_a_sweep_without_results_is_drawn_too(drawn):
    figure = drawn([LR], [({LR: 0.1}, (), "new"), ({LR: 0.2}, (), "new")])
    assert len(figure.axes) == 1


def test_the_numbers_of_a_drawn_logarithmic_factor_are_numbers(drawn):
    runs = [({LR: 1e-4 * 1.6**n}, (0.5 + n / 100,), "done") for n in range(10)]
    (axes,) = drawn([LR], runs).axes
    low, high = axes.get_xlim()
    ticks = dict(zip(axes.get_xticks(), (label.get_text() for label in axes.get_xticklabels())))
    shown = {value: label for value, label in ticks.items() if low <= value <= high}
    assert shown
    assert all(float(label) == pytest.approx(value) for value, label in shown.items()), shown


def test_long_names_of_a_single_factor_are_not_cut_off(drawn):
    names = [f"ViT_{size}_patch16_224_with_a_long_name" for size in "abcdefg"]
    figure = drawn([MODEL], [({MODEL: name}, (0.5,), "done") for name in names])
    for label in figure.axes[0].get_xticklabels():
        assert label.get_window_extent().x0 >= 0, label.get_text()


def test_without_any_value_no_scale_is_made_up(drawn):
    figure = drawn([LR], [({LR: 0.1}, (), "failed")])
    assert list(figure.axes[0].get_yticks()) == []
    assert "0 of 1 run done" in figure.texts[0].get_text()


def test_the_legend_explains_the_marks_of_all_panels(drawn):
    runs = [({LR: 0.1 + n / 97, MODEL: "ab"[n % 2]}, (n / 30,), "done") for n in range(16)]
    figure = drawn([LR, MODEL], runs)
    drawn_marks = {line.get_label() for axes in figure.axes for line in axes.lines}
    assert "mean" in drawn_marks
    legend = figure.axes[0].get_legend()
    assert {text.get_text() for text in legend.get_texts()} == drawn_marks


@pytest.mark.parametrize(
    "rates",
    [
        (0.0001691, 0.0001839, 0.0006847, 0.0007542, 0.0008633, 0.004268),
        (1.234e-6, 1.3e-6, 0.02, 0.021, 0.3, 1.5),
        (0.00123, 0.00456, 0.00789, 0.01234, 0.02345, 0.04567),
    ],
)
def test_numbers_that_lie_close_together_are_not_written_over_each_other(drawn, rates):
    decays = (0.0493, 0.07605, 0.1529, 0.1931, 0.2254, 0.2276)
    runs = [({LR: lr, DECAY: decay}, (0.5,), "done") for lr, decay in zip(rates, decays)]
    figure = drawn([LR, DECAY], runs)
    for axes in figure.axes:
        low, high = axes.get_xlim()
        labels = [
            label
            for tick, label in zip(axes.get_xticks(), axes.get_xticklabels())
            if low <= tick <= high and label.get_text()
        ]
        boxes = sorted((label.get_window_extent() for label in labels), key=lambda box: box.x1)
        assert len(boxes) >= 2
        for left, right in zip(boxes, boxes[1:]):
            if labels[0].get_rotation():  # their ends are as far apart as lines of 8 points need
                assert right.x1 - left.x1 > 8 / 72 * figure.dpi / 0.5
            else:
                assert left.x1 < right.x0


def test_a_grid_has_its_own_values_as_ticks(drawn):
    figure = drawn([LR], [({LR: lr}, (lr,), "done") for lr in (1e-4, 3e-4, 1e-3, 3e-3)])
    assert list(figure.axes[0].get_xticks()) == [1e-4, 3e-4, 1e-3, 3e-3]
