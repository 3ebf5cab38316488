"""The flag, the handlers and the places where the loop looks."""

from __future__ import annotations

import signal
import threading
import time

import pytest

from passl.distributed.agreement import Agreement, Answer
from passl.distributed.world import World
from passl.engine.faults.attempt import Attempt, noting_the_end
from passl.engine.stopping import (
    STOP_SIGNALS,
    RunStopped,
    StopRequest,
    StopWatch,
    catching_signals,
    holding_signals,
    process_age_s,
)


def test_the_first_wish_counts_and_handlers_come_back():
    before = [signal.getsignal(number) for number in STOP_SIGNALS]
    request = StopRequest()
    with catching_signals(request) as caught:
        assert caught
        for number in (signal.SIGUSR1, signal.SIGTERM, signal.SIGINT):
            signal.raise_signal(number)
    assert request.reason == "SIGUSR1"
    assert [signal.getsignal(number) for number in STOP_SIGNALS] == before


@pytest.fixture
def _hangup():
    """The handler of SIGHUP comes back."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("_hangup")
def test_a_closed_terminal_stops_a_run_unless_nohup_was_asked_for():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    request = StopRequest()
    with catching_signals(request):
        signal.raise_signal(signal.SIGHUP)
    assert request.reason == "SIGHUP"
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it
    request = StopRequest()
    with catching_signals(request):
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        signal.raise_signal(signal.SIGHUP)
    assert request.reason is None


def test_what_arrives_while_signals_are_held_is_delivered_to_pythons_handler():
    request = StopRequest()
    with catching_signals(request):
        with holding_signals():
            # To this thread: another one, of pytest-xdist or a library, does not hold it back.
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            assert request.reason is None
        assert request.reason == "SIGTERM"


def test_a_wish_stays_and_other_ranks_are_not_asked_again():
    calls = []
    watch = StopWatch(
        agree=lambda stop, save: calls.append(stop) or Answer(0 if stop else None, save)
    )
    assert not watch.poll()
    watch.request.set("a test")
    assert watch.poll()
    assert watch.poll()
    assert (calls, watch.reason) == ([False, True], "a test")


def test_the_wish_of_another_rank_is_enough_and_named():
    watch = StopWatch(world=World(0, 4), agree=lambda stop, save: Answer(3))
    assert watch.poll()
    assert watch.reason == "process 3, which was asked to"


def test_only_the_main_process_looks_for_the_file_and_removes_it(tmp_path):
    file = tmp_path / "STOP"
    file.touch()
    other = StopWatch(world=World(1, 2), stop_file=file)
    assert not other.poll()
    other.remove_file()
    main = StopWatch(stop_file=file)
    assert main.poll()
    assert file.exists()
    main.remove_file()
    assert not file.exists()
    main.remove_file()  # removed by someone else: nothing to say


def test_time_counts_from_the_start_of_the_process_and_not_by_the_wall_clock(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 0.0)  # somebody sets the clock back
    assert StopWatch(StopRequest(age_s=100.0), max_time_s=99.0).poll()
    assert not StopWatch(StopRequest(age_s=100.0), max_time_s=200.0).poll()


def test_the_age_of_the_process_is_plausible():
    first = process_age_s()
    assert 0.0 < first < 24 * 3600
    assert process_age_s() >= first


def test_alone_no_collective_is_made():
    agree = Agreement(World())
    assert agree(False) == Answer()
    assert agree(False, True) == Answer(None, save=True)
    assert agree(True, True) == Answer(0)


def test_on_an_accelerator_the_answer_is_read_one_call_later(monkeypatch):
    import paddle

    sent = []
    monkeypatch.setattr(paddle.distributed, "all_reduce", lambda tensor, op: sent.append(op))
    agree = Agreement(World(1, 2), deferred=True)
    answers = [agree(False), agree(True), agree(False), agree(False)]
    assert [answer.stop for answer in answers] == [None, None, 1, None]
    assert len(sent) == 4
    at_once = Agreement(World(1, 2), deferred=False)
    assert [at_once(False), at_once(True), at_once(False, True), at_once(True, True)] == [
        Answer(),
        Answer(1),
        Answer(None, save=True),
        Answer(1),  # a stop saves anyway
    ]


def test_a_wish_to_save_is_kept_until_it_is_taken():
    """The answer may come in a call before an evaluation batch, where nothing can be saved."""
    answers = iter([Answer(), Answer(None, save=True), Answer()])
    watch = StopWatch(agree=lambda stop, save: next(answers))
    assert not watch.poll(save=True)
    assert not watch.take_save()
    assert not watch.poll()
    assert not watch.poll()
    assert [watch.take_save(), watch.take_save()] == [True, False]


def test_the_notes_of_an_attempt_survive_without_being_closed(tmp_path):
    attempt = Attempt(tmp_path, rank=2)
    for step in (1, 12, 13):
        attempt.step(step)
    assert int((tmp_path / "rank_2.step").read_text()) == 13
    Attempt(tmp_path / "gone", rank=0).step(1)  # a note that cannot be written stops nothing
    Attempt(None, rank=0).ended(1)


def test_the_end_is_noted_with_its_status_and_traceback(tmp_path, monkeypatch):
    monkeypatch.setenv("PASSL_ATTEMPT_DIR", str(tmp_path))
    with pytest.raises(RunStopped), noting_the_end():
        raise RunStopped("enough")
    assert (tmp_path / "rank_0.json").read_text() == '{"exit": 75, "error": "enough"}'
    with pytest.raises(ZeroDivisionError), noting_the_end():
        1 / 0  # noqa: B018
    assert '"exit": 1, "error": "ZeroDivisionError' in (tmp_path / "rank_0.json").read_text()
    assert "test_stopping.py" in (tmp_path / "rank_0.traceback").read_text()
