"""A network disk that shows one machine the list of a folder as it was before."""

from __future__ import annotations

import numpy as np
import pytest

from passl.checkpoint.store import CheckpointStore
from passl.distributed.world import World
from passl.engine import resume


@pytest.fixture
def store(tmp_path):
    store = CheckpointStore(tmp_path / "run")
    for step in (30, 20):  # somebody went back: the newest is not the one of the highest step
        store.save(step, {"state.json": {}})
    return store


def chosen(store, monkeypatch, own, others, rank=0):
    """What this rank goes on with, where the others have found ``others`` (sequence, step)."""

    def sum_integers(values, world):
        total = np.array(values)
        rows = [number for number in range(world.size) if number != rank]
        total[rows] = others
        return total

    monkeypatch.setattr(resume, "sum_integers", sum_integers)
    return resume._newest_that_any_rank_sees(own, store, World(rank, len(others) + 1))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("own", ["step_00000030", None])
def test_a_rank_with_an_old_list_takes_what_another_has_found(store, monkeypatch, own, rank):
    folder = store.folder / own if own else None
    found = chosen(store, monkeypatch, folder, [(2, 20)], rank)
    assert found == store.folder / "step_00000020"


def test_a_rank_that_has_the_newest_keeps_it(store, monkeypatch):
    newest = store.latest()
    assert chosen(store, monkeypatch, newest, [(1, 30), (0, 0)]) == newest
    assert chosen(store, monkeypatch, None, [(0, 0)]) is None


@pytest.mark.parametrize("other", [(9, 90), (9, 30)])
def test_what_is_not_here_is_not_taken(store, monkeypatch, other):
    """Folders of their own on each machine: the ranks then disagree, and the run is refused."""
    newest = store.latest()
    assert chosen(store, monkeypatch, newest, [other]) == newest
