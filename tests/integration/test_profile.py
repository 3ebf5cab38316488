"""``passl-train -p``: what is recorded, where it goes, and that it changes nothing."""

from __future__ import annotations

import json
import re

import pytest
from small_run import assert_same_arrays

from passl import build_run, load_config
from passl.cli import train as train_command
from passl.engine.measuring.profile_window import ProfileWindow, parse_profile_options
from passl.engine.measuring.profiling import profiled
from passl.errors import ConfigError


@pytest.mark.parametrize("text", ["start=20;stop=30", "stop=30; start=20;", "batch_range=[20, 30]"])
def test_the_steps_are_read_from_the_option(text):
    assert parse_profile_options(text) == ProfileWindow(20, 30)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("start=20", "records nothing: stop must be a number above start"),
        ("start=30;stop=30", "records nothing"),
        ("begin=3", "cannot read 'begin=3'; write the steps"),
        ("start=a;stop=3", "cannot read 'start=a'"),
        ("exit_on_finished=True;start=1;stop=2", "exit_on_finished has no meaning here"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        parse_profile_options(text)


def train(run, profile=None, *overrides):
    arguments = ["-c", str(run.config_file), "-o", "Global.epochs=2", *overrides]
    return train_command.main(arguments if profile is None else [*arguments, "-p", profile])


def recorded(run):
    """The text of the only profile, its rows by name (ms a step), and the trace's events."""
    (text,) = (run.dir / "profile").glob("*.txt")
    lines = [re.split(r"  +", line) for line in text.read_text().splitlines()]
    rows = {line[0]: float(line[1]) for line in lines if len(line) == 3 and line[1] != "ms a step"}
    trace = json.loads(text.with_suffix(".json").read_text())
    return text, rows, [event["name"] for event in trace["traceEvents"] if "name" in event]


def test_a_profile_says_where_the_time_went_and_changes_no_bit(make_run, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    plain, profiled = make_run("plain"), make_run("profiled")
    assert train(plain) == 0
    assert train(profiled, "start=3;stop=7") == 0
    assert_same_arrays(profiled.weights(), plain.weights())
    assert_same_arrays(profiled.optimizer(), plain.optimizer())

    text, rows, events = recorded(profiled)
    assert text.name == "steps_3_to_6.txt"  # an evaluation and a checkpoint are in between
    head = re.match(r"4 steps of ([\d.]+) ms", text.read_text())
    assert sum(rows.values()) == pytest.approx(float(head[1]), rel=0.1)
    assert {"waiting for data", "forward", "loss", "backward", "clip", "optimizer"} <= set(rows)
    assert {"gradients to float32", "finite or not"} <= set(rows)
    assert min(rows["forward"], rows["loss"], rows["backward"], rows["optimizer"]) > 0
    operators = re.findall(r"^(\S+) +([\d.]+) +[\d.]+ +[\d.]+%$", text.read_text(), re.M)
    calls = {name: float(count) for name, count in operators}
    assert calls["layer_norm"] == 5.0  # two blocks of two and the last one, in each step
    assert calls["GradNodePyLayer_CpuLayerNorm"] == 5.0  # our own gradient, on a CPU
    assert sum(name.startswith("passl: backward") for name in events) == 4
    assert "profile of steps 3 to 6: " in profiled.log()
    assert not (tmp_path / "profiler_log").exists()


def test_a_run_that_ends_inside_the_window_leaves_what_was_recorded(run_folder):
    assert train(run_folder, "start=8;stop=1000") == 0
    assert recorded(run_folder)[0].name == "steps_8_to_11.txt"


def test_steps_are_counted_from_where_this_start_begins(run_folder):
    assert train(run_folder) == 0
    assert train(run_folder, "start=1;stop=2", "Global.epochs=3") == 0
    assert recorded(run_folder)[0].name == "steps_13_to_13.txt"


def test_a_window_that_is_never_reached_is_told(run_folder):
    assert train(run_folder, "start=100;stop=110") == 0
    assert "made 12 steps, and -p asks for those from 100 on" in run_folder.log()
    assert not (run_folder.dir / "profile").exists()


def test_the_trainer_is_its_old_self_afterwards(run_folder):
    run = build_run(load_config(run_folder.config_file), "train")
    trainer = run.trainer
    before = [dict(vars(part)) for part in (trainer, trainer.parts, trainer.parts.precision)]
    loss, clip, model = trainer.parts.loss, trainer.parts.clip, trainer.parts.model
    batch = next(iter(trainer.parts.loader.epoch(0)))
    with profiled(trainer, ProfileWindow(0, 2), run.run_dir / "profile") as profile:
        assert "train_step" in vars(trainer)
        trainer.train_step(batch)
        assert trainer.parts.loss is not loss
        trainer.train_step(batch)
        assert trainer.parts.loss is loss
        trainer.train_step(batch)
    run.close()
    assert profile.steps == 2
    assert [list(vars(part)) for part in (trainer, trainer.parts, trainer.parts.precision)] == [
        list(names) for names in before
    ]
    assert (trainer.parts.loss, trainer.parts.clip) == (loss, clip)
    assert "forward" not in vars(model)
