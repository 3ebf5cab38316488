"""Number formats in real runs: what passl-eval tells, and training that rounds."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from small_run import RunFolder, assert_same_arrays

from passl import build_run, load_config
from passl.cli import eval as eval_command

# Points of accuracy, of 359 images, that a format may cost a trained model.
ALLOWED = {"FP16_32": 0.006, "FP16_16": 0.006, "TF32": 0.006, "int8": 0.03}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    run = RunFolder(tmp_path_factory.mktemp("trained"))
    options = ("Global.epochs=8", "Global.eval_interval=8", "Model.drop_rate=0")
    assert run.train(*options, "Model.drop_path_rate=0") == 0
    return run


def evaluate(run: RunFolder, capsys: pytest.CaptureFixture, *overrides: str) -> tuple[float, str]:
    """Accuracy and everything printed."""
    capsys.readouterr()
    assert eval_command.main(["-c", str(run.config_file), *run.options(overrides)]) == 0
    out = capsys.readouterr().out
    found = re.findall(r"\[Avg\].*top1: ([0-9.]+)", out)
    return float(found[-1]), out


@pytest.mark.parametrize(
    "name",
    ["FP16_32", "int8", *(pytest.param(n, marks=pytest.mark.slow) for n in ("FP16_16", "TF32"))],
)
def test_a_trained_model_keeps_its_accuracy(trained, capsys, name):
    plain, out = evaluate(trained, capsys)
    assert "quantization:" not in out
    rounded, out = evaluate(trained, capsys, f"Quantization.format={name}")
    assert abs(rounded - plain) <= ALLOWED[name]
    assert f"quantization: {name}" in out
    error = float(re.findall(r"largest error of a layer: ([0-9.e+-]+) at \S+", out)[0])
    assert 1e-6 < error < 0.5
    share = float(re.findall(r"bytes in float32, .* \(([0-9.]+)%\)", out)[0])
    assert share == 100.0 if name == "TF32" else share < 80.0


def test_the_report_counts_every_class(trained, capsys):
    top1, out = evaluate(trained, capsys, "Quantization.format=FP16_32")
    lines = [line.partition("INFO: ")[2].split() for line in out.splitlines()]
    rows = {line[0]: line[1:] for line in lines if len(line) == 5}
    classes = np.array([[float(value) for value in rows[str(n)]] for n in range(10)])
    precision, recall, f1, support = classes.T
    assert support.sum() == 359
    assert (recall * support).sum() / 359 == pytest.approx(top1, abs=1e-3)
    wanted = np.divide(2 * precision * recall, precision + recall)
    np.testing.assert_allclose(f1, wanted, atol=2e-4)
    accuracy = next(line for line in lines if line[:1] == ["accuracy"])
    assert float(accuracy[1]) == pytest.approx(top1, abs=1e-4)
    macro = next(line for line in lines if line[:2] == ["macro", "avg"])
    assert float(macro[4]) == pytest.approx(f1.mean(), abs=2e-4)


@pytest.mark.parametrize(
    "method", ["mse", *(pytest.param(m, marks=pytest.mark.slow) for m in ("minmax", "percentile"))]
)
def test_int8_finds_ranges_in_three_ways(trained, capsys, method):
    options = ("Quantization.format=int8", f"Quantization.calibration.method={method}")
    top1, out = evaluate(trained, capsys, *options, "Quantization.calibration.batches=1")
    assert top1 > 0.5
    assert f"ranges by {method} of 1 batches" in out


def test_training_that_rounds_goes_on_bit_for_bit_and_is_another(make_run, capsys):
    qat = ("Quantization={format: FP16_16, mode: qat}", "Global.epochs=2", "EMA={decay: 0.9}")
    quiet = ("Global.eval_during_train=false",)
    plain, whole, stopped = make_run("plain"), make_run("whole"), make_run("stopped")
    assert plain.train(*qat[1:], *quiet) == 0
    assert whole.train(*qat, *quiet) == 0
    for end in (4, 7):
        assert stopped.train(*qat, *quiet, f"Global.max_train_step={end}") == 0
    assert stopped.train(*qat, *quiet) == 0
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    assert whole.weights().keys() == plain.weights().keys()
    assert (whole.weights()["head.weight"] != plain.weights()["head.weight"]).any()
    assert "quantization: 15 layers compute in FP16_16" in whole.log()
    top1, out = evaluate(whole, capsys, *qat)
    assert "quantization: FP16_16" in out
    assert 0.0 <= top1 <= 1.0


@pytest.mark.slow
def test_an_evaluation_while_training_is_that_of_passl_eval(run_folder, capsys):
    qat = ("Quantization={format: FP16_32, mode: qat}", "Global.epochs=3")
    assert run_folder.train(*qat) == 0
    during = run_folder.state()["last_eval"]["top1"]
    latest = f"Global.pretrained_model={run_folder.dir / 'latest'}"
    after, _ = evaluate(run_folder, capsys, *qat, latest)
    assert after == pytest.approx(during, abs=1e-4)


@pytest.mark.slow
def test_recomputation_and_accumulation_round_alike(make_run):
    qat = ("Quantization={format: FP16_32, mode: qat}", "Global.max_train_step=3",
           "Global.eval_during_train=false", "Model.drop_rate=0",
           "Model.drop_path_rate=0")  # fmt: skip
    plain, again = make_run("plain"), make_run("again")
    assert plain.train(*qat) == 0
    assert again.train(*qat, "Global.recompute=true", "Global.accum_steps=2") == 0
    for name, value in plain.weights().items():
        np.testing.assert_allclose(again.weights()[name], value, atol=5e-4, err_msg=name)


INT8 = ("Quantization={format: int8, mode: qat, calibration: {batches: 2, method: mse}}",)


def ranges_of(run: RunFolder) -> dict:
    return run.state()["hooks"]["Int8Ranges"]["ranges"]


def test_int8_trains_and_goes_on_bit_for_bit_with_its_ranges(make_run, capsys):
    options = (*INT8, "Global.epochs=2", "Global.accum_steps=2", "EMA={decay: 0.9}")
    whole, stopped = make_run("whole"), make_run("stopped")
    assert whole.train(*options) == 0
    for end in (3, 7):
        assert stopped.train(*options, f"Global.max_train_step={end}") == 0
    early = ranges_of(stopped)
    assert stopped.train(*options) == 0
    assert_same_arrays(stopped.weights(), whole.weights())
    assert_same_arrays(stopped.optimizer(), whole.optimizer())
    assert ranges_of(stopped) == ranges_of(whole)
    assert ranges_of(whole).keys() == early.keys()
    assert ranges_of(whole) != early  # they move
    assert "ranges by mse of 2 training batches" in whole.log()
    assert stopped.log().count("ranges by mse of 2 training batches") == 1
    top1, out = evaluate(whole, capsys, *options, f"Global.pretrained_model={whole.dir / 'latest'}")
    assert "quantization: int8, ranges of the training" in out
    assert top1 == pytest.approx(whole.state()["last_eval"]["top1"], abs=1e-4)


def test_fixed_ranges_stay_as_they_were_measured(run_folder):
    fixed = ("Quantization={format: int8, mode: qat, calibration: {momentum: 1.0}}",)
    assert run_folder.train(*fixed, "Global.max_train_step=1") == 0
    before = ranges_of(run_folder)
    assert run_folder.train(*fixed, "Global.max_train_step=5") == 0
    assert ranges_of(run_folder) == before


def test_a_checkpoint_without_ranges_cannot_be_evaluated_as_trained(trained, capsys):
    options = trained.options(["Quantization={format: int8, mode: qat}"])
    assert eval_command.main(["-c", str(trained.config_file), *options]) == 1
    assert "holds no ranges of int8" in capsys.readouterr().err


def test_an_evaluation_without_a_metric_counts_classes_and_losses(trained, capsys):
    options = trained.options(["~Metric.Eval", "Quantization.format=FP16_32",
                               "Global.eval_during_train=false"])  # fmt: skip
    capsys.readouterr()
    assert eval_command.main(["-c", str(trained.config_file), *options]) == 0
    out = capsys.readouterr().out
    assert "macro avg" in out
    assert re.search(r"\[Avg\].*CELoss: [0-9.]+", out)
    assert "metric:" not in out


def test_without_the_section_nothing_is_watched(run_folder: RunFolder, tmp_path: Path):
    run = build_run(load_config(str(run_folder.config_file), ["Quantization.format=FP32"]))
    assert run.trainer is not None
    hooked = [
        name for name, layer in run.model.named_sublayers() if layer._forward_pre_hooks
    ]
    assert hooked == []
