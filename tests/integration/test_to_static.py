"""Global.to_static: the compiled model trains and evaluates as the layers do."""

from __future__ import annotations

import numpy as np
import paddle
import pytest
from forced_amp import forced
from small_run import assert_same_arrays, built
from spoiled import sample_of_step, spoiled_data

import passl
from passl.cli import train as train_command
from passl.engine.hooks.base import Hook
from passl.errors import ConfigError, PasslError

STATIC = "Global.to_static=true"
MODELS = {
    "vit": (),
    "illama": ("Model={name: iLLaMA, img_size: 8, patch_size: 4, in_chans: 1, embed_dim: 16, "
               "depth: 2, num_heads: 2, class_num: 10, drop_path_rate: 0.1}",),
    "deit": ("Model={name: DistilledVisionTransformer, img_size: 8, patch_size: 4, in_chans: 1, "
             "embed_dim: 16, depth: 2, num_heads: 2, class_num: 10, drop_rate: 0.1}",),
}  # fmt: skip


class Gradients(Hook):
    """Gradients of a batch as the step leaves them to the optimizer."""

    def on_start(self, trainer) -> None:
        self.of = []
        step = trainer.parts.optimizer.step

        def keep_and_step(*arguments):
            self.of.append({n: p.grad.numpy().copy() for n, p in trainer.parameters})
            step(*arguments)

        trainer.parts.optimizer.step = keep_and_step


@pytest.mark.parametrize(
    "model", ["vit", *(pytest.param(each, marks=pytest.mark.slow) for each in ("illama", "deit"))]
)
def test_gradients_are_those_of_the_layers_with_dropout_and_a_ragged_batch(make_run, model):
    found = {}
    for name, options in (("layers", ()), ("compiled", (STATIC,))):
        run = built(
            make_run(name), *MODELS[model], *options, "Global.epochs=1", "Global.accum_steps=2",
            "LRScheduler={name: Constant, learning_rate: 1.0e-4}", "Global.print_batch_step=1",
            "Global.eval_during_train=false",  # each length of a batch is compiled anew
        )  # fmt: skip
        hook = Gradients()
        run.trainer.parts.hooks = [hook]
        run.fit()
        assert run.model.training
        found[name] = hook.of
    assert len(found["layers"]) == len(found["compiled"]) == 6
    for mine, theirs in zip(found["compiled"], found["layers"]):
        for name, value in theirs.items():
            size = max(abs(value).max(), 1e-6)
            np.testing.assert_allclose(mine[name], value, rtol=0, atol=2e-4 * size, err_msg=name)


def test_the_evaluation_is_that_of_the_layers(make_run):
    compiled = make_run("compiled")
    run = built(
        compiled, STATIC, "Global.epochs=2", "EMA={decay: 0.9}",
        "DataLoader.Train.sampler.drop_last=true",  # each length of a batch is compiled anew
    )  # fmt: skip
    run.fit()
    assert "the model is compiled" in compiled.log()
    wanted = [r for r in compiled.records("eval") if "ema_loss" in r][-1]
    evaluation = passl.build_run(passl.load_config(compiled.config_file, []), mode="eval")
    result = evaluation.evaluate()
    assert result.values["loss"] == pytest.approx(wanted["loss"], rel=1e-5)
    assert result.values["top1"] == wanted["top1"]


@pytest.mark.slow
def test_stopping_changes_nothing(make_run):
    whole, stopped = make_run("whole"), make_run("stopped")
    assert whole.train(STATIC, "Global.epochs=2") == 0
    assert stopped.train(STATIC, "Global.epochs=2", "Global.max_train_step=4") == 0
    assert stopped.train(STATIC, "Global.epochs=2") == 0
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())


def test_the_report_of_a_bad_step_still_sees_every_layer(run_folder):
    run = built(run_folder, STATIC, *spoiled_data(sample_of_step(2)), "Global.max_bad_steps=1",
                "Global.print_batch_step=1")  # fmt: skip
    with pytest.raises(PasslError, match="First bad layer: images"):
        run.fit()
    report = (run_folder.dir / "nan_step_00000002" / "report.txt").read_text()
    assert "blocks.1" in report
    assert "nan" in report.partition("blocks.1")[2].splitlines()[0]


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("Global.recompute=true",), "does not go with Global.recompute"),
        (("Quantization={format: FP16_16, mode: qat}",), "does not go with Quantization"),
        (("Hooks=[{name: DropSchedule, target: drop_path, rate: 0.1, cutoff_epochs: 1}]",),
         "changes a setting of the model with the step"),
    ],
)  # fmt: skip
def test_what_would_not_be_in_the_program_is_refused(run_folder, capsys, options, what):
    assert run_folder.train(STATIC, *options) == 2
    error = capsys.readouterr().err
    assert f"-o {STATIC}: Global.to_static: " in error
    assert what in error


def test_casts_are_refused(run_folder):
    with forced(), pytest.raises(ConfigError, match="never run with automatic casts"):
        built(run_folder, STATIC, "FP16.level=O1")


def test_a_model_that_cannot_be_compiled_is_told_with_the_reason(run_folder, monkeypatch, capsys):
    def fails(*_, **__):
        raise RuntimeError("first line\nno static form of this")

    monkeypatch.setattr(paddle.jit, "to_static", fails)
    assert train_command.main(["-c", str(run_folder.config_file), "-o", STATIC]) == 2
    error = capsys.readouterr().err
    assert "Paddle cannot compile VisionTransformer (RuntimeError: no static form of this)" in error
