"""How the weights of a vision transformer start: three schemes, each a table of rules.

======================= ====================== ======================== ==========================
parameter               passl                  google                   timm
======================= ====================== ======================== ==========================
patch_embed.proj.weight N(0, sqrt(2 / fan_in)) lecun normal             uniform 1 / sqrt(fan_in)
patch_embed.proj.bias   0                      0                        uniform 1 / sqrt(fan_in)
pos_embed               N(0, 0.02)             N(0, 0.02)               N(0, 0.02)
cls_token               0                      0                        N(0, 1e-6)
attn.qkv.weight         xavier as one matrix   xavier for q, k, v each  N(0, 0.02)
attn.proj.weight        xavier                 xavier                   N(0, 0.02)
mlp weights             xavier                 xavier                   N(0, 0.02)
mlp biases              N(0, 1e-6)             N(0, 1e-6)               0
pre_logits.fc.weight    xavier                 lecun normal             N(0, 0.02)
head.weight             xavier behind a        0                        N(0, 0.02)
                        representation layer,
                        else 0
head.bias               -10 or 0, likewise     0                        0
reg_token               0                      0                        N(0, 1e-6)
dist_token              N(0, 0.02)             N(0, 0.02)               N(0, 0.02)
head_dist               as head                as head                  as head
backbone convolutions   N(0, sqrt(2 / fan_in)) lecun normal             N(0, sqrt(2 / fan_out))
======================= ====================== ======================== ==========================

Normalisations start at weight 1 and bias 0, but the last one of each bottleneck (``norm3``) at 0,
so that a backbone starts as its shortcuts; ``ls1`` and ``ls2`` start at ``init_values``, other
biases at 0.

Source: PASSL's and Google's vision transformers (its ``models_resnet`` for the backbone) and timm's
``init_weights_vit_timm`` and ``resnetv2``; DeiT for ``dist_token``, which neither PASSL (whose
distilled models cannot be built) nor Google has.  ``docs/models.md`` says what follows from the
differences.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import partial
from typing import Callable, Optional

import numpy as np
import paddle
from paddle import nn

from passl.layers import init

__all__ = ["initialize"]

# (pattern of whole parameter names, initializer or None to leave it as it was created); the first
# match counts, and a parameter that no rule matches is an error.
Rules = list[tuple[str, Optional[init.Initializer]]]


def initialize(model: nn.Layer, scheme: str, head_bias: Optional[float] = None) -> None:
    """Fill every parameter of ``model``, in place, by the rules of ``scheme``.

    Args:
        model: a vision transformer whose parameters are named as timm names them.
        scheme: ``passl``, ``google`` or ``timm``.
        head_bias: the initial value of ``head.bias``; None is the scheme's own.

    Raises:
        KeyError: the scheme is unknown, or no rule is for a parameter.
    """
    if not init.init_enabled():
        return
    parameters = dict(model.named_parameters())
    rules = _SCHEMES[scheme](parameters)
    if head_bias is not None:
        rules.insert(0, (r"(head|head_dist)\.bias", _constant(head_bias)))
    for name, parameter in parameters.items():
        rule = _rule_for(name, rules)
        if rule is not None:
            rule(parameter, init.rng_for(name))


def _rule_for(name: str, rules: Rules) -> Optional[init.Initializer]:
    for pattern, rule in rules:
        if re.fullmatch(pattern, name):
            return rule
    raise KeyError(f"no initialisation rule for the parameter {name!r}")


def _passl(parameters: Mapping[str, paddle.Tensor]) -> Rules:
    rules: Rules = [
        *_COMMON,
        (r"patch_embed\.proj\.weight|patch_embed\.backbone\..*conv\d?\.weight", _he_normal),
        (r"pos_embed", partial(init.normal_, std=0.02)),
        (r".*\.attn\.(qkv|proj)\.weight", init.xavier_uniform_),
        (r".*\.mlp\.fc[12]\.weight", init.xavier_uniform_),
        (r".*\.mlp\.fc[12]\.bias", partial(init.normal_, std=1e-6)),
    ]
    if "pre_logits.fc.weight" in parameters:
        # with -10 everywhere a sigmoid loss starts at the prior "no class is there"
        rules += [
            (r"(pre_logits\.fc|head)\.weight", init.xavier_uniform_),
            (r"head\.bias", _constant(-10.0)),
        ]
    return rules + _AS_CREATED


def _google(parameters: Mapping[str, paddle.Tensor]) -> Rules:  # noqa: ARG001
    lecun = r"patch_embed\.proj\.weight|pre_logits\.fc\.weight|patch_embed\..*conv\d?\.weight"
    return [
        *_COMMON,
        (lecun, init.lecun_normal_),
        (r"pos_embed", partial(init.normal_, std=0.02)),
        (r".*\.attn\.qkv\.weight", partial(init.xavier_uniform_, parts=3)),
        (r".*\.attn\.proj\.weight", init.xavier_uniform_),
        (r".*\.mlp\.fc[12]\.weight", init.xavier_uniform_),
        (r".*\.mlp\.fc[12]\.bias", partial(init.normal_, std=1e-6)),
        *_AS_CREATED,
    ]


def _timm(parameters: Mapping[str, paddle.Tensor]) -> Rules:
    bound = 1.0 / math.sqrt(init.fans(parameters["patch_embed.proj.weight"])[0])
    linear = r"(.*\.)?(qkv|proj|fc|fc1|fc2|head|head_dist)\.weight"
    return [
        *_COMMON,
        (r"patch_embed\.backbone\..*conv\d?\.weight", _he_normal_fan_out),
        (r"patch_embed\.proj\.(weight|bias)", partial(init.uniform_, bound=bound)),
        (r"cls_token|reg_token", partial(init.normal_, std=1e-6)),
        (rf"pos_embed|{linear}", partial(init.normal_, std=0.02)),
        *_AS_CREATED,
    ]


def _constant(value: float) -> init.Initializer:
    return lambda tensor, rng: init.constant_(tensor, value)  # noqa: ARG005


def _he_normal(tensor: paddle.Tensor, rng: np.random.Generator) -> None:
    """Paddle's default for convolutions, which PASSL left in place."""
    init.normal_(tensor, rng, std=math.sqrt(2.0 / init.fans(tensor)[0]))


def _he_normal_fan_out(tensor: paddle.Tensor, rng: np.random.Generator) -> None:
    init.normal_(tensor, rng, std=math.sqrt(2.0 / init.fans(tensor)[1]))


# What the schemes share, before their own rules.
_COMMON: Rules = [
    (r"dist_token", partial(init.normal_, std=0.02)),
    (r"patch_embed\.backbone\..*\.norm3\.weight", _constant(0.0)),
]
# And after them, what stays as it was created: zeros, ones for the weight of a normalisation, and
# the scales of the branches.
_AS_CREATED: Rules = [
    (r"cls_token|reg_token|(head|head_dist)\.weight", None),
    (r"(.*\.)?(norm[123]?|norm_pre|fc_norm|q_norm|k_norm)\.weight", None),
    (r".*\.ls[12]\.gamma|.*\.bias", None),
]
_SCHEMES: dict[str, Callable[[Mapping[str, paddle.Tensor]], Rules]] = {
    "passl": _passl,
    "google": _google,
    "timm": _timm,
}
