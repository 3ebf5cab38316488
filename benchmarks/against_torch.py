"""PASSL beside torch and timm, and beside Paddle as it comes, on a CPU: the whole table.

    python benchmarks/against_torch.py --torch-python PATH --save benchmarks/README.md
    python benchmarks/against_torch.py --torch-python PATH --models ti --rounds 3 --skip-stock

``PATH`` is an interpreter with torch and timm.  Contestants are processes that take turns
(``duel.py``, ``sides.py``); medians over the rounds.  Two figures each: seconds of the processor
with one thread, which other work on the machine disturbs little, and seconds by the clock with two
threads, which is what users feel and means something on an idle machine only.  A step is forward,
cross entropy, backward and AdamW (torch's fused), float32, random images in memory.
``--rounds 3`` took less than five minutes on an idle machine of two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Optional

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

from duel import Contestant, Timing, take_turns  # noqa: E402
from marks import put_table  # noqa: E402
from measured import measured, versions  # noqa: E402

TITLES = {"ti": "ViT-Ti/16, batch 8", "s": "ViT-S/16, batch 4", "b": "ViT-B/16, batch 2"}
TASKS = {"train": "training step", "infer": "inference"}
#: The most that ours may take, in parts of torch's.
GOALS = {
    ("ti", "train"): 1.1, ("s", "train"): 1.0, ("b", "train"): 1.0,
    ("ti", "infer"): 1.0, ("s", "infer"): 1.0, ("b", "infer"): 1.0,
    ("parameters", "adamw"): 1.5, ("parameters", "clip"): 1.2,
}
HEAD = [
    "| what | threads | torch | PASSL | PASSL / torch | goal |",
    "|---|---|---:|---:|---:|---:|",
]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch-python", required=True, help="an interpreter with torch and timm")
    parser.add_argument("--models", nargs="+", choices=TITLES, default=list(TITLES))
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--skip-stock", action="store_true", help="not Paddle as it comes")
    parser.add_argument("--save", type=Path, metavar="FILE", help="put the table between its marks")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    rows = []
    for model in options.models:
        rows += _pairs(options.torch_python, model, list(TASKS), options.rounds)
    rows += _pairs(options.torch_python, "parameters", ["adamw", "clip"], options.rounds)
    rows.append(_memory(options.torch_python))
    table = [*HEAD, *rows]
    if not options.skip_stock:
        table += ["", *_stock(options.models, max(1, options.rounds // 2))]
    table += ["", *_quickstart()]
    peer = ", ".join(versions(["torch", "timm"], options.torch_python))
    head = (
        f"{measured('numpy')}, {peer}; medians of {options.rounds} interleaved rounds; "
        f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after. 1 thread: milliseconds of the "
        "processor; 2 threads: by the clock."
    )
    text = "\n".join([head, "", *table])
    print(text)
    if options.save:
        put_table(options.save, "against_torch", text)
    return 0


@contextlib.contextmanager
def _contestants(
    pythons: dict[str, str], what: str, threads: int
) -> Iterator[dict[str, Contestant]]:
    made = {
        kind: Contestant(
            [python, "-W", "ignore", str(_HERE / "sides.py"), kind, what, str(threads)],
            {"OMP_NUM_THREADS": str(threads)} if kind == "torch" else None,
        )
        for kind, python in pythons.items()
    }
    try:
        yield made
    finally:
        for contestant in made.values():
            contestant.close()


def _pairs(torch_python: str, what: str, tasks: Sequence[str], rounds: int) -> list[str]:
    rows = []
    for threads in (1, 2):
        print(f"{what}, {threads} threads", file=sys.stderr)
        pythons = {"torch": torch_python, "passl": sys.executable}
        with _contestants(pythons, what, threads) as contestants:
            for task in tasks:
                timings = take_turns(contestants, task, rounds)
                rows.append(row(what, task, threads, timings))
                print(rows[-1], file=sys.stderr)
    return rows


def row(what: str, task: str, threads: int, timings: dict[str, Timing]) -> str:
    """One line of the table: processor time of one thread, or time by the clock."""
    which = "cpu" if threads == 1 else "wall"
    theirs, ours = (timings[kind].median(which) for kind in ("torch", "passl"))
    names = {"adamw": "AdamW step, ViT-B's parameters", "clip": "clipping, ViT-B's gradients"}
    title = names[task] if what == "parameters" else f"{TITLES[what]}: {TASKS[task]}"
    return (
        f"| {title} | {threads} | {1e3 * theirs:.0f} ms | {1e3 * ours:.0f} ms "
        f"| {ours / theirs:.2f} | {GOALS[what, task]} |"
    )


def _memory(torch_python: str) -> str:
    """Peak of a process that made three steps of ViT-B, imports included."""
    peaks = {}
    with _contestants({"torch": torch_python, "passl": sys.executable}, "b", 1) as contestants:
        for kind, contestant in contestants.items():
            for _ in range(3):
                contestant.ask("train")
            peaks[kind] = contestant.ask("peak")["value"]
    ratio = peaks["passl"] / peaks["torch"]
    return (
        f"| {TITLES['b']}: peak memory of training | 1 | {peaks['torch']:.0f} MiB "
        f"| {peaks['passl']:.0f} MiB | {ratio:.2f} | 1.0 |"
    )


def _stock(models: Sequence[str], rounds: int) -> list[str]:
    """Paddle's defaults, which are one thread, against ours with two."""
    lines = [
        "| training step | stock Paddle | PASSL, 1 thread (processor) | times faster "
        "| PASSL, 2 threads (clock) | times faster |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for model in models:
        print(f"{model}, stock", file=sys.stderr)
        found = {}
        for threads in (1, 2):
            pythons = {"stock": sys.executable, "passl": sys.executable}
            with _contestants(pythons, model, threads) as contestants:
                found[threads] = take_turns(contestants, "train", rounds)
        cpu = [found[1][kind].median("cpu") for kind in ("stock", "passl")]
        wall = [found[2][kind].median("wall") for kind in ("stock", "passl")]
        lines.append(
            f"| {TITLES[model]} | {cpu[0]:.2f} s | {cpu[1]:.2f} s | {cpu[0] / cpu[1]:.1f} "
            f"| {wall[1]:.2f} s | {wall[0] / wall[1]:.1f} |"
        )
    return lines


_PHASES = """
import sys, time
marks = [time.perf_counter()]
def mark(): marks.append(time.perf_counter())
from passl import runtime
runtime.prepare(); runtime.import_paddle()
import passl, passl.engine.build
from passl.engine.trainer import Trainer
saving, save = [0.0], Trainer.save
def timed(self, *arguments):
    start = time.perf_counter()
    save(self, *arguments)
    saving[0] += time.perf_counter() - start
Trainer.save = timed
mark()
run = passl.build_run(passl.load_config(sys.argv[1], sys.argv[2:]), mode="train")
mark()
run.fit()
mark()
print("PHASES", *(b - a for a, b in zip(marks, marks[1:])), saving[0])
"""


def _quickstart() -> list[str]:
    """Seconds from the command to the trained model, phase by phase."""
    found = []
    config = next((_HERE.parent / "configs" / "quickstart").glob("ViT_micro*.yaml"))
    for _ in range(3):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _PHASES, str(config),
                 f"Global.output_dir={folder}"],
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True,
                cwd=_HERE.parent,
            )
            whole = time.perf_counter() - start
        phases = next(line for line in done.stdout.splitlines() if line.startswith("PHASES"))
        found.append([whole, *map(float, phases.split()[1:])])
    middle = [statistics.median(column) for column in zip(*found)]
    return [
        f"| quick start, `{config.name}`, seconds by the clock | whole command | import | build "
        "| train and evaluate | of it held up by saving |",
        "|---|---:|---:|---:|---:|---:|",
        "| median of 3 | " + " | ".join(f"{value:.2f}" for value in middle) + " |",
    ]


if __name__ == "__main__":
    sys.exit(main())
