"""Which process failed first, from the files that the ranks leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import passl.engine.faults.peers as module
from passl.distributed.talk import PeerLostError, talking
from passl.distributed.world import World
from passl.engine.faults.peers import Peers
from passl.engine.stopping import RunStopped
from passl.errors import CheckpointError


def environ(start: int = 0) -> dict[str, str]:
    return {"PADDLE_TRAINER_ENDPOINTS": f"127.0.0.1:{start}", "PADDLE_LOG_DIR": "logs"}


@pytest.fixture
def ranks(tmp_path):
    return [Peers(tmp_path, World(rank, 2, rank), environ()) for rank in range(2)]


def change_note(tmp_path, **values) -> None:
    """Make the note of rank 1 one of another process."""
    note = tmp_path / ".ranks" / "1"
    note.write_text(json.dumps({**json.loads(note.read_text()), **values}))


def told_by(peers: Peers) -> str:
    with pytest.raises(PeerLostError) as raised, peers.failures():
        lost()
    return str(raised.value)


def fail(peers: Peers, error: BaseException) -> BaseException:
    with pytest.raises(type(error)) as raised, peers.failures():
        raise error
    return raised.value


def lost() -> None:
    with talking("gradients"):
        raise RuntimeError("[gloo/pair.cc:576] Read error: Connection reset by peer")


def test_a_lost_peer_tells_the_story_of_the_one_that_failed(ranks, tmp_path):
    fail(ranks[1], ZeroDivisionError("of rank 1"))
    with pytest.raises(PeerLostError) as raised, ranks[0].failures():
        lost()
    text = str(raised.value)
    assert text.startswith(f"process 1 failed first ({tmp_path / 'error_rank_1.txt'}):\nTraceback")
    assert text.endswith("ZeroDivisionError: of rank 1")
    assert not (tmp_path / "error_rank_0.txt").exists()  # a victim


def test_an_error_for_people_is_told_as_its_sentence(ranks, tmp_path):
    fail(ranks[1], CheckpointError("the file x is damaged"))
    assert (tmp_path / "error_rank_1.txt").read_text() == "the file x is damaged"


def test_a_process_that_is_gone_without_a_word_is_named(ranks, tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    note = tmp_path / ".ranks" / "1"
    note.write_text(json.dumps({**json.loads(note.read_text()), "pid": gone.pid}))
    with pytest.raises(PeerLostError) as raised, ranks[0].failures():
        lost()
    assert str(raised.value).startswith(f"process 1 (pid {gone.pid} on ")
    assert "ended without a last word" in str(raised.value)
    assert "logs/workerlog.1" in str(raised.value)


def test_a_second_job_in_the_folder_leaves_the_files_of_the_running_one(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        Peers(tmp_path, World(1, 2, 1), environ())
        note = tmp_path / ".ranks" / "1"
        note.write_text(json.dumps({**json.loads(note.read_text()), "pid": running.pid}))
        before = note.read_text()
        second = Peers(tmp_path, World(1, 2, 1), environ(start=1))
        fail(second, CheckpointError("the folder is in use"))
        second.leave()
        assert note.read_text() == before
        assert (tmp_path / "error_rank_1.txt").read_text() == ""
        running.communicate(b"\n")
    Peers(tmp_path, World(1, 2, 1), environ(start=2))  # the running one is gone
    assert note.read_text() != before


@pytest.mark.parametrize(
    "other",
    [
        {"place": "elsewhere"},
        # Containers with the host's network and name number their processes anew.
        {"place": f"{module._place()} pid:[1]"},
        {"job": "before"},
        {"pid": os.getpid()},
    ],
)
def test_a_process_of_another_place_or_job_is_no_culprit(ranks, tmp_path, monkeypatch, other):
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    ranks[0].met()
    change_note(tmp_path, **{"pid": 2**22 + 1, **other})
    assert told_by(ranks[0]).startswith("lost another process")
    (tmp_path / ".ranks" / "1").write_text("{")  # being written
    assert told_by(ranks[0]).startswith("lost another process")


def test_a_former_start_with_the_same_addresses_is_no_culprit(tmp_path, monkeypatch):
    """As after ``--ips``, whose ports are fixed: rank 1 of this start has not come yet."""
    monkeypatch.setattr(module, "_LOOK_S", 0.0)
    former = Peers(tmp_path, World(1, 2, 1), {**environ(), "POD_NAME": "former"})
    fail(former, ZeroDivisionError("of the former start"))
    change_note(tmp_path, pid=2**22 + 1)
    now = Peers(tmp_path, World(0, 2, 0), {**environ(), "POD_NAME": "now"})
    assert told_by(now).startswith("lost another process")
    now.met()  # a rank that was started by itself has another parent
    assert "of the former start" in told_by(now)


def test_a_place_is_a_numbering_of_processes_and_not_the_name_of_a_host(monkeypatch):
    here = module._place()
    assert here == module._place()
    monkeypatch.setattr(module.os, "readlink", lambda _path: "pid:[1]")  # in a container
    assert module._place() != here


def test_without_a_culprit_the_reason_is_the_lost_connection(ranks, monkeypatch):
    monkeypatch.setattr("passl.engine.faults.peers._LOOK_S", 0.0)
    with pytest.raises(PeerLostError) as raised, ranks[0].failures():
        lost()
    for part in ("sharing gradients", "Connection reset by peer", "error_rank_N.txt"):
        assert part in str(raised.value)


def test_a_proper_end_leaves_nothing(ranks, tmp_path):
    with ranks[0].failures(ends=True):
        pass
    with pytest.raises(RunStopped), ranks[1].failures():
        raise RunStopped("asked to")
    assert list(tmp_path.iterdir()) == []


def test_a_start_clears_what_the_former_one_left(ranks, tmp_path):
    fail(ranks[1], ValueError("old"))
    again = [Peers(tmp_path, World(rank, 2, rank), environ(1)) for rank in range(2)]
    with again[0].failures(ends=True):
        pass
    with again[1].failures(ends=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_process_writes_nothing(tmp_path):
    alone = Peers(tmp_path, World())
    alone.watch()
    fail(alone, ValueError("alone"))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_hangs_after_another_failed_is_ended(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nimport passl.engine.faults.peers as module\n"
        "from passl.distributed.world import World\nmodule._GRACE_S = module._POLL_S = 0.1\n"
        "folder = Path(sys.argv[1])\n"
        "first, other = (module.Peers(folder, World(r, 2, r)) for r in range(2))\n"
        "first.watch()\n"
        "try:\n    with other.failures():\n        raise ValueError('boom')\n"
        "except ValueError:\n    time.sleep(3600)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 1
    assert "another process failed: process 1 failed first" in done.stderr
    assert "ValueError: boom" in done.stderr
    assert (tmp_path / "error_rank_1.txt").exists()
    assert not (tmp_path / "error_rank_0.txt").exists()  # it has nothing to tell of its own


def test_a_failure_that_another_rank_clears_away_ends_nobody(ranks, tmp_path, monkeypatch, caplog):
    """What looked like one was left by a former start; the rank in question came late."""
    ended: list[int] = []
    waits: list[float] = []

    class Over:
        """The end of the run as the watching thread waits for it: here things happen meanwhile."""

        def wait(self, seconds: float) -> bool:
            waits.append(seconds)
            if seconds == module._GRACE_S:
                Peers(tmp_path, World(1, 2, 1), environ())  # it renews its files
            return len(waits) == 4

    monkeypatch.setattr(module.os, "_exit", ended.append)
    fail(ranks[1], ZeroDivisionError("of a former start"))
    monkeypatch.setattr(ranks[0], "_over", Over())
    ranks[0]._watch()
    assert waits == [module._POLL_S, module._POLL_S, module._GRACE_S, module._POLL_S]
    assert ended == []
    assert "no process has failed after all" in caplog.text
