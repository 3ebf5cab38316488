"""What an earlier start left is continued, or refused where it was another run."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os

import pytest
from small_run import RunFolder

from passl.errors import ConfigError
from passl.sweep.factors import parse_grid
from passl.sweep.plan import plan_sweep
from passl.sweep.progress import fraction_done
from passl.sweep.records import begin_start, end_start, prepare_records, read_sweep, write_sweep


@pytest.fixture
def sweep_of(run_folder: RunFolder):
    def make(*overrides: str, values: str = "0.1,0.2"):
        grid = parse_grid([f"LRScheduler.learning_rate={values}"])
        folder = run_folder.root / "sweep"
        file = str(run_folder.config_file)
        return plan_sweep(file, overrides, grid, [], trials=0, seed=0, folder=folder)

    return make


def begun(sweep):
    records = prepare_records(sweep)
    write_sweep(sweep, records)
    return records


def test_a_finished_run_stays_finished_and_a_new_value_is_new(sweep_of):
    first, _ = begun(sweep_of())
    begin_start(first)
    end_start(first, 0, 12.0)
    records = prepare_records(sweep_of(values="0.1,0.2,0.3"))
    assert [record.state for record in records] == ["done", "new", "new"]
    assert records[0].seconds == 12.0


def test_a_run_of_another_config_is_refused_and_what_is_harmless_is_not(sweep_of):
    first, _ = begun(sweep_of())
    begin_start(first)
    end_start(first, 0, 1.0)
    harmless = ("Global.print_batch_step=7", "DataLoader.Train.loader.num_workers=2")
    assert prepare_records(sweep_of(*harmless))[0].state == "done"
    with pytest.raises(ConfigError) as caught:
        prepare_records(sweep_of("Optimizer.weight_decay=0.3"))
    said = caught.value.problems
    assert "Optimizer.weight_decay was 0.05 and is 0.3" in said[0]
    assert len(said) == 2  # the other run was never begun
    assert "--out" in said[1]


def test_a_failed_run_without_a_checkpoint_may_be_mended(sweep_of):
    first, _ = begun(sweep_of())
    begin_start(first)
    end_start(first, 1, 1.0)
    assert prepare_records(sweep_of("Optimizer.weight_decay=0.3"))[0].state == "failed"
    (first.run_dir / "checkpoints" / "step_00000001").mkdir(parents=True)
    with pytest.raises(ConfigError, match="begun with another config"):
        prepare_records(sweep_of("Optimizer.weight_decay=0.3"))


@pytest.mark.parametrize(("noted", "state"), [(None, "stopped"), (0, "done"), (1, "failed")])
def test_after_a_killed_sweep_a_run_is_what_it_noted_itself(sweep_of, noted, state):
    first, _ = begun(sweep_of())
    begin_start(first)
    if noted is not None:
        note = {"exit": noted, "error": "its own words" if noted else ""}
        (first.notes / "rank_0.json").write_text(json.dumps(note))
    record = prepare_records(sweep_of())[0]
    assert record.state == state
    assert record.error == ("its own words" if noted else "")
    assert read_sweep(first.folder.parent)[1][0].state == state


def test_a_run_that_somebody_else_trains_is_left_alone(sweep_of):
    first, _ = begun(sweep_of())
    begin_start(first)
    first.run_dir.mkdir()
    handle = os.open(first.run_dir / "run.lock", os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="is being trained by another process"):
            prepare_records(sweep_of())
        assert read_sweep(first.folder.parent)[1][0].state == "running"
    finally:
        os.close(handle)
    assert prepare_records(sweep_of())[0].state == "stopped"


def test_a_folder_without_a_sweep_is_a_sentence(tmp_path):
    with pytest.raises(ConfigError, match="no sweep was begun in it"):
        read_sweep(tmp_path)


def test_how_far_a_run_is_follows_from_its_last_record(sweep_of):
    record = begun(sweep_of())[0]
    record.run_dir.mkdir()
    metrics = record.run_dir / "metrics.jsonl"
    assert fraction_done(record) == 0.0
    metrics.write_text('{"kind": "train", "step": 9, "epoch": 2}\n')
    assert fraction_done(record) == pytest.approx(1 / 5)
    metrics.write_text('{"kind": "eval", "step": 12, "epoch": 2}\n{"kind": "tr')
    assert fraction_done(record) == pytest.approx(2 / 5)
    with open(metrics, "a") as file:
        file.write('\n{"kind": "train", "step": 13, "epoch": "two"}\n' + "[" * 3000)
    assert fraction_done(record) == pytest.approx(2 / 5)
    assert fraction_done(dataclasses.replace(record, state="done")) == 1.0
