"""What is done to an ONNX file after paddle2onnx: names, simplification, half precision, int8."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any

from passl.errors import PasslError
from passl.export.int8 import Int8Layer, write_pairs
from passl.export.plan import ExportPlan
from passl.installed import is_installed

__all__ = ["finish"]

#: Name of the free first axis.
_BATCH = "batch"
#: The pass of onnxsim and onnxoptimizer that multiplies a normalisation into a convolution.
_FUSED_NORM = "fuse_bn_into_conv"


def finish(
    made: Path,
    target: Path,
    plan: ExportPlan,
    epsilons: AbstractSet[float],
    int8_layers: Sequence[Int8Layer] = (),
) -> None:
    """Read ``made``, give it plain names, and write ``target``.

    Args:
        made: what paddle2onnx wrote.
        target: the file to write.
        plan: what was asked for.
        epsilons: of the network's group normalisations.
        int8_layers: layers to store as int8.

    Raises:
        PasslError: a tool refused the graph.
    """
    import onnx

    model = onnx.load(str(made))
    _drop_unused(model)
    _name_ends(model, plan)
    _mend_epsilons(model, epsilons)
    if plan.simplify:
        model = _simplified(model, bool(int8_layers))
    if int8_layers:  # after the simplification, which would compute the weights back to float32
        write_pairs(model, int8_layers)
    if plan.dtype == "float16":
        model = _in_half(model)
    _drop_unused(model)
    model.producer_name = "passl"
    onnx.checker.check_model(model)
    onnx.save(model, str(target))


def _name_ends(model: Any, plan: ExportPlan) -> None:
    """Call the output what it means, and the free axis ``batch``."""
    graph = model.graph
    output, wanted = graph.output[0], plan.meaning
    for node in graph.node:
        for names in (node.input, node.output):
            for position, name in enumerate(names):
                if name == output.name:
                    names[position] = wanted
    output.name = wanted
    if plan.batch_size is None:
        for end in (graph.input[0], output):
            axis = end.type.tensor_type.shape.dim[0]
            axis.Clear()
            axis.dim_param = _BATCH


def _mend_epsilons(model: Any, epsilons: AbstractSet[float]) -> None:
    """Write the epsilon of group normalisations, which become InstanceNormalization.

    paddle2onnx 2.1.0 leaves there what the memory happened to hold (-0.39 was seen).

    Raises:
        PasslError: the network has several epsilons, and nobody says which is whose.
    """
    nodes = [node for node in model.graph.node if node.op_type == "InstanceNormalization"]
    if not nodes:
        return
    if len(epsilons) != 1:
        raise PasslError(
            f"the network's group normalisations have {len(epsilons)} different epsilons, which "
            "paddle2onnx does not carry over; give them one, or use --format paddle"
        )
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name == "epsilon":
                attribute.f = next(iter(epsilons))


def _drop_unused(model: Any) -> None:
    """Leave out operators that nothing reads, and constants; ONNX Runtime warns of each."""
    graph = model.graph
    nodes = list(graph.node)
    made_by = {name: index for index, node in enumerate(nodes) for name in node.output}
    needed: set[str] = set()
    wanted = [output.name for output in graph.output]
    while wanted:
        name = wanted.pop()
        if name not in needed:
            needed.add(name)
            wanted += _read_by(nodes[made_by[name]]) if name in made_by else ()
    for node in [node for node in nodes if needed.isdisjoint(node.output)]:
        graph.node.remove(node)
    for unused in [item for item in graph.initializer if item.name not in needed]:
        graph.initializer.remove(unused)


def _read_by(node: Any) -> Iterator[str]:
    """Names of what an operator reads, in its branches too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _read_by(inner)
            yield from (output.name for output in graph.output)


def _in_half(model: Any) -> Any:
    """Weights and arithmetic in float16; input and output stay float32."""
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    half = OnnxModel(convert_float_to_float16(model, keep_io_types=True))
    half.topological_sort()  # the converter appends its casts of the input at the end
    return half.model


def _simplified(model: Any, keeps_weights: bool) -> Any:
    """The graph with fewer operators.

    Args:
        model: ONNX.
        keeps_weights: leave batch normalisations beside their convolutions: the weights that int8
            rounds are those of the model, whose scales they were measured with.
    """
    left_out = [_FUSED_NORM] if keeps_weights else []
    try:
        if is_installed("onnxsim"):
            import onnxsim

            simplified, checked = onnxsim.simplify(model, skipped_optimizers=left_out or None)
            if not checked:
                raise PasslError("onnxsim changed what the graph computes; leave out --simplify")
            return simplified
        import onnxoptimizer

        passes = [name for name in _passes(onnxoptimizer) if name not in left_out]
        return onnxoptimizer.optimize(model, passes)
    except (RuntimeError, ValueError) as error:
        raise PasslError(
            f"the graph could not be simplified ({error}); leave out --simplify"
        ) from error


def _passes(onnxoptimizer: Any) -> list[str]:
    """Passes that remove what does nothing and fuse what goes together."""
    wanted = ("eliminate_", "fuse_")
    return [
        name
        for name in onnxoptimizer.get_fuse_and_elimination_passes()
        if name.startswith(wanted)
    ]
