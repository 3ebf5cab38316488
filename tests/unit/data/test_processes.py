"""Worker processes: the batches of threads, a sentence for every end, nothing left behind."""

from __future__ import annotations

import gc
import json
import mmap
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from process_parts import Acting, HoldsTheLock, Several, SlowToArrive
from shared_memory import FOLDER, files_in_shared_memory, left_in_shared_memory

from passl.data.datasets.imagenet import ImageNetDataset
from passl.data.faults import FetchedSample, SampleFetcher
from passl.data.loader import Loader
from passl.data.process_worker import MAX_MESSAGE, REQUEST, _answer, _is_closed
from passl.data.processes import _sample
from passl.data.samplers import DistributedBatchSampler
from passl.data.table_file import open_table_file, write_table_file
from passl.data.transforms.decode import DecodeImage
from passl.data.transforms.flip import RandFlipImage
from passl.data.transforms.normalize import NormalizeImage, ToCHWImage
from passl.data.transforms.random_crop import RandCropImage
from passl.data.watch import WorkerError
from passl.errors import ConfigError, DataError

#: ``loader.timeout_s`` where a sample is stuck: longer than a busy machine keeps a process waiting.
STUCK_S = 1.5


def make(dataset: Any, *, batch_size: int = 8, workers: Any = "processes", **rest: Any) -> Loader:
    sampler = DistributedBatchSampler(
        num_samples=len(dataset), batch_size=batch_size, seed=0, shuffle=True
    )
    return Loader(dataset, sampler, **{"num_workers": 2, "workers": workers, "seed": 3, **rest})


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
    except OSError:
        return False
    return state not in "ZX"


def end_of(pids: list[int], seconds: float = 300) -> list[int]:
    """Those that live on after so long."""
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    return [pid for pid in pids if is_alive(pid)]


def pids_of(loader: Loader) -> list[int]:
    pool = loader._processes
    assert pool is not None
    return [pool.pid(number) for number in range(loader.num_workers)]


def run(loader: Loader, epochs: int) -> None:
    for epoch in range(epochs):
        list(loader.epoch(epoch))


def photos(tree: Path) -> ImageNetDataset:
    ops = [DecodeImage(), RandCropImage(size=16), RandFlipImage(), NormalizeImage(), ToCHWImage()]
    return ImageNetDataset(
        image_root=str(tree / "images"), cls_label_path=str(tree / "list.txt"), transform_ops=ops
    )


# -- the same batches ----------------------------------------------------------------------------


@pytest.mark.parametrize("exact", [True, False])
def test_processes_and_threads_make_equal_batches_in_every_epoch(image_tree, exact):
    results = []
    for workers in ("threads", "processes"):
        dataset = photos(image_tree)
        dataset.transforms[3] = NormalizeImage(order="hwc")
        loader = make(dataset, workers=workers, exact=exact, batch_size=5)
        results.append([list(loader.epoch(number)) for number in (0, 1)])
        results[-1].append(list(loader.epoch(1, start_batch=2)))
        loader.close()
    for ours, theirs in zip(*results):
        assert len(ours) == len(theirs) > 0
        for a, b in zip(ours, theirs):
            assert a.images.dtype == b.images.dtype
            np.testing.assert_array_equal(a.images, b.images)
            np.testing.assert_array_equal(a.labels, b.labels)
            np.testing.assert_array_equal(a.indices, b.indices)


def test_sets_of_labels_and_substitutes_come_through(tmp_path):
    batches = []
    for workers in ("threads", "processes"):
        log = tmp_path / f"{workers}.txt"
        loader = make(Several("raise"), workers=workers, bad_sample="skip", bad_samples_file=log)
        batches.append(list(loader.epoch(0)))
        loader.close()
    for a, b in zip(*batches):
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        np.testing.assert_array_equal(a.indices, b.indices)
    threads, processes = ((tmp_path / f"{w}.txt").read_text() for w in ("threads", "processes"))
    assert threads == processes
    assert "/data/13.jpg" in threads


class Labels(Acting):
    """Acting with the label given."""

    label: Any = 0

    def load(self, index: int) -> tuple[np.ndarray, Any]:
        return super().load(index)[0], self.label


def answer_of(label: Any) -> FetchedSample:
    """What a worker sends for a sample with that label; the worker is a thread here."""
    dataset = Labels(side=5)
    dataset.label = label
    ours, theirs = socket.socketpair(type=socket.SOCK_SEQPACKET)
    with ours, theirs:
        worker = threading.Thread(target=_answer, args=(SampleFetcher(dataset, 0), theirs))
        worker.start()
        ours.settimeout(300)
        ours.sendall(REQUEST.pack(0, 3, 0))
        message, rooms, _, _ = socket.recv_fds(ours, MAX_MESSAGE, 1)
        ours.shutdown(socket.SHUT_RDWR)
        worker.join(300)
    assert not worker.is_alive()
    memory = [mmap.mmap(room, 0) for room in rooms]
    for room in rooms:
        os.close(room)
    return _sample(json.loads(message), memory[0] if memory else None)


@pytest.mark.parametrize(
    "label",
    [4, np.int32(4), np.array(4), np.array([7, 2], np.int32), np.linspace(0, 1, 30000)],
    ids=["int", "numpy's", "no axis", "set", "soft, longer than a message"],
)
def test_any_label_comes_back_from_a_worker_as_it_was(label):
    found = answer_of(label).label
    np.testing.assert_array_equal(found, label)
    assert np.asarray(found).dtype == np.asarray(label).dtype


@pytest.mark.parametrize("label", [{1, 2}, np.array([None])], ids=["of Python", "objects"])
def test_a_label_that_cannot_be_sent_is_an_error_not_the_end_of_the_worker(label):
    with pytest.raises(DataError, match=r"set is not JSON|sample 3 holds objects of Python"):
        answer_of(label)


def test_the_processes_outlive_an_epoch_and_end_with_the_loader():
    loader = make(Acting())
    list(loader.epoch(0))
    before = pids_of(loader)
    list(loader.epoch(1))
    assert pids_of(loader) == before
    assert all(map(is_alive, before))
    assert len({os.getpgid(pid) for pid in before} | {os.getpgrp()}) == 2  # a group of their own
    del loader
    gc.collect()
    assert end_of(before) == []


def test_two_epochs_may_be_open_at_once():
    loader = make(Acting())
    for a, b in zip(loader.epoch(0), loader.epoch(0)):
        np.testing.assert_array_equal(a.images, b.images)
    loader.close()


def test_a_transform_that_holds_the_lock_gets_processes_by_itself():
    dataset = Acting()
    dataset.transforms.append(HoldsTheLock())
    loader = make(dataset, workers=None)
    ran_in = np.unique(next(loader.epoch(0)).images).astype(int).tolist()
    assert set(ran_in) <= set(pids_of(loader))
    loader.close()
    for rest in ({"workers": "threads"}, {"workers": None, "num_workers": 0}):
        loader = make(dataset, **rest)
        assert np.unique(next(loader.epoch(0)).images) == os.getpid()
        loader.close()
    assert make(Acting(), workers=None)._in_processes is False


def test_arrays_mapped_from_a_file_are_sent_as_its_name(tmp_path):
    write_table_file(tmp_path / "t", {}, {"big": np.arange(1 << 18)})
    dataset = Acting()
    dataset.big = open_table_file(tmp_path / "t")[1]["big"]  # type: ignore[attr-defined]
    loader = make(dataset)
    pool = loader.start_workers()
    assert pool is not None
    assert len(list(loader.epoch(0))) == 5
    assert str(tmp_path / "t") in Path(f"/proc/{pids_of(loader)[0]}/maps").read_text()
    loader.close()


# -- errors --------------------------------------------------------------------------------------


def failing(act: str, **rest: Any) -> tuple[BaseException, list[int]]:
    loader = make(Acting(act), num_workers=1, rank=2, world_size=3, batch_size=24, **rest)
    loader.start_workers()
    loader._processes.wait_until_ready(300)  # type: ignore[union-attr]
    pids = pids_of(loader)
    with pytest.raises(DataError) as error:
        run(loader, 40)  # sample 13 comes to this rank in one of them
    loader.close()
    assert end_of(pids) == []
    return error.value, pids


def test_an_error_carries_the_path_and_the_traceback_of_the_process():
    error, _ = failing("raise")
    assert str(error) == "sample 13 (/data/13.jpg) cannot be used: ValueError: rotten"
    assert 'raise ValueError("rotten")' in str(error.__cause__)


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        ("kill9", "was killed by SIGKILL"),
        pytest.param("kill11", "was killed by SIGSEGV", marks=pytest.mark.slow),
        pytest.param("leave", "ended with status 7", marks=pytest.mark.slow),
        ("exit", "was ended by SystemExit: I leave"),
        ("memory", "ran out of memory (MemoryError: Unable to allocate"),
    ],
)
def test_a_process_that_ends_is_told_with_rank_pid_cause_and_samples(act, cause):
    error, pids = failing(act)
    assert isinstance(error, WorkerError)
    text = str(error)
    assert text.startswith(f"rank 2: data worker 0 (process {pids[0]}) {cause}")
    assert "while making sample 13 (/data/13.jpg)" in text
    assert "; before it: sample " in text
    if act == "kill9":
        assert "memory ran out (" in text
        assert "Lower loader.num_workers" in text


@pytest.mark.parametrize(
    ("act", "where"),
    [
        ("sleep", "process_parts.py line"),
        pytest.param("kill19", "stopped by a signal (SIGSTOP)", marks=pytest.mark.slow),
    ],
)
def test_a_stuck_process_is_told_with_where_it_hangs_and_then_killed(act, where):
    error, pids = failing(act, timeout_s=STUCK_S)
    text = str(error)
    stuck = f"rank 2: data worker 0 (process {pids[0]}) is stuck: more than {STUCK_S} s"
    assert text.startswith(stuck)
    assert "while making sample 13 (/data/13.jpg)" in text
    assert where in text


def test_an_idle_worker_that_is_killed_is_noticed():
    loader = make(Acting())
    list(loader.epoch(0))
    pids = pids_of(loader)
    os.kill(pids[1], signal.SIGKILL)
    with pytest.raises(WorkerError, match=rf"process {pids[1]}\) was killed by SIGKILL"):
        run(loader, 20)
    assert end_of(pids) == []
    assert len(list(loader.epoch(0))) == 5  # asked for once more, there are new ones
    loader.close()


def test_a_keeper_that_is_killed_takes_the_workers_along():
    loader = make(Acting())
    list(loader.epoch(0))
    pids = pids_of(loader)
    os.kill(os.getpgid(pids[0]), signal.SIGKILL)
    assert end_of(pids) == []
    with pytest.raises(WorkerError, match=r"as did the process that keeps the workers|SIGKILL"):
        list(loader.epoch(1))
    loader.close()


def test_a_main_process_that_ends_without_listening_is_noticed_like_any_other():
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"what nobody reads")
        ours.close()  # the kernel then resets the connection
        assert _is_closed(theirs)


def test_processes_that_do_not_get_ready_are_not_waited_for_for_ever():
    dataset = Acting()
    dataset.slow = SlowToArrive()  # type: ignore[attr-defined]
    loader = make(dataset, timeout_s=0.3)
    with pytest.raises(WorkerError, match=r"did not get ready within 0.3 s \(loader.timeout_s\)"):
        loader.epoch(0)
    loader.close()


def test_what_cannot_be_sent_to_a_process_is_refused():
    class Local(Acting):
        pass

    with pytest.raises(ConfigError, match=r"cannot be sent to worker processes .*threads"):
        make(Local()).epoch(0)


def test_what_a_process_cannot_import_is_explained(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from process_parts import Acting\n"
        "from passl.data.loader import Loader\n"
        "from passl.data.samplers import DistributedBatchSampler\n"
        "class Mine(Acting): pass\n"
        "sampler = DistributedBatchSampler(num_samples=40, batch_size=8, seed=0)\n"
        "list(Loader(Mine(), sampler, workers='processes').epoch(0))\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=300, env=with_helpers()
    )
    assert done.returncode == 1
    assert "ConfigError: worker processes cannot use the data set: AttributeError" in done.stderr
    assert "must stand in a module" in done.stderr


# -- killed --------------------------------------------------------------------------------------


def with_helpers() -> dict[str, str]:
    here = Path(__file__).resolve()
    paths = [str(here.parents[3]), str(here.parents[2] / "helpers")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}


@pytest.mark.parametrize(
    ("act", "end"),
    [
        ("", signal.SIGKILL),
        pytest.param("", signal.SIGTERM, marks=pytest.mark.slow),
        pytest.param("", signal.SIGINT, marks=pytest.mark.slow),
        pytest.param("sleep", signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param("kill19", signal.SIGKILL, marks=pytest.mark.slow),
    ],
)
def test_no_process_and_no_file_outlives_the_main_one(act, end):
    before = files_in_shared_memory()
    code = "import process_parts; process_parts.work_for_ever()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, act],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=with_helpers(),
    )
    assert process.stdout is not None
    pids = [int(number) for number in process.stdout.readline().split()]
    assert len(pids) == 3
    keeper = os.getpgid(pids[0])
    if act:
        time.sleep(0.5)
    maps = Path(f"/proc/{process.pid}/maps").read_text()
    assert FOLDER not in maps
    process.send_signal(end)
    process.wait(300)
    process.stdout.close()
    assert end_of([*pids, keeper]) == []
    assert left_in_shared_memory(before) == set()
