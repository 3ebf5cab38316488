"""Weights of an iLLaMA that saw another soft mask than the one it is run with now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_run import RunFolder, digits_config

from passl.cli import eval as eval_command
from passl.cli import export, infer, visualize

#: What each command is to say, on one of its two streams.
SENTENCE = "saved while soft_mask_rate was 0.25; to evaluate them as they were trained, use"


class Softened(RunFolder):
    """Two steps of training with a soft mask of 0.25; its config then says 0."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        content = digits_config(root / "out")
        kept = ("img_size", "patch_size", "in_chans", "class_num", "depth")
        content["Model"] = {
            **{key: content["Model"][key] for key in kept},
            "name": "iLLaMA", "embed_dim": 16, "num_heads": 2, "multiple_of": 16,
            "soft_mask_rate": 0.25,
        }  # fmt: skip
        self.config_file.write_text(yaml.safe_dump(content))
        assert self.train("Global.max_train_step=2", "Global.eval_during_train=false") == 0
        content["Model"]["soft_mask_rate"] = 0.0
        self.config_file.write_text(yaml.safe_dump(content))
        self.picture = root / "digit.png"
        pixels = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
        Image.fromarray(pixels).save(self.picture)

    @property
    def dir(self) -> Path:
        return self.root / "out" / "iLLaMA"


@pytest.fixture(scope="module")
def softened(tmp_path_factory: pytest.TempPathFactory) -> Softened:
    return Softened(tmp_path_factory.mktemp("softened") / "run")


def commands(run: Softened, out: Path) -> dict[str, tuple[list[str], Callable[..., int]]]:
    """Arguments and the command, by its name."""
    config = ["-c", str(run.config_file)]
    weights = ["-o", f"Global.pretrained_model={run.dir / 'latest'}"]
    picture = ["--input", str(run.picture), "--out", str(out / "drawn")]
    return {
        "eval": ([*config, *weights], eval_command.main),
        "export": ([*config, *weights, "--out", str(out / "exported")], export.main),
        "infer": ([str(run.picture), *config, *weights], infer.main),
        "visualize": (["attention", *config, *weights, *picture], visualize.main),
    }


@pytest.mark.parametrize("name", ["eval", "export", "infer", "visualize"])
def test_every_command_tells_of_another_soft_mask(softened, tmp_path, capsys, name):
    arguments, main = commands(softened, tmp_path)[name]
    capsys.readouterr()
    assert main(arguments) == 0
    said = "".join(capsys.readouterr())
    assert SENTENCE in " ".join(said.split())
    assert said.count("soft_mask_rate was 0.25") == 1
