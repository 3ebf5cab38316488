"""Our weights under timm's names in torch's layout: the way back.

The names are timm's already, so what is left is the layout: a Linear weight [in, out] becomes
[out, in], everything else stays.  Which tensors are Linear weights is known by name, not by shape.

Source: timm 1.0.31, state dicts of its vision transformers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import numpy as np

from passl.checkpoint.convert.operations import Shape
from passl.errors import CheckpointError

__all__ = ["TimmArrays", "notes_for_timm", "timm_name"]

_LINEAR = re.compile(
    r"(blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])|pre_logits\.fc|head|head_dist)\.weight"
)
_KEPT = re.compile(
    r"(cls_token|dist_token|reg_token|pos_embed"
    r"|patch_embed\.(proj|backbone\..+)\.(weight|bias)"
    r"|blocks\.\d+\.(ls[12]\.gamma|norm[12]\.(weight|bias)|attn\.[qk]_norm\.(weight|bias)"
    r"|attn\.(qkv|proj)\.bias|mlp\.fc[12]\.bias)"
    r"|(norm|fc_norm|norm_pre)\.(weight|bias)"
    r"|(pre_logits\.fc|head|head_dist)\.bias)"
)


def timm_name(name: str) -> str:
    """timm's name of one of our tensors.

    Raises:
        CheckpointError: timm's vision transformers have no such tensor.
    """
    if not _LINEAR.fullmatch(name) and not _KEPT.fullmatch(name):
        raise CheckpointError(
            f"timm has no tensor like {name}, so these weights cannot be written for it; "
            "--to pdparams can."
        )
    return name


def notes_for_timm(names: Collection[str]) -> list[str]:
    """What timm's models have no place for, though such names were theirs once.

    Source: timm 1.0.31, whose VisionTransformer has no representation layer.
    """
    if "pre_logits.fc.weight" not in names:
        return []
    return [
        "timm's models no longer have a representation layer: they load this file neither strictly "
        "nor to the same logits (its pre_logits.fc and the classifier behind it); passl-convert "
        "reads it back."
    ]


class TimmArrays(Mapping[str, np.ndarray]):
    """Our arrays as timm stores them, made one at a time.

    Args:
        arrays: our name -> array in Paddle's layout.

    Raises:
        CheckpointError: a name that timm's vision transformers do not have.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self._arrays = arrays
        self._ours = {timm_name(name): name for name in arrays}

    def __getitem__(self, name: str) -> np.ndarray:
        array = self._arrays[self._ours[name]]
        return array.T if _LINEAR.fullmatch(name) else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._ours)

    def __len__(self) -> int:
        return len(self._ours)

    def shape(self, name: str, ours: Shape) -> Shape:
        """The shape in torch's layout of a tensor whose shape is ``ours`` in Paddle's."""
        return ours[::-1] if _LINEAR.fullmatch(name) else ours
