"""A convolution with batch normalisation, for runs that import it."""

from __future__ import annotations

import numpy as np
from paddle import nn

from passl.registry import MODELS


@MODELS.register()
class SmallConvolution(nn.Layer):
    """Images [b, 1, 8, 8] to logits.

    Args:
        class_num: classes.
    """

    def __init__(self, *, class_num: int = 10) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2D(1, 8, 3, padding=1), nn.BatchNorm2D(8), nn.ReLU(), nn.Flatten()
        )
        self.head = nn.Linear(8 * 64, class_num)
        rng = np.random.default_rng(0)  # Paddle's initialisers begin elsewhere in every process
        for parameter in (self.body[0].weight, self.head.weight):
            parameter.set_value(rng.normal(0, 0.1, parameter.shape).astype(np.float32))

    def forward(self, images):
        """Classify."""
        return self.head(self.body(images))
