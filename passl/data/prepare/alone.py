"""One command at a time in a folder, and nothing left of those that were killed in it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from passl.checkpoint.file_lock import PATIENCE_S, FileLock, NoLocksError
from passl.errors import ConfigError
from passl.logs.logger import get_logger

__all__ = ["alone_in"]

_LOCK = ".passl-data.lock"


@contextmanager
def alone_in(
    folder: Path, writes: Iterable[str] = (), patience_s: float = PATIENCE_S
) -> Iterator[None]:
    """Be the only one of these commands that writes into ``folder``.

    Args:
        folder: an existing one.
        writes: names of files that are written in it; what killed commands left of them goes.
        patience_s: seconds to wait for one that is at work there.

    Raises:
        ConfigError: another command is at work there, or nothing can be written.
    """
    lock = FileLock(folder / _LOCK)
    try:
        if not lock.acquire(patience_s):
            raise ConfigError(
                f"{folder}: another passl-data is at work in this folder; wait until it has ended"
            )
    except NoLocksError as error:
        get_logger().warning(
            f"{folder}: {error}; see to it yourself that no second passl-data writes there"
        )
    except OSError as error:
        raise ConfigError(
            f"{folder}: cannot be written ({error.strerror}); change its rights or choose another "
            "folder"
        ) from error
    try:
        for name in writes:
            for left in folder.glob(f".{name}.tmp-*"):
                with suppress(OSError):
                    left.unlink()
        yield
    finally:
        lock.release(remove=True)
