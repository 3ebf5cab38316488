"""``inference.yml``: what whoever runs an exported model must know, beside its files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from math import prod
from pathlib import Path
from typing import Any, Optional

import yaml

from passl.checkpoint.disk import digest_of
from passl.config.suggest import did_you_mean
from passl.errors import CheckpointError

__all__ = ["CARD_NAME", "ModelCard"]

CARD_NAME = "inference.yml"
_FORMAT = 1
_PARTS = {"onnx": ("model",), "paddle": ("model", "params")}
_MOST_NUMBERS = 2**31  # of an input: 8 GB in float32
_MAX_BYTES = 20_000_000  # names of 21,841 classes are 0.5 MB


@dataclass(frozen=True)
class ModelCard:
    """What is known of an exported model.

    Attributes:
        model: ``name``, the ``Model.name`` of the config.
        input: ``name``, ``dtype``, ``layout`` (NCHW or NHWC) and ``shape``; null: any number.
        output: ``meaning`` (logits, probabilities or features) and ``shape``.
        preprocess: transforms that come before the input, in this order; null: unknown.
        inside: transforms that the model itself does, after those.
        labels: class names by label; null: unknown.
        files: format -> part -> ``name`` and ``sha256``.
        weights: ``dtype``, ``source`` and ``sha256`` of the weights that were exported.
        compared: with which images the files were compared, and the largest differences.
        versions: of what made it.
    """

    model: dict[str, Any]
    input: dict[str, Any]
    output: dict[str, Any]
    preprocess: Optional[list[dict[str, Any]]]
    inside: list[dict[str, Any]]
    labels: Optional[list[str]]
    files: dict[str, dict[str, dict[str, str]]]
    weights: dict[str, Any] = field(default_factory=dict)
    compared: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return int(self.input["shape"][1 if self.input["layout"] == "NCHW" else 3])

    @property
    def batch_size(self) -> Optional[int]:
        """Images of an input; None: any number."""
        size = self.input["shape"][0]
        return None if size is None else int(size)

    def write(self, folder: Path) -> None:
        """Write ``inference.yml`` into ``folder``."""
        content = {"format": _FORMAT, **asdict(self)}
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
        (folder / CARD_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """The card of an exported model.

        Raises:
            CheckpointError: there is none, or it cannot be used.
        """
        path = folder / CARD_NAME
        try:
            if path.stat().st_size > _MAX_BYTES:
                raise ValueError("it is too large")
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"{folder}: is no exported model: it has no {CARD_NAME}. `passl-export` makes one."
            ) from None
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise CheckpointError(f"{path}: cannot be read: {error}") from error
        return cls._from_plain(content, path)

    @classmethod
    def _from_plain(cls, content: Any, path: Path) -> ModelCard:
        if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
            raise CheckpointError(
                f"{path}: is no description of an exported model in format {_FORMAT}; export it "
                "again with this version"
            )
        names = {each.name: each for each in fields(cls)}
        unknown = sorted(map(str, set(content) - set(names)))
        if unknown:
            raise CheckpointError(
                f"{path}: there is no key {unknown[0]!r}{did_you_mean(unknown[0], list(names))}"
            )
        for name, each in names.items():
            if name not in content and each.default_factory is MISSING:
                raise CheckpointError(f"{path}: the key {name!r} is missing")
        try:
            card = cls(**content)
            sound = (
                len(card.input["shape"]) == 4
                and card.input["layout"] in ("NCHW", "NHWC")
                and card.input["dtype"] in ("float32", "uint8")
                and card.output["meaning"] in ("logits", "probabilities", "features")
                and _are_files(card.files)
                and all(_are_steps(steps) for steps in (card.preprocess or [], card.inside))
                and _is_shape(card.input["shape"])
            )
        except (TypeError, KeyError, ValueError) as error:
            raise CheckpointError(f"{path}: {error} is missing or out of place") from error
        if not sound:
            raise CheckpointError(
                f"{path}: input, output, preprocess, inside or files make no sense; export again"
            )
        _check_labels(card, path)
        return card

    def file(self, folder: Path, kind: str, part: str) -> Path:
        """Path of a file of the model.

        Raises:
            CheckpointError: it is missing, or its name leads elsewhere.
        """
        name = str(self.files[kind][part]["name"])
        path = folder / name
        if Path(name).name != name:
            raise CheckpointError(f"{folder / CARD_NAME}: {name!r} is no name of a file beside it")
        if not path.is_file():
            raise CheckpointError(f"{path}: is missing; {CARD_NAME} beside it names it")
        return path

    def verify(self, folder: Path, kind: str) -> None:
        """Compare the files of one format with their SHA-256.

        Raises:
            CheckpointError: a file is missing or differs.
        """
        for part, entry in self.files[kind].items():
            path = self.file(folder, kind, part)
            if digest_of(path).sha256 != entry.get("sha256"):
                raise CheckpointError(
                    f"{path}: is not the file that was exported (its SHA-256 differs from the one "
                    f"in {CARD_NAME}). Was the copy interrupted? Copy it again, or export again."
                )


def _is_shape(shape: Any) -> bool:
    """A batch of pictures that fits into memory; of the number of pictures nothing may be said."""
    batch, *sides = shape
    if not all(type(side) is int and side > 0 for side in (batch or 1, *sides)):
        return False
    return prod((batch or 1, *sides)) <= _MOST_NUMBERS


def _are_steps(steps: Any) -> bool:
    return isinstance(steps, list) and all(isinstance(step, dict) for step in steps)


def _are_files(files: Any) -> bool:
    """Format -> part -> name and hash, every part that a format has."""
    return isinstance(files, dict) and all(
        isinstance(parts, dict)
        and set(_PARTS.get(kind, parts)) <= set(parts)
        and all(isinstance(part, dict) and "name" in part for part in parts.values())
        for kind, parts in files.items()
    )


def _check_labels(card: ModelCard, path: Path) -> None:
    """One text a class: YAML reads ``no`` as false and ``1`` as a number.

    Raises:
        CheckpointError: it is something else.
    """
    names, shape = card.labels, card.output.get("shape") or [None]
    if names is None:
        return
    if not isinstance(names, list) or len(names) != shape[-1]:
        found = f"{len(names)} names" if isinstance(names, list) else f"{type(names).__name__}"
        raise CheckpointError(
            f"{path}: labels: found {found}, and the model has {shape[-1]} classes; write a list "
            "of their names, or null"
        )
    odd = next((name for name in names if not isinstance(name, str)), None)
    if odd is not None:
        raise CheckpointError(f"{path}: labels: {odd!r} is no text; write it in quotes")


def described_files(folder: Path, names: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Part -> name and SHA-256, from part -> name."""
    return {
        part: {"name": name, "sha256": digest_of(folder / name).sha256}
        for part, name in names.items()
    }
