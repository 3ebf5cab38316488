"""Proof that a conversion computes what the original does: logits and activations compared.

The original is timm's model with the *same file* loaded by timm's own code, or arrays that somebody
stored.  Both models see one fixed input.  A shape that fits proves nothing: a square weight that
was not transposed fits too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np

from passl.checkpoint.convert.conversion import Conversion
from passl.checkpoint.convert.plan import TORCH_PREFIXES
from passl.checkpoint.convert.targets import Target
from passl.checkpoint.convert.to_timm import TimmArrays
from passl.checkpoint.sources import TensorSource, open_source
from passl.errors import CheckpointError, ConfigError
from passl.installed import is_installed

__all__ = ["Comparison", "Row", "refuse_unless_possible", "verify"]

_NUM_IMAGES = 2
_SEED = 0
#: Families whose files timm loads itself, and ours, which it loads as written for it.
_TIMM_LOADS = ("timm", "deit", "dinov2", "google", "passl")
_PREFIXES = re.compile(f"^{TORCH_PREFIXES}")
#: What an image meets first: a hybrid's stem, or the projection of the patches.
_FIRST_CONVOLUTIONS = (
    "patch_embed.backbone.stem.conv.weight",
    "patch_embed.backbone.conv.weight",
    "patch_embed.proj.weight",
)
#: Arguments that mean the same to timm and to us.
_SHARED_ARGUMENTS = (
    "patch_size", "in_chans", "embed_dim", "depth", "num_heads", "mlp_ratio", "qkv_bias",
    "init_values", "class_token", "reg_tokens", "no_embed_class", "pre_norm", "global_pool",
    "fc_norm", "qk_norm",
)


@dataclass(frozen=True)
class Row:
    """One comparison: the largest difference and the largest value of the original."""

    name: str
    difference: float
    largest: float

    def is_equal(self, tolerance: float) -> bool:
        """Within ``tolerance``, relative to the largest value where that is above one."""
        return bool(self.difference <= tolerance * max(1.0, self.largest))


@dataclass(frozen=True)
class Comparison:
    """All comparisons of a conversion with its original, and what they do not show."""

    original: str
    rows: list[Row]
    tolerance: float
    unproven: str = ""

    @property
    def is_equal(self) -> bool:
        """Whether every row is."""
        return all(row.is_equal(self.tolerance) for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.name) for row in self.rows)
        lines = [f"compared with {self.original}"]
        lines += [f"{'':{width}}  largest difference  largest value"]
        lines += [
            f"{row.name:{width}}  {row.difference:18.2e}  {row.largest:13.4g}"
            + ("" if row.is_equal(self.tolerance) else "  differs")
            for row in self.rows
        ]
        verdict = "equal" if self.is_equal else "NOT equal"
        lines.append(f"{verdict} within {self.tolerance:g} of the largest value")
        lines += [f"not proven: {self.unproven}"] if self.unproven else []
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        """For the provenance."""
        return {
            "original": self.original,
            "tolerance": self.tolerance,
            "not_proven": self.unproven or None,
            "largest_difference": {row.name: row.difference for row in self.rows},
        }


def refuse_unless_possible(reference: Optional[Path]) -> None:
    """Say at once what ``--verify`` would need.

    Raises:
        ConfigError: there is nothing to compare with.
    """
    if reference is not None:
        return
    missing = [name for name in ("torch", "timm") if not is_installed(name)]
    if missing:
        raise ConfigError(
            f"--verify needs an original to compare with: {' and '.join(missing)} cannot be "
            "imported. Install torch and timm, or give stored outputs with --reference FILE.npz "
            "(arrays x, logits and, if you have them, features)."
        )


def verify(
    source: TensorSource,
    conversion: Conversion,
    arrays: Mapping[str, np.ndarray],
    target: Target,
    *,
    reference: Optional[Path],
    tolerance: float,
) -> Comparison:
    """Compare the model filled with ``arrays`` with the original.

    Args:
        source: the file, still open; timm loads the same one.
        conversion: of the file.
        arrays: our name -> array, as they will be written.
        target: the model.
        reference: an ``.npz`` of stored outputs; None for timm.
        tolerance: see :class:`Row`.

    Raises:
        CheckpointError: the original cannot be had.
    """
    if reference is not None:
        model = _our_model(target.name, target.args, arrays, str(source.path))
        return _with_stored(model, reference, tolerance)
    return _with_timm(source, conversion, arrays, target, tolerance)


# -- stored outputs --------------------------------------------------------------------------------


def _with_stored(model: Any, reference: Path, tolerance: float) -> Comparison:
    with open_source(reference) as stored:
        names = stored.names()
        if "x" not in names or "logits" not in names:
            raise CheckpointError(
                f"{reference}: --reference needs the arrays x (images [n, channels, height, "
                f"width]) and logits, and may have features; it has {', '.join(names[:10])}."
            )
        x_bchw = stored.read("x").astype(np.float32)
        found = _our_activations(model, x_bchw)
        rows = []
        if "features" in names:
            features = stored.read("features")
            tokens_bnc = found["norm"]
            rows.append(
                _row("features", tokens_bnc if features.ndim == 3 else tokens_bnc[:, 0], features)
            )
        rows.append(_row("logits", found["logits"], stored.read("logits")))
    return Comparison(f"{reference}, {len(x_bchw)} images", rows, tolerance)


# -- timm ------------------------------------------------------------------------------------------


def _with_timm(
    source: TensorSource,
    conversion: Conversion,
    arrays: Mapping[str, np.ndarray],
    target: Target,
    tolerance: float,
) -> Comparison:
    import timm

    from passl.models import model_spec

    if conversion.family not in _TIMM_LOADS:
        raise CheckpointError(
            f"{source.path}: timm does not read the names of {conversion.family!r}, so it is no "
            "original to compare with. Give outputs of the program that does, with "
            "--reference FILE.npz (arrays x, logits, features)."
        )
    original, name, unproven = _timm_model(source, conversion, arrays, target)
    args, note = dict(target.args), ""
    if model_spec(target.name).param("hybrid_style") is not None:
        # Google's constants are ours; timm's model has its own.
        args["hybrid_style"], note = "timm", ", with hybrid_style timm"
    model = _our_model(target.name, args, arrays, str(source.path))
    height, width = target.img_size or (224, 224)
    channels = next(
        conversion.shapes[name][1] for name in _FIRST_CONVOLUTIONS if name in conversion.shapes
    )
    shape = (_NUM_IMAGES, channels, height, width)
    x_bchw = np.random.default_rng(_SEED).standard_normal(shape).astype(np.float32)
    ours, theirs = _our_activations(model, x_bchw), _their_activations(original, x_bchw)
    rows = [_row(key, ours[key], value) for key, value in theirs.items() if key in ours]
    return Comparison(
        f"timm {timm.__version__} {name}, {_NUM_IMAGES} fixed images of {height}x{width}{note}",
        rows,
        tolerance,
        unproven,
    )


def _timm_model(
    source: TensorSource,
    conversion: Conversion,
    arrays: Mapping[str, np.ndarray],
    target: Target,
) -> tuple[Any, str, str]:
    """timm's model with the file loaded by timm's own code, its name, and what it cannot prove."""
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    original, name, unproven = _empty_timm_model(target)
    if conversion.family == "google":
        original.load_pretrained(str(source.path))
        return original.eval(), name, unproven
    if conversion.family == "passl":
        stored = {known: _as_torch(array) for known, array in TimmArrays(arrays).items()}
    else:
        stored = {
            _PREFIXES.sub("", known): _as_torch(source.read(known))
            for known in source.names()
        }
    wanted = checkpoint_filter_fn(stored, original, adapt_layer_scale=conversion.family == "deit")
    try:
        original.load_state_dict(wanted, strict=True)
    except RuntimeError as error:
        raise CheckpointError(
            f"{source.path}: timm {timm.__version__} does not load it strictly into {name}: {error}"
        ) from error
    return original.eval(), name, unproven


def _as_torch(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array)).float()


def _empty_timm_model(target: Target) -> tuple[Any, str, str]:
    """timm's model of the same name, or its general one with our arguments, and what of it no file
    shows."""
    import timm
    import torch
    from timm.models.deit import VisionTransformerDistilled
    from timm.models.vision_transformer import VisionTransformer

    from passl.models import model_spec

    spec = model_spec(target.name)
    defaults = {param.name: param.default for param in spec.params if not param.required}
    args = {**defaults, **target.args}
    shared: dict[str, Any] = {"num_classes": args["class_num"], "img_size": args["img_size"]}
    if args.get("act", "gelu") != "gelu":  # the names of activations are timm's
        shared["act_layer"] = args["act"]
    known = set(timm.list_models())
    name = next((name for name in (target.name, *spec.aliases) if name in known), None)
    if name is not None:
        unproven = (
            f"that the file was trained as timm's {name}, whose heads, epsilon and activation no "
            "file shows"
        )
        return timm.create_model(name, pretrained=False, **shared), name, unproven
    shared.update((key, args[key]) for key in _SHARED_ARGUMENTS if key in args)
    epsilon = args["epsilon"]
    kind = VisionTransformerDistilled if "dist_token" in target.shapes else VisionTransformer
    is_tanh = args.get("act") == "gelu_tanh"
    model = kind(
        **shared,
        norm_layer=partial(torch.nn.LayerNorm, eps=epsilon),
        act_layer=partial(torch.nn.GELU, approximate="tanh" if is_tanh else "none"),
    )
    unproven = (
        f"num_heads={args['num_heads']}, epsilon={epsilon:g}, act={args.get('act', 'gelu')} and "
        f"global_pool={args.get('global_pool', 'token')}, which no file shows: timm's general "
        "model was built with the same. --reference FILE.npz, outputs of the program that trained "
        "the weights, proves them"
    )
    return model, kind.__name__, unproven


def _their_activations(model: Any, x_bchw: np.ndarray) -> dict[str, np.ndarray]:
    import torch

    found = _watch(model, "register_forward_hook", lambda tensor: tensor.detach().numpy())
    with torch.no_grad():
        found["logits"] = model(torch.from_numpy(x_bchw)).numpy()
    return found


# -- ours ------------------------------------------------------------------------------------------


def _our_model(
    name: str, args: Mapping[str, Any], arrays: Mapping[str, np.ndarray], origin: str
) -> Any:
    from passl.checkpoint.pretrained import load_arrays
    from passl.layers.init import no_init
    from passl.models import create_model

    with no_init():
        model = create_model(name, **args)
    load_arrays(model, dict(arrays), origin)
    model.eval()
    return model


def _our_activations(model: Any, x_bchw: np.ndarray) -> dict[str, np.ndarray]:
    import paddle

    found = _watch(model, "register_forward_post_hook", lambda tensor: tensor.numpy())
    with paddle.no_grad():
        found["logits"] = model(paddle.to_tensor(x_bchw)).numpy()
    return found


# -- both ------------------------------------------------------------------------------------------


def _watch(
    model: Any, method: str, to_numpy: Callable[[Any], np.ndarray]
) -> dict[str, np.ndarray]:
    """What the blocks and the last normalisation get and give, once ``model`` has run.

    Args:
        model: a vision transformer of PyTorch or Paddle.
        method: what adds a hook that is called after a layer.
        to_numpy: the values of one of their tensors.
    """
    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(_layer: Any, _inputs: Any, output: Any) -> None:
            found[name] = to_numpy(output)

        return hook

    def keep_input(_layer: Any, inputs: Any) -> None:
        found["embeddings"] = to_numpy(inputs[0])

    model.blocks[0].register_forward_pre_hook(keep_input)
    for number, block in enumerate(model.blocks):
        getattr(block, method)(keep(f"blocks.{number}"))
    getattr(model.norm, method)(keep("norm"))
    return found


def _row(name: str, ours: np.ndarray, theirs: np.ndarray) -> Row:
    if ours.shape != theirs.shape:
        raise CheckpointError(
            f"{name}: the converted model gives {list(ours.shape)}, the original "
            f"{list(theirs.shape)}."
        )
    difference = np.abs(ours.astype(np.float64) - theirs.astype(np.float64)).max()
    return Row(name, float(difference), float(np.abs(theirs).max()))
