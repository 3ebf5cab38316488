"""An int8 export against the live model, layer by layer.

Where a number lies between two steps a last bit decides, and what follows may make much of it: the
outputs of two correct programs can be far apart.  So the live model follows the roundings of the
file, layer after layer.  Each whole number of the file must be the rounding of the number that the
live model has there, and the outputs must then agree as in float32: a wrong scale, zero point,
axis or weight of a single layer does not pass.

The file runs twice: with the operators that ONNX Runtime makes of it, and as it is written, which
is what other programs run.  Version 1.32 ignores the axis of a matrix's scales in its own
operators, so a wrong one shows only in the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from passl.errors import PasslError
from passl.export.compare import Samples
from passl.export.int8 import SimulatedInt8
from passl.export.sessions import OnnxSession

__all__ = ["Followed", "follow"]

#: Half a step, and what float32 in another order of additions makes of it.
_MOST_STEPS = 0.51


@dataclass(frozen=True)
class Followed:
    """How far an int8 export is from the live model that follows its roundings.

    Attributes:
        layers: how many were compared.
        steps: of all inputs, the farthest from its number in the file, in steps; 0.5 is rounding.
        worst: the layer of that input.
        relative: largest difference of an output, relative to the largest output or to 1.
    """

    layers: int
    steps: float
    worst: str
    relative: float

    def check(self, tolerance: float) -> None:
        """Refuse what is too far.

        Raises:
            PasslError: naming the layer.
        """
        if not self.steps <= _MOST_STEPS:
            raise PasslError(
                f"onnx: the input of the layer {self.worst} is {self.steps:.3g} steps from its "
                f"whole number in the file (at most {_MOST_STEPS} is rounding). The file rounds on "
                "another grid than the model or computes something else before it, so nothing was "
                "exported; use --dtype float32 or float16"
            )
        if not self.relative <= tolerance:
            raise PasslError(
                f"onnx: with the same whole numbers in all {self.layers} layers the outputs still "
                f"differ by {self.relative:.2g} of the largest (at most {tolerance:.3g} is "
                "accepted), so nothing was exported; use --dtype float32 or float16"
            )


def follow(
    file: Path,
    scratch: Path,
    int8: SimulatedInt8,
    samples: Samples,
    ends: Callable[[np.ndarray], np.ndarray],
) -> Followed:
    """Compare ``file`` with the live model on the samples.

    Args:
        file: the ONNX model.
        scratch: a folder for a copy that tells its whole numbers.
        int8: of the live model; it has left.
        ends: what the graph does to the outputs of the model.

    Raises:
        PasslError: the file does not show the input of a layer.
    """
    names = [layer.name for layer in int8.layers()]
    told = scratch / "told.onnx"
    steps_of = _tell_steps(file, told, names)
    batches = list(zip(samples.graph, samples.model))
    as_run, as_written = (OnnxSession(told, optimize=optimize) for optimize in (True, False))
    # As written it is slow, and a few pictures show what is wrong with a file.
    turns = [*((as_run, *batch) for batch in batches), *((as_written, *b) for b in batches[:2])]
    farthest = dict.fromkeys(names, 0.0)
    difference, largest = 0.0, 1.0
    with int8.back() as simulation:
        for session, theirs, ours in turns:
            outputs = session.run_all(theirs)
            steps = {name: outputs[steps_of[name]] for name in names}
            with simulation.following(steps) as off_by:
                expected = ends(int8.run(ours))
            farthest.update({n: max(farthest[n], off_by.get(n, np.inf)) for n in names})
            gaps = np.abs(next(iter(outputs.values())).astype(np.float64) - expected)
            difference = max(difference, float(gaps.max()) if np.isfinite(gaps).all() else np.inf)
            largest = max(largest, float(np.abs(expected).max()))
    worst = max(farthest, key=lambda name: farthest[name])
    return Followed(len(names), farthest[worst], worst, difference / largest)


def _tell_steps(file: Path, told: Path, names: Sequence[str]) -> dict[str, str]:
    """Write ``told``, a copy of ``file`` that also outputs the uint8 input of each layer.

    Returns:
        layer -> name of that output.

    Raises:
        PasslError: a layer has none.
    """
    import onnx
    from onnx import helper

    model = onnx.load(str(file))
    made_by = {output: node for node in model.graph.node for output in node.output}
    found: dict[str, str] = {}
    for node in model.graph.node:
        name = _layer_of(node, made_by, names)
        if name is not None:
            found[name] = made_by[node.input[0]].input[0]
    missing = [name for name in names if name not in found]
    if missing:
        raise PasslError(
            f"onnx: the file does not show the layer {missing[0]} in int8, so nothing was exported"
        )
    for tensor in dict.fromkeys(found.values()):
        end = helper.make_tensor_value_info(tensor, onnx.TensorProto.UINT8, None)
        model.graph.output.append(end)
    onnx.save(model, str(told))
    return found


def _layer_of(
    node: Any, made_by: Mapping[str, Any], names: Sequence[str]
) -> Optional[str]:
    """The layer whose product ``node`` is; None: of none."""
    parents = [made_by[tensor] for tensor in node.input[:2] if tensor in made_by]
    if [parent.op_type for parent in parents] != ["DequantizeLinear"] * 2:
        return None
    name = str(parents[1].input[0]).removesuffix(".weight_int8")
    return name if name in names else None
