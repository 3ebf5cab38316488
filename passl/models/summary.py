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
    formula = _FORMULAS.get((spec.module, spec.qualname))
    return None if formula is None else formula(_arguments(name, args or {}))


def image_size(name: str, args: Optional[Mapping[str, Any]] = None) -> Optional[tuple[int, int]]:
    """(height, width) in pixels of the images the model takes; None where it does not say."""
    size = _arguments(name, args or {}).get("img_size")
    if size is None:
        return None
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def _known_cost(name: str, args: Mapping[str, Any]) -> Cost:
    found = cost(name, args)
    if found is None:
        spec = model_spec(name)
        raise PasslError(
            f"the size of {name} ({spec.module}.{spec.qualname}) is known only once it is built; "
            "build it with create_model and count its parameters"
        )
    return found


def _arguments(name: str, args: Mapping[str, Any]) -> dict[str, Any]:
    spec = model_spec(name)
    defaults = {param.name: param.default for param in spec.params if not param.required}
    return {**defaults, **check_arguments(spec, args)}


def _vision_transformer(args: Mapping[str, Any]) -> Cost:
    """The parts in the order of ``VisionTransformer.__init__``."""
    size = args["img_size"]
    height, width = (size, size) if isinstance(size, int) else size
    patch, dim, classes = args["patch_size"], args["embed_dim"], args["class_num"]
    patches = (height // patch) * (width // patch)
    tokens = patches + 1
    pixels = args["in_chans"] * patch * patch
    hidden = int(dim * args["mlp_ratio"])
    represented = args["representation_size"]

    linears = dim * 3 * dim + dim * dim + 2 * dim * hidden  # weights of one block
    biases = (3 * dim if args["qkv_bias"] else 0) + dim + hidden + dim
    block = linears + biases + 2 * 2 * dim  # and two normalisations
    # the projection of a patch and its bias, the class token, the positions
    embedding = pixels * dim + dim + dim + tokens * dim
    head = 0
    head_macs = 0
    if represented:
        head += dim * represented + represented
        head_macs += dim * represented
    if classes:
        head += (represented or dim) * classes + classes
        head_macs += (represented or dim) * classes
    attention = 2 * tokens * tokens * dim  # q k' and probabilities times v, all heads
    return Cost(
        parameters=embedding + args["depth"] * block + 2 * dim + head,
        macs=patches * pixels * dim + args["depth"] * (tokens * linears + attention) + head_macs,
    )


_FORMULAS: dict[tuple[str, str], Callable[[Mapping[str, Any]], Cost]] = {
    ("passl.models.vision_transformer", "VisionTransformer"): _vision_transformer,
    ("passl.models.illama", "ILlama"): lambda args: Cost(*illama_cost(args)),
    ("passl.models.vit_llama", "ViTLlama"): lambda args: Cost(*vit_llama_cost(args)),
}
