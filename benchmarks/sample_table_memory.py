"""What a list of 14 million images costs: seconds to read and check it, and memory while doing so.

    python benchmarks/sample_table_memory.py [--entries 14000000] [--multi-label]

Writes a synthetic list with ImageNet-21K's kind of paths to a temporary file, reads it in a process
of its own, and prints the peak of that process against the same list as Python objects
(extrapolated from a part of it).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CLASSES = 21841
_OBJECTS_SAMPLE = 500_000

_MEASURE = """
import resource, sys, time
from pathlib import Path
from passl.data.lists import read_list
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, started = peak(), time.perf_counter()
table = read_list(Path(sys.argv[1]), multi_label=sys.argv[2] == "1", class_num=int(sys.argv[3]))
print(time.perf_counter() - started, before, peak(), table.nbytes / 2**20, len(table))
"""
_MEASURE_OBJECTS = """
import resource, sys, time
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before, started, entries = peak(), time.perf_counter(), []
with open(sys.argv[1]) as file:
    for _, line in zip(range(int(sys.argv[2])), file):
        path, label = line.strip().split(" ")
        entries.append((path, label))
print(time.perf_counter() - started, peak() - before)
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--entries", type=int, default=14_000_000)
    parser.add_argument("--multi-label", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.txt"
        write_list(path, options.entries, options.multi_label)
        size = path.stat().st_size / 2**20
        seconds, before, peak, table, count = run(
            _MEASURE, path, str(int(options.multi_label)), str(CLASSES)
        )
        part = min(_OBJECTS_SAMPLE, options.entries)
        object_seconds, object_memory = run(_MEASURE_OBJECTS, path, str(part))
    factor = options.entries / part
    print(f"list: {count:,.0f} entries, {size:.0f} MiB on disk")
    print(f"{'':24}{'seconds':>10}{'peak MiB':>10}{'kept MiB':>10}{'bytes/entry':>13}")
    per_entry = (peak - before) * 2**20 / options.entries
    print(f"{'SampleTable':24}{seconds:10.1f}{peak:10.0f}{table:10.0f}{per_entry:13.1f}")
    memory = object_memory * factor
    per_entry = memory * 2**20 / options.entries
    print(
        f"{'Python tuples (scaled)':24}{object_seconds * factor:10.1f}{memory:10.0f}"
        f"{memory:10.0f}{per_entry:13.1f}"
    )


def write_list(path: Path, entries: int, multi_label: bool) -> None:
    """``nXXXXXXXX/nXXXXXXXX_N.JPEG label`` a line; every tenth line has three labels if asked."""
    with path.open("w") as file:
        for number in range(entries):
            label = number * CLASSES // entries
            more = f",{(label + 7) % CLASSES},{(label + 99) % CLASSES}"
            end = more if multi_label and number % 10 == 0 else ""
            file.write(f"n{label:08d}/n{label:08d}_{number % 100000}.JPEG {label}{end}\n")


def run(code: str, *arguments: object) -> list[float]:
    """The numbers that ``code`` prints in a fresh interpreter."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
