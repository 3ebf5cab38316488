"""A trained model, found by its folder and built with its weights."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from passl.checkpoint.files import write_arrays
from passl.config import load_config
from passl.engine.trained import build_trained, config_of_run, newest_weights
from passl.engine.weights import weights_to_evaluate
from passl.errors import CheckpointError
from passl.models import create_model

SMALL = {"patch_size": 8, "embed_dim": 12, "depth": 1, "num_heads": 2, "class_num": 5}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Of a model for images of 16 pixels."""
    model = create_model("VisionTransformer", img_size=16, **SMALL)
    file = tmp_path / "weights.pdparams"
    write_arrays(file, {name: value.numpy() for name, value in model.state_dict().items()})
    return file


def config_for(tmp_path: Path, img_size: int):
    content = {"Model": {"name": "VisionTransformer", "img_size": img_size, **SMALL}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    return load_config(tmp_path / "config.yaml")


def test_positions_are_resized_for_pictures_and_refused_elsewhere(tmp_path, weights):
    fits = build_trained(config_for(tmp_path, 16), str(weights), device="cpu")
    assert not fits.layer.training
    assert (fits.weights, fits.record, fits.notes) == (weights, {}, ())
    larger = config_for(tmp_path, 32)
    with pytest.raises(CheckpointError, match="pos_embed"):
        build_trained(larger, str(weights), device="cpu")
    resized = build_trained(larger, str(weights), device="cpu", resize=True)
    assert list(resized.layer.pos_embed.shape) == [1, 17, 12]
    assert list(resized.loaded.resized) == ["pos_embed"]


def test_a_config_is_found_from_the_run_and_from_what_is_in_it(tmp_path):
    run = tmp_path / "run"
    inside = run / "checkpoints/step_00000003"
    inside.mkdir(parents=True)
    (run / "config.yaml").write_text("Model: {name: ViT_tiny_patch16_224}\n")
    (inside / "model.pdparams").write_bytes(b"")
    (inside / "manifest.json").write_text(json.dumps({}))
    assert config_of_run(run) == (run / "config.yaml", None)
    assert newest_weights(run) is None
    for path in (inside, inside / "model.pdparams", run / "checkpoints"):
        assert config_of_run(path) == (run / "config.yaml", path)
    assert config_of_run(tmp_path) is None
    (run / "latest").symlink_to(inside)
    assert newest_weights(run) == str(run / "latest")
    (run / "best").symlink_to(inside)
    assert newest_weights(run) == str(run / "best")


def test_what_is_typed_is_evaluated_else_the_best_of_the_run_else_its_newest(tmp_path: Path):
    def chosen(pretrained=None, checkpoint="auto", origin="x.yaml:3") -> str:
        section = SimpleNamespace(pretrained_model=pretrained, checkpoint=checkpoint)
        return weights_to_evaluate(SimpleNamespace(Global=section, origin=lambda _: origin), run)

    run = tmp_path / "run"
    with pytest.raises(CheckpointError, match=r"there are no weights yet: .* holds no checkpoint"):
        chosen()
    assert chosen("began with") == "began with"
    (run / "latest").mkdir(parents=True)
    assert chosen("began with") == str(run / "latest")
    (run / "best").mkdir()
    assert chosen("began with") == str(run / "best")
    assert chosen("began with", checkpoint="step_7") == "step_7"
    typed = "-o Global.pretrained_model=mine"
    assert chosen("mine", checkpoint="step_7", origin=typed) == "mine"
