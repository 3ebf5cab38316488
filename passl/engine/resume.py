"""Continuing a run: which state to start from, whether it fits, and putting it in place."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import paddle

import passl
from passl.checkpoint.files import read_arrays
from passl.checkpoint.pretrained import load_pretrained
from passl.checkpoint.resolve import EMA_NAME, resolve_checkpoint
from passl.checkpoint.store import CheckpointStore
from passl.config import Config
from passl.distributed.collectives import all_ranks_have
from passl.distributed.world import World
from passl.engine.hooks.base import hooks_by_name
from passl.engine.model_facts import check_external
from passl.engine.plan import RunPlan
from passl.engine.reporting import Reporter
from passl.engine.state import TrainState
from passl.errors import CheckpointError

if TYPE_CHECKING:
    from passl.engine.trainer import TrainParts

__all__ = ["check_agreement", "find_state", "read_state", "restore", "run_record"]


def find_state(config: Config, store: CheckpointStore, reporter: Reporter) -> Optional[Path]:
    """The verified folder of the state that ``Global.checkpoint`` asks for; None to start anew.

    Raises:
        CheckpointError: the checkpoint that is named is damaged.
    """
    wanted = config.Global.checkpoint
    if wanted == "auto":
        folder = store.latest()
        for skipped in store.skipped:
            reporter.warn(f"checkpoint passed over: {skipped.reason}")
        return folder
    if wanted is None:
        return None
    folder = resolve_checkpoint(wanted).folder
    assert folder is not None  # build_run found a training state there
    store.verify(folder)
    return folder


def restore(
    parts: TrainParts, plan: RunPlan, folder: Path, config: Config, reporter: Reporter
) -> TrainState:
    """Put weights, optimizer state and counters of a checkpoint folder in place.

    Raises:
        CheckpointError: they do not fit this run.
    """
    record = read_state(folder)
    state = TrainState.from_dict(record["state"], str(folder))
    check_continuable(record, plan, folder, config)
    check_external(parts.model, record, folder)
    load_pretrained(parts.model, str(folder), finetune=False)
    parts.optimizer.load_state_dict(read_arrays(folder / "optimizer.pdopt"))
    parts.precision.load_state_dict(state.scaler)
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
    record: Mapping[str, Any], plan: RunPlan, folder: Path, config: Config
) -> None:
    """Refuse to continue with another model or with steps that mean other samples.

    Raises:
        CheckpointError: naming what differs.
    """
    before, now = record["config"], config.to_dict()
    model_keys = sorted({*before["Model"], *now["Model"]})
    different = [
        f"{name} was {was!r} and is {now_is!r}"
        for name, was, now_is in (
            *(
                (f"Model.{key}", before["Model"].get(key), now["Model"].get(key))
                for key in model_keys
                # dropout changes no shape, and what a path leads to is compared by its SHA-256
                if not key.endswith(("_rate", "_path"))
            ),
            ("Optimizer.name", before["Optimizer"]["name"], now["Optimizer"]["name"]),
            (
                "the global batch size",
                record["plan"]["global_batch_size"],
                plan.global_batch_size,
            ),
            ("steps per epoch", record["plan"]["steps_per_epoch"], plan.steps_per_epoch),
            ("Global.seed", record["plan"]["seed"], plan.seed),
        )
        if was != now_is
    ]
    if different:
        raise CheckpointError(
            f"{folder} cannot be continued with this config: {'; '.join(different)}. Set them "
            "back, or start a new run in another folder with -o Global.output_dir=PATH "
            f"(Global.pretrained_model={folder} starts it from these weights)"
        )


def read_state(folder: Path) -> dict[str, Any]:
    """The ``state.json`` of a verified checkpoint folder.

    Raises:
        CheckpointError: it is missing or unreadable.
    """
    path = folder / "state.json"
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not {"state", "config", "plan"} <= set(record):
            raise ValueError("it is not the record of a training run")
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path}: cannot be read ({error}); to start a new run from these weights without the "
            f"training state, use -o Global.output_dir=PATH Global.pretrained_model={folder}"
        ) from error
    return dict(record)


def run_record(config: Config, plan: RunPlan) -> dict[str, Any]:
    """What a checkpoint remembers of its run beside the state: config, lengths, versions."""
    return {
        "config": config.to_dict(),
        "plan": {
            "seed": plan.seed,
            "global_batch_size": plan.global_batch_size,
            "steps_per_epoch": plan.steps_per_epoch,
        },
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """Versions of what can change a number."""
    return {
        "passl": passl.__version__,
        "paddle": paddle.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
