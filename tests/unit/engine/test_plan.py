"""Lengths and intervals of a run in optimizer steps."""

from __future__ import annotations

import pytest

from passl.config import load_config
from passl.engine.build import run_dir_of
from passl.engine.plan import plan_run
from passl.engine.save_clock import SaveClock


def plan(**changes):
    values = {
        "seed": 1,
        "global_batch_size": 4096,
        "micro_batch_size": 256,
        "steps_per_epoch": 313,
        "epochs": 300,
        "max_train_step": None,
        "log_every": 10,
        "eval_interval": 1,
        "eval_unit": "epoch",
        "save_interval": 1,
        "save_unit": "epoch",
    }
    return plan_run(**{**values, **changes})


def test_the_imagenet_recipe_is_as_long_as_in_passl():
    assert plan().total_steps == 93_900  # facts of PASSL: T_max of ViT-B/16, 300 epochs of 313
    assert plan().last_step == 93_900


def test_max_train_step_ends_the_run_but_not_its_schedule():
    short = plan(max_train_step=50)
    assert (short.total_steps, short.last_step) == (93_900, 50)


def test_without_epochs_the_run_is_max_train_step_long():
    steps = plan(epochs=None, max_train_step=1000)
    assert (steps.total_steps, steps.last_step, steps.num_epochs) == (1000, 1000, 4)


def test_max_train_step_beyond_the_epochs_changes_nothing():
    assert plan(epochs=1, max_train_step=10**9).last_step == 313


@pytest.mark.parametrize(
    ("unit", "interval", "due"),
    [
        ("epoch", 1, [313, 626, 939]),
        ("epoch", 2, [626]),
        ("step", 400, [400, 800]),
    ],
)
def test_evaluations_fall_on_epochs_or_steps(unit, interval, due):
    run = plan(epochs=3, eval_unit=unit, eval_interval=interval)
    assert [step for step in range(1, 940) if run.is_eval_step(step)] == due


def test_no_evaluation_is_due_when_none_is_wanted():
    run = plan(epochs=2, eval_interval=None)
    assert not any(run.is_eval_step(step) for step in range(1, 627))


def test_the_last_step_is_always_saved():
    run = plan(epochs=3, save_interval=2, max_train_step=700)
    assert [step for step in range(1, 701) if run.is_save_step(step)] == [626, 700]


def test_a_run_that_saves_by_the_clock_saves_at_no_step_but_the_last():
    run = plan(epochs=2, save_unit="minute", save_interval=5)
    assert run.save_every_s == 300.0
    assert [step for step in range(1, 627) if run.is_save_step(step)] == [626]


def test_the_clock_asks_once_for_every_checkpoint():
    now = [0.0]
    clock = SaveClock(60.0, lambda: now[0])
    asked = []
    for second in range(0, 200, 10):
        now[0] = float(second)
        if clock.is_due():
            asked.append(second)
    assert asked == [60, 120, 180]
    clock.restart()  # a checkpoint was made for another reason
    now[0] += 59.0
    assert not clock.is_due()
    assert not SaveClock(None, lambda: 1e9).is_due()


@pytest.mark.parametrize(("step", "epoch"), [(0, 1), (1, 1), (313, 1), (314, 2), (93_900, 300)])
def test_a_step_belongs_to_the_epoch_it_trained(step, epoch):
    assert plan().epoch_of(step) == epoch


def test_a_home_folder_in_an_override_is_meant_though_no_shell_expands_it(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    config = load_config("quickstart/ViT_micro_digits", ["Global.output_dir=~/runs"])
    assert run_dir_of(config) == tmp_path / "runs" / "VisionTransformer"


@pytest.mark.parametrize(
    ("step", "count", "changes"),
    [
        (1, 3, {}),  # after 10, 20 and 30 steps
        (10, 3, {}),  # that after step 10 is still to come
        (11, 2, {}),
        (30, 1, {}),
        (21, 2, {"max_train_step": 25, "eval_interval": 12, "eval_unit": "step"}),  # 24, 25
        (25, 1, {"max_train_step": 25, "eval_interval": 12, "eval_unit": "step"}),
        (1, 1, {"eval_interval": None}),
    ],
)
def test_evaluations_to_come_are_counted_with_that_of_the_end(step, count, changes):
    assert plan(**{"steps_per_epoch": 10, "epochs": 3, **changes}).evaluations_from(step) == count
