"""Batch arithmetic: derived or checked, never guessed."""

from __future__ import annotations

import dataclasses

import pytest

from passl.config import plan_batches
from passl.errors import ConfigError


@pytest.fixture
def plan(base, load):
    """``plan(world_size, *overrides)`` on the training config without any batch size."""

    def make(world_size: int, *overrides: str, mode: str = "train"):
        given = [f"Global.{text}" if not text.startswith("Data") else text for text in overrides]
        return plan_batches(load(base, "~Global.global_batch_size", *given), world_size, mode=mode)

    return make


PER_PROCESS = "DataLoader.Train.sampler.batch_size"


@pytest.mark.parametrize(
    ("world", "given", "expected", "text"),
    [
        (8, ["global_batch_size=4096", "micro_batch_size=256"], (4096, 512, 2, 256),
         "global batch 4096 = 8 processes x 512 images = 8 x 2 micro-batches of 256"),
        (32, ["global_batch_size=4096", "micro_batch_size=256"], (4096, 128, 1, 128),
         "global batch 4096 = 32 processes x 128 images"),
        (1, ["global_batch_size=4096", "micro_batch_size=256"], (4096, 4096, 16, 256),
         "global batch 4096 = 1 process x 4096 images = 1 x 16 micro-batches of 256"),
        (2, [f"{PER_PROCESS}=12"], (24, 12, 1, 12), "global batch 24 = 2 processes x 12 images"),
        (2, [f"{PER_PROCESS}=12", "global_batch_size=24", "accum_steps=3"], (24, 12, 3, 4),
         "global batch 24 = 2 processes x 12 images = 2 x 3 micro-batches of 4"),
        (1, [f"{PER_PROCESS}=12", "micro_batch_size=5"], (12, 12, 3, 4),
         "global batch 12 = 1 process x 12 images = 1 x 3 micro-batches of 4"),
        (1, [f"{PER_PROCESS}=7", "micro_batch_size=5"], (7, 7, 7, 1),
         "global batch 7 = 1 process x 7 images = 1 x 7 micro-batches of 1"),
        (1, [f"{PER_PROCESS}=12", "micro_batch_size=4", "accum_steps=6"], (12, 12, 6, 2),
         "global batch 12 = 1 process x 12 images = 1 x 6 micro-batches of 2"),
        (1, [f"{PER_PROCESS}=12", "micro_batch_size=64"], (12, 12, 1, 12),
         "global batch 12 = 1 process x 12 images"),
    ],
)  # fmt: skip
def test_what_is_not_given_follows(plan, world, given, expected, text):
    made = plan(world, *given)
    assert dataclasses.astuple(made)[:4] == expected
    assert made.world_size == world
    assert made.global_batch_size == made.world_size * made.accum_steps * made.micro_batch_size
    assert made.describe() == text


@pytest.mark.parametrize(
    ("world", "given", "expected"),
    [
        (8, ["global_batch_size=100"],
         "-o Global.global_batch_size=100: Global.global_batch_size: 100 images do not divide "
         "over 8 processes; "
         "nearest that do: 96 and 104; or start one of 1, 2, 4, 5, 10, 20, 25, 50, 100 processes"),
        (8, ["global_batch_size=3"],
         "-o Global.global_batch_size=3: Global.global_batch_size: 3 images do not divide over 8 "
         "processes; "
         "nearest that do: 8; or start one of 1, 3 processes"),
        (2, ["global_batch_size=8", f"{PER_PROCESS}=8"],
         f"-o Global.global_batch_size=8: Global.global_batch_size: 8 contradicts {PER_PROCESS}=8 "
         f"(-o {PER_PROCESS}=8) on 2 processes (16 images); keep one of them"),
        (4, ["global_batch_size=24", "accum_steps=4"],
         "-o Global.accum_steps=4: Global.accum_steps: 4 does not divide the 6 images of one "
         "process; "
         "choices: 1, 2, 3, 6"),
        (1, ["global_batch_size=12", "accum_steps=2", "micro_batch_size=4"],
         "-o Global.accum_steps=2: Global.accum_steps: 2 makes micro-batches of 6, above "
         "Global.micro_batch_size=4 (-o Global.micro_batch_size=4); write 3, or leave accum_steps "
         "out"),
        (1, [], "x.yaml: Global.global_batch_size: missing; give it (images of all processes) or "
         f"{PER_PROCESS} (images of one process)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_choices(plan, world, given, expected):
    with pytest.raises(ConfigError) as error:
        plan(world, *given)
    assert str(error.value) == expected


def test_evaluation_is_free_of_the_training_batch(plan):
    evaluation = "DataLoader.Eval={dataset: {name: ToyData, root: r}, sampler: {batch_size: 5}}"
    assert plan(2, "global_batch_size=8", evaluation).eval_batch_size == 10
    assert plan(2, "global_batch_size=8", "accum_steps=2").eval_batch_size == 4
    assert plan(3, "global_batch_size=8", evaluation, mode="eval").eval_batch_size == 15
    assert plan(3, evaluation, mode="eval").describe() == "global batch 15 = 3 processes x 5 images"
