"""What ``passl-data imagenet21k`` costs: hashing against md5sum, and lists of 14 million images.

    python benchmarks/prepare_imagenet21k.py [--files 60000] [--rounds 5] [--lines 14000000]
        [--save benchmarks/README.md]

Hashing: files of 24 to 36 KB in a temporary folder (in the page cache: what is measured is the
work, not the disk), ``find -print0 | xargs -0 -P2 md5sum`` and ours with two processes taken in
turns.  Lists: a synthetic output of md5sum with every tenth image a copy, in a process of its own.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from marks import put_table
from measured import measured

CLASSES = 21841
_MEASURE = """
import resource, sys, time
from pathlib import Path
from passl.data.prepare.imagenet21k import Options, prepare
started = time.perf_counter()
options = Options(root=Path("/data"), out=Path(sys.argv[2]), md5sum=Path(sys.argv[1]))
summary = prepare(options, say=lambda _: None)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(time.perf_counter() - started, peak, summary.num_images)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=60_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lines", type=int, default=14_000_000, help="0 leaves this part out")
    parser.add_argument("--save", metavar="FILE", help="put the table between the marks of FILE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.files:
            text = measure_hashing(Path(folder), options.files, options.rounds)
            print(text)
            if options.save:
                put_table(Path(options.save), "prepare_imagenet21k", text)
        if options.lines:
            measure_lists(Path(folder), options.lines)


def measure_hashing(folder: Path, count: int, rounds: int) -> str:
    """A table of the seconds of both ways."""
    root = folder / "data"
    rng = random.Random(0)
    for number in range(count):
        target = root / f"images/n{number % 100:08d}"
        target.mkdir(parents=True, exist_ok=True)
        (target / f"{number}.JPEG").write_bytes(rng.randbytes(rng.randrange(24 << 10, 36 << 10)))
    pipe = f"find {root}/images -type f -print0 | xargs -0 -P2 md5sum > {folder}/md5sum.txt"
    command = [sys.executable, "-m", "passl.cli.data", "imagenet21k", str(root), "--workers", "2"]
    names = "`find -print0`, `xargs -P2 md5sum`", "`passl-data imagenet21k`, lists included"
    times: dict[str, list[float]] = {name: [] for name in names}
    load = os.getloadavg()[0]
    for _ in range(rounds):
        times[names[0]].append(seconds(["bash", "-c", pipe]))
        times[names[1]].append(seconds([*command, "--out", str(folder / "out")]))
    base = statistics.median(times[names[0]])
    lines = [
        f"{measured('numpy')}; {count:,} files; medians of {rounds} rounds; "
        f"load {load:.1f} before, {os.getloadavg()[0]:.1f} after.",
        "",
        "| | s | min to max | files a second | times md5sum |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, taken in times.items():
        middle = statistics.median(taken)
        lines.append(
            f"| {name} | {middle:.2f} | {min(taken):.2f} to {max(taken):.2f} "
            f"| {count / middle:,.0f} | {middle / base:.2f} |"
        )
    return "\n".join(lines)


def seconds(command: list[str]) -> float:
    """Wall time of a command."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def measure_lists(folder: Path, count: int) -> None:
    """Print time and memory of merging and writing."""
    path = folder / "many.txt"
    rng = random.Random(0)
    with path.open("w", encoding="ascii") as file:
        for number in range(count):
            digest = number if number % 10 else rng.randrange(max(number, 1))
            synset = f"n{number * CLASSES // count:08d}"
            file.write(f"{digest:032x}  /data/images/{synset}/{synset}_{number % 3000}.JPEG\n")
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(path), str(folder / "lists")],
        check=True,
        capture_output=True,
        text=True,
    )
    taken, peak, images = map(float, done.stdout.split())
    print(
        f"{count:,} lines: {taken:.0f} s, peak {peak:,.0f} MiB "
        f"({peak * 2**20 / count:.0f} bytes a file), {images:,.0f} different images"
    )


if __name__ == "__main__":
    main()
