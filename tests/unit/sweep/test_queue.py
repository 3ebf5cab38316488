"""The queue keeps its places busy, outlives runs that fail, and passes a stop on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from swept import swept

from passl.engine.stopping import StopRequest
from passl.errors import EXIT_FAILED, EXIT_OK, EXIT_STOPPED
from passl.sweep.queue import Place, exit_status, run_queue
from passl.sweep.records import Record, read_record

# In place of passl-train: notes when it began and ended, and does what its first value says.
STUB = """
import json, os, pathlib, signal, sys, time
what = sys.argv[sys.argv.index("-o") + 1].partition("=")[2]
log = pathlib.Path(os.environ["STUB_LOG"])
def note(word):
    with open(log, "a") as file:
        file.write(json.dumps([word, what, os.environ.get("CUDA_VISIBLE_DEVICES"), time.time()]))
        file.write("\\n")
def stop(number, frame):
    note("stopped"); sys.exit(75)
signal.signal(signal.SIGTERM, stop)
note("begin")
kind = what.partition("-")[0]
if kind == "fail":
    print("some last words"); sys.exit(1)
if kind == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if kind == "told":
    notes = pathlib.Path(os.environ["PASSL_ATTEMPT_DIR"])
    (notes / "rank_0.json").write_text(json.dumps({"exit": 2, "error": "it is wrong"})); sys.exit(2)
time.sleep(3600 if kind == "long" else 0.15)
note("end")
"""
LAUNCHER = (sys.executable, "-S", "-c", STUB)


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []
        self.most = 0

    def started(self, record, place):
        self.said.append(("started", record.name))

    def ended(self, record):
        self.said.append((record.state, record.name))

    def waiting(self, running):
        self.most = max(self.most, len(running))


@pytest.fixture
def log(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("STUB_LOG", str(tmp_path / "log"))
    return tmp_path / "log"


def notes(log: Path) -> list[list]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def records(folder: Path, *whats: str) -> list[Record]:
    return [swept(folder, {"K.k": what}, state="new") for what in whats]


def run(runs, places, folder, stop=None, heard=None):
    heard = heard or Heard()
    run_queue(runs, places, LAUNCHER, stop or StopRequest(), heard, folder=folder, pause_s=0.01)
    return heard


def test_each_device_gets_one_run_at_a_time(tmp_path, log):
    runs = records(tmp_path, *(f"short-{n}" for n in range(6)))
    places = [Place(f"device {n}", {"CUDA_VISIBLE_DEVICES": str(n)}) for n in (0, 1)]
    heard = run(runs, places, tmp_path)
    assert [record.state for record in runs] == ["done"] * 6
    assert heard.most == 2
    for device in ("0", "1"):
        words = [word for word, _, where, _ in notes(log) if where == device]
        assert words
        assert words == ["begin", "end"] * (len(words) // 2)


def test_a_run_that_fails_stops_no_other_and_says_why(tmp_path, log):
    runs = records(tmp_path, "fail", "killed", "told", "short")
    run(runs, [Place("", {})], tmp_path)
    assert [record.state for record in runs] == ["failed", "failed", "failed", "done"]
    assert runs[0].error == "exit status 1: some last words"
    assert "killed by signal 9" in runs[1].error
    assert runs[2].error == "it is wrong"
    assert exit_status(runs, was_stopped=False) == EXIT_FAILED
    kept = read_record(runs[2].folder)
    assert kept is not None
    assert (kept.state, kept.exit, kept.error) == ("failed", 2, "it is wrong")


def test_a_command_that_cannot_be_started_is_a_failed_run(tmp_path):
    runs = records(tmp_path, "a", "b")
    run_queue(runs, [Place("", {})], ("/no/such",), StopRequest(), Heard(), folder=tmp_path)
    assert [record.state for record in runs] == ["failed", "failed"]
    assert "could not be started" in runs[0].error


def test_a_stop_reaches_the_running_ones_and_nothing_is_started_after_it(tmp_path, log):
    runs = records(tmp_path, "long-1", "long-2", "short")
    stop = StopRequest()

    class StopWhenBusy(Heard):
        def waiting(self, running):
            if log.exists() and len(notes(log)) == 2:
                stop.set("SIGTERM")

    run(runs, [Place("", {})] * 2, tmp_path, stop, StopWhenBusy())
    assert [record.state for record in runs] == ["stopped", "stopped", "new"]
    assert exit_status(runs, was_stopped=True) == EXIT_STOPPED
    assert [word for word, *_ in notes(log)] == ["begin", "begin", "stopped", "stopped"]


def test_a_stop_before_a_run_can_hear_it_is_no_failure(tmp_path, monkeypatch):
    runs = records(tmp_path, "x")
    stop = StopRequest()

    class StopAtOnce(Heard):
        def started(self, record, place):
            stop.set("SIGINT")

    deaf = (sys.executable, "-S", "-c", "import time; time.sleep(3600)")
    run_queue(runs, [Place("", {})], deaf, stop, StopAtOnce(), folder=tmp_path)
    assert runs[0].state == "stopped"


def test_a_file_stop_in_the_folder_of_the_sweep_stops_it(tmp_path, log):
    (tmp_path / "STOP").touch()
    stop = StopRequest()
    runs = records(tmp_path, "short")
    run(runs, [Place("", {})], tmp_path, stop)
    assert "the file" in (stop.reason or "")
    assert runs[0].state == "new"
    assert not (tmp_path / "STOP").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_runs_stop_when_the_sweep_is_killed(tmp_path, log):
    records(tmp_path, "long")
    code = (
        "import sys\nfrom pathlib import Path\nfrom passl.engine.stopping import StopRequest\n"
        "from passl.sweep.queue import Place, run_queue\nfrom passl.sweep.records import *\n"
        "class Heard:\n    started = ended = waiting = lambda self, *a: None\n"
        "folder = Path(sys.argv[1])\nrecord = read_record(folder)\n"
        "launcher = (sys.executable, '-S', '-c', sys.argv[2])\n"
        "run_queue([record], [Place('', {})], launcher, StopRequest(), Heard(), folder=folder)\n"
    )
    sweep = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "k=long"), STUB])
    try:
        _wait(lambda: log.exists() and "begin" in log.read_text())
        os.kill(sweep.pid, signal.SIGKILL)
        _wait(lambda: "stopped" in log.read_text())
    finally:
        sweep.kill()
        sweep.wait()


@pytest.mark.parametrize(
    ("states", "was_stopped", "status"),
    [
        (["done", "done"], False, EXIT_OK),
        (["done", "done"], True, EXIT_OK),
        (["done", "failed"], False, EXIT_FAILED),
        (["failed", "new"], True, EXIT_STOPPED),
        (["done", "stopped"], False, EXIT_STOPPED),
    ],
)
def test_the_exit_status_says_what_is_left(tmp_path, states, was_stopped, status):
    runs = [swept(tmp_path, {"K.k": n}, state=state) for n, state in enumerate(states)]
    assert exit_status(runs, was_stopped=was_stopped) == status


def _wait(is_so) -> None:
    limit = time.monotonic() + 300
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.02)
