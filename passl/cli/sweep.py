"""``passl-sweep``: train a config with many values, and see which was best."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Callable, Optional

from passl.checkpoint.lock import RunLock
from passl.cli.check import check_transforms
from passl.cli.common import add_config_options, command_parser, run_command
from passl.config import Config, load_config
from passl.distributed.host import installed_versions
from passl.engine.stopping import STOP_FILE, StopRequest, catching_signals
from passl.errors import EXIT_OK, CheckpointError, ConfigError
from passl.installed import is_installed, python_for
from passl.runtime import available_cores
from passl.sweep.factors import parse_grid, parse_random
from passl.sweep.plan import Sweep, plan_sweep
from passl.sweep.progress import Progress
from passl.sweep.queue import Place, exit_status, run_queue
from passl.sweep.records import (
    Record,
    prepare_records,
    read_sweep,
    train_command,
    write_sweep,
)

__all__ = ["build_parser", "main"]

_EPILOG = """examples:
  passl-sweep -c quickstart/ViT_micro_digits \\
      --grid LRScheduler.learning_rate=1e-3,4e-3,1.6e-2 Optimizer.weight_decay=0.05,0.3 --jobs 2
  passl-sweep -c CONFIG --grid 'LRScheduler.learning_rate=log(1e-4,1e-2,5)' Global.seed=1,2,3
  passl-sweep -c CONFIG --random 'LRScheduler.learning_rate=log(1e-4,1e-2)' \\
      'Model.drop_path_rate=uniform(0,0.3)' --trials 20 --devices 0,1,2,3
  passl-sweep -c CONFIG --grid Model.drop_path_rate=0,0.1,0.2 --dry-run        only list the runs
  passl-sweep -c CONFIG --grid Model.drop_path_rate=0,0.1,0.2 --slurm --sbatch=--gpus-per-task=1
  passl-sweep --report --out output/sweep_CONFIG                                only compare

Every combination is checked before the first run starts. The same command goes on where it was
stopped; more values add runs.

exit status: 0 all runs are done; 1 some failed; 2 a mistake in the config, a value or an option;
75 stopped by SIGTERM, SIGINT, SIGUSR1, SIGHUP or a file STOP in the sweep's folder, states saved
"""

#: How a run is started: the commands may be installed elsewhere than this Python.
_LAUNCHER = python_for(
    "sys.argv[0] = 'passl-train'; from passl.cli.train import main; sys.exit(main())"
)
_THREADS = "OMP_NUM_THREADS"
_SWEEP_COMMAND = python_for(
    "sys.argv[0] = 'passl-sweep'; from passl.cli.sweep import main; sys.exit(main())"
)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns its exit status."""
    is_process = argv is None
    return run_command(build_parser(), lambda arguments: _sweep(arguments, is_process), argv)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = command_parser(
        "passl-sweep", "Train a config with many values, and see which was best.", _EPILOG
    )
    add_config_options(parser, required=False)
    _add_factor_options(parser)
    _add_place_options(parser)
    parser.add_argument(
        "--by", metavar="KEY", help="what of an evaluation to compare (default: its first metric); "
        "of a loss the least is best",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="check, list the runs, and stop")
    what.add_argument("--report", action="store_true", help="compare what there is, and stop")
    return parser


def _add_factor_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("what varies")
    group.add_argument(
        "--grid", nargs="+", action="extend", default=[], metavar="KEY=VALUES",
        help="every combination: KEY=1e-3,3e-3 or KEY=log(1e-4,1e-2,5) or KEY=linear(0,0.3,4)",
    )
    group.add_argument(
        "--random", nargs="+", action="extend", default=[], metavar="KEY=RANGE",
        help="drawn: KEY=log(1e-4,1e-2), uniform(0,0.3), int(1,8), or one of a,b,c",
    )
    group.add_argument("--trials", type=int, metavar="N", help="so many draws, with --random")
    group.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the draws (default: %(default)s)"
    )


def _add_place_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("where")
    group.add_argument(
        "--out", metavar="DIR", help="folder of the sweep (default: Global.output_dir/sweep_CONFIG)"
    )
    group.add_argument(
        "--devices", metavar="0,1,...", help="GPUs, one run on each at a time; twice for two runs"
    )
    group.add_argument(
        "--jobs", type=int, metavar="N", help="runs at a time on the CPU, which share its cores"
    )
    group.add_argument(
        "--skip-failed", action="store_true", help="do not start runs again that failed before"
    )
    group.add_argument("--slurm", action="store_true", help="write a Slurm job array instead")
    group.add_argument("--submit", action="store_true", help="with --slurm: submit it")
    group.add_argument(
        "--sbatch", action="append", default=[], metavar="OPTION",
        help="with --slurm: an option of sbatch, such as --sbatch=--time=10:00:00; repeatable",
    )
    group.add_argument("--task", type=int, help=argparse.SUPPRESS)
    group.add_argument("--tasks", help=argparse.SUPPRESS)


def _sweep(arguments: argparse.Namespace, is_process: bool) -> int:
    if arguments.tasks is not None:
        return _run_task(arguments, is_process)
    _check_options(arguments)
    if arguments.report and arguments.out is not None:
        return _compare(Path(arguments.out), arguments.by)
    if arguments.config is None:
        raise ConfigError("give the config of the runs with -c FILE, or --report --out DIR")
    folder = _folder(arguments)
    if arguments.report:
        return _compare(folder, arguments.by)
    sweep = plan_sweep(
        arguments.config,
        arguments.override,
        parse_grid(arguments.grid),
        parse_random(arguments.random),
        trials=arguments.trials or 0,
        seed=arguments.seed,
        folder=folder,
        check=_transform_check(),
    )
    places = _places(arguments, sweep.runs[0].config)
    with nullcontext() if arguments.dry_run or arguments.slurm else _alone(sweep.folder):
        records = prepare_records(sweep)
        _print_plan(sweep, records, places, arguments)
        if arguments.dry_run:
            return EXIT_OK
        if arguments.slurm:
            return _write_slurm(arguments, sweep, records)
        return _train(arguments, sweep, records, places, is_process)


def _check_options(arguments: argparse.Namespace) -> None:
    problems = []
    if arguments.random and arguments.trials is None:
        problems.append("--random needs --trials N: how many times to draw")
    if arguments.trials is not None and not arguments.random:
        problems.append("--trials is for --random; a grid has as many runs as combinations")
    if arguments.trials is not None and arguments.trials < 1:
        problems.append(f"--trials {arguments.trials}: must be 1 or more")
    if arguments.jobs is not None and arguments.jobs < 1:
        problems.append(f"--jobs {arguments.jobs}: must be 1 or more")
    if arguments.devices is not None and arguments.jobs is not None and not arguments.slurm:
        problems.append("--devices and --jobs: one or the other; each device is a job")
    if arguments.submit and not arguments.slurm:
        problems.append("--submit is for --slurm")
    if arguments.sbatch and not arguments.slurm:
        problems.append("--sbatch is for --slurm")
    if arguments.slurm and arguments.devices is not None:
        problems.append("--devices is for runs on this machine; with --slurm ask Slurm for GPUs: "
                        "--sbatch=--gpus-per-task=1")
    if problems:
        raise ConfigError(problems)


def _folder(arguments: argparse.Namespace) -> Path:
    if arguments.out is not None:
        return Path(arguments.out)
    # What varies may be needed for a right config, so its first values are filled in here.
    first = [f"{f.key}={f.values[0].text}" for f in parse_grid(arguments.grid)]
    first += [f"{f.key}={f.value(arguments.seed, 0).text}" for f in parse_random(arguments.random)]
    try:
        config = load_config(arguments.config, [*arguments.override, *first])
    except ConfigError:  # the plan will say all that is wrong
        return Path("output") / f"sweep_{Path(arguments.config).stem}"
    return Path(config.Global.output_dir).expanduser() / f"sweep_{Path(arguments.config).stem}"


def _transform_check() -> Callable[[Config], None]:
    """Also build the transforms, which know more of their arguments than a type says."""
    seen: set[str] = set()

    def check(config: Config) -> None:
        text = repr((config.DataLoader, config.Model.get("class_num")))
        if text not in seen:
            check_transforms(config, "train")
            seen.add(text)

    return check


# -- where the runs are made -------------------------------------------------------------------


def _places(arguments: argparse.Namespace, config: Config) -> list[Place]:
    if arguments.devices is None or arguments.slurm:
        jobs = arguments.jobs or 1
        variables = {}
        if jobs > 1 and config.Global.num_threads is None and not os.environ.get(_THREADS):
            variables[_THREADS] = str(max(1, available_cores() // jobs))
        return [Place("", variables)] * jobs
    devices = [device.strip() for device in arguments.devices.split(",")]
    problems = []
    if not all(devices):
        problems.append(f"--devices {arguments.devices}: an empty name; write 0,1,2,3")
    if config.Global.device not in ("auto", "gpu"):
        problems.append(
            f"--devices {arguments.devices}: the runs have Global.device {config.Global.device} "
            f"({config.origin('Global.device')}), so they would use no GPU; use --jobs N"
        )
    elif "(cpu)" in (paddle := installed_versions()["paddle"]):
        problems.append(
            f"--devices {arguments.devices}: the Paddle installed here, {paddle}, knows no GPU; "
            "use --jobs N, or install a GPU build"
        )
    if problems:
        raise ConfigError(problems)
    return [Place(f"device {device}", {"CUDA_VISIBLE_DEVICES": device}) for device in devices]


def _train(
    arguments: argparse.Namespace,
    sweep: Sweep,
    records: Sequence[Record],
    places: Sequence[Place],
    is_process: bool,
) -> int:
    write_sweep(sweep, records)
    skipped = ("done", "failed") if arguments.skip_failed else ("done",)
    wanted = [record for record in records if record.state not in skipped]
    stop = StopRequest()
    with catching_signals(stop, ends_process=is_process):
        with _progress(records) as progress:
            run_queue(wanted, places, _LAUNCHER, stop, progress, folder=sweep.folder)
        if stop.reason is not None:
            print(f"stopped by {stop.reason}: the same command goes on from here")
        try:
            _compare(sweep.folder, arguments.by)
        except ConfigError as error:  # the runs are as they are
            print(f"passl-sweep: no report: {error}; mend it and run --report", file=sys.stderr)
    return exit_status(records, was_stopped=stop.reason is not None)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other sweep plans or trains in the folder meanwhile.

    Raises:
        CheckpointError: another one does.
        ConfigError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written: {error}") from error
    lock = RunLock(folder)
    try:
        lock.acquire()
    except CheckpointError as error:
        if isinstance(error.__cause__, OSError):
            raise  # not the other sweep's doing
        raise CheckpointError(
            f"another passl-sweep works in {folder}; wait for its end, stop it with: "
            f"touch {folder / STOP_FILE}, or choose another folder with --out"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _write_slurm(arguments: argparse.Namespace, sweep: Sweep, records: Sequence[Record]) -> int:
    from passl.sweep.slurm import submit, write_array

    skipped = ("done", "failed") if arguments.skip_failed else ("done",)
    wanted = [record for record in records if record.state not in skipped]
    if not wanted:
        print("nothing is left to run")
        return _compare(sweep.folder, arguments.by)
    write_sweep(sweep, records)
    script = write_array(
        wanted, sweep.folder, command=_SWEEP_COMMAND, options=arguments.sbatch,
        at_once=arguments.jobs,
    )
    print(f"wrote {script}, an array of {len(wanted)} runs")
    if arguments.submit:
        print(submit(script))
    else:
        print(f"submit it:  sbatch {shlex.quote(str(script))}")
    print(f"then compare:  passl-sweep --report --out {shlex.quote(str(sweep.folder))}")
    return EXIT_OK


def _run_task(arguments: argparse.Namespace, is_process: bool) -> int:
    from passl.sweep.slurm import read_task

    if arguments.task is None:
        raise ConfigError("--tasks needs --task N")
    record = read_task(Path(arguments.tasks), arguments.task)
    if record.state == "done":
        print(f"{record.name} is done already")
        return EXIT_OK
    stop = StopRequest()
    with catching_signals(stop, ends_process=is_process), _progress([record]) as progress:
        run_queue([record], [Place("", {})], _LAUNCHER, stop, progress, folder=record.folder)
    return exit_status([record], was_stopped=stop.reason is not None)


def _progress(records: Sequence[Record]) -> Progress:
    return Progress(records, lambda text: print(text, flush=True))


# -- what is printed ---------------------------------------------------------------------------


def _print_plan(
    sweep: Sweep, records: Sequence[Record], places: Sequence[Place], arguments: argparse.Namespace
) -> None:
    states = [record.state for record in records]
    words = {"done": "done", "stopped": "to go on with", "failed": "failed before", "new": "new"}
    counts = [f"{states.count(s)} {word}" for s, word in words.items() if s in states]
    print(f"sweep of {_count(len(records), 'run')} in {sweep.folder}: {', '.join(counts)}")
    if not arguments.slurm:
        threads = places[0].environment.get(_THREADS)
        each = f", {_count(int(threads), 'thread')} each" if threads else ""
        names = ", ".join(place.name for place in places if place.name)
        print(f"{len(places)} at a time{f' on {names}' if names else ''}{each}")
    for note in (*sweep.notes, *_notes(sweep.runs[0].config)):
        print(f"note: {note}")
    if arguments.dry_run:
        for number, record in enumerate(records, 1):
            state = {"stopped": "to go on with"}.get(record.state, record.state)
            print(f"[{number}/{len(records)}] {record.name}   {state}")
        print(f"each as:  {shlex.join(['passl-train', *train_command(records[0])])}")


def _notes(config: Config) -> list[str]:
    notes = []
    if config.Global.checkpoint != "auto":
        notes.append(
            f"Global.checkpoint is {config.Global.checkpoint or 'null'}, not auto, so a run that "
            "is interrupted does not go on from its own checkpoint"
        )
    if not is_installed("matplotlib"):
        notes.append("no picture will be drawn: pip install matplotlib")
    return notes


def _compare(folder: Path, by: Optional[str]) -> int:
    from passl.sweep.report import read_results

    keys, records = read_sweep(folder)
    results = read_results(keys, records, folder, by)
    written = results.write()
    if is_installed("matplotlib"):
        from passl.sweep.picture import draw_results

        written.append(draw_results(results, folder / "results.png"))
    print()
    _print_table(results.table())
    print()
    for line in (*results.failures(), *results.best_lines()):
        print(line)
    print(f"written: {', '.join(map(str, written))}")
    return EXIT_OK


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths)]
        print("  ".join(cells).rstrip())


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


if __name__ == "__main__":
    raise SystemExit(main())
