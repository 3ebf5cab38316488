"""Two processes that train in int8 have the ranges that one has."""

from __future__ import annotations

import numpy as np
import pytest
from launched import launch
from small_run import RunFolder

pytestmark = pytest.mark.slow

OPTIONS = (
    "Quantization={format: int8, mode: qat, calibration: {batches: 2}}", "Model.drop_rate=0",
    "Model.drop_path_rate=0", "Global.global_batch_size=250", "Global.eval_during_train=false",
    "~DataLoader.Train.sampler.batch_size",
)


def test_ranges_are_those_of_all_samples(tmp_path, repo, user_environment):
    one, two = RunFolder(tmp_path / "one"), RunFolder(tmp_path / "two")
    assert one.train(*OPTIONS, "Global.max_train_step=2") == 0
    launch(two, repo, user_environment, *OPTIONS, "Global.max_train_step=2")
    ranges = [run.state()["hooks"]["Int8Ranges"]["ranges"] for run in (one, two)]
    assert ranges[0].keys() == ranges[1].keys()
    for name, ends in ranges[0].items():
        # A step of a grid that a last bit decides moves what follows a little.
        np.testing.assert_allclose(ranges[1][name], ends, rtol=0.02, atol=0.02, err_msg=name)
