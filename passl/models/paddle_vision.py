"""Convolutional networks of ``paddle.vision.models`` as models of a config: teachers, mostly.

They are Paddle's own classes, so their parameters are named as in Paddle's files of weights
(``conv1.weight``, ``bn1._mean``, ``fc.weight``), and such a file is read like any other.  Nothing
is downloaded.  Initial weights are drawn by this package, from the model's seed.

Running averages of batch normalisations are part of the weights.  Each process keeps its own while
it trains, and the first one's are saved.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from paddle import nn

from passl.layers.init import constant_, fans, init_enabled, normal_, rng_for
from passl.registry import MODELS, Range

__all__ = ["paddle_vision_model"]

#: How the parameters of the classifier are named, by the beginning of the architecture's name.
_HEADS = {
    "densenet": "out.",
    "mobilenet_v2": "classifier.1.",
    "mobilenet_v3": "classifier.3.",
    "shufflenet": "_fc.",
    "squeezenet": "_conv9.",
    "vgg": "classifier.6.",
}


@MODELS.register("PaddleVisionModel")
def paddle_vision_model(
    arch: Literal[
        "densenet121",
        "mobilenet_v2",
        "mobilenet_v3_large",
        "resnet101",
        "resnet152",
        "resnet18",
        "resnet34",
        "resnet50",
        "resnext50_32x4d",
        "shufflenet_v2_x1_0",
        "squeezenet1_1",
        "vgg16",
        "wide_resnet50_2",
    ] = "resnet50",
    class_num: Annotated[int, Range(min=1)] = 1000,
) -> nn.Layer:
    """Images [b, 3, height, width] float32 of any size -> logits [b, class_num].

    Args:
        arch: the function of ``paddle.vision.models`` that makes it.
        class_num: number of classes.

    Source: He et al. 2015 for the initial convolutions (normal, variance 2 / fan_out).
    """
    from paddle.vision import models

    network = getattr(models, arch)(pretrained=False, num_classes=class_num)
    heads = [head for begin, head in _HEADS.items() if arch.startswith(begin)]
    network.head_prefixes = (*heads, "fc.")[:1]
    if init_enabled():
        _initialize(network)
    return network


def _initialize(network: nn.Layer) -> None:
    for name, parameter in network.named_parameters():
        if len(parameter.shape) == 4:
            normal_(parameter, rng_for(name), std=math.sqrt(2.0 / fans(parameter)[1]))
        elif len(parameter.shape) == 2:
            normal_(parameter, rng_for(name), std=0.01)
        else:
            is_one = parameter.stop_gradient and name.endswith("_variance")
            is_scale = name.endswith("weight") and not parameter.stop_gradient
            constant_(parameter, 1.0 if is_one or is_scale else 0.0)


MODELS.variant(
    "ResNet18", paddle_vision_model, arch="resnet18", aliases=("paddle:resnet18",)
)
MODELS.variant(
    "ResNet34", paddle_vision_model, arch="resnet34", aliases=("paddle:resnet34",)
)
MODELS.variant(
    "ResNet50", paddle_vision_model, arch="resnet50", aliases=("paddle:resnet50",)
)
MODELS.variant(
    "ResNet101", paddle_vision_model, arch="resnet101", aliases=("paddle:resnet101",)
)
MODELS.variant(
    "ResNet152", paddle_vision_model, arch="resnet152", aliases=("paddle:resnet152",)
)
MODELS.variant(
    "WideResNet50_2", paddle_vision_model, arch="wide_resnet50_2",
    aliases=("paddle:wide_resnet50_2",),
)
MODELS.variant(
    "ResNeXt50_32x4d", paddle_vision_model, arch="resnext50_32x4d",
    aliases=("paddle:resnext50_32x4d",),
)
MODELS.variant(
    "MobileNetV2", paddle_vision_model, arch="mobilenet_v2", aliases=("paddle:mobilenet_v2",)
)
MODELS.variant(
    "MobileNetV3_large", paddle_vision_model, arch="mobilenet_v3_large",
    aliases=("paddle:mobilenet_v3_large",),
)
MODELS.variant(
    "SqueezeNet1_1", paddle_vision_model, arch="squeezenet1_1", aliases=("paddle:squeezenet1_1",)
)
MODELS.variant(
    "ShuffleNetV2_x1_0", paddle_vision_model, arch="shufflenet_v2_x1_0",
    aliases=("paddle:shufflenet_v2_x1_0",),
)
MODELS.variant("VGG16", paddle_vision_model, arch="vgg16", aliases=("paddle:vgg16",))
MODELS.variant(
    "DenseNet121", paddle_vision_model, arch="densenet121", aliases=("paddle:densenet121",)
)
