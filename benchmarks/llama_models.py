"""iLLaMA and ViT-LLaMA beside plain torch: seconds of a pass, and memory to build one.

    python benchmarks/llama_models.py --torch-python PATH [--models ti s llama_ti] [--rounds 5]
    python benchmarks/llama_models.py --torch-python PATH --memory FOLDER [--naive-layers 8]

``PATH`` is an interpreter with torch.  Speed: against the same models of ``plain_llama.py``, in
float32, 224 pixels, random images in memory; a step is forward, cross entropy, backward and AdamW.
Every contestant is a process of one thread that stays alive; they take turns.  Seconds are of the
processor, so that other work on the machine counts as little as it can.

Memory: the peak of a process that builds ViT-LLaMA-S and fills its frozen block from a folder
shaped as LLaMA 7B (``llama_folder.py`` makes it in FOLDER, 0.4 GB on the disk).  The naive way,
``torch.load`` of the whole file, is given a folder of fewer blocks, lest it fill the machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

_HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(_HERE), str(_HERE.parent)]

from measured import measured, versions  # noqa: E402


@dataclass(frozen=True)
class Case:
    """One model and batch.

    Attributes:
        title: for the table.
        name: of our model.
        plain: class of ``plain_llama`` with its arguments.
        batch_size: images of a pass.
        passes: how many make a turn.
    """

    title: str
    name: str
    plain: tuple[str, tuple[int, ...]]
    batch_size: int
    passes: int


CASES = {
    "ti": Case(
        "iLLaMA-T, batch 8", "iLLaMA_tiny_patch16_224", ("PlainILlama", (192, 3, 512)), 8, 2
    ),
    "s": Case(
        "iLLaMA-S, batch 4", "iLLaMA_small_patch16_224", ("PlainILlama", (384, 6, 1024)), 4, 2
    ),
    "llama_ti": Case(
        "ViT-LLaMA-Ti, batch 1", "ViT_LLaMA_tiny_patch16_224", ("PlainViTLlama", (192, 3)), 1, 1
    ),
}
_Pass = Callable[[], None]


def main() -> int:
    """Measure and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--torch-python", help="an interpreter with torch")
    parser.add_argument("--models", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=Path, metavar="FOLDER", help="measure memory instead")
    parser.add_argument("--naive-layers", type=int, default=8, help="blocks for torch.load")
    parser.add_argument("--worker", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        return _work(*options.worker)
    if options.torch_python is None:
        parser.error("--torch-python is needed: the other side is torch")
    peer = ", ".join(versions(["torch"], options.torch_python))
    print(f"{measured('numpy')}, {peer}; load {os.getloadavg()[0]:.1f} at the start.\n")
    if options.memory:
        print(_memory_table(options.memory, options.torch_python, options.naive_layers))
    else:
        print(_speed_table(options.models, options.torch_python, options.rounds))
    return 0


# -- speed -----------------------------------------------------------------------------------


def _speed_table(models: list[str], torch_python: str, rounds: int) -> str:
    rows = [f"load before: {os.getloadavg()[0]:.1f}; medians of {rounds} interleaved rounds", ""]
    rows += ["| model | pass | torch s | passl s | min to max | times torch |"]
    rows += ["|---|---|---:|---:|---:|---:|"]
    for model in models:
        case = CASES[model]
        with contextlib.ExitStack() as stack:
            ask = {
                kind: stack.enter_context(_worker(python, kind, model))
                for kind, python in (("torch", torch_python), ("passl", sys.executable))
            }
            for what in ("forward", "step"):
                times: dict[str, list[float]] = {kind: [] for kind in ask}
                for turn in range(rounds + 1):  # the first allocates and chooses kernels
                    for kind in ask:
                        seconds = ask[kind](what)
                        times[kind] += [seconds] if turn else []
                theirs, ours = (statistics.median(times[kind]) for kind in ("torch", "passl"))
                spread = f"{min(times['passl']):.3f} to {max(times['passl']):.3f}"
                rows.append(
                    f"| {case.title} | {what} | {theirs:.3f} | {ours:.3f} | {spread} "
                    f"| {theirs / ours:.2f} |"
                )
    return "\n".join(rows)


@contextlib.contextmanager
def _worker(python: str, kind: str, model: str) -> Iterator[Callable[[str], float]]:
    command = [python, "-W", "ignore", __file__, "--worker", kind, model]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def ask(what: str) -> float:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(what + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"the worker {kind} {model} ended with status {process.wait()}")
            seconds: float = json.loads(line)
            return seconds

        yield ask
        process.stdin.close()


def _work(kind: str, *arguments: str) -> int:
    """Be a contestant."""
    if kind in _BUILDERS:
        imports = _BUILDERS[kind](*arguments)
        print(json.dumps([_peak_mib(), imports]))
        return 0
    case = CASES[arguments[0]]
    passes = (_torch if kind == "torch" else _passl)(case)
    for line in sys.stdin:
        start = time.process_time()
        for _ in range(case.passes):
            passes[line.strip()]()
        print(json.dumps((time.process_time() - start) / case.passes), flush=True)
    return 0


def _batch(case: Case) -> tuple[Any, Any]:
    import numpy as np

    rng = np.random.default_rng(0)
    images = rng.standard_normal((case.batch_size, 3, 224, 224), np.float32)
    return images, rng.integers(0, 1000, case.batch_size)


def _torch(case: Case) -> dict[str, _Pass]:
    import plain_llama
    import torch

    torch.set_num_threads(1)
    name, arguments = case.plain
    model = getattr(plain_llama, name)(*arguments)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, 1e-4, weight_decay=0.05)
    images, labels = (torch.from_numpy(array) for array in _batch(case))

    def forward() -> None:
        with torch.no_grad():
            model(images)

    def step() -> None:
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return {"forward": forward, "step": step}


def _passl(case: Case) -> dict[str, _Pass]:
    from passl import runtime

    runtime.prepare(1)
    paddle = runtime.import_paddle()
    from passl.losses.cross_entropy import CELoss
    from passl.models import create_model
    from passl.optim.adamw import AdamW
    from passl.optim.groups import build_param_groups

    model = create_model(case.name)
    if "ViT_LLaMA" in case.name:  # the numbers do not matter for the time, being there does
        for parameter in model.llama.parameters():
            parameter.set_value(paddle.randn(parameter.shape) * 0.02)
    trained = [(name, value) for name, value in model.named_parameters() if value.trainable]
    optimizer = AdamW(groups=build_param_groups(trained, weight_decay=0.05))
    criterion = CELoss()
    images, labels = (paddle.to_tensor(array) for array in _batch(case))

    def forward() -> None:
        model.eval()
        with paddle.no_grad():
            model(images).numpy()

    def step() -> None:
        model.train()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step(1e-4)
        optimizer.clear_grad()
        float(loss)

    return {"forward": forward, "step": step}


# -- memory ----------------------------------------------------------------------------------


def _memory_table(folder: Path, torch_python: str, naive_layers: int) -> str:
    for layers in (32, naive_layers):
        make = [torch_python, str(_HERE / "llama_folder.py"), str(folder / f"{layers}")]
        subprocess.run([*make, "--layers", str(layers)], check=True)
    block = folder / "block.pdparams"
    rows = ["| contestant | LLaMA files | peak MiB | of it imports | seconds |"]
    rows += ["|---|---|---:|---:|---:|"]
    for title, python, arguments in (
        ("naive (torch.load)", torch_python, ["naive", str(folder / f"{naive_layers}")]),
        ("passl", sys.executable, ["build", str(folder / f"{naive_layers}"), "float32"]),
        ("passl", sys.executable, ["build", str(folder / "32"), "float32"]),
        ("passl, llama_dtype float16", sys.executable, ["build", str(folder / "32"), "float16"]),
        ("passl-convert --extract-llama-layer", sys.executable,
         ["extract", str(folder / "32"), str(block)]),
        ("passl, extracted block, float32", sys.executable, ["build", str(block), "float32"]),
        ("passl, extracted block, float16", sys.executable, ["build", str(block), "float16"]),
        ("passl-convert --weight-selection (iLLaMA-S)", sys.executable,
         ["select", str(folder / "32"), str(folder / "start.pdparams")]),
    ):
        start = time.perf_counter()
        done = subprocess.run(
            [python, "-W", "ignore", __file__, "--worker", *arguments],
            stdout=subprocess.PIPE, text=True, check=True,
        )
        seconds = time.perf_counter() - start
        peak, imports = json.loads(done.stdout.splitlines()[-1])
        files = sum(
            path.stat().st_size
            for path in ([block] if arguments[1] == str(block) else Path(arguments[1]).iterdir())
        )
        rows.append(
            f"| {title} | {files / 1e9:.1f} GB | {peak:.0f} | {imports:.0f} | {seconds:.0f} |"
        )
    return "\n".join(rows)


def _peak_mib() -> float:
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in text.splitlines() if "VmHWM" in line)


def _naive(folder: str) -> float:
    import plain_llama
    import torch

    imports = _peak_mib()
    model = plain_llama.PlainViTLlama(384, 6)
    weights = torch.load(sorted(Path(folder).glob("*.pth"))[0], map_location="cpu")
    last = max(int(name.split(".")[1]) for name in weights if name.startswith("layers."))
    prefix = f"layers.{last}."
    block = {
        name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)
    }
    model.llama["layers"][0].load_state_dict(block)
    return imports


def _build(path: str, dtype: str) -> float:
    from passl import runtime

    runtime.prepare()
    runtime.import_paddle()
    from passl.models import create_model

    imports = _peak_mib()
    create_model("ViT_LLaMA_small_patch16_224", llama_path=path, llama_dtype=dtype)
    return imports


def _extract(path: str, dst: str) -> float:
    from passl.checkpoint.llama import extract_llama_block

    imports = _peak_mib()
    extract_llama_block(path, dst)
    return imports


def _select(path: str, dst: str) -> float:
    from passl.checkpoint.weight_selection import select_weights

    imports = _peak_mib()
    select_weights(path, dst, model="iLLaMA_small_patch16_224")
    return imports


_BUILDERS: dict[str, Callable[..., float]] = {
    "naive": _naive, "build": _build, "extract": _extract, "select": _select,
}


if __name__ == "__main__":
    sys.exit(main())
