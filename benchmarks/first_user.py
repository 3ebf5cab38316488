"""Seconds that a first-time user waits: from the clone to a resumed run.

    python benchmarks/first_user.py                       # with this interpreter; two minutes
    python benchmarks/first_user.py --setup               # `make setup` in the clone as well
    python benchmarks/first_user.py --save benchmarks/README.md

Everything happens in a fresh clone of this checkout (what is committed), by the commands of README
and docs, each a process of its own as a user starts it: importing Paddle is part of every figure.
"First step" is the time from the command to its first line about training.  The files of "own
images" are written by the page's own command, which is not counted.  A run is stopped by SIGTERM
when half of its epochs are evaluated, and the same command continues it.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from marks import put_table
from measured import measured

_REPO = Path(__file__).resolve().parents[1]
_QUICKSTART = "passl-train -c configs/quickstart/ViT_micro_digits.yaml"
_OWN = "passl-train -c my_digits.yaml"
_FINETUNE = (
    "passl-train -c my_digits.yaml -o Global.output_dir=output/finetuned Global.epochs=4 "
    "Global.pretrained_model=output/ViT_tiny_patch16_224/best Global.finetune=true "
    "Global.finetune_head=new"
)
_EVALUATED = re.compile(r"\[Eval\]\[Epoch (\d+)\]\[Avg\]")
_ANY_STEP = re.compile(r"\[Train\]\[Epoch \d+/")


@dataclass
class Timing:
    """One command.

    Attributes:
        what: for the table.
        command: as it was typed.
        seconds: from start to end, of each round.
        first_step: from start to the first line about a step, of each round.
    """

    what: str
    command: str
    seconds: list[float]
    first_step: list[float]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    parser = argparse.ArgumentParser(description="Seconds that a first-time user waits.")
    parser.add_argument("--rounds", type=int, default=1, help="repeat all of it (default: 1)")
    parser.add_argument("--setup", action="store_true", help="time `make setup` too, once")
    parser.add_argument("--save", metavar="FILE", help="put the table between the marks of FILE")
    options = parser.parse_args(argv)
    load = os.getloadavg()[0]
    timings: dict[str, Timing] = {}
    for round_ in range(options.rounds):
        with tempfile.TemporaryDirectory(prefix="passl-first-") as folder:
            for timing in _walk(Path(folder) / "PASSL", options.setup and round_ == 0):
                known = timings.setdefault(timing.what, timing)
                if known is not timing:
                    known.seconds += timing.seconds
                    known.first_step += timing.first_step
    table = _table(list(timings.values()), load, options.rounds)
    print(table)
    if options.save:
        put_table(Path(options.save), "first_user", table)
    return 0


def _walk(clone: Path, setup: bool) -> list[Timing]:
    """The way of a first-time user; the seconds of each command."""
    timings = [_time("clone", f"git clone --quiet {_REPO} {clone}", clone.parent)]
    timings[0].command = "git clone"
    if setup:
        timings.append(_time("environment", "make setup", clone))
    page = (clone / "docs/own_images.md").read_text(encoding="utf-8")
    for text in ("from sklearn.datasets", "cat > my_digits.yaml"):
        subprocess.run(
            ["bash", "-ec", _block(page, text)],
            cwd=clone,
            env=_environment(clone),
            check=True,
            stdout=subprocess.DEVNULL,
        )
    return [
        *timings,
        _time("a wrong config", f"{_QUICKSTART} -o Global.epoch=3", clone, status=2),
        _time("quick start, trained", _QUICKSTART, clone),
        _time("own images: lists", "passl-data lists my_images --split train=0.8,val=0.2", clone),
        _time("own images: check all", "passl-check -c my_digits.yaml --data", clone),
        _time("own images: trained, 10 epochs", _OWN, clone),
        _time(
            "own images: 182 named",
            "passl-infer my_images/one "
            "--model output/ViT_tiny_patch16_224 --format csv --out guesses.csv",
            clone,
        ),
        _time("fine-tuned, 4 epochs", _FINETUNE, clone),
        _time(
            "stopped half-way",
            f"{_QUICKSTART} -o Global.output_dir=output/again",
            clone,
            status=75,
            stop_after=12,
        ),
        _time("resumed to the end", f"{_QUICKSTART} -o Global.output_dir=output/again", clone),
    ]


def _time(
    what: str, command: str, folder: Path, *, status: int = 0, stop_after: Optional[int] = None
) -> Timing:
    """Run a command to its end, or stop it after an evaluation."""
    print(f"{what}: {command}", file=sys.stderr)
    start = time.perf_counter()
    first: list[float] = []
    said: list[str] = []
    with subprocess.Popen(
        command.split(),
        cwd=folder,
        env=_environment(folder),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if not first and _ANY_STEP.search(line):
                first.append(time.perf_counter() - start)
            evaluated = _EVALUATED.search(line)
            if evaluated and stop_after == int(evaluated[1]):
                process.send_signal(signal.SIGTERM)
    if process.returncode != status:
        raise SystemExit(f"{command}: status {process.returncode}\n{''.join(said[-20:])}")
    return Timing(what, command, [time.perf_counter() - start], first)


def _environment(clone: Path) -> dict[str, str]:
    """That of a shell in which the environment of the clone, or of this interpreter, is active."""
    own = clone / ".venv/bin"
    commands = own if own.is_dir() else Path(sys.executable).parent
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    if not own.is_dir():
        environment["PYTHONPATH"] = str(clone)
    return {**environment, "PATH": f"{commands}{os.pathsep}{os.environ['PATH']}"}


def _block(page: str, text: str) -> str:
    """The part of the page's code block that holds ``text``, up to the end of its here-document."""
    found = next(block for block in re.findall(r"```bash\n(.*?)```", page, re.S) if text in block)
    return found.partition("\nEOF\n")[0] + "\nEOF\n"


def _table(timings: Sequence[Timing], load: float, rounds: int) -> str:
    of = "one round" if rounds == 1 else f"medians of {rounds} rounds"
    rows = [
        f"{measured()}; {of}; load before: {load:.1f}.",
        "",
        "| what | command | s | to the first step, s |",
        "|---|---|---:|---:|",
    ]
    for timing in timings:
        first = f"{statistics.median(timing.first_step):.1f}" if timing.first_step else ""
        seconds = f"{statistics.median(timing.seconds):.1f}"
        rows.append(f"| {timing.what} | `{timing.command}` | {seconds} | {first} |")
    return "\n".join(rows)


if __name__ == "__main__":
    sys.exit(main())
