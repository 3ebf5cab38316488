"""From an open file of any known origin to our names and layout, one tensor at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Optional

import numpy as np

from passl.checkpoint.convert.families import FAMILIES
from passl.checkpoint.convert.operations import OPERATIONS, Shape
from passl.checkpoint.convert.plan import Names, Plan, Use, make_plan, num_known
from passl.checkpoint.convert.rules import Family, PosEmbedMethod
from passl.checkpoint.sources import TensorSource
from passl.errors import CheckpointError, ConfigError

__all__ = ["Conversion", "convert_source", "layout_of", "recognise"]

_NUM_LISTED = 10
#: Wrappers in which facebookresearch/deit saves; timm's own are ``state_dict``.
_DEIT_WRAPPERS = ("model", "model_ema")
_QKV = re.compile(r"(?:.+\.)?attn\.qkv\.weight")


@dataclass
class Conversion:
    """What a file becomes; reading happens when an array is asked for.

    Attributes:
        family: name of the table.
        table_version: name and version of the table.
        arrays: our name -> array in Paddle's layout, in the type it is stored in (bfloat16 widened
            to float32); read anew at each access, so keep what is needed twice.
        shapes: our name -> shape, known without reading.
        used: our name -> the sources and the operation it is made by.
        dropped: name in the file -> why it is not used.
        pos_embed_method: how this origin resizes its position embedding.
        notes: what a user of the weights must know.
        epsilon: of the normalisations of this origin.
        num_heads: heads of the attentions where the file's layout shows them, else None.
        if_absent: our name -> the reason to drop it for a model without such a tensor.
        alternatives: our name -> another way to make it, and its shape; see :meth:`shaped_for`.
    """

    family: str
    table_version: str
    arrays: Mapping[str, np.ndarray]
    shapes: dict[str, Shape]
    used: dict[str, Use]
    dropped: dict[str, str]
    pos_embed_method: PosEmbedMethod
    notes: list[str]
    epsilon: float = 1e-6
    num_heads: Optional[int] = None
    if_absent: dict[str, str] = field(default_factory=dict)
    alternatives: dict[str, tuple[Use, Shape]] = field(default_factory=dict)

    def shaped_for(self, shapes: Mapping[str, Shape]) -> Conversion:
        """The same with the alternatives that give a model the shapes it has.

        Args:
            shapes: parameter of the model -> shape.
        """
        chosen = {
            name: (use, shape)
            for name, (use, shape) in self.alternatives.items()
            if shapes.get(name) == shape
        }
        used = {**self.used, **{name: use for name, (use, _) in chosen.items()}}
        return replace(
            self,
            arrays=self._arrays_of(used),
            shapes={**self.shapes, **{name: shape for name, (_, shape) in chosen.items()}},
            used=used,
        )

    def without(self, reasons: Mapping[str, str]) -> Conversion:
        """The same without some of our tensors, whose sources are dropped with the reason given.

        Args:
            reasons: our name -> reason.
        """
        used = {name: use for name, use in self.used.items() if name not in reasons}
        still_used = {source for use in used.values() for source in use.sources}
        dropped = dict(self.dropped)
        for name, reason in reasons.items():
            dropped.update(
                (source, reason) for source in self.used[name].sources if source not in still_used
            )
        return replace(
            self,
            arrays=self._arrays_of(used),
            shapes={name: self.shapes[name] for name in used},
            used=used,
            dropped=dropped,
        )

    def ordered_as(self, names: Iterable[str]) -> Conversion:
        """The same in the order of ``names``; stacked layers stay together, to be read once."""
        if any(use.layer is not None for use in self.used.values()):
            return self
        used = {name: self.used[name] for name in names if name in self.used}
        used.update(self.used)
        shapes = {name: self.shapes[name] for name in used}
        return replace(self, arrays=self._arrays_of(used), shapes=shapes, used=used)

    def _arrays_of(self, used: Mapping[str, Use]) -> Mapping[str, np.ndarray]:
        assert isinstance(self.arrays, _LazyArrays)
        return self.arrays.made_by(used)


def recognise(source: TensorSource) -> str:
    """The family whose names the file has.

    Raises:
        CheckpointError: no table knows any of its names.
    """
    names = source.names()
    scores = {name: num_known(family, names) for name, family in FAMILIES.items()}
    best = max(scores.values(), default=0)
    if best == 0:
        raise CheckpointError(
            f"{source.path}: no table knows these names, e.g. {', '.join(sorted(names)[:3])}. "
            f"{_known_families()} Are these the weights of a vision transformer?"
        )
    equal = [name for name, score in scores.items() if score == best]
    layout = layout_of(source)
    if layout is not None:
        equal = [name for name in equal if FAMILIES[name].layout == layout] or equal
    if "deit" in equal and "timm" in equal and source.wrapper in _DEIT_WRAPPERS:
        return "deit"
    return equal[0]


def convert_source(
    source: TensorSource,
    family: Optional[str] = None,
    *,
    allow: Sequence[str] = (),
    allow_non_finite: bool = False,
) -> Conversion:
    """Plan the conversion of an open file; see :class:`Conversion`.

    Args:
        source: the file, which must stay open while arrays are read.
        family: name of the table to use; None to recognise it.
        allow: regular expressions of names in the file that no table needs to know, and of our
            names that a block of the file need not have.
        allow_non_finite: let NaN and infinity pass.

    Raises:
        CheckpointError: the names or shapes are not those of the family, a tensor is missing or
            unknown, or holds no floating-point numbers.
        ConfigError: no family is called so.
    """
    name = family or recognise(source)
    if name not in FAMILIES:
        raise ConfigError(f"no family is called {name!r}. {_known_families()}")
    table = FAMILIES[name]
    if family is not None:
        _refuse_wrong_family(source, table)
    patterns = _compiled(allow)
    names = Names.of(source.names(), table)
    shapes = {stored: tuple(source.shape(stored)) for stored in source.names()}
    try:
        plan = make_plan(table, names, shapes, patterns)
        _refuse_unknown(plan, source, patterns)
        _refuse_integers(plan, source)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path} (read as {name!r}): {error}") from error
    return Conversion(
        family=name,
        table_version=table.table_version,
        arrays=_LazyArrays(source, plan.uses, allow_non_finite),
        shapes=plan.shapes,
        used=plan.uses,
        dropped=plan.dropped,
        pos_embed_method=table.pos_embed_method,
        notes=[*table.notes, *_notes_of(plan, table)],
        epsilon=table.epsilon,
        num_heads=_num_heads(plan, shapes),
        if_absent=plan.if_absent,
        alternatives=plan.alternatives,
    )


# -- arrays ----------------------------------------------------------------------------------------


class _LazyArrays(Mapping[str, np.ndarray]):
    """Reads, converts and checks a tensor when it is asked for."""

    def __init__(
        self, source: TensorSource, uses: Mapping[str, Use], allow_non_finite: bool
    ) -> None:
        self._source, self._uses, self._allow_non_finite = source, uses, allow_non_finite
        # All layers of a stacked tensor come one after the other; it is read once for them.
        self._stacked: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        use = self._uses[name]
        array = OPERATIONS[use.operation].apply(self._read(use))
        if not self._allow_non_finite and not np.isfinite(array).all():
            count = int(array.size - np.isfinite(array).sum())
            raise CheckpointError(
                f"{self._source.path}: {', '.join(use.sources)}: {count} of {array.size} values "
                "are NaN or infinite; the run that wrote the file had diverged, or the file is "
                "damaged. --allow-non-finite converts it all the same."
            )
        return array

    def __iter__(self) -> Iterator[str]:
        return iter(self._uses)

    def __len__(self) -> int:
        return len(self._uses)

    def made_by(self, uses: Mapping[str, Use]) -> _LazyArrays:
        return _LazyArrays(self._source, uses, self._allow_non_finite)

    def _read(self, use: Use) -> list[np.ndarray]:
        if use.layer is None:
            self._stacked.clear()
            return [self._source.read(source) for source in use.sources]
        if set(self._stacked) != set(use.sources):
            self._stacked = {source: self._source.read(source) for source in use.sources}
        return [self._stacked[source][use.layer] for source in use.sources]


# -- recognising and refusing ----------------------------------------------------------------------


def layout_of(source: TensorSource) -> Optional[str]:
    """How Linear weights are stored, as the fused qkv shows it: its long axis is the output."""
    for name in source.names():
        shape = source.shape(name)
        if _QKV.fullmatch(name) and len(shape) == 2 and shape[0] != shape[1]:
            return "torch" if shape[0] == 3 * shape[1] else "paddle"
    return None


def _refuse_wrong_family(source: TensorSource, table: Family) -> None:
    names = source.names()
    known = num_known(table, names)
    nearest = recognise(source)
    nearest_known = num_known(FAMILIES[nearest], names)
    if 2 * known < nearest_known:
        raise CheckpointError(
            f"{source.path}: these are not the names of {table.name!r} ({table.title}): it knows "
            f"{known} of {len(names)}. {nearest!r} ({FAMILIES[nearest].title}) knows "
            f"{nearest_known}: leave --from out, or give --from {nearest}."
        )
    layout = layout_of(source)
    if layout is not None and table.layout in ("torch", "paddle") and table.layout != layout:
        stored = "[out, in]" if layout == "torch" else "[in, out]"
        raise CheckpointError(
            f"{source.path}: its Linear weights are stored {stored}, which is not the layout of "
            f"{table.name!r}. Leave --from out, or give --from {nearest}."
        )


def _refuse_unknown(
    plan: Plan, source: TensorSource, patterns: Sequence[re.Pattern[str]]
) -> None:
    unknown = []
    for name in plan.unknown:
        if any(pattern.search(name) for pattern in patterns):
            plan.dropped[name] = "not known to the table, and allowed to be"
        else:
            unknown.append(name)
    if unknown:
        more = len(unknown) - _NUM_LISTED
        raise CheckpointError(
            f"{len(unknown)} of {len(source.names())} tensors are not known to the table: "
            f"{', '.join(unknown[:_NUM_LISTED])}{f' and {more} more' if more > 0 else ''}. "
            "A model with such tensors would compute something else without them; if you know "
            f"better, leave them out with --allow-missing '{re.escape(unknown[0])}'."
        )


def _refuse_integers(plan: Plan, source: TensorSource) -> None:
    for target, use in plan.uses.items():
        for name in use.sources:
            kind = str(source.dtype(name))
            if not kind.startswith(("float16", "float32", "float64", "bfloat16")):
                raise CheckpointError(
                    f"{name} holds {kind}, so {target} cannot be made of it: a quantised file? "
                    "Convert the float weights that it was made from."
                )


def _notes_of(plan: Plan, table: Family) -> list[str]:
    return [
        note
        for beginning, note in table.notes_if
        if any(name.startswith(beginning) for name in plan.uses)
    ]


def _num_heads(plan: Plan, shapes: Mapping[str, Shape]) -> Optional[int]:
    for use in plan.uses.values():
        if use.operation == "concat_qkv_kernels":
            return shapes[use.sources[0]][-2]
    return None


def _compiled(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    try:
        return [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise ConfigError(f"--allow-missing {error.pattern!r} is no pattern: {error}") from error


def _known_families() -> str:
    listed = "; ".join(f"{name}: {family.title}" for name, family in FAMILIES.items())
    return f"Known families: {listed}."
