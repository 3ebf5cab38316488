"""Foreign weights to .pdparams: seconds and peak memory, against torch.load plus paddle.save.

    python benchmarks/convert_files.py --torch-python PATH [--models base large] [--rounds 3]

``PATH`` is an interpreter with torch and paddle; without it the files of PyTorch and the other side
are left out.  Random float32 weights of ViT's shapes are written once as PyTorch zip, safetensors
and .npz; then every contestant turns one into a .pdparams file, in a process of its own, in turns.
Imports are not timed; memory is the process's peak, imports included.  In the lines of the formats
only values move: no names change and nothing is transposed.  ``passl-convert`` is the command as it
is typed, without --verify: it also finds the model, transposes, looks for NaN, hashes both files
and writes the record.  PASSL's files are forced to the disk (fsync) before the clock stops,
paddle.save's is not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from measured import measured, versions

from passl.checkpoint.sources import write_safetensors

SIZES = {"base": (768, 12), "large": (1024, 24)}
_PEAK = """
def peak():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmHWM"))
"""
_OURS = (
    _PEAK
    + """
import sys, time
from collections.abc import Mapping
from passl.checkpoint.files import write_arrays
from passl.checkpoint.sources import open_source

class Arrays(Mapping):
    def __init__(self, source): self.source = source
    def __getitem__(self, name): return self.source.read(name)
    def __iter__(self): return iter(self.source.names())
    def __len__(self): return len(self.source.names())

started = time.perf_counter()
with open_source(sys.argv[1]) as source:
    write_arrays(sys.argv[2], Arrays(source))
print(time.perf_counter() - started, peak())
"""
)
#: The command itself; it imports Paddle for the models, here before the clock starts.
_COMMAND = (
    _PEAK
    + """
import sys, time
import paddle
from passl.cli.convert import main
started = time.perf_counter()
assert main([*sys.argv[1:], "--overwrite"]) == 0
print(time.perf_counter() - started, peak())
"""
)
_THEIRS = (
    "import zlib\n"
    + _PEAK
    + """
import sys, time
import paddle, torch
started = time.perf_counter()
tensors = torch.load(sys.argv[1], map_location="cpu")
paddle.save({k: paddle.to_tensor(v.numpy()) for k, v in tensors.items()}, sys.argv[2])
print(time.perf_counter() - started, peak())
"""
)
_MAKE_TORCH = """
import sys, numpy, torch
arrays = numpy.load(sys.argv[1])
torch.save({name: torch.from_numpy(arrays[name]) for name in arrays.files}, sys.argv[2])
"""


def main() -> None:
    """Make the files, measure, and print a table a model."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch-python", type=Path, help="an interpreter with torch and paddle")
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.torch_python is None:
        print("no --torch-python: files of PyTorch and torch.load are left out\n")
    peer = versions(["torch"], str(options.torch_python)) if options.torch_python else []
    print(f"{', '.join([measured('numpy'), *peer])}; load {os.getloadavg()[0]:.1f} at the start.\n")
    for model in options.models:
        with tempfile.TemporaryDirectory() as folder:
            files = make_files(Path(folder), *SIZES[model], options.torch_python)
            report(model, files, measure(files, options.torch_python, options.rounds))


def vit_shapes(dim: int, depth: int) -> dict[str, tuple[int, ...]]:
    """timm's names and shapes of ViT/16 at 224 with 1000 classes."""
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, dim),
        "pos_embed": (1, 197, dim),
        "patch_embed.proj.weight": (dim, 3, 16, 16),
        "patch_embed.proj.bias": (dim,),
        "norm.weight": (dim,),
        "norm.bias": (dim,),
        "head.weight": (1000, dim),
        "head.bias": (1000,),
    }
    linears = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (4, 1), "mlp.fc2": (1, 4)}
    for index in range(depth):
        for norm in ("norm1", "norm2"):
            shapes[f"blocks.{index}.{norm}.weight"] = shapes[f"blocks.{index}.{norm}.bias"] = (dim,)
        for name, (rows, columns) in linears.items():
            shapes[f"blocks.{index}.{name}.weight"] = (rows * dim, columns * dim)
            shapes[f"blocks.{index}.{name}.bias"] = (rows * dim,)
    return shapes


def make_files(folder: Path, dim: int, depth: int, torch_python: Path | None) -> dict[str, Path]:
    """The same weights in every format: name of the format -> file."""
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.standard_normal(shape, dtype=np.float32)
        for name, shape in vit_shapes(dim, depth).items()
    }
    files = {"safetensors": folder / "x.safetensors", "npz": folder / "x.npz"}
    write_safetensors(files["safetensors"], arrays)
    np.savez(files["npz"], **arrays)  # type: ignore[arg-type]
    if torch_python is not None:
        files["PyTorch zip"] = folder / "x.pth"
        paths = (str(files["npz"]), str(files["PyTorch zip"]))
        subprocess.run([str(torch_python), "-c", _MAKE_TORCH, *paths], check=True)
    return files


def measure(
    files: dict[str, Path], torch_python: Path | None, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """(seconds, MiB) of every round of every contestant."""
    contestants = {
        f"passl, {name}": [sys.executable, "-c", _OURS, str(path)] for name, path in files.items()
    }
    for name, path in files.items():
        if name != "npz":  # timm's names in an .npz are nobody's format
            contestants[f"passl-convert, {name}"] = [sys.executable, "-c", _COMMAND, str(path)]
    if torch_python is not None:
        peer = [str(torch_python), "-c", _THEIRS, str(files["PyTorch zip"])]
        contestants["torch.load + paddle.save"] = peer
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, command in contestants.items():
            target = next(iter(files.values())).with_name("out.pdparams")
            done = subprocess.run(
                [*command, str(target)], capture_output=True, text=True, check=True
            )
            seconds, peak = map(float, done.stdout.split()[-2:])
            figures[name].append((seconds, peak))
            target.unlink()
    return figures


def report(
    model: str, files: dict[str, Path], figures: dict[str, list[tuple[float, float]]]
) -> None:
    """Medians with the range of seconds, as a table of Markdown."""
    size = files["safetensors"].stat().st_size / 2**20
    print(f"ViT-{model[0].upper()}/16, {size:.0f} MiB of float32\n")
    print("| contestant | seconds | min to max | peak MiB |")
    print("|---|---:|---:|---:|")
    for name, rounds in figures.items():
        seconds = [s for s, _ in rounds]
        peak = statistics.median(p for _, p in rounds)
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"| {name} | {statistics.median(seconds):.2f} | {spread} | {peak:.0f} |")
    print()


if __name__ == "__main__":
    main()
