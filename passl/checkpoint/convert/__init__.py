"""Weights of other origins become ours, and ours become timm's.

Each origin is a table (:mod:`~passl.checkpoint.convert.families`): source name, target name,
operation.  Every tensor of the file is used or listed as dropped with the reason; every tensor of
the model is filled or the conversion fails.

    with open_source("ViT-B_16.npz") as source:
        conversion = convert_source(source)
        write_arrays("vit.pdparams", conversion.arrays)
"""

from __future__ import annotations

from passl.checkpoint.convert.conversion import Conversion, convert_source, recognise
from passl.checkpoint.convert.families import FAMILIES

__all__ = ["FAMILIES", "Conversion", "convert_source", "recognise"]
