"""ResNets of torchvision, and of timm where the names agree: teachers, mostly.

Source: torchvision, ``models/resnet.py``; Paddle's names from ``paddle.vision.models.resnet``.
"""

from __future__ import annotations

from passl.checkpoint.convert.rules import Drop, Family, Rule, linear

__all__ = ["TORCHVISION_RESNET"]

_BLOCK = "layer{s}.{b}"


def _norm(name: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{name}.weight", (f"{name}.weight",)),
        Rule(f"{name}.bias", (f"{name}.bias",)),
        Rule(f"{name}._mean", (f"{name}.running_mean",)),
        Rule(f"{name}._variance", (f"{name}.running_var",)),
    )


TORCHVISION_RESNET = Family(
    name="torchvision_resnet",
    title="ResNet, ResNeXt and Wide ResNet of torchvision",
    rows=(
        Rule("conv1.weight", ("conv1.weight",)),
        *_norm("bn1"),
        Rule(f"{_BLOCK}.conv{{n}}.weight", (f"{_BLOCK}.conv{{n}}.weight",)),
        *_norm(f"{_BLOCK}.bn{{n}}"),
        Rule(f"{_BLOCK}.downsample.0.weight", (f"{_BLOCK}.downsample.0.weight",)),
        *_norm(f"{_BLOCK}.downsample.1"),
        *linear("fc", "fc"),
        Drop("*.num_batches_tracked", "a count that only a cumulative average needs"),
    ),
    pos_embed_method="bicubic",
    source="torchvision, models/resnet.py",
)
