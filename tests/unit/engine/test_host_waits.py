"""Between log lines the loop never reads from the device: each read would wait for it."""

from __future__ import annotations

from collections import Counter

import paddle
import pytest

import passl
from passl.engine.hooks.base import Hook
from passl.precision.amp import LossScaler, Precision

READS = ("numpy", "item", "tolist", "__array__", "__float__", "__int__", "__bool__", "__index__")
LOGGED_STEPS = (1, 21, 41)  # of 45 steps an epoch


class StepReads(Hook):
    """Counts the reads of each step: from the end of the step before to its own end."""

    def __init__(self, reads: Counter) -> None:
        self.reads, self.of_step, self.before = reads, {}, 0

    def on_step_end(self, trainer):
        total = sum(self.reads.values())
        self.of_step[trainer.state.step] = total - self.before
        self.before = total


@pytest.fixture
def reads(monkeypatch) -> Counter:
    """How often each way of reading a tensor was taken."""
    counts: Counter = Counter()

    def counted(name, original):
        def read(tensor, *arguments, **keywords):
            counts[name] += 1
            return original(tensor, *arguments, **keywords)

        return read

    for name in READS:
        original = getattr(paddle.Tensor, name)
        monkeypatch.setattr(paddle.Tensor, name, counted(name, original))
    # Clipping and the decision on the step read the norm where that is free, on a CPU; here they
    # shall do as on a GPU.
    monkeypatch.setattr("passl.optim.clip.on_cpu", lambda: False)
    monkeypatch.setattr("passl.precision.amp.on_cpu", lambda: False)
    return counts


def built(run_folder, reads, *overrides):
    options = (
        "Global.max_train_step=44",
        "Global.print_batch_step=20",
        "Global.eval_during_train=false",
        "DataLoader.Train.sampler.batch_size=32",
        *overrides,
    )
    run = passl.build_run(passl.load_config(run_folder.config_file, list(options)))
    counter = StepReads(reads)
    run.trainer.parts.hooks = [counter]
    return run, counter


@pytest.mark.parametrize(
    "overrides",
    [(), ("Global.accum_steps=4",), ("EMA={decay: 0.99}",), ("Global.use_visualdl=true",)],
    ids=["whole", "accumulated", "averaged", "shown"],
)
def test_no_step_reads_from_the_device_and_a_log_line_reads_once(run_folder, reads, overrides):
    run, counter = built(run_folder, reads, *overrides)
    run.fit()
    # What the log line of a step reads is counted with the next step.
    wanted = {step: int(step - 1 in LOGGED_STEPS) for step in range(1, 45)}
    assert {step: count for step, count in counter.of_step.items() if step > 1} == {
        step: count for step, count in wanted.items() if step > 1
    }


def test_fp16_asks_once_a_step_whether_the_gradients_are_finite(run_folder, reads):
    run, counter = built(run_folder, reads)
    run.trainer.parts.precision = Precision("O2", "float16", LossScaler())
    run.fit()
    assert counter.of_step[10] == 1
    assert reads["item"] == 44
