"""Public weights that this package knows how to convert, as a table; nothing is fetched by itself.

Every line names the model here that the file fills, the ImageNet-1k top-1 accuracy that its authors
(or timm, where marked) report in percent, the resolution of that number, and where the file is.
Hashes and lengths are given where a source states them; names such as ``-a1311bcf.pth`` carry the
first digits of their SHA-256.

Source: the READMEs of google-research/vision_transformer, facebookresearch/deit, PASSL's ViT,
techmonsterwang/iLLaMA, ziqipang/LM4VisualEncoding and ViT.pytorch; timm 1.0.31 for the addresses
and accuracies of AugReg and DeiT-III files.
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Optional

from passl.models.known_weights_tables import (
    AUGREG,
    AUGREG_21K,
    DEIT,
    DEIT3,
    DINOV2,
    GOOGLE,
    ILLAMA,
    PASSL,
    VIT_LLAMA,
)

__all__ = ["KNOWN_WEIGHTS", "KnownWeights", "list_weights", "weights_at", "weights_named"]

_GOOGLE = "https://storage.googleapis.com/vit_models"
_META = "https://dl.fbaipublicfiles.com"
_PASSL = "https://plsc.bj.bcebos.com/models/vit/v2.4"
_ILLAMA = "https://huggingface.co/techmonsterwang/iLLaMA/resolve/main"
_GOOGLE_DATA = {
    "imagenet21k": "ImageNet-21k",
    "imagenet21k+imagenet2012": "ImageNet-21k, ImageNet-1k",
    "sam": "ImageNet-1k",
}
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth$")


@dataclass(frozen=True)
class KnownWeights:
    """One file.

    Attributes:
        name: what ``passl-models show`` takes.
        model: the model here that it fills; empty if there is none yet.
        args: arguments of that model that differ from its defaults.
        accuracy: ImageNet-1k top-1 in percent; None if none is reported.
        resolution: side of the images of that number.
        trained_on: data sets, in order.
        url: where the file is; a page where it can be had if it is no file.
        source: whose table the line is from.
        sha256: the hash or its first digits; empty if unknown.
        size: length in bytes, if known.
        note: what else a user must know.
    """

    name: str
    model: str
    accuracy: Optional[float]
    resolution: int
    trained_on: str
    url: str
    source: str
    args: str = ""
    sha256: str = ""
    size: Optional[int] = None
    note: str = ""

    @property
    def file(self) -> str:
        """Name of the file; empty where the address is a page."""
        name = urllib.parse.unquote(urllib.parse.urlsplit(self.url).path.rpartition("/")[2])
        return name if name.endswith((".npz", ".pth", ".pdparams")) else ""


def list_weights(pattern: str = "*") -> list[KnownWeights]:
    """Those whose name, model or file matches shell wildcards, whatever the case."""
    wanted = pattern.lower()
    return [
        weights
        for weights in KNOWN_WEIGHTS
        if any(
            fnmatchcase(text.lower(), wanted)
            for text in (weights.name, weights.model, weights.file)
        )
    ]


def weights_named(name: str) -> Optional[KnownWeights]:
    """The line called ``name``, or whose file is called so; None if there is none."""
    for weights in KNOWN_WEIGHTS:
        if name.lower() in (weights.name.lower(), weights.file.lower()):
            return weights
    return None


def weights_at(url: str) -> Optional[KnownWeights]:
    """The line with this address; None if there is none."""
    wanted = urllib.parse.unquote(url)
    for weights in KNOWN_WEIGHTS:
        if urllib.parse.unquote(weights.url) == wanted:
            return weights
    return None


# -- the tables ------------------------------------------------------------------------------------


def _google() -> list[KnownWeights]:
    lines = []
    for name, model, folder, resolution, accuracy, note in GOOGLE:
        is_21k = folder == "imagenet21k"
        lines.append(KnownWeights(
            name=f"google-{folder}-{name}",
            model=model,
            accuracy=accuracy,
            resolution=resolution,
            trained_on=_GOOGLE_DATA[folder],
            url=f"{_GOOGLE}/{urllib.parse.quote(folder)}/{urllib.parse.quote(name)}.npz",
            source="google-research/vision_transformer",
            args="class_num=21843" if is_21k else "",
            note=note,
        ))
    return lines


def _augreg() -> list[KnownWeights]:
    lines = []
    for stem, adapted, model, resolution, accuracy in AUGREG:
        short = stem.partition("-")[0]
        data = "i1k" if "-i1k-" in stem else "i21k"
        trained_on = "ImageNet-1k" if data == "i1k" else "ImageNet-21k, ImageNet-1k"
        file = f"{stem}--imagenet2012-steps_20k-lr_{adapted}-res_{resolution}.npz"
        lines.append(KnownWeights(
            name=f"augreg-{data}-{short}-{resolution}",
            model=model, accuracy=accuracy, resolution=resolution, trained_on=trained_on,
            url=f"{_GOOGLE}/augreg/{file}",
            source="google-research/vision_transformer (AugReg); accuracy: timm",
        ))
    for stem, model in AUGREG_21K:
        short = stem.partition("-")[0]
        lines.append(KnownWeights(
            name=f"augreg-i21k-{short}", model=model, accuracy=None, resolution=224,
            trained_on="ImageNet-21k", url=f"{_GOOGLE}/augreg/{stem}.npz",
            source="google-research/vision_transformer (AugReg)", args="class_num=21843",
        ))
    return lines


def _deit() -> list[KnownWeights]:
    lines = []
    for file, model, resolution, accuracy in DEIT:
        found = _HASH_IN_NAME.search(file)
        assert found is not None, file
        lines.append(KnownWeights(
            name=file.rpartition(".")[0], model=model, accuracy=accuracy, resolution=resolution,
            trained_on="ImageNet-1k", url=f"{_META}/deit/{file}",
            source="facebookresearch/deit", sha256=found[1],
        ))
    for file, model, resolution, accuracy in DEIT3:
        trained_on = "ImageNet-21k, ImageNet-1k" if "_21k" in file else "ImageNet-1k"
        lines.append(KnownWeights(
            name=file.partition(".")[0], model=model, accuracy=accuracy, resolution=resolution,
            trained_on=trained_on, url=f"{_META}/deit/{file}",
            source="facebookresearch/deit (DeiT-III)",
        ))
    return lines


def _others() -> list[KnownWeights]:
    lines = [
        KnownWeights(
            name=f"passl-{file.rpartition('.')[0]}", model=model, accuracy=accuracy,
            resolution=resolution, trained_on=trained_on,
            url=f"{_PASSL}/{urllib.parse.quote(file)}", source="PASSL, tasks/classification/vit",
            args=args,
        )
        for file, model, resolution, accuracy, trained_on, args in PASSL
    ]
    lines += [
        KnownWeights(
            name=f"{stem}_pretrain", model=model, accuracy=None, resolution=518,
            trained_on="LVD-142M, without labels",
            url=f"{_META}/dinov2/{stem.replace('_reg4', '')}/{stem}_pretrain.pth",
            source="facebookresearch/dinov2", args="class_num=0",
        )
        for stem, model in DINOV2
    ]
    lines += [
        KnownWeights(
            name=name, model=model, accuracy=accuracy, resolution=resolution,
            trained_on=trained_on, url=f"{_ILLAMA}/{name}.pth",
            source="techmonsterwang/iLLaMA",
            note="The links of an older README (mambaout_*) lead to other models.",
        )
        for name, model, resolution, accuracy, trained_on in ILLAMA
    ]
    lines += [
        KnownWeights(
            name=name, model=model, accuracy=accuracy, resolution=224, trained_on="ImageNet-1k",
            url=url, source="ziqipang/LM4VisualEncoding",
            note="The address is a page: fetch the file with a browser." + note,
        )
        for name, model, accuracy, url, note in VIT_LLAMA
    ]
    return lines


#: Every line.
KNOWN_WEIGHTS: tuple[KnownWeights, ...] = (*_google(), *_augreg(), *_deit(), *_others())
