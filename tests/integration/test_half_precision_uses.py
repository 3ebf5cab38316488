"""What becomes of a run at O2 afterwards: nothing that reads its checkpoint needs to know.

The casts are forced on the CPU (tests/helpers/forced_amp.py) while the run trains, and once more
for what is done with it, as if there were a GPU; without them, as on a machine it is copied to.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from forced_amp import forced
from small_run import RunFolder, assert_same_arrays

import passl
from passl.checkpoint.average import average_checkpoints
from passl.checkpoint.files import read_arrays
from passl.cli import eval as eval_command
from passl.cli.visualize import main as visualize
from passl.config import load_config
from passl.data.datasets.digits import DigitsDataset
from passl.export.card import ModelCard
from passl.export.exporter import export_model
from passl.export.sessions import open_session

O2 = ("FP16.level=O2", "FP16.dtype=float16", "FP16.GradScaler.init_loss_scaling=1024")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two epochs at O2, with an average and a checkpoint each; nothing below changes it."""
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    with forced():
        options = (*O2, "EMA={decay: 0.9}", "Global.epochs=2", "Global.save_interval=1")
        assert folder.train(*options) == 0
    assert "weights are float16 on the device" in folder.log()
    saved = folder.weights().values()
    assert any((value != value.astype(np.float16)).any() for value in saved)
    return folder


@pytest.fixture(params=["where casts work", "on a CPU"])
def anywhere(request) -> Iterator[bool]:
    """Whether casts work."""
    works = request.param == "where casts work"
    with forced() if works else contextlib.nullcontext():
        yield works


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """What the model takes, float32 [16, 1, 8, 8], by the closed form of the transforms."""
    digits = DigitsDataset(split="val", in_chans=1)
    pixels = np.stack([np.asarray(digits.load(index)[0]) for index in range(16)])
    return ((pixels.astype(np.float32) / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2).copy()


def logits_in_float32(run: RunFolder, weights: Path, images: np.ndarray) -> np.ndarray:
    """The saved numbers in a new model that never heard of FP16."""
    arguments = yaml.safe_load(run.config_file.read_text())["Model"]
    model = passl.create_model(arguments.pop("name"), **arguments)
    arrays = read_arrays(weights)
    for name, tensor in model.state_dict().items():
        tensor.set_value(arrays.pop(name))
    assert not arrays
    model.eval()
    with paddle.no_grad():
        return model(paddle.to_tensor(images)).numpy()


@pytest.mark.parametrize("link", ["best", "best_ema"])
def test_an_export_computes_the_masters_in_float32(run, images, anywhere, tmp_path, link):
    options = [*O2, f"Global.pretrained_model={run.dir}/{link}"]
    export_model(load_config(run.config_file, options), tmp_path / "out")
    session = open_session(tmp_path / "out", ModelCard.read(tmp_path / "out"), None, num_threads=1)
    name = "ema.pdparams" if link == "best_ema" else "model.pdparams"
    wanted = logits_in_float32(run, run.dir / link / name, images)
    np.testing.assert_allclose(session.run(images), wanted, atol=1e-5)
    card = yaml.safe_load((tmp_path / "out" / "inference.yml").read_text())
    assert card["input"]["dtype"] == "float32"


def test_pictures_of_attention_are_those_of_the_masters(run, anywhere, tmp_path):
    def attention(out: Path, *options: str) -> dict[str, np.ndarray]:
        arguments = ["attention", str(run.dir), "--sample", "3", "--raw", "--out", str(out)]
        assert visualize([*arguments, *options]) == 0
        (file,) = out.glob("*.npz")
        with np.load(file) as arrays:
            return {name: arrays[name] for name in ("attention", "probabilities")}

    found = attention(tmp_path / "one")
    with contextlib.ExitStack() as stack:
        if not anywhere:
            stack.enter_context(forced())
        other = attention(tmp_path / "other")
    for name, values in found.items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, other[name], atol=1e-5)
    np.testing.assert_allclose(found["attention"].sum(axis=-1), 1.0, atol=1e-5)


def test_the_mean_of_checkpoints_is_that_of_the_masters(run, anywhere, tmp_path):
    folders = sorted((run.dir / "checkpoints").iterdir())
    assert len(folders) == 2
    average_checkpoints([str(folder) for folder in folders], str(tmp_path / "mean.pdparams"))
    found = read_arrays(tmp_path / "mean.pdparams")
    first, second = (read_arrays(folder / "model.pdparams") for folder in folders)
    assert found.keys() == first.keys()
    for name, value in found.items():
        assert value.dtype == np.float32
        exact = (first[name].astype(np.float64) + second[name].astype(np.float64)) / 2
        np.testing.assert_allclose(value, exact, rtol=1e-6, atol=1e-9, err_msg=name)
    assert any((first[name] != second[name]).any() for name in first)


@pytest.mark.parametrize("level", [O2, ()], ids=["O2", "O0"])
def test_fine_tuning_begins_with_every_bit_of_the_masters(run, make_run, anywhere, level):
    tuned = make_run("tuned")
    options = [*level, f"Global.pretrained_model={run.dir}/latest", "Global.epochs=1"]
    started = passl.build_run(load_config(tuned.config_file, options))
    half = {name for name, p in started.model.named_parameters() if p.dtype != paddle.float32}
    assert bool(half) is (anywhere and level is O2)
    started.trainer.save()
    started.trainer.parts.saver.finish()
    assert_same_arrays(tuned.weights(), run.weights())
    started.fit()
    assert (tuned.weights()["head.weight"] != run.weights()["head.weight"]).any()


def test_fine_tuning_with_another_head_keeps_the_bits_of_the_rest(run, make_run):
    tuned = make_run("tuned")
    config = yaml.safe_load(tuned.config_file.read_text())
    config["Global"]["imports"] = ["some_digits"]
    for mode in ("Train", "Eval"):
        config["DataLoader"][mode]["dataset"].update(name="SomeDigits", digits=list(range(9)))
        del config["DataLoader"][mode]["dataset"]["in_chans"]
    tuned.config_file.write_text(yaml.safe_dump(config))
    options = [*O2, f"Global.pretrained_model={run.dir}/latest", "Global.finetune=true",
               "Model.class_num=9", "Global.epochs=1"]  # fmt: skip
    with forced():
        started = passl.build_run(load_config(tuned.config_file, options))
        started.trainer.save()
        started.trainer.parts.saver.finish()
        started.close()
    before, after = run.weights(), tuned.weights()
    assert after["head.weight"].shape == (16, 9)
    for name in before.keys() - {"head.weight", "head.bias"}:
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)


@pytest.mark.parametrize("link", ["best", "best_ema"])
def test_the_evaluation_command_takes_it_at_any_level(run, images, anywhere, capsys, link):
    figures = {}
    for level in (O2, ()):
        options = [*level, f"Global.pretrained_model={run.dir}/{link}"]
        assert eval_command.main(["-c", str(run.config_file), "-o", *options]) == 0
        said = capsys.readouterr().out
        assert ("running in fp32" in said) is (level is O2 and not anywhere)
        (line,) = [each for each in said.splitlines() if "[Avg]" in each]
        figures[level] = float(line.split("loss: ")[1].split(",")[0])
    if anywhere:  # other weights: rounded ones
        assert figures[O2] == pytest.approx(figures[()], rel=1e-2)
    else:
        assert figures[O2] == figures[()]
