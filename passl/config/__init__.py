"""The config engine: YAML files to checked, typed sections that know where every value came from.

    from passl.config import load_config, plan_batches
    config = load_config("configs/ViT_base_patch16_224.yaml", ["Global.device=cpu"], mode="train")
    print(config.to_yaml(origins=True))

Stages, each in its module: read (``yaml_tree``, ``numeric``), ``merge`` bases, ``overrides``,
PASSL's spellings (``compat``), ``check`` against ``schema`` and the components' signatures,
``cross`` for what concerns several values. Nothing here imports Paddle or NumPy.
"""

from __future__ import annotations

from passl.config.batching import BatchPlan, plan_batches
from passl.config.config import Config
from passl.config.cross import require
from passl.config.loader import load_config

__all__ = ["BatchPlan", "Config", "load_config", "plan_batches", "require"]
