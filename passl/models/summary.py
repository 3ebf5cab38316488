"""Parameters and multiply-adds of a model, from its arguments alone.

Nothing is built and Paddle is not imported, so a model of six billion parameters costs nothing to
look at.  The closed forms are tested against models that are really built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from passl.errors import PasslError
from passl.models import check_arguments, model_spec
from passl.models.llama_summary import illama_cost, vit_llama_cost

__all__ = ["Cost", "cost", "image_size", "macs", "num_parameters"]


@dataclass(frozen=True)
class Cost:
    """What a model costs.

    Attributes:
        parameters: numbers that are trained.
        macs: multiplications with additions of the matrix products and convolutions for one
            image; normalisations, softmax and activations, about 1% of it, are left out.
    """

    parameters: int
    macs: int

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.parameters + other.parameters, self.macs + other.macs)


def num_parameters(name: str, **args: Any) -> int:
    """Number of trained numbers of the model ``name`` built with ``args``.

    Raises:
        ConfigError: no such model or argument.
        PasslError: the model is not one of this package's, and its size is not known unbuilt.
    """
    return _known_cost(name, args).parameters


def macs(name: str, **args: Any) -> int:
    """Multiply-adds of one image through the model ``name`` built with ``args``; see :class:`Cost`.

    Raises: as :func:`num_parameters`.
    """
    return _known_cost(name, args).macs


def cost(name: str, args: Optional[Mapping[str, Any]] = None) -> Optional[Cost]:
    """Both, or None where a model of a user's own package must be built to be measured."""
    spec = model_spec(name)
    formula = _FORMULAS.get((spec.defined_in, spec.qualname))
    return None if formula is None else formula(_arguments(name, args or {}))


def image_size(name: str, args: Optional[Mapping[str, Any]] = None) -> Optional[tuple[int, int]]:
    """(height, width) in pixels of the images the model takes; None where it does not say."""
    given = _arguments(name, args or {})
    return None if given.get("img_size") is None else _pixels(given)


def _known_cost(name: str, args: Mapping[str, Any]) -> Cost:
    found = cost(name, args)
    if found is None:
        spec = model_spec(name)
        raise PasslError(
            f"the size of {name} ({spec.defined_in}.{spec.qualname}) is known only once it is "
            "built; build it with create_model and count its parameters"
        )
    return found


def _arguments(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    spec = model_spec(name)
    defaults = {param.name: param.default for param in spec.params if not param.required}
    return {**defaults, **check_arguments(spec, args)}


# -- closed forms, part by part in the order of the constructors -----------------------------------


def _vision_transformer(args: Mapping[str, Any]) -> Cost:
    height, width = _pixels(args)
    patch, dim = args["patch_size"], args["embed_dim"]
    patches = (height // patch) * (width // patch)
    kernel = args["in_chans"] * patch * patch * dim
    bias = 0 if args["pre_norm"] else dim
    before = args["class_token"] + args["reg_tokens"]
    return _transformer(args, patches, before) + Cost(kernel + bias, patches * kernel)


def _distilled(args: Mapping[str, Any]) -> Cost:
    height, width = _pixels(args)
    patch, dim, classes = args["patch_size"], args["embed_dim"], args["class_num"]
    patches = (height // patch) * (width // patch)
    kernel = args["in_chans"] * patch * patch * dim
    second_head = Cost(dim * classes + classes, dim * classes)
    return (
        _transformer(args, patches, 2) + Cost(kernel + dim, patches * kernel) + second_head
    )


def _myrtle_distilled(args: Mapping[str, Any]) -> Cost:
    plain = {"pre_norm": False, "class_token": True, "reg_tokens": 0, **args}
    dim, classes = args["embed_dim"], args["class_num"]
    # A prediction is made without the second token and its classifier.
    return _vision_transformer(plain) + Cost(dim + 2 * dim + dim * classes + classes, 0)


def _hybrid(args: Mapping[str, Any]) -> Cost:
    backbone, channels, (rows, columns) = _resnet(args)
    patch, dim = args["patch_size"], args["embed_dim"]
    patches = (rows // patch) * (columns // patch)
    kernel = channels * patch * patch * dim
    return _transformer(args, patches, 1) + backbone + Cost(kernel + dim, patches * kernel)


def _transformer(args: Mapping[str, Any], patches: int, before: int) -> Cost:
    """All but the projection of the patches: ``before`` tokens before them, blocks, one head."""
    dim, depth, classes = args["embed_dim"], args["depth"], args["class_num"]
    tokens = before + patches
    hidden = int(dim * args["mlp_ratio"])
    represented = args.get("representation_size")

    linears = dim * 3 * dim + dim * dim + 2 * dim * hidden  # weights of one block
    biases = (3 * dim if args["qkv_bias"] else 0) + dim + hidden + dim
    block = linears + biases + 2 * 2 * dim  # and two normalisations
    if args.get("init_values") is not None:
        block += 2 * dim
    if args.get("qk_norm"):
        block += 2 * 2 * (dim // args["num_heads"])
    positions = patches if args.get("no_embed_class") else tokens
    norms = 2 if args.get("pre_norm") else 1
    pre_logits = dim * represented if represented else 0
    head = (represented or dim) * classes
    attention = 2 * tokens * tokens * dim  # q k' and probabilities times v, all heads
    return Cost(
        parameters=(before + positions) * dim + depth * block + norms * 2 * dim
        + pre_logits + (represented or 0) + head + classes,
        macs=depth * (tokens * linears + attention) + pre_logits + head,
    )


def _resnet(args: Mapping[str, Any]) -> tuple[Cost, int, tuple[int, int]]:
    """What the backbone of a hybrid costs, and the channels, rows and columns it returns."""
    width, layers = args["backbone_width"], args["backbone_layers"]
    rows, columns = (_halved(side) for side in _pixels(args))
    total = _convolution(args["in_chans"], width, 7, rows * columns)
    rows, columns, channels = _halved(rows), _halved(columns), width
    for stage, num_blocks in enumerate(layers):
        inner = width * 2**stage
        for block in range(num_blocks):
            before = rows * columns
            if stage and not block:
                rows, columns = _halved(rows), _halved(columns)
            if channels != 4 * inner or before != rows * columns:
                total += _convolution(channels, 4 * inner, 1, rows * columns)
            total += _convolution(channels, inner, 1, before)
            total += _convolution(inner, inner, 3, rows * columns)
            total += _convolution(inner, 4 * inner, 1, rows * columns)
            channels = 4 * inner
    return total, channels, (rows, columns)


def _convolution(in_chans: int, out_chans: int, kernel: int, cells: int) -> Cost:
    """A convolution without bias and the normalisation behind it."""
    weights = in_chans * out_chans * kernel * kernel
    return Cost(weights + 2 * out_chans, cells * weights)


def _halved(side: int) -> int:
    return -(-side // 2)


def _pixels(args: Mapping[str, Any]) -> tuple[int, int]:
    size = args["img_size"]
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


_FORMULAS: dict[tuple[str, str], Callable[[Mapping[str, Any]], Cost]] = {
    ("passl.models.vision_transformer", "VisionTransformer"): _vision_transformer,
    ("passl.models.illama", "ILlama"): lambda args: Cost(*illama_cost(args)),
    ("passl.models.vit_llama", "ViTLlama"): lambda args: Cost(*vit_llama_cost(args)),
    ("passl.models.deit", "DistilledVisionTransformer"): _distilled,
    ("passl.models.myrtle_deit", "MyrtleDistilledVisionTransformer"): _myrtle_distilled,
    ("passl.models.hybrid", "HybridVisionTransformer"): _hybrid,
}
