"""For ``Global.imports`` of a process of its own: mixed precision on a CPU, to its end."""

from __future__ import annotations

from forced_amp import forced

_forced = forced()
_forced.__enter__()
