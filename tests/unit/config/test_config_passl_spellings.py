"""Each spelling of PASSL's files is read, or refused with a sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from passl.config.compat import NOT_AVAILABLE, RULES, table_markdown
from passl.registry import REGISTRIES

HEAD = "Global: {imports: [fake_parts]}\nModel: {name: ToyNet}\n"


def optimizer(text: str) -> str:
    schedule = "LRScheduler: {name: ToySchedule, learning_rate: 1}"
    return f"{HEAD}{schedule}\nOptimizer: {{name: ToyOpt{text}}}\n"


@pytest.mark.parametrize("key", ["use_master_param", "exp_avg_force_fp32", "tensor_fusion"])
def test_settings_of_passls_fused_update_are_dropped(load, key):
    config = load(optimizer(f", {key}: True"))
    assert set(config.Optimizer.component) == {"name", "betas", "eps", "weight_decay"}
    assert config.notes[0].startswith(f"x.yaml:4: Optimizer.{key}: dropped; ")


def test_epsilon_and_eps_together_are_refused(problems):
    assert problems(optimizer(", epsilon: 1e-6, eps: 1e-8")) == [
        "x.yaml:4: Optimizer.epsilon: eps says the same; keep one of them"
    ]


@pytest.mark.parametrize(
    ("lr", "expected"),
    [
        ("3e-3", {"name": "Constant", "learning_rate": 0.003}),
        ("{name: ToySchedule, learning_rate: 2, decay_unit: epoch}",
         {"name": "ToySchedule", "learning_rate": 2.0, "unit": "epoch"}),
    ],
)  # fmt: skip
def test_a_learning_rate_inside_the_optimizer_becomes_the_schedule(load, lr, expected):
    config = load(f"{HEAD}Optimizer: {{name: ToyOpt, lr: {lr}}}\n")
    assert {key: config.LRScheduler[key] for key in expected} == expected
    assert config.origin("LRScheduler.learning_rate") == "x.yaml:3"


def test_a_learning_rate_in_both_places_is_refused(problems):
    assert problems(optimizer(", lr: 0.1")) == [
        "x.yaml:4: Optimizer.lr: the section LRScheduler says the same; keep one of them"
    ]


def test_lr_decay_unit_is_the_unit_of_the_schedule(load):
    assert load(optimizer(", lr_decay_unit: epoch")).LRScheduler["unit"] == "epoch"
    own = optimizer(", lr_decay_unit: epoch").replace(
        "learning_rate: 1", "learning_rate: 1, decay_unit: step"
    )
    assert load(own).LRScheduler["unit"] == "step"


def test_a_schedule_that_only_knows_steps_ignores_the_unit_as_in_passl(load, problems):
    text = HEAD + "LRScheduler: {name: StepOnlySchedule, learning_rate: 1, decay_unit: %s}\n"
    assert load(text % "epoch").LRScheduler["unit"] == "step"
    assert problems(text % "hour") == [
        "x.yaml:3: LRScheduler.unit: expected step, found 'hour' (text)"
    ]


def test_group_patterns_match_from_the_start_as_in_passl(load):
    config = load(
        optimizer(", param_groups: [{name: a, regular_exp: blocks.0}, {name: b, regular_exp: ^x}]")
    )
    assert [rule.pattern for rule in config.Optimizer.param_groups] == ["^(?:blocks.0)", "^x"]


def test_batch_transforms_inside_the_dataset_are_lifted_out(load):
    for key in (
        "dataset: {name: ToyData, root: r, batch_transform: [{ToyMix: {alpha: 2}}]}",
        "dataset: {name: ToyData, root: r, batch_transform_ops: [{ToyMix: {alpha: 2}}]}",
        "dataset: {name: ToyData, root: r}, batch_transform_ops: [{ToyMix: {alpha: 2}}]",
    ):
        config = load(f"{HEAD}DataLoader: {{Train: {{{key}}}}}\n")
        assert config.DataLoader.Train.batch_transform == [{"name": "ToyMix", "alpha": 2.0}]
        assert set(config.DataLoader.Train.dataset) == {"name", "root", "transform_ops"}


def test_the_transforms_of_transform_op_sampler_are_its_ops(load):
    config = load(
        f"{HEAD}DataLoader: {{Train: {{dataset: {{name: ToyData, root: r, batch_transform_ops: "
        "[{TransformOpSampler: {Mixup: {alpha: 0.8, prob: 0.5}, Cutmix: {prob: 0.5}}}]}}}\n"
    )
    (sampler,) = config.DataLoader.Train.batch_transform
    assert [(op["name"], op["prob"]) for op in sampler["ops"]] == [("Mixup", 0.5), ("Cutmix", 0.5)]
    assert sampler["ops"][0]["alpha"] == 0.8


def test_image_folder_spells_transform_ops_transform(load):
    config = load(
        f"{HEAD}DataLoader: {{Eval: {{dataset: {{name: ImageFolder, root: r, "
        "target_transform: null, transform: [{DecodeImage: null}]}}}\n"
    )
    steps = config.DataLoader.Eval.dataset["transform_ops"]
    assert [step["name"] for step in steps] == ["DecodeImage"]


def test_a_quoted_normalize_scale_is_the_number(load):
    config = load(
        f"{HEAD}DataLoader: {{Eval: {{dataset: {{name: ToyData, root: r, "
        "transform_ops: [{NormalizeImage: {scale: '1.0/255.0'}}, "
        "{ToyCrop: {size: 1, scale: '1/2'}}]}}}\n"
    )
    steps = config.DataLoader.Eval.dataset["transform_ops"]
    assert (steps[0]["scale"], steps[1]["scale"]) == (1.0 / 255.0, "1/2")


def test_class_num_of_a_dataset_may_only_repeat_the_models(load, problems):
    text = HEAD.replace("ToyNet", "ToyNet, class_num: 7") + (
        "DataLoader: {Train: {dataset: {name: ToyData, root: r, class_num: %d}}}\n"
    )
    assert "class_num" not in load(text % 7).DataLoader.Train.dataset
    assert problems(text % 8) == [
        "x.yaml:3: DataLoader.Train.dataset.class_num: 8 contradicts Model.class_num=7 (x.yaml:2)"
    ]


def test_what_says_nothing_is_dropped_in_silence(load):
    config = load(
        f"{HEAD}FP16:\nEMA:\nprofiler_options: a=b\nDistributedStrategy: {{recompute: null}}\n"
        "Optimizer: {name: ToyOpt, layer_decay: null, param_group_fn: {}, lr: null}\n"
        "Export: {input_shape: ['None', 3, 8, 8]}\n"
    )
    assert config.FP16.level == "O0"
    assert config.Export.input_shape == [None, 3, 8, 8]
    assert [note.split(": ")[1] for note in config.notes] == [
        "profiler_options",
        "Export.input_shape",
    ]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("{}", (0.9999, True, 1, 0)),
        ("{decay: 0.99, thres_steps: False}", (0.99, False, 1, 0)),
        ("{ema_eval: True, eval_start_epoch: 295}", (0.9999, True, 1, 295)),
        ("{ema_eval: False, eval_start_epoch: 295}", (0.9999, True, 1, None)),
    ],
)
def test_the_keys_of_passls_average_are_read(load, written, expected):
    ema = load(f"{HEAD}EMA: {written}\n").EMA
    assert (ema.decay, ema.warmup, ema.every, ema.eval_start_epoch) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("EMA: {ema_eval: 3}",
         "EMA.ema_eval: 3 is neither true nor false; write eval_start_epoch instead"),
        ("DistributedStrategy: {data_sharding: True}",
         "DistributedStrategy.data_sharding: PASSL's own switch, which it refuses as well; write "
         "false, and DistributedStrategy.sharding: {stage: 1} to keep the optimizer's state in "
         "parts"),
        ("DistributedStrategy: {data_parallel: False}",
         "DistributedStrategy.data_parallel: only data parallel training is available; write true"),
        ("DistributedStrategy: {recompute: {names: [head]}}",
         "DistributedStrategy.recompute: only layerlist_interval is available, as "
         "Global.recompute; remove the rest"),
        ("Optimizer: {name: ToyOpt, param_groups: [{name: a, pattern: a, lr: 0.1}]}",
         "Optimizer.param_groups.0.lr: a group has no schedule of its own; write lr_scale, "
         "a factor on the common one"),
        ("FP16: {level: O2, GradScaler: {no_unscale_list: [head]}}",
         "FP16.GradScaler.no_unscale_list: no_unscale_list is not available yet in this version"),
        ("Loss: {Train: [{mAP: {}}]}",
         "Loss.Train.0.name: mAP is not available yet in this version"),
    ],
)  # fmt: skip
def test_what_is_not_available_yet_says_so(problems, text, expected):
    assert problems(f"{HEAD}{text}\n") == [f"x.yaml:3: {expected}"]


@pytest.mark.parametrize(
    ("written", "read"),
    [("{layerlist_interval: 2}", 2), ("{layerlist_interval: 1, names: []}", 1), ("{}", False)],
)
def test_the_interval_of_recomputed_layers_is_global_recompute(load, written, read):
    config = load(f"{HEAD}DistributedStrategy: {{recompute: {written}}}\n")
    assert config.Global.recompute is read or config.Global.recompute == read


def test_recompute_is_said_once(problems):
    text = HEAD.replace("Global: {", "Global: {recompute: true, ")
    text += "DistributedStrategy: {recompute: {layerlist_interval: 2}}\n"
    (problem,) = problems(text)
    assert "DistributedStrategy.recompute: Global.recompute says the same" in problem


def test_contrastive_loops_are_refused(problems):
    text = "Global:\n  train_loop: ContrastiveLearningTrainingEpochLoop\nModel: SizedNet\n"
    assert problems(text.replace("Global:\n", "Global:\n  imports: [fake_parts]\n")) == [
        "x.yaml:3: Global.train_loop: ContrastiveLearningTrainingEpochLoop is not available "
        "yet in this version; only supervised training is"
    ]


@pytest.mark.parametrize(
    ("path", "usual", "own"),
    [
        ("Global.train_loop", "ClassificationTrainingEpochLoop", "MyLoop"),
        ("Global.validate_loop", "ClassificationEvaluationLoop", "MyLoop"),
        ("DataLoader.Train.loader.collate_fn", "default_collate_fn", "my_collate"),
    ],
)
def test_a_loop_or_collate_function_of_ones_own_is_told_to_have_no_effect(load, path, usual, own):
    data = f"{HEAD}DataLoader: {{Train: {{dataset: {{name: ToyData, root: x}}}}}}\n"
    assert load(data, f"{path}={usual}").notes == []
    (note,) = load(data, f"{path}={own}").notes
    assert note.startswith(f"-o {path}={own}: {path}: accepted and ignored; there is one ")


@pytest.mark.parametrize(("asked", "kept"), [(-1, 1_000_000), (0, 0), (3, 3)])
def test_a_negative_number_of_checkpoints_keeps_all(load, asked, kept):
    config = load(HEAD, f"Global.max_num_latest_checkpoint={asked}")
    assert config.Global.max_num_latest_checkpoint == kept
    assert len(config.notes) == (asked < 0)


@pytest.mark.parametrize("name", ["ViTLRScheduler", "TimmCosine", "Poly", "MultiStepDecay"])
def test_a_last_epoch_that_would_move_the_schedule_is_refused(load, problems, name):
    own = "milestones: [3], " if name == "MultiStepDecay" else ""
    text = f"{HEAD}LRScheduler: {{name: {name}, learning_rate: 1, {own}last_epoch: VALUE}}\n"
    for usual in ("-1", "0"):
        assert load(text.replace("VALUE", usual)).LRScheduler["last_epoch"] == int(usual)
    assert problems(text.replace("VALUE", "3")) == [
        "x.yaml:3: LRScheduler.last_epoch: expected a whole number of at least -1 and at most 0, "
        "found 3"
    ]


# -- the documented table ----------------------------------------------------------------------


def test_the_documentation_shows_the_table(repo: Path):
    text = (repo / "docs/passl_compatibility.md").read_text(encoding="utf-8")
    assert table_markdown() in text


def test_every_rule_has_a_reason_and_a_place_of_its_own():
    assert all(rule.here and rule.why for rule in RULES)
    assert len({rule.path for rule in RULES}) == len(RULES)


def test_nothing_is_called_unavailable_that_is_there():
    there = {name for registry in REGISTRIES.values() for name in registry.all_names()}
    assert not NOT_AVAILABLE & there
