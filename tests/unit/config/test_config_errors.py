"""Every kind of mistake in a config has its own sentence; the whole line is compared."""

from __future__ import annotations

import pytest

HEAD = "Global: {imports: [fake_parts]}\nModel: {name: ToyNet}\n"

#: name -> (lines from line 3 on, expected problem)
IN_FILE = {
    "misspelled key": (
        "Optimizer: {name: ToyOpt}\nFP16:\n  levle: O1\n",
        "x.yaml:5: FP16.levle: unknown key; did you mean 'level'?",
    ),
    "misspelled section": (
        "Metrics: {}\n",
        "x.yaml:3: Metrics: unknown section; did you mean 'Metric'?",
    ),
    "section of another code base": (
        "Arch: {name: X}\n",
        "x.yaml:3: Arch: unknown section; that key belongs at Model",
    ),
    "key at the top": (
        "pretrained_model: a/b\n",
        "x.yaml:3: pretrained_model: unknown section; that key belongs at Global.pretrained_model",
    ),
    "key in the wrong section": (
        "Optimizer: {name: ToyOpt, epochs: 3}\n",
        "x.yaml:3: Optimizer.epochs: ToyOpt has no argument 'epochs'; that key belongs at "
        "Global.epochs",
    ),
    "flag of another program, for which this component has an argument": (
        "Loss: {Train: [{name: CELoss, smoothing: 0.1}]}\n",
        "x.yaml:3: Loss.Train.0.smoothing: CELoss has no argument 'smoothing'; that key belongs at "
        "Loss.Train.0.epsilon",
    ),
    "flag of another program, for which this component has none": (
        "DataLoader: {Train: {dataset: {name: DigitsDataset, data_dir: x}}}\n",
        "x.yaml:3: DataLoader.Train.dataset.data_dir: DigitsDataset has no argument 'data_dir'; it "
        "takes: in_chans, split, transform_ops, val_ratio",
    ),
    "flag of another program, for which the section has a key": (
        "Optimizer: {name: ToyOpt}\nFP16: {clip_grad: 1}\n",
        "x.yaml:4: FP16.clip_grad: unknown key; that key belongs at Optimizer.grad_clip",
    ),
    "component argument in the wrong section": (
        "FP16: {drop_rate: 0.1}\n",
        "x.yaml:3: FP16.drop_rate: unknown key; that key belongs at Model.drop_rate",
    ),
    "dotted key": (
        "Global.epochs: 3\n",
        "x.yaml:3: Global.epochs: unknown section; write 'Global:' with the rest indented below it",
    ),
    "misspelled argument": (
        "Optimizer: {name: ToyOpt, weigth_decay: 0.1}\n",
        "x.yaml:3: Optimizer.weigth_decay: ToyOpt has no argument 'weigth_decay'; "
        "did you mean 'weight_decay'?",
    ),
    "argument of nothing like it": (
        "Hooks:\n- ToyHook: {qqq: 1}\n",
        "x.yaml:4: Hooks.0.qqq: ToyHook has no argument 'qqq'; it takes: every",
    ),
    "argument where none are taken": (
        "DataLoader: {Train: {dataset: {name: ToyData, root: r, transform_ops: [{ToyFlip: {p: "
        "1}}]}}}\n",
        "x.yaml:3: DataLoader.Train.dataset.transform_ops.0.p: ToyFlip has no argument 'p'; it "
        "takes none",
    ),
    "argument of another component": (
        "DataLoader: {Train: {dataset: {name: ToyData, root: r}, sampler: {num_repeats: 3}}}\n",
        "x.yaml:3: DataLoader.Train.sampler.num_repeats: DistributedBatchSampler has no argument "
        "'num_repeats'; it is an argument of RepeatedAugSampler",
    ),
    "flag of another program that needs another component": (
        "aug_repeats: 3\n",
        "x.yaml:3: aug_repeats: unknown section; that key belongs at "
        "DataLoader.Train.sampler.num_repeats, with DataLoader.Train.sampler.name: "
        "RepeatedAugSampler",
    ),
    "flag of another program beside a component that does not have it": (
        "DataLoader: {Train: {dataset: {name: ToyData, root: r}, "
        "sampler: {name: DistributedBatchSampler, aug_repeats: 3}}}\n",
        "x.yaml:3: DataLoader.Train.sampler.aug_repeats: DistributedBatchSampler has no argument "
        "'aug_repeats'; that key belongs at DataLoader.Train.sampler.num_repeats, with "
        "DataLoader.Train.sampler.name: RepeatedAugSampler",
    ),
    "misspelled component": (
        "LRScheduler: {name: ToyShedule, learning_rate: 1}\n",
        "x.yaml:3: LRScheduler.name: no schedule is called 'ToyShedule'; did you mean "
        "'ToySchedule'?",
    ),
    "component of another kind": (
        "Loss: {Train: [ToyMetric]}\n",
        "x.yaml:3: Loss.Train.0.name: no loss is called 'ToyMetric'; ToyMetric is a metric "
        "and belongs at Metric",
    ),
    "writer at another place": (
        "Hooks: [TensorBoard]\n",
        "x.yaml:3: Hooks.0.name: no hook is called 'TensorBoard'; TensorBoard is a writer and "
        "belongs at Logging.writers",
    ),
    "component of PASSL that is missing here": (
        "Metric: {Train: [{mAP: {nonsense: 1}}]}\n",
        "x.yaml:3: Metric.Train.0.name: mAP is not available yet in this version",
    ),
    "text for a number": (
        "LRScheduler: {name: ToySchedule, learning_rate: 3e-3x}\n",
        "x.yaml:3: LRScheduler.learning_rate: expected a number of at least 0, found '3e-3x' "
        "(text)",
    ),
    "fraction for a whole number": (
        "Hooks: [{name: ToyHook, every: 1.5}]\n",
        "x.yaml:3: Hooks.0.every: expected a whole number, found 1.5",
    ),
    "below the range": (
        "Optimizer: {name: ToyOpt, eps: -1.0}\n",
        "x.yaml:3: Optimizer.eps: expected a number of at least 0, found -1.0",
    ),
    "at an open end of the range": (
        "FP16: {level: O2, GradScaler: {decr_ratio: 1.0}}\n",
        "x.yaml:3: FP16.GradScaler.decr_ratio: expected a number above 0 and below 1, found 1.0",
    ),
    "not a number": (
        "Optimizer: {name: ToyOpt, eps: .nan}\n",
        "x.yaml:3: Optimizer.eps: expected a number of at least 0, found nan",
    ),
    "on for true": (
        "FP16: {strict: on}\n",
        "x.yaml:3: FP16.strict: expected true or false, found 'on' (text); write true",
    ),
    "no for false": (
        "FP16: {strict: no}\n",
        "x.yaml:3: FP16.strict: expected true or false, found 'no' (text); write false",
    ),
    "0 for false": (
        "FP16: {strict: 0}\n",
        "x.yaml:3: FP16.strict: expected true or false, found 0; write false",
    ),
    "quoted bool": (
        "FP16: {strict: 'False'}\n",
        "x.yaml:3: FP16.strict: expected true or false, found 'False' (text); write false",
    ),
    "null where a value is needed": (
        "FP16: {level: }\n",
        "x.yaml:3: FP16.level: expected O0, O1 or O2, found null",
    ),
    "number for text": (
        "DataLoader: {Train: {dataset: {name: ToyData, root: 2012}}}\n",
        "x.yaml:3: DataLoader.Train.dataset.root: expected text, found 2012; put it in quotes",
    ),
    "wrong word": (
        "FP16: {level: o2}\n",
        "x.yaml:3: FP16.level: expected O0, O1 or O2, found 'o2' (text); did you mean 'O2'?",
    ),
    "wrong word, nothing near": (
        "FP16: {dtype: int8}\n",
        "x.yaml:3: FP16.dtype: expected float16 or bfloat16, found 'int8' (text)",
    ),
    "wrong length of a pair": (
        "Optimizer:\n  name: ToyOpt\n  betas: (0.9, 0.99, 0.999)\n",
        "x.yaml:5: Optimizer.betas: expected [number, number], found (0.9, 0.99, 0.999)",
    ),
    "parentheses between braces": (
        "Optimizer: {name: ToyOpt, betas: (0.9, 0.99)}\n",
        "x.yaml:3: Optimizer.betas: expected [number, number], found '(0.9' (text); between "
        "braces write "
        "[a, b] instead of (a, b)\n"
        "x.yaml:3: Optimizer.0.99): ToyOpt has no argument '0.99)'; it takes: betas, eps, "
        "freeze, grad_clip, layer_decay, "
        "no_weight_decay_1d, no_weight_decay_name, param_groups, weight_decay",
    ),
    "wrong item of a pair, on its own line": (
        "Optimizer:\n  name: ToyOpt\n  betas:\n  - 0.9\n  - high\n",
        "x.yaml:7: Optimizer.betas.1: expected a number, found 'high' (text)",
    ),
    "wrong item of a list": (
        "Metric: {Eval: [{ToyMetric: {topk: [1, five]}}]}\n",
        "x.yaml:3: Metric.Eval.0.topk.1: expected a whole number, found 'five' (text)",
    ),
    "value for a section": (
        "FP16: true\n",
        "x.yaml:3: FP16: expected a mapping with keys such as level, dtype, GradScaler, strict, "
        "found true",
    ),
    "list for a section": (
        "Loss: [ToyLoss]\n",
        "x.yaml:3: Loss: expected a mapping with keys such as Train, Eval, found a list",
    ),
    "mapping for a list": (
        "Metric:\n  Eval:\n    ToyMetric: {topk: [1]}\n",
        "x.yaml:5: Metric.Eval: expected a list, found a mapping; begin the entry with '- '",
    ),
    "argument of the engine": (
        "Loss: {Train: [{name: ToyLoss, classes: 10}]}\n",
        "x.yaml:3: Loss.Train.0.classes: ToyLoss gets this from the engine; remove it",
    ),
    "required argument missing": (
        "LRScheduler:\n  name: ToySchedule\n",
        "x.yaml:4: LRScheduler.learning_rate: missing; ToySchedule needs a number of at least 0",
    ),
    "required component missing": (
        "DataLoader: {Train: {dataset: {name: ToyData, root: r, transform_ops: [ToyChoice]}}}\n",
        "x.yaml:3: DataLoader.Train.dataset.transform_ops.0.first: missing; ToyChoice needs "
        "a transform ('name: X' and its arguments)",
    ),
    "required key missing": (
        "Optimizer: {name: ToyOpt, param_groups: [{name: head}]}\n",
        "x.yaml:3: Optimizer.param_groups.0.pattern: missing; expected text",
    ),
    "data set missing": (
        "DataLoader:\n  Eval:\n    loader: {num_workers: 0}\n",
        "x.yaml:4: DataLoader.Eval.dataset: missing; expected a dataset ('name: X' and its "
        "arguments)",
    ),
    "component without a name": (
        "LRScheduler: {learning_rate: 0.1, unit: step}\n",
        "x.yaml:3: LRScheduler: a schedule without a name; write 'name: X' and its arguments",
    ),
    "component with a misspelled name key": (
        "LRScheduler: {nmae: ToySchedule, learning_rate: 0.1}\n",
        "x.yaml:3: LRScheduler: a schedule without a name (is 'nmae' meant to be 'name'?); "
        "write 'name: X' and its arguments",
    ),
    "arguments beside their component": (
        "Loss:\n  Train:\n  - ToyLoss:\n    epsilon: 0.1\n",
        "x.yaml:5: Loss.Train.0: the arguments of ToyLoss must be indented below it",
    ),
    "number for a component": (
        "Metric: {Eval: [5]}\n",
        "x.yaml:3: Metric.Eval.0: expected a metric ('name: X' and its arguments), found 5",
    ),
    "number for a component's name": (
        "LRScheduler: {name: 5}\n",
        "x.yaml:3: LRScheduler.name: expected the name of a schedule, found 5",
    ),
    "nested component": (
        "DataLoader: {Eval: {dataset: {name: ToyData, root: r, "
        "transform_ops: [{ToyChoice: {first: ToyCorp, others: [ToyFlip, ToyMix]}}]}}}\n",
        "x.yaml:3: DataLoader.Eval.dataset.transform_ops.0.first.name: no transform is called "
        "'ToyCorp'; "
        "did you mean 'ToyCrop'?\n"
        "x.yaml:3: DataLoader.Eval.dataset.transform_ops.0.others.1.name: no transform is called "
        "'ToyMix'; "
        "ToyMix is a batch transform and belongs at DataLoader.Train.batch_transform",
    ),
    "duplicate key": (
        "FP16:\n  level: O1\n  level: O2\n",
        "x.yaml:5: FP16.level: written twice, first at x.yaml:4; keep one",
    ),
    "duplicate section": (
        "FP16: {level: O1}\nFP16: {level: O1}\n",
        "x.yaml:4: FP16: written twice, first at x.yaml:3; keep one",
    ),
    "division by zero": (
        "Optimizer: {name: ToyOpt, eps: 1/0}\n",
        "x.yaml:3: Optimizer.eps: '1/0' divides by zero\n"
        "x.yaml:3: Optimizer.eps: expected a number of at least 0, found '1/0' (text)",
    ),
    "bad regular expression": (
        "Optimizer: {name: ToyOpt, param_groups: [{name: a, pattern: 'head.('}]}\n",
        "x.yaml:3: Optimizer.param_groups.0.pattern: 'head.(' is not a regular expression: "
        "missing ), unterminated subpattern at position 5",
    ),
    "a rule whose pattern is misspelled": (
        "Optimizer: {name: ToyOpt, param_groups: [{name: a, patern: head}]}\n",
        "x.yaml:3: Optimizer.param_groups.0.patern: unknown key; did you mean 'pattern'?",
    ),
    "loss scaling without a level": (
        "FP16:\n  GradScaler: {init_loss_scaling: 2**16}\n",
        "x.yaml:3: FP16.level: missing beside GradScaler; write O1 or O2 (O2 was PASSL's default), "
        "or O0 for float32",
    ),
    "a half-precision dtype without a level": (
        "FP16: {dtype: bfloat16}\n",
        "x.yaml:3: FP16.level: missing beside dtype; write O1 or O2 (O2 was PASSL's default), "
        "or O0 for float32",
    ),
    "strictness without a level": (
        "FP16: {strict: true}\n",
        "x.yaml:3: FP16.level: missing beside strict; write O1 or O2 (O2 was PASSL's default), "
        "or O0 for float32",
    ),
    "loss scaling above its maximum": (
        "FP16: {level: O2, GradScaler: {init_loss_scaling: 64, max_loss_scaling: 32}}\n",
        "x.yaml:3: FP16.GradScaler.init_loss_scaling: 64 is above max_loss_scaling=32",
    ),
    "two class counts": (
        "DataLoader: {Train: {dataset: {name: ClassyData, class_num: 9}}}\n",
        "x.yaml:3: DataLoader.Train.dataset.class_num: 9 contradicts Model.class_num=10 (x.yaml:2)",
    ),
    "a momentum for a decay": (
        "EMA: {decay: 0.0001}\n",
        "x.yaml:3: EMA.decay: expected a number of at least 0.9 and below 1, found 0.0001",
    ),
    "sharding": (
        "DistributedStrategy: {data_sharding: true}\n",
        "x.yaml:3: DistributedStrategy.data_sharding: PASSL's own switch, which it refuses as "
        "well; write false, and DistributedStrategy.sharding: {stage: 1} to keep the optimizer's "
        "state in parts",
    ),
    "sharding of gradients": (
        "DistributedStrategy: {sharding: {stage: 2}}\n",
        "x.yaml:3: DistributedStrategy.sharding.stage: stage 2 (gradients, weights in parts) is "
        "not available: Paddle's own group sharding works with Paddle's optimizers only; write "
        "stage: 1 (the optimizer's state in parts, on any device), and Global.recompute: true for "
        "more memory",
    ),
    "custom tag": (
        "FP16: {level: !!python/name:os.system x}\n",
        "x.yaml:3: FP16.level: the tag '!!python/name:os.system' is not supported; write the "
        "plain value\n"
        "x.yaml:3: FP16.level: expected O0, O1 or O2, found 'x' (text)",
    ),
}


@pytest.mark.parametrize(("text", "expected"), IN_FILE.values(), ids=IN_FILE)
def test_a_mistake_in_the_file(problems, text, expected):
    assert problems(HEAD + text) == expected.split("\n")


#: name -> (whole file, expected problem)
WHOLE_FILE = {
    "empty": ("", "x.yaml: the file is empty; expected sections such as 'Global:' and 'Model:'"),
    "only a comment": (
        "# later\n",
        "x.yaml: the file is empty; expected sections such as 'Global:' and 'Model:'",
    ),
    "list at the top": (
        "- Global\n",
        "x.yaml:1: the file holds a list; expected sections such as 'Global:' and 'Model:'",
    ),
    "value at the top": (
        "hello\n",
        "x.yaml:1: the file holds a single value; expected sections such as 'Global:' and 'Model:'",
    ),
    "tab": (
        "Global:\n\tepochs: 3\n",
        "x.yaml:2: a tab in the indentation; YAML takes only spaces",
    ),
    "unclosed list": (
        "Global:\n  imports: [a\nModel: {}\n",
        "x.yaml:3: not valid YAML: expected ',' or ']', but got ':' (column 6)",
    ),
    "bad indentation": (
        "Global: 1\n  epochs: 3\n",
        "x.yaml:2: not valid YAML: mapping values are not allowed here (column 9); check the "
        "indentation, "
        "or put a value that contains ': ' in quotes",
    ),
    "character that begins no value": (
        "Global: {output_dir: @home}\n",
        "x.yaml:1: not valid YAML: found character '@' that cannot start any token (column 22); "
        "put a value that begins with this character in quotes",
    ),
    "unknown alias": (
        "Model: *base\n",
        "x.yaml:1: not valid YAML: found undefined alias 'base' (column 8); "
        "put a value that begins with this character in quotes",
    ),
    "two documents": (
        "Model: {}\n---\nModel: {}\n",
        "x.yaml:2: a second YAML document begins here ('---'); a config is one document",
    ),
    "control character": (
        "Model: {}\n\x07\n",
        "x.yaml:2: not valid YAML: character U+0007 is not allowed",
    ),
    "alias inside itself": (
        "Model: &a\n  name: ToyNet\n  anything: *a\n",
        "x.yaml:2: nested too deeply to be a config (an alias inside itself?)",
    ),
    "no model": (
        "Global: {epochs: 1}\n",
        "x.yaml: Model: missing; every command needs this section",
    ),
    "module that is not there": (
        "Global:\n  imports: [no_such_module]\nModel: ToyNet\n",
        "x.yaml:2: Global.imports: module 'no_such_module' is not found, neither in the "
        "current folder nor on PYTHONPATH nor among the installed packages; start where its folder "
        "is, or correct the name\n"
        "x.yaml:3: Model.name: no model is called 'ToyNet'",
    ),
}


@pytest.mark.parametrize(("text", "expected"), WHOLE_FILE.values(), ids=WHOLE_FILE)
def test_a_file_that_cannot_be_read_as_a_config(problems, text, expected):
    assert problems(text) == expected.split("\n")


def test_a_document_that_explodes_through_aliases_is_refused(problems):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    (line,) = problems("\n".join(lines) + "\n")
    assert line == "x.yaml:1: aliases expand to more than 50000 values; refused"


def test_deep_nesting_is_refused_without_a_traceback(problems):
    (line,) = problems("Model: " + "[" * 5000 + "]" * 5000 + "\n")
    assert line == "x.yaml:1: the document is nested too deeply to be a config"
