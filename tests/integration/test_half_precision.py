"""Runs at O2, with the casts forced on the CPU (tests/helpers/forced_amp.py)."""

from __future__ import annotations

import signal

import numpy as np
import paddle
import pytest
from forced_amp import forced_amp  # noqa: F401  a fixture
from small_run import RunFolder, assert_same_arrays, built
from spoiled import sample_of_step, spoiled_data
from started import ends_of_starts

import passl
from passl.checkpoint.files import read_arrays
from passl.checkpoint.resolve import EMA_NAME
from passl.cli import eval as eval_command
from passl.engine.hooks.base import Hook
from passl.errors import PasslError
from passl.optim.base import Optimizer

pytestmark = pytest.mark.usefixtures("forced_amp")

FP16 = ("FP16.level=O2", "FP16.dtype=float16", "FP16.GradScaler.init_loss_scaling=65536")
BF16 = ("FP16.level=O2", "FP16.dtype=bfloat16")
EMA = "EMA={decay: 0.9}"
BOTH = pytest.mark.parametrize("level", [FP16, BF16], ids=["float16", "bfloat16"])


def whole_state(folder: RunFolder) -> dict[str, np.ndarray]:
    average = folder.dir / "latest" / EMA_NAME
    return {
        **folder.weights(),
        **folder.optimizer(),
        **({f"ema/{k}": v for k, v in read_arrays(average).items()} if average.exists() else {}),
    }


def half_names(model) -> set[str]:
    return {n for n, p in model.named_parameters() if p.dtype != paddle.float32}


class AllBits(Hook):
    """All that a step may change, after every step: half weights as bits, masters, average."""

    def __init__(self) -> None:
        self.of: dict[int, dict[str, np.ndarray]] = {}

    def on_step_end(self, trainer) -> None:
        parts = trainer.parts
        self.of[trainer.state.step] = {
            **{f"half/{n}": p.numpy().copy() for n, p in parts.model.named_parameters()},
            **{f"master/{n}": p.numpy().copy() for n, p in parts.half.masters.items()},
            **{
                f"optimizer/{k}": v.numpy().copy()
                for k, v in parts.optimizer.state_dict().items()
                if v.shape
            },
            **{f"ema/{k}": v.numpy().copy() for k, v in parts.ema.averages().items()},
        }


# -- what is saved ---------------------------------------------------------------------------------


@BOTH
def test_weights_are_half_and_what_is_saved_is_float32_of_the_masters(run_folder, level):
    run = built(run_folder, *level, EMA, "Global.epochs=2")
    run.fit()
    half = half_names(run.model)
    assert {"head.weight", "pos_embed", "blocks.0.attn.qkv.weight"} <= half
    assert not {name for name in half if "norm" in name}
    saved = run_folder.weights()
    masters = run.trainer.parts.half.masters
    assert half == masters.keys()
    assert {str(value.dtype) for value in saved.values()} == {"float32"}
    for name, master in masters.items():
        np.testing.assert_array_equal(saved[name], master.numpy())
        parameter = dict(run.model.named_parameters())[name]
        assert bool((master.astype(parameter.dtype) == parameter).all())
    assert any((v != v.astype(np.float16).astype(np.float32)).any() for v in saved.values())
    assert not [key for key in run_folder.optimizer() if key.endswith("/master")]
    averages = read_arrays(run_folder.dir / "latest" / EMA_NAME)
    assert averages.keys() == saved.keys()
    assert {str(value.dtype) for value in averages.values()} == {"float32"}
    assert any((averages[name] != saved[name]).any() for name in saved)


def test_the_average_is_of_the_masters(run_folder):
    """With steps too small to move a half weight, the average of the masters moves."""
    run = built(
        run_folder, *BF16, "EMA={decay: 0.9, warmup: false}", "Global.max_train_step=3",
        "LRScheduler={name: Constant, learning_rate: 1.0e-7}", "Optimizer.weight_decay=0",
        "Global.eval_during_train=false", "Optimizer.grad_clip=null",
    )  # fmt: skip
    seen = AllBits()
    start = {n: p.numpy().copy() for n, p in run.trainer.parts.half.masters.items()}
    run.trainer.parts.hooks = [seen]
    run.fit()
    name = "pos_embed"
    assert (seen.of[1][f"half/{name}"] == seen.of[3][f"half/{name}"]).mean() > 0.9
    average = start[name]
    for step in (1, 2, 3):
        average = average + np.float32(1 - 0.9) * (seen.of[step][f"master/{name}"] - average)
        np.testing.assert_allclose(seen.of[step][f"ema/{name}"], average, rtol=0, atol=1e-9)
    assert (average != start[name]).any()


@BOTH
def test_the_evaluation_of_a_saved_run_gives_the_figures_of_the_training(
    run_folder, level, capsys
):
    options = (*level, "Global.epochs=2")
    assert run_folder.train(*options) == 0
    wanted = run_folder.records("eval")[-1]
    capsys.readouterr()
    assert eval_command.main(["-c", str(run_folder.config_file), "-o", *options]) == 0
    assert f"loss: {wanted['loss']:.5f}, top1: {wanted['top1']:.5f}" in capsys.readouterr().out
    run = built(run_folder, *options)
    run.close()
    evaluation = passl.build_run(
        passl.load_config(run_folder.config_file, list(options)), mode="eval"
    )
    assert half_names(evaluation.model) == half_names(run.model)
    result = evaluation.evaluate()
    assert result.values["loss"] == pytest.approx(wanted["loss"], rel=1e-12)


def test_frozen_weights_keep_every_bit_through_half_precision(make_run):
    before, frozen = make_run("before"), make_run("frozen")
    assert before.train("Global.epochs=1") == 0
    options = (
        f"Global.pretrained_model={before.dir}/latest", "Optimizer.freeze=[^blocks, ^pos_embed]",
    )  # fmt: skip
    run = built(frozen, *FP16, EMA, *options, "Global.epochs=1")
    run.fit()
    assert "blocks.0.attn.qkv.weight" in half_names(run.model)
    assert "blocks.0.attn.qkv.weight" not in run.trainer.parts.half.masters
    average = read_arrays(frozen.dir / "latest" / EMA_NAME)
    for name, value in before.weights().items():
        is_frozen = name.startswith(("blocks", "pos_embed"))
        assert np.array_equal(frozen.weights()[name], value) is is_frozen, name
        assert np.array_equal(average[name], value) is is_frozen, name


# -- stopping and continuing -----------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("stops", [(6, 14), pytest.param((4,), marks=pytest.mark.slow)], ids=str)
def test_stopping_changes_no_bit(make_run, level, stops):
    whole, stopped = make_run("whole"), make_run("stopped")
    options = (*level, EMA, "Global.accum_steps=2", *spoiled_data(sample_of_step(3)))
    options += ("FP16.GradScaler.incr_every_n_steps=4", "FP16.GradScaler.decr_every_n_nan_or_inf=1")
    assert whole.train(*options) == 0
    for step in stops:
        assert stopped.train(*options, f"Global.max_train_step={step}") == 0
    assert stopped.train(*options) == 0
    assert_same_arrays(whole_state(stopped), whole_state(whole))
    assert stopped.state()["scaler"] == whole.state()["scaler"]
    assert whole.state()["skipped_steps"] >= 1
    if level is FP16:
        assert whole.state()["scaler"]["scale"] not in (0, 65536.0)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 9])
def test_a_killed_run_ends_as_one_never_killed(make_run, repo, user_environment, step):
    helpers = str(repo / "tests" / "helpers")
    environment = {**user_environment, "PYTHONPATH": f"{helpers}:{user_environment['PYTHONPATH']}"}
    whole, killed = make_run("whole"), make_run("killed")
    for run in (whole, killed):
        done = run.root / "done"
        if run is whole:
            done.touch()
        options = (
            *spoiled_data(sample_of_step(4)), *FP16, EMA, "Global.epochs=3",
            "Global.imports=[spoiled, forced_amp_on]", "Global.save_interval=2",
            "Global.save_unit=step", "FP16.GradScaler.decr_every_n_nan_or_inf=1",
            f"Hooks=[{{name: KillOnce, step: {step}, done: {done}}}]",
        )  # fmt: skip
        ends = ends_of_starts(run, environment, *options)
        assert ends == ([0] if run is whole else [-signal.SIGKILL, 0])
    assert_same_arrays(whole_state(killed), whole_state(whole))
    assert killed.state()["scaler"] == whole.state()["scaler"]
    assert killed.state()["scaler"]["scale"] < 65536
    assert "weights are float16 on the device" in killed.log()


@pytest.mark.parametrize(
    ("first", "second", "told"),
    [
        ((), FP16, "the run was fp32 and goes on in O2 float16: weights and optimizer state are "
                   "float32 in a checkpoint and are taken over bit for bit; the loss scale starts "
                   "at 65536"),
        (FP16, (), "the run was O2 float16 and goes on in fp32: weights and optimizer state are "
                   "float32 in a checkpoint and are taken over bit for bit; its loss scale is not "
                   "used"),
        (FP16, BF16, "the run was O2 float16 and goes on in O2 bfloat16: "),
        (("FP16.level=O1",), FP16, "the run was O1 float16 and goes on in O2 float16: "),
    ],
    ids=["up", "down", "dtype", "O1"],
)  # fmt: skip
def test_a_run_goes_on_at_another_level_with_the_same_numbers(run_folder, first, second, told):
    assert run_folder.train(*first, EMA, "Global.max_train_step=8") == 0
    before = whole_state(run_folder)
    run = built(run_folder, *second, EMA)
    run.trainer.save()  # before any step
    run.trainer.parts.saver.finish()
    assert_same_arrays(whole_state(run_folder), before)
    run.fit()
    assert run_folder.state()["step"] == 30
    assert told in run_folder.log()


def test_a_resume_at_the_same_level_says_nothing_of_it(run_folder):
    assert run_folder.train(*FP16, "Global.max_train_step=8") == 0
    assert run_folder.train(*FP16, "Global.max_train_step=9") == 0
    assert "goes on in" not in run_folder.log()


# -- bad steps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("optimizer", "device", "level"),
    [
        *(("AdamW", device, level) for device in ("cpu", "accelerator") for level in (FP16, BF16)),
        *(
            pytest.param(each, "accelerator", BF16, marks=pytest.mark.slow)
            for each in ("Momentum", "Adan", "LARS", "Lamb", "Lion", "Adafactor")
        ),
    ],
)
def test_a_bad_step_changes_no_bit(run_folder, monkeypatch, device, level, optimizer):
    if device == "accelerator":
        monkeypatch.setattr("passl.optim.clip.on_cpu", lambda: False)
        monkeypatch.setattr("passl.precision.amp.on_cpu", lambda: False)
    run = built(
        run_folder, *level, *spoiled_data(sample_of_step(3)), EMA, f"Optimizer.name={optimizer}",
        "Global.max_train_step=5", "Global.print_batch_step=1", "Global.eval_during_train=false",
        "FP16.GradScaler.init_loss_scaling=128",
    )  # fmt: skip
    seen = AllBits()
    run.trainer.parts.hooks = [seen]
    state = run.fit()
    assert_same_arrays(seen.of[3], seen.of[2])
    for before, after in ((1, 2), (3, 4)):
        for kind in ("half/", "master/", "optimizer/", "ema/"):
            keys = [key for key in seen.of[after] if key.startswith(kind) and "head" in key]
            assert any((seen.of[before][k] != seen.of[after][k]).any() for k in keys), kind
    assert (state.step, state.skipped_steps, state.updates) == (5, 1, 4)
    assert state.ema == {"updates": 4, "steps": 4}
    schedule = run.trainer.parts.schedule
    rates = [record["lr"] for record in run_folder.records("train")]
    assert rates == [schedule(update) for update in (0, 1, 1, 2, 3)]


def test_an_overflow_of_float16_shrinks_the_scale_and_is_no_bad_step(run_folder):
    run = built(run_folder, *FP16, "Global.max_train_step=8", "Global.print_batch_step=1",
                "FP16.GradScaler.init_loss_scaling=4294967296.0",
                "FP16.GradScaler.decr_every_n_nan_or_inf=1")  # fmt: skip
    state = run.fit()
    assert state.skipped_steps > 2
    assert state.bad_steps == 0
    assert state.scaler["scale"] == 2.0 ** (32 - state.skipped_steps)


def test_the_report_of_bad_steps_works_with_half_weights(run_folder):
    options = (*BF16, *spoiled_data(sample_of_step(2)), "Global.max_bad_steps=1")
    with pytest.raises(PasslError, match="step 2 had a loss or gradients that are not finite"):
        built(run_folder, *options, "Global.accum_steps=2", "Global.print_batch_step=1").fit()
    assert "O2 bfloat16" in (run_folder.dir / "nan_step_00000002" / "report.txt").read_text()


# -- accumulation ----------------------------------------------------------------------------------


def test_micro_batches_are_added_up_in_float32(make_run):
    """A scale at which the whole gradient is beyond float16, and that of a pass is not."""
    exact = (
        "Model.drop_rate=0.0", "Model.drop_path_rate=0.0", "Global.max_train_step=1",
        "Optimizer={name: Momentum, momentum: 0.0}", "Global.eval_during_train=false",
        "LRScheduler={name: Constant, learning_rate: 1.0}",
    )  # fmt: skip

    def largest_gradient() -> float:
        run = built(make_run("wide"), *exact)
        before = {n: p.numpy().copy() for n, p in run.model.named_parameters()}
        run.fit()
        return max(abs(p.numpy() - before[n]).max() for n, p in run.model.named_parameters())

    scale = 2.0 ** np.ceil(np.log2(2 * 65504 / largest_gradient()))
    skipped = {}
    for accum in (1, 64):
        run = built(make_run(f"of {accum}"), *FP16, *exact, f"Global.accum_steps={accum}",
                    f"FP16.GradScaler.init_loss_scaling={scale}")  # fmt: skip
        skipped[accum] = run.fit().skipped_steps
    assert skipped == {1: 1, 64: 0}


@BOTH
def test_recomputation_changes_no_bit(make_run, level):
    plain, again = make_run("plain"), make_run("again")
    options = (*level, "Global.epochs=1", "Global.accum_steps=2")
    assert plain.train(*options) == 0
    assert again.train(*options, "Global.recompute=true") == 0
    assert_same_arrays(whole_state(again), whole_state(plain))


# -- what cannot be --------------------------------------------------------------------------------


def test_an_optimizer_without_masters_is_refused(run_folder, monkeypatch):
    monkeypatch.delattr(Optimizer, "use_masters")
    with pytest.raises(PasslError, match=r"which AdamW cannot.*use -o FP16.level=O1"):
        built(run_folder, *FP16)


def test_simulated_formats_round_float32_weights(run_folder):
    run = built(run_folder, *FP16, "Quantization={format: FP16_16, mode: qat}")
    run.close()
    assert not half_names(run.model)
    assert "weights stay float32, as Quantization rounds them" in run_folder.log()
