"""Reading JSON that others may have written."""

from __future__ import annotations

import json
from typing import Any, Union

__all__ = ["from_json"]


def from_json(text: Union[str, bytes]) -> Any:
    """What :func:`json.loads` makes of it.

    Raises:
        ValueError: it is no JSON, or nested deeper than Python reads.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError(f"it is nested without end: {error}") from error
