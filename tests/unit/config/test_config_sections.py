"""The typed config that the engine reads."""

from __future__ import annotations

import dataclasses
import re

import pytest

from passl.config import Config, load_config, require
from passl.config.places import field_types
from passl.config.reference import reference_markdown
from passl.config.schema import SECTIONS
from passl.errors import ConfigError
from passl.registry import REGISTRIES
from passl.signatures import MISSING

HEAD = "Global: {imports: [fake_parts]}\nModel: {name: ToyNet}\n"


def test_defaults(load):
    config = load(HEAD)
    assert isinstance(config, Config)
    assert (config.Global.device, config.Global.seed, config.Global.checkpoint) == (
        "auto",
        2021,
        "auto",
    )
    assert (config.FP16.level, config.FP16.GradScaler.max_loss_scaling) == ("O0", 2.0**32)
    assert (config.LRScheduler, config.Optimizer, config.Export) == (None, None, None)
    assert (config.DataLoader.Train, config.Loss.Train, config.Hooks, config.notes) == (
        None,
        [],
        [],
        [],
    )


def test_components_hold_all_their_arguments(base, load):
    config = load(base)
    assert config.Model == {
        "name": "ToyNet",
        "width": 8,
        "class_num": 10,
        "act": "gelu",
        "drop_rate": 0.0,
        "dims": (1, 2),
        "note": "",
        "anything": None,
    }
    assert config.Optimizer.component == {
        "name": "ToyOpt",
        "betas": (0.9, 0.999),
        "eps": 1e-8,
        "weight_decay": 0.1,
    }
    assert config.LRScheduler == {"name": "ToySchedule", "learning_rate": 0.003, "unit": "step"}


def test_variants_and_aliases_are_components(load):
    assert load(HEAD.replace("ToyNet", "ToyNet_wide")).Model["width"] == 64
    assert load(HEAD.replace("ToyNet", "toy_net")).Model["width"] == 8


def test_every_way_to_write_a_component_in_a_list(load):
    config = load(
        HEAD + "Metric:\n  Eval:\n  - ToyMetric\n  - ToyMetric:\n  - ToyMetric: {topk: [3]}\n"
        "  - {name: ToyMetric, topk: [3]}\n"
    )
    assert [metric["topk"] for metric in config.Metric.Eval] == [[1], [1], [3], [3]]


def test_nested_components_are_completed_as_well(load):
    config = load(
        HEAD + "DataLoader: {Train: {dataset: {name: ToyData, root: r, transform_ops: "
        "[{ToyChoice: {first: {ToyCrop: {size: 1}}, others: [ToyFlip]}}, {name: ToyChoice, first: "
        "ToyFlip}]}}}\n"
    )
    assert config.DataLoader.Train.dataset["transform_ops"] == [
        {
            "name": "ToyChoice",
            "first": {"name": "ToyCrop", "size": 1, "scale": 1.0},
            "others": [{"name": "ToyFlip"}],
        },
        {"name": "ToyChoice", "first": {"name": "ToyFlip"}, "others": None},
    ]


@pytest.mark.parametrize("given", ["", ", transform_ops: null", ", transform_ops: []"])
def test_no_transforms_are_an_empty_list_however_it_is_written(load, given):
    config = load(HEAD + f"DataLoader: {{Train: {{dataset: {{name: ToyData, root: r{given}}}}}}}\n")
    assert config.DataLoader.Train.dataset["transform_ops"] == []


def test_a_component_that_only_running_its_module_shows_is_found(load):
    config = load(HEAD + "Metric: {Eval: [{LoopMetric: {k: 3}}]}\n")
    assert config.Metric.Eval == [{"name": "LoopMetric", "k": 3}]


def test_a_module_that_fails_is_named_with_its_error(write, load, problems):
    write("broken_parts.py", "raise RuntimeError('no licence')\n")
    text = "Global:\n  imports: [broken_parts]\nModel: {name: Nowhere_net}\n"
    import sys

    sys.path.insert(0, ".")
    try:
        first, second = problems(text)
    finally:
        sys.path.remove(".")
    assert (
        first == "x.yaml:2: Global.imports: importing broken_parts failed: RuntimeError: no licence"
    )
    assert second.startswith("x.yaml:3: Model.name: no model is called 'Nowhere_net'")


def test_sampler_keys_are_lifted_out_and_training_data_is_shuffled(load):
    config = load(
        HEAD + "DataLoader:\n  Train:\n    dataset: {name: ToyData, root: r}\n"
        "    sampler: {batch_size: 4, drop_last: true}\n  Eval:\n    dataset: {name: ToyData, "
        "root: r}\n"
    )
    train, evaluation = config.DataLoader.Train.sampler, config.DataLoader.Eval.sampler
    assert train.component == {"name": "DistributedBatchSampler"}
    assert (train.batch_size, train.drop_last, train.shuffle) == (4, True, True)
    assert (evaluation.batch_size, evaluation.drop_last, evaluation.shuffle) == (None, False, False)
    written = (
        HEAD
        + "DataLoader: {Train: {dataset: {name: ToyData, root: r}, sampler: {shuffle: false}}}\n"
    )
    assert load(written).DataLoader.Train.sampler.shuffle is False


def test_the_config_cannot_be_changed(base, load):
    config = load(base)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Global.epochs = 3  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Model = {}  # type: ignore[misc]


def test_require_says_what_a_mode_lacks(base, load):
    config = load(base)
    require(config, "train")
    with pytest.raises(ConfigError) as error:
        require(config, "eval")
    assert error.value.problems == [
        "x.yaml: DataLoader.Eval: missing; evaluation needs data",
        "x.yaml: Metric.Eval: missing; evaluation needs a metric (or Loss.Eval)",
    ]


def test_two_loads_do_not_share_defaults(base, load):
    first, second = load(base), load(base)
    first.Global.flags["x"] = 1
    first.Loss.Train[0].component["epsilon"] = 9
    assert second.Global.flags == {}
    assert second.Loss.Train[0].component["epsilon"] == 0.1


@pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)
def test_every_field_is_documented_and_its_default_is_of_its_type(section):
    doc = section.__doc__ or ""
    for item in dataclasses.fields(section):
        assert f"\n        {item.name}: " in doc, f"{section.__name__}.{item.name}"
        if item.default is not dataclasses.MISSING:
            assert field_types(section)[item.name].check(item.default)[1] == []


def test_defaults_of_all_registered_components_are_of_their_types():
    """They are filled in and printed, so a printed config must accept them."""
    for registry in REGISTRIES.values():
        for name in registry.all_names():
            for param in registry.spec(name).configurable:
                if param.default is not MISSING and param.component is None:
                    assert param.type.check(param.default)[1] == [], f"{name}.{param.name}"


def test_every_shipped_config_loads(repo, monkeypatch):
    monkeypatch.chdir(repo)
    files = [path for path in sorted(repo.glob("configs/**/*.yaml")) if "_base_" not in path.parts]
    assert files
    for path in files:
        config = load_config(path, mode="train")
        load_config(path, mode="eval")
        assert config.notes == [], "our own files use our own spelling"


def test_the_documentation_lists_every_key(repo):
    """Write docs/config.md anew from ``reference_markdown()`` when a section changes."""
    assert reference_markdown() in (repo / "docs/config.md").read_text(encoding="utf-8")


def test_the_examples_of_the_documentation_are_right(repo, write, monkeypatch):
    """Each YAML example of docs/config.md loads beside a model."""
    monkeypatch.chdir(repo)
    text = (repo / "docs/config.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 2
    for block in blocks:
        block = block.replace("_base_/", f"{repo}/configs/_base_/")
        load_config(write("x.yaml", block + "\nModel: {name: ViT_base_patch16_224}\n"))


def test_strict_precision_that_no_cpu_has_is_refused_before_the_run(load, problems, base):
    strict = (base, "FP16.level=O1", "FP16.strict=true")
    assert problems(*strict, "Global.device=cpu", mode="train") == [
        "-o FP16.level=O1: FP16.level: O1 float16 does not exist on a CPU; use -o FP16.level=O0, "
        "or FP16.strict=false to run in fp32 instead"
    ]
    load(*strict, "Global.device=gpu", mode="train")
    load(*strict, "Global.device=auto", mode="train")  # nobody knows yet
    load(*strict, "Global.device=cpu")  # exports and guesses run in float32


def test_a_new_head_without_fine_tuning_is_refused_as_the_old_one_would_stay(
    base, load, problems
):
    weights = (base, "Global.pretrained_model=w", "Global.finetune_head=new")
    assert problems(*weights, mode="train") == [
        "-o Global.finetune_head=new: Global.finetune_head: 'new' has no effect without "
        "Global.finetune: true, which adapts weights to other classes; write that as well, or "
        "leave this out"
    ]
    assert load(*weights, "Global.finetune=true", mode="train").Global.finetune_head == "new"
    load(base, "Global.finetune_head=new", mode="train")  # no weights: every head is new
