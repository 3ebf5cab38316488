"""Hosts of their own on one machine, for the tests: network namespaces joined by a cable.

Addresses are 10.77.0.1 and 10.77.0.2, and exist inside the two namespaces only.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Optional

import pytest
from local_ports import ports_of_another_launcher

#: Only so that what hangs fails in the end: a busy machine takes many seconds for a second.
_LIMIT_S = 300
ADDRESSES = ("10.77.0.1", "10.77.0.2")


def why_no_hosts() -> Optional[str]:
    """Why this machine cannot make network namespaces, and what would; None if it can."""
    if shutil.which("ip") is None:
        return "needs the command ip: install iproute2"
    if os.geteuid() != 0:
        return "needs root to make network namespaces: run this test file with sudo"
    probe = f"passl-probe-{os.getpid()}"
    done = subprocess.run(["ip", "netns", "add", probe], capture_output=True, text=True)
    if done.returncode != 0:
        return (
            f"network namespaces are not allowed here ({done.stderr.strip()}): run on a machine, "
            "or in a container with CAP_SYS_ADMIN and CAP_NET_ADMIN"
        )
    subprocess.run(["ip", "netns", "del", probe], check=True)
    return None


@dataclass
class Hosts:
    """Two hosts and the cable between them."""

    names: tuple[str, str]
    cables: tuple[str, str]

    def enter(self, host: int) -> list[str]:
        """What a command is prefixed with to run on ``host``."""
        return ["ip", "netns", "exec", self.names[host]]

    def cut(self) -> None:
        """Pull the cable out."""
        _ip("-n", self.names[1], "link", "set", self.cables[1], "down")

    def mend(self) -> None:
        """Put it back."""
        _ip("-n", self.names[1], "link", "set", self.cables[1], "up")


@contextlib.contextmanager
def two_hosts() -> Iterator[Hosts]:
    """Two network namespaces with one cable; skips the test where they cannot be made."""
    reason = why_no_hosts()
    if reason is not None:
        pytest.skip(reason)
    mark = f"{os.getpid() % 100000}"
    hosts = Hosts((f"passl-a{mark}", f"passl-b{mark}"), (f"pa{mark}", f"pb{mark}"))
    made = []
    try:
        for name in hosts.names:
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
        here, there = hosts.cables
        _ip("link", "add", here, "netns", hosts.names[0], "type", "veth",
            "peer", "name", there, "netns", hosts.names[1])  # fmt: skip
        for name, cable, address in zip(hosts.names, hosts.cables, ADDRESSES):
            _ip("-n", name, "addr", "add", f"{address}/24", "dev", cable)
            _ip("-n", name, "link", "set", cable, "up")
        yield hosts
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "del", name], check=False)


@dataclass
class Node:
    """One started ``tools/launch_multinode.sh`` and what it said."""

    process: subprocess.Popen[str]
    screen: Path
    log_dir: Path
    children: list[int] = field(default_factory=list)

    def said(self) -> str:
        """Screen and worker logs together."""
        logs = sorted(self.log_dir.glob("workerlog.*"))
        return "".join(path.read_text(errors="replace") for path in [self.screen, *logs])


class Nodes:
    """Starts nodes, waits for them, and leaves none behind."""

    def __init__(self, repo: Path, folder: Path, environment: dict[str, str]) -> None:
        self.repo, self.folder, self.environment = repo, folder, environment
        self.started: list[Node] = []

    def start(
        self,
        name: str,
        options: list[str],
        *,
        prefix: tuple[str, ...] = (),
        **variables: str,
    ) -> Node:
        """Run ``tools/launch_multinode.sh`` with ``options`` and these environment variables."""
        log_dir = self.folder / f"launch-{name}-{len(self.started)}"
        log_dir.mkdir(parents=True)
        environment = {
            **self.environment,
            **ports_of_another_launcher(),
            "PYTHON": sys.executable,
            "PASSL_LOG_DIR": str(log_dir),
            **variables,
        }
        screen = self.folder / f"{log_dir.name}.screen"
        with screen.open("w") as out:
            process = subprocess.Popen(
                [*prefix, str(self.repo / "tools/launch_multinode.sh"), *options],
                cwd=self.repo, env=environment, stdin=subprocess.DEVNULL,
                stdout=out, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            )  # fmt: skip
        node = Node(process, screen, log_dir)
        self.started.append(node)
        return node

    def finish(self, *nodes: Node) -> list[int]:
        """Exit statuses; fails the test if a node does not end."""
        deadline = time.monotonic() + _LIMIT_S
        for node in nodes:
            try:
                node.process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                said = "\n----\n".join(each.said()[-3000:] for each in nodes)
                pytest.fail(f"not done after {_LIMIT_S} s:\n{said}")
        return [node.process.returncode for node in nodes]

    def stop_all(self) -> None:
        """Kill what is left of the nodes that this object started, workers included."""
        for node in self.started:
            for pid in _descendants(node.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if node.process.poll() is None:
                node.process.kill()
            node.process.wait()


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Poll ``condition``; fails the test if it does not come true."""
    deadline = time.monotonic() + _LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"waited {_LIMIT_S} s for {what}")
        time.sleep(0.05)


@pytest.fixture
def nodes(repo: Path, tmp_path: Path, user_environment: dict[str, str]) -> Iterator[Nodes]:
    """A starter of nodes that leaves none behind."""
    starter = Nodes(repo, tmp_path, user_environment)
    yield starter
    starter.stop_all()


def _ip(*arguments: str) -> None:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, IndexError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        for child in children.get(todo.pop(), []):
            found.append(child)
            todo.append(child)
    return found
