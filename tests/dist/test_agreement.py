"""Three real processes ask whether a number is the same on all of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from workers import run_workers


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, user_environment) -> list[dict[str, list[bool]]]:
    """What each found: three, as sums of three numbers need not be exact in floating point."""
    folder = tmp_path_factory.mktemp("agreement")
    script = Path(__file__).with_name("agreement_worker.py")
    ended = run_workers(script, 3, user_environment, str(folder))
    assert [status for status, _ in ended] == [0, 0, 0], "\n".join(text for _, text in ended)
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(3)]


def test_digits_of_a_hash_that_all_have_are_the_same_on_any_number_of_processes(ranks):
    for rank in ranks:
        assert len(rank["same"]) > 40
        assert all(rank["same"])


def test_a_number_that_one_rank_has_not_is_found_by_all(ranks):
    for rank in ranks:
        assert not any(rank["another"])
