"""The fixed sections of a config, as typed and documented dataclasses.

Annotations are the schema: :mod:`passl.config.check` reads them with the same type checker that
checks the arguments of components.  A component (a model, a loss, ...) is a plain dict
``{"name": X, **arguments}`` with every argument filled in, ready for ``registry.build``.

Source: sections, keys and defaults follow PASSL 2.5; docs/passl_compatibility.md lists differences.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Optional, Union

from passl.config.feeding import (
    DataLoaderSection,
    LoaderSection,
    SamplerSection,
    WorkerSection,
)
from passl.config.quantizing import CalibrationSection, QuantizationSection
from passl.config.recording import LoggingSection
from passl.config.teaching import DistillationSection, TeacherSection, TeacherTransform
from passl.registry import Component, Range

__all__ = [
    "SECTIONS",
    "DataLoaderSection",
    "DistributedStrategySection",
    "EMASection",
    "ExportSection",
    "FP16Section",
    "GlobalSection",
    "GradClip",
    "GradScalerSection",
    "LoaderSection",
    "LoggingSection",
    "LossSection",
    "LossTerm",
    "MetricSection",
    "OptimizerSection",
    "ParamGroupRule",
    "SamplerSection",
    "Sections",
    "ShardingSection",
    "WorkerSection",
]

ComponentDict = dict[str, Any]


@dataclass(frozen=True)
class GlobalSection:
    """What concerns the run as a whole.

    Attributes:
        task_type: kept for PASSL's files; nothing reads it.
        train_loop: kept for PASSL's files; there is one training loop.
        validate_loop: kept for PASSL's files; there is one evaluation loop.
        checkpoint: training state to continue from: ``auto`` (the newest whole one of the output
            folder, if any), a path, or null (always start afresh).
        pretrained_model: weights to begin with: a checkpoint folder, ``best``, a file or PASSL's
            prefix.
        finetune: adapt the weights of ``pretrained_model``: a head that does not fit starts anew,
            position embedding and first convolution are resized.
        finetune_head: with ``finetune``, ``keep`` a head that fits, or start a ``new`` one in any
            case.
        allow_missing: regular expressions, searched in names, of tensors of ``pretrained_model``
            that need not fit: they start anew, or are left out where the model has none.
        pos_embed_resize: method for the position embedding; ``auto`` takes the one of the family
            that the weights are from (``bicubic`` where nothing says so).
        output_dir: files go to ``output_dir/<Model.name>``.
        device: ``auto`` takes an accelerator if there is one, else the CPU.
        seed: of weights, order and augmentation.
        epochs: passes over the training data; it also sets the length of the schedule.
        max_train_step: stop (and save) after this many optimizer steps.
        global_batch_size: images of one optimizer step, over all processes.
        micro_batch_size: the most images of one forward and backward pass in one process.
        accum_steps: passes that one optimizer step is cut into in each process.
        eval_during_train: evaluate while training, and keep the best checkpoint.
        eval_interval: evaluate every so many ``eval_unit``.
        eval_unit: ``epoch`` or ``step``.
        save_interval: save every so many ``save_unit``, and at the end.
        save_unit: ``epoch``, ``step``, or ``minute`` of wall time since the last save.
        save_in_background: train on while a checkpoint is written; false waits for each.
        max_num_latest_checkpoint: how many of the newest checkpoints to keep besides ``best``.
        print_batch_step: steps between log lines.
        use_visualdl: false takes VisualDL out of ``Logging.writers``.
        flags: Paddle's ``FLAGS_*`` to set.
        imports: modules that register components of your own, such as ``my_package.my_models``.
        num_threads: threads of the math library on a CPU; null chooses by the machine.
        max_bad_steps: stop, with a report, after this many steps in a row whose loss or gradients
            are not finite (each is skipped); 1 stops at the first, null never.
        max_time: stop, saved and with exit status 75, so long after the start of the process:
            seconds, or text such as ``1h30m``.
        recompute: keep only the inputs of blocks for the backward pass, and compute the rest again:
            true for all blocks, or a number for every so-many-th.
        to_static: compile the model's passes in training, and in the evaluations between.
        allow_config_change: keys, or patterns such as ``Model.*``, that may differ from the config
            of the checkpoint although a run cannot continue exactly with another value.
    """

    task_type: str = "classification"
    train_loop: Optional[str] = None
    validate_loop: Optional[str] = None
    checkpoint: Optional[str] = "auto"
    pretrained_model: Optional[str] = None
    finetune: bool = False
    finetune_head: Literal["keep", "new"] = "keep"
    allow_missing: list[str] = field(default_factory=list)
    pos_embed_resize: Literal["auto", "bicubic", "bicubic_antialias", "bilinear", "zoom"] = "auto"
    output_dir: str = "./output"
    device: Literal["auto", "cpu", "gpu", "xpu", "npu"] = "auto"
    seed: Annotated[int, Range(min=0, max=4294967295)] = 2021
    epochs: Annotated[Optional[int], Range(min=1)] = None
    max_train_step: Annotated[Optional[int], Range(min=1)] = None
    global_batch_size: Annotated[Optional[int], Range(min=1)] = None
    micro_batch_size: Annotated[Optional[int], Range(min=1)] = None
    accum_steps: Annotated[Optional[int], Range(min=1)] = None
    eval_during_train: bool = True
    eval_interval: Annotated[int, Range(min=1)] = 1
    eval_unit: Literal["epoch", "step"] = "epoch"
    save_interval: Annotated[int, Range(min=1)] = 1
    save_unit: Literal["epoch", "step", "minute"] = "epoch"
    save_in_background: bool = True
    max_num_latest_checkpoint: Annotated[int, Range(min=0)] = 1
    print_batch_step: Annotated[int, Range(min=1)] = 10
    use_visualdl: bool = True
    flags: dict[str, Any] = field(default_factory=dict)
    imports: list[str] = field(default_factory=list)
    num_threads: Annotated[Optional[int], Range(min=1)] = None
    max_bad_steps: Annotated[Optional[int], Range(min=1)] = 10
    max_time: Optional[Union[float, str]] = None
    recompute: Union[bool, Annotated[int, Range(min=1)]] = False
    to_static: bool = False
    allow_config_change: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class GradScalerSection:
    """Loss scaling for float16.

    Attributes:
        init_loss_scaling: scale at the start.
        max_loss_scaling: the scale never grows beyond it.
        incr_ratio: factor after ``incr_every_n_steps`` good steps.
        decr_ratio: factor after ``decr_every_n_nan_or_inf`` bad steps.
        incr_every_n_steps: consecutive finite steps before the scale grows.
        decr_every_n_nan_or_inf: consecutive non-finite steps before it shrinks.
        use_dynamic_loss_scaling: false keeps ``init_loss_scaling`` throughout.
    """

    init_loss_scaling: Annotated[float, Range(min=1.0)] = 1024.0
    max_loss_scaling: Annotated[float, Range(min=1.0)] = 4294967296.0
    incr_ratio: Annotated[float, Range(min=1.0, min_open=True)] = 2.0
    decr_ratio: Annotated[float, Range(min=0.0, max=1.0, min_open=True, max_open=True)] = 0.5
    incr_every_n_steps: Annotated[int, Range(min=1)] = 1000
    decr_every_n_nan_or_inf: Annotated[int, Range(min=1)] = 2
    use_dynamic_loss_scaling: bool = True


@dataclass(frozen=True)
class FP16Section:
    """Mixed precision.

    Attributes:
        level: ``O0`` float32 throughout, ``O1`` some operations in low precision, ``O2`` nearly
            all of them, with weights in it and float32 masters.
        dtype: the low precision.
        GradScaler: loss scaling (float16 only).
        strict: refuse a level that the device cannot run instead of running in float32.
        fp16_custom_white_list: operations to run in low precision as well.
        fp16_custom_black_list: operations to keep in float32.
    """

    level: Literal["O0", "O1", "O2"] = "O0"
    dtype: Literal["float16", "bfloat16"] = "float16"
    GradScaler: GradScalerSection = field(default_factory=GradScalerSection)
    strict: bool = False
    fp16_custom_white_list: Optional[list[str]] = None
    fp16_custom_black_list: Optional[list[str]] = None


@dataclass(frozen=True)
class ShardingSection:
    """What processes keep in parts instead of in copies.

    Attributes:
        stage: 1: the state of the optimizer.
    """

    stage: Annotated[int, Range(min=1, max=3)] = 1


@dataclass(frozen=True)
class DistributedStrategySection:
    """How several processes share the work.

    Attributes:
        data_parallel: each process takes a part of every batch; the only strategy there is.
        data_sharding: PASSL's switch, which it refuses; see ``sharding``.
        sharding: keep the optimizer's state in parts; null: every process has all of it.
        overlap: send gradients while the backward pass goes on; null: on accelerators.
    """

    data_parallel: bool = True
    data_sharding: bool = False
    sharding: Optional[ShardingSection] = None
    overlap: Optional[bool] = None


@dataclass(frozen=True)
class EMASection:
    """A moving average of the weights; there is one if the section is there.

    Attributes:
        decay: share of the average that stays at an update.
        warmup: let the decay grow with the number ``n`` of updates made, as ``(1 + n) / (10 + n)``,
            until it is ``decay``.
        every: update the average after every so many optimizer updates.
        eval_start_epoch: evaluate the average too in epochs after this one; 0: always, null: never.
    """

    decay: Annotated[float, Range(min=0.9, max=1.0, max_open=True)] = 0.9999
    warmup: bool = True
    every: Annotated[int, Range(min=1)] = 1
    eval_start_epoch: Annotated[Optional[int], Range(min=0)] = 0


@dataclass(frozen=True)
class LossTerm:
    """One term of a loss.

    Attributes:
        component: the loss.
        weight: its factor in the sum.
    """

    component: Annotated[ComponentDict, Component("losses")]
    weight: float = 1.0


@dataclass(frozen=True)
class LossSection:
    """What is minimised, and what evaluation reports.

    Attributes:
        Train: terms of the training loss.
        Eval: terms of the loss that evaluation reports.
    """

    Train: list[LossTerm] = field(default_factory=list)
    Eval: list[LossTerm] = field(default_factory=list)


@dataclass(frozen=True)
class MetricSection:
    """What is counted.

    Attributes:
        Train: metrics of training batches (none where labels are soft).
        Eval: metrics of evaluation; the first decides which checkpoint is the best.
    """

    Train: Annotated[list[ComponentDict], Component("metrics")] = field(default_factory=list)
    Eval: Annotated[list[ComponentDict], Component("metrics")] = field(default_factory=list)


@dataclass(frozen=True)
class GradClip:
    """Clipping of the gradient before the update.

    Attributes:
        name: by the norm over all parameters.
        clip_norm: the norm that the gradient is scaled down to.
        always_clip: scale to ``clip_norm`` also when the norm is below it.
        clip_norm_max: upper bound of the factor with ``always_clip``.
        no_clip_list: parts of names of parameters that are left alone.
    """

    name: Literal["ClipGradByGlobalNorm"] = "ClipGradByGlobalNorm"
    clip_norm: Annotated[float, Range(min=0.0, min_open=True)] = 1.0
    always_clip: bool = False
    clip_norm_max: Annotated[Optional[float], Range(min=0.0, min_open=True)] = None
    no_clip_list: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ParamGroupRule:
    """Settings for the parameters whose name matches a pattern.

    Attributes:
        name: of the group, for the log.
        pattern: regular expression, searched in the parameter's name.
        lr_scale: factor on the learning rate.
        weight_decay: instead of the optimizer's; null keeps that.
    """

    name: str
    pattern: str
    lr_scale: Annotated[float, Range(min=0.0)] = 1.0
    weight_decay: Annotated[Optional[float], Range(min=0.0)] = None


@dataclass(frozen=True)
class OptimizerSection:
    """The optimizer, and which parameters it treats how.

    Attributes:
        component: the optimizer.
        grad_clip: clipping; null for none.
        no_weight_decay_name: parts of names of parameters that are not decayed.
        no_weight_decay_1d: do not decay parameters of one dimension (biases, norms).
        param_groups: groups with settings of their own; the first that matches counts.
        layer_decay: factor on the learning rate from each layer to the one before it, times the
            group's ``lr_scale``; null for none.
        freeze: regular expressions, searched in names, of parameters that are not trained.
    """

    component: Annotated[ComponentDict, Component("optimizers")]
    grad_clip: Optional[GradClip] = None
    no_weight_decay_name: list[str] = field(default_factory=list)
    no_weight_decay_1d: bool = False
    param_groups: list[ParamGroupRule] = field(default_factory=list)
    layer_decay: Annotated[Optional[float], Range(min=0.0, max=1.0, min_open=True)] = None
    freeze: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ExportSection:
    """How the trained model leaves.

    Attributes:
        export_type: format of the files: Paddle's inference format, ONNX, or both.
        input_shape: of one input, [batch, channels, height, width]; null where the size is free
            (the batch). Not given: a free batch of what the model takes.
        batch_size: images of an input, in place of ``input_shape``'s; ``free`` takes any number.
        dtype: of the stored weights. ``float16`` halves the files, ``int8`` (ONNX only) takes a
            quarter; docs/deploy.md says what computes in them.
        opset: version of ONNX's operators.
        softmax: end in probabilities instead of logits.
        preprocess: put the normalisation that ends ``DataLoader.Eval``'s transforms inside: the
            input is uint8 [batch, height, width, channels].
        labels: file of class names, one a line; null takes those of the data set, if it has any.
        simplify: fold and fuse operators of the ONNX file with onnxsim or onnxoptimizer.
        tolerance: largest difference to the live model, relative to its largest output (at least
            1); null is 1e-4 for float32, 1e-2 for float16 and int8. Above it nothing is exported.
    """

    export_type: Literal["paddle", "onnx", "both"] = "paddle"
    input_shape: Optional[list[Annotated[Optional[int], Range(min=1)]]] = None
    batch_size: Union[Annotated[int, Range(min=1)], Literal["free"], None] = None
    dtype: Literal["float32", "float16", "int8"] = "float32"
    opset: Annotated[int, Range(min=11, max=20)] = 17
    softmax: bool = False
    preprocess: bool = False
    labels: Optional[str] = None
    simplify: bool = False
    tolerance: Annotated[Optional[float], Range(min=0.0, min_open=True)] = None


@dataclass(frozen=True)
class Sections:
    """The top level of a config.

    Attributes:
        Model: the network; every command needs it.
        Global: the run as a whole.
        FP16: mixed precision.
        DistributedStrategy: how processes share the work.
        EMA: a moving average of the weights; null for none.
        Loss: what is minimised.
        Distillation: learning from a teacher; null for none.
        Quantization: another number format, in simulation; null for none.
        LRScheduler: the learning rate of every step.
        Optimizer: the update rule.
        DataLoader: training and evaluation data.
        Metric: what is counted.
        Export: how the trained model leaves.
        Logging: where figures and pictures of the run go.
        Hooks: code of your own called at fixed points of the loop.
    """

    Model: Annotated[ComponentDict, Component("models")]
    Global: GlobalSection = field(default_factory=GlobalSection)
    FP16: FP16Section = field(default_factory=FP16Section)
    DistributedStrategy: DistributedStrategySection = field(
        default_factory=DistributedStrategySection
    )
    EMA: Optional[EMASection] = None
    Loss: LossSection = field(default_factory=LossSection)
    Distillation: Optional[DistillationSection] = None
    Quantization: Optional[QuantizationSection] = None
    LRScheduler: Annotated[Optional[ComponentDict], Component("schedules")] = None
    Optimizer: Optional[OptimizerSection] = None
    DataLoader: DataLoaderSection = field(default_factory=DataLoaderSection)
    Metric: MetricSection = field(default_factory=MetricSection)
    Export: Optional[ExportSection] = None
    Logging: LoggingSection = field(default_factory=LoggingSection)
    Hooks: Annotated[list[ComponentDict], Component("hooks")] = field(default_factory=list)


#: Section classes by name: annotations refer to them.
SECTIONS = {
    section.__name__: section
    for section in (
        GlobalSection,
        FP16Section,
        GradScalerSection,
        DistributedStrategySection,
        ShardingSection,
        EMASection,
        DistillationSection,
        TeacherSection,
        TeacherTransform,
        QuantizationSection,
        CalibrationSection,
        LossSection,
        LossTerm,
        MetricSection,
        OptimizerSection,
        GradClip,
        ParamGroupRule,
        DataLoaderSection,
        LoaderSection,
        SamplerSection,
        WorkerSection,
        ExportSection,
        LoggingSection,
        Sections,
    )
}
