"""Whether the data to evaluate on numbers its classes as the weights learned them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from passl.config import Config
from passl.data.class_names import known_names
from passl.data.class_order import moved_class
from passl.errors import ConfigError

__all__ = ["compare_classes"]

_KEY = "DataLoader.Eval.dataset"


def compare_classes(
    config: Config, dataset: Any, learned: Optional[Sequence[str]]
) -> Optional[str]:
    """Compare the names of ``DataLoader.Eval`` with those that lie beside the weights.

    Args:
        config: says what the data set was built from.
        dataset: of ``DataLoader.Eval``.
        learned: names by label; None: unknown.

    Returns:
        a warning where the data set has other names; None where they agree or are not known.

    Raises:
        ConfigError: a class of both has another label, so that right answers would count as wrong.
    """
    section = config.DataLoader.Eval
    found = known_names(dataset, section.dataset if section is not None else {})
    if learned is None or found is None:
        return None
    moved = moved_class(learned, found)
    if moved is not None:
        name, ours, theirs = moved
        raise ConfigError(
            f"{config.origin(_KEY)}: {_KEY}: class {name!r} has label {theirs} there, and the "
            f"weights learned it as {ours}, so a right answer would count as wrong: give the data "
            "the classes of the training, in their order (they are under \"classes\" in the "
            "state.json beside the weights)"
        )
    other = [label for label, pair in enumerate(zip(learned, found)) if pair[0] != pair[1]]
    if not other:
        return None
    first = other[0]
    return (
        f"{_KEY} has other names for {len(other)} of {len(learned)} classes than the weights "
        f"learned: label {first} is {found[first]!r} there and was {learned[first]!r}; labels are "
        "compared by their numbers, so see to it that these are the same classes"
    )
