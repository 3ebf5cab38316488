"""PASSL's log lines: the exact text, and the expressions by which scripts read it."""

from __future__ import annotations

import re

import pytest

from passl.logs import lines

TRAIN = {
    "epoch": 2,
    "num_epochs": 300,
    "iteration": 49,
    "num_iterations": 313,
    "lr": 0.003,
    "metrics": {"top1": 0.125, "metric": 0.125, "top5": 0.5},
    "losses": {"ViTCELoss": 6.9077553, "loss": 6.9077553},
    "batch_cost_s": 0.51234567,
    "reader_cost_s": 0.001,
    "ips": 1998.654321,
    "eta_s": 93784.6,
}


def train_line(**others):
    return lines.train_line(lines.TrainFigures(**{**TRAIN, **others}))


def test_train_line():
    assert train_line() == (
        "[Train][Epoch 2/300][Iter: 49/313] lr: 0.003000, top1: 0.12500, metric: 0.12500, "
        "top5: 0.50000, ViTCELoss: 6.90776, loss: 6.90776, batch_cost: 0.51235, "
        "reader_cost: 0.00100, ips: 1998.65432 images/sec, eta: 26:03:04"
    )


def test_train_line_with_device_memory():
    assert train_line(max_mem_gb=11.256).endswith(
        "reader_cost: 0.00100, ips: 1998.65432 images/sec, max mem: 11.26 GB, eta: 26:03:04"
    )


def test_train_average_line():
    line = lines.train_avg_line(
        epoch=2, num_epochs=3, metrics={"top1": 0.5, "metric": 0.5}, losses={"loss": 1.0}
    )
    assert line == "[Train][Epoch 2/3][Avg]top1: 0.50000, metric: 0.50000, loss: 1.00000"


def test_eval_line():
    line = lines.eval_line(
        epoch=2,
        iteration=0,
        num_iterations=98,
        losses={"CELoss": 1.5, "loss": 1.5},
        metrics={"top1": 0.5, "metric": 0.5, "top5": 1.0},
        batch_cost_s=0.03147,
        reader_cost_s=0.01447,
        ips=2033.68,
    )
    assert line == (
        "[Eval][Epoch 2][Iter: 0/98]CELoss: 1.50000, loss: 1.50000, top1: 0.50000, "
        "metric: 0.50000, top5: 1.00000, batch_cost: 0.03147s, "
        "reader_cost: 0.01447, ips: 2033.68000 images/sec"
    )


def test_eval_average_and_best_lines():
    values = {"losses": {"CELoss": 1.5, "loss": 1.5}, "metrics": {"top1": 2 / 13}}
    assert lines.eval_avg_line(epoch=2, **values, samples=13) == (
        "[Eval][Epoch 2][Avg]CELoss: 1.50000, loss: 1.50000, top1: 0.15385, samples: 13"
    )
    assert lines.best_line(epoch=2, best=2 / 13) == (
        "[Eval][Epoch 2][best metric: 0.15384615384615385]"
    )


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        (r"ips: ([\d.]+) images/sec,", 1998.65432),
        (r"\bloss: ([\d.]+)", 6.90776),
        (r"lr: ([\d.]+),", 0.003),
        (r"max mem: ([\d.]+) GB,", 11.26),
        (r"batch_cost: ([\d.]+),", 0.51235),
        (r"\[Iter: (\d+)/313\]", 49),
        (r"\[Epoch (\d+)/300\]", 2),
    ],
)
def test_what_scripts_search_for_is_found(pattern, value):
    line = "[2023/01/01 00:00:00] passl INFO: " + train_line(max_mem_gb=11.256)
    match = re.search(pattern, line)
    assert match is not None
    assert float(match[1]) == value


def test_the_first_loss_in_lower_case_is_the_sum():
    """PASSL's own continuous integration took the text after the first 'loss: '."""
    line = train_line(losses={"ViTCELoss": 1.0, "AuxLoss": 2.0, "loss": 3.0})
    assert line.split("loss: ")[1].split(",")[0] == "3.00000"


@pytest.mark.parametrize(
    ("lr", "text"),
    [
        (0.0, "0.000000"),
        (1.0, "1.000000"),
        (0.00095, "0.000950"),
        (1e-4, "0.000100"),
        (3.14159e-7, "0.000000314"),
        (-1.0, "-1.000000"),
    ],
)
def test_small_learning_rates_keep_three_digits_in_plain_notation(lr, text):
    assert f" lr: {text}," in train_line(lr=lr)


def test_values_that_are_no_numbers_are_printed():
    assert "loss: nan" in train_line(losses={"loss": float("nan")})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00:00"), (59.9, "0:00:59"), (3600, "1:00:00"), (360000, "100:00:00"), (-3, "0:00:00")],
)
def test_eta(seconds, text):
    assert lines.format_eta(seconds) == text


def test_a_terminal_is_told_the_most_important_first():
    fields = lines.train_fields(lines.TrainFigures(**TRAIN))
    assert fields == [
        "epoch 2/300  50/313",
        "loss 6.9078",
        "top1 0.1250",
        "lr 0.003",
        "1999 img/s",
        "data 0%",
        "eta 26:03:04",
        "top5 0.5000",
    ]


def test_a_terminal_is_told_the_parts_of_a_loss_that_has_several():
    losses = {"CELoss": 1.0, "AuxLoss": 2.0, "loss": 3.0}
    fields = lines.train_fields(lines.TrainFigures(**{**TRAIN, "losses": losses}))
    assert fields[1] == "loss 3.0000"
    assert fields[-2:] == ["CELoss 1.0000", "AuxLoss 2.0000"]


def test_a_terminal_is_told_the_criterion_of_an_evaluation_first():
    fields = lines.eval_fields(
        epoch=3,
        losses={"CELoss": 1.5, "loss": 1.5},
        metrics={"top1": 0.5, "metric": 0.5, "top5": 1.0},
        samples=50000,
        ips=1234.5,
    )
    assert "  ".join(fields) == (
        "evaluated epoch 3  top1 0.5000  top5 1.0000  loss 1.5000  50,000 samples  1234 img/s"
    )
