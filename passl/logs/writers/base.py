"""What every program that shows curves and pictures must be able to take."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Callable, ClassVar, NamedTuple, Union

from passl.errors import ConfigError
from passl.installed import is_installed
from passl.registry import Runtime

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Graph", "Keep", "Node", "Point", "Setting", "Writer"]

Setting = Union[bool, int, float, str]
#: Of a record by its tag and step: is it still true of the run that goes on?
Keep = Callable[[str, int], bool]


class Point(NamedTuple):
    """One value of one curve such as ``train/loss``; the time is in seconds since 1970."""

    tag: str
    value: float
    step: int
    time_s: float


@dataclass(frozen=True)
class Node:
    """A layer of a model.

    Attributes:
        path: where it is, such as ``blocks/0/attn/qkv``; a layer of layers has the paths of these
            below its own.
        kind: its class.
        parameters: of the layer itself.
        output: shape of what it gives; -1 is the batch.
        source: path of the layer that was called before it; empty for the first.
    """

    path: str
    kind: str
    parameters: int
    output: tuple[int, ...]
    source: str


@dataclass(frozen=True)
class Graph:
    """The innermost layers of a model, in the order in which they are called.

    Attributes:
        model: class of the model.
        nodes: its layers.
        input: shape of its input; -1 is the batch.
    """

    model: str
    nodes: Sequence[Node]
    input: tuple[int, ...]


class Writer(ABC):
    """Hands figures and pictures of one run to a program.

    Calls come from the main process only, in the order of the run; none of them may wait for a
    device.  An exception costs a warning and this writer, never the run.

    Args:
        run_dir: folder of the run.
    """

    #: Name of the program, as people call it.
    program: ClassVar[str]
    #: The module it needs, and what to type if it is not there.
    module: ClassVar[str]
    install: ClassVar[str]

    def __init__(self, run_dir: Annotated[Path, Runtime()]) -> None:
        self.run_dir = run_dir

    @classmethod
    def check(cls) -> None:
        """Refuse to be used where the package is missing; imports nothing.

        Raises:
            ConfigError: saying what to install.
        """
        if not is_installed(cls.module):
            raise ConfigError(
                f"{cls.program} needs the package {cls.module}, which is not installed; type "
                f"{cls.install}, or leave {cls.program} out of Logging.writers"
            )

    @abstractmethod
    def restart(self, points: Iterable[Point], keep: Keep, step: int) -> None:
        """Begin, or go on from a checkpoint: what came after it is forgotten.

        Args:
            points: every point that is kept, in order; none for a run that begins.
            keep: whether a picture or histogram that was written stays.
            step: of the checkpoint; 0 for a run that begins.
        """

    @abstractmethod
    def scalars(self, points: Sequence[Point]) -> None:
        """Add points to curves, one each: what was measured at one step."""

    @abstractmethod
    def image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Show a picture: uint8 [H, W, 3]."""

    @abstractmethod
    def histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Show how values are spread: finite floats of any shape, at least one."""

    @abstractmethod
    def settings(self, settings: Mapping[str, Setting], results: Sequence[str]) -> None:
        """What tells this run from others, and the tags of the curves whose last point is its
        result."""

    @abstractmethod
    def graph(self, graph: Graph) -> None:
        """Show the layers of the model."""

    @abstractmethod
    def how_to_open(self) -> str:
        """The command that shows what was written."""

    def finish(self, results: Mapping[str, float]) -> None:  # noqa: B027 (nothing is a fine answer)
        """The run came to its end, with these results by tag."""

    def close(self) -> None:  # noqa: B027 (nothing is a fine answer)
        """Write everything; a later call opens it again."""
