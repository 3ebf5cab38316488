"""Runs of a sweep as they look when they have ended, without having been trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Optional

from passl.sweep.records import Record


def swept(
    folder: Path,
    values: dict[str, Any],
    scores: tuple[float, ...] = (),
    *,
    state: str = "done",
    error: str = "",
    loss: Optional[float] = 2.0,
) -> Record:
    """A run with these values, and one evaluation an epoch."""
    name = ",".join(f"{key.rpartition('.')[2]}={value}" for key, value in values.items())
    record = Record(
        name=name,
        values={key: str(value) for key, value in values.items()},
        data=values,
        config_file="config.yaml",
        overrides=[*(f"{key}={value}" for key, value in values.items()), "Global.output_dir=x/y"],
        config={"Global": {"epochs": max(1, len(scores))}, "Model": {"name": "Model"}},
        state=state,  # type: ignore[arg-type]
        error=error,
        seconds=61.0,
        starts=1,
        folder=folder / name,
    )
    record.run_dir.mkdir(parents=True)
    lines: list[dict[str, Any]] = []
    for epoch, score in enumerate(scores, 1):
        lines.append({"kind": "train", "step": 10 * epoch, "epoch": epoch, "loss": loss})
        lines.append({
            "kind": "eval", "step": 10 * epoch, "epoch": epoch, "CELoss": 1 - score,
            "loss": 1 - score, "top1": score, "top5": 1.0, "metric": score, "best": score,
        })
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (record.run_dir / "metrics.jsonl").write_text(text)
    record.write()
    return record
