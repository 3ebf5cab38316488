"""What can be wrong with a teacher, told before anything is built."""

from __future__ import annotations

import pytest

TEACHER = "{name: ResNet50, pretrained: a.pdparams}"
AT = "x.yaml:3: Distillation."

#: name -> (line 3, expected problem)
WRONG = {
    "no teacher": (
        "{type: soft}",
        "x.yaml: Distillation.teacher: missing; distillation needs a teacher (or write "
        "Distillation.type: none)",
    ),
    "no weights": (
        "{teacher: {name: ResNet50}}",
        "teacher.pretrained: missing; a teacher without trained weights teaches noise",
    ),
    "misspelled model": (
        "{teacher: {name: ResNet5O, pretrained: a}}",
        AT + "teacher.name: no model is called 'ResNet5O'; did you mean 'ResNet50'",
    ),
    "misspelled argument": (
        "{teacher: {name: ResNet50, pretrained: a, arguments: {clas_num: 3}}}",
        "Distillation.teacher.arguments.clas_num: ResNet50 has no argument 'clas_num'; did you "
        "mean 'class_num'?",
    ),
    "wrong argument": (
        "{teacher: {name: ResNet50, pretrained: a, arguments: {class_num: many}}}",
        "Distillation.teacher.arguments.class_num: expected",
    ),
    "weights beside an exported model": (
        "{teacher: {name: t.onnx, pretrained: a}}",
        AT + "teacher.pretrained: t.onnx is an exported model and holds what it needs; remove",
    ),
    "half a normalisation": (
        "{teacher: {name: t.onnx, transform: {mean: [0.5]}}}",
        "Distillation.teacher.transform.std: missing beside mean; give both or neither",
    ),
    "hard in myrtle's form": (
        f"{{teacher: {TEACHER}, type: hard, form: myrtle}}",
        AT + "type: the form myrtle has no hard loss; write type: soft, or form: deit",
    ),
    "temperature of the hard loss": (
        f"{{teacher: {TEACHER}, type: hard, temperature: 3.0}}",
        AT + "temperature: 3 has no effect with type: hard",
    ),
    "alpha out of range": (f"{{teacher: {TEACHER}, alpha: 1.5}}", AT + "alpha: expected a number"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_teacher_has_its_own_sentence(problems, case):
    text, expected = WRONG[case]
    found = problems(f"Global: {{}}\nModel: {{name: ResNet18}}\nDistillation: {text}\n")
    assert len(found) == 1
    assert expected in found[0]


@pytest.mark.parametrize(
    "text",
    [
        f"{{teacher: {TEACHER}}}",
        "{teacher: {name: 'paddle:resnet50', pretrained: a}, type: hard}",
        "{teacher: {name: folder/t.json}, form: myrtle, temperature: 3}",
        "{type: none}",
        "null",
    ],
)
def test_what_is_right_passes(load, text):
    config = load(f"Model: {{name: ResNet18}}\nDistillation: {text}\n")
    assert config.Model["name"] == "ResNet18"
