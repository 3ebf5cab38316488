"""The number is the number: on 1, 2 and 3 processes, with batches of 1, 7 and 64."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from small_run import RunFolder
from workers import run_workers

pytestmark = pytest.mark.slow

SAMPLES = 359
SIZES = ("1", "7", "64")


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory, user_environment) -> dict[int, dict[str, Any]]:
    """By number of processes and batch size: what the evaluation said."""
    run = RunFolder(tmp_path_factory.mktemp("evaluation") / "run")
    assert run.train("Global.epochs=2") == 0
    found = {}
    for processes in (1, 2, 3):
        output = run.root / f"{processes}.json"
        arguments = (str(run.config_file), str(run.dir / "best"), str(output))
        script = Path(__file__).with_name("evaluation_worker.py")
        ended = run_workers(script, processes, user_environment, *arguments)
        assert [status for status, _ in ended] == [0] * processes, ended
        found[processes] = json.loads(output.read_text())
    lines = re.findall(r"\[Eval\]\[Epoch \d+\]\[Avg\].*", run.log("eval.log"))
    assert len(lines) == 9
    assert all(line.endswith(f"samples: {SAMPLES}") for line in lines)
    return found


def test_every_sample_is_seen_once(evaluated):
    for by_size in evaluated.values():
        assert [by_size[size]["samples"] for size in SIZES] == [[SAMPLES, SAMPLES]] * 3


def test_the_same_logits_give_the_same_figures_to_the_last_bit(evaluated):
    expected = evaluated[1]["64"]["exact"]
    assert {"CELoss", "ViTCELoss", "loss", "top1", "top5", "metric"} == set(expected)
    for by_size in evaluated.values():
        for size in SIZES:
            assert by_size[size]["exact"] == expected


def test_a_model_gives_the_same_counts_and_its_loss_to_the_rounding_of_its_logits(evaluated):
    # Matrix products of other sizes round differently: 1e-6 of the loss, no hit more or less.
    expected = evaluated[1]["64"]["model"]
    assert (expected["top1"] * SAMPLES) == pytest.approx(round(expected["top1"] * SAMPLES))
    for by_size in evaluated.values():
        for size in SIZES:
            values = by_size[size]["model"]
            assert (values["top1"], values["top5"]) == (expected["top1"], expected["top5"])
            for name in ("CELoss", "ViTCELoss", "loss"):
                assert values[name] == pytest.approx(expected[name], rel=1e-6)
