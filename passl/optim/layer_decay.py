"""Layer-wise learning-rate decay: the nearer a layer is to the image, the slower it learns.

Pretrained layers near the image are general and those near the classes are not, so fine-tuning
lets the rate fall by a factor for each layer from the head down.  The model says how deep each
parameter is (``model.layer_ids()``); here the depths are checked, turned into factors and shown.
A parameter that slips into the wrong layer trains with a wrong rate and nothing else tells.

Source: Clark et al. 2020, ELECTRA (arXiv 2003.10555), section 3.1; Bao et al. 2022, BEiT (arXiv
    2106.08254), appendix; factors as timm's ``param_groups_layer_decay``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from passl.errors import ConfigError
from passl.optim.groups import NamedParameter, align_table

__all__ = ["LayerScales", "layer_scales"]


class LayerScales(dict[str, float]):
    """Parameter name -> factor on the learning rate; ``str()`` is the table for the log.

    Args:
        ids: parameter name -> depth, 0 the nearest to the image.
        decay: factor between one depth and the next.
        sizes: parameter name -> number of scalars.
    """

    def __init__(self, ids: Mapping[str, int], decay: float, sizes: Mapping[str, int]) -> None:
        top = max(ids.values())
        super().__init__({name: decay ** (top - depth) for name, depth in ids.items()})
        self.ids, self.decay, self.sizes = dict(ids), decay, dict(sizes)

    def __str__(self) -> str:
        rows = [("layer", "lr x", "tensors", "parameters", "for example")]
        for depth in range(max(self.ids.values()) + 1):
            names = [name for name, layer in self.ids.items() if layer == depth]
            rows.append(
                (
                    str(depth),
                    f"{self[names[0]]:.4g}",
                    f"{len(names):,}",
                    f"{sum(self.sizes[name] for name in names):,}",
                    ", ".join(names[:2]) + (", ..." if len(names) > 2 else ""),
                )
            )
        return f"layer decay {self.decay:g}:\n" + align_table(rows)


def layer_scales(model: Any, decay: float) -> LayerScales:
    """The factor of every parameter: ``decay ** (deepest - depth)``.

    Args:
        model: has ``layer_ids()``: parameter name -> depth, 0 for embeddings, the highest for the
            head.
        decay: inside (0, 1]; 1 changes nothing.

    Raises:
        ConfigError: the model has no depths, a parameter has none, a depth has no parameter, or a
            name is no parameter of the model.  All at once.
    """
    if not hasattr(model, "layer_ids"):
        raise ConfigError(
            f"Optimizer.layer_decay: {type(model).__name__} does not say which layer a parameter "
            "belongs to; remove the key, or give the model a method layer_ids() that returns "
            "{parameter name: depth}"
        )
    ids: dict[str, int] = model.layer_ids()
    sizes = {name: int(param.size) for name, param in model.named_parameters()}
    problems = _check(ids, model.named_parameters())
    if problems:
        raise ConfigError([f"Optimizer.layer_decay: {problem}" for problem in problems])
    return LayerScales({name: ids[name] for name in sizes}, decay, sizes)


def _check(ids: Mapping[str, int], parameters: Iterable[NamedParameter]) -> list[str]:
    names = [name for name, _ in parameters]
    problems = [f"the parameter {name} belongs to no layer" for name in names if name not in ids]
    problems += [f"{name} has a layer, but is no parameter" for name in ids if name not in names]
    wrong = {name: depth for name, depth in ids.items() if not isinstance(depth, int) or depth < 0}
    problems += [f"the layer of {name} is {depth!r}" for name, depth in wrong.items()]
    if problems or not ids:
        return problems or ["the model has no parameters"]
    empty = set(range(max(ids.values()))) - set(ids.values())
    return [f"layer {depth} has no parameter; layers must count 0, 1, 2, ..." for depth in empty]
