"""Do all processes of a job find each other, and would they compute the same?

``passl-check --dist`` runs this under the launcher, before hours are spent.  The ranks first
report to a store that rank 0 opens, so that one that does not come is named; only then do they
form the group that training uses, with a barrier and an all-reduce.  Every wait has a deadline.

A store of our own stands before Paddle's because Paddle's waits for all ranks inside one call and
then names none.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, Optional

from passl.distributed.host import (
    host_warnings,
    installed_versions,
    interface_addresses,
    resolved_hostname,
    source_hash,
)
from passl.distributed.preflight_report import PreflightReport, RankInfo
from passl.distributed.world import World, read_world
from passl.errors import PasslError
from passl.installed import python_for
from passl.runtime import import_paddle, prepare

__all__ = ["PreflightError", "PreflightReport", "RankInfo", "run_preflight"]

_POLL_S = 0.05
_GRACE_S = 0.5  # after SIGTERM; the launcher kills 3 s after it when a rank has died
#: What the store's calls raise when the other side is gone, by version of Paddle.
_LOST = (RuntimeError, SystemError, OSError, ValueError)
_GO, _ABORT = 1, 2


class PreflightError(PasslError):
    """The processes of the job did not find each other, or one was lost; says which."""


def run_preflight(
    *,
    config_hash: str = "",
    timeout_s: float = 60.0,
    environ: Optional[Mapping[str, str]] = None,
) -> PreflightReport:
    """Meet the other ranks, then run a barrier and an all-reduce with them.

    Alone, it only looks at this process.

    Args:
        config_hash: of the resolved config that this rank would train.
        timeout_s: seconds that the ranks have to come, and again for the barrier and all-reduce.
        environ: of the launcher's worker; ``os.environ``.

    Raises:
        PreflightError: a rank is missing, was lost or cannot be reached, or the sum is wrong.
    """
    environ = os.environ if environ is None else environ
    world = read_world(environ)
    info = _describe_rank(world, environ, config_hash)
    if not world.is_distributed:
        return PreflightReport([info], {})
    endpoints = [part for part in environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",") if part]
    if len(endpoints) != world.size:
        raise PreflightError(
            f"the launcher announces {world.size} processes but lists {len(endpoints)} addresses "
            "in PADDLE_TRAINER_ENDPOINTS; start with python -m paddle.distributed.launch"
        )
    stopped = threading.Event()
    # Both import Paddle, at the same time and before the clock starts, as that takes seconds.
    with _GroupProcess() as group, _sigterm_sets(stopped):
        while group.runs and not group.ready and not stopped.is_set():
            stopped.wait(_POLL_S)
        meeting = _Meeting(world, endpoints, timeout_s, stopped)
        started = time.monotonic()
        ranks = meeting.roll_call(info)
        timings = {"all ranks here": time.monotonic() - started}
        timings.update(meeting.collectives(group))
        meeting.leave()
    return PreflightReport(ranks, timings)


class _Meeting:
    """The store of the preflight, and the ranks that come to it."""

    def __init__(
        self, world: World, endpoints: Sequence[str], timeout_s: float, stopped: threading.Event
    ) -> None:
        self.world, self.endpoints, self.timeout_s = world, endpoints, timeout_s
        self.stopped = stopped
        self._store: Any = None

    def roll_call(self, info: RankInfo) -> list[RankInfo]:
        """Report; rank 0 waits for everybody and returns what they said, others return their own.

        Raises:
            PreflightError: naming the ranks that did not come in time.
        """
        deadline = time.monotonic() + self.timeout_s
        self._store = self._open(deadline)
        try:
            self._store.set(f"info/{info.rank}", json.dumps(asdict(info)))
            self._store.add(f"here/{info.rank}", 1)
            if not self.world.is_main:
                self._await_word(deadline)
                return [info]
            missing = self._wait_for("here", deadline)
            self._store.add("word", _ABORT if missing else _GO)
            if missing:
                self._let_them_read()
                raise PreflightError(self._missing_text("did not come", missing))
            return [self._info(rank) for rank in range(self.world.size)]
        except _LOST as error:
            raise self._lost(error) from error

    def collectives(self, group: _GroupProcess) -> dict[str, float]:
        """Let ``group`` go; seconds of forming it, of a barrier and of an all-reduce.

        Raises:
            PreflightError: one of them failed or was not done in time; names the ranks behind.
        """
        deadline = time.monotonic() + self.timeout_s
        group.go()
        while group.busy and time.monotonic() < deadline and not self.stopped.is_set():
            self.stopped.wait(_POLL_S)
        try:
            if group.done:
                self._store.add(f"done/{self.world.rank}", 1)
                # The others have the same deadline, counted from a moment later.
                if not self._wait_for("done", deadline + 2.0):
                    return group.timings_s
        except _LOST as error:
            raise self._lost(error) from error
        group.end()
        behind = [rank for rank in self._behind("done") if rank != self.world.rank]
        others = f"; not done either: {self._names(behind)}" if behind else ""
        if group.done:
            text = f"is done here, but not on {self._names(behind)}"
            others = ""
        elif group.error and not group.was_terminated:
            text = f"failed: {group.error}"
        elif self.stopped.is_set() or group.was_terminated:
            text = "was interrupted by the launcher, which ends all when one process ends"
        else:
            text = f"was not done after {self.timeout_s:g} s"
        raise PreflightError(
            f"rank {self.world.rank}: {group.step} {text}{others}. The ranks reached the store of "
            "rank 0, so look at what carries the data: a rank that died (its worker log), a "
            "firewall between the nodes' high ports, GLOO_SOCKET_IFNAME or NCCL_SOCKET_IFNAME, "
            "host names that resolve to the loopback"
        )

    def leave(self) -> None:
        """Rank 0 holds the store until everybody has gone, a few seconds at most."""
        try:
            self._store.add(f"gone/{self.world.rank}", 1)
            if self.world.is_main:
                self._wait_for("gone", time.monotonic() + 5.0)
        except _LOST:  # the others have gone already, which is what was waited for
            return

    # -- the store ---------------------------------------------------------------------------

    def _open(self, deadline: float) -> Any:
        host, _, port = self.endpoints[0].rpartition(":")
        if not self.world.is_main:
            self._await_listener(host, int(port), deadline)
        left_s = max(1, round(deadline - time.monotonic()))
        store = import_paddle().base.core.TCPStore
        try:
            # World size 1: Paddle's store would wait for the others here, and name none.
            return store(host, int(port), self.world.is_main, 1, left_s)
        except _LOST as error:
            raise PreflightError(
                f"rank {self.world.rank}: the store at {host}:{port} could not be opened: "
                f"{str(error).strip().splitlines()[-1]}"
            ) from error

    def _await_listener(self, host: str, port: int, deadline: float) -> None:
        reason = "no answer"
        while time.monotonic() < deadline and not self.stopped.is_set():
            try:
                with socket.create_connection((host, port), timeout=2.0):
                    return
            except OSError as error:
                reason = error.strerror or str(error) or "no answer"
            self.stopped.wait(_POLL_S * 4)
        raise PreflightError(
            f"rank {self.world.rank}: {self._name(0)} cannot be reached after "
            f"{self.timeout_s:g} s ({reason}). Either it did not start (see its worker log), or "
            "its address is not one of the network: see the launcher's option --host"
        )

    def _wait_for(self, stage: str, deadline: float) -> list[int]:
        """Ranks that have not reached ``stage`` at the deadline, or soon after a SIGTERM."""
        while True:
            missing = self._behind(stage)
            if not missing or time.monotonic() > deadline:
                return missing
            if self.stopped.is_set():  # the ranks that are alive may still be on their way
                deadline = min(deadline, time.monotonic() + _GRACE_S)
                time.sleep(_POLL_S)
            self.stopped.wait(_POLL_S)

    def _behind(self, stage: str) -> list[int]:
        try:
            return [r for r in range(self.world.size) if not self._store.add(f"{stage}/{r}", 0)]
        except _LOST:
            return [0]  # the store went with rank 0

    def _await_word(self, deadline: float) -> None:
        while True:
            word = self._store.add("word", 0)
            if word == _GO:
                return
            # Rank 0 counts from its own start, so it may speak a little later than our deadline.
            if word or time.monotonic() > deadline + self.timeout_s:
                break
            if self.stopped.is_set():
                deadline = min(deadline, time.monotonic() + 2 * _GRACE_S - self.timeout_s)
                time.sleep(_POLL_S)
            self.stopped.wait(_POLL_S)
        missing = self._behind("here")
        raise PreflightError(self._missing_text("did not come", missing))

    def _let_them_read(self) -> None:
        """The store goes with rank 0; the others have a moment to read who is missing."""
        time.sleep(min(1.0, self.timeout_s))

    def _info(self, rank: int) -> RankInfo:
        value = self._store.get(f"info/{rank}")
        return RankInfo(**json.loads(value if isinstance(value, str) else bytes(value).decode()))

    # -- sentences ---------------------------------------------------------------------------

    def _name(self, rank: int) -> str:
        return f"rank {rank} ({self.endpoints[rank]})"

    def _names(self, ranks: Sequence[int]) -> str:
        return ", ".join(map(self._name, ranks))

    def _missing_text(self, what: str, ranks: Sequence[int]) -> str:
        when = (
            "when the launcher stopped this process"
            if self.stopped.is_set()
            else f"within {self.timeout_s:g} s"
        )
        return (
            f"{len(ranks)} of {self.world.size} ranks {what} {when}: {self._names(ranks)}; their "
            "own worker logs, on their own nodes, say why (workerlog.N of the launcher's --log_dir)"
        )

    def _lost(self, error: BaseException) -> PreflightError:
        return PreflightError(
            f"rank {self.world.rank}: lost the store of {self._name(0)}: "
            f"{(str(error).strip().splitlines() or ['connection closed'])[-1]}"
        )


class _GroupProcess:
    """:mod:`passl.distributed.preflight_group` as a child, and what it has said so far."""

    def __init__(self) -> None:
        self.ready = self.done = self.died = False
        self.step, self.error = "starting", ""
        self.timings_s: dict[str, float] = {}
        self._process = subprocess.Popen(  # noqa: S603 (our own interpreter and text)
            python_for("from passl.distributed.preflight_group import main; sys.exit(main())"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def runs(self) -> bool:
        """It has not ended yet."""
        return self._process.poll() is None

    @property
    def busy(self) -> bool:
        """It runs and has steps before it."""
        return self.runs and not self.done

    @property
    def was_terminated(self) -> bool:
        """SIGTERM ended it: the launcher sends that to it too, and it may notice first."""
        return self._process.poll() == -signal.SIGTERM

    def __enter__(self) -> _GroupProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def go(self) -> None:
        """All ranks are here: form the group."""
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):  # it has died; its status will say so
                stdin.write("go\n")
                stdin.flush()

    def end(self) -> None:
        """End it if it still runs, and read what it said last."""
        self.died = self.died or self._process.poll() not in (None, 0)
        if self.runs:
            self._process.kill()
        status = self._process.wait()
        self._reader.join(5.0)
        if self.died and not self.error:
            self.error = f"its process ended with status {status}"

    def _read(self) -> None:
        for line in self._process.stdout or ():
            if line.startswith("{"):
                said = json.loads(line)
                self.ready = self.ready or "ready" in said
                self.done = self.done or "done" in said
                self.error = said.get("error", self.error)
                self.step = said.get("step", self.step)
                if "seconds" in said:
                    self.timings_s[self.step] = said["seconds"]


def _describe_rank(world: World, environ: Mapping[str, str], config_hash: str) -> RankInfo:
    hostname, interfaces = resolved_hostname(), interface_addresses()
    versions = installed_versions()
    cpu_only = "(cpu)" in versions["paddle"]
    device = "cpu"
    if not cpu_only:
        prepare()
        device = str(import_paddle().get_device())
        if device.startswith("gpu"):  # the launcher numbers the visible ones; show the machine's
            device = f"gpu:{environ.get('FLAGS_selected_gpus', device.rpartition(':')[2])}"
    peers = [part for part in environ.get("PADDLE_TRAINER_ENDPOINTS", "").split(",") if part]
    outside = {name: ip for name, ip in interfaces.items() if not ip.startswith("127.")}
    return RankInfo(
        rank=world.rank,
        host=f"{hostname[0]} ({hostname[1] or 'unresolved'})",
        endpoint=environ.get("PADDLE_CURRENT_ENDPOINT", ""),
        device=device,
        interfaces=outside or interfaces,
        versions=versions,
        source=source_hash(),
        config=config_hash,
        warnings=host_warnings(
            environ,
            num_nodes=int(environ.get("PADDLE_NNODES") or 1),
            hostname=hostname,
            interfaces=interfaces,
            peers=peers,
            paddle_is_cpu_only=cpu_only,
        ),
    )


@contextmanager
def _sigterm_sets(stopped: threading.Event) -> Iterator[None]:
    """SIGTERM sets the event instead of ending the process, so that it can say whom it awaits.

    Paddle is imported inside, as it installs a handler of its own, which aborts.
    """
    if threading.current_thread() is not threading.main_thread():
        import_paddle()
        yield
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    prepare()
    import_paddle()
    previous = signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    signal.siginterrupt(signal.SIGTERM, False)  # the store's calls are continued, not broken off
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
