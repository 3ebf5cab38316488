"""``passl-models --pretrained`` and the weights part of ``passl-models show``: public weights.

Text only: nothing is fetched.
"""

from __future__ import annotations

import dataclasses
import json
import shlex
from typing import Optional

from passl.errors import EXIT_OK, ConfigError
from passl.models import model_spec
from passl.models.known_weights import KNOWN_WEIGHTS, KnownWeights, list_weights, weights_named

__all__ = ["print_weights_of", "show_weights", "weights_table"]

#: Columns of a table, and the least that the name of a file has of them.
_LINE = 120
_MIN_FILE = 24


def weights_table(pattern: str, *, as_json: bool) -> int:
    """Print the known weights whose name, model or file matches ``pattern``.

    Raises:
        ConfigError: none does.
    """
    found = list_weights(pattern)
    if not found:
        raise ConfigError(
            f"no weights match {pattern!r} by name, model or file; "
            "passl-models --pretrained lists all of them"
        )
    if as_json:
        print(json.dumps([_as_json(weights) for weights in found], indent=2))
        return EXIT_OK
    rows = [("name", "top-1", "image", "model", "file")]
    rows += [
        (
            weights.name,
            "-" if weights.accuracy is None else f"{weights.accuracy:.1f}",
            str(weights.resolution),
            weights.model,
            weights.file or "-",
        )
        for weights in found
    ]
    widths = [max(map(len, column)) for column in zip(*rows)]
    room = max(_LINE - sum(width + 2 for width in widths[:-1]), _MIN_FILE)
    # The address stands below: too long for a column, and whole, to be copied.
    addresses = ["", *(weights.url for weights in found)]
    for row, address in zip(rows, addresses):
        cells = [
            cell.rjust(width) if index == 1 else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row[:-1], widths))
        ]
        print("  ".join([*cells, _shortened(row[-1], room)]))
        if address:
            print(f"    {address}")
    print("how to fetch and convert them: passl-models show NAME; all that is known: --json")
    return EXIT_OK


def show_weights(name: str, *, as_json: bool) -> Optional[int]:
    """Print the weights called ``name`` and how to fetch and convert them.

    Returns:
        The exit status, or None if no weights are called so.
    """
    weights = weights_named(name)
    if weights is None:
        return None
    if as_json:
        print(json.dumps(_as_json(weights), indent=2))
        return EXIT_OK
    accuracy = "not reported" if weights.accuracy is None else f"{weights.accuracy} %"
    print(f"{weights.name}  (weights for {weights.model})")
    print(f"top-1 on ImageNet-1k: {accuracy}, images of {weights.resolution} pixels")
    print(f"trained on {weights.trained_on}")
    if weights.file:
        print(f"file {weights.file}")
    print(f"from {weights.url}")
    if weights.sha256:
        print(f"sha256 {weights.sha256}{'' if len(weights.sha256) == 64 else '...'}")
    print(f"according to {weights.source}")
    if weights.note:
        print(weights.note)
    print(f"\n{_how_to(weights)}")
    return EXIT_OK


def print_weights_of(model: str) -> None:
    """Print one line for each of the known weights of a model; nothing if there are none."""
    spec = model_spec(model)
    found = [weights for weights in KNOWN_WEIGHTS if weights.model == spec.name]
    if found:
        print("\npublic weights (passl-models show NAME says how to fetch and convert them):")
        for weights in found:
            top1 = "" if weights.accuracy is None else f"top-1 {weights.accuracy:.1f}, "
            print(f"  {weights.name}  ({top1}{weights.resolution} pixels, {weights.trained_on})")


def _how_to(weights: KnownWeights) -> str:
    is_page = not weights.file
    source = "FILE" if is_page else shlex.quote(weights.url)
    command = ["passl-convert", source, f"{weights.name}.pdparams", "--model", weights.model]
    if weights.args:
        command += ["-o", weights.args]
    if not is_page:
        command.append("--download")
    what = "convert" if is_page else "fetch and convert"
    return f"{what}:\n  {' '.join(command)}"


def _shortened(text: str, room: int) -> str:
    """The beginning and the end: names of files differ in both."""
    if len(text) <= room:
        return text
    end = room // 2
    return f"{text[: room - end - 3]}...{text[-end:]}"


def _as_json(weights: KnownWeights) -> dict[str, object]:
    return {**dataclasses.asdict(weights), "file": weights.file}
