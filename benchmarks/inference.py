"""Images classified in a second on a CPU: the live model, its exports, and timm's model in PyTorch.

    python benchmarks/inference.py                                   # needs the extra `export`
    python benchmarks/inference.py --torch-python path/to/python     # one with torch and timm
    python benchmarks/inference.py --save benchmarks/README.md       # put the tables there

Random weights, random images in memory, 224 pixels, 1000 classes; no decoding.
Each contestant is a process of its own with as many threads as the others, which stays alive; they
take turns, so that a busy minute of the machine hits all of them.  Medians over the turns.

- `live Paddle`: the model as `passl-infer` builds it from a checkpoint;
- `Paddle Inference`, `ONNX Runtime`: what `passl-export --format both` wrote, each in its runtime;
- `ONNX Runtime, int8`: `--dtype int8`, uint8 times int8 in the matrix products;
- `torch eager`: timm's model of the same sizes, in `torch.inference_mode()`; with `int8` its matrix
  products by `torch.ao.quantization.quantize_dynamic`, whose ranges are those of each batch.

Ranges of int8 are measured on noise here, which changes no time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
from marks import put_table
from measured import measured, versions
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MODELS = {
    "ti": ("ViT-Ti/16", "ViT_tiny_patch16_224", "vit_tiny_patch16_224"),
    "s": ("ViT-S/16", "ViT_small_patch16_224", "vit_small_patch16_224"),
}
_CONFIG = """
Model: {{name: {name}}}
DataLoader:
  Eval:
    dataset:
      name: ImageNetDataset
      image_root: {folder}/pictures
      cls_label_path: {folder}/list.txt
      transform_ops: [NormalizeImage: {{order: ""}}, ToCHWImage: ]
    sampler: {{batch_size: 4}}
"""
_LEAST_S = 0.5  # a turn is as many batches as take so long


def main() -> None:
    """Measure and print a table of Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--models", nargs="+", choices=tuple(MODELS), default=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=None, help="default: physical cores")
    parser.add_argument("--torch-python", type=Path, help="an interpreter with torch and timm")
    parser.add_argument("--save", type=Path, help="file whose table is replaced")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)  # kind, path, threads
    options = parser.parse_args()
    if options.serve:
        _serve(*options.serve)
        return
    from passl.runtime import available_cores

    threads = options.threads or available_cores()
    load = os.getloadavg()[0]
    table = ["| model, batch | contestant | images/s | min to max | times live Paddle |"]
    table.append("|---|---|---:|---:|---:|")
    sizes = ["| model | export | s | MiB | largest difference |", "|---|---|---:|---:|---:|"]
    print("\n".join(table))
    for key in options.models:
        with tempfile.TemporaryDirectory() as folder:
            _measure(key, Path(folder), options, threads, table, sizes)
    print("\n" + "\n".join(sizes))
    busy = "**on a busy machine**, " if load > threads else ""
    head = (
        f"{measured('numpy', 'onnxruntime')}{_peer(options)}, VNNI: {_vnni()}; {threads} threads "
        f"each, medians of {options.rounds} interleaved rounds; {busy}load {load:.1f} at the start."
    )
    writing = "Writing the files, those of ONNX by way of Paddle's:"
    text = "\n".join([head, "", *table, "", writing, "", *sizes])
    if options.save is not None:
        put_table(options.save, "inference", text)


def _measure(
    key: str,
    folder: Path,
    options: argparse.Namespace,
    threads: int,
    table: list[str],
    sizes: list[str],
) -> None:
    """The rows of one model, added to the tables."""
    title, name, peer = MODELS[key]
    for row in _export(name, folder):
        sizes.append(f"| {title} | {row} |")
    kinds = {
        "live Paddle": ("live", folder / "weights.pdparams", Path(sys.executable)),
        "Paddle Inference": ("paddle", folder / "both", Path(sys.executable)),
        "ONNX Runtime": ("onnx", folder / "both", Path(sys.executable)),
        "ONNX Runtime, int8": ("onnx", folder / "int8", Path(sys.executable)),
    }
    if options.torch_python is not None:
        kinds["torch eager"] = ("torch", Path(peer), options.torch_python)
        kinds["torch eager, int8"] = ("torch-int8", Path(peer), options.torch_python)
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
                table.append(
                    f"| {title}, {batch} | {label} | {middle:.1f} | {min(found):.1f} to "
                    f"{max(found):.1f} | {middle / base:.2f} |"
                )
                print(table[-1], flush=True)
    finally:
        for server in servers.values():
            server.close()


def _export(name: str, folder: Path) -> list[str]:
    """Export a model of random weights to every format; returns cells of a table."""
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
    pictures = folder / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (224, 224, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(pictures / f"{number}.png")
    (folder / "list.txt").write_text("".join(f"{number}.png 0\n" for number in range(8)))
    (folder / "config.yaml").write_text(_CONFIG.format(name=name, folder=folder))
    rows = []
    for kind, dtype in (("both", "float32"), ("onnx", "float16"), ("onnx", "int8")):
        settings = [
            f"Global.pretrained_model={weights}", f"Export.export_type={kind}",
            f"Export.dtype={dtype}", "Quantization.calibration.batches=1",
        ]  # fmt: skip
        out = folder / {"float32": "both"}.get(dtype, dtype)
        result = export_model(load_config(folder / "config.yaml", settings), out)
        for written, found in result.comparisons.items():
            size = sum(
                size for file, size in result.sizes.items()
                if (file == "model.onnx") == (written == "onnx") and file != "inference.yml"
            )  # fmt: skip
            rows.append(
                f"{written}, {dtype} | {result.seconds[written]:.1f} | {size / 2**20:.1f} | "
                f"{found.difference:.1e}"
            )
    return rows


class _Server:
    """A contestant in a process of its own."""

    def __init__(self, python: Path, kind: str, path: str, threads: int) -> None:
        command = [str(python), "-W", "ignore", __file__, "--serve", kind, path, str(threads)]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()  # it has its model, and no import runs beside another's turn

    def turn(self, batch: int) -> float:
        """Images a second."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{batch}\n")
        self._process.stdin.flush()
        return float(self._answer()["rate"])

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        raise RuntimeError("a contestant ended early")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _serve(kind: str, path: str, threads: str) -> None:
    makers = {"live": _live, "torch": _torch, "torch-int8": _torch}
    run = makers.get(kind, _exported)(kind, path, int(threads))
    known: Optional[tuple[int, int]] = None
    print(json.dumps({}), flush=True)
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


def _torch(kind: str, name: str, threads: int) -> Callable[[np.ndarray], Any]:
    import timm
    import torch

    torch.set_num_threads(threads)
    model = timm.create_model(name).eval()
    if kind == "torch-int8":
        from torch.ao.quantization import quantize_dynamic

        model = quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)

    def run(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return np.asarray(model(torch.from_numpy(images)).numpy())

    return run


def _peer(options: argparse.Namespace) -> str:
    if options.torch_python is None:
        return ""
    return "".join(f", {text}" for text in versions(["torch", "timm"], str(options.torch_python)))


def _vnni() -> str:
    facts = Path("/proc/cpuinfo")
    return "yes" if facts.exists() and "vnni" in facts.read_text() else "no"


if __name__ == "__main__":
    main()
