"""Putting weights of a file into a model, and accounting for every tensor.

Names and shapes of both sides are compared before anything is copied.  What does not fit is an
error that lists it, not a warning that scrolls by: a model that evaluates with random weights is
the most expensive mistake of all.  With ``finetune`` a head of other classes starts anew, and what
depends on the size and channels of the image is resized; nothing else is forgiven.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Optional, Union

import numpy as np
import paddle
from paddle import nn

from passl.checkpoint.adapt import adapt_patch_embed, adapt_positions, unsaid_grid
from passl.checkpoint.convert.loading import read_weights
from passl.checkpoint.files import bfloat16_to_float32
from passl.checkpoint.provenance import read_provenance
from passl.checkpoint.resolve import resolve_checkpoint
from passl.errors import CheckpointError

__all__ = ["LoadReport", "load_arrays", "load_pretrained"]

#: Parameters that belong to the classes rather than to the images; a model may name others in
#: ``head_prefixes``.
_HEAD_PREFIXES = ("head.", "head_dist.", "pre_logits.")
#: Parts of the head with one output a class, the last axis of their tensors.
_CLASSIFIERS = ("head.", "head_dist.")
#: What fine-tuning resizes.
_RESIZED_PREFIXES = ("pos_embed", "patch_embed.")
#: How PASSL resizes position embeddings, for weights of which nothing else is known.
_POS_EMBED_METHOD = "bicubic"
_NUM_LISTED = 10
#: What depends on the pooling: the normalisation after it or before, and the class token.
_POOLING_PREFIXES = ("norm.", "fc_norm.", "cls_token")
_COMPARE = "Compare Model.name and its arguments with those the weights were trained with."
#: The last normalisation that a file lacks -> how a model does without it.
_OTHER_POOLING = {
    "fc_norm": (
        "The file normalises the tokens, the model their average. Model.fc_norm=false normalises "
        "before the average and takes the file's norm; "
        r"Global.allow_missing=['^norm\.','^fc_norm\.'] "
        "starts fc_norm anew."
    ),
    "norm": (
        "The file normalises the average of the tokens, the model the tokens. "
        "Model.global_pool=avg with Model.fc_norm=true takes the file's fc_norm; "
        r"Global.allow_missing=['^norm\.','^fc_norm\.'] "
        "starts norm anew."
    ),
}


@dataclass
class LoadReport:
    """What became of every tensor of the model and of the file; ``str(report)`` is for the log.

    Args:
        origin: the file.
        num_tensors: tensors of the model.
    """

    origin: str
    num_tensors: int
    #: Tensors of the model that now hold the file's values (resized ones included).
    loaded: list[str] = field(default_factory=list)
    #: Tensors of the head that start anew, with the reason.
    reinitialised: dict[str, str] = field(default_factory=dict)
    #: Table by which a file of another origin was converted; empty for one of ours.
    table: str = ""
    #: Tensors of the file that nothing here uses, with the reason.
    dropped: dict[str, str] = field(default_factory=dict)
    #: Tensors changed to fit the model's images, with the two sizes and the method.
    resized: dict[str, str] = field(default_factory=dict)
    #: Tensors of the model that the file lacks.
    missing: list[str] = field(default_factory=list)
    #: Tensors of the file that the model lacks -> the nearest name in the model, or "".
    unexpected: dict[str, str] = field(default_factory=dict)
    #: Tensors of both whose shapes or kinds of numbers differ, with both.
    mismatched: dict[str, str] = field(default_factory=dict)
    #: Tensors of the model that the file need not hold, as they came from a file of their own.
    external: list[str] = field(default_factory=list)
    #: Conversions: stored type -> number of tensors.
    converted: dict[str, int] = field(default_factory=dict)
    #: What is particular about weights of this origin.
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"weights from {self.origin}: {len(self.loaded)} of {self.num_tensors} tensors loaded"
        ]
        lines += [f"converted by table {self.table}"] if self.table else []
        lines += [f"resized {name}: {sizes}" for name, sizes in self.resized.items()]
        lines += [f"newly initialised {name}: {why}" for name, why in self.reinitialised.items()]
        lines += [f"kept as initialised {name}: not in the file" for name in self.missing]
        lines += [f"kept as initialised {name}: {why}" for name, why in self.mismatched.items()]
        lines += [f"not used {name}: {why}" for name, why in self.dropped.items()]
        lines += [
            f"not used {name}: not in the model" + (f" (did you mean {near}?)" if near else "")
            for name, near in self.unexpected.items()
        ]
        lines += [f"converted from {kind}: {n} tensors" for kind, n in self.converted.items()]
        if self.external:
            lines.append(f"from files of their own: {len(self.external)} tensors")
        lines += [f"note: {note}" for note in self.notes]
        return "\n  ".join(lines)


def load_pretrained(
    model: nn.Layer,
    path: Union[str, Path],
    *,
    finetune: bool = False,
    keep_head: bool = True,
    allow_missing: Sequence[str] = (),
    pos_embed_method: Optional[str] = None,
    source_grid: Optional[tuple[int, int]] = None,
) -> LoadReport:
    """Put the weights at ``path`` into ``model``.

    Args:
        model: its parameters and buffers are overwritten; untouched if an error is raised.
        path: a checkpoint folder, ``best``, a file, or a prefix without suffix.  A file of another
            origin (timm, Google, Hugging Face, ...; see docs/convert.md) is converted on the fly.
        finetune: allow a head of another shape, which then starts anew as a whole, and images of
            another size, patch size or number of channels, for which ``pos_embed`` and the first
            convolution are resized.
        keep_head: with ``finetune``, keep a head that fits; False starts it anew in any case.
        allow_missing: regular expressions of names that need not fit: kept as initialised where
            the file has no such tensor or one of another shape, ignored where the model has none.
        pos_embed_method: ``bicubic``, ``bicubic_antialias``, ``bilinear`` or ``zoom``; None: as
            the file's provenance says, else as its origin does, else ``bicubic``.
        source_grid: rows and columns of the file's positions; None: as the file's provenance
            says, else as the model's if there are as many, else a square.

    Raises:
        CheckpointError: no such file, damaged, NaN in it, or a tensor that does not fit.
    """
    resolved = resolve_checkpoint(path)
    resolved.verify(only_weights=True)
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    read = read_weights(resolved.weights, shapes, allow_missing)
    _refuse_other_heads(model, read.num_heads, str(resolved.weights))
    known = read_provenance(resolved)
    report = load_arrays(
        model,
        read.arrays,
        str(resolved.weights),
        finetune=finetune,
        keep_head=keep_head,
        allow_missing=allow_missing,
        pos_embed_method=pos_embed_method or known.pos_embed_method or read.pos_embed_method,
        source_grid=source_grid or known.grid_size,
    )
    report.table = read.table
    report.dropped.update(read.dropped)
    report.notes += read.notes
    return report


def load_arrays(
    model: nn.Layer,
    arrays: Mapping[str, np.ndarray],
    origin: str,
    *,
    finetune: bool = False,
    keep_head: bool = True,
    allow_missing: Sequence[str] = (),
    pos_embed_method: Optional[str] = None,
    source_grid: Optional[tuple[int, int]] = None,
) -> LoadReport:
    """:func:`load_pretrained` for arrays already read.

    Args:
        model: its parameters and buffers are overwritten; untouched if an error is raised.
        arrays: name -> array in Paddle's layout, floats of any width, bfloat16 as uint16.
        origin: what messages call them.
        finetune: see :func:`load_pretrained`.
        keep_head: see :func:`load_pretrained`.
        allow_missing: see :func:`load_pretrained`.
        pos_embed_method: see :func:`load_pretrained`; None is ``bicubic``.
        source_grid: see :func:`load_pretrained`.
    """
    targets: dict[str, paddle.Tensor] = model.state_dict()
    report = LoadReport(origin, len(targets))
    values = _as_floats(arrays, report)
    if finetune:
        report.resized.update(adapt_patch_embed(targets, values, origin))
        method = pos_embed_method or _POS_EMBED_METHOD
        doubt = unsaid_grid(model, values, source_grid)
        report.notes += [doubt] if doubt else []
        report.resized.update(
            adapt_positions(
                model, targets, values, origin, method=method, source_grid=source_grid
            )
        )
    _compare(targets, values, report)
    _set_external_apart(model, report)
    if finetune:
        _give_up_head(model, report, keep_head)
    _refuse_misfits(report, allow_missing, finetune)
    _refuse_non_finite(values, targets, report)
    for name in report.loaded:
        _copy(values[name], targets[name])
    if hasattr(model, "weights_were_loaded"):
        model.weights_were_loaded(report.loaded)
    return report


# -- comparing -------------------------------------------------------------------------------------


def _as_floats(arrays: Mapping[str, np.ndarray], report: LoadReport) -> dict[str, np.ndarray]:
    """Widen bfloat16 and note every stored type that is not float32 or an integer."""
    values = {}
    for name, array in arrays.items():
        is_bfloat16 = array.dtype == np.uint16
        values[name] = bfloat16_to_float32(array) if is_bfloat16 else array
        kind = "bfloat16" if is_bfloat16 else str(array.dtype)
        if kind in ("bfloat16", "float16", "float64"):
            report.converted[kind] = report.converted.get(kind, 0) + 1
    return values


def _compare(
    targets: Mapping[str, paddle.Tensor], values: Mapping[str, np.ndarray], report: LoadReport
) -> None:
    for name, target in targets.items():
        if name not in values:
            report.missing.append(name)
            continue
        difference = _difference(name, values[name], target)
        if difference:
            report.mismatched[name] = difference
        else:
            report.loaded.append(name)
    unused = [name for name in values if name not in targets]
    for name in unused:
        near = difflib.get_close_matches(name, report.missing, n=1) if len(unused) < 200 else []
        report.unexpected[name] = near[0] if near else ""


def _difference(name: str, value: np.ndarray, target: paddle.Tensor) -> str:
    """Why the value cannot be the target's; empty if it can."""
    stored, wanted = list(value.shape), list(target.shape)
    if stored != wanted:
        is_transposed = len(wanted) == 2 and stored == wanted[::-1]
        if is_transposed:
            hint = " (transposed: written by another framework?)"
        elif name.startswith(_CLASSIFIERS) and stored[:-1] == wanted[:-1]:
            hint = f" ({stored[-1]} -> {wanted[-1]} classes)"
        else:
            hint = ""
        return f"{stored} in the file, {wanted} in the model{hint}"
    if (value.dtype.kind == "f") != ("float" in str(target.dtype)):
        return f"{value.dtype} in the file, {_dtype_name(target)} in the model"
    return ""


def _set_external_apart(model: nn.Layer, report: LoadReport) -> None:
    """What the model read from a file of its own is not missing."""
    if hasattr(model, "external_parameters"):
        names = model.external_parameters()
        report.external = [name for name in report.missing if name in names]
        report.missing = [name for name in report.missing if name not in names]


def _give_up_head(model: nn.Layer, report: LoadReport, keep_head: bool) -> None:
    """Start the whole head anew if a part of it does not fit: half a head is none."""
    prefixes = tuple(getattr(model, "head_prefixes", _HEAD_PREFIXES))
    reasons = {
        **{name: "not in the file" for name in report.missing if name.startswith(prefixes)},
        **{name: why for name, why in report.mismatched.items() if name.startswith(prefixes)},
    }
    unused = [name for name in report.unexpected if name.startswith(prefixes)]
    if keep_head and not reasons and not unused:
        return
    other = "another part of the head differs" if reasons or unused else "a new head was asked for"
    for name in [name for name in report.loaded if name.startswith(prefixes)]:
        report.loaded.remove(name)
        reasons[name] = other
    report.missing = [name for name in report.missing if name not in reasons]
    for name in (*reasons, *unused):
        report.mismatched.pop(name, None)
        report.unexpected.pop(name, None)
    report.reinitialised = reasons
    report.dropped = dict.fromkeys(unused, "a part of the file's head that the model has not")


# -- refusing --------------------------------------------------------------------------------------


def _refuse_misfits(report: LoadReport, allow_missing: Sequence[str], finetune: bool) -> None:
    allowed = _compile(allow_missing)
    missing = [name for name in report.missing if not _matches(name, allowed)]
    mismatched = {
        name: why for name, why in report.mismatched.items() if not _matches(name, allowed)
    }
    unexpected = {
        name: near for name, near in report.unexpected.items() if not _matches(name, allowed)
    }
    problems = [f"{name}: {why}" for name, why in mismatched.items()]
    problems += [f"{name}: missing in the file" for name in missing]
    for name, near in unexpected.items():
        problems.append(f"{name}: not in the model" + (f" (did you mean {near}?)" if near else ""))
    if not problems:
        return
    lines = [
        f"{report.origin}: these weights are of another model, or of another setting of it: "
        f"{_do_not_fit(len(problems))}, {len(report.loaded)} of {report.num_tensors} would."
    ]
    lines += [f"  {problem}" for problem in problems[:_NUM_LISTED]]
    if len(problems) > _NUM_LISTED:
        lines.append(f"  ... and {len(problems) - _NUM_LISTED} more")
    lines.append(_advice(mismatched, [*missing, *unexpected], finetune))
    raise CheckpointError("\n".join(line for line in lines if line))


def _do_not_fit(count: int) -> str:
    return "1 tensor does not fit" if count == 1 else f"{count} tensors do not fit"


def _advice(mismatched: Iterable[str], unpaired: Sequence[str], finetune: bool) -> str:
    """What to do if only that differs which fine-tuning forgives."""
    names = [*mismatched, *unpaired]
    resizable = all(name.startswith((*_HEAD_PREFIXES, *_RESIZED_PREFIXES)) for name in mismatched)
    if not finetune and resizable and all(name.startswith(_HEAD_PREFIXES) for name in unpaired):
        return (
            "Only the head or what depends on the image size differs: Global.finetune=true starts "
            "a new head and resizes the embeddings."
        )
    if all(name.startswith(_POOLING_PREFIXES) for name in names):
        return _OTHER_POOLING.get(names[0].partition(".")[0], _COMPARE)
    return _COMPARE


def _refuse_other_heads(model: nn.Layer, num_heads: Optional[int], origin: str) -> None:
    """Another number of heads has the same shapes and computes nonsense."""
    if num_heads is None:
        return
    for layer in model.sublayers():
        wanted = getattr(layer, "num_heads", num_heads)
        if wanted != num_heads:
            raise CheckpointError(
                f"{origin}: its attentions have {num_heads} heads, the model's have {wanted}. "
                f"Give Model.num_heads={num_heads}."
            )


def _refuse_non_finite(
    values: Mapping[str, np.ndarray], targets: Mapping[str, paddle.Tensor], report: LoadReport
) -> None:
    for name in report.loaded:
        value = values[name]
        if value.dtype.kind != "f":
            continue
        if not np.isfinite(value).all():
            count = int(value.size - np.isfinite(value).sum())
            raise CheckpointError(
                f"{report.origin}: {name} has {count} NaN or infinite values of {value.size}; "
                "the run that wrote it had diverged. Use an earlier checkpoint."
            )
        kept = np.dtype("float16" if _dtype_name(targets[name]) == "float16" else "float32")
        if kept.itemsize >= value.dtype.itemsize:
            continue
        with np.errstate(over="ignore"):
            is_kept = np.isfinite(value.astype(kept)).all()
        if not is_kept:
            raise CheckpointError(
                f"{report.origin}: {name}: {float(np.abs(value).max()):g} is too large for {kept}, "
                "in which the model keeps it."
            )


def _compile(patterns: Sequence[str]) -> list[re.Pattern[str]]:
    try:
        return [re.compile(pattern) for pattern in patterns]
    except re.error as error:
        raise CheckpointError(f"allow_missing: {error.pattern!r} is no pattern: {error}") from error


def _matches(name: str, patterns: Sequence[re.Pattern[str]]) -> bool:
    return any(pattern.search(name) for pattern in patterns)


# -- copying ---------------------------------------------------------------------------------------


def _copy(value: np.ndarray, target: paddle.Tensor) -> None:
    dtype = _dtype_name(target)
    if dtype == "bfloat16":  # NumPy has no such type: Paddle rounds
        target.set_value(paddle.to_tensor(value.astype(np.float32)).astype(dtype))
    else:
        target.set_value(np.ascontiguousarray(value, dtype=dtype).reshape(value.shape))


def _dtype_name(tensor: paddle.Tensor) -> str:
    return str(tensor.dtype).rsplit(".", 1)[-1]
