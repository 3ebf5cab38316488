"""All combinations become runs with stable names, and all are checked before any is started."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_run import RunFolder

from passl.errors import ConfigError
from passl.sweep.factors import parse_grid, parse_random
from passl.sweep.plan import Sweep, plan_sweep, short_names

LR, DECAY, DROP = "LRScheduler.learning_rate", "Optimizer.weight_decay", "Model.drop_path_rate"


@pytest.fixture
def planned(run_folder: RunFolder):
    def plan(
        *grid: str, drawn: tuple[str, ...] = (), trials: int = 0, overrides: tuple[str, ...] = (),
        folder: Path = Path("sweeps/one"), seed: int = 0,
    ) -> Sweep:
        return plan_sweep(
            str(run_folder.config_file), overrides, parse_grid(grid), parse_random(drawn),
            trials=trials, seed=seed, folder=folder,
        )

    return plan


def names(sweep: Sweep) -> list[str]:
    return [run.name for run in sweep.runs]


def test_a_grid_is_every_combination_in_order(planned):
    sweep = planned(f"{LR}=1e-3,3e-3", f"{DECAY}=0.05,0.1")
    assert names(sweep) == [
        "learning_rate=0.001,weight_decay=0.05", "learning_rate=0.001,weight_decay=0.1",
        "learning_rate=0.003,weight_decay=0.05", "learning_rate=0.003,weight_decay=0.1",
    ]
    first = sweep.runs[0]
    assert first.config.LRScheduler["learning_rate"] == 0.001
    assert first.config.Global.output_dir == f"sweeps/one/{first.name}"


def test_more_values_add_runs_and_rename_none(planned):
    few = names(planned(f"{LR}=1e-3,3e-3"))
    assert set(few) < set(names(planned(f"{LR}=3e-3,1e-2,0.001")))
    drawn = (f"{LR}=log(1e-4,1e-2)",)
    few = names(planned(drawn=drawn, trials=3))
    assert few == names(planned(drawn=drawn, trials=5))[:3]
    assert few != names(planned(drawn=drawn, trials=3, seed=1))


def test_each_combination_of_a_grid_gets_the_same_draws(planned):
    sweep = planned(f"{DECAY}=0.05,0.1", drawn=(f"{LR}=log(1e-4,1e-2)",), trials=2)
    draws = [run.values[LR].label for run in sweep.runs]
    assert draws[:2] == draws[2:]


def test_trials_that_draw_the_same_are_one_run(planned):
    sweep = planned(drawn=(f"{DROP}=0.0,0.1",), trials=20)
    assert len(sweep.runs) == 2
    assert sweep.notes == ("20 trials drew 2 different runs; each is run once",)


def test_mistakes_of_all_runs_are_told_at_once_and_each_once(planned):
    with pytest.raises(ConfigError) as caught:
        planned(f"{LR}=1e-3,fast", f"{DROP}=0.1,-1", "Modle.depth=1,2")
    problems = caught.value.problems
    assert len(problems) == 4  # Modle with both its values
    assert sum("found 'fast'" in problem for problem in problems) == 1
    assert any("did you mean 'Model'" in problem for problem in problems)


def test_a_mistake_of_some_runs_that_is_found_in_the_file_names_one_of_them(planned, run_folder):
    file = run_folder.config_file
    text = file.read_text().replace("  epochs: 5", "  epochs: 5\n  global_batch_size: 512")
    file.write_text(text)
    said = r"512 is no .* \(run batch_size=500,learning_rate=1.0 and 1 more\)"
    with pytest.raises(ConfigError, match=said):
        planned("DataLoader.Train.sampler.batch_size=256,500", f"{LR}=1.0,2.0")


@pytest.mark.parametrize(
    ("grid", "overrides", "said"),
    [
        ((), (), "nothing varies"),
        ((f"{LR}=1,2", f"{LR}=3"), (), "is given twice"),
        (("Global.output_dir=a,b",), (), "cannot be swept"),
        ((f"{LR}=1,2",), ("Global.output_dir=x",), "choose it with --out"),
        ((f"{LR}=1,2",), (f"{LR}=3",), "varies in this sweep"),
        ((f"{LR}=1,2",), ("Global.eval_during_train=false",), "a sweep compares evaluations"),
        (("Optimizer.weight_decay=0,0.0",), (), "would be the same run"),
        (("Global.seed=linear(1,1000,1000)", "Global.epochs=linear(1,11,11)"), (), "11,000 runs"),
    ],
)
def test_a_sweep_that_makes_no_sense_is_refused(planned, grid, overrides, said):
    with pytest.raises(ConfigError, match=said):
        planned(*grid, overrides=overrides)


def test_a_folder_that_yaml_would_misread_is_kept_as_it_is(planned, tmp_path):
    folder = tmp_path / "my runs: #1"
    assert planned(f"{LR}=1e-3", folder=folder).runs[0].config.Global.output_dir.startswith(
        str(folder)
    )


def test_names_fit_for_folders_stay_different(planned):
    sweep = planned("Global.pretrained_model=null,a/b,a:b", "Global.checkpoint=null")
    assert len(set(names(sweep))) == 3
    assert not any("/" in name for name in names(sweep))


def test_short_names_tell_the_keys_apart():
    assert short_names(["A.b.lr", "A.decay"]) == {"A.b.lr": "lr", "A.decay": "decay"}
    assert short_names(["A.rate", "B.rate"]) == {"A.rate": "A.rate", "B.rate": "B.rate"}
    assert short_names(["Model.name"]) == {"Model.name": "Model"}
    assert short_names(["Loss.Train.0.weight"]) == {"Loss.Train.0.weight": "weight"}
    assert short_names(["Model.depths.0"]) == {"Model.depths.0": "depths.0"}
