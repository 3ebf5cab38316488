"""Does a conversion fill a model, tensor for tensor; and which model does it fill.

Models are looked at without allocating them (``paddle.LazyGuard``), so this costs the same for six
million parameters and for six billion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Optional

from passl.checkpoint.convert.conversion import Conversion
from passl.checkpoint.convert.operations import Shape
from passl.config.numeric import ratio_giving
from passl.errors import CheckpointError, PasslError
from passl.models import check_arguments, create_model, list_models, model_spec

__all__ = ["Target", "find_models", "fit", "plain_vit_options", "target_of"]

_NUM_LISTED = 10
_BLOCK = re.compile(r"blocks\.(\d+)\.")
_POS_EMBED = "pos_embed"
_PROJECTION = "patch_embed.proj.weight"


@dataclass(frozen=True)
class Target:
    """A model to be filled.

    Attributes:
        name: as it is registered.
        args: what differs from the defaults of that name.
        shapes: parameter -> shape.
        num_heads: heads of its attentions; None if it does not say.
        epsilon: of its normalisations; None if it does not say.
        img_size: height and width of its images; None if it does not say.
        grid_size: rows and columns of its patches; None if it does not say.
    """

    name: str
    args: dict[str, Any]
    shapes: dict[str, Shape]
    num_heads: Optional[int]
    epsilon: Optional[float]
    img_size: Optional[tuple[int, int]]
    grid_size: Optional[tuple[int, int]]

    def __str__(self) -> str:
        if not self.args:
            return self.name
        listed = " ".join(f"{key}={value}" for key, value in self.args.items())
        return f"{self.name} with {listed}"


def target_of(name: str, args: Mapping[str, Any], conversion: Conversion) -> Target:
    """The model ``name``, with the classes and the image size of the file where ``args`` is silent.

    Raises:
        ConfigError: no such model or argument.
    """
    spec = model_spec(name)
    checked = check_arguments(spec, args)
    known = {param.name for param in spec.params}
    chosen = dict(checked)
    if "class_num" in known:
        chosen.setdefault("class_num", _class_num(conversion))
    target = _built(spec.name, chosen)
    if "img_size" in known and "img_size" not in checked:
        size = _img_size(target, conversion)
        if size is not None:
            target = _built(spec.name, {**chosen, "img_size": size})
    return target


def find_models(conversion: Conversion, file_name: str = "") -> list[Target]:
    """The registered models that the file fills, best first.

    Only if none is filled exactly, those for which tensors must be dropped that may be (see
    :attr:`Conversion.if_absent`).  Preferred are those of the file's own image size, then those
    whose normalisations have the epsilon of the file's family, then those that ``file_name`` names.
    """
    found = []
    for name in list_models():
        if not _may_fit(name, conversion):
            continue
        try:
            target = target_of(name, {}, conversion)
        except PasslError:
            continue  # it cannot be built with that many classes or pixels
        left_over = _left_over(conversion, target)
        if left_over is not None and not _heads_differ(conversion, target):
            found.append((len(left_over), target))
    fewest = min((count for count, _ in found), default=0)
    equal = [target for count, target in found if count == fewest]
    return sorted(
        equal,
        key=lambda target: (
            "img_size" in target.args,
            target.epsilon != conversion.epsilon,
            -_longest_name_in(file_name, target.name),
        ),
    )


def fit(
    conversion: Conversion, target: Target, allow_missing: Sequence[str] = ()
) -> tuple[Conversion, list[str]]:
    """The conversion for this model, and the tensors of the model that stay as initialised.

    Args:
        conversion: of the file.
        target: the model.
        allow_missing: regular expressions of names that need not fit.

    Raises:
        CheckpointError: tensors of either side are left over or differ in shape; lists them.
    """
    conversion = conversion.shaped_for(target.shapes)
    allowed = [re.compile(pattern) for pattern in allow_missing]
    dropped: dict[str, str] = {}
    missing: list[str] = []
    problems: list[str] = []
    for name, shape in target.shapes.items():
        stored = conversion.shapes.get(name)
        is_allowed = any(pattern.search(name) for pattern in allowed)
        if stored is None:
            if is_allowed:
                missing.append(name)
            else:
                problems.append(f"{name} {list(shape)}: missing in the file")
        elif stored != shape:
            if is_allowed:
                missing.append(name)
                dropped[name] = f"{list(stored)} in the file, {list(shape)} in the model"
            else:
                problems.append(f"{name}: {list(stored)} in the file, {list(shape)} in the model")
    for name in conversion.shapes:
        if name in target.shapes:
            continue
        reason = conversion.if_absent.get(name)
        if reason is None and any(pattern.search(name) for pattern in allowed):
            reason = "the model has no such tensor, and that is allowed"
        if reason is None:
            problems.append(f"{name}: not in the model")
        else:
            dropped[name] = reason
    if problems:
        raise CheckpointError(_misfit(conversion, target, problems))
    if _heads_differ(conversion, target):
        raise CheckpointError(
            f"the file's attentions have {conversion.num_heads} heads, those of {target} "
            f"{target.num_heads}: every tensor would fit and the model would compute nonsense. "
            f"Give -o num_heads={conversion.num_heads}."
        )
    fitted = conversion.without(dropped).ordered_as(target.shapes)
    return replace(fitted, notes=[*fitted.notes, *_epsilon_note(conversion, target)]), missing


def plain_vit_options(conversion: Conversion) -> str:
    """Arguments of ``VisionTransformer``, as on a command line, that the shapes of a file show."""
    shapes = conversion.shapes
    kernel = shapes.get(_PROJECTION, ())
    width = shapes[_POS_EMBED][-1] if _POS_EMBED in shapes else None
    hidden = shapes.get("blocks.0.mlp.fc1.bias")
    options = {
        "embed_dim": width or "...",
        "depth": _depth(shapes),
        "num_heads": conversion.num_heads or "...",
        "patch_size": kernel[-1] if kernel else "...",
        "mlp_ratio": f"{ratio_giving(hidden[0], width):g}" if hidden and width else "...",
        "qkv_bias": str("blocks.0.attn.qkv.bias" in shapes).lower(),
        "epsilon": f"{conversion.epsilon:g}",
    }
    if len(kernel) == 4 and kernel[1] != 3:
        options["in_chans"] = kernel[1]
    if "pre_logits.fc.bias" in shapes:
        options["representation_size"] = shapes["pre_logits.fc.bias"][0]
    if "fc_norm.weight" in shapes:
        options["global_pool"] = "avg"
    return " ".join(f"{key}={value}" for key, value in options.items())


# -- inside ----------------------------------------------------------------------------------------


def _built(name: str, args: Mapping[str, Any]) -> Target:
    import paddle

    from passl.layers.init import no_init

    with paddle.LazyGuard(), no_init():
        model = create_model(name, **args)
    spec = model_spec(name)
    defaults = {param.name: param.default for param in spec.params if not param.required}
    effective = {**defaults, **args}
    return Target(
        name=name,
        args={key: value for key, value in args.items() if value != defaults.get(key)},
        shapes={key: tuple(value.shape) for key, value in model.state_dict().items()},
        num_heads=effective.get("num_heads"),
        epsilon=effective.get("epsilon"),
        img_size=_pair(effective.get("img_size")),
        grid_size=_pair(getattr(model, "grid_size", None)),
    )


def _pair(value: Any) -> Optional[tuple[int, int]]:
    if value is None:
        return None
    return (value, value) if isinstance(value, int) else (int(value[0]), int(value[1]))


def _class_num(conversion: Conversion) -> int:
    head = conversion.shapes.get("head.weight")
    return head[1] if head is not None else 0


def _img_size(target: Target, conversion: Conversion) -> Optional[int]:
    """The square image of the file's positions; None if it is the model's own or no square."""
    stored, wanted = conversion.shapes.get(_POS_EMBED), target.shapes.get(_POS_EMBED)
    size, grid = target.img_size, target.grid_size
    if stored is None or wanted is None or grid is None or size is None or stored == wanted:
        return None
    others = wanted[1] - grid[0] * grid[1]  # positions of tokens that are no patches
    side = math.isqrt(max(stored[1] - others, 0))
    if side == 0 or side * side != stored[1] - others:
        return None
    return side * (size[0] // grid[0])


def _left_over(conversion: Conversion, target: Target) -> Optional[set[str]]:
    """The tensors that must be dropped for this model; None if it is not filled all the same."""
    shapes = conversion.shaped_for(target.shapes).shapes
    left_over = set(shapes) - set(target.shapes)
    if left_over - set(conversion.if_absent):
        return None
    kept = {name: shape for name, shape in shapes.items() if name not in left_over}
    return left_over if kept == target.shapes else None


def _longest_name_in(file_name: str, model: str) -> int:
    """Length of the longest of the model's names that the file's name contains."""
    names = (model, *model_spec(model).aliases)
    return max((len(name) for name in names if name.lower() in file_name.lower()), default=0)


def _may_fit(name: str, conversion: Conversion) -> bool:
    """Cheap signs, so that few models are built: width, depth, patch and scales of layers."""
    spec = model_spec(name)
    defaults = {param.name: param.default for param in spec.params if not param.required}
    positions = conversion.shapes.get(_POS_EMBED)
    kernel = conversion.shapes.get(_PROJECTION)
    patch = defaults.get("patch_size")
    if kernel is not None and isinstance(patch, int) and kernel[-1] != patch:
        return False
    if "init_values" in defaults:
        is_scaled = "blocks.0.ls1.gamma" in conversion.shapes
        if is_scaled != (defaults["init_values"] is not None):
            return False
    return (
        positions is not None
        and defaults.get("embed_dim") == positions[-1]
        and defaults.get("depth") == _depth(conversion.shapes)
        and name != spec.qualname  # the class itself, whose defaults are no model of anybody's
    )


def _depth(shapes: Mapping[str, Shape]) -> int:
    return len({match[1] for name in shapes if (match := _BLOCK.match(name))})


def _heads_differ(conversion: Conversion, target: Target) -> bool:
    return None not in (conversion.num_heads, target.num_heads) and (
        conversion.num_heads != target.num_heads
    )


def _epsilon_note(conversion: Conversion, target: Target) -> list[str]:
    """A word if the class itself was chosen, whose epsilon is nobody's choice for this file."""
    is_ours = conversion.family == "passl"
    if is_ours or target.name != model_spec(target.name).qualname:
        return []
    if target.epsilon in (None, conversion.epsilon):
        return []
    return [
        f"{target.name} normalises with epsilon={target.epsilon:g}, most models of this origin "
        f"with {conversion.epsilon:g}: give -o epsilon={conversion.epsilon:g} if the original does."
    ]


def _misfit(conversion: Conversion, target: Target, problems: Sequence[str]) -> str:
    lines = [f"the weights are not those of {target}: {_difference(conversion, target)}"]
    lines += [f"  {problem}" for problem in problems[:_NUM_LISTED]]
    if len(problems) > _NUM_LISTED:
        lines.append(f"  ... and {len(problems) - _NUM_LISTED} more")
    fitting = find_models(conversion)
    if fitting:
        lines.append(f"They fit {' or '.join(map(str, fitting[:3]))}.")
    else:
        lines.append(
            "No registered model has these sizes; give the arguments that differ with -o, "
            "for example -o embed_dim=... depth=... patch_size=...."
        )
    return "\n".join(lines)


def _difference(conversion: Conversion, target: Target) -> str:
    """The first difference a person would name: depth, width, patch, image or single tensors."""
    depths = _depth(conversion.shapes), _depth(target.shapes)
    if depths[0] != depths[1]:
        return f"the file has {depths[0]} blocks, the model {depths[1]}."
    for name, axis, what in (
        (_POS_EMBED, -1, "width"),
        (_PROJECTION, -1, "patch size"),
        (_PROJECTION, 1, "number of channels"),
        (_POS_EMBED, 1, "number of positions"),
    ):
        stored, wanted = conversion.shapes.get(name), target.shapes.get(name)
        if stored and wanted and stored[axis] != wanted[axis]:
            return f"the {what} is {stored[axis]} in the file, {wanted[axis]} in the model."
    return "these tensors do not fit:"
