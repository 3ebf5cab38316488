"""Mistakes in overrides, and configs that lack what a mode needs; the whole line is compared."""

from __future__ import annotations

import pytest

#: name -> (override, expected problem); BASE of conftest.py is the file
OVERRIDES = {
    "no equals sign": (
        "Global.epochs",
        "-o Global.epochs: no '='; write -o Section.key=VALUE, or -o ~Section.key to remove a key",
    ),
    "empty segment": (
        "Global..epochs=3",
        "-o Global..epochs=3: an empty name in the path; write -o Section.key=VALUE",
    ),
    "unknown key": (
        "Global.epoch=3",
        "-o Global.epoch=3: Global.epoch: unknown key; did you mean 'epochs'?",
    ),
    "unknown section": (
        "Globl.epochs=3",
        "-o Globl.epochs=3: Globl: unknown section; did you mean 'Global'?",
    ),
    "key of another section": (
        "Model.pretrained_model=a",
        "-o Model.pretrained_model=a: Model.pretrained_model: ToyNet has no argument "
        "'pretrained_model'; "
        "that key belongs at Global.pretrained_model",
    ),
    "key without its section": (
        "epochs=3",
        "-o epochs=3: epochs: unknown section; that key belongs at Global.epochs",
    ),
    "wrong type": (
        "Global.epochs=many",
        "-o Global.epochs=many: Global.epochs: expected a whole number of at least 1, "
        "found 'many' (text)",
    ),
    "arithmetic without a result": (
        "Optimizer.eps=2**2000",
        "-o Optimizer.eps=2**2000: '2**2000' is too large a number",
    ),
    "zero epochs": (
        "Global.epochs=0",
        "-o Global.epochs=0: Global.epochs: expected a whole number of at least 1, found 0",
    ),
    "below a value": (
        "Global.epochs.x=3",
        "-o Global.epochs.x=3: Global.epochs is 2 (x.yaml:3); it has no key 'x'",
    ),
    "index out of range": (
        "Loss.Train.3.epsilon=0",
        "-o Loss.Train.3.epsilon=0: Loss.Train has 1 entry; there is no entry 3",
    ),
    "index out of range of several": (
        "DataLoader.Train.dataset.transform_ops.2={}",
        "-o DataLoader.Train.dataset.transform_ops.2={}: DataLoader.Train.dataset.transform_ops "
        "has "
        "2 entries, 0 to 1; there is no entry 2",
    ),
    "word for an index": (
        "Loss.Train.first.epsilon=0",
        "-o Loss.Train.first.epsilon=0: Loss.Train is a list; expected the number of an entry "
        "(from 0), "
        "found 'first'",
    ),
    "component of another entry": (
        "DataLoader.Train.dataset.transform_ops.1.ToyCrop.size=16",
        "-o DataLoader.Train.dataset.transform_ops.1.ToyCrop.size=16: "
        "DataLoader.Train.dataset.transform_ops.1 is ToyFlip; ToyCrop is entry 0, so write "
        "DataLoader.Train.dataset.transform_ops.0",
    ),
    "nothing to remove": (
        "~Global.epoch",
        "-o ~Global.epoch: nothing to remove: Global has no key 'epoch'",
    ),
    "removal with a value": (
        "~Global.epochs=3",
        "-o ~Global.epochs=3: '~' removes a key and takes no value; write -o ~Global.epochs",
    ),
    "bases": (
        "_base_=other.yaml",
        "-o _base_=other.yaml: _base_ is read from the file only; give another file to -c",
    ),
    "value that is not YAML": (
        "Global.output_dir=[1",
        "-o Global.output_dir=[1: not valid YAML: expected ',' or ']', but got '<stream end>' "
        "(column 3)",
    ),
    "duplicate key in a value": (
        "Optimizer.grad_clip={clip_norm: 1, clip_norm: 2}",
        "-o Optimizer.grad_clip={clip_norm: 1, clip_norm: 2}: clip_norm: written twice, first at "
        "-o Optimizer.grad_clip={clip_norm: 1, clip_norm: 2}; keep one",
    ),
}


@pytest.mark.parametrize(("override", "expected"), OVERRIDES.values(), ids=OVERRIDES)
def test_a_mistake_in_an_override(base, load, problems, override, expected):
    load()  # the file itself is right

    assert problems(base, override) == [expected]


#: name -> (overrides of BASE, expected problem in train mode)
TRAINING = {
    "no length": (
        ["~Global.epochs"],
        "x.yaml: Global.epochs: missing; give epochs or max_train_step",
    ),
    "no loss": (["~Loss"], "x.yaml: Loss.Train: missing; training needs a loss"),
    "no schedule": (
        ["~LRScheduler"],
        "x.yaml: LRScheduler: missing; training needs a learning rate",
    ),
    "no optimizer": (["~Optimizer"], "x.yaml: Optimizer: missing; training needs an optimizer"),
    "no data": (["~DataLoader.Train"], "x.yaml: DataLoader.Train: missing; training needs data"),
    "evaluation without data": (
        ["Global.eval_during_train=true"],
        "-o Global.eval_during_train=true: Global.eval_during_train: is true, but there is no "
        "DataLoader.Eval; add it, or write false",
    ),
    "evaluation without a metric": (
        ["Global.eval_during_train=true", "DataLoader.Eval.dataset={name: ToyData, root: r}"],
        "-o Global.eval_during_train=true: Global.eval_during_train: is true, but there is no "
        "Metric.Eval; "
        "add it, or write false",
    ),
    "finetune from nothing": (
        ["Global.finetune=true"],
        "-o Global.finetune=true: Global.finetune: is true, but Global.pretrained_model is null; "
        "give the weights to start from",
    ),
    "no batch size": (
        ["Global.global_batch_size=null"],
        "-o Global.global_batch_size=null: Global.global_batch_size: missing; give it (images of "
        "all "
        "processes) or DataLoader.Train.sampler.batch_size (of one process)",
    ),
    "accumulation that does not divide": (
        ["Global.accum_steps=3"],
        "-o Global.accum_steps=3: Global.accum_steps: 3 does not divide the 8 images of a step",
    ),
    "two batch sizes that never agree": (
        ["DataLoader.Train.sampler.batch_size=3"],
        "x.yaml:4: Global.global_batch_size: 8 is no multiple of "
        "DataLoader.Train.sampler.batch_size=3 "
        "(-o DataLoader.Train.sampler.batch_size=3), so no number of processes fits; keep one of "
        "them",
    ),
    "a negative batch": (
        ["Global.global_batch_size=-8"],
        "-o Global.global_batch_size=-8: Global.global_batch_size: expected a whole number of at "
        "least 1, "
        "found -8",
    ),
    "zero steps": (
        ["Global.max_train_step=0"],
        "-o Global.max_train_step=0: Global.max_train_step: expected a whole number of at least "
        "1, found 0",
    ),
}


@pytest.mark.parametrize(("overrides", "expected"), TRAINING.values(), ids=TRAINING)
def test_what_training_cannot_do_without(base, load, problems, overrides, expected):

    load(mode="train")  # the file itself is right
    assert problems(base, *overrides, mode="train") == [expected]


def test_evaluation_needs_data_and_something_to_report(base, problems):

    assert problems(base, mode="eval") == [
        "x.yaml: DataLoader.Eval: missing; evaluation needs data",
        "x.yaml: Metric.Eval: missing; evaluation needs a metric (or Loss.Eval)",
    ]


def test_all_problems_come_at_once_overrides_first_then_by_line(problems):
    found = problems(
        "Global:\n  imports: [fake_parts]\n  epoch: 3\n  seed: abc\nModel:\n  name: ToyNet\n  "
        "widht: 3\n",
        "FP16.level=O9",
        mode="train",
    )
    assert [line.split(": ")[:2] for line in found] == [
        ["-o FP16.level=O9", "FP16.level"],
        ["x.yaml:3", "Global.epoch"],
        ["x.yaml:4", "Global.seed"],
        ["x.yaml:7", "Model.widht"],
        *[
            ["x.yaml", path]
            for path in ("Loss.Train", "LRScheduler", "Optimizer", "DataLoader.Train")
        ],
        ["x.yaml", "Global.epochs"],
        ["x.yaml", "Global.eval_during_train"],
    ]


def test_images_of_another_size_than_the_model_takes(problems):
    found = problems(
        "Global: {imports: [fake_parts]}\nModel: {name: SizedNet}\nDataLoader:\n  Train:\n    "
        "dataset:\n"
        "      name: ToyData\n      root: r\n      transform_ops:\n      - DecodeImage\n"
        "      - RandCropImage: {size: 48}\n      - RandFlipImage\n"
    )
    assert found == [
        "x.yaml:10: DataLoader.Train.dataset.transform_ops.1.size: RandCropImage makes images of "
        "48, "
        "but Model.img_size is 32 (x.yaml:2)"
    ]
