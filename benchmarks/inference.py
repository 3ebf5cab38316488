"""Images classified in a second on a CPU: the live model, its exports, and timm's model in PyTorch.

    python benchmarks/inference.py                                   # needs the extra `export`
    python benchmarks/inference.py --torch-python path/to/python     # one with torch and timm

Random weights, random images in memory, float32 throughout, 224 pixels, 1000 classes; no decoding.
Each contestant is a process of its own with as many threads as the others, which stays alive; they
take turns, so that a busy minute of the machine hits all of them.  Medians over the turns.

- `live Paddle`: the model as `passl-infer` builds it from a checkpoint;
- `Paddle Inference`, `ONNX Runtime`: what `passl-export --format both` wrote, each in its runtime;
- `torch eager`: timm's model of the same sizes, in `torch.inference_mode()`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MODELS = {
    "ti": ("ViT-Ti/16", "ViT_tiny_patch16_224", "vit_tiny_patch16_224"),
    "s": ("ViT-S/16", "ViT_small_patch16_224", "vit_small_patch16_224"),
}
_LEAST_S = 1.0  # a turn is as many batches as take so long


def main() -> None:
    """Measure and print a table of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=None, help="default: physical cores")
    parser.add_argument("--torch-python", type=Path, help="an interpreter with torch and timm")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)  # kind, path, threads
    options = parser.parse_args()
    if options.serve:
        _serve(*options.serve)
        return
    from passl.runtime import available_cores

    threads = options.threads or available_cores()
    print(f"{threads} threads, medians of {options.rounds} rounds\n")
    print("| model, batch | contestant | images/s | min to max | times live Paddle |")
    print("|---|---|---:|---:|---:|")
    notes = []
    for key in options.models:
        with tempfile.TemporaryDirectory() as folder:
            notes.append(_measure(key, Path(folder), options, threads))
    print("\n" + "\n".join(notes))


def _measure(key: str, folder: Path, options: argparse.Namespace, threads: int) -> str:
    """The rows of one model; returns what its export took."""
    title, name, peer = MODELS[key]
    note = _export(name, folder)
    kinds = {
        "live Paddle": ("live", folder / "weights.pdparams", Path(sys.executable)),
        "Paddle Inference": ("paddle", folder / "export", Path(sys.executable)),
        "ONNX Runtime": ("onnx", folder / "export", Path(sys.executable)),
    }
    if options.torch_python is not None:
        kinds["torch eager"] = ("torch", Path(peer), options.torch_python)
    servers = {
        label: _Server(python, kind, name if kind == "live" else str(path), threads)
        for label, (kind, path, python) in kinds.items()
    }
    try:
        for batch in options.batches:
            rates: dict[str, list[float]] = {label: [] for label in servers}
            for _ in range(options.rounds):
                for label, server in servers.items():
                    rates[label].append(server.turn(batch))
            base = statistics.median(rates["live Paddle"])
            for label, found in rates.items():
                middle = statistics.median(found)
                print(
                    f"| {title}, {batch} | {label} | {middle:.1f} | {min(found):.1f} to "
                    f"{max(found):.1f} | {middle / base:.2f} |",
                    flush=True,
                )
    finally:
        for server in servers.values():
            server.close()
    return f"- {title}: {note}"


def _export(name: str, folder: Path) -> str:
    """Export a model of random weights to both formats; returns times and sizes."""
    import passl
    from passl.checkpoint.files import write_arrays
    from passl.config import load_config
    from passl.export.exporter import export_model
    from passl.runtime import import_paddle, prepare

    prepare()
    import_paddle()
    model = passl.create_model(name, init_scheme="timm")
    weights = folder / "weights.pdparams"
    write_arrays(weights, {key: value.numpy() for key, value in model.state_dict().items()})
    (folder / "config.yaml").write_text(f"Model: {{name: {name}}}\n")
    settings = [f"Global.pretrained_model={weights}", "Export.export_type=both"]
    result = export_model(load_config(folder / "config.yaml", settings), folder / "export")
    seconds = ", ".join(f"{kind} in {value:.1f} s" for kind, value in result.seconds.items())
    sizes = ", ".join(
        f"{file} {size / 2**20:.1f} MiB" for file, size in result.sizes.items() if size > 2**20
    )
    gaps = ", ".join(f"{kind} {c.difference:.1e}" for kind, c in result.comparisons.items())
    return f"written {seconds}; {sizes}; largest difference to the live model {gaps}"


class _Server:
    """A contestant in a process of its own."""

    def __init__(self, python: Path, kind: str, path: str, threads: int) -> None:
        command = [str(python), "-W", "ignore", __file__, "--serve", kind, path, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def turn(self, batch: int) -> float:
        """Images a second."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{batch}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                return float(json.loads(line)["rate"])
        raise RuntimeError("a contestant ended early")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _serve(kind: str, path: str, threads: str) -> None:
    run = {"live": _live, "torch": _torch}.get(kind, _exported)(kind, path, int(threads))
    known: Optional[tuple[int, int]] = None
    for line in sys.stdin:
        batch = int(line)
        images = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
        if known is None or known[0] != batch:
            run(images)
            started = time.perf_counter()
            run(images)
            known = (batch, max(1, round(_LEAST_S / (time.perf_counter() - started))))
        started = time.perf_counter()
        for _ in range(known[1]):
            run(images)
        rate = batch * known[1] / (time.perf_counter() - started)
        print(json.dumps({"rate": rate}), flush=True)


def _live(_: str, name: str, threads: int) -> Callable[[np.ndarray], Any]:
    import passl
    from passl.export.sessions import LiveSession
    from passl.runtime import import_paddle, prepare

    prepare(threads, device="cpu")
    import_paddle()
    return LiveSession(passl.create_model(name, init_scheme="timm")).run


def _exported(kind: str, path: str, threads: int) -> Callable[[np.ndarray], Any]:
    from passl.export.card import ModelCard
    from passl.export.sessions import open_session
    from passl.runtime import prepare

    prepare(threads, device="cpu")
    folder = Path(path)
    return open_session(folder, ModelCard.read(folder), kind, num_threads=threads).run


def _torch(_: str, name: str, threads: int) -> Callable[[np.ndarray], Any]:
    import timm
    import torch

    torch.set_num_threads(threads)
    model = timm.create_model(name).eval()

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(images)).numpy())

    return run


if __name__ == "__main__":
    main()
