"""What a sweep says while it runs, and when it is stopped."""

from __future__ import annotations

import io

import pytest
from swept import swept

from passl.logs.progress import ProgressBar
from passl.sweep.progress import Progress

LR = "LRScheduler.learning_rate"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("done", "[1/3] done learning_rate=1, best 0.5000, 0:01:01; eta 0:02:00"),
        ("failed", "[1/3] FAILED learning_rate=1 after 0:01:01: no memory"),
        ("stopped", "[1/3] stopped learning_rate=1 after 0:01:01; its state is saved"),
    ],
)
def test_the_time_to_the_end_is_said_where_there_is_one_to_come(tmp_path, state, words):
    """A third of the sweep took a minute; after a stop nothing more is run."""
    now, said = [0.0], []
    records = [swept(tmp_path, {LR: n}, (0.5,), state="new") for n in (1, 2, 3)]
    for record in records:
        (record.run_dir / "metrics.jsonl").write_text("")
    bar = ProgressBar(io.StringIO(), is_on=False)
    progress = Progress(records, said.append, bar, clock=lambda: now[0])
    first, now[0] = records[0], 60.0
    line = '{"kind": "eval", "step": 10, "epoch": 1, "best": 0.5}\n'
    (first.run_dir / "metrics.jsonl").write_text(line)
    first.state, first.error = state, "no memory"
    progress.ended(first)
    assert said[0].startswith(words)
    assert ("eta 0:02:00" in said[0]) == (state != "stopped")
