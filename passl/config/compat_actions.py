"""What the rules of :mod:`passl.config.compat` do to a key of a PASSL file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Optional

from passl.config.numeric import NumberError, parse_number
from passl.config.tree import Leaf, ListNode, MapNode, Node, find, plain
from passl.registry import REGISTRIES
from passl.signatures import ComponentSpec

__all__ = [
    "ALL_CHECKPOINTS",
    "Action",
    "Spot",
    "accept",
    "dataset_classes",
    "decay_unit",
    "drop",
    "drop_argument",
    "dynamic_axes",
    "ema_eval",
    "ignore",
    "keep_all",
    "lift",
    "loop",
    "normalize_scale",
    "not_yet",
    "op_sampler",
    "optimizer_lr",
    "optimizer_unit",
    "recompute",
    "refuse_unless",
    "regular_expression",
    "rename",
    "require",
]


#: More checkpoints than a run makes.
ALL_CHECKPOINTS = 1_000_000


@dataclass(frozen=True)
class Spot:
    """A key that a rule matched.

    Attributes:
        tree: the whole config.
        parent: the mapping that holds the key.
        key: the key.
        node: its value.
        path: its dotted path.
        refuse: reports a problem of this key, given a sentence.
    """

    tree: MapNode
    parent: MapNode
    key: str
    node: Node
    path: str
    refuse: Callable[[str], None]

    @property
    def value(self) -> Any:
        """The value as plain data."""
        return plain(self.node)

    def pop(self) -> Node:
        """Remove the key."""
        return self.parent.entries.pop(self.key)


#: Does the work of a rule; returns True if it changed something worth a note.
Action = Callable[[Spot], bool]


def accept(_spot: Spot) -> bool:
    """Nothing to do: the key is read, or kept, as it is."""
    return False


def ignore(*usual: str) -> Action:
    """Keep the key, which nothing reads; a value of somebody's own is told to have no effect."""

    def action(spot: Spot) -> bool:
        return spot.value is not None and spot.value not in usual

    return action


def drop(spot: Spot) -> bool:
    """Remove the key, whatever it says."""
    spot.pop()
    return True


def drop_argument(component: str) -> Action:
    """Remove an argument of ``component``, whatever it says; others keep theirs."""

    def action(spot: Spot) -> bool:
        name = spot.parent.entries.get("name")
        if name is None or plain(name) != component:
            return False
        spot.pop()
        return True

    return action


def refuse_unless(*harmless: Any, message: str) -> Action:
    """Drop the key if its value asks for nothing, else say that it cannot be had."""

    def action(spot: Spot) -> bool:
        if spot.value not in harmless and spot.value is not None:
            spot.refuse(message)
        spot.pop()
        return False

    return action


def require(wanted: Any, message: str) -> Action:
    """The key may only say ``wanted``; a value of another type is left to the type check."""

    def action(spot: Spot) -> bool:
        if isinstance(spot.value, type(wanted)) and spot.value != wanted:
            spot.refuse(message)
            spot.pop()
        return False

    return action


def rename(new: str, kind: str = "") -> Action:
    """Call the key ``new``; an argument only if its component takes that name instead."""

    def action(spot: Spot) -> bool:
        spec = _spec(spot.parent, kind) if kind else None
        if kind and (spec is None or spec.param(spot.key) is not None or spec.param(new) is None):
            return False
        if new in spot.parent.entries:
            spot.refuse(f"{new} says the same; keep one of them")
            spot.pop()
            return False
        spot.parent.entries[new] = spot.pop()
        return True

    return action


def keep_all(spot: Spot) -> bool:
    """PASSL keeps every checkpoint where the number is negative; here that is a large one."""
    if not isinstance(spot.value, int) or spot.value >= 0:
        return False
    spot.parent.entries[spot.key] = Leaf(ALL_CHECKPOINTS, spot.node.origin, spot.node.key_origin)
    return True


def loop(spot: Spot) -> bool:
    """Any loop of PASSL is ours, except those for contrastive learning; others have no effect."""
    if isinstance(spot.value, str) and spot.value.startswith("Contrastive"):
        spot.refuse(
            f"{spot.value} is not available yet in this version; only supervised training is"
        )
        spot.pop()
        return False
    return ignore("ClassificationTrainingEpochLoop", "ClassificationEvaluationLoop")(spot)


def decay_unit(spot: Spot) -> bool:
    """``decay_unit`` -> ``unit`` of the schedule; a schedule that only knows steps ignores it."""
    spec = _spec(spot.parent, "schedules")
    if spec is None or spec.param("decay_unit") is not None or "unit" in spot.parent.entries:
        return False
    unit = spot.pop()
    param = spec.param("unit")
    if param is not None and not param.type.check(plain(unit))[1]:
        spot.parent.entries["unit"] = unit
    elif param is not None and plain(unit) not in ("step", "epoch"):
        spot.parent.entries["unit"] = unit  # wrong in any case: let the check say so
    return True


def optimizer_lr(spot: Spot) -> bool:
    """``Optimizer.lr``: a number, or the schedule itself."""
    if spot.value is None:
        spot.pop()
        return False
    if (
        find(spot.tree, ["LRScheduler"]) is not None
        and plain(spot.tree.entries["LRScheduler"]) is not None
    ):
        spot.refuse("the section LRScheduler says the same; keep one of them")
        spot.pop()
        return False
    node = spot.pop()
    if isinstance(node, Leaf):
        name = Leaf("Constant", node.origin, node.key_origin)
        node = MapNode({"name": name, "learning_rate": node}, node.origin, node.key_origin)
    spot.tree.entries["LRScheduler"] = node
    return True


def optimizer_unit(spot: Spot) -> bool:
    """``Optimizer.lr_decay_unit`` -> the schedule, unless that says it itself."""
    schedule = spot.tree.entries.get("LRScheduler")
    unit = spot.pop()
    if plain(unit) is None or not isinstance(schedule, MapNode):
        return False
    if "decay_unit" not in schedule.entries and "unit" not in schedule.entries:
        schedule.entries["decay_unit"] = unit
    return True


def regular_expression(spot: Spot) -> bool:
    """PASSL matches from the start of a name; here the pattern is searched for."""
    node = spot.node
    if (
        "pattern" in spot.parent.entries
        or not isinstance(node, Leaf)
        or not isinstance(node.value, str)
    ):
        return False
    spot.pop()
    text = node.value if node.value.startswith("^") else f"^(?:{node.value})"
    spot.parent.entries["pattern"] = Leaf(text, node.origin, node.key_origin)
    return True


def lift(new: str) -> Action:
    """Move a key from the dataset to the loader section above it."""

    def action(spot: Spot) -> bool:
        section = find(spot.tree, spot.path.split(".")[:2])
        if spot.value is None:
            spot.pop()
            return False
        if not isinstance(section, MapNode) or new in section.entries:
            spot.refuse(f"{new} of the section above says the same; keep one of them")
            spot.pop()
            return False
        section.entries[new] = spot.pop()
        return True

    return action


def recompute(spot: Spot) -> bool:
    """``DistributedStrategy.recompute: {layerlist_interval: k}`` -> ``Global.recompute: k``."""
    value, node = spot.value, spot.pop()
    if not value:
        return False
    asked = dict(value) if isinstance(value, dict) else {}
    interval = asked.pop("layerlist_interval", 1)
    if asked.pop("names", []) or asked or not isinstance(value, dict):
        spot.refuse("only layerlist_interval is available, as Global.recompute; remove the rest")
        return False
    section = spot.tree.entries.setdefault("Global", MapNode({}, node.origin, node.key_origin))
    if not isinstance(section, MapNode) or "recompute" in section.entries:
        spot.refuse("Global.recompute says the same; keep one of them")
        return False
    section.entries["recompute"] = Leaf(interval, node.origin, node.key_origin)
    return True


def op_sampler(spot: Spot) -> bool:
    """``TransformOpSampler: {Mixup: {...}, Cutmix: {...}}`` -> a list of components called ops."""
    if spot.value != "TransformOpSampler" or "ops" in spot.parent.entries:
        return False
    known = REGISTRIES["batch_transforms"]
    names = [key for key in spot.parent.entries if known.spec(key) is not None]
    items: list[Node] = []
    for name in names:
        child = spot.parent.entries.pop(name)
        items.append(MapNode({name: child}, child.key_origin, child.key_origin))
    if items:
        spot.parent.entries["ops"] = ListNode(items, items[0].origin, items[0].origin)
    return bool(items)


def dataset_classes(spot: Spot) -> bool:
    """``class_num`` of a dataset that does not take it: it may only repeat the model's."""
    spec = _spec(spot.parent, "datasets")
    if spec is None or spec.param("class_num") is not None:
        return False
    model = find(spot.tree, ["Model", "class_num"])
    if model is not None and plain(model) != spot.value:
        spot.refuse(f"{spot.value} contradicts Model.class_num={plain(model)} ({model.origin})")
    spot.pop()
    return True


def normalize_scale(spot: Spot) -> bool:
    """A quoted ``'1.0/255.0'``; without quotes it is a number already."""
    name = spot.parent.entries.get("name")
    node = spot.node
    if (
        name is None
        or plain(name) != "NormalizeImage"
        or not isinstance(node, Leaf)
        or not isinstance(node.value, str)
    ):
        return False
    try:
        number = parse_number(node.value)
    except NumberError as error:
        spot.refuse(str(error))
        return False
    if number is None:
        return False
    spot.parent.entries[spot.key] = Leaf(number, node.origin, node.key_origin)
    return True


def dynamic_axes(spot: Spot) -> bool:
    """``'None'`` in quotes means a free size, as without them."""
    if not isinstance(spot.node, ListNode):
        return False
    changed = False
    for item in spot.node.items:
        if isinstance(item, Leaf) and item.value == "None":
            item.value, changed = None, True
    return changed


def ema_eval(spot: Spot) -> bool:
    """``ema_eval: false`` -> ``eval_start_epoch: null``, also where an epoch is given beside it."""
    if not isinstance(spot.value, bool):
        spot.refuse(f"{spot.value!r} is neither true nor false; write eval_start_epoch instead")
        spot.pop()
        return False
    node = spot.pop()
    if not plain(node):
        spot.parent.entries["eval_start_epoch"] = Leaf(None, node.origin, node.key_origin)
    return True


def not_yet(what: str) -> str:
    """The sentence for a feature of PASSL that does not exist here."""
    return f"{what} is not available yet in this version"


def _spec(component: MapNode, kind: str) -> Optional[ComponentSpec]:
    name = component.entries.get("name")
    return (
        REGISTRIES[kind].spec(name.value)
        if isinstance(name, Leaf) and isinstance(name.value, str)
        else None
    )
