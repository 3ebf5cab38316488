"""Two processes with a teacher each learn what one learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from launched import launch
from small_run import RunFolder

from passl.checkpoint.files import write_arrays
from passl.models import create_model

pytestmark = pytest.mark.slow

TINY = {
    "img_size": 8, "patch_size": 4, "in_chans": 1, "embed_dim": 16, "depth": 2, "num_heads": 2,
    "mlp_ratio": 2.0,
}
OPTIONS = (
    "Global.max_train_step=4", "Global.global_batch_size=250", "Global.eval_during_train=false",
    "~DataLoader.Train.sampler.batch_size",
)


def student(root: Path, teacher: Path) -> RunFolder:
    run = RunFolder(root)
    config = yaml.safe_load(run.config_file.read_text())
    config["Model"] = {"name": "VisionTransformer", **TINY, "class_num": 10}
    config["Distillation"] = {
        "teacher": {"name": "VisionTransformer", "pretrained": str(teacher), "arguments": TINY},
        "temperature": 2.0,
    }
    run.config_file.write_text(yaml.safe_dump(config, sort_keys=False))
    return run


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    weights = create_model("VisionTransformer", seed=7, **TINY, class_num=10).state_dict()
    arrays = {name: value.numpy() for name, value in weights.items()}
    write_arrays(tmp_path / "t.pdparams", arrays)
    return tmp_path / "t.pdparams"


def test_two_processes_learn_from_a_teacher_what_one_learns(
    tmp_path, teacher, repo, user_environment
):
    one, two = (student(tmp_path / name, teacher) for name in ("one", "two"))
    assert one.train(*OPTIONS) == 0
    launch(two, repo, user_environment, *OPTIONS)
    for name, value in one.weights().items():
        np.testing.assert_allclose(two.weights()[name], value, rtol=0, atol=2e-5, err_msg=name)
    for mine, theirs in zip(one.records("train"), two.records("train")):
        for key in ("loss_ce", "loss_kd", "loss"):
            assert theirs[key] == pytest.approx(mine[key], rel=1e-4), key
