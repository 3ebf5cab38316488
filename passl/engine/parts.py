"""The builders of a run, in the order of :mod:`passl.engine.build`; Paddle is loaded here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

import paddle

from passl.checkpoint.pretrained import load_pretrained
from passl.checkpoint.saver import Saver
from passl.checkpoint.store import CheckpointStore
from passl.config import BatchPlan, Config
from passl.data.loader import Loader
from passl.distributed.collectives import broadcast_parameters, check_equal, init_world
from passl.distributed.world import World
from passl.engine.build import Run
from passl.engine.class_agreement import compare_classes
from passl.engine.compiled import compile_model
from passl.engine.device import choose_device, set_flags
from passl.engine.evaluator import Evaluator
from passl.engine.mixed_precision import (
    build_precision,
    halve_for_evaluation,
    halve_for_training,
)
from passl.engine.model_facts import (
    check_external,
    check_weights,
    checkpoint_weights,
    evaluation_settings,
    set_recompute,
    without_external_files,
)
from passl.engine.plan import RunPlan, plan_run
from passl.engine.quantization import evaluate_quantized, round_in_training
from passl.engine.reports.reporting import Reporter
from passl.engine.resume import check_agreement, find_state, restore
from passl.engine.run_record import learned_classes, record_beside, run_record
from passl.engine.sharding import ShardedOptimizer
from passl.engine.state import TrainState
from passl.engine.teachers.distillation import build_distillation
from passl.engine.train_parts import TrainParts
from passl.engine.trainer import Trainer
from passl.engine.weights import differing_settings, weights_to_evaluate
from passl.errors import ConfigError
from passl.losses.combined import CombinedLoss
from passl.models import create_model
from passl.optim.clip import ClipGradByGlobalNorm
from passl.optim.groups import (
    ParamGroup,
    build_param_groups,
    check_substrings,
    describe_groups,
    freeze_parameters,
)
from passl.optim.layer_decay import layer_scales
from passl.precision.amp import Precision
from passl.precision.ema import WeightAverage
from passl.registry import HOOKS, LOSSES, METRICS, OPTIMIZERS, SCHEDULES, Registry

__all__ = ["Builder"]


class Builder:
    """Builds the parts of one run.

    Args:
        config: the checked config, never changed.
        mode: ``train`` or ``eval``.
        world: this process among all.
        run_dir: folder of the run's files.
        batches: sizes of batches.
    """

    def __init__(
        self, config: Config, mode: str, world: World, run_dir: Path, batches: BatchPlan
    ) -> None:
        self.config, self.mode, self.world = config, mode, world
        self.run_dir, self.batches = run_dir, batches
        self.reporter = Reporter(run_dir, config, mode, world)
        self._precision: Optional[Precision] = None

    def build(self, loaders: Mapping[str, Loader], store: CheckpointStore) -> Run:
        """All parts of the mode, and the run they make; :meth:`set_device` comes first.

        Args:
            loaders: ``Train`` and ``Eval``, those that the mode needs.
            store: of the run's folder, which a training has locked.
        """
        is_training = self.mode == "train"
        found = None
        if is_training:
            found = find_state(self.config, store, self.reporter, self.world)
        model = self.build_model(with_pretrained=is_training and found is None)
        evaluator = self.build_evaluator(loaders["Eval"]) if "Eval" in loaders else None
        if self.mode == "eval":
            learned = self.load_for_evaluation(model, loaders["Eval"])
            halve_for_evaluation(
                model, self.build_precision_once(), self.config, self.reporter
            )
            quantized = evaluate_quantized(
                self.config, model, evaluator, self.world, self.weights_to_evaluate(), learned
            )
            return Run(
                self.config,
                self.mode,
                self.run_dir,
                model,
                evaluator=evaluator,
                reporter=self.reporter,
                quantized=quantized,
            )
        plan = self.plan(loaders["Train"])
        parts = self.build_parts(model, plan, loaders["Train"], evaluator, store)
        state = TrainState()
        if found is not None:
            state = restore(parts, plan, found, self.config, self.reporter)
        self.check_weights(model)
        check_agreement(state, self.world, self.run_dir)
        self.check_equal_start(parts, resumed=found is not None)
        halve_for_training(parts, self.config, self.reporter)
        compile_model(model, self.config, parts.precision, parts.hooks, self.reporter)
        self.reporter.start(parts, plan, state, self.batches)
        # A checkpoint that is named may be in another folder, or have newer ones beside it.
        is_saved = found is None or self.config.Global.checkpoint == "auto"
        trainer = Trainer(parts, plan, state, is_saved=is_saved)
        return Run(
            self.config,
            self.mode,
            self.run_dir,
            model,
            trainer=trainer,
            evaluator=evaluator,
            reporter=self.reporter,
        )

    # -- one builder a part ------------------------------------------------------------------

    def set_device(self) -> None:
        """Choose the device, and meet the other processes there.

        ``auto`` takes a GPU if there is one, anything else is an order.
        """
        wanted = self.config.Global.device
        device = choose_device(wanted, self.config.origin("Global.device"))
        left_out = set_flags(self.config.Global.flags, self.config.origin("Global.flags"))
        if left_out:
            self.reporter.log(
                f"Global.flags: {', '.join(left_out)} is of GPUs, for which this Paddle is not "
                "built: left out"
            )
        paddle.set_device(device)
        self.reporter.device = device
        init_world(self.world)

    def build_model(self, with_pretrained: bool) -> Any:
        """The network with its initial or pretrained weights, equal on all ranks.

        Args:
            with_pretrained: read ``Global.pretrained_model``; a run that continues needs none.
        """
        arguments = {key: value for key, value in self.config.Model.items() if key != "name"}
        if self.mode == "eval":
            weights = self.weights_to_evaluate()
            arguments, notes = without_external_files(arguments, record_beside(weights), weights)
            self.reporter.log("\n".join(notes))
        try:
            model = create_model(
                self.config.Model["name"], seed=self.config.Global.seed, **arguments
            )
        except ConfigError as error:
            raise ConfigError(f"{self.config.origin('Model')}: Model: {error}") from error
        set_recompute(model, self.config)
        path = self.config.Global.pretrained_model
        if path is not None and with_pretrained:
            self.reporter.log(self.load_pretrained(model, path))
        broadcast_parameters(checkpoint_weights(model).values(), self.world)
        return model

    def check_equal_start(self, parts: TrainParts, resumed: bool) -> None:
        """Refuse to train when the processes hold different weights or optimizer states.

        Raises:
            PasslError: on all ranks, naming the tensors.
        """
        tensors = dict(parts.model.state_dict())
        if resumed and not isinstance(parts.optimizer, ShardedOptimizer):
            tensors.update(parts.optimizer.state_dict())
        check_equal(
            tensors,
            self.world,
            f"All machines must see the same files in {self.run_dir}, and install the same "
            "versions: passl-check --dist compares them",
        )

    def load_pretrained(self, model: Any, path: str) -> str:
        """Begin with ``Global.pretrained_model``; returns what became of its tensors."""
        settings = self.config.Global
        if not settings.finetune:  # fine-tuning may exchange what the weights were trained beside
            check_external(model, record_beside(path), Path(path))
        method = settings.pos_embed_resize
        report = load_pretrained(
            model,
            path,
            finetune=settings.finetune,
            keep_head=settings.finetune_head == "keep",
            allow_missing=settings.allow_missing,
            pos_embed_method=None if method == "auto" else method,
        )
        return str(report)

    def load_for_evaluation(self, model: Any, loader: Loader) -> Optional[list[str]]:
        """Put the weights to evaluate in place; the log says which file they are from.

        Args:
            model: takes the weights.
            loader: of the data, whose classes must be in the order that the weights learned.

        Returns:
            the names of the classes that they learned; None: unknown.
        """
        path = self.weights_to_evaluate()
        record = record_beside(path)
        check_external(model, record, Path(path))
        report = load_pretrained(model, path, finetune=False)
        self.reporter.log(str(report))
        self.check_weights(model)
        self.say_settings(model, record)
        if "plan" in record:
            per_epoch = record["plan"]["steps_per_epoch"]
            self.reporter.epoch = max(1, -(-record["state"]["step"] // per_epoch))
        learned = learned_classes(record, self.config.Model.get("class_num"))
        warning = compare_classes(self.config, loader.dataset, learned)
        if warning is not None:
            self.reporter.warn(warning)
        return learned

    def say_settings(self, model: Any, record: Mapping[str, Any]) -> None:
        """State what besides the weights decides the result, and what it was while training."""
        self.reporter.evaluated_with(evaluation_settings(model))
        for warning in differing_settings(model, record):
            self.reporter.warn(warning)

    def check_weights(self, model: Any) -> None:
        """Refuse to go on without weights that no training can give.

        Raises:
            ConfigError: saying which are missing.
        """
        try:
            check_weights(model)
        except ConfigError as error:
            raise ConfigError(f"{self.config.origin('Model')}: Model: {error}") from error

    def weights_to_evaluate(self) -> str:
        """What ``passl-eval`` evaluates."""
        return weights_to_evaluate(self.config, self.run_dir)

    def plan(self, loader: Loader) -> RunPlan:
        """Lengths and intervals in steps."""
        settings = self.config.Global
        return plan_run(
            seed=settings.seed,
            global_batch_size=self.batches.global_batch_size,
            micro_batch_size=self.batches.micro_batch_size,
            steps_per_epoch=loader.num_batches,
            epochs=settings.epochs,
            max_train_step=settings.max_train_step,
            log_every=settings.print_batch_step,
            eval_interval=settings.eval_interval if settings.eval_during_train else None,
            eval_unit=settings.eval_unit,
            save_interval=settings.save_interval,
            save_unit=settings.save_unit,
        )

    def build_loss(self, section: str) -> Optional[CombinedLoss]:
        """The weighted losses of ``Loss.Train`` or ``Loss.Eval``."""
        terms = getattr(self.config.Loss, section)
        if not terms:
            return None
        return CombinedLoss(
            [
                (
                    t.component["name"],
                    t.weight,
                    self.build_component(LOSSES, f"Loss.{section}", t.component),
                )
                for t in terms
            ]
        )

    def build_metrics(self, section: str) -> list[Any]:
        """The metrics of ``Metric.Train`` or ``Metric.Eval``."""
        path = f"Metric.{section}"
        return [
            self.build_component(METRICS, path, metric)
            for metric in getattr(self.config.Metric, section)
        ]

    def build_evaluator(self, loader: Loader) -> Evaluator:
        """The evaluation of ``DataLoader.Eval``."""
        return Evaluator(
            loader,
            self.build_loss("Eval"),
            self.build_metrics("Eval"),
            self.build_precision_once(),
            self.world,
        )

    def build_schedule(self, plan: RunPlan) -> Any:
        """The learning rate as a function of the step."""
        schedule = self.build_component(
            SCHEDULES,
            "LRScheduler",
            self.config.LRScheduler,
            total_steps=plan.total_steps,
            steps_per_epoch=plan.steps_per_epoch,
        )
        for note in getattr(schedule, "notes", ()):
            self.reporter.log(f"schedule: {note}")
        return schedule

    def build_component(
        self, registry: Registry, path: str, component: Optional[Mapping[str, Any]], **runtime: Any
    ) -> Any:
        """Build one component; arguments that its constructor refuses are told with their place.

        Raises:
            ConfigError: the section is missing, or an argument makes no sense.
        """
        if component is None:
            raise ConfigError(f"{self.config.source_path}: {path}: missing")
        try:
            return registry.build(component, **runtime)
        except ValueError as error:
            where = self.config.origin(path)
            raise ConfigError(f"{where}: {path}: {error}") from error

    def build_optimizer(self, model: Any) -> Any:
        """The optimizer over groups of parameters; every trainable parameter is in one."""
        section = self.config.Optimizer
        assert section is not None  # the config check demands it of a run that trains
        component = dict(section.component)
        freeze_parameters(model.named_parameters(), section.freeze)
        scales = None
        if section.layer_decay is not None:
            scales = layer_scales(model, section.layer_decay)
            self.reporter.detail(str(scales))
        groups = build_param_groups(
            model.named_parameters(),
            no_weight_decay_name=section.no_weight_decay_name,
            no_weight_decay_1d=section.no_weight_decay_1d,
            rules=section.param_groups,
            weight_decay=float(component.get("weight_decay", 0.0)),
            layer_scales=scales,
        )
        table, _, summary = describe_groups(groups).rpartition("\n")
        self.reporter.detail(table)
        self.reporter.log(summary)

        def build(some: Sequence[ParamGroup]) -> Any:
            return self.build_component(OPTIMIZERS, "Optimizer", component, groups=some)

        if self.config.DistributedStrategy.sharding is None:
            return build(groups)
        if not self.world.is_distributed:
            self.reporter.log("sharding: there is one process, which keeps the whole state")
            return build(groups)
        return ShardedOptimizer(groups, build, self.world)

    def build_parts(
        self,
        model: Any,
        plan: RunPlan,
        loader: Loader,
        evaluator: Optional[Evaluator],
        store: CheckpointStore,
    ) -> TrainParts:
        """Everything the trainer needs."""
        rounding_hooks = round_in_training(self.config, model, self.reporter)
        loss = self.build_loss("Train")
        assert loss is not None  # the config check demands Loss.Train
        optimizer = self.build_optimizer(model)
        distillation = build_distillation(
            self.config,
            model,
            loader,
            self.build_precision_once(),
            self.world,
            self.reporter,
        )
        record = run_record(self.config, plan, loader, self.world)
        record["precision"] = self.build_precision_once().record()
        if distillation is not None:
            record.update(distillation.teacher.record)
        return TrainParts(
            model=model,
            loader=loader,
            loss=loss,
            metrics=self.build_metrics("Train"),
            schedule=self.build_schedule(plan),
            optimizer=optimizer,
            clip=self.build_clip(optimizer),
            precision=self.build_precision_once(),
            store=store,
            saver=Saver(
                store,
                self.reporter.save_ended,
                in_background=self.config.Global.save_in_background,
            ),
            reporter=self.reporter,
            hooks=[
                *rounding_hooks,
                *(self.build_component(HOOKS, "Hooks", hook) for hook in self.config.Hooks),
            ],
            evaluator=evaluator,
            world=self.world,
            record=record,
            overlap=self.config.DistributedStrategy.overlap,
            ema=self.build_ema(model, optimizer, plan),
            max_bad_steps=self.config.Global.max_bad_steps,
            distillation=distillation,
        )

    def build_ema(self, model: Any, optimizer: Any, plan: RunPlan) -> Optional[WeightAverage]:
        """The average of the weights that ``optimizer`` updates, or None."""
        settings = self.config.EMA
        if settings is None:
            return None
        if settings.every > plan.total_steps:
            self.reporter.warn(
                f"EMA.every: {settings.every} is more than the {plan.total_steps} steps of the "
                "run: the average stays as the weights are at the start"
            )
        start = settings.eval_start_epoch
        if start is not None and start >= plan.num_epochs and plan.eval_every is not None:
            self.reporter.warn(
                f"EMA.eval_start_epoch: the average is evaluated in epochs after {start}, and the "
                f"run has {plan.num_epochs}: never, and there will be no best_ema"
            )
        return WeightAverage(model, optimizer.named_weights, **vars(settings))

    def build_clip(self, optimizer: Any) -> Optional[ClipGradByGlobalNorm]:
        """Clipping by the norm over all parameters of ``optimizer``, or None.

        Raises:
            ConfigError: ``no_clip_list`` names what no parameter has in its name.
        """
        section = self.config.Optimizer
        settings = section.grad_clip if section is not None else None
        if settings is None:
            return None
        key = "Optimizer.grad_clip.no_clip_list"
        names = [name for name, _ in optimizer.named_parameters]
        problems = check_substrings(key, settings.no_clip_list, names)
        if problems:
            raise ConfigError([f"{self.config.origin(key)}: {problem}" for problem in problems])
        return ClipGradByGlobalNorm(
            clip_norm=settings.clip_norm,
            always_clip=settings.always_clip,
            clip_norm_max=settings.clip_norm_max,
            no_clip_list=settings.no_clip_list,
        )

    def build_precision_once(self) -> Precision:
        """One precision for training and evaluation."""
        if self._precision is None:
            self._precision = build_precision(self.config, self.reporter)
        return self._precision
