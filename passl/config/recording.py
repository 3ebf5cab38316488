"""The section of a config for what shows a run: ``Logging``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Optional

from passl.registry import Component, Range

__all__ = ["LoggingSection"]


def _visualdl() -> list[dict[str, Any]]:
    return [{"name": "VisualDL"}]


@dataclass(frozen=True)
class LoggingSection:
    """Where the figures and pictures of a run go, besides its log and ``metrics.jsonl``.

    Attributes:
        writers: programs that show them: ``VisualDL`` (unless ``Global.use_visualdl`` is false),
            ``TensorBoard``, ``WandB``.
        images: pictures in the sheet of the first training batch, and in that of the worst mistakes
            of each evaluation; 0 for none.
        graph: show the layers of the model.
        histograms_every: optimizer steps between histograms of all weights and gradients; each
            waits for the device and reads everything from it; null for none.
    """

    writers: Annotated[list[dict[str, Any]], Component("writers")] = field(
        default_factory=_visualdl
    )
    images: Annotated[int, Range(min=0, max=64)] = 8
    graph: bool = True
    histograms_every: Annotated[Optional[int], Range(min=1)] = None
