"""PASSL's spellings, read as ours; what cannot be read is refused with a sentence.

Each row of :data:`RULES` is one key of PASSL's files, what becomes of it here, and why.  The table
in docs/passl_compatibility.md is :func:`table_markdown`; a test keeps the two equal.  What a row
changes in a config is told in ``config.notes``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Callable, Optional

from passl.config.compat_actions import (
    Action,
    Spot,
    accept,
    dataset_classes,
    decay_unit,
    drop,
    drop_argument,
    dynamic_axes,
    ema_eval,
    ignore,
    keep_all,
    lift,
    loop,
    normalize_scale,
    not_yet,
    op_sampler,
    optimizer_lr,
    optimizer_unit,
    recompute,
    refuse_unless,
    regular_expression,
    rename,
    require,
)
from passl.config.tree import ListNode, MapNode, Node, as_component

__all__ = ["NOT_AVAILABLE", "RULES", "Rule", "apply_compatibility", "table_markdown"]

#: Components of PASSL without a counterpart here yet; looked up only if no registry has the name.
NOT_AVAILABLE = frozenset(
    {
        "mAP",
        "FewShotDataset",
        "SwAVMultiCropDataset",
        "SimCLRGaussianBlur",
        "BYOLSolarize",
        "RandomApply",
        "TwoViewsTransform",
        "RandomResizedCropWithTwoImages",
        "MAERandCropImage",
    }
)

Report = Callable[..., None]


@dataclass(frozen=True)
class Rule:
    """One row of the table.

    Attributes:
        path: PASSL's key; ``*`` stands for any one name or number.
        here: what becomes of it.
        why: the reason.
        action: changes the tree.
    """

    path: str
    here: str
    why: str
    action: Action


def apply_compatibility(tree: MapNode, report: Report, notes: list[str]) -> None:
    """Rewrite PASSL's spellings in ``tree``, in place.

    Args:
        tree: the merged config with its overrides.
        report: ``report(path, message, origin)`` adds a problem.
        notes: what was changed, one sentence each.
    """
    _normalise_lists(tree)
    for rule in RULES:
        for parent, key, path in list(_matches(tree, rule.path.split("."), "")):
            node = parent.entries[key]
            origin = node.key_origin or node.origin

            def refuse(message: str, path: str = path, origin: str = origin) -> None:
                report(path, message, origin)

            if rule.action(Spot(tree, parent, key, node, path, refuse)):
                notes.append(f"{origin}: {path}: {rule.here}; {rule.why}")


def table_markdown() -> str:
    """The rules as a Markdown table."""
    rows = ["| in PASSL | here | why |", "|---|---|---|"]
    rows += [f"| `{rule.path}` | {rule.here} | {rule.why} |" for rule in RULES]
    return "\n".join(rows) + "\n"


_MASTER = "master weights and optimizer state are always float32 here"

#: The table. Order matters only where one row feeds another (``lr`` before ``decay_unit``).
RULES: tuple[Rule, ...] = (
    Rule("Global.task_type", "accepted and ignored", "nothing reads it in PASSL either", accept),
    Rule(
        "Global.train_loop",
        "accepted and ignored",
        "there is one training loop; contrastive ones are refused",
        loop,
    ),
    Rule("Global.validate_loop", "accepted and ignored", "there is one evaluation loop", loop),
    Rule("Global.use_dali", "dropped", "PASSL has no DALI loader either", drop),
    Rule("Global.distributed", "dropped", "the launcher's environment decides", drop),
    Rule("Global.rank", "dropped", "the launcher's environment decides", drop),
    Rule("Global.world_size", "dropped", "the launcher's environment decides", drop),
    Rule(
        "Global.max_num_latest_checkpoint",
        "a negative number is read as 1000000",
        "PASSL keeps all of them then",
        keep_all,
    ),
    Rule(
        "Global.flags",
        "accepted",
        "set before the first operation; those of GPUs only where Paddle has them",
        accept,
    ),
    Rule("profiler_options", "dropped", "PASSL never reads it", drop),
    Rule("FP16: null", "no mixed precision", "PASSL stops with an assertion", accept),
    Rule(
        "FP16.GradScaler.no_unscale_list",
        "dropped if empty, else refused",
        "every gradient is unscaled",
        refuse_unless([], message=not_yet("no_unscale_list")),
    ),
    Rule(
        "DistributedStrategy.data_parallel",
        "must be true",
        "as in PASSL",
        require(True, "only data parallel training is available; write true"),
    ),
    Rule(
        "DistributedStrategy.data_sharding",
        "must be false",
        "as in PASSL",
        require(
            False,
            "PASSL's own switch, which it refuses as well; write false, and "
            "DistributedStrategy.sharding: {stage: 1} to keep the optimizer's state in parts",
        ),
    ),
    Rule(
        "DistributedStrategy.recompute",
        "layerlist_interval is read as Global.recompute; names is refused",
        "PASSL ignores it on a single device",
        recompute,
    ),
    Rule("EMA.thres_steps", "read as warmup", "the same formula", rename("warmup")),
    Rule(
        "EMA.ema_eval",
        "true is dropped, false is eval_start_epoch: null",
        "the average is evaluated unless the config says otherwise",
        ema_eval,
    ),
    Rule(
        "Model.norm_layer",
        "dropped if it is nn.LayerNorm, else refused",
        "the norm is always nn.LayerNorm",
        refuse_unless("nn.LayerNorm", message="only nn.LayerNorm is available; remove the key"),
    ),
    Rule(
        "Loss.*.*.weight", "accepted", "the factor of one term; 1.0 where it is not written", accept
    ),
    Rule(
        "Optimizer.lr",
        "read as the section LRScheduler",
        "a number becomes the schedule Constant, a mapping is the schedule",
        optimizer_lr,
    ),
    Rule(
        "Optimizer.lr_decay_unit",
        "read as LRScheduler.decay_unit",
        "if the schedule does not say it itself",
        optimizer_unit,
    ),
    Rule(
        "LRScheduler.decay_unit",
        "read as LRScheduler.unit",
        "schedules that only know steps ignore it, as in PASSL",
        decay_unit,
    ),
    Rule("LRScheduler.epochs", "dropped", "the engine gives the length of the run", drop),
    Rule("LRScheduler.step_each_epoch", "dropped", "the engine gives the length of an epoch", drop),
    Rule(
        "Optimizer.epsilon",
        "read as Optimizer.eps",
        "PASSL ignored this key of AdamW and ran with 1e-8",
        rename("eps", "optimizers"),
    ),
    Rule("Optimizer.use_master_param", "dropped", _MASTER, drop),
    Rule("Optimizer.exp_avg_force_fp32", "dropped", _MASTER, drop),
    Rule("Optimizer.tensor_fusion", "dropped", "the updates need no fused buffers", drop),
    Rule(
        "Optimizer.warmup_init",
        "dropped if false, else refused",
        "the rate of Adafactor comes from LRScheduler",
        refuse_unless(False, message="the rate comes from LRScheduler; write its warm-up there"),
    ),
    Rule(
        "Optimizer.is_vanilla",
        "dropped if false, else refused",
        "there is one form of Adan",
        refuse_unless(False, message="there is one form of Adan; remove the key"),
    ),
    Rule(
        "Optimizer.layer_decay",
        "accepted",
        "here it takes effect; PASSL accepts it and does nothing",
        accept,
    ),
    Rule(
        "Optimizer.param_group_fn",
        "dropped if empty, else refused",
        "no model of PASSL defines it",
        refuse_unless({}, message=not_yet("param_group_fn")),
    ),
    Rule(
        "Optimizer.param_groups.*.regular_exp",
        "read as pattern",
        "anchored at the start of the name, as PASSL's re.match is",
        regular_expression,
    ),
    Rule(
        "Optimizer.param_groups.*.lr",
        "refused",
        "write lr_scale, a factor on the common schedule",
        refuse_unless(
            message="a group has no schedule of its own; write lr_scale, a factor on the common one"
        ),
    ),
    Rule(
        "Optimizer.grad_clip.name",
        "accepted",
        "ClipGradByGlobalNorm is the only one; its norm is over all groups",
        accept,
    ),
    Rule(
        "DataLoader.*.dataset.batch_transform",
        "read as batch_transform beside dataset",
        "it works on batches, not on samples",
        lift("batch_transform"),
    ),
    Rule(
        "DataLoader.*.dataset.batch_transform_ops",
        "read as batch_transform beside dataset",
        "it works on batches, not on samples",
        lift("batch_transform"),
    ),
    Rule(
        "DataLoader.*.batch_transform_ops",
        "read as batch_transform",
        "another name of the same",
        rename("batch_transform"),
    ),
    Rule(
        "DataLoader.*.batch_transform.*.name",
        "the transforms below TransformOpSampler are its list ops",
        "an argument has one name, whatever is in it",
        op_sampler,
    ),
    Rule(
        "DataLoader.*.dataset.transform",
        "read as transform_ops",
        "one name for all data sets",
        rename("transform_ops", "datasets"),
    ),
    Rule(
        "DataLoader.*.dataset.target_transform",
        "dropped if null, else refused",
        "labels are class numbers",
        refuse_unless(message=not_yet("target_transform")),
    ),
    Rule(
        "DataLoader.*.dataset.loader",
        "dropped if null, else refused",
        "DecodeImage reads the file",
        refuse_unless(message=not_yet("a loader function") + "; images are read by DecodeImage"),
    ),
    Rule(
        "DataLoader.*.dataset.class_num",
        "dropped where the data set does not take it",
        "it only repeats Model.class_num",
        dataset_classes,
    ),
    Rule(
        "DataLoader.*.dataset.transform_ops.*.scale",
        "a quoted '1.0/255.0' of NormalizeImage is the number",
        "PASSL evaluates the text",
        normalize_scale,
    ),
    Rule(
        "DataLoader.*.dataset.transform_ops.*.img_size",
        "dropped from TimmAutoAugment",
        "no policy shifts by a number of pixels",
        drop_argument("TimmAutoAugment"),
    ),
    *(
        Rule(
            f"DataLoader.*.dataset.transform_ops.*.{old}",
            f"read as {new} of RandomErasing",
            "a name that says what it is",
            rename(new, "transforms"),
        )
        for old, new in (
            ("EPSILON", "prob"),
            ("sl", "min_area"),
            ("sh", "max_area"),
            ("r1", "min_aspect"),
            ("attempt", "attempts"),
        )
    ),
    Rule(
        "DataLoader.*.sampler.name",
        "BatchSampler is DistributedBatchSampler",
        "one sampler serves any number of processes",
        accept,
    ),
    Rule(
        "DataLoader.*.loader.use_shared_memory",
        "accepted and ignored",
        "nothing here needs /dev/shm",
        accept,
    ),
    Rule(
        "DataLoader.*.loader.collate_fn",
        "accepted and ignored",
        "there is one way to stack samples",
        ignore("default_collate_fn"),
    ),
    Rule("Export.input_shape", "'None' in quotes is null", "a size that is free", dynamic_axes),
)


# -- finding -----------------------------------------------------------------------------------

_COMPONENT_LISTS = (
    "Loss.*",
    "Metric.*",
    "Hooks",
    "DataLoader.*.batch_transform",
    "DataLoader.*.batch_transform_ops",
    "DataLoader.*.dataset.transform",
    "DataLoader.*.dataset.transform_ops",
    "DataLoader.*.dataset.batch_transform",
    "DataLoader.*.dataset.batch_transform_ops",
)


def _normalise_lists(tree: MapNode) -> None:
    """``- X: {a: 1}`` -> ``- {name: X, a: 1}`` in the lists that hold components."""
    for pattern in _COMPONENT_LISTS:
        for parent, key, _ in list(_matches(tree, pattern.split("."), "")):
            node = parent.entries[key]
            if isinstance(node, ListNode):
                node.items = [as_component(item) or item for item in node.items]


def _matches(
    node: Optional[Node], segments: list[str], path: str
) -> Iterator[tuple[MapNode, str, str]]:
    """``(mapping, key, full path)`` of every key that the pattern fits."""
    head, rest = segments[0], segments[1:]
    if isinstance(node, ListNode) and head == "*" and rest:
        for position, item in enumerate(node.items):
            yield from _matches(item, rest, f"{path}.{position}")
    if not isinstance(node, MapNode):
        return
    for key, child in node.entries.items():
        if head in ("*", key):
            full = f"{path}.{key}" if path else key
            if rest:
                yield from _matches(child, rest, full)
            else:
                yield node, key, full
