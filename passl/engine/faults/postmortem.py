"""What is left of a run whose numbers do not come right: a report of the first bad step.

The step is made once more, on this rank, with the same samples, the same dropout and the same
weights (bad steps change none), while every layer is watched.  Written to the run's folder::

    nan_step_00001234/
      report.txt  report.json     of the main process
      rank_1.txt  rank_1.json     of the others

No checkpoint is written then: those from before are as good as they were, and a start from one
saved in the middle of bad steps would only fail further along.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Optional

import numpy as np
import paddle

from passl.checkpoint.links import follow_link
from passl.distributed.collectives import sum_over_ranks
from passl.engine.compiled import uncompiled
from passl.engine.faults.probe import LayerProbe, block_of
from passl.engine.faults.skipped import BadStep
from passl.errors import PasslError

if TYPE_CHECKING:
    from passl.data.loader import Batch
    from passl.engine.trainer import Trainer

__all__ = ["give_up"]


def give_up(trainer: Trainer) -> NoReturn:
    """Write the report of the bad steps in a row and end the run; every rank takes part.

    Raises:
        PasslError: always: what happened, where the report is, what to do.
    """
    parts, row = trainer.parts, trainer.skipped.row
    parts.saver.abandon()  # what it is still writing is the last checkpoint
    first = row[0]
    report = _report(trainer, first)
    ours = bool(report["first_bad_layer"]) or not math.isfinite(first.loss)
    flags = np.zeros(parts.world.size)
    flags[parts.world.rank] = float(ours)
    report["processes_with_bad_numbers"] = np.flatnonzero(
        sum_over_ranks(flags, parts.world)
    ).tolist()
    folder = parts.reporter.run_dir / f"nan_step_{first.step:08d}"
    where = f"the report is {_write(folder, parts.world.rank, report)}"
    layer = report["first_bad_layer"]
    found = f" First bad layer: {layer['name']} ({layer['what']})." if layer else ""
    count = trainer.state.bad_steps_in_row
    steps = f"{count} steps in a row (the first: step {first.step})"
    raise PasslError(
        f"{steps if count > 1 else f'step {first.step}'} had a loss or gradients that are not "
        f"finite: {first.cause}.{found} What is not finite is skipped, so the weights are those "
        f"from before; {report['last_checkpoint_says']}; {where}. A lower learning rate, a longer "
        "warmup or gradient clipping (Optimizer.grad_clip.clip_norm) usually mends it; "
        "Global.max_bad_steps says after how many in a row a run ends"
    )


# -- looking ---------------------------------------------------------------------------------------


def _report(trainer: Trainer, bad: BadStep) -> dict[str, Any]:
    parts, plan = trainer.parts, trainer.plan
    scaler = parts.precision.scaler
    checkpoint = follow_link(parts.reporter.run_dir / "latest")
    findings = _make_again(trainer, bad)
    return {
        "step": bad.step,
        "epoch": plan.epoch_of(bad.step),
        "rank": parts.world.rank,
        "processes": parts.world.size,
        "cause": bad.cause,
        "loss": bad.loss,
        "grad_norm": bad.grad_norm,
        "bad_steps_in_row": trainer.state.bad_steps_in_row,
        "bad_steps": [each.step for each in trainer.skipped.row],
        "learning_rate": trainer.learning_rate,
        "loss_scale": scaler.scale if scaler is not None else None,
        "precision": parts.precision.describe(),
        "last_checkpoint": str(checkpoint) if checkpoint is not None else None,
        "last_checkpoint_says": (
            f"the newest checkpoint is {checkpoint}"
            if checkpoint is not None
            else "no checkpoint was saved before"
        ),
        **findings,
        "versions": parts.record["versions"],
    }


def _make_again(trainer: Trainer, bad: BadStep) -> dict[str, Any]:
    """Forward and backward pass of the step on this rank, watched."""
    from passl.engine.trainer import step_seed

    parts, plan = trainer.parts, trainer.plan
    empty = {"samples": [{"index": int(index)} for index in bad.indices], "blocks": []}
    first: Optional[dict[str, str]] = None
    parts.optimizer.clear_grad()
    probe = LayerProbe(parts.model)
    step_now, trainer.state.step = trainer.state.step, bad.step - 1
    try:
        for hook in parts.hooks:  # those that set something by the step
            hook.on_step_start(trainer)
        iterator = parts.loader.epoch(
            plan.epoch_of(bad.step), start_batch=(bad.step - 1) % plan.steps_per_epoch
        )
        batch = next(iterator)
        paddle.seed(step_seed(plan.seed, parts.world.rank, bad.step - 1))
        with uncompiled(parts.model), probe:
            losses = _passes(trainer, batch, probe)
        first = _first_bad(trainer, probe, losses)
    except Exception as error:  # the report is worth more than the rest of it
        note = f"the step could not be made again: {type(error).__name__}: {error}"
        return {**empty, "first_bad_layer": None, "note": note}
    finally:
        trainer.state.step = step_now
        parts.loader.close()
    note = "" if first else "made again on this process alone, the step's numbers are finite"
    found = {
        "samples": _samples(batch, parts.loader.dataset, probe.bad_inputs),
        "first_bad_layer": first,
        "note": note,
        "blocks": _blocks(trainer, probe),
    }
    parts.optimizer.clear_grad()
    return found


def _passes(trainer: Trainer, batch: Batch, probe: LayerProbe) -> list[float]:
    """Run the micro-batches; their losses."""
    parts = trainer.parts
    scale = parts.precision.scaler.scale if parts.precision.scaler is not None else 1.0
    seen = []
    for images, target in trainer.micro_batches(batch):
        probe.look_at_input(images)
        loss = parts.forward(images, target)[1]["loss"]
        seen.append(float(loss.item()))
        (loss * (float(target.shape[0]) / batch.global_size * scale)).backward()
        trainer.gradients.keep()
    trainer.gradients.finish()
    return seen


def _first_bad(
    trainer: Trainer, probe: LayerProbe, losses: list[float]
) -> Optional[dict[str, str]]:
    """Where the numbers went wrong first, in the order of the computation."""
    for name, parameter in trainer.parts.model.named_parameters():
        if not _all_finite(parameter):
            return {"name": name, "phase": "weights", "what": "the weight itself is not finite"}
    if probe.bad_inputs:
        return {
            "name": "images",
            "phase": "input",
            "what": f"the pixels of {len(probe.bad_inputs)} samples are not finite",
        }
    if probe.first_bad_forward is not None:
        return {**probe.first_bad_forward, "phase": "forward"}
    if not all(map(math.isfinite, losses)):
        return {
            "name": "loss",
            "phase": "forward",
            "what": "all layers are finite, the loss is not",
        }
    bad = {
        name
        for name, parameter in trainer.parameters
        if parameter.grad is not None and not _all_finite(parameter.grad)
    }
    found = probe.first_bad_backward(bad)
    return None if found is None else {**found, "phase": "backward"}


def _samples(batch: Batch, dataset: Any, bad: set[int]) -> list[dict[str, Any]]:
    return [
        {
            "index": int(index),
            "path": dataset.path_of(int(index)),
            "label": np.asarray(label).tolist(),
            "finite": position not in bad,
        }
        for position, (index, label) in enumerate(zip(batch.indices, batch.labels))
    ]


def _blocks(trainer: Trainer, probe: LayerProbe) -> list[dict[str, Any]]:
    """L2 norms of the weights, the gradients and the output of each block."""
    blocks: dict[str, dict[str, Any]] = {}
    for name, parameter in trainer.parts.model.named_parameters():
        entry = blocks.setdefault(block_of(name), {"weights": 0.0, "gradients": 0.0})
        entry["weights"] += _squares(parameter)
        if parameter.grad is not None:
            entry["gradients"] += _squares(parameter.grad)
    return [
        {
            "name": name,
            "weights": math.sqrt(entry["weights"]),
            "gradients": math.sqrt(entry["gradients"]),
            "activations": probe.output_norm(name),
        }
        for name, entry in blocks.items()
    ]


def _squares(tensor: paddle.Tensor) -> float:
    return float(np.square(tensor.detach().astype("float32").numpy().astype(np.float64)).sum())


def _all_finite(tensor: paddle.Tensor) -> bool:
    return bool(paddle.isfinite(tensor.detach()).all().item())


# -- writing ---------------------------------------------------------------------------------------


def _write(folder: Path, rank: int, report: Mapping[str, Any]) -> str:
    """Write both files; where they are, or why they are not."""
    name = "report" if rank == 0 else f"rank_{rank}"
    text = json.dumps(_plain(report), ensure_ascii=False, indent=2, allow_nan=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Names of files may have bytes that are no UTF-8; escaped they are JSON as well.
        for ending, content in (("json", text + "\n"), ("txt", _readable(report))):
            (folder / f"{name}.{ending}").write_text(
                content, encoding="utf-8", errors="backslashreplace"
            )
    except OSError as error:
        return f"not written ({error.strerror})"
    return str(folder / f"{name}.txt")


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become ``"nan"`` and ``"inf"``."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _readable(report: Mapping[str, Any]) -> str:
    layer = report["first_bad_layer"]
    scale = f", loss scale {report['loss_scale']:g}" if report["loss_scale"] is not None else ""
    found = f"{layer['name']}, {layer['phase']}: {layer['what']}" if layer else "none"
    lines = [
        f"Step {report['step']} (epoch {report['epoch']}) on process {report['rank']} of "
        f"{report['processes']}: {report['cause']}.",
        f"Bad steps in a row: {report['bad_steps_in_row']} ({_listed(report['bad_steps'])}).",
        "Processes with bad numbers of their own: "
        f"{_listed(report['processes_with_bad_numbers']) or 'none found'}.",
        f"Learning rate {report['learning_rate']:g}{scale}, {report['precision']}.",
        f"First bad layer: {found}.",
        *filter(None, [report["note"]]),
        f"The weights are those from before; {report['last_checkpoint_says']}.",
        "",
        f"{'block':32s} {'weights':>12s} {'gradients':>12s} {'activations':>12s}   (L2 norms)",
        *(
            f"{block['name']:32s} {block['weights']:12.5g} {block['gradients']:12.5g} "
            f"{block['activations']:12.5g}"
            for block in report["blocks"]
        ),
        "",
        f"{len(report['samples'])} samples of this process:",
        *(_sample_line(sample) for sample in report["samples"]),
    ]
    return "\n".join(lines) + "\n"


def _sample_line(sample: Mapping[str, Any]) -> str:
    mark = "" if sample.get("finite", True) else "   <- not finite"
    label = sample.get("label")
    shown = "" if label is None or isinstance(label, list) else f"   label {label}"
    return f"  {sample['index']}   {sample.get('path', '')}{shown}{mark}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))
