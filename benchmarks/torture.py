"""Kill a training run again and again, and compare every byte with a run that was never stopped.

    python benchmarks/torture.py --kills 100 --sigterms 20 --seed 0

First one process is ended with SIGKILL: at a random moment, while its thread writes a checkpoint,
or while it evaluates, and started again with the same command, until it is done; then the next
run, until there were enough kills.  Then two processes under ``paddle.distributed.launch``, whose
launcher gets SIGTERM.  After each kill every checkpoint that can be seen is compared with the one
that the undisturbed run wrote at the same step, and the one that the next start loads must be the
newest of them.  At the end weights, optimizer state, best, counters and recorded figures are
compared.

To save time most starts of the first part are forked from a process that has imported Paddle and
done nothing with it; every ``--cold-every``-th is a new interpreter, and all are processes of their
own ended by a real SIGKILL.  Exit status 1 if a byte differs, a torn checkpoint was loaded, or a
SIGTERM cost a step or did not end the run.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Optional

REPO = Path(__file__).resolve().parents[1]
CONFIG = REPO / "configs/quickstart/ViT_micro_digits.yaml"
#: Dropout, accumulation, a ragged last batch, an evaluation in mid-epoch: what a resume can lose.
SETTINGS = (
    "Model.embed_dim=16",
    "Model.depth=2",
    "Model.num_heads=2",
    "Model.drop_rate=0.1",
    "Model.drop_path_rate=0.1",
    "~DataLoader.Train.sampler.batch_size",
    "Global.global_batch_size=250",
    "Global.accum_steps=1",
    "Global.save_unit=step",
    "Global.eval_unit=step",
    "Global.eval_interval=9",
    "Global.print_batch_step=4",
    "Global.max_num_latest_checkpoint=2",
    "Global.use_visualdl=false",
    "Global.device=cpu",
    "DataLoader.Eval.sampler.batch_size=16",
)
_TIMES = ("batch_cost", "reader_cost", "ips", "host_mem_gb", "time")
_LIMIT_S = 600.0


class Job:
    """One run in one folder: starts it, and reads what it left.

    Args:
        folder: of the run, made if needed.
        settings: overrides beside :data:`SETTINGS`.
    """

    def __init__(self, folder: Path, settings: Sequence[str]) -> None:
        self.folder, self.notes = folder, folder / "notes"
        self.notes.mkdir(parents=True)
        self.options = [*SETTINGS, *settings, f"Global.output_dir={folder / 'out'}"]
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith(("PADDLE_", "CUDA_VISI"))},
            "PASSL_ATTEMPT_DIR": str(self.notes),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")])),
        }

    # -- starting ----------------------------------------------------------------------------

    def fork(self) -> int:
        """Start in a child of this process, which has imported Paddle already; its pid."""
        from passl.cli import train

        self._forget()
        pid = os.fork()
        if pid:
            return pid
        os.setsid()
        output = os.open(self.folder / "output.txt", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.environ.update(self.environment)
        status = 1
        try:
            status = train.main(["-c", str(CONFIG), "-o", *self.options])
        finally:
            os._exit(status)

    def start(self, *, ranks: int = 1) -> subprocess.Popen[bytes]:
        """Start as a user would: a new interpreter, or the launcher with several."""
        self._forget()
        command = [sys.executable, "-W", "ignore"]
        if ranks > 1:
            command += ["-m", "paddle.distributed.launch", "--nproc_per_node", str(ranks)]
            command += ["--log_dir", str(self.folder / "launch")]
        command += [str(REPO / "tools/train.py"), "-c", str(CONFIG), "-o", *self.options]
        with open(self.folder / "output.txt", "ab") as output:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=self.environment,
                start_new_session=True,
            )

    def _forget(self) -> None:
        for note in self.notes.iterdir():
            note.unlink()

    # -- reading -----------------------------------------------------------------------------

    @property
    def dir(self) -> Path:
        """The run's folder."""
        found = [path for path in (self.folder / "out").glob("*") if path.is_dir()]
        return found[0] if found else self.folder / "out" / "none yet"

    def steps(self) -> int:
        """Steps that every rank finished in this start; 0 before it trains."""
        steps = [int(path.read_text() or 0) for path in self.notes.glob("*.step")]
        return min(steps, default=0)

    def exits(self) -> list[int]:
        """Exit status of the ranks that ended by themselves."""
        return [json.loads(path.read_text())["exit"] for path in self.notes.glob("rank_*.json")]

    def checkpoints(self) -> dict[str, str]:
        """Name of every visible checkpoint -> digest of its arrays."""
        found = {}
        for folder in sorted((self.dir / "checkpoints").glob("step_*")):
            digest = hashlib.sha256()
            for name in ("model.pdparams", "optimizer.pdopt"):
                path = folder / name
                digest.update(path.read_bytes() if path.exists() else b"missing")
            found[folder.name] = digest.hexdigest()
        return found

    def is_saving(self) -> bool:
        """A checkpoint is half written at this moment (or a kill left it so)."""
        return any((self.dir / "checkpoints").glob(".step_*"))

    def log(self) -> str:
        """The run's own log."""
        path = self.dir / "train.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def resumed_from(self) -> list[str]:
        """Names of the checkpoints that starts continued from, in order."""
        return re.findall(r"continuing from \S*/(step_\d+): step", self.log())

    def result(self) -> dict[str, bytes]:
        """All that a stop could have changed, as bytes; times are left out."""
        found = {}
        for link in ("latest", "best"):
            for name in ("model.pdparams", "optimizer.pdopt"):
                found[f"{link}/{name}"] = (self.dir / link / name).read_bytes()
            state = json.loads((self.dir / link / "state.json").read_text())["state"]
            del state["train_time_s"]
            found[f"{link}/state"] = json.dumps(state, sort_keys=True).encode()
        lines = (self.dir / "metrics.jsonl").read_text().splitlines()
        records = [{k: v for k, v in json.loads(x).items() if k not in _TIMES} for x in lines]
        found["metrics.jsonl"] = "\n".join(map(json.dumps, records)).encode()
        return found


class Tally:
    """What is counted and printed."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.moments: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stop_times_s: list[float] = []

    def check(self, job: Job, reference: dict[str, str]) -> set[str]:
        """Compare what a kill left with the undisturbed run; names of the whole checkpoints."""
        whole = set()
        for name, digest in job.checkpoints().items():
            if reference.get(name) == digest:
                whole.add(name)
            else:
                self.counts["visible checkpoints that differ"] += 1
                self.problems.append(f"{job.folder}: {name} differs from the undisturbed run's")
        return whole

    def lost(self, job: Job, whole: set[str]) -> int:
        """Steps that the kill threw away."""
        newest = max((int(name[5:]) for name in whole), default=0)
        return max(0, job.steps() - newest)

    def resumed(self, job: Job, before: int, whole: set[str]) -> None:
        """Judge what the start after a kill continued from."""
        since = job.resumed_from()[before:]
        if since:
            self.counts["resumes"] += 1
            if since[0] not in whole:
                self.counts["torn checkpoints loaded"] += 1
                self.problems.append(f"{job.folder}: continued from {since[0]}, not whole")
            elif since[0] != max(whole):
                self.counts["resumes that passed over a newer whole checkpoint"] += 1
                self.problems.append(f"{job.folder}: continued from {since[0]}, not {max(whole)}")

    def finished(self, job: Job, expected: dict[str, bytes]) -> None:
        """Compare the end of a run with the undisturbed one's."""
        self.counts["runs finished and compared"] += 1
        for name, data in job.result().items():
            wrong = differing_bytes(data, expected[name])
            if wrong:
                self.counts["differing bytes"] += wrong
                self.problems.append(f"{job.folder}: {name}: {wrong} bytes differ")


def differing_bytes(mine: bytes, theirs: bytes) -> int:
    """Bytes in which two files differ; a difference in length counts as well."""
    return sum(a != b for a, b in zip(mine, theirs)) + abs(len(mine) - len(theirs))


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Torture; 0 if nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="SIGKILLs of one process")
    parser.add_argument("--sigterms", type=int, default=20, help="SIGTERMs of two processes")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--cold-every", type=int, default=10, help="every so many starts unforked")
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary folder)")
    arguments = parser.parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    rng, tally, began = random.Random(arguments.seed), Tally(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="torture-") as temporary:
        folder = (arguments.folder or Path(temporary)).absolute()
        if arguments.kills:
            torture_one(folder / "one", arguments.kills, arguments.cold_every, rng, tally)
        if arguments.sigterms:
            torture_two(folder / "two", arguments.sigterms, rng, tally)
    print_table(tally, arguments, time.monotonic() - began)
    return 1 if tally.problems else 0


# -- one process, SIGKILL ----------------------------------------------------------------------


def torture_one(
    folder: Path, kills: int, cold_every: int, rng: random.Random, tally: Tally
) -> None:
    """SIGKILL until there were ``kills``; the run that is going on is finished."""
    import_paddle_here()
    length = "Global.epochs=8"
    reference = Job(folder / "whole", [length, *keep_all()])
    began = time.monotonic()
    assert wait(reference.fork()) == 0, f"the undisturbed run failed: {reference.log()[-2000:]}"
    longest_s = (time.monotonic() - began) / 2  # long enough to get on, short enough to be killed
    checkpoints, expected = reference.checkpoints(), reference.result()
    starts = 0
    number = 0
    while tally.counts["kills"] < kills:
        number += 1
        job = Job(folder / f"run_{number}", [length, "Global.save_interval=3"])
        whole: set[str] = set()
        while True:
            starts += 1
            resumed = len(job.resumed_from())
            cold = starts % cold_every == 0
            pid = job.start().pid if cold else job.fork()
            moment = "never"
            if tally.counts["kills"] < kills:
                moment = kill_at_some_moment(job, pid, longest_s + 4.0 * cold, rng)
            status = wait(pid)
            tally.resumed(job, resumed, whole)
            if status != -signal.SIGKILL:
                if status != 0:
                    tally.problems.append(f"{job.folder}: ended with {status}: {job.log()[-500:]}")
                    return
                break
            tally.counts["kills"] += 1
            tally.counts["kills of a new interpreter"] += cold
            tally.moments[moment if not job.is_saving() else "while a checkpoint was written"] += 1
            whole = tally.check(job, checkpoints)
            tally.counts["steps lost to SIGKILL"] += tally.lost(job, whole)
            show(tally)
        tally.finished(job, expected)


def kill_at_some_moment(job: Job, pid: int, longest_s: float, rng: random.Random) -> str:
    """SIGKILL ``pid`` at a moment that ``rng`` chooses, unless it ends before; says which."""
    kind = rng.choice(("any", "any", "save", "evaluation"))
    deadline = time.monotonic() + rng.uniform(0.0, longest_s)
    saves, pause = rng.randint(1, 3), rng.uniform(0.0, 0.03)
    was_saving, log_size = True, len(job.log())
    while time.monotonic() < deadline or kind != "any":
        if has_ended(pid):
            return "too late"
        is_saving = job.is_saving()
        if kind == "save" and is_saving and not was_saving:
            saves -= 1
            if saves == 0:
                time.sleep(pause)
                break
        was_saving = is_saving
        if kind == "evaluation":
            lines = job.log()[log_size:].splitlines()
            if lines and "[Eval][Epoch" in lines[-1] and "[Avg]" not in lines[-1]:
                break
        time.sleep(0.001)
    os.kill(pid, signal.SIGKILL)
    if job.steps() == 0:
        return "before the first step"
    return "in an evaluation" if kind == "evaluation" else "elsewhere"


def import_paddle_here() -> None:
    """What the forked starts find done: Paddle and scikit-learn imported, no operation run."""
    sys.path.insert(0, str(REPO))
    from passl import runtime

    runtime.prepare(device="cpu")
    runtime.import_paddle()
    import sklearn.datasets  # noqa: F401

    import passl.engine.parts  # noqa: F401


# -- two processes, SIGTERM --------------------------------------------------------------------


def torture_two(folder: Path, sigterms: int, rng: random.Random, tally: Tally) -> None:
    """SIGTERM to the launcher until there were ``sigterms``; the run going on is finished."""
    length = f"Global.epochs={min(80, max(20, 5 * sigterms))}"
    reference = Job(folder / "whole", [length, *keep_all()])
    assert reference.start(ranks=2).wait(_LIMIT_S * 4) == 0, reference.log()[-2000:]
    checkpoints, expected = reference.checkpoints(), reference.result()
    number, left = 1, sigterms
    job, whole = Job(folder / "run_1", [length, "Global.save_interval=50"]), set[str]()
    while True:
        resumed = len(job.resumed_from())
        started = job.start(ranks=2)
        if left:
            left -= send_sigterm(job, started, rng, tally)
        started.wait(_LIMIT_S * 4)
        tally.resumed(job, resumed, whole)
        whole = tally.check(job, checkpoints)
        if job.exits() == [0, 0]:
            tally.finished(job, expected)
            if not left:
                return
            number += 1
            job = Job(folder / f"run_{number}", [length, "Global.save_interval=50"])
            whole = set()
            continue
        if set(job.exits()) - {75}:
            tally.problems.append(f"{job.folder}: the ranks ended with {job.exits()}")
            return
        lost = tally.lost(job, whole) if len(list(job.notes.glob("*.step"))) == 2 else 0
        tally.counts["steps lost to SIGTERM"] += lost
        if lost:
            tally.problems.append(f"{job.folder}: a SIGTERM cost {lost} steps")
        show(tally)


def send_sigterm(
    job: Job, started: subprocess.Popen[bytes], rng: random.Random, tally: Tally
) -> int:
    """SIGTERM to the launcher while it starts or trains; 1 if it came before the end."""
    early = rng.random() < 0.15
    limit = time.monotonic() + (rng.uniform(0.0, 6.0) if early else _LIMIT_S)
    while time.monotonic() < limit and started.poll() is None and not has_begun(job):
        time.sleep(0.01)
    time.sleep(0.0 if early else rng.uniform(0.0, 0.8))
    if started.poll() is not None:
        return 0
    began = time.monotonic()
    started.send_signal(signal.SIGTERM)
    started.wait(_LIMIT_S)
    took = time.monotonic() - began
    tally.stop_times_s.append(took)
    tally.counts["SIGTERMs"] += 1
    tally.counts["SIGTERMs before the first step"] += not has_begun(job)
    if has_begun(job) and len(job.exits()) < 2:  # the launcher sends SIGKILL after 30 s
        tally.problems.append(f"{job.folder}: after a SIGTERM and {took:.1f} s ranks were killed")
    return 1


def has_begun(job: Job) -> bool:
    """Both ranks have trained a step in this start."""
    return len(list(job.notes.glob("*.step"))) == 2 and job.steps() > 0


# -- small things ------------------------------------------------------------------------------


def keep_all() -> Iterator[str]:
    """The undisturbed run keeps a checkpoint of every step to compare with.

    It waits for each of them; the runs that are killed save beside training, as the default is.
    """
    yield from ("Global.save_interval=1", "Global.max_num_latest_checkpoint=100000")
    yield "Global.save_in_background=false"


def has_ended(pid: int) -> bool:
    """The child has ended; it is still to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def wait(pid: int) -> int:
    """Wait for a child; its exit status, negative for a signal."""
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def show(tally: Tally) -> None:
    """A line of progress on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{dict(tally.counts)}", end="", file=sys.stderr, flush=True)


def print_table(tally: Tally, arguments: argparse.Namespace, seconds: float) -> None:
    """The result, and every problem."""
    counts, times = tally.counts, sorted(tally.stop_times_s)
    rows: list[tuple[str, Any]] = [("kills (SIGKILL, one process)", counts["kills"])]
    rows += [(f"  {name}", number) for name, number in sorted(tally.moments.items())]
    rows += [
        ("  of a new interpreter, not a forked one", counts["kills of a new interpreter"]),
        ("SIGTERMs (launcher, two processes)", counts["SIGTERMs"]),
        ("  before the first step", counts["SIGTERMs before the first step"]),
        (
            "  seconds to the end, median / longest",
            f"{times[len(times) // 2]:.1f} / {times[-1]:.1f}",
        )
        if times
        else ("  seconds to the end", "-"),
        ("resumes", counts["resumes"]),
        ("runs finished and compared", counts["runs finished and compared"]),
        ("steps lost to SIGKILL", counts["steps lost to SIGKILL"]),
        ("steps lost to SIGTERM (must be 0)", counts["steps lost to SIGTERM"]),
        ("differing bytes at the end (must be 0)", counts["differing bytes"]),
        ("torn checkpoints loaded (must be 0)", counts["torn checkpoints loaded"]),
        ("checkpoints that differ (must be 0)", counts["visible checkpoints that differ"]),
        ("seed", arguments.seed),
        ("seconds in all", f"{seconds:.0f}"),
    ]
    width = max(len(name) for name, _ in rows)
    print()
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    for problem in tally.problems:
        print(f"PROBLEM: {problem}")


if __name__ == "__main__":
    sys.exit(main())
