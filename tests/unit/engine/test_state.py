"""The state in a checkpoint: written and read back, or refused."""

from __future__ import annotations

import json

import pytest

from passl.engine.run_record import read_state
from passl.engine.state import Best, TrainState
from passl.errors import CheckpointError


def test_a_state_comes_back_as_it_was():
    state = TrainState(step=7, best=Best(0.5, 6, 1), window={"loss": 1.5}, hooks={"a": {"b": [1]}})
    data = json.loads(json.dumps(state.to_dict()))
    assert TrainState.from_dict(data, "here") == state


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("step", -5),
        ("step", 10**30),
        ("step", "7"),
        ("step", 6.5),
        ("step", True),
        ("epoch", None),
        ("best", [1]),
        ("best", {"metric": "a", "step": 1, "epoch": 1}),
        ("best_ema", {"metric": 0.5, "step": 1}),
        ("window", [1, 2]),
        ("hooks", 5),
        ("train_time_s", "x"),
        ("evaluation_due", 1),
    ],
)
def test_what_no_training_leaves_is_refused_by_its_name(name, value):
    data = {**TrainState().to_dict(), name: value}
    with pytest.raises(CheckpointError, match=f"^here: the training state is damaged: {name} is "):
        TrainState.from_dict(data, "here")


@pytest.mark.parametrize(
    "record",
    [
        [],
        {"state": {}, "config": {"Model": {}}},
        {"state": None, "config": {"Model": {}}, "plan": {}},
        {"state": {}, "config": [], "plan": {}},
        {"state": {}, "config": {"Model": None}, "plan": {}},
        "deep",
    ],
)
def test_another_file_is_no_record(tmp_path, record):
    text = "[" * 200_000 if record == "deep" else json.dumps(record)
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(tmp_path)
