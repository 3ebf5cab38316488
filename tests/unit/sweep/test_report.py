"""The table, the files and the best run say what the runs recorded."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import pytest
from swept import swept

from passl.errors import ConfigError
from passl.sweep.report import read_results

LR, SEED = "LRScheduler.learning_rate", "Global.seed"


def test_the_value_of_a_run_is_its_best_evaluation(tmp_path):
    record = swept(tmp_path, {LR: 0.1}, (0.2, 0.9, 0.4))
    (one,) = read_results([LR], [record], tmp_path).outcomes
    assert (one.best, one.epoch, one.step, one.last, one.train_loss) == (0.9, 2, 20, 0.4, 2.0)


def test_the_best_comes_first_and_what_has_no_value_last(tmp_path):
    records = [
        swept(tmp_path, {LR: 1}, (0.5,)),
        swept(tmp_path, {LR: 2}, state="failed", error="out of memory\nat step 3"),
        swept(tmp_path, {LR: 3}, (0.9,)),
        swept(tmp_path, {LR: 4}, (0.95,), state="stopped"),
    ]
    results = read_results([LR], records, tmp_path)
    assert [one.record.data[LR] for one in results.outcomes] == [3, 1, 4, 2]
    head, *rows = results.table()
    assert head[:2] == ["learning_rate", "top1"]
    assert rows[0][:2] == ["3", "0.9000"]
    assert rows[-1][1] == "-"
    assert results.failures() == ["failed: learning_rate=2: out of memory"]
    assert results.best_lines()[0] == "best: learning_rate=3: top1 0.9000 at epoch 1"


def test_the_command_that_repeats_the_best_run_has_a_new_folder_beside_the_sweep(tmp_path):
    """In the sweep's, or in the config's own, it would go on with what is there."""
    sweep = tmp_path / "lr"
    records = [swept(sweep, {"Model.name": "a b"}, (0.5,)), swept(sweep, {"Model.name": "c"})]
    command = read_results(["Model.name"], records, sweep).best_lines()[-1]
    folder = f"Global.output_dir={tmp_path}/lr_again/name=a b"
    assert shlex.split(command) == [
        "passl-train", "-c", "config.yaml", "-o", "Model.name=a b", folder
    ]


def test_a_sweep_in_the_current_folder_has_one_beside_it(tmp_path, monkeypatch):
    (tmp_path / "lr").mkdir()
    monkeypatch.chdir(tmp_path / "lr")
    record = swept(Path(), {LR: 1}, (0.5,))
    command = read_results([LR], [record], Path()).best_lines()[-1]
    assert f"Global.output_dir={tmp_path}/lr_again/learning_rate=1" in shlex.split(command)


def test_settings_are_compared_by_the_mean_over_their_seeds(tmp_path):
    scores = {(1, 1): 0.90, (1, 2): 0.50, (2, 1): 0.75, (2, 2): 0.77}
    records = [swept(tmp_path, {LR: a, SEED: b}, (s,)) for (a, b), s in scores.items()]
    results = read_results([LR, SEED], records, tmp_path)
    first, second = results.settings()
    assert (first.values, first.mean) == ({LR: "2"}, pytest.approx(0.76))
    assert first.deviation == pytest.approx(0.02 / 2**0.5)  # of two: their distance over root 2
    assert second.mean == pytest.approx(0.7)
    said = results.best_lines()
    assert "best setting: learning_rate=2: top1 0.7600, standard deviation 0.0141" in said[0]
    assert "Global.seed=2" in said[-1]
    assert LR + "=2" in said[-1]


def test_a_lucky_seed_of_a_worse_setting_is_not_the_best(tmp_path):
    """Where one setting has a single finished run."""
    scores = {(1, 1): 0.80, (2, 1): 0.50, (2, 2): 0.90}
    records = [swept(tmp_path, {LR: a, SEED: b}, (s,)) for (a, b), s in scores.items()]
    said = read_results([LR, SEED], records, tmp_path).best_lines()
    assert said[0] == "best: learning_rate=1,seed=1: top1 0.8000 at epoch 1"
    assert LR + "=1" in said[-1]


def test_seeds_alone_are_compared_one_by_one(tmp_path):
    records = [swept(tmp_path, {SEED: seed}, (seed / 10,)) for seed in (1, 2)]
    assert len(read_results([SEED], records, tmp_path).settings()) == 2


def test_of_a_loss_the_least_is_best(tmp_path):
    records = [swept(tmp_path, {LR: n}, (n / 10, 0.05)) for n in (1, 2)]
    results = read_results([LR], records, tmp_path, by="loss")
    assert results.outcomes[0].record.data[LR] == 2
    assert results.outcomes[0].best == pytest.approx(0.8)


def test_the_weights_that_are_kept_are_told_apart_from_the_best_by_another_measure(tmp_path):
    record = swept(tmp_path, {LR: 1}, (0.2, 0.9, 0.4))
    file = record.run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    for line in lines:
        if line["kind"] == "eval":
            line["loss"] = 1.0 / line["epoch"]  # least in the third epoch, top1 best in the second
            line["ema_top1"], line["ema_loss"] = line["top1"] / 2, 1.0
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    weights = {
        by: read_results([LR], [record], tmp_path, by=by).best_lines()[1]
        for by in (None, "loss", "ema_top1")
    }
    assert weights[None] == f"weights: {record.run_dir}/best"
    assert weights["loss"] == f"weights: {record.run_dir}/best (of epoch 2, the best by top1)"
    assert weights["ema_top1"] == f"weights: {record.run_dir}/best_ema"


def test_without_a_metric_the_newest_weights_are_named(tmp_path):
    record = swept(tmp_path, {LR: 1}, (0.2, 0.4))
    file = record.run_dir / "metrics.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    kept = [{k: v for k, v in line.items() if "top" not in k and k != "metric"} for line in lines]
    file.write_text("".join(json.dumps(line) + "\n" for line in kept))
    said = read_results([LR], [record], tmp_path).best_lines()
    assert said[:2] == [
        "best: learning_rate=1: loss 0.6000 at epoch 2",
        f"weights: {record.run_dir}/latest (of the last epoch)",
    ]


@pytest.mark.parametrize("by", ["step", "samples", "time"])
def test_what_measures_no_model_is_refused(tmp_path, by):
    with pytest.raises(ConfigError, match=f"--by {by}: the evaluations have"):
        read_results([LR], [swept(tmp_path, {LR: 1}, (0.5,))], tmp_path, by=by)


def test_an_unknown_measure_is_told_with_those_there_are(tmp_path):
    with pytest.raises(ConfigError, match="--by top2: the evaluations have CELoss, loss, top1, t"):
        read_results([LR], [swept(tmp_path, {LR: 1}, (0.5,))], tmp_path, by="top2")


def test_csv_and_json_hold_every_run(tmp_path):
    records = [
        swept(tmp_path, {LR: 0.1}, (0.5,)), swept(tmp_path, {LR: 0.2}, state="failed", error="x")
    ]
    results = read_results([LR], records, tmp_path)
    table, facts = results.write()
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row[LR], row["measure"], row["state"]) for row in rows] == [
        ("0.1", "0.5", "done"), ("0.2", "", "failed"),
    ]
    read = json.loads(facts.read_text())
    assert read["measure"] == "top1"
    assert [run["measure"] for run in read["runs"]] == [0.5, None]
    assert read["runs"][0]["values"] == {LR: 0.1}
    assert read["settings"][0]["runs"] == ["learning_rate=0.1"]


def test_a_sweep_without_results_says_so(tmp_path):
    results = read_results([LR], [swept(tmp_path, {LR: 1}, state="new")], tmp_path)
    assert results.best_lines() == ["no run has finished with a value to compare yet"]
