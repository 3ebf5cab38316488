"""What happens when another process does not answer any more."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from passl.errors import PasslError

__all__ = ["PeerLostError", "talking"]


class PeerLostError(PasslError):
    """A collective failed: another process of the job is gone, or does not answer."""


@contextmanager
def talking(what: str) -> Iterator[None]:
    """Around collectives: their failure is that of another process, and is raised as such.

    Args:
        what: what the processes were about to share, for the message.

    Raises:
        PeerLostError: Paddle's collective failed.
    """
    try:
        yield
    except (RuntimeError, SystemError, OSError) as error:  # a SystemError: Paddle calls it fatal
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise PeerLostError(
            f"lost another process while sharing {what} ({reason}); it has failed, was killed or "
            "cannot be reached, and its own log says why: error_rank_N.txt and rank_N.log in the "
            "run's folder, workerlog.N of the launcher"
        ) from error
