"""PASSL: train vision transformers on PaddlePaddle from one YAML file.

    import passl
    model = passl.create_model("ViT_base_patch16_224", class_num=10, img_size=96)
    config = passl.load_config("configs/quickstart/ViT_micro_digits.yaml")
    passl.build_run(config, mode="train").fit()
    passl.load_model("output/quickstart/VisionTransformer").predict("digit.png")

The names above are looked up when they are first used: ``import passl`` costs a few milliseconds
and does not import Paddle.
"""

from __future__ import annotations

# Paddle 2.6 exports its own copy of zlib's symbols: a zlib that Python loads after Paddle binds to
# them and crashes at the first decompression. Loaded before Paddle it keeps its own.
import zlib  # noqa: F401  isort: skip

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from passl.checkpoint.pretrained import load_pretrained
    from passl.config import load_config
    from passl.engine.build import build_run
    from passl.export.loading import load_model
    from passl.models import create_model, list_models

__all__ = [
    "__version__",
    "build_run",
    "create_model",
    "list_models",
    "load_config",
    "load_model",
    "load_pretrained",
]

__version__ = "3.0.0"

_HOMES = {
    "build_run": "passl.engine.build",
    "create_model": "passl.models",
    "list_models": "passl.models",
    "load_config": "passl.config",
    "load_model": "passl.export.loading",
    "load_pretrained": "passl.checkpoint.pretrained",
}


if not TYPE_CHECKING:  # a type checker would take every name for one of ours

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'passl' has no attribute {name!r}")
        value = getattr(importlib.import_module(home), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
