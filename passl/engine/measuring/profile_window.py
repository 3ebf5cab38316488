"""Which steps ``passl-train -p`` records; read without Paddle, before anything is built."""

from __future__ import annotations

import re
from dataclasses import dataclass

from passl.errors import ConfigError

__all__ = ["ProfileWindow", "parse_profile_options"]

#: What PaddleClas' and PASSL's option string may hold besides; PASSL never read any of it.
_ELSEWHERE = ("state", "sorted_key", "tracer_option", "profile_path", "exit_on_finished")


@dataclass(frozen=True)
class ProfileWindow:
    """Steps ``start`` to ``stop``, the last one left out; 0 is the first that this start makes."""

    start: int
    stop: int


def parse_profile_options(text: str) -> ProfileWindow:
    """``start=20;stop=30``, or ``batch_range=[20,30]`` as in PASSL.

    Raises:
        ConfigError: it says something else.
    """
    found: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(";"))):
        key, _, value = (piece.strip() for piece in part.partition("="))
        numbers = re.fullmatch(r"\[\s*(\d+)\s*,\s*(\d+)\s*\]", value)
        if key in ("start", "stop") and value.isdigit():
            found[key] = int(value)
        elif key == "batch_range" and numbers:
            found["start"], found["stop"] = int(numbers[1]), int(numbers[2])
        elif key in _ELSEWHERE:
            raise ConfigError(
                f"-p: {key} has no meaning here: the operators, the phases and a trace are always "
                "written, to the folder profile of the run; give start and stop only"
            )
        else:
            raise ConfigError(
                f"-p: cannot read {part!r}; write the steps to record, such as "
                '-p "start=20;stop=30"'
            )
    window = ProfileWindow(found.get("start", 0), found.get("stop", 0))
    if window.stop <= window.start:
        raise ConfigError(
            f"-p {text!r}: records nothing: stop must be a number above start; for ten steps after "
            'the first twenty write -p "start=20;stop=30"'
        )
    return window
