"""The formats a graph is written in.

A format is a function ``(WriteJob) -> {part: file name}``; :data:`FORMATS` is the list that
``Export.export_type`` chooses from.  ONNX is made from Paddle's files by paddle2onnx, in a process
of its own, which a failure inside its C++ code ends instead of ours.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

from passl.errors import PasslError
from passl.export.int8 import Int8Layer
from passl.export.plan import ExportPlan
from passl.installed import is_installed, python_for
from passl.runtime import import_paddle

__all__ = ["FORMATS", "WriteJob", "check_tools"]

STEM = "model"
INPUT_NAME = "image"
_TIMEOUT_S = 1800


@dataclass(frozen=True)
class WriteJob:
    """What a format is written from.

    Attributes:
        graph: the network, still in float32.
        plan: what was asked for.
        folder: where the files go.
        scratch: where intermediate files may go; removed afterwards.
        int8_layers: layers that multiply whole numbers, of ``int8``.
    """

    graph: Any
    plan: ExportPlan
    folder: Path
    scratch: Path
    int8_layers: Sequence[Int8Layer] = ()


def check_tools(plan: ExportPlan) -> None:
    """Refuse early what cannot be done for want of a package.

    Raises:
        PasslError: naming the packages.
    """
    if "onnx" not in plan.formats:
        return
    needed = [name for name in ("paddle2onnx", "onnx", "onnxruntime") if not is_installed(name)]
    if needed:
        raise PasslError(
            f"an export to ONNX needs {' and '.join(needed)}, which {_is(needed)} not installed; "
            f"pip install {' '.join(_pinned(name) for name in needed)}"
        )
    if plan.simplify and not (is_installed("onnxsim") or is_installed("onnxoptimizer")):
        raise PasslError(
            "Export.simplify needs onnxsim or onnxoptimizer, and neither is installed; "
            "pip install onnxoptimizer, or leave it out: ONNX Runtime simplifies at its start"
        )


def write_paddle(job: WriteJob, stem: Optional[Path] = None) -> dict[str, str]:
    """Paddle's inference format: model.json (Paddle 3) or model.pdmodel (2.6), model.pdiparams."""
    import paddle
    from paddle.static import InputSpec

    stem = stem or job.folder / STEM
    spec = InputSpec(list(job.plan.graph_shape), job.plan.graph_dtype, name=INPUT_NAME)
    static = paddle.jit.to_static(job.graph, input_spec=[spec], full_graph=True)
    paddle.jit.save(static, str(stem))
    structure = stem.with_suffix(".json")
    if not structure.is_file():
        structure = stem.with_suffix(".pdmodel")
    return {"model": structure.name, "params": stem.with_suffix(".pdiparams").name}


def write_onnx(job: WriteJob) -> dict[str, str]:
    """ONNX, by way of Paddle's format."""
    names = write_paddle(job, job.scratch / STEM)
    made = job.scratch / f"{STEM}.onnx"
    _paddle2onnx(job.scratch, names, made, job.plan.opset)
    from passl.export.onnx_graph import finish

    name = f"{STEM}.onnx"
    epsilons = _group_epsilons(job.graph)
    finish(made, job.folder / name, job.plan, epsilons, job.int8_layers)
    return {"model": name}


#: ``Export.export_type`` -> how it is written.
FORMATS: dict[str, Callable[[WriteJob], dict[str, str]]] = {
    "paddle": write_paddle,
    "onnx": write_onnx,
}

_CHILD = """
import inspect, sys, zlib
import paddle2onnx
model, params, target, opset = sys.argv[1:]
known = inspect.signature(paddle2onnx.export).parameters
more = {"optimize_tool": None} if "optimize_tool" in known else {}
paddle2onnx.export(model, params, target, opset_version=int(opset), auto_upgrade_opset=False,
                   enable_onnx_checker=True, verbose=False, **more)
"""


def _paddle2onnx(folder: Path, names: dict[str, str], made: Path, opset: int) -> None:
    """Run paddle2onnx; it may print, raise or end its process.

    Raises:
        PasslError: it made no file, with the last of what it said.
    """
    files = [str(folder / names[part]) for part in ("model", "params")]
    done = subprocess.run(  # noqa: S603  our own interpreter and text
        [*python_for(_CHILD, "-W", "ignore"), *files, str(made), str(opset)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "GLOG_minloglevel": "2"},
        text=True,
        errors="replace",
        timeout=_TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0 and made.is_file() and made.stat().st_size:
        return
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    said = " | ".join(lines[-4:]) or "nothing"
    raise PasslError(
        f"paddle2onnx could not convert the model at opset {opset} (exit status "
        f"{done.returncode}; it said: {said}). Try another Export.opset, and the paddle2onnx for "
        "this Paddle (docs/deploy.md); --format paddle does without it"
    )


def _group_epsilons(graph: Any) -> set[float]:
    """What the group normalisations of a network add to the variance."""
    from paddle import nn

    return {
        float(layer._epsilon) for layer in graph.sublayers() if isinstance(layer, nn.GroupNorm)
    }


def _is(names: list[str]) -> str:
    return "is" if len(names) == 1 else "are"


def _pinned(name: str) -> str:
    """The requirement of a package: paddle2onnx goes with the version of Paddle."""
    if name != "paddle2onnx":
        return name
    is_old = import_paddle().__version__.startswith("2.")
    return f"paddle2onnx=={'1.3.1' if is_old else '2.1.0'}"
