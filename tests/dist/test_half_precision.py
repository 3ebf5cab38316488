"""O2 in two processes over gloo: they decide alike, and no strategy changes a bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from launched import launch
from small_run import RunFolder, assert_same_arrays
from spoiled import spoiled_data

from passl.data.rng import epoch_order

pytestmark = pytest.mark.slow

BATCH = 250
O2 = (
    "~DataLoader.Train.sampler.batch_size", "FP16.level=O2",
    f"Global.global_batch_size={BATCH}", "Global.epochs=2",
    "FP16.GradScaler.init_loss_scaling=65536", "FP16.GradScaler.decr_every_n_nan_or_inf=1",
    "Global.micro_batch_size=63", "EMA={decay: 0.9}",
)  # fmt: skip


@pytest.fixture
def train_two(repo, user_environment):
    helpers = str(repo / "tests" / "helpers")
    environment = {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}

    def train(run: RunFolder, *overrides: str) -> list[dict[str, np.ndarray]]:
        options = (
            *O2, *overrides, "Global.imports=[spoiled, forced_amp_on, whole_ranks]",
            f"Hooks=[{{name: DumpRank, folder: {run.root}}}]",
        )  # fmt: skip
        launch(run, repo, environment, *options)
        return ranks(run.root)

    return train


def ranks(folder: Path) -> list[dict[str, np.ndarray]]:
    files = sorted(folder.glob("rank_*.npz"))
    assert len(files) == 2
    return [dict(np.load(file)) for file in files]


def bad_sample(step: int, rank: int) -> int:
    """One that only this rank sees in this step of the first epoch."""
    order = epoch_order(1438, 2021, 1)[(step - 1) * BATCH : step * BATCH]
    return int(order[rank * (BATCH // 2) + 3])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_what_is_not_finite_on_one_process_is_skipped_by_both(make_run, train_two, dtype):
    run = make_run("run")
    options = (f"FP16.dtype={dtype}", *spoiled_data(bad_sample(3, rank=1)))
    first, second = train_two(run, *options)
    assert_same_arrays(first, second)
    assert first["skipped"] >= 1
    assert (run.state()["skipped_steps"], run.state()["step"]) == (first["skipped"], 12)
    if dtype == "float16":
        assert first["scale"] == 65536.0 / 2 ** int(first["skipped"])
    weights = run.weights()
    for name, value in weights.items():
        np.testing.assert_array_equal(first.get(f"master/{name}", first[name]), value)
        assert np.isfinite(value).all()


@pytest.mark.parametrize(
    ("strategy", "dtype"),
    [
        ("DistributedStrategy.sharding={stage: 1}", "float16"),
        ("DistributedStrategy.overlap=true", "bfloat16"),
    ],
    ids=["sharding", "overlap"],
)
def test_strategies_give_the_bits_of_the_plain_way(make_run, train_two, strategy, dtype):
    plain, other = make_run("plain"), make_run("other")
    options = (f"FP16.dtype={dtype}", *spoiled_data(bad_sample(2, rank=0)))
    wanted = train_two(plain, *options)
    found = train_two(other, *options, strategy)
    for mine, theirs in zip(wanted, found):
        assert_same_arrays(theirs, mine)
    assert_same_arrays(other.weights(), plain.weights())
    assert_same_arrays(other.optimizer(), plain.optimizer())


def test_a_sharded_run_is_stopped_and_goes_on_without_a_trace(make_run, train_two):
    whole, stopped = make_run("whole"), make_run("stopped")
    sharding = "DistributedStrategy.sharding={stage: 1}"
    wanted = train_two(whole, sharding)
    train_two(stopped, sharding, "Global.max_train_step=7")
    found = train_two(stopped, sharding)
    for mine, theirs in zip(wanted, found):
        assert_same_arrays(theirs, mine)
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
