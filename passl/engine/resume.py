"""Continuing a run: which state to start from, whether it fits, and putting it in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np

from passl.checkpoint.files import read_arrays
from passl.checkpoint.links import follow_link
from passl.checkpoint.manifest import Manifest
from passl.checkpoint.pretrained import load_pretrained
from passl.checkpoint.resolve import BEST_EMA, EMA_NAME, WEIGHTS_NAME, resolve_checkpoint
from passl.checkpoint.store import CheckpointStore
from passl.config import Config
from passl.distributed.collectives import all_ranks_have, sum_integers
from passl.distributed.world import World
from passl.engine.changes import Change, config_changes, is_allowed, model_changes
from passl.engine.hooks.base import hooks_by_name
from passl.engine.model_facts import check_external
from passl.engine.plan import RunPlan
from passl.engine.reports.reporting import Reporter
from passl.engine.run_record import read_state
from passl.engine.state import TrainState
from passl.engine.teachers.teacher import check_teacher
from passl.errors import CheckpointError
from passl.precision.amp import Precision

if TYPE_CHECKING:
    from passl.engine.train_parts import TrainParts

__all__ = ["check_agreement", "find_state", "restore"]


def find_state(
    config: Config, store: CheckpointStore, reporter: Reporter, world: World
) -> Optional[Path]:
    """The verified folder of the state that ``Global.checkpoint`` asks for; None to start anew.

    Raises:
        CheckpointError: the checkpoint that is named is damaged, or all that are there.
    """
    wanted = config.Global.checkpoint
    if wanted == "auto":
        folder = _newest_that_any_rank_sees(store.latest(), store, world)
        for skipped in store.skipped:
            reporter.warn(f"checkpoint passed over: {skipped.reason}")
        if folder is None and store.skipped:
            raise CheckpointError(
                f"there are checkpoints in {store.folder}, but none that can be continued: "
                f"{store.skipped[0].reason} A run that began anew here would replace them in time. "
                "Choose another folder with -o Global.output_dir=PATH (Global.pretrained_model="
                f"{store.skipped[0].path}/{WEIGHTS_NAME} starts from these weights if they are "
                "whole), or remove the checkpoints"
            )
        return folder
    if wanted is None:
        return None
    folder = resolve_checkpoint(wanted).folder
    assert folder is not None  # build_run found a training state there
    store.verify(folder)
    _warn_of_the_way_left(folder, store, reporter)
    return folder


def _newest_that_any_rank_sees(
    folder: Optional[Path], store: CheckpointStore, world: World
) -> Optional[Path]:
    """``folder``, or a newer one that another rank has found and that is there by its name.

    A network disk shows a machine the list of a folder as it was up to a minute ago, which is where
    a job that is started again at once would fail: its ranks would not begin at the same step.
    """
    if not world.is_distributed:
        return folder
    found = np.zeros([world.size, 2], dtype=np.int64)
    if folder is not None:
        manifest = Manifest.read(folder)
        found[world.rank] = manifest.sequence, manifest.step
    found = sum_integers(found, world)
    sequence, step = found[found[:, 0].argmax()].tolist()
    if sequence == found[world.rank, 0]:
        return folder
    newer = store.folder / f"step_{step:08d}"
    try:
        return newer if store.verify(newer).sequence == sequence else folder
    except CheckpointError:  # each machine has a folder of its own: check_agreement tells of it
        return folder


def _warn_of_the_way_left(folder: Path, store: CheckpointStore, reporter: Reporter) -> None:
    """Say that going back within a folder costs the checkpoints that came after, best or not."""
    if folder.parent != store.folder.resolve():
        return
    best = follow_link(store.run_dir / "best")
    later = sorted(path.name for path in folder.parent.glob("step_*") if path.name > folder.name)
    if later:
        is_best = " (best leads to one of them)" if best and best.name in later else ""
        reporter.warn(
            f"the run goes back to {folder.name}: {', '.join(later)}{is_best} came after it, and "
            "will be replaced or removed as it goes on; copy what is to stay, or go on in another "
            "folder with -o Global.output_dir=PATH"
        )


def restore(
    parts: TrainParts, plan: RunPlan, folder: Path, config: Config, reporter: Reporter
) -> TrainState:
    """Put weights, optimizer state and counters of a checkpoint folder in place.

    Raises:
        CheckpointError: they do not fit this run.
    """
    record = read_state(folder)
    state = TrainState.from_dict(record["state"], str(folder))
    changes = config_changes(record["config"], config)
    check_continuable(record, parts.record, changes, folder, config)
    _tell_of_changes(record["plan"], parts.record["plan"], changes, config, reporter)
    _tell_of_versions(record.get("versions"), parts.record["versions"], reporter)
    check_external(parts.model, record, folder)
    check_teacher(parts.record, record, folder)
    load_pretrained(parts.model, str(folder), finetune=False)
    if any(change.key == "Optimizer.name" for change in changes):
        reporter.warn("the optimizer is another one: it begins anew, without its former state")
    else:
        parts.optimizer.load_state_dict(read_arrays(folder / "optimizer.pdopt"))
    if not forget_best_of_another_criterion(parts, state, reporter):
        parts.saver.scores.update(_scores_of_links(parts.store.run_dir))
    parts.precision.load_state_dict(state.scaler)
    _tell_of_precision(record.get("precision"), parts.precision, bool(state.scaler), reporter)
    restore_average(parts, state, folder, reporter)
    hooks = hooks_by_name(parts.hooks)
    for name, hook_state in state.hooks.items():
        if name in hooks:
            hooks[name].load_state_dict(hook_state)
        elif hook_state:
            reporter.log(f"the checkpoint holds the state of a hook {name}, which is not here now")
    if state.total_steps != plan.total_steps:
        reporter.log(
            f"the run is now {plan.total_steps} steps long (it was {state.total_steps}): the "
            "learning-rate schedule is planned anew from this step on"
        )
    if state.step >= plan.last_step:
        reporter.log(
            f"nothing is left to train: the checkpoint is at step {state.step}, the run ends "
            f"at step {plan.last_step}; train longer with a larger Global.epochs"
        )
    reporter.resumed(folder, state, plan)
    return state


def restore_average(parts: TrainParts, state: TrainState, folder: Path, reporter: Reporter) -> None:
    """Put the averaged weights in place, or begin the average where the run had none.

    Raises:
        CheckpointError: they do not fit the model.
    """
    if parts.ema is None:
        if state.ema:
            reporter.log(f"the averaged weights of {folder} are not used: there is no section EMA")
    elif state.ema:
        file = folder / EMA_NAME
        parts.ema.load(read_arrays(file), state.ema, str(file))
    else:
        parts.ema.restart()
        reporter.log(f"EMA: {folder} holds no averaged weights; the average begins here")


def forget_best_of_another_criterion(
    parts: TrainParts, state: TrainState, reporter: Reporter
) -> bool:
    """Forget the best evaluations where the first metric is another one than before; told if so.

    A top-1 accuracy would never beat a top-5 one, and ``best`` would stay where it is for ever.
    """
    last = state.last_eval
    name = next(iter(parts.evaluator.metric_names), None) if parts.evaluator is not None else None
    if name is None or state.best is None or "metric" not in last:
        return False
    before, now = last["metric"], last.get(name)
    if before == now or (now is not None and now != now and before != before):
        return False
    reporter.warn(
        f"evaluations are judged by {name} now and were by another metric: the best of before "
        f"({state.best.metric:.5f} at step {state.best.step}) is forgotten, and best leads to the "
        "checkpoint of the next evaluation"
    )
    state.best = state.best_ema = None
    return True


def check_agreement(state: TrainState, world: World, run_dir: Path) -> None:
    """Refuse to start when the processes found different states.

    Raises:
        CheckpointError: on every rank, with the step of this one.
    """
    if not all_ranks_have(state.step, world):
        raise CheckpointError(
            f"the processes do not start from the same step; this one (rank {world.rank}) would "
            f"start from step {state.step} of {run_dir}. Global.output_dir must be one folder that "
            "all machines see; to start from the weights of one checkpoint everywhere, name it "
            "with -o Global.checkpoint=PATH"
        )


def check_continuable(
    record: Mapping[str, Any],
    mine: Mapping[str, Any],
    changes: Sequence[Change],
    folder: Path,
    config: Config,
) -> None:
    """Refuse to continue with another model or with steps that mean other samples.

    Args:
        record: the checkpoint's.
        mine: what :func:`run_record` says of this run.
        changes: what differs between the two configs.
        folder: of the checkpoint.
        config: of this run; ``Global.allow_config_change`` names what may differ all the same.

    Raises:
        CheckpointError: naming what differs and what would allow it.
    """
    before, now = record["plan"], mine["plan"]
    refused = [*model_changes(changes)]
    refused += [change for change in changes if change.key == "Optimizer.name"]
    refused += [
        Change(key, before[name], now[name], what)
        for name, (key, what) in _PLAN_KEYS.items()
        # What one of the two does not know cannot be compared.
        if None not in (before.get(name), now[name]) and before[name] != now[name]
    ]
    patterns = config.Global.allow_config_change
    refused = [change for change in refused if not is_allowed(change.key, patterns)]
    if before.get("steps_per_epoch") != now["steps_per_epoch"]:
        lengths = before.get("steps_per_epoch"), now["steps_per_epoch"]
        refused.append(Change("steps per epoch", *lengths))
    if not refused:
        return
    keys = [change.key for change in refused if "." in change.key]
    named = ",".join(dict.fromkeys(keys))
    allow = f", allow the change with -o Global.allow_config_change=[{named}]"
    raise CheckpointError(
        f"{folder} cannot be continued with this config: {'; '.join(map(str, refused))}. Set them "
        f"back{_batch_hint(before, now)}{allow if len(keys) == len(refused) else ''}, or start a "
        "new run in another folder with -o Global.output_dir=PATH "
        f"(Global.pretrained_model={folder} starts it from these weights)"
    )


#: Lengths that decide which samples a step trains on -> the key that a user knows them by, and what
#: they are, where that is another thing: ``drop_last`` and the batch change the samples as well.
_PLAN_KEYS = {
    "global_batch_size": ("Global.global_batch_size", ""),
    "num_samples": ("DataLoader.Train.dataset", "number of samples in an epoch"),
    "labels": ("DataLoader.Train.dataset", "digest of the samples' labels"),
    "classes": ("DataLoader.Train.dataset", "digest of the names of the classes"),
    "seed": ("Global.seed", ""),
}
#: The most lines about changed keys.
_MAX_CHANGES = 40


def _batch_hint(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What keeps the batch when only the number of processes changed."""
    was, size = before.get("num_processes"), before.get("global_batch_size")
    if was in (None, now["num_processes"]) or size == now["global_batch_size"]:
        return ""
    return (
        f" (the run had {was} processes and has {now['num_processes']} now: "
        f"-o Global.global_batch_size={size} keeps its batch)"
    )


def _tell_of_changes(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    changes: Sequence[Change],
    config: Config,
    reporter: Reporter,
) -> None:
    """One line for every key that differs, and what another number of processes means."""
    for change in changes[:_MAX_CHANGES]:
        reporter.log(f"changed since the checkpoint: {change} ({config.origin(change.key)})")
    if len(changes) > _MAX_CHANGES:
        reporter.log(f"changed since the checkpoint: {len(changes) - _MAX_CHANGES} more keys")
    was = before.get("num_processes", now["num_processes"])
    if was != now["num_processes"]:
        reporter.log(
            f"the run had {was} process{'es' * (was != 1)} and has {now['num_processes']} now: it "
            "goes on at the same sample with the same global batch; sums are made in another "
            "order, so losses and weights agree to rounding, not bit for bit, and dropout and drop "
            "path, where there are any, draw other masks"
        )


def _tell_of_versions(before: Any, now: Mapping[str, str], reporter: Reporter) -> None:
    """One line where other software goes on: what it computes may differ, which nobody sees."""
    if not isinstance(before, Mapping):
        return
    others = [
        f"{name} {before[name]} and is {now[name]} now"
        for name in now
        if name in before and before[name] != now[name]
    ]
    if others:
        reporter.log(
            f"changed since the checkpoint: it was made with {', '.join(others)}; the state is "
            "taken over bit for bit, and what follows is computed as the versions now do"
        )


def _tell_of_precision(
    before: Optional[Mapping[str, str]], now: Precision, had_scale: bool, reporter: Reporter
) -> None:
    """One line where the run goes on at another level; nothing is lost, but numbers differ."""
    if before is None or before == now.record():
        return
    was = "fp32" if before["level"] == "O0" else f"{before['level']} {before['dtype']}"
    scale = ""
    if now.scaler is not None and not had_scale:
        scale = f"; the loss scale starts at {now.scaler.scale:g}"
    elif now.scaler is None and had_scale:
        scale = "; its loss scale is not used"
    reporter.log(
        f"the run was {was} and goes on in {now.describe().partition(',')[0]}: weights and "
        f"optimizer state are float32 in a checkpoint and are taken over bit for bit{scale}"
    )


def _scores_of_links(run_dir: Path) -> dict[str, float]:
    """The values of the evaluations for which ``best`` and ``best_ema`` lead where they lead."""
    scores: dict[str, float] = {}
    best = _state_behind(run_dir / "best")
    measured_here = best is not None and best.last_eval.get("step") == float(best.step)
    if best is not None and measured_here and "metric" in best.last_eval:
        scores["best"] = best.last_eval["metric"]
    averaged = _state_behind(run_dir / BEST_EMA)
    if averaged is not None and averaged.best_ema and averaged.best_ema.step == averaged.step:
        scores[BEST_EMA] = averaged.best_ema.metric
    return scores


def _state_behind(link: Path) -> Optional[TrainState]:
    """The state in the checkpoint that a link leads to; None if it is damaged or not there."""
    target = follow_link(link)
    if target is None:
        return None
    try:
        return TrainState.from_dict(read_state(target)["state"], str(target))
    except CheckpointError:  # the next evaluation is better than that
        return None
