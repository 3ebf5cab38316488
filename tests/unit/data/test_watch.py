"""Workers that die, run out of memory or get stuck: a sentence, never a hang."""

from __future__ import annotations

import ctypes
import gc
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import numpy as np
import pytest
from shared_memory import FOLDER, files_in_shared_memory, left_in_shared_memory

from passl.data import threads
from passl.data.dataset import Dataset
from passl.data.loader import Loader
from passl.data.memory import available_memory, tight_memory
from passl.data.samplers import DistributedBatchSampler
from passl.data.watch import WorkerError, WorkerWatch

#: ``loader.timeout_s`` where a sample is stuck: longer than a busy machine keeps a thread waiting.
STUCK_S = 1.5


class Plain(Dataset):
    """Float images; ``act`` is called for each sample with its index."""

    def __init__(self, act: Callable[[int], Any] = lambda _: None, count: int = 40) -> None:
        super().__init__()
        self.act, self.count = act, count

    def __len__(self) -> int:
        return self.count

    def load(self, index: int) -> tuple[np.ndarray, int]:
        self.act(index)
        return np.zeros((3, 8, 8), np.float32), 0

    def path_of(self, index: int) -> str:
        return f"/data/{index}.jpg"


def make(dataset: Dataset, **rest: Any) -> Loader:
    sampler = DistributedBatchSampler(num_samples=len(dataset), batch_size=8, seed=0)
    return Loader(dataset, sampler, **rest)


def data_threads() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("passl-data")]


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    yield
    gc.collect()
    assert data_threads() == []


@pytest.fixture
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "_GRACE_S", 0.1)


# -- stuck ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_stuck_sample_ends_the_run_with_where_it_hangs(num_workers, no_grace):
    gate = threading.Event()

    def wait_at_thirteen(index: int) -> None:
        if index == 13:
            gate.wait()

    loader = make(Plain(wait_at_thirteen), num_workers=num_workers, timeout_s=STUCK_S, rank=0)
    with pytest.raises(WorkerError) as error:
        list(loader.epoch(0))
    text = str(error.value)
    assert text.startswith("rank 0: data worker ")
    assert f"is stuck: more than {STUCK_S} s (loader.timeout_s) while making sample 13 " in text
    if num_workers == 1:
        assert "; before it: sample 12 (/data/12.jpg), sample 11 (/data/11.jpg), " in text
    assert "threading.py line" in text  # where the thread waits
    assert "raise loader.timeout_s" in text
    gate.set()
    for thread in data_threads():
        thread.join(300)


def test_a_stuck_batch_transform_is_noticed_too(no_grace):
    gate = threading.Event()

    def mix(images: np.ndarray, labels: np.ndarray, rng: Any) -> tuple[np.ndarray, np.ndarray]:
        gate.wait()
        return images, labels

    loader = make(Plain(), num_workers=1, timeout_s=STUCK_S, batch_transforms=[mix])
    with pytest.raises(WorkerError, match="while making the whole of batch 0; before it"):
        list(loader.epoch(0))
    gate.set()
    for thread in data_threads():
        thread.join(300)


@pytest.mark.parametrize("timeout_s", [0.0, 1.2])
def test_slow_samples_are_not_stuck_ones(timeout_s):
    loader = make(Plain(lambda _: time.sleep(0.04)), num_workers=1, timeout_s=timeout_s)
    assert sum(len(batch.labels) for batch in loader.epoch(0)) == 40  # 1.6 s in all


def test_only_time_spent_waiting_for_the_sample_counts():
    watch = WorkerWatch(0, 1, 1.0, str)
    answers = iter([False, False, True])  # finished when it is waited for the third time

    class Finished(threading.Event):
        def wait(self, timeout: Optional[float] = None) -> bool:
            return next(answers)

    watch.begin(0, 5)
    time.sleep(1.2)  # the caller was busy elsewhere, or the machine slept
    watch.wait(Finished(), list)


STUCK = """
import time
import numpy as np
from passl.data.dataset import Dataset
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
class Plain(Dataset):
    def __len__(self): return 80
    def load(self, index):
        if index == 9: time.sleep(3600)
        return np.zeros((3, 8, 8), np.float32), 0
sampler = DistributedBatchSampler(num_samples=80, batch_size=8, seed=0)
list(Loader(Plain(), sampler, num_workers=2, timeout_s=2.0).epoch(0))
"""


def test_a_stuck_thread_does_not_keep_the_process_alive():
    done = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "WorkerError: rank 0: data worker" in done.stderr


# -- dead ----------------------------------------------------------------------------------------


class Killed(BaseException):
    """What no transform raises."""


@pytest.mark.parametrize("num_workers", [1, 3])
def test_a_thread_that_is_killed_between_samples_is_noticed(num_workers):
    loader = make(Plain(count=4000), num_workers=num_workers)
    epoch = loader.epoch(0)
    next(epoch)
    victim = data_threads()[0]
    assert victim.ident is not None
    # Raised in the thread at its next instruction, which may be in a sample or between two.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(victim.ident), ctypes.py_object(Killed)
    )
    with pytest.raises(WorkerError, match=r"rank 0: data worker \d .*(Killed|an exception)"):
        list(epoch)


def test_a_thread_that_dies_with_nothing_to_do_is_not_replaced_in_silence():
    loader = make(Plain(), num_workers=2)
    epoch = loader.epoch(0)
    next(epoch)
    pool = epoch._pool
    pool._tasks.put(lambda worker: sys.exit(f"worker {worker} leaves"))  # past all guards
    while not pool.dead():
        time.sleep(0.01)
    with pytest.raises(WorkerError) as error:
        list(epoch)
    assert "died (SystemExit: worker " in str(error.value)
    assert "No worker is started in its place" in str(error.value)


def test_threads_that_cannot_be_started_are_explained(monkeypatch):
    start, started = threading.Thread.start, []

    def refuse_the_third(thread: threading.Thread) -> None:
        if len(started) == 2:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse_the_third)
    with pytest.raises(WorkerError, match=r"4 data workers cannot be started \(can't start new"):
        make(Plain(), num_workers=4).epoch(0)


# -- out of memory -------------------------------------------------------------------------------


@pytest.mark.parametrize("skip", ["error", "skip"])
@pytest.mark.parametrize("num_workers", [0, 2])
def test_running_out_of_memory_is_told_and_never_skipped(num_workers, skip):
    def grab(index: int) -> None:
        if index == 13:
            np.zeros(1 << 60, np.uint8)

    with pytest.raises(WorkerError) as error:
        list(make(Plain(grab), num_workers=num_workers, bad_sample=skip, rank=0).epoch(0))
    text = str(error.value)
    assert text.startswith("rank 0: ")
    assert "ran out of memory (MemoryError: Unable to allocate" in text
    assert "while making sample 13 (/data/13.jpg)" in text
    assert "Lower loader.num_workers, loader.prefetch_batches or the batch size" in text


def test_batches_above_half_of_the_memory_are_warned_of(monkeypatch, caplog):
    batch = 8 * 3 * 8 * 8 * 4  # float32 [8, 3, 8, 8]
    monkeypatch.setattr("passl.data.loader.available_memory", lambda: 9 * batch)
    with caplog.at_level(logging.WARNING, logger="passl"):
        list(make(Plain(), prefetch_batches=2).epoch(0))  # four batches: below half
        assert caplog.records == []
        loader = make(Plain(), prefetch_batches=3)
        list(loader.epoch(0))
        list(loader.epoch(1))
    assert [record.getMessage() for record in caplog.records] == [
        "batches prepared in advance take 0.0 MiB (5 batches of 0.0 MiB), more than half of the "
        "0.1 MiB of memory that are available; lower loader.prefetch_batches or the batch size"
    ]


def test_the_estimate_counts_the_processes_of_the_machine():
    gib = 1 << 30
    assert tight_memory(gib, 4, 10 * gib) is None
    assert tight_memory(gib, 4, None) is None
    text = tight_memory(gib, 4, 10 * gib, processes=8)
    assert text is not None
    assert "take 32.0 GiB (4 batches of 1.0 GiB x 8 processes), more than half of the 10.0" in text


def test_a_containers_limit_counts(tmp_path: Path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal: 99 kB\nMemAvailable:   4000 kB\n")
    assert available_memory(tmp_path) == 4000 << 10
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.stat").write_text("anon 5\ninactive_file 500\n")
    (group / "memory.current").write_text("1500\n")
    (group / "memory.max").write_text("max\n")
    assert available_memory(tmp_path) == 4000 << 10
    (group / "memory.max").write_text("3000\n")
    assert available_memory(tmp_path) == 2000
    assert available_memory(tmp_path / "nowhere") is None
    assert (available_memory() or 0) > 0


# -- killed --------------------------------------------------------------------------------------

BUSY = """
import sys
import numpy as np
from passl.data.dataset import Dataset
from passl.data.loader import Loader
from passl.data.samplers import DistributedBatchSampler
class Plain(Dataset):
    def __len__(self): return 800_000
    def load(self, index): return np.zeros((3, 64, 64), np.float32), 0
sampler = DistributedBatchSampler(num_samples=800_000, batch_size=8, seed=0)
for batch in Loader(Plain(), sampler, num_workers=4, prefetch_batches=8).epoch(0):
    print("batch", flush=True)  # stops when the pipe is full, long before the end
"""


def children_of(pid: int) -> list[str]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += (task / "children").read_text().split()
    return found


def test_kill_9_leaves_no_process_and_no_shared_memory_behind():
    before = files_in_shared_memory()
    process = subprocess.Popen([sys.executable, "-c", BUSY], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for _ in range(20):
        assert process.stdout.readline() == "batch\n"
    assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) >= 5  # the threads are there
    assert children_of(process.pid) == []
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert FOLDER not in maps
    process.send_signal(signal.SIGKILL)
    assert process.wait(300) == -signal.SIGKILL
    process.stdout.close()
    assert left_in_shared_memory(before) == set()
