"""Files and their bases: merging, conflicts, circles, and files that cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from passl.config import load_config
from passl.errors import ConfigError

PARTS = "Global: {imports: [fake_parts]}\n"


def errors_of(path: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        load_config(path)
    return error.value.problems


# -- merging -----------------------------------------------------------------------------------


def test_mappings_merge_lists_replace_and_the_file_wins(write):
    write(
        "a.yaml",
        PARTS + "Model: {name: ToyNet, width: 3}\nMetric: {Eval: [{ToyMetric: {topk: "
        "[1, 5]}}, LoopMetric]}\n",
    )
    write("b.yaml", "Global: {seed: 7, epochs: 9}\n")
    write("x.yaml", "_base_: [a.yaml, b.yaml]\nGlobal: {epochs: 1}\nMetric: {Eval: [ToyMetric]}\n")
    config = load_config("x.yaml")
    assert (config.Global.seed, config.Global.epochs, config.Model["width"]) == (7, 1, 3)
    assert config.Metric.Eval == [{"name": "ToyMetric", "topk": [1]}]
    assert config.origin("Global.seed") == "b.yaml:1"
    assert config.origin("Global.epochs") == "x.yaml:2"
    assert config.origin("Model.width") == "a.yaml:2"
    assert config.origin("Model.act") == "default"


def test_bases_are_relative_to_the_file_that_names_them(write):
    write("_base_/deep/root.yaml", PARTS + "Model: {name: ToyNet}\n")
    write("_base_/mid.yaml", "_base_: deep/root.yaml\nGlobal: {seed: 1}\n")
    write("sub/x.yaml", "_base_: ../_base_/mid.yaml\n")
    config = load_config("sub/x.yaml")
    assert config.Model["name"] == "ToyNet"
    assert config.origin("Model.name") == "_base_/deep/root.yaml:2"


def test_delete_starts_a_mapping_empty(write):
    write(
        "a.yaml",
        PARTS + "Model: {name: ToyNet}\nFP16: {level: O2, GradScaler: {incr_ratio: 4.0}}\n",
    )
    write("x.yaml", "_base_: a.yaml\nFP16: {_delete_: true, level: O1}\n")
    config = load_config("x.yaml")
    assert config.FP16.level == "O1"
    assert config.FP16.GradScaler.incr_ratio == 2.0


def test_delete_must_be_true_or_false(write):
    write("x.yaml", PARTS + "Model: {name: ToyNet, _delete_: 1}\n")
    assert errors_of("x.yaml") == ["x.yaml:2: Model._delete_: expected true or false"]


def test_null_takes_a_section_of_the_base_away(write):
    write(
        "a.yaml", PARTS + "Model: {name: ToyNet}\nFP16: {level: O2}\nExport: {export_type: onnx}\n"
    )
    write("x.yaml", "_base_: a.yaml\nFP16:\nExport: null\n")
    config = load_config("x.yaml")
    assert config.FP16.level == "O0"
    assert config.Export is None


def test_another_component_drops_the_arguments_of_the_old_one_and_says_so(write):
    write("a.yaml", PARTS + "Model: {name: ToyNet, width: 3, act: relu}\n")
    write("x.yaml", "_base_: a.yaml\nModel:\n  name: SizedNet\n  img_size: 8\n")
    config = load_config("x.yaml")
    assert config.Model == {"name": "SizedNet", "img_size": 8, "class_num": 10}
    assert config.notes == [
        "x.yaml:3: Model: ToyNet -> SizedNet; arguments of ToyNet dropped: width, act"
    ]


def test_the_same_name_keeps_the_arguments(write):
    write("a.yaml", PARTS + "Model: {name: ToyNet, width: 3}\n")
    write("x.yaml", "_base_: a.yaml\nModel: {name: ToyNet, act: relu}\n")
    assert load_config("x.yaml").Model["width"] == 3


def test_what_belongs_to_the_section_survives_another_optimizer(write):
    write(
        "a.yaml",
        PARTS + "Model: ToyNet\nOptimizer:\n  name: ToyOpt\n  eps: 1.0\n  grad_clip: {clip_norm: "
        "3.0}\n"
        "  no_weight_decay_name: [bias]\n",
    )
    write("x.yaml", "_base_: a.yaml\nOptimizer: {name: Momentum, momentum: 0.5}\n")
    section = load_config("x.yaml").Optimizer
    assert section.component["name"] == "Momentum"
    assert "eps" not in section.component
    assert (section.grad_clip.clip_norm, section.no_weight_decay_name) == (3.0, ["bias"])


# -- conflicts and circles ---------------------------------------------------------------------


def test_two_bases_that_disagree_are_an_error_that_names_both(write):
    write("a.yaml", PARTS + "Model: {name: ToyNet}\nFP16:\n  level: O1\n")
    write("b.yaml", "FP16:\n  dtype: bfloat16\n  level: O2\n")
    write("x.yaml", "_base_: [a.yaml, b.yaml]\n")
    assert errors_of("x.yaml") == [
        "b.yaml:3: FP16.level: O2 contradicts O1 of a.yaml:4; both are bases of x.yaml, so set "
        "FP16.level there"
    ]


@pytest.mark.parametrize(
    "own", ["FP16: {level: O0}", "FP16: {_delete_: true}", "FP16:"], ids=["set", "deleted", "null"]
)
def test_the_file_itself_settles_what_its_bases_disagree_on(write, own):
    write("a.yaml", PARTS + "Model: {name: ToyNet}\nFP16: {level: O1}\n")
    write("b.yaml", "FP16: {level: O2}\n")
    write("x.yaml", f"_base_: [a.yaml, b.yaml]\n{own}\n")
    assert load_config("x.yaml").FP16.level == "O0"


def test_bases_that_say_the_same_agree(write):
    write("root.yaml", PARTS + "Model: {name: ToyNet}\n")
    write("a.yaml", "_base_: root.yaml\nFP16: {level: O1}\n")
    write("b.yaml", "_base_: root.yaml\nGlobal: {seed: 3}\n")
    write("x.yaml", "_base_: [a.yaml, b.yaml]\n")
    assert load_config("x.yaml").Global.seed == 3


def test_two_bases_with_different_components_conflict_in_the_name_only(write):
    write("a.yaml", PARTS + "Model: {name: ToyNet, width: 3}\n")
    write("b.yaml", "Model: {name: SizedNet, img_size: 8}\n")
    write("x.yaml", "_base_: [a.yaml, b.yaml]\n")
    assert errors_of("x.yaml") == [
        "b.yaml:1: Model.name: SizedNet contradicts ToyNet of a.yaml:2; both are bases of x.yaml, "
        "so set Model.name there"
    ]
    write("x.yaml", "_base_: [a.yaml, b.yaml]\nModel: {name: ToyNet_wide}\n")
    assert load_config("x.yaml").Model["width"] == 64


def test_a_circle_of_bases_prints_its_chain(write):
    write("a.yaml", "Global: {}\n_base_: b.yaml\n")
    write("b.yaml", "_base_: c.yaml\n")
    write("c.yaml", "_base_:\n- a.yaml\n")
    assert errors_of("a.yaml") == [
        "c.yaml:2: _base_: goes in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    ]


def test_a_file_that_is_its_own_base(write):
    write("a.yaml", "_base_: a.yaml\n")
    assert errors_of("a.yaml") == ["a.yaml:1: _base_: goes in a circle: a.yaml -> a.yaml"]


def test_a_base_that_is_not_a_path(write):
    write("x.yaml", "Model: ToyNet\n_base_: [1, {a: b}]\n")
    assert errors_of("x.yaml") == [
        "x.yaml:2: _base_: expected a path or a list of paths to YAML files"
    ]


def test_every_base_that_cannot_be_read_is_named(write):
    write("_base_/runtime.yaml", "Global: {seed: 1}\n")
    write("bad.yaml", "Global: [\n")
    write("x.yaml", "_base_:\n- _base_/runtim.yaml\n- bad.yaml\n- nowhere/a.yaml\n")
    assert errors_of("x.yaml") == [
        "x.yaml:2: _base_: _base_/runtim.yaml: no such file; did you mean '_base_/runtime.yaml'?",
        "bad.yaml:2: not valid YAML: expected the node content, but found '<stream end>' (column "
        "1)",
        "x.yaml:4: _base_: nowhere/a.yaml: no such file (there is no folder nowhere)",
    ]


# -- files that cannot be read -----------------------------------------------------------------


def test_a_missing_file_names_its_neighbour(write):
    write("configs/ViT_base.yaml", "")
    assert errors_of("configs/ViT_bas.yaml") == [
        "configs/ViT_bas.yaml: no such file; did you mean 'configs/ViT_base.yaml'?"
    ]


def test_a_directory(write):
    write("configs/ViT_base.yaml", "")
    assert errors_of("configs") == [
        "configs: is a directory; name a YAML file, such as configs/ViT_base.yaml"
    ]


def test_a_binary_file(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"Model:\n\xff\xfe\x00")
    assert errors_of("x.yaml") == [
        "x.yaml:2: not a text file (byte 0xff); a config is YAML in UTF-8"
    ]
    (tmp_path / "x.yaml").write_bytes(b"Model:\x00")
    assert errors_of("x.yaml") == ["x.yaml: not a text file; a config is YAML in UTF-8"]


def test_a_file_that_may_not_be_read(write, monkeypatch):
    write("x.yaml", "")

    def refuse(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert errors_of("x.yaml") == ["x.yaml: cannot be read: Permission denied"]


def test_a_file_that_is_far_too_large(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"# " + b"x" * 2_000_000)
    assert errors_of("x.yaml") == [
        "x.yaml: 2000002 bytes are too many for a config; is it the right file?"
    ]


def test_a_file_outside_the_current_folder_is_shown_as_it_was_given(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "x.yaml").write_text("Model: 5\n")
    monkeypatch.chdir(tmp_path / "here")
    (line,) = errors_of("../x.yaml")
    assert line.startswith("../x.yaml:1: Model: expected a model")


# -- YAML itself -------------------------------------------------------------------------------


def test_anchors_aliases_and_merge_keys_work(load):
    config = load(
        PARTS
        + "Model: {name: ToyNet}\n"
        "Metric:\n  Train: &both\n  - &m {name: ToyMetric, topk: [2]}\n  Eval: *both\n"
        "Hooks:\n- &h {name: ToyHook, every: 3}\n- {<<: *h, every: 4}\n- {<<: [*h, *m]}\n".replace(
            "- {<<: [*h, *m]}\n", "- {<<: [*h]}\n"
        )
    )
    assert config.Metric.Eval == config.Metric.Train == [{"name": "ToyMetric", "topk": [2]}]
    assert [hook["every"] for hook in config.Hooks] == [3, 4, 3]
    assert config.origin("Hooks.1.every") == "x.yaml:9"
    assert config.origin("Hooks.2.every") == "x.yaml:8"


def test_a_long_path_keeps_its_end_and_the_line(write, tmp_path):
    folder = "of/" + "deep/" * 25
    config = load_config(write(f"{folder}x.yaml", PARTS + "Model: {name: ToyNet}\n"))
    assert config.origin("Model.name").endswith("deep/x.yaml:2")
    path = write(f"{folder}y.yaml", PARTS + "Model: {name: ToyNet, widht: 3}\n")
    (problem,) = errors_of(str(path))
    assert f"{folder}y.yaml:2: " in problem


def test_every_value_knows_its_line(load):
    config = load(PARTS + "Model:\n  name: ToyNet\n  dims:\n  - 3\n  -\n    4\n", "Model.act=relu")
    assert config.origin("Model.dims") == "x.yaml:5"
    assert config.origin("Model.dims.1") == "x.yaml:7"
    assert config.origin("Model.act") == "-o Model.act=relu"
    assert config.origin("FP16.level") == "default"
    assert config.source_path == Path("x.yaml")
    assert config.overrides == ("Model.act=relu",)
