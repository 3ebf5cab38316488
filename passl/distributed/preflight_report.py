"""What the preflight found: one line a rank, what differs between them, what may go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["PreflightReport", "RankInfo"]


@dataclass(frozen=True)
class RankInfo:
    """What one rank says of itself.

    Attributes:
        rank: its number.
        host: name of its machine, and the address that the name resolves to.
        endpoint: the address the launcher gave it.
        device: ``cpu`` or ``gpu:0``.
        interfaces: IPv4 address by interface, without the loopback where there is another.
        versions: of Python, PASSL and Paddle.
        source: hash of PASSL's source.
        config: hash of the resolved config, empty without one.
        warnings: what is known to make jobs hang, found on its machine.
    """

    rank: int
    host: str
    endpoint: str
    device: str
    interfaces: dict[str, str]
    versions: dict[str, str]
    source: str
    config: str
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PreflightReport:
    """The outcome, complete on rank 0; other ranks know themselves only.

    Attributes:
        ranks: every rank that came, by number.
        timings_s: seconds that each step took.
    """

    ranks: list[RankInfo]
    timings_s: dict[str, float]

    @property
    def errors(self) -> list[str]:
        """Differences that make the ranks compute different things."""
        return [
            _difference(what, self.ranks, read)
            for what, read in (
                ("the config", lambda info: info.config or "none"),
                ("PASSL's source", lambda info: info.source),
                ("the version of PASSL", lambda info: info.versions["passl"]),
                ("the version of Paddle", lambda info: info.versions["paddle"]),
            )
            if len({read(info) for info in self.ranks}) > 1
        ]

    @property
    def warnings(self) -> list[str]:
        """What may go wrong, each with the ranks that it was found on."""
        found: dict[str, list[int]] = {}
        for info in self.ranks:
            for text in info.warnings:
                found.setdefault(text, []).append(info.rank)
        lines = [f"{_ranks(ranks)}: {text}" for text, ranks in found.items()]
        if len({info.versions["python"] for info in self.ranks}) > 1:
            lines.append(
                _difference("the version of Python", self.ranks, lambda i: i.versions["python"])
            )
        used: dict[tuple[str, str], list[int]] = {}
        for info in self.ranks:
            if info.device != "cpu":
                used.setdefault((info.host, info.device), []).append(info.rank)
        for (host, device), ranks in used.items():
            if len(ranks) > 1:
                lines.append(f"{_ranks(ranks)} share {device} of {host}")
        return lines

    def table(self) -> str:
        """One line a rank: host, endpoint, device, addresses, versions, hashes."""
        head = ("rank", "host", "endpoint", "device", "interfaces", "passl", "paddle", "python")
        rows: list[tuple[str, ...]] = [(*head, "source", "config")]
        for info in self.ranks:
            addresses = " ".join(f"{name}={address}" for name, address in info.interfaces.items())
            versions = (info.versions[name] for name in ("passl", "paddle", "python"))
            rows.append(
                (
                    str(info.rank),
                    info.host,
                    info.endpoint or "-",
                    info.device,
                    addresses or "-",
                    *versions,
                    info.source,
                    info.config or "-",
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def _difference(what: str, ranks: Sequence[RankInfo], read: Callable[[RankInfo], str]) -> str:
    groups: dict[str, list[int]] = {}
    for info in ranks:
        groups.setdefault(read(info), []).append(info.rank)
    parts = "; ".join(f"{value} on {_ranks(numbers)}" for value, numbers in groups.items())
    return f"{what} is not the same everywhere: {parts}"


def _ranks(numbers: Sequence[int]) -> str:
    """``rank 3``, ``ranks 0-3, 8``."""
    parts: list[list[int]] = []
    for number in sorted(numbers):
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    text = ", ".join(str(low) if low == high else f"{low}-{high}" for low, high in parts)
    return f"rank{'s' * (len(numbers) > 1)} {text}"
