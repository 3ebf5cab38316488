"""Steps whose loss or gradients are not finite: skipped bit for bit, told, and ended if many."""

from __future__ import annotations

import json
import math

import numpy as np
import paddle
import pytest
from small_run import assert_same_arrays, built
from spoiled import Overflow, sample_of_step, spoiled_data

from passl.data.rng import epoch_order
from passl.engine.faults import postmortem
from passl.engine.faults.skipped import SkippedSteps
from passl.engine.hooks.base import Hook
from passl.engine.state import TrainState
from passl.errors import PasslError
from passl.precision.amp import LossScaler, Precision

EMA = "EMA={decay: 0.9}"


class Snapshots(Hook):
    """All that a step may change, after every step."""

    def __init__(self) -> None:
        self.of: dict[int, dict[str, np.ndarray]] = {}

    def on_step_end(self, trainer) -> None:
        parts = trainer.parts
        self.of[trainer.state.step] = {
            **{f"weight/{k}": v.numpy().copy() for k, v in parts.model.named_parameters()},
            **{
                f"optimizer/{k}": v.numpy().copy()
                for k, v in parts.optimizer.state_dict().items()
                if v.shape  # counts are settled when figures are read
            },
            **{f"ema/{k}": v.numpy().copy() for k, v in parts.ema.weights().items()},
        }


@pytest.fixture(params=["cpu", "accelerator"])
def device(request, monkeypatch) -> str:
    """Both ways to decide; an accelerator's is forced on the CPU."""
    if request.param == "accelerator":
        monkeypatch.setattr("passl.optim.clip.on_cpu", lambda: False)
        monkeypatch.setattr("passl.precision.amp.on_cpu", lambda: False)
    return request.param


@pytest.mark.parametrize("optimizer", ["AdamW", "Momentum"])
def test_a_bad_step_leaves_weights_optimizer_and_average_bit_for_bit(
    run_folder, device, optimizer
):
    bad = sample_of_step(3)
    run = built(
        run_folder, *spoiled_data(bad), EMA, f"Optimizer.name={optimizer}",
        "Global.max_train_step=6", "Global.print_batch_step=1", "Global.eval_during_train=false",
    )  # fmt: skip
    seen = Snapshots()
    run.trainer.parts.hooks = [seen]
    state = run.fit()
    assert_same_arrays(seen.of[3], seen.of[2])
    for before, after in ((1, 2), (3, 4)):
        for kind in ("weight/", "optimizer/", "ema/"):
            keys = [k for k in seen.of[after] if k.startswith(kind) and "head" in k]
            assert any((seen.of[before][k] != seen.of[after][k]).any() for k in keys), kind
    assert (state.step, state.skipped_steps, state.bad_steps, state.updates) == (6, 1, 1, 5)
    assert run.trainer.parts.optimizer.num_steps == 5
    assert {entry.num_updates for entry in run.trainer.parts.optimizer._states} == {5}
    assert state.ema == {"updates": 5, "steps": 5}
    assert all(np.isfinite(value).all() for value in seen.of[6].values())


def test_the_schedule_stands_still_at_a_bad_step(run_folder, device):
    bad = sample_of_step(3)
    run = built(
        run_folder, *spoiled_data(bad), "Global.max_train_step=6", "Global.print_batch_step=1"
    )
    run.fit()
    schedule = run.trainer.parts.schedule
    rates = [record["lr"] for record in run_folder.records("train")]
    assert rates == [schedule(update) for update in (0, 1, 1, 2, 3, 4)]


def test_both_ways_to_decide_train_the_same(make_run, monkeypatch):
    weights = []
    for name in ("cpu", "accelerator"):
        folder = make_run(name)
        if name == "accelerator":
            monkeypatch.setattr("passl.precision.amp.on_cpu", lambda: False)
        options = (*spoiled_data(sample_of_step(4)), EMA, "Global.print_batch_step=1")
        assert folder.train(*options, "Global.epochs=2") == 0
        weights.append({**folder.weights(), **folder.optimizer()})
    assert_same_arrays(*weights)


def test_a_bad_batch_is_told_with_step_cause_and_samples(run_folder, device):
    bad = sample_of_step(3)
    assert run_folder.train(*spoiled_data(bad), "Global.epochs=1") == 0
    lines = [line for line in run_folder.log().splitlines() if "was skipped" in line]
    assert len(lines) == 1
    first = int(epoch_order(1438, 2021, 1)[512])
    assert "WARNING" in lines[0]
    assert "step 3 was skipped, the weights are as before it: the loss was nan" in lines[0]
    assert f"its samples here: {first} (sklearn digits train image" in lines[0]
    assert lines[0].endswith(") and 253 more")
    record = run_folder.records("bad_step")[0]
    assert (record["step"], record["epoch"], record["in_row"]) == (3, 1, 1)
    assert record["loss"] is None
    assert record["sample_ids"].split() == [str(i) for i in epoch_order(1438, 2021, 1)[512:768]]
    assert run_folder.records("train")[-1]["bad_steps"] == 1


@pytest.mark.parametrize("limit", [1, 3])
def test_bad_steps_in_a_row_end_the_run_with_a_report(run_folder, device, limit):
    samples = [sample_of_step(step) for step in (2, 4, 5, 6)]
    overrides = (
        *spoiled_data(*samples), f"Global.max_bad_steps={limit}", "Global.print_batch_step=1",
        "Global.save_unit=step", "Global.save_interval=1", "Global.eval_during_train=false",
    )  # fmt: skip
    assert run_folder.train(*overrides) == 1
    first, last = (2, 2) if limit == 1 else (4, 6)
    folder = run_folder.dir / f"nan_step_{first:08d}"
    report = json.loads((folder / "report.json").read_text())
    assert (report["step"], report["epoch"]) == (first, 1)
    assert report["bad_steps"] == list(range(first, last + 1))
    assert report["first_bad_layer"]["phase"] == "input"
    spoiled = [sample for sample in report["samples"] if not sample["finite"]]
    assert [sample["index"] for sample in spoiled] == [samples[0 if limit == 1 else 1]]
    assert spoiled[0]["path"].startswith("sklearn digits train image")
    assert {sample["label"] for sample in report["samples"]} <= set(range(10))
    assert len(report["samples"]) == 256
    assert report["learning_rate"] > 0 or first == 2
    assert report["loss_scale"] is None
    assert [block["name"] for block in report["blocks"][-4:]] == [
        "blocks.0", "blocks.1", "norm", "head",
    ]  # fmt: skip
    assert report["last_checkpoint"].endswith(f"step_{last - 1:08d}")
    text = (folder / "report.txt").read_text()
    assert f"Step {first} (epoch 1) on process 0 of 1: the loss was nan." in text
    assert "<- not finite" in text
    assert f"the report is {folder / 'report.txt'}" in run_folder.log()
    # Weights of the newest checkpoint are those of the last good step.
    before = run_folder.weights()
    assert run_folder.state()["step"] == last - 1
    for block in report["blocks"]:
        parts = [v for k, v in before.items() if f"{k}.".startswith(f"{block['name']}.")]
        wanted = math.sqrt(sum(float(np.square(v.astype(np.float64)).sum()) for v in parts))
        assert block["weights"] == pytest.approx(wanted, rel=1e-6), block["name"]


def test_a_start_after_the_end_fails_at_the_same_step(run_folder):
    """So a supervisor sees the same step and the same checkpoint, and does not try again."""
    samples = [sample_of_step(step) for step in (3, 4, 5)]
    overrides = (
        *spoiled_data(*samples), "Global.max_bad_steps=3", "Global.save_unit=step",
        "Global.save_interval=1",
    )  # fmt: skip
    for _ in range(2):
        assert run_folder.train(*overrides) == 1
        assert run_folder.state()["step"] == 4
        assert run_folder.state()["bad_steps_in_row"] == 2


def test_where_the_step_itself_knows_the_limit_does_not_wait_for_a_log_line(run_folder):
    samples = [sample_of_step(step) for step in (2, 3)]
    run = built(
        run_folder, *spoiled_data(*samples), "Global.max_bad_steps=2", "Global.print_batch_step=100"
    )
    with pytest.raises(PasslError, match="in a row"):
        run.fit()
    assert run.trainer.state.step == 3


def test_without_a_limit_bad_steps_are_skipped_for_ever(run_folder):
    samples = [sample_of_step(step) for step in range(1, 7)]
    options = (*spoiled_data(*samples), "Global.max_bad_steps=null", "Global.epochs=2")
    assert run_folder.train(*options) == 0
    batches = [
        epoch_order(1438, 2021, epoch)[start : start + 256]
        for epoch in (1, 2)
        for start in range(0, 1438, 256)
    ]
    assert run_folder.state()["bad_steps"] == sum(
        bool(set(samples) & set(batch.tolist())) for batch in batches
    )
    assert run_folder.state()["step"] == 12


def test_the_first_bad_layer_is_the_innermost_that_overflows(run_folder):
    run = built(run_folder, "Global.max_bad_steps=2")
    run.trainer.parts.hooks = [Overflow(layer="blocks.1.mlp", step=4)]
    with pytest.raises(PasslError, match=r"First bad layer: blocks\.1\.mlp\.fc2 \(Linear"):
        run.fit()
    report = json.loads((run_folder.dir / "nan_step_00000005" / "report.json").read_text())
    assert report["first_bad_layer"]["phase"] == "forward"
    assert "of a finite input" in report["first_bad_layer"]["what"]
    assert report["processes_with_bad_numbers"] == [0]
    norms = {block["name"]: block for block in report["blocks"]}
    assert math.isfinite(norms["blocks.0"]["activations"])
    assert norms["blocks.1"]["activations"] in ("inf", "nan")


def test_a_gradient_that_goes_wrong_is_found_in_its_layer(run_folder):
    run = built(run_folder, "Global.max_bad_steps=1", "Global.print_batch_step=1")

    class Spoil(Hook):
        def on_start(self, trainer):
            weight = dict(trainer.parameters)["blocks.0.mlp.fc1.weight"]
            weight.register_hook(lambda gradient: gradient * math.inf)

    run.trainer.parts.hooks = [Spoil()]
    with pytest.raises(PasslError, match=r"First bad layer: blocks\.0\.mlp\.fc1"):
        run.fit()
    report = json.loads((run_folder.dir / "nan_step_00000001" / "report.json").read_text())
    assert report["first_bad_layer"]["phase"] == "backward"
    assert report["first_bad_layer"]["what"].endswith("the gradient of its weight is not finite")


def test_a_parameter_that_clipping_leaves_out_is_looked_at_too(run_folder):
    run = built(
        run_folder, "Global.max_bad_steps=1", "Optimizer.grad_clip.no_clip_list=[head.bias]"
    )

    class Spoil(Hook):
        def on_start(self, trainer):
            dict(trainer.parameters)["head.bias"].register_hook(lambda grad: grad * math.inf)

    run.trainer.parts.hooks = [Spoil()]
    with pytest.raises(PasslError, match="the norm of the gradients was nan"):
        run.fit()


def test_overflow_of_fp16_counts_as_bad_only_at_the_floor_of_the_scale(run_folder):
    samples = [sample_of_step(step) for step in range(1, 7)]
    run = built(run_folder, *spoiled_data(*samples), "Global.max_bad_steps=2")
    scaler = LossScaler(init_loss_scaling=4.0, decr_every_n_nan_or_inf=2)
    run.trainer.parts.precision = Precision("O2", "float16", scaler)
    with pytest.raises(PasslError, match=r"2 steps in a row \(the first: step 5\)"):
        run.fit()  # 4 steps shrink the scale to 1, then each is bad
    assert (run.trainer.state.skipped_steps, run.trainer.state.bad_steps) == (6, 2)
    report = json.loads((run_folder.dir / "nan_step_00000005" / "report.json").read_text())
    assert report["loss_scale"] == 1.0


def test_a_report_that_cannot_be_written_does_not_hide_the_reason(run_folder):
    run = built(run_folder, *spoiled_data(sample_of_step(1)), "Global.max_bad_steps=1")
    (run_folder.dir / "nan_step_00000001").write_text("in the way")
    with pytest.raises(PasslError, match=r"the loss was nan.*the report is not written"):
        run.fit()


def test_a_report_of_samples_whose_names_are_no_utf_8_can_be_read(tmp_path, monkeypatch):
    monkeypatch.setattr(postmortem, "_readable", lambda report: report["samples"][0])
    where = postmortem._write(tmp_path, 1, {"samples": ["no utf\udcff.jpg"]})
    assert where.endswith("rank_1.txt")
    report = json.loads((tmp_path / "rank_1.json").read_text(encoding="utf-8"))
    assert report == {"samples": ["no utf\udcff.jpg"]}


# -- the count -------------------------------------------------------------------------------------


def figures(*norms: float) -> list[dict[str, float]]:
    return [{"loss": 2.0, "samples": 2.0, "grad_norm": norm} for norm in norms]


def test_steps_that_the_device_decided_on_are_counted_when_they_are_read():
    state = TrainState()
    skipped = SkippedSteps(state, limit=3)
    for _ in range(5):
        skipped.add(np.arange(2), None, is_overflow=False)
        state.step += 1
    assert (state.updates, state.bad_steps) == (5, 0)
    decided, bad = skipped.learn(figures(1.0, math.nan, 1.0, math.inf, math.nan))
    assert decided == [True, False, True, False, False]
    assert [(each.step, each.in_row) for each in bad] == [(2, 1), (4, 1), (5, 2)]
    assert (state.updates, state.bad_steps, state.bad_steps_in_row) == (2, 3, 2)
    assert [each.step for each in skipped.row] == [4, 5]
    assert not skipped.is_over


def test_an_overflow_neither_ends_nor_lengthens_a_row_of_bad_steps():
    state = TrainState()
    skipped = SkippedSteps(state, limit=None)
    for applied, overflow in ((False, False), (False, True), (False, False), (True, False)):
        skipped.add(np.arange(2), applied, overflow)
        state.step += 1
    _, bad = skipped.learn(figures(math.nan, math.inf, math.nan, 1.0))
    assert [(each.step, each.in_row) for each in bad] == [(1, 1), (3, 2)]
    assert (state.skipped_steps, state.bad_steps, state.bad_steps_in_row) == (3, 2, 0)


def test_a_loss_that_is_not_finite_makes_every_gradient_nan_though_its_derivative_is_finite():
    weight = paddle.to_tensor([2.0, 3.0], stop_gradient=False)
    Precision().backward((weight * 5.0).sum(), 0.25)
    np.testing.assert_array_equal(weight.grad.numpy(), [1.25, 1.25])
    weight.clear_gradient(False)
    Precision().backward((weight * 5.0).sum() + math.inf, 0.25)
    assert np.isnan(weight.grad.numpy()).all()
