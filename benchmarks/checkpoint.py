"""What a checkpoint costs: the pause of the loop, the time until it is durable, and a resume.

    python benchmarks/checkpoint.py --save benchmarks/README.md

The state is that of ViT-B/16 with AdamW (weights and two moments), saved through the same `Saver`
as in a run.  In every round, one after the other:

- raw: the bytes of that checkpoint in one file, `os.write` in pieces of 16 MB, then `fsync`;
- paused: the copy to the host and the hand-over to the thread, what the loop is held up for;
- durable: from the hand-over until the checkpoint is hashed, synced, renamed and linked;
- resume: find the newest checkpoint, verify its hashes, put weights and optimizer state in place
  (the files are in the page cache).

Ratios are of medians over all rounds.  Durable is divided by raw, which needs no hash, no folder
and no pruning.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from marks import put_table
from measured import measured

REPO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPO))

from passl import runtime  # noqa: E402  the settings come before Paddle

_PIECE = 16 << 20
_MODEL = "ViT_base_patch16_224"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure, print the table, and put it into a file if asked to."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default=_MODEL)
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: temporary)")
    parser.add_argument("--save", metavar="FILE", help="put the table between the marks of FILE")
    options = parser.parse_args(argv)
    settings = runtime.prepare(device="cpu")
    runtime.import_paddle()
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="checkpoint-") as folder:
        rounds = measure(options.model, Path(folder), options.rounds)
    table = describe(rounds, options, settings.describe())
    print(table)
    if options.save:
        put_table(Path(options.save), "checkpoint", table)
    return 0


def measure(model_name: str, folder: Path, num_rounds: int) -> list[dict[str, float]]:
    """Seconds of each part in each round."""
    from passl.checkpoint.saver import Saver
    from passl.checkpoint.store import CheckpointStore

    model, optimizer = _training_state(model_name)
    store = CheckpointStore(folder / "run", keep_latest=2)
    store.prepare()
    results: list[Any] = []
    saver = Saver(store, results.append)
    rounds: list[dict[str, float]] = []
    for number in range(num_rounds + 1):
        seconds = {"load": os.getloadavg()[0]}
        began = time.perf_counter()
        saver.submit(number + 1, _contents(model, optimizer))
        seconds["paused"] = time.perf_counter() - began
        saver.finish()
        seconds["durable"] = time.perf_counter() - began
        newest = results[-1].folder
        size = sum(path.stat().st_size for path in newest.iterdir())
        seconds["bytes"] = float(size)
        seconds["raw"] = _raw_write(folder / "raw", size)
        began = time.perf_counter()
        _resume(store, model, optimizer)
        seconds["resume"] = time.perf_counter() - began
        if number:  # the first round warms up
            rounds.append(seconds)
    store.close()
    return rounds


def describe(
    rounds: Sequence[Mapping[str, float]], options: argparse.Namespace, settings: str
) -> str:
    """The table of medians, least and most."""
    medians = {name: statistics.median(item[name] for item in rounds) for name in rounds[0]}
    loads = sorted(item["load"] for item in rounds)
    disk = shutil.disk_usage(tempfile.gettempdir()).total / 1e9
    lines = [
        f"{measured()}; a disk of {disk:.0f} GB; {settings}. {options.model} with AdamW, "
        f"{medians['bytes'] / 1e9:.2f} GB a checkpoint; medians of {len(rounds)} rounds; load "
        f"{loads[0]:.1f} to {loads[-1]:.1f}.",
        "",
        "| what | s | min to max | times a raw write |",
        "|---|---:|---:|---:|",
    ]
    names = {
        "raw": "raw write with fsync",
        "paused": "the loop is held up",
        "durable": "until durable, in the background",
        "resume": "resume: find, verify, load",
    }
    for name, title in names.items():
        values = [item[name] for item in rounds]
        lines.append(
            f"| {title} | {medians[name]:.2f} | {min(values):.2f} to {max(values):.2f} | "
            f"{medians[name] / medians['raw']:.2f} |"
        )
    return "\n".join(lines)


def _training_state(model_name: str) -> tuple[Any, Any]:
    """A model and its optimizer after one update, so that the moments are no zeros."""
    import paddle

    from passl.models import create_model
    from passl.optim.adamw import AdamW
    from passl.optim.groups import build_param_groups

    model = create_model(model_name, seed=0)
    groups = build_param_groups(model.named_parameters(), weight_decay=0.3)
    optimizer = AdamW(groups=groups)
    for _, parameter in model.named_parameters():
        parameter.grad = paddle.randn(parameter.shape) * 1e-3
    optimizer.step(1e-3)
    optimizer.clear_grad()
    return model, optimizer


def _contents(model: Any, optimizer: Any) -> dict[str, Any]:
    return {
        "model.pdparams": {name: value.numpy() for name, value in model.state_dict().items()},
        "optimizer.pdopt": {name: value.numpy() for name, value in optimizer.state_dict().items()},
        "state.json": {"step": 1},
    }


def _raw_write(path: Path, size: int) -> float:
    """Seconds to write so many random bytes to a new file and to sync it."""
    piece = memoryview(os.urandom(_PIECE))
    began = time.perf_counter()
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    left = size
    while left > 0:
        left -= os.write(handle, piece[: min(left, _PIECE)])
    os.fsync(handle)
    os.close(handle)
    seconds = time.perf_counter() - began
    path.unlink()
    return seconds


def _resume(store: Any, model: Any, optimizer: Any) -> None:
    from passl.checkpoint.files import read_arrays
    from passl.checkpoint.pretrained import load_pretrained

    folder = store.latest()
    load_pretrained(model, str(folder), finetune=False)
    optimizer.load_state_dict(read_arrays(folder / "optimizer.pdopt"))


if __name__ == "__main__":
    sys.exit(main())
