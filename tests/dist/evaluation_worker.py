"""A worker of test_evaluation.py: evaluates the same weights with several batch sizes.

evaluation_worker.py CONFIG WEIGHTS OUTPUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import passl
from passl.distributed.world import read_world


class Linear:
    """Logits of a sample from its pixels alone, one by one: no matrix product, no rounding."""

    training = False

    def __call__(self, images: Any) -> Any:
        return images.reshape([images.shape[0], -1])[:, 20:30] * 3.0

    def eval(self) -> None:
        """Nothing changes."""

    def sublayers(self, include_self: bool = False) -> list[Any]:
        """None has statistics to agree on."""
        return []


def main() -> None:
    config, weights, output = sys.argv[1:]
    world, found = read_world(), {}
    for batch_size in (1, 7, 64):
        options = [f"Global.pretrained_model={weights}", "Global.print_batch_step=1000"]
        options.append(f"DataLoader.Eval.sampler.batch_size={batch_size}")
        options.append("Loss.Eval=[{CELoss: {epsilon: 0.1}}, {ViTCELoss: {weight: 0.5}}]")
        run = passl.build_run(passl.load_config(config, options), "eval")
        result = run.evaluate()
        exact = run.evaluator.run(Linear())
        found[batch_size] = {
            "model": result.values, "exact": exact.values,
            "samples": [result.samples, exact.samples],
        }  # fmt: skip
    if world.is_main:
        Path(output).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
