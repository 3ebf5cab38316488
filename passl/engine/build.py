"""From a checked config to a run, by a short list of builders in one order.

    data -> lock of the folder -> logs -> device -> state to continue from -> model
    -> pretrained weights -> evaluation -> loss, metrics -> schedule -> groups, optimizer
    -> precision -> hooks -> state in place

Data comes first and without Paddle: what is missing on disk is said within a second.  No builder
changes the config; a part that a mode does not need is not built.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

from passl.checkpoint.resolve import resolve_checkpoint
from passl.checkpoint.store import CheckpointStore
from passl.config import BatchPlan, Config, plan_batches, require
from passl.config.durations import parse_duration
from passl.distributed.talk import PeerLostError
from passl.distributed.world import World, read_world
from passl.engine.faults.attempt import Attempt
from passl.engine.faults.peers import Peers
from passl.engine.reports.writers import check_writers
from passl.engine.stopping import (
    STOP_FILE,
    RunStopped,
    StopRequest,
    StopWatch,
    catching_signals,
    holding_signals,
)
from passl.errors import CheckpointError, ConfigError, DataError, PasslError
from passl.registry import import_user_modules
from passl.runtime import import_paddle, prepare

if TYPE_CHECKING:
    from passl.data.loader import Loader
    from passl.engine.evaluator import EvalResult, Evaluator
    from passl.engine.state import TrainState
    from passl.engine.trainer import Trainer

__all__ = ["Run", "build_run", "run_dir_of"]


class Run:
    """A run that is built and ready.

    Attributes:
        config: what it was built from.
        mode: ``train`` or ``eval``.
        run_dir: where its files are.
        model: the network.
        trainer: in train mode.
        evaluator: where the config evaluates.
    """

    def __init__(
        self,
        config: Config,
        mode: str,
        run_dir: Path,
        model: Any,
        *,
        trainer: Optional[Trainer] = None,
        evaluator: Optional[Evaluator] = None,
        reporter: Any = None,
        quantized: Any = None,
    ) -> None:
        self.config, self.mode, self.run_dir, self.model = config, mode, run_dir, model
        self.trainer, self.evaluator, self._reporter = trainer, evaluator, reporter
        self._quantized = quantized
        #: Notes for the other processes of the job, and a look at theirs.
        self.peers = Peers(run_dir, World())

    def fit(self, *, stop: Optional[StopRequest] = None, handle_signals: bool = True) -> TrainState:
        """Train to the end of the plan; returns the final state.

        Args:
            stop: set it to end the run after the current step, from a thread or a handler of your
                own; ``Global.max_time`` counts from its making.
            handle_signals: let SIGTERM, SIGINT, SIGUSR1 and SIGHUP do the same meanwhile, if this
                is the main thread and ``stop`` is not given.

        Raises:
            RunStopped: it was asked to stop and did; the state is saved.
            PasslError: the run was built for another mode.
        """
        if self.trainer is None:
            raise PasslError("this run was built to evaluate; build it with mode='train' to fit")
        with _listening(stop, handle_signals) as request:
            limit = self.config.Global.max_time
            watch = self._watch(
                request,
                stop_file=self.run_dir / STOP_FILE,
                max_time_s=parse_duration(limit) if limit is not None else None,
            )
            first = self.trainer.state.step
            with self._failures():
                state = self.trainer.fit(watch)
            if watch.reason is None or self.trainer.is_complete:
                return state
            how = _how_it_stopped(state, self.run_dir, watch.reason)
            sentence = how + _how_to_continue(self.config, state, watch, state.step - first)
            self._reporter.stopped(sentence)
            raise RunStopped(sentence)

    def close(self) -> None:
        """Let another run use the folder; :meth:`fit` does it at its end."""
        if self.trainer is not None:
            self.trainer.parts.store.close()

    def evaluate(
        self, *, stop: Optional[StopRequest] = None, handle_signals: bool = True
    ) -> EvalResult:
        """Evaluate the model on ``DataLoader.Eval``.

        Of a run that was built to train, the model as it is now, whether it was stopped or not.

        Args:
            stop, handle_signals: as of :meth:`fit`.

        Raises:
            RunStopped: it was asked to stop before the last batch; there is no result.
            PasslError: the config has no ``DataLoader.Eval``.
        """
        if self.trainer is not None:
            with _listening(stop, handle_signals) as request:
                return self.trainer.evaluate(self._watch(request).poll)
        if self.evaluator is None:
            raise PasslError("there is nothing to evaluate on: the config has no DataLoader.Eval")
        report = self._reporter.eval_reporter(self.evaluator.loader, self.evaluator.loss_names)
        every = self.config.Global.print_batch_step
        with _listening(stop, handle_signals) as request:
            watch = self._watch(request)
            try:
                with self._failures():
                    observe = self._reporter.evaluation_begins(self.evaluator.loader)
                    result = self.evaluator.run(self.model, report, every, watch.poll, observe)
            except RunStopped as error:
                sentence = (
                    f"stopped by {watch.reason} before the evaluation was done; there is no "
                    "result: run the same command again"
                )
                self._reporter.stopped(sentence)
                raise RunStopped(sentence) from error
        self._reporter.eval_result(result)
        if self._quantized is not None:
            self._quantized.report(self._reporter)
        return result

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Tell the other processes of a failure, and the log what they tell."""
        try:
            with self.peers.failures(ends=True):
                yield
        except PeerLostError as error:
            self._reporter.failed(error)
            raise

    def _watch(self, request: StopRequest, **limits: Any) -> StopWatch:
        from passl.distributed.agreement import Agreement

        world, attempt = read_world(), Attempt.from_environment()
        attempt.run_dir(self.run_dir)
        return StopWatch(request, world, agree=Agreement(world), attempt=attempt, **limits)


def build_run(config: Config, mode: str = "train") -> Run:
    """Build everything that ``mode`` needs.

    Args:
        config: from :func:`passl.load_config`.
        mode: ``train`` or ``eval``.

    Raises:
        ConfigError: the config cannot be run here: data missing, no such device, no permission.
        CheckpointError: weights or state that cannot be used.
    """
    if mode not in ("train", "eval"):
        raise ConfigError(f"a run is built to 'train' or to 'eval', not to {mode!r}")
    require(config, "train" if mode == "train" else "eval")
    world = read_world()
    batches = plan_batches(config, world.size, mode="train" if mode == "train" else "eval")
    if mode == "train":
        check_writers(config)
    _find_checkpoints(config)
    if mode == "train":
        _find_teacher(config)
    loaders = _build_loaders(config, mode, batches, world)
    run_dir = _make_run_dir(config, mode)

    peers = Peers(run_dir, world, mode=mode)
    with peers.failures():
        settings = prepare(config.Global.num_threads, device=config.Global.device)
        with holding_signals():
            import_paddle()
        from passl.distributed.collectives import wait_for_all
        from passl.engine.parts import Builder

        import_user_modules(config.Global.imports, execute=True)
        with _own_folder(config, mode, run_dir, world) as (store, unlocked):
            builder = Builder(config, mode, world, run_dir, batches)
            builder.reporter.detail(settings.describe())
            if unlocked is not None:
                builder.reporter.warn(unlocked)
            try:
                builder.set_device()
                # Rank 0 has locked the folder before it met the others: it is this job's.
                peers.begin()
                builder.reporter.has_folder()
                wait_for_all(world)
                peers.watch()
                run = builder.build(loaders, store)
            except Exception as error:
                builder.reporter.failed(error)
                raise
        run.peers = peers
        return run


@contextmanager
def _own_folder(
    config: Config, mode: str, run_dir: Path, world: World
) -> Iterator[tuple[CheckpointStore, Optional[str]]]:
    """The checkpoints of the run, and why its folder cannot be locked, if that is so.

    A training has the folder to itself before it writes a line: the log there may be another run's.
    It keeps the folder if all goes well within, and gives it back otherwise.

    Raises:
        CheckpointError: another run is at work in the folder, or it cannot be written.
    """
    store = CheckpointStore(run_dir, config.Global.max_num_latest_checkpoint)
    try:
        unlocked = None
        if mode == "train" and world.is_main:
            unlocked = store.prepare()
            _refuse_to_start_over(config, run_dir)  # again: another run may just have ended here
        yield store, unlocked
    except BaseException:
        store.close()
        raise


@contextmanager
def _listening(stop: Optional[StopRequest], handle_signals: bool) -> Iterator[StopRequest]:
    """The request to obey: the caller's, or one that the signals set meanwhile."""
    if stop is not None:
        yield stop
        return
    request = StopRequest()
    with catching_signals(request) if handle_signals else nullcontext():
        yield request


def _how_it_stopped(state: TrainState, run_dir: Path, reason: str) -> str:
    saved = f"the state is saved in {run_dir}" if state.step else "nothing was trained yet"
    due = ", before the evaluation that is due there" if state.evaluation_due else ""
    return f"stopped after step {state.step}{due}, by {reason}; {saved}: "


def _how_to_continue(config: Config, state: TrainState, watch: StopWatch, steps: int) -> str:
    """What to type next; ``steps`` were made in this start."""
    if watch.is_out_of_time and not steps:
        return "no step fits into that time; run the command again with a larger Global.max_time"
    wanted = config.Global.checkpoint
    if wanted == "auto" or not state.step:
        return "run the same command again to continue"
    return (
        "to continue, run the command again with -o Global.checkpoint=auto "
        f"({'null' if wanted is None else wanted} would not go on from here)"
    )


def run_dir_of(config: Config) -> Path:
    """``output_dir/<Model.name>``, as in PASSL; no shell expands ``~`` within an override."""
    return Path(config.Global.output_dir).expanduser() / config.Model["name"]


def _build_loaders(
    config: Config, mode: str, batches: BatchPlan, world: World
) -> dict[str, Loader]:
    """The loaders that the mode needs; imports no Paddle.

    Raises:
        ConfigError: the data cannot be used, with the place in the config.
    """
    from passl.data.build import build_loader

    wanted = {"train": ["Train"], "eval": ["Eval"]}[mode]
    if mode == "train" and config.Global.eval_during_train:
        wanted.append("Eval")
    loaders = {}
    for name in wanted:
        section, is_train = getattr(config.DataLoader, name), name == "Train"
        try:
            loaders[name] = build_loader(
                section,
                mode="train" if is_train else "eval",
                global_batch_size=(
                    batches.global_batch_size if is_train else batches.eval_batch_size
                ),
                class_num=config.Model.get("class_num"),
                seed=config.Global.seed,
                rank=world.rank,
                world_size=world.size,
                run_dir=run_dir_of(config),
            )
        except DataError as error:
            where = config.origin(f"DataLoader.{name}.dataset")
            raise ConfigError(f"{where}: DataLoader.{name}.dataset: {error}") from error
    if len(loaders) == 2:
        _refuse_other_order(config, loaders["Train"].dataset, loaders["Eval"].dataset)
    return loaders


def _refuse_other_order(config: Config, train: Any, evaluated: Any) -> None:
    """As many classes on both sides, of which one is missing here and another there.

    Raises:
        ConfigError: a class has one label in training and another in evaluation.
    """
    from passl.data.class_names import known_names
    from passl.data.class_order import moved_class

    sides = ((train, config.DataLoader.Train), (evaluated, config.DataLoader.Eval))
    names = [
        known_names(dataset, section.dataset if section is not None else {}) or ()
        for dataset, section in sides
    ]
    moved = moved_class(*names)
    if moved is not None:
        name, ours, theirs = moved
        raise ConfigError(
            f"{config.origin('DataLoader.Eval.dataset')}: DataLoader.Eval.dataset: class {name!r} "
            f"has label {theirs} there and {ours} in DataLoader.Train.dataset, so a right answer "
            "would count as wrong: both must have the same classes (compare their folders)"
        )


def _find_checkpoints(config: Config) -> None:
    """Refuse paths to weights that lead nowhere, before anything is built.

    Raises:
        ConfigError: naming the key and what was looked for.
    """
    for key in ("pretrained_model", "checkpoint"):
        path = getattr(config.Global, key)
        if path in (None, "auto"):
            continue
        where = f"{config.origin(f'Global.{key}')}: Global.{key}"
        try:
            resolved = resolve_checkpoint(path)
        except CheckpointError as error:
            raise ConfigError(f"{where}: {error}") from error
        if key == "checkpoint" and resolved.state is None:
            raise ConfigError(
                f"{where}: {path} holds weights but no training state to continue from; to start "
                f"from these weights use -o Global.checkpoint=auto Global.pretrained_model={path}"
            )


def _find_teacher(config: Config) -> None:
    """Refuse a path to a teacher that leads nowhere, before anything is built.

    Raises:
        ConfigError: naming the key and what was looked for.
    """
    section = config.Distillation
    if section is None or section.type == "none" or section.teacher is None:
        return
    key, path = "pretrained", section.teacher.pretrained
    try:
        if path is not None:
            resolve_checkpoint(path)
            return
        key, path = "name", section.teacher.name
        if not Path(path).expanduser().is_file():
            raise CheckpointError(f"{path}: there is no such file")
    except CheckpointError as error:
        where = config.origin(f"Distillation.teacher.{key}")
        raise ConfigError(f"{where}: Distillation.teacher.{key}: {error}") from error


def _make_run_dir(config: Config, mode: str) -> Path:
    """The run's folder, made if needed and known to be writable.

    Raises:
        ConfigError: it cannot be made or written, or holds a run that this one would overwrite.
    """
    run_dir = run_dir_of(config)
    where = config.origin("Global.output_dir")
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run_dir):
            pass
    except OSError as error:
        raise ConfigError(
            f"{where}: Global.output_dir: cannot write to {run_dir} ({error.strerror}); choose "
            "another folder with -o Global.output_dir=PATH"
        ) from error
    if mode == "train":
        _refuse_to_start_over(config, run_dir)
    return run_dir


def _refuse_to_start_over(config: Config, run_dir: Path) -> None:
    """Refuse to begin anew where there are checkpoints.

    Raises:
        ConfigError: the folder holds a run that this one would overwrite.
    """
    if config.Global.checkpoint is not None:
        return
    earlier = sorted((run_dir / "checkpoints").glob("step_*"))
    if earlier:
        raise ConfigError(
            f"{config.origin('Global.checkpoint')}: Global.checkpoint is null, which starts "
            f"anew, but {run_dir} already holds {earlier[-1].name} of an earlier run; continue "
            "it with -o Global.checkpoint=auto, choose another -o Global.output_dir=PATH, or "
            "remove the folder"
        )
