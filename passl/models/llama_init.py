"""How the weights of the LLaMA families start: as their authors' code, which follows timm's.

======================= =========================================
patch_embed.proj        uniform in +-1 / sqrt(fan_in), bias too
pos_embed               N(0, 0.02)
cls_token               N(0, 1e-6) (ViT-LLaMA), N(0, 0.02) (iLLaMA)
every linear weight     N(0, 0.02), bias 0
normalisations          1, bias 0
======================= =========================================

Source: the released code of both, whose truncated normal is cut at -2 and 2: at 100 standard
deviations, where nothing is.
"""

from __future__ import annotations

import math

from paddle import nn

from passl.layers import init

__all__ = ["initialize_like_timm"]


def initialize_like_timm(
    model: nn.Layer, *, cls_token_std: float, skip: tuple[str, ...] = ()
) -> None:
    """Fill every parameter of ``model`` in place.

    Args:
        model: its linear weights are two-dimensional, its normalisations one-dimensional.
        cls_token_std: width of the distribution of the class token.
        skip: beginnings of the names of parameters that come from elsewhere.
    """
    if not init.init_enabled():
        return
    parameters = dict(model.named_parameters())
    bound = 1.0 / math.sqrt(init.fans(parameters["patch_embed.proj.weight"])[0])
    for name, parameter in parameters.items():
        if name.startswith(skip):
            continue
        rng = init.rng_for(name)
        if name.startswith("patch_embed.proj."):
            init.uniform_(parameter, rng, bound=bound)
        elif name == "cls_token":
            init.normal_(parameter, rng, std=cls_token_std)
        elif name == "pos_embed" or len(parameter.shape) == 2:
            init.normal_(parameter, rng, std=0.02)
