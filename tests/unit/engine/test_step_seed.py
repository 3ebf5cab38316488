"""The seed of a step's dropout masks."""

from __future__ import annotations

import paddle
from small_run import built

from passl.distributed.world import World
from passl.engine.trainer import step_seed


def test_it_differs_with_the_run_the_process_and_the_step_and_paddle_takes_it():
    seeds = {step_seed(*each) for each in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1))}
    assert len(seeds) == 5
    assert all(0 <= seed < 2**63 for seed in seeds)
    for seed in seeds:
        paddle.seed(seed)


def test_every_process_draws_masks_of_its_own_at_every_step(run_folder, monkeypatch):
    run = built(run_folder)
    trainer = run.trainer
    batch = next(trainer.parts.loader.epoch(1))
    seeds: list[int] = []
    monkeypatch.setattr(paddle, "seed", seeds.append)
    try:
        for rank, step in ((0, 0), (1, 0), (0, 1)):
            trainer.parts.world, trainer.state.step = World(rank), step
            trainer.train_step(batch)
    finally:
        trainer.parts.loader.close()
        run.close()
    assert len(set(seeds)) == len(seeds) == 3
