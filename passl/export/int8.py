"""int8 in ONNX: the simulated model's grids, as QuantizeLinear and DequantizeLinear.

The weights of the layers that the simulation rounds are stored as int8, a scale a channel; the
inputs of those layers pass to uint8 and back over the calibrated range.  A runtime that knows the
pattern (ONNX Runtime, TensorRT, OpenVINO) multiplies whole numbers; any other computes what the
simulation does.

The pairs are placed with ONNX's own helper.  ``onnxruntime.quantization.quantize_static`` can be
told all of it (``TensorQuantOverrides`` takes a scale and a zero point, other options leave outputs
and attention alone); of the digits' model 1.32 then wrote a graph with the same outputs to the last
bit.  But it wants images for a calibration of its own all the same, takes weights behind an
Identity, as paddle2onnx writes them, for activations, and imports ml_dtypes without requiring it.

Source: ONNX operators QuantizeLinear and DequantizeLinear, version 13 (the axis of a channel).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from passl.config import Config
from passl.config.quantizing import QuantizationSection
from passl.errors import ConfigError, DataError, PasslError
from passl.export.live import LiveModel
from passl.export.plan import ExportPlan

__all__ = [
    "Int8Layer",
    "SimulatedInt8",
    "int8_in_words",
    "int8_tolerance",
    "simulate",
    "write_pairs",
]

_OPERATORS = ("MatMul", "Gemm", "Conv")


@dataclass(frozen=True)
class Int8Layer:
    """A layer that multiplies whole numbers.

    Attributes:
        name: in the model.
        weight: name of its weight in the graph.
        values: the weight, float32.
        weight_scale: one a channel, float32 in the shape that multiplies ``values``.
        channel_axis: of ``values``.
        input_scale, input_zero: the grid of its input.
    """

    name: str
    weight: str
    values: np.ndarray
    weight_scale: np.ndarray
    channel_axis: int
    input_scale: np.float32
    input_zero: np.uint8


class SimulatedInt8:
    """The live model computing in int8, until :meth:`leave`.

    Args:
        live: the model.
        simulation: of ``int8``, its ranges known.
        origin: where these are from, for people.
    """

    def __init__(self, live: LiveModel, simulation: Any, origin: str) -> None:
        self._live, self._simulation, self.origin = live, simulation, origin

    def size(self) -> tuple[int, int]:
        """Bytes of the weights in float32 and in int8."""
        before, after = self._simulation.size()
        return before, after

    def as_it_was(self, batches: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Outputs of the model without rounding."""
        with self._simulation.off():
            return [self.run(batch) for batch in batches]

    def leave(self) -> None:
        """Let the model compute as it was; its weights never changed."""
        self._simulation.remove()

    @contextmanager
    def back(self) -> Iterator[Any]:
        """Inside the block the model, after :meth:`leave`, is simulated again.

        Yields:
            the simulation.
        """
        from passl.quant.simulation import Simulation

        simulation = Simulation(self._live.layer, "int8")
        simulation.ranges.set(self._simulation.ranges.to_dict())
        try:
            yield simulation
        finally:
            simulation.remove()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Outputs of the model as it is now."""
        from passl.export.sessions import LiveSession

        return LiveSession(self._live.layer).run(batch)

    def layers(self) -> list[Int8Layer]:
        """Of the model as it is exported: standardised weights are folded by now."""
        from passl.quant.int8 import weight_scale
        from passl.quant.simulation import channel_axis

        ranges, found = self._simulation.ranges, []
        for name in ranges.to_dict():
            layer = self._simulation.layers[name]
            weight, axis = layer._parameters["weight"], channel_axis(layer)
            scale, zero = (value.item() for value in ranges.grid(name))
            found.append(
                Int8Layer(
                    name=name,
                    weight=weight.name,
                    values=weight.numpy(),
                    weight_scale=weight_scale(weight, axis).numpy(),
                    channel_axis=axis,
                    input_scale=np.float32(scale),
                    input_zero=np.uint8(zero),
                )
            )
        return found


def simulate(config: Config, live: LiveModel) -> SimulatedInt8:
    """Let the live model compute in int8, with the ranges of its training or measured ones.

    Raises:
        ConfigError: ``Quantization`` names another format.
        DataError: there are no images to measure ranges on.
        CheckpointError: ``mode`` is ``qat`` and the checkpoint holds no ranges.
    """
    from passl.distributed.world import World
    from passl.engine.calibration import batches_of, calibrate, trained_ranges
    from passl.engine.trained import eval_loader
    from passl.quant.simulation import Simulation

    section = config.Quantization or QuantizationSection(format="int8")
    if section.format not in ("int8", "FP32"):
        raise ConfigError(
            f"{config.origin('Quantization.format')}: Quantization.format is {section.format}, and "
            "Export.dtype is int8; a model that was trained in one format is not exported in "
            "another: use --dtype float32 (or float16), or -o Quantization.format=int8"
        )
    simulation = Simulation(live.layer, "int8")
    trained = trained_ranges(section, live.path) if section.format == "int8" else None
    if trained is not None:
        simulation.ranges.set(trained)
        return SimulatedInt8(live, simulation, "ranges of the training")
    try:
        loader = eval_loader(config)
    except (ConfigError, DataError, OSError) as error:
        raise DataError(
            f"int8 needs the range of every layer's input, which is measured on images of "
            f"DataLoader.Eval: {error}"
        ) from error
    wanted = section.calibration
    calibrate(
        live.layer, simulation, wanted, lambda count: batches_of(loader, count), World()
    )
    origin = f"ranges by {wanted.method} of {wanted.batches} batches of DataLoader.Eval"
    return SimulatedInt8(live, simulation, origin)


def int8_in_words(
    int8: SimulatedInt8, exact: Sequence[np.ndarray], rounded: Sequence[np.ndarray]
) -> str:
    """What rounding costs before anything is exported, of outputs without and with it."""
    before, after = int8.size()
    same = sum(int((a.argmax(-1) == b.argmax(-1)).sum()) for a, b in zip(exact, rounded))
    return (
        f"int8: {int8.origin}; weights {before:,} bytes in float32, {after:,} in int8 "
        f"({after / before:.1%}); the live model says the same class in int8 as in float32 for "
        f"{same} of {sum(map(len, exact))} pictures"
    )


def int8_tolerance(
    plan: ExportPlan, exact: Sequence[np.ndarray], rounded: Sequence[np.ndarray]
) -> float:
    """How far the exported model may be from the simulated one, relative to the largest output.

    Where a number lies between two steps, a last bit decides, and deep networks of convolutions
    make much of it.  Two models rounded alike, each as far from the unrounded one as the simulated
    one is, are at most twice as far from each other.
    """
    noise = max(float(np.abs(a - b).max()) for a, b in zip(exact, rounded))
    largest = max(1.0, *(float(np.abs(batch).max()) for batch in rounded))
    return max(plan.tolerance, 2.0 * noise / largest)


def write_pairs(model: Any, layers: Sequence[Int8Layer]) -> None:
    """Store weights as int8 and put a pair before every input of a layer.

    Args:
        model: ONNX; changed.
        layers: all that are rounded.

    Raises:
        PasslError: a layer is not found in the graph as it is in the model.
    """

    graph = model.graph
    origin = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Identity"}
    waiting = {layer.weight: layer for layer in layers}
    _check_stored(graph, layers)
    pairs, nodes, found = _Pairs(), [], set()
    for node in graph.node:
        named = _followed(node.input[1], origin) if node.op_type in _OPERATORS else ""
        if named in waiting:
            layer = waiting[named]
            node.input[0] = pairs.activation(_followed(node.input[0], origin), layer)
            node.input[1] = pairs.weight(layer)
            nodes += pairs.taken()
            found.add(named)
        nodes.append(node)
    missing = [layer for layer in layers if layer.weight not in found]
    if missing:
        raise _unfit(missing[0], "no operator multiplies with its weight")
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(pairs.initializers)
    _drop_unread(graph, found, origin)


class _Pairs:
    """QuantizeLinear and DequantizeLinear; one pair for a tensor, however many layers read it."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.initializers: list[Any] = []
        self._made: dict[tuple[Any, ...], str] = {}

    def taken(self) -> list[Any]:
        """The nodes that were made since the last call."""
        nodes, self.nodes = self.nodes, []
        return nodes

    def weight(self, layer: Int8Layer) -> str:
        """The weight from int8; returns its name."""
        from onnx import helper

        output = f"{layer.name}.weight_float"
        if ("weight", layer.weight) in self._made:
            return output
        self._made["weight", layer.weight] = output
        # The same float32 arithmetic as the simulation's.
        whole = np.rint(layer.values / layer.weight_scale).astype(np.int8)
        scales = layer.weight_scale.reshape(-1)
        inputs = [
            self._store(f"{layer.name}.weight_int8", whole),
            self._store(f"{layer.name}.weight_scale", scales),
            self._store(f"{layer.name}.weight_zero", np.zeros(len(scales), np.int8)),
        ]
        self.nodes.append(
            helper.make_node("DequantizeLinear", inputs, [output], axis=layer.channel_axis)
        )
        return output

    def activation(self, tensor: str, layer: Int8Layer) -> str:
        """The tensor by way of uint8; returns its name."""
        from onnx import helper

        key = (tensor, float(layer.input_scale), int(layer.input_zero))
        if key not in self._made:
            stem = f"{layer.name}.input"
            grid = [
                self._store(f"{stem}_scale", np.asarray(layer.input_scale, np.float32)),
                self._store(f"{stem}_zero", np.asarray(layer.input_zero, np.uint8)),
            ]
            steps, self._made[key] = f"{stem}_uint8", stem
            self.nodes += [
                helper.make_node("QuantizeLinear", [tensor, *grid], [steps]),
                helper.make_node("DequantizeLinear", [steps, *grid], [stem]),
            ]
        return self._made[key]

    def _store(self, name: str, values: np.ndarray) -> str:
        from onnx import numpy_helper

        self.initializers.append(numpy_helper.from_array(values, name))
        return name


def _check_stored(graph: Any, layers: Sequence[Int8Layer]) -> None:
    """Refuse a graph whose weights are not the model's.

    Raises:
        PasslError: naming the layer.
    """
    from onnx import numpy_helper

    stored = {item.name: item for item in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            stored[node.output[0]] = next((a.t for a in node.attribute if a.name == "value"), None)
    for layer in layers:
        found = stored.get(layer.weight)
        if found is None:
            raise _unfit(layer, "its weight is not there")
        if not np.array_equal(numpy_helper.to_array(found), layer.values):
            raise _unfit(layer, "its weight is another one there")


def _unfit(layer: Int8Layer, reason: str) -> PasslError:
    return PasslError(
        f"int8: the ONNX graph does not show the layer {layer.name}: {reason} ({layer.weight}); "
        "this model cannot be exported to int8: use --dtype float32 or float16"
    )


def _followed(name: str, origin: Mapping[str, str]) -> str:
    """The tensor that a chain of Identity begins with."""
    while name in origin:
        name = origin[name]
    return name


def _drop_unread(graph: Any, names: set[str], origin: Mapping[str, str]) -> None:
    """Remove float32 weights that nothing reads any more, and the Identities over them."""
    while True:
        read = {name for node in graph.node for name in node.input}
        unread = [
            node for node in graph.node
            if node.op_type in ("Identity", "Constant") and node.output[0] not in read
            and _followed(node.output[0], origin) in names
        ]  # fmt: skip
        if not unread:
            break
        for node in unread:
            graph.node.remove(node)
    for item in [item for item in graph.initializer if item.name in names - read]:
        graph.initializer.remove(item)
