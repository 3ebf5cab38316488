"""Which process failed first, from the files that the ranks leave."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import passl.engine.faults.peers as module
from passl.distributed.talk import PeerLostError, talking
from passl.distributed.world import World
from passl.engine.faults.peers import Peers
from passl.engine.stopping import RunStopped
from passl.errors import CheckpointError


def environ(start: int = 0) -> dict[str, str]:
    return {"PADDLE_TRAINER_ENDPOINTS": f"127.0.0.1:{start}", "PADDLE_LOG_DIR": "logs"}


def begun(tmp_path, rank: int, variables: dict[str, str], mode: str = "train") -> Peers:
    peers = Peers(tmp_path, World(rank, 2, rank), variables, mode)
    peers.begin()
    return peers


@pytest.fixture
def ranks(tmp_path):
    """Two ranks that have met; none of them watches in a thread."""
    ranks = [begun(tmp_path, rank, environ()) for rank in range(2)]
    for peers in ranks:
        peers._have_begun = True
    return ranks


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


def test_rank_0_clears_up_without_taking_the_folder_that_another_has_just_made(tmp_path):
    (tmp_path / ".ranks").mkdir()  # by rank 1, whose note comes next
    Peers(tmp_path, World(0, 2, 0), environ())._remove_of_more_ranks()
    assert (tmp_path / ".ranks").exists()


def test_a_folder_of_notes_that_an_evaluation_takes_away_is_made_again(tmp_path, monkeypatch):
    make, taken = Path.mkdir, []

    def made(path: Path, **how: bool) -> None:
        make(path, **how)
        if path.name == ".ranks" and not taken:
            path.rmdir()
            taken.append(path)

    monkeypatch.setattr(Path, "mkdir", made)
    begun(tmp_path, 1, environ())
    assert taken
    assert [path.name for path in (tmp_path / ".ranks").iterdir()] == ["1"]


def test_a_story_that_is_cleared_away_while_it_is_read_hides_no_error(ranks, tmp_path, monkeypatch):
    fail(ranks[1], ZeroDivisionError("of rank 1"))
    monkeypatch.setattr(module, "_LOOK_S", 0.1)
    read = Path.read_text

    def cleared(path: Path, **how: str) -> str:
        if path.name == "error_rank_1.txt":
            raise FileNotFoundError(path)
        return read(path, **how)

    monkeypatch.setattr(Path, "read_text", cleared)
    assert "Connection reset by peer" in told_by(ranks[0])


@pytest.mark.parametrize("kind", [RuntimeError, SystemError, OSError])
def test_whatever_a_collective_raises_is_a_lost_process(kind):
    expected = pytest.raises(PeerLostError, match="sharing gradients \\(no answer\\)")
    with expected, talking("gradients"):
        raise kind("(Fatal) it failed:\n  no answer")


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


def test_nothing_is_written_or_read_before_the_ranks_have_met(tmp_path):
    """A second job in the folder is refused before, and a former start's files are still there."""
    fail(begun(tmp_path, 1, environ()), ZeroDivisionError("of the former start"))
    change_note(tmp_path, pid=2**22 + 1)
    before = contents(tmp_path)
    now = Peers(tmp_path, World(0, 2, 0), environ())  # the same addresses, the same shell
    assert told_by(now).startswith("lost another process")
    fail(Peers(tmp_path, World(1, 2, 1), environ()), CheckpointError("the folder is in use"))
    Peers(tmp_path, World(1, 2, 1), environ()).leave()
    assert contents(tmp_path) == before


def contents(folder) -> dict[str, str]:
    return {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_an_evaluation_leaves_the_files_of_a_training_beside_it(tmp_path):
    begun(tmp_path, 1, environ())
    before = contents(tmp_path)
    evaluation = begun(tmp_path, 1, environ(start=1), "eval")
    fail(evaluation, ValueError("boom"))
    after = contents(tmp_path)
    assert {path: after[path] for path in before} == before
    assert "boom" in (tmp_path / "eval_error_rank_1.txt").read_text()
    begun(tmp_path, 1, environ(start=1), "eval").leave()
    assert contents(tmp_path) == before


def test_a_second_evaluation_leaves_the_files_of_the_running_one(tmp_path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        begun(tmp_path, 1, environ(), "eval")
        note = tmp_path / ".ranks" / "eval_1"
        note.write_text(json.dumps({**json.loads(note.read_text()), "pid": running.pid}))
        before = note.read_text()
        second = begun(tmp_path, 1, environ(start=1), "eval")
        fail(second, ValueError("boom"))
        second.leave()
        assert note.read_text() == before
        assert (tmp_path / "eval_error_rank_1.txt").read_text() == ""
        running.communicate(b"\n")
    begun(tmp_path, 1, environ(start=2), "eval")  # the running one is gone
    assert note.read_text() != before


@pytest.mark.parametrize("size", [2, 1])
def test_what_more_ranks_left_is_cleared_by_fewer(tmp_path, size):
    for rank in range(4):
        former = Peers(tmp_path, World(rank, 4, rank), environ())
        former.begin()
        fail(former, ValueError("old"))
    begun(tmp_path, 0, environ(), "eval")
    for rank in range(size):
        now = Peers(tmp_path, World(rank, size, rank), environ(1))
        now.begin()
        with now.failures(ends=True):
            pass
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"eval_error_rank_0.txt", ".ranks/eval_0"}


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
    change_note(tmp_path, **{"pid": 2**22 + 1, **other})
    assert told_by(ranks[0]).startswith("lost another process")
    (tmp_path / ".ranks" / "1").write_text("{")  # being written
    assert told_by(ranks[0]).startswith("lost another process")


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
    again = [begun(tmp_path, rank, environ(1)) for rank in range(2)]
    with again[0].failures(ends=True):
        pass
    with again[1].failures(ends=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_one_process_writes_nothing(tmp_path):
    alone = Peers(tmp_path, World())
    alone.begin()
    alone.watch()
    fail(alone, ValueError("alone"))
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_hangs_after_another_failed_is_ended(tmp_path):
    script = (
        "import sys, time\nfrom pathlib import Path\nimport passl.engine.faults.peers as module\n"
        "from passl.distributed.world import World\nmodule._GRACE_S = module._POLL_S = 0.1\n"
        "folder = Path(sys.argv[1])\n"
        "first, other = (module.Peers(folder, World(r, 2, r)) for r in range(2))\n"
        "first.begin()\nother.begin()\nfirst.watch()\n"
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
                begun(tmp_path, 1, environ())  # it renews its files
            return len(waits) == 4

    monkeypatch.setattr(module.os, "_exit", ended.append)
    fail(ranks[1], ZeroDivisionError("of a former start"))
    monkeypatch.setattr(ranks[0], "_over", Over())
    ranks[0]._watch()
    assert waits == [module._POLL_S, module._POLL_S, module._GRACE_S, module._POLL_S]
    assert ended == []
    assert "no process has failed after all" in caplog.text
