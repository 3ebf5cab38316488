"""``-o``: what each form does to the config."""

from __future__ import annotations

OPS = "DataLoader.Train.dataset.transform_ops"


def test_values_are_yaml(base, load):
    config = load(
        base,
        "Global.eval_during_train=true",
        "Global.checkpoint=null",
        "Global.seed=0",
        "Optimizer.betas=(0.8, 0.9)",
        "LRScheduler.learning_rate=1e-2",
        "Global.flags={a: 1, b: [x]}",
        "Optimizer.grad_clip={clip_norm: 2}",
    )
    assert config.Global.eval_during_train is True
    assert config.Global.checkpoint is None
    assert config.Global.seed == 0
    assert config.Optimizer.component["betas"] == (0.8, 0.9)
    assert config.LRScheduler["learning_rate"] == 0.01
    assert config.Global.flags == {"a": 1, "b": ["x"]}
    assert config.Optimizer.grad_clip.clip_norm == 2.0


def test_an_empty_value_is_null(base, problems):
    assert problems(base, "Global.output_dir=") == [
        "-o Global.output_dir=: Global.output_dir: expected text, found null"
    ]


def test_a_value_may_contain_equals_signs(base, load):
    config = load(base, "Model.note=a=b=c", "DataLoader.Train.dataset.root=/data/x=1")
    assert config.Model["note"] == "a=b=c"
    assert config.DataLoader.Train.dataset["root"] == "/data/x=1"
    assert config.origin("Model.note") == "-o Model.note=a=b=c"


def test_the_last_one_wins(base, load):
    assert load(base, "Global.epochs=3", "Global.epochs=4").Global.epochs == 4


def test_list_entries_by_number_with_and_without_the_component_name(base, load):
    for override in (
        f"{OPS}.0.size=16",
        f"{OPS}.0.ToyCrop.size=16",
        f"{OPS}.-2.size=16",
        f"{OPS}.ToyCrop.size=16",
        f"{OPS}.0={{ToyCrop: {{size: 16}}}}",
        f"{OPS}.0.ToyCrop={{size: 16}}",
        f"{OPS}.0={{name: ToyCrop, size: 16}}",
    ):
        operations = load(base, override).DataLoader.Train.dataset["transform_ops"]
        assert operations[0] == {"name": "ToyCrop", "size": 16, "scale": 1.0}, override
        assert len(operations) == 2


def test_both_forms_of_a_component_take_both_paths(base, load):
    named = base.replace("- ToyCrop: {size: 32}", "- {name: ToyCrop, size: 32}")
    for override in (
        f"{OPS}.0.size=16",
        f"{OPS}.0.ToyCrop.size=16",
        f"{OPS}.0.ToyCrop={{size: 16}}",
    ):
        assert load(named, override).DataLoader.Train.dataset["transform_ops"][0]["size"] == 16, (
            override
        )


def test_loss_terms_as_in_passl(base, load):
    term = load(base, "Loss.Train.0.ToyLoss.epsilon=0").Loss.Train[0]
    assert (term.weight, term.component) == (0.5, {"name": "ToyLoss", "epsilon": 0.0})


def test_an_argument_of_a_component_without_any(base, load):
    config = load(base, f"{OPS}.1.name=ToyCrop", f"{OPS}.1.size=8")
    assert config.DataLoader.Train.dataset["transform_ops"][1] == {
        "name": "ToyCrop",
        "size": 8,
        "scale": 1.0,
    }


def test_a_new_name_drops_the_arguments_of_the_old_component(base, load):
    config = load(base + "Hooks: [{name: ToyHook, every: 2}]\n", "Optimizer.name=Momentum")
    assert "weight_decay" in config.Optimizer.component  # Momentum's own, at its default
    assert config.Optimizer.component["weight_decay"] == 0.0
    assert config.notes == [
        "-o Optimizer.name=Momentum: Optimizer: ToyOpt -> Momentum; arguments of ToyOpt dropped: "
        "weight_decay"
    ]


def test_the_number_of_classes_is_of_the_data_and_stays_with_another_model(base, load):
    text = base.replace("name: ToyNet\n", "name: ToyNet\n  class_num: 7\n  depth: 3\n", 1)
    assert load(text, "Model.name=SizedNet").Model == {
        "name": "SizedNet", "class_num": 7, "img_size": 32,
    }  # fmt: skip


def test_a_new_name_keeps_what_the_command_line_sets_in_any_order(base, load):
    for overrides in (
        ["Model.name=SizedNet", "Model.class_num=3"],
        ["Model.class_num=3", "Model.name=SizedNet"],
    ):
        assert load(base, *overrides).Model == {"name": "SizedNet", "class_num": 3, "img_size": 32}


def test_removing(base, load):
    config = load(base, "~Optimizer.weight_decay", f"~{OPS}.0", "~Loss.Train.0.epsilon")
    assert config.Optimizer.component["weight_decay"] == 0.0
    assert config.DataLoader.Train.dataset["transform_ops"] == [{"name": "ToyFlip"}]
    assert config.Loss.Train[0].component["epsilon"] == 0.0


def test_plus_adds_a_key_and_appends_to_a_list(base, load):
    config = load(base, "+Global.flags.FLAGS_x=1", f"+{OPS}.2=ToyFlip", "+Global.seed=5")
    assert config.Global.flags == {"FLAGS_x": 1}
    assert [step["name"] for step in config.DataLoader.Train.dataset["transform_ops"]] == [
        "ToyCrop",
        "ToyFlip",
        "ToyFlip",
    ]
    assert config.Global.seed == 5


def test_plus_never_takes_the_place_of_an_entry_that_is_named_in_another_way(base, load):
    config = load(base, f"+{OPS}.-1=ToyFlip", f"+{OPS}.ToyCrop=ToyFlip")
    steps = config.DataLoader.Train.dataset["transform_ops"]
    assert [step["name"] for step in steps] == ["ToyFlip", "ToyCrop", "ToyFlip", "ToyFlip"]


def test_plus_never_takes_the_place_of_an_entry(base, load):
    config = load(base, f"+{OPS}.1=ToyFlip", f"+{OPS}.0=ToyFlip")
    steps = config.DataLoader.Train.dataset["transform_ops"]
    assert [step["name"] for step in steps] == ["ToyFlip", "ToyCrop", "ToyFlip", "ToyFlip"]
    assert config.origin(f"{OPS}.0") == f"-o +{OPS}.0=ToyFlip"


def test_sections_that_the_file_lacks_are_made(base, load):
    config = load(base, "FP16.level=O2", "FP16.GradScaler.init_loss_scaling=2**16")
    assert (config.FP16.level, config.FP16.GradScaler.init_loss_scaling) == ("O2", 65536.0)
    assert load(base + "FP16:\n", "FP16.level=O1").FP16.level == "O1"


def test_the_order_of_overrides_does_not_change_the_file(base, load, tmp_path):
    load(base, "Global.epochs=3")
    assert (tmp_path / "x.yaml").read_text() == base
