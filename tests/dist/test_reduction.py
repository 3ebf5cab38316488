"""Gradients, optimizer parts and sums of two real processes, against what NumPy says of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from workers import run_workers

STEPS = range(4)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, user_environment) -> list[dict[str, np.ndarray]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("reduction")
    script = Path(__file__).with_name("reduction_worker.py")
    ended = run_workers(script, 2, user_environment, str(folder))
    assert [status for status, _ in ended] == [0, 0], "\n".join(text for _, text in ended)
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(2)]


def test_gradients_become_the_sum_over_the_ranks(ranks):
    for step in STEPS:
        local = [
            {k.partition(f"local/{step}/")[2]: v for k, v in rank.items()
             if k.startswith(f"grad/False/False/local/{step}/")}
            for rank in ranks
        ]  # fmt: skip
        assert local[1].keys() < local[0].keys()
        for name in local[0]:
            expected = sum(part[name] for part in local if name in part)
            for rank in ranks:
                np.testing.assert_array_equal(rank[f"grad/False/False/{step}/{name}"], expected)


def test_a_parameter_that_no_rank_uses_keeps_no_gradient_as_in_one_process(ranks):
    assert not [key for rank in ranks for key in rank if "never" in key and "grad/" in key]
    # One that only rank 0 uses has its gradient everywhere.
    assert "grad/False/False/0/sometimes.weight" in ranks[1]


@pytest.mark.parametrize("recompute", [False, True])
def test_sending_during_the_backward_pass_changes_no_bit(ranks, recompute):
    for rank in ranks:
        plain = {k: v for k, v in rank.items() if k.startswith(f"grad/False/{recompute}/")}
        plain = {k: v for k, v in plain.items() if "/local/" not in k}
        assert len(plain) >= 4 * 8
        for key, value in plain.items():
            early = rank[key.replace("grad/False", "grad/True")]
            np.testing.assert_array_equal(early, value, err_msg=key)


def test_recomputed_gradients_are_the_plain_ones_to_rounding_where_a_layer_is_shared(ranks):
    for key, value in ranks[0].items():
        if key.startswith("grad/False/True/"):
            plain = ranks[0][key.replace("False/True", "False/False")]
            np.testing.assert_allclose(value, plain, rtol=1e-5, atol=1e-5, err_msg=key)


def test_a_gradient_that_grows_after_it_was_sent_is_refused(ranks):
    for rank in ranks:
        assert "grew after it was sent" in str(rank["late"])
        assert "DistributedStrategy.overlap=false" in str(rank["late"])


@pytest.mark.parametrize(
    ("kind", "slot"),
    [("AdamW", "moment2"), ("Momentum", "velocity"), ("Adafactor", "columns")],
)
def test_optimizer_state_in_parts_gives_the_same_weights_and_the_same_checkpoint(
    ranks, kind, slot
):
    for rank in ranks:
        weights = [key for key in rank if key.startswith(f"weights/{kind}/False/")]
        assert len(weights) == 10
        for key in weights:
            parts = rank[key.replace("False", "True", 1)]
            np.testing.assert_array_equal(parts, rank[key], err_msg=key)
    whole, parts = (
        {k.partition(start)[2]: v for k, v in ranks[0].items() if k.startswith(start)}
        for start in (f"state/{kind}/False/", f"state/{kind}/True/")
    )
    assert whole.keys() == parts.keys()
    assert f"last.weight/{slot}" in whole
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name].reshape(value.shape), value, err_msg=name)


def test_a_tensor_that_differs_is_named_on_all_ranks(ranks):
    for rank in ranks:
        text = "1 of 3 tensors are not the same on all 2 processes: b. Look there."
        assert str(rank["difference"]) == text


def test_integers_are_added_exactly(ranks):
    assert [int(rank["big"][0]) for rank in ranks] == [2**61 + 1] * 2
