"""``Global.to_static``: the model's forward and backward pass as one compiled program.

Paddle traces ``forward`` into a static program, once in training and once in evaluation mode, and
runs that in place of one Python call an operation.  Loss, gradients' norm and update stay as they
are.  The program computes what the layers compute, with the same random masks, but our kernels for
CPUs are not in it (``docs/precision.md`` has what was measured).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import paddle
from paddle import Tensor

from passl.config import Config
from passl.engine.hooks.base import Hook
from passl.engine.reports.reporting import Reporter
from passl.errors import ConfigError
from passl.precision.amp import Precision

__all__ = ["compile_model", "uncompiled"]


def compile_model(
    model: Any, config: Config, precision: Precision, hooks: Sequence[Hook], reporter: Reporter
) -> None:
    """Let ``model`` run compiled from its first pass on, if the config asks for it.

    Raises:
        ConfigError: something of the run would not be in the program.
    """
    if not config.Global.to_static:
        return
    where = config.origin("Global.to_static")
    if precision.level != "O0":
        raise ConfigError(
            f"{where}: Global.to_static: compiled training was never run with automatic casts "
            f"({precision.describe()}); use -o FP16.level=O0, or Global.to_static=false"
        )
    changing = [type(hook).__name__ for hook in hooks if hook.settings()]
    if changing:
        raise ConfigError(
            f"{where}: Global.to_static: {', '.join(changing)} changes a setting of the model with "
            "the step, which a compiled program has as it was when it was compiled; remove the "
            "hook, or write false"
        )
    model.forward = _CompiledForward(model, where)
    reporter.log("the model is compiled (Global.to_static) when its first batch comes")


@contextmanager
def uncompiled(model: Any) -> Iterator[None]:
    """Inside, the model runs layer by layer, so that each can be watched."""
    compiled = vars(model).get("forward")
    if not isinstance(compiled, _CompiledForward):
        yield
        return
    model.forward = compiled.layer_by_layer
    try:
        yield
    finally:
        model.forward = compiled


@contextmanager
def _forwards_kept(model: Any) -> Iterator[None]:
    """Inside, a model may be traced; Paddle 2.6 leaves a rewritten ``forward`` on every layer.

    Those run outside a program too, but not all of Python survives the rewriting.
    """
    own = [layer for layer in model.sublayers() if "forward" not in vars(layer)]
    try:
        yield
    finally:
        for layer in own:
            vars(layer).pop("forward", None)


class _CompiledForward:
    """Takes the place of a model's ``forward``; any number of images, of the size of the first.

    Args:
        model: whose ``forward`` takes images alone.
        where: origin of the wish, for messages.
    """

    def __init__(self, model: Any, where: str) -> None:
        self.layer_by_layer = model.forward
        self._model, self._where = model, where
        self._program: Any = None
        self._traced: set[bool] = set()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images [B, C, H, W].

        Raises:
            ConfigError: Paddle cannot compile the model.
        """
        if self._model.training in self._traced:
            return self._program(images)
        with _forwards_kept(self._model):
            self._trace([None, *images.shape[1:]])
            return self._program(images)  # Paddle 2.6 traces once more here

    def _trace(self, shape: list[Any]) -> None:
        try:
            if self._program is None:
                spec = paddle.static.InputSpec(shape, "float32")
                self._program = paddle.jit.to_static(
                    self.layer_by_layer, input_spec=[spec], full_graph=True
                )
            with warnings.catch_warnings():  # of attributes that a traced tensor lacks
                warnings.simplefilter("ignore", UserWarning)
                assert self._program.concrete_program is not None  # traces
        except Exception as error:
            raise ConfigError(
                f"{self._where}: Global.to_static: Paddle cannot compile "
                f"{type(self._model).__name__} ({type(error).__name__}: "
                f"{str(error).strip().splitlines()[-1]}); use -o Global.to_static=false"
            ) from error
        self._traced.add(self._model.training)
