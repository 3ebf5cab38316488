"""What goes wrong while a run trains: said, logged, and never saved as if it were well."""

from __future__ import annotations

import math

import numpy as np
import paddle
import pytest
from small_run import assert_same_arrays, built

from passl.checkpoint.files import read_arrays
from passl.engine.evaluator import EvalResult
from passl.engine.hooks.base import Hook, hooks_by_name
from passl.engine.hooks.early_stop import EarlyStop
from passl.errors import PasslError
from passl.precision.amp import LossScaler, Precision


class SpoilGradients(Hook):
    """Multiplies the gradient of one weight in chosen steps; all other figures stay finite."""

    def __init__(self, steps: set[int], factor: float = math.inf) -> None:
        self.steps, self.factor, self.step = steps, factor, 1

    def on_start(self, trainer):
        self.step = trainer.state.step + 1
        weight = dict(trainer.parameters)["head.bias"]
        weight.register_hook(lambda grad: grad * (self.factor if self.step in self.steps else 1.0))

    def on_step_end(self, trainer):
        self.step = trainer.state.step + 1


# -- gradients that are not finite -----------------------------------------------------------------


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(run_folder):
    run = built(
        run_folder, "Global.save_unit=step", "Global.save_interval=2", "Global.epochs=1",
        "Global.save_in_background=false",  # every one of them is written
    )  # fmt: skip
    run.trainer.parts.hooks = [SpoilGradients({4})]
    run.fit()
    # Step 4 is a step to save at, and its loss was finite.
    before = read_arrays(run_folder.dir / "checkpoints" / "step_00000004" / "model.pdparams")
    assert all(np.isfinite(value).all() for value in before.values())
    assert "step 4 was skipped" in run_folder.log()
    assert "the norm of the gradients was inf" in run_folder.log()
    assert run_folder.state()["skipped_steps"] == 1


def test_steps_with_overflow_are_skipped_counted_and_do_not_move_the_schedule(run_folder):
    run = built(run_folder, "Global.epochs=2", "Global.print_batch_step=1")
    trainer = run.trainer
    trainer.parts.precision = Precision("O2", "float16", LossScaler(init_loss_scaling=512.0))
    trainer.parts.hooks = [SpoilGradients({2, 3, 8})]
    seen = {}

    class Weights(Hook):
        def on_step_end(self, trainer):
            weight = dict(trainer.parts.model.named_parameters())["blocks.0.mlp.fc1.weight"]
            seen[trainer.state.step] = weight.numpy().copy()

    trainer.parts.hooks.append(Weights())
    state = run.fit()
    assert (state.step, state.skipped_steps, state.updates) == (12, 3, 9)
    assert trainer.parts.optimizer.num_steps == 9
    for skipped in (2, 3, 8):
        assert (seen[skipped] == seen[skipped - 1]).all()
    assert (seen[4] != seen[3]).any()
    records = run_folder.records("train")
    assert [record["skipped_steps"] for record in records] == [0, 1, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3]
    schedule = trainer.parts.schedule
    used = [0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 8]  # of a skipped step, the one before it
    assert [record["lr"] for record in records] == [schedule(update) for update in used]
    # Two bad steps in a row halve the scale, a single one does not.
    assert [record["loss_scale"] for record in records] == [512.0] * 2 + [256.0] * 10
    assert all(math.isfinite(record["loss"]) for record in records)


def test_skipped_steps_and_the_scale_survive_a_resume(make_run):
    def train(folder, *overrides):
        run = built(folder, "Global.epochs=2", *overrides)
        run.trainer.parts.precision = Precision(
            "O2", "float16", LossScaler(init_loss_scaling=512.0, incr_every_n_steps=3)
        )
        run.trainer.parts.precision.load_state_dict(run.trainer.state.scaler)
        run.trainer.parts.hooks = [SpoilGradients({3, 4, 9})]
        return run.fit()

    whole, stopped = make_run("whole"), make_run("stopped")
    expected = train(whole)
    for end in (3, 5, 12):
        state = train(stopped, f"Global.max_train_step={end}")
    assert (state.skipped_steps, state.scaler) == (expected.skipped_steps, expected.scaler)
    assert_same_arrays(stopped.weights(), whole.weights())


def test_a_run_that_only_overflows_is_given_up(run_folder):
    run = built(run_folder, "Global.epochs=100", "Global.max_bad_steps=null")
    run.trainer.parts.precision = Precision("O2", "float16", LossScaler(init_loss_scaling=1.0))
    run.trainer.parts.hooks = [SpoilGradients(set(range(1000)))]
    with pytest.raises(PasslError, match="100 steps in a row had gradients that are not finite"):
        run.fit()
    assert run.trainer.state.step == 99


def test_accumulated_overflow_in_one_micro_batch_skips_the_whole_step(run_folder):
    run = built(run_folder, "Global.epochs=1", "Global.accum_steps=4")
    run.trainer.parts.precision = Precision("O2", "float16", LossScaler())
    calls = []

    class SpoilOneMicroBatch(Hook):
        def on_start(self, trainer):
            def spoil(grad):
                calls.append(None)
                return grad * (math.inf if len(calls) == 2 else 1.0)  # of the first step

            dict(trainer.parameters)["head.bias"].register_hook(spoil)

    run.trainer.parts.hooks = [SpoilOneMicroBatch()]
    assert run.fit().skipped_steps == 1


# -- hooks -----------------------------------------------------------------------------------------


class Trouble(Hook):
    """Fails at one moment and notes what it hears of."""

    def __init__(self, moment: str) -> None:
        self.heard: list[str] = []
        setattr(self, moment, self.fail)

    def fail(self, *arguments):
        raise RuntimeError("the hook's own mistake")


class Listener(Hook):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_exception(self, trainer, error):
        self.heard.append(str(error))


@pytest.mark.parametrize(
    "moment", ["on_start", "on_step_end", "on_eval_end", "on_epoch_end", "on_finish"]
)
def test_a_failing_hook_ends_the_run_and_the_log_says_where(run_folder, moment):
    run = built(run_folder, "Global.epochs=1")
    listener = Listener()
    run.trainer.parts.hooks = [Trouble(moment), listener]
    with pytest.raises(RuntimeError, match="the hook's own mistake"):
        run.fit()
    assert listener.heard == ["the hook's own mistake"]
    assert "in fail" in run_folder.log()  # with the traceback


def test_a_hook_that_fails_while_it_hears_of_a_failure_does_not_hide_it(run_folder):
    run = built(run_folder, "Global.epochs=1")
    listener = Listener()

    class Failing(Hook):
        def on_step_end(self, trainer):
            raise PasslError("the first error")

    run.trainer.parts.hooks = [Failing(), Trouble("on_exception"), listener]
    with pytest.raises(PasslError, match="the first error"):
        run.fit()
    assert listener.heard == ["the first error"]
    log = run_folder.log()
    assert "Trouble.on_exception failed as well: RuntimeError" in log
    assert "the first error" in log


def test_the_state_of_a_hook_finds_it_among_others():
    first, second, other = EarlyStop(), EarlyStop(patience=2), Hook()
    assert hooks_by_name([first, other, second]) == {
        "EarlyStop": first,
        "Hook": other,
        "EarlyStop_2": second,
    }


def test_hooks_may_be_added_and_removed_between_two_starts(run_folder, capsys):
    patient = "{name: EarlyStop, patience: 1, min_delta: 0.9}"
    assert run_folder.train(f"Hooks=[{patient}]") == 0
    assert run_folder.state()["step"] == 12
    more = f"Hooks=[{patient}, {{name: EarlyStop, patience: 9}}]"
    assert run_folder.train(more) == 0
    assert run_folder.state()["step"] == 12  # its patience was at its end
    assert run_folder.train() == 0
    assert run_folder.state()["step"] == 30
    assert "the checkpoint holds the state of a hook EarlyStop" in run_folder.log()


def test_early_stopping_without_evaluations_is_refused(run_folder, capsys):
    assert run_folder.train("Hooks=[{name: EarlyStop}]", "Global.eval_during_train=false") == 2
    assert "EarlyStop compares evaluations during training" in capsys.readouterr().err


# -- evaluation ------------------------------------------------------------------------------------


def test_a_first_metric_of_nan_is_not_the_best_for_ever(run_folder, monkeypatch):
    run = built(run_folder, "Global.epochs=3")
    values = iter([math.nan, 0.25, 0.125])

    def evaluate(self, poll):
        return EvalResult({"loss": 1.0, "top1": 0.0, "metric": next(values)}, 359, 1.0)

    monkeypatch.setattr(type(run.trainer.validation), "of_weights", evaluate)
    state = run.fit()
    assert (state.best.metric, state.best.step) == (0.25, 12)


# -- settings --------------------------------------------------------------------------------------


def test_flags_reach_paddle_and_wrong_ones_are_a_config_error(run_folder, capsys):
    name = "FLAGS_check_nan_inf_level"
    before = paddle.get_flags([name])
    try:
        built(run_folder, f"Global.flags={{{name}: 3}}").close()
        assert paddle.get_flags([name]) == {name: 3}
    finally:
        paddle.set_flags(before)
    assert run_folder.train("Global.flags={FLAGS_no_such_flag: 1}") == 2
    error = capsys.readouterr().err
    assert "Global.flags: Paddle refuses these flags" in error
    assert "FLAGS_no_such_flag" in error


@pytest.mark.skipif(paddle.device.is_compiled_with_cuda(), reason="this Paddle has cuDNN's flags")
def test_flags_of_gpus_are_left_out_where_paddle_is_built_for_cpus_and_the_log_says_so(run_folder):
    # PASSL's configs and its continuous integration name them.
    flags = "{FLAGS_cudnn_exhaustive_search: 0, FLAGS_check_nan_inf_level: 0}"
    built(run_folder, f"Global.flags={flags}")
    assert "Global.flags: FLAGS_cudnn_exhaustive_search is of GPUs, for which" in run_folder.log()


def test_max_train_step_beyond_the_run_changes_nothing(make_run):
    plain, beyond = make_run("plain"), make_run("beyond")
    assert plain.train("Global.epochs=1") == 0
    assert beyond.train("Global.epochs=1", "Global.max_train_step=1000000") == 0
    assert beyond.state()["step"] == 6
    assert_same_arrays(beyond.weights(), plain.weights())
