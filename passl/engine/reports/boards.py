"""What programs that show a run get besides curves: pictures, settings, graph, histograms.

Everything comes from what the run has at hand: nothing here waits for the device between log lines,
unless histograms are asked for.  Only the main process has boards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Optional

import paddle

from passl.config import Config
from passl.data.loader import Batch, Loader
from passl.data.pictures import Part, parts_of_target, stored_picture, visible
from passl.engine.evaluator import to_model_input
from passl.engine.reports.mistakes import MistakeWatch, Sure
from passl.engine.reports.model_graph import trace_graph
from passl.errors import PasslError
from passl.export.live import class_names
from passl.logs.curves import Curves
from passl.logs.logger import get_logger
from passl.logs.sheet import Caption, draw_pictures
from passl.logs.writers.base import Setting

if TYPE_CHECKING:
    from passl.engine.plan import RunPlan
    from passl.engine.state import TrainState
    from passl.engine.train_parts import TrainParts

__all__ = ["Boards"]

# Okabe and Ito's colours, which differ most, also to the colour-blind.
_GREEN, _ORANGE = (0, 120, 90), (200, 90, 0)
_CAPTION_LINES = 2


class Boards:
    """Pictures, settings, graph and histograms of a run.

    Args:
        config: what is run.
        curves: where they go; without any writer nothing is done.
    """

    def __init__(self, config: Config, curves: Curves) -> None:
        self._config, self._curves = config, curves
        self._parts: Optional[TrainParts] = None
        self._has_begun = False
        self._watch: Optional[MistakeWatch] = None
        self._loader: Optional[Loader] = None
        self._results: list[str] = []

    def start(self, parts: TrainParts, plan: RunPlan, criterion: Optional[str]) -> None:
        """The run is about to begin.

        Args:
            parts: of the run.
            plan: its lengths.
            criterion: what evaluations are judged by; None without any.
        """
        self._parts = parts
        self._results = ["eval/best", f"eval/{criterion}", "eval/loss"] if criterion else []
        self._results.append("train/loss")
        if self._curves:
            self._curves.settings(settings_of(self._config, plan), self._results)

    def step(self, batch: Batch, step: int) -> bool:
        """A step was made.

        Returns:
            whether that took time which is not the training's.
        """
        if not self._curves or self._parts is None:
            return False
        is_first, self._has_begun = not self._has_begun, True
        if is_first:
            self._show_graph(batch)
            self._show_batch(batch, step)
        if self._histograms_are_due(step):
            weights = self._parts.model.named_parameters()
            self._histograms("weights", ((name, value) for name, value in weights), step)
            return True
        return is_first

    def gradients(self, parameters: Iterable[tuple[str, Any]], step: int) -> None:
        """The gradients of step number ``step``, from 1, are complete."""
        if self._curves and self._histograms_are_due(step):
            gradients = ((name, p.grad) for name, p in parameters if p.grad is not None)
            self._histograms("gradients", gradients, step)

    def how_to_open(self) -> list[str]:
        """The command that shows the run, of each program."""
        return self._curves.how_to_open()

    def evaluation(self, loader: Loader) -> Optional[MistakeWatch]:
        """An evaluation over ``loader`` begins; what is to see its batches."""
        self._loader, most = loader, self._config.Logging.images
        self._watch = MistakeWatch(most) if self._curves and most else None
        return self._watch

    def evaluated(self, step: int) -> None:
        """The evaluation is over: show its mistakes."""
        watch, self._watch, loader = self._watch, None, self._loader
        if watch is None or loader is None or not self._curves:
            return
        worst = watch.worst()
        if not worst:
            return
        names = self._class_names(loader)
        try:
            pictures = [stored_picture(loader.dataset, mistake.sample) for mistake in worst]
        except (PasslError, OSError) as error:  # a file that is gone since it was evaluated
            get_logger().warning("no picture of the mistakes: %s", error)
            return
        captions = [_of_mistake(mistake, names) for mistake in worst]
        self._curves.image("eval/worst_mistakes", draw_pictures(pictures, captions), step)

    def finish(self, state: TrainState) -> None:
        """The run came to its end."""
        values = {f"eval/{name}": value for name, value in state.last_eval.items()}
        if state.best is not None:
            values["eval/best"] = state.best.metric
        self._curves.finish({tag: values[tag] for tag in self._results if tag in values})

    # -- inside ------------------------------------------------------------------------------

    def _show_batch(self, batch: Batch, step: int) -> None:
        most = min(self._config.Logging.images, len(batch.labels))
        if not most:
            return
        assert self._parts is not None
        loader = self._parts.loader
        names = self._class_names(loader)
        captions = [_of_target(parts_of_target(label, names)) for label in batch.labels[:most]]
        pictures = list(visible(batch.images[:most], loader))
        self._curves.image("train/batch", draw_pictures(pictures, captions), step)

    def _show_graph(self, batch: Batch) -> None:
        if not self._config.Logging.graph or not len(batch.labels):
            return
        assert self._parts is not None
        parts = self._parts
        images = to_model_input(paddle.to_tensor(batch.images[:1]), parts.loader)
        try:
            self._curves.graph(trace_graph(parts.model, images, parts.precision))
        except Exception as error:  # a model of a user's own may do anything
            get_logger().warning("no graph of the model: %s: %s", type(error).__name__, error)

    def _histograms_are_due(self, step: int) -> bool:
        every = self._config.Logging.histograms_every
        return every is not None and step % every == 0

    def _histograms(self, kind: str, tensors: Iterable[tuple[str, Any]], step: int) -> None:
        for name, tensor in tensors:
            self._curves.histogram(f"{kind}/{name}", tensor.astype("float32").numpy(), step)

    def _class_names(self, loader: Loader) -> Optional[list[str]]:
        try:
            return class_names(self._config, loader.dataset)
        except PasslError:  # told of where names are asked for
            return None


def settings_of(config: Config, plan: RunPlan) -> dict[str, Setting]:
    """What tells a run from others: what is written in its config, and its lengths.

    Names are paths with slashes: VisualDL shows nothing for a name with a dot.
    """
    settings: dict[str, Setting] = {"Model": config.Model["name"]}
    rate = (config.LRScheduler or {}).get("learning_rate")
    if rate is not None:  # what people change most comes first
        settings["LRScheduler/learning_rate"] = rate
    settings["Global/epochs"] = plan.num_epochs
    settings["Global/global_batch_size"] = plan.global_batch_size
    settings["Global/seed"] = config.Global.seed
    if config.Global.pretrained_model is not None:
        settings["Global/pretrained_model"] = config.Global.pretrained_model
    plain = config.to_dict()
    for section in ("LRScheduler", "Optimizer", "EMA", "FP16", "Model"):
        for path, value in _leaves(plain.get(section) or {}, section).items():
            if config.origin(path) != "default" and path != "Model.name":
                settings[path.replace(".", "/")] = value
    return settings


def _leaves(values: Mapping[str, Any], path: str) -> dict[str, Setting]:
    found: dict[str, Setting] = {}
    for key, value in values.items():
        name = f"{path}.{key}"
        if isinstance(value, Mapping):
            found.update(_leaves(value, name))
        elif isinstance(value, (list, tuple)):
            if value:
                found[name] = ", ".join(map(str, value))
        elif value is not None:
            found[name] = value
    return found


def _of_target(parts: list[Part]) -> list[Caption]:
    mixed = len(parts) > 1
    return [
        Caption(part.name, f"{part.value:.0%}" if mixed or part.value != 1.0 else "")
        for part in parts[:_CAPTION_LINES]
    ] or [Caption("no class")]


def _of_mistake(mistake: Sure, names: Optional[list[str]]) -> list[Caption]:
    def name(number: int) -> str:
        return f"{number} {names[number]}" if names and number < len(names) else f"class {number}"

    return [
        Caption(f"is {name(mistake.true)}", f"{mistake.probability_true:.0%}", _GREEN),
        Caption(f"not {name(mistake.predicted)}", f"{mistake.probability:.0%}", _ORANGE),
    ]
