"""Pictures, settings and the graph that a run shows, and what they may not cost."""

from __future__ import annotations

import importlib.util
import types

import numpy as np
import paddle
import pytest

import passl
from passl.cli import check
from passl.data.loader import Batch
from passl.engine.reports.boards import settings_of
from passl.engine.reports.mistakes import MistakeWatch
from passl.engine.reports.model_graph import trace_graph
from passl.engine.reports.writers import build_writers, check_writers
from passl.errors import ConfigError
from passl.logs.writers.base import Writer
from passl.precision.amp import Precision


def without_writers(monkeypatch):
    """As if the packages of all writers were missing, and these only."""
    found, missing = importlib.util.find_spec, {"visualdl", "tensorboardX", "wandb"}
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name in missing else found(name)
    )


def softmax(logits):
    raised = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raised / raised.sum(axis=1, keepdims=True)


def batch_of(labels, indices):
    labels = np.asarray(labels)
    return Batch(np.zeros((len(labels), 1, 1, 1), np.uint8), labels, np.asarray(indices), 0)


def test_the_worst_mistakes_are_the_surest_of_all_batches():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(50, 7)).astype(np.float32) * 3
    labels, indices = rng.integers(0, 7, 50), rng.permutation(1000)[:50]
    watch = MistakeWatch(6)
    for part in (slice(0, 20), slice(20, 21), slice(21, 50)):
        watch.see(batch_of(labels[part], indices[part]), paddle.to_tensor(logits[part]))
    found = watch.worst()

    probabilities = softmax(logits)
    predicted, top = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = [i for i in np.argsort(-top) if predicted[i] != labels[i]][:6]
    assert [(each.sample, each.true, each.predicted) for each in found] == [
        (indices[i], labels[i], predicted[i]) for i in wrong
    ]
    np.testing.assert_allclose([each.probability for each in found], top[wrong], rtol=1e-5)
    right = [probabilities[i, labels[i]] for i in wrong]
    np.testing.assert_allclose([each.probability_true for each in found], right, rtol=1e-5)


def test_right_answers_and_samples_of_several_labels_are_no_mistakes():
    watch = MistakeWatch(5)
    logits = paddle.to_tensor(np.eye(3, dtype=np.float32))
    watch.see(batch_of([0, 1, 2], [5, 6, 7]), logits)
    watch.see(batch_of(np.eye(3, dtype=np.float32), [5, 6, 7]), logits)
    assert watch.worst() == []


def test_the_graph_has_every_layer_with_weights_once_and_in_order():
    model = passl.create_model("ViT_tiny_patch16_224", img_size=32, depth=2, class_num=10)
    model.train()
    before = {name: value.numpy() for name, value in model.state_dict().items()}
    paddle.seed(3)
    expected = paddle.rand([4]).numpy()
    paddle.seed(3)
    graph = trace_graph(model, paddle.zeros([1, 3, 32, 32]), Precision())
    np.testing.assert_array_equal(paddle.rand([4]).numpy(), expected)  # no random number is drawn
    assert model.training
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), before[name])
    paths = [node.path for node in graph.nodes]
    leaves = {
        name.replace(".", "/")
        for name, layer in model.named_sublayers()
        if not layer.sublayers() and list(layer.parameters())
    }
    assert leaves <= set(paths)
    assert len(paths) == len(set(paths))
    assert (paths[0], paths[-1]) == ("patch_embed/proj", "head")
    assert paths.index("blocks/0/mlp/fc2") < paths.index("blocks/1/attn/qkv")
    sizes = {node.path: (node.kind, node.parameters, node.output) for node in graph.nodes}
    assert sizes["head"] == ("Linear", 192 * 10 + 10, (-1, 10))
    assert sizes["blocks/0/attn/qkv"] == ("Linear", 3 * 192 * 193, (-1, 5, 3 * 192))
    assert not any(layer._forward_post_hooks for layer in model.sublayers())


def load(run_folder, *overrides):
    return passl.load_config(run_folder.config_file, list(overrides))


def test_settings_are_what_the_config_says_and_no_default(run_folder):
    config = load(run_folder, "Optimizer.weight_decay=0.125")
    plan = types.SimpleNamespace(num_epochs=5, global_batch_size=256)
    settings = settings_of(config, plan)
    assert settings["Model"] == "VisionTransformer"
    assert settings["Optimizer/weight_decay"] == 0.125
    assert settings["LRScheduler/learning_rate"] == 0.01
    assert settings["Optimizer/grad_clip/clip_norm"] == 1.0
    assert settings["Global/global_batch_size"] == 256
    assert "Optimizer/betas" not in settings
    assert not any("." in name for name in settings), "VisualDL shows nothing for such a name"


@pytest.mark.parametrize("name", ["tensorboard", "TensorBoard", "wandb", "WandB"])
def test_a_missing_package_is_a_sentence_before_anything_is_built(run_folder, monkeypatch, name):
    without_writers(monkeypatch)
    config = load(run_folder, f"Logging.writers=[{name}]")
    with pytest.raises(ConfigError) as caught:
        check_writers(config)
    packages = {"tensorboard": "tensorboardX tensorboard", "wandb": "wandb"}[name.lower()]
    assert f"type pip install {packages}, or leave" in str(caught.value)
    assert f"-o Logging.writers=[{name}]: Logging.writers: " in str(caught.value)
    with pytest.raises(ConfigError):
        passl.build_run(config)
    assert not run_folder.dir.exists()


@pytest.mark.parametrize(
    ("names", "twice"),
    [("VisualDL,visualdl", "VisualDL"), ("TensorBoard,VisualDL,tensorboard", "TensorBoard")],
)
def test_a_writer_that_is_listed_twice_is_refused(run_folder, names, twice):
    config = load(run_folder, f"Logging.writers=[{names}]")
    with pytest.raises(ConfigError, match=f"Logging.writers: {twice} is listed twice"):
        check_writers(config)


def test_passl_check_says_that_a_package_is_missing(run_folder, monkeypatch, capsys):
    without_writers(monkeypatch)
    options = ["-c", str(run_folder.config_file), "-o", "Logging.writers=[wandb]"]
    assert check.main(options) == 2
    assert "Weights & Biases needs the package wandb" in capsys.readouterr().err


def test_visualdl_that_nobody_asked_for_may_be_missing(run_folder, monkeypatch, caplog):
    without_writers(monkeypatch)
    config = load(run_folder, "Global.use_visualdl=true")
    check_writers(config)
    assert build_writers(config, run_folder.dir) == []


def test_use_visualdl_takes_visualdl_and_nothing_else_away(run_folder):
    def names(*overrides):
        found = build_writers(load(run_folder, *overrides), run_folder.dir)
        return [type(writer).__name__ for writer in found]

    assert names() == []  # the small config says Global.use_visualdl: false
    assert names("Global.use_visualdl=true") == ["VisualDL"]
    assert names("Global.use_visualdl=true", "Logging.writers=[]") == []
    assert names("Global.use_visualdl=true", "Logging.writers=[visualdl]") == ["VisualDL"]


def test_a_writer_of_a_users_own_is_named_like_ours(run_folder, tmp_path, monkeypatch):
    (tmp_path / "my_writers.py").write_text(
        "from pathlib import Path\n"
        "from typing import Annotated\n"
        "from passl.logs.writers.visualdl import VisualDL\n"
        "from passl.registry import WRITERS, Runtime\n"
        "@WRITERS.register()\n"
        "class MyWriter(VisualDL):\n"
        '    """Mine.\n\n'
        "    Args:\n"
        "        run_dir: of the run.\n"
        "        colour: of the lines.\n"
        '    """\n'
        "    def __init__(self, *, run_dir: Annotated[Path, Runtime()], colour: str) -> None:\n"
        "        super().__init__(run_dir=run_dir)\n"
        "        self.colour = colour\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = load(
        run_folder,
        "Global.imports=[my_writers]",
        "Logging.writers=[{name: MyWriter, colour: blue}]",
    )
    (writer,) = build_writers(config, run_folder.dir)
    assert isinstance(writer, Writer)
    assert writer.colour == "blue"
