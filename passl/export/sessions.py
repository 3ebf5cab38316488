"""Running a model, whatever it is made of: a batch of inputs in, a batch of outputs out."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional, Protocol

import numpy as np

from passl.errors import CheckpointError, PasslError
from passl.export.card import ModelCard
from passl.installed import is_installed

__all__ = ["LiveSession", "OnnxSession", "PaddleSession", "Session", "open_session"]

#: Formats in the order in which one is taken where both are there.
_PREFERENCE = ("onnx", "paddle")
_LONGEST = 400  # letters of what ONNX Runtime says
#: Types of an ONNX input that images can have.
_INPUT_TYPES = {
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
}


class Session(Protocol):
    """A model ready to run."""

    #: What it runs on, for people.
    backend: str

    def run(self, batch: np.ndarray) -> np.ndarray:
        """Outputs float32 [b, classes] of inputs [b, ...] of the type it was made for."""
        ...


class LiveSession:
    """A model built in this process.

    Args:
        model: maps float32 [b, c, h, w] to [b, classes].
    """

    backend = "live Paddle"

    def __init__(self, model: Any) -> None:
        self._model = model
        model.eval()

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See :class:`Session`."""
        import paddle

        with paddle.no_grad():
            return np.asarray(self._model(paddle.to_tensor(batch)).astype("float32").numpy())


class PaddleSession:
    """A model in Paddle's inference format.

    Args:
        model: the .json (Paddle 3) or .pdmodel (2.6) file.
        params: the .pdiparams file.
        device: ``cpu``, ``gpu``, or ``gpu:1`` for one of several.
        num_threads: of the math library; None: Paddle's choice.
    """

    def __init__(
        self, model: Path, params: Path, device: str = "cpu", num_threads: Optional[int] = None
    ) -> None:
        from passl.runtime import import_paddle

        paddle = import_paddle()
        if model.suffix == ".json" and int(paddle.__version__.split(".")[0]) in (1, 2):
            raise CheckpointError(
                f"{model}: was exported by Paddle 3, and this is Paddle {paddle.__version__}, "
                "which cannot read it; export it with this version, or use the ONNX file"
            )
        from paddle import inference

        config = inference.Config(str(model), str(params))
        config.disable_glog_info()
        if device.startswith("gpu"):
            config.enable_use_gpu(256, _number_of(device))
        else:
            config.disable_gpu()
            if num_threads is not None:
                config.set_cpu_math_library_num_threads(num_threads)
        self._model = model
        self._predictor, self._has_run = inference.create_predictor(config), False
        self._input = self._predictor.get_input_handle(self._predictor.get_input_names()[0])
        self._output = self._predictor.get_output_handle(self._predictor.get_output_names()[0])
        self.backend = f"Paddle Inference {paddle.__version__}"

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See :class:`Session`."""
        self._input.reshape(list(batch.shape))
        self._input.copy_from_cpu(np.ascontiguousarray(batch))
        # The first run chooses the kernels.
        with contextlib.nullcontext() if self._has_run else _stdout_of_c_dropped():
            try:
                self._predictor.run()
            except Exception as error:  # Paddle raises what it likes
                *_, last = [line for line in str(error).splitlines() if line.strip()] or [""]
                raise CheckpointError(
                    f"{self._model}: Paddle Inference cannot run it on an input {batch.dtype} "
                    f"{list(batch.shape)}: {last.strip()}"
                ) from error
        self._has_run = True
        return np.asarray(self._output.copy_to_cpu())


class OnnxSession:
    """A model in ONNX, run by ONNX Runtime.

    Args:
        model: the .onnx file.
        device: ``cpu``, ``gpu``, or ``gpu:1`` for one of several.
        num_threads: of an operator; None: ONNX Runtime's choice.
        optimize: rewrite the graph for speed; else each operator runs as the file has it.

    Raises:
        PasslError: ONNX Runtime is not installed.
        CheckpointError: it cannot use the file, or this takes anything but one batch of images.
    """

    def __init__(
        self,
        model: Path,
        device: str = "cpu",
        num_threads: Optional[int] = None,
        *,
        optimize: bool = True,
    ) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise PasslError(
                f"an ONNX file is run by onnxruntime, which cannot be imported ({error}); install "
                "it: pip install onnxruntime"
            ) from error
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # errors are raised; below: advice to the maker of the graph
        # Without VNNI, sums of two products of uint8 and int8 are cut off at 16 bits otherwise.
        options.add_session_config_entry("session.x64quantprecision", "1")
        if num_threads is not None:
            options.intra_op_num_threads = num_threads
        if not optimize:
            level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.graph_optimization_level = level
        on_gpu = ("CUDAExecutionProvider", {"device_id": _number_of(device)})
        wanted = [on_gpu] if device.startswith("gpu") else []
        try:
            self._session = onnxruntime.InferenceSession(
                str(model), options, providers=[*wanted, "CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's exceptions share no public base class
            raise CheckpointError(f"{model}: ONNX Runtime cannot use it: {_said(error)}") from error
        self._model = model
        self._input, self._dtype = _only_input(model, self._session.get_inputs())
        self.backend = f"ONNX Runtime {onnxruntime.__version__}"

    def run(self, batch: np.ndarray) -> np.ndarray:
        """See :class:`Session`."""
        return self.run_all(batch)[self._session.get_outputs()[0].name]

    def run_all(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs by name, the model's own first."""
        names = [output.name for output in self._session.get_outputs()]
        if batch.dtype == np.float32:  # a model in another precision takes its own
            batch = batch.astype(self._dtype, copy=False)
        try:
            outputs = self._session.run(names, {self._input: batch})
        except Exception as error:  # as above
            raise CheckpointError(
                f"{self._model}: ONNX Runtime cannot run it on an input {batch.dtype} "
                f"{list(batch.shape)}: {_said(error)}"
            ) from error
        return {name: np.asarray(output) for name, output in zip(names, outputs)}


def _only_input(model: Path, inputs: Sequence[Any]) -> tuple[str, np.dtype[Any]]:
    """Name and type of the input.

    Raises:
        CheckpointError: there are several, or of another type.
    """
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise CheckpointError(
            f"{model}: takes {len(inputs)} inputs ({names}); a model that looks at images takes one"
        )
    found = _INPUT_TYPES.get(inputs[0].type)
    if found is None:
        raise CheckpointError(
            f"{model}: its input {inputs[0].name!r} is {inputs[0].type}; images are "
            f"{', '.join(_INPUT_TYPES)}"
        )
    return inputs[0].name, np.dtype(found)


def _said(error: Exception) -> str:
    """What a library says, in one line that is no page."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def open_session(
    folder: Path,
    card: ModelCard,
    backend: Optional[str] = None,
    *,
    device: str = "cpu",
    num_threads: Optional[int] = None,
) -> Session:
    """The exported model in ``folder``.

    Args:
        backend: ``paddle`` or ``onnx``; None takes what is there and can be run, ONNX first, which
            needs no Paddle.
        device, num_threads: see the sessions.

    Raises:
        CheckpointError: there is no such format, or a file is missing or damaged.
        PasslError: what runs it is not installed.
    """
    there = [kind for kind in _PREFERENCE if kind in card.files]
    if backend is not None and backend not in there:
        raise CheckpointError(
            f"{folder}: was not exported to {backend}; it has {' and '.join(there) or 'no format'}"
        )
    kinds = [backend] if backend is not None else [k for k in there if _has_runtime(k)] or there
    if not kinds:
        raise CheckpointError(f"{folder}: names no file of a format that this version can run")
    card.verify(folder, kinds[0])
    if kinds[0] == "onnx":
        return OnnxSession(card.file(folder, "onnx", "model"), device, num_threads)
    model, params = (card.file(folder, "paddle", part) for part in ("model", "params"))
    return PaddleSession(model, params, device, num_threads)


@contextlib.contextmanager
def _stdout_of_c_dropped() -> Iterator[None]:
    """Drop what C++ prints: Paddle 3.3 writes names of checks where our results go."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    try:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), 1)
        yield
        libc.fflush(None)
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def _number_of(device: str) -> int:
    return int(device.partition(":")[2] or 0)


def _has_runtime(kind: str) -> bool:
    return is_installed({"onnx": "onnxruntime", "paddle": "paddle"}[kind])
