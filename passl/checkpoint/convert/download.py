"""Fetching a file of weights, on request only: resumed, checked, and whole when it appears.

The address may be http, https or file.  Bytes go to a hidden neighbour that survives an interrupted
download; the next attempt asks for the rest of the same version of the file.  Length and SHA-256
are compared where they are known: from the table of known weights, or from a file name such as
``deit_tiny_patch16_224-a1311bcf.pth``, which carries the first digits of the hash.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any, Callable, Optional

from passl.checkpoint.disk import digest_of, human_size, os_errors_become_sentences, sync_folder
from passl.errors import CheckpointError, ConfigError

__all__ = ["download", "hash_in_name", "is_url"]

_SCHEMES = ("http", "https", "file")
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")
_TIMEOUT_S = 30.0
_NUM_ATTEMPTS = 5
_CHUNK_BYTES = 1 << 20
#: Worth another attempt: the connection broke, or the server is overloaded.
_PASSING_STATUS = (408, 429, 500, 502, 503, 504)


def is_url(text: str) -> bool:
    """Whether this is an address rather than a path."""
    return _URL.match(text) is not None


def hash_in_name(name: str) -> str:
    """The first digits of the SHA-256 that the file name carries; empty if it carries none."""
    found = _HASH_IN_NAME.search(name)
    return found[1] if found else ""


def download(
    url: str,
    folder: Path,
    *,
    size: Optional[int] = None,
    sha256: str = "",
    progress: Callable[[int, Optional[int]], None] = lambda done, total: None,  # noqa: ARG005
    pause_s: float = 1.0,
) -> Path:
    """Fetch ``url`` into ``folder`` under its own name.

    Args:
        url: http, https or file.
        folder: exists; a file of that name which is as it should be is not fetched again.
        size: length in bytes, if known.
        sha256: the hash or its first digits, if known; else those in the file name.
        progress: called with the bytes that are there and the total, if the server says it.
        pause_s: before the second attempt; doubled for each further one.

    Raises:
        ConfigError: the address is none that can be fetched.
        CheckpointError: it could not be fetched, or is not the file it should be.
    """
    name = _file_name(url)
    wanted = sha256 or hash_in_name(name)
    path = folder / name
    if path.exists():
        _compare(path, url, size, wanted, is_new=False)
        return path
    part = _Part(folder / f".{name}.part")
    with os_errors_become_sentences("write", path):
        for attempt in range(1, _NUM_ATTEMPTS + 1):
            problem = _fetch(url, part, progress)
            if not problem:
                break
            if attempt == _NUM_ATTEMPTS:
                raise CheckpointError(
                    f"{url}: {problem} ({_NUM_ATTEMPTS} attempts). "
                    f"{human_size(part.size())} are kept; run the same command again to go on."
                )
            time.sleep(pause_s * 2 ** (attempt - 1))
        try:
            _compare(part.path, url, size, wanted, is_new=True)
        except CheckpointError:
            part.remove()
            raise
        part.publish(path)
    return path


# -- one attempt -----------------------------------------------------------------------------------


class _Part:
    """What has come so far, and which version of the file it is a part of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version = path.with_name(path.name + ".json")

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def validator(self) -> str:
        """The server's mark of the version; empty if it gave none."""
        with suppress(OSError, ValueError):
            return str(json.loads(self._version.read_text(encoding="utf-8"))["validator"])
        return ""

    def begin(self, validator: str) -> None:
        self.path.write_bytes(b"")
        self._version.write_text(json.dumps({"validator": validator}), encoding="utf-8")

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)
        self._version.unlink(missing_ok=True)

    def publish(self, path: Path) -> None:
        with open(self.path, "rb") as file:
            os.fsync(file.fileno())
        os.replace(self.path, path)
        sync_folder(path.parent)
        self.remove()


def _fetch(url: str, part: _Part, progress: Callable[[int, Optional[int]], None]) -> str:
    """Go on with ``part``; returns what interrupted it, or nothing if it is complete."""
    have, validator = part.size(), part.validator()
    request = urllib.request.Request(url, headers={"User-Agent": "passl-convert"})  # noqa: S310 - the scheme is checked
    if have and validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", validator)
    try:
        with _opener().open(request, timeout=_TIMEOUT_S) as answer:
            total = _begin(answer, part, have)
            with open(part.path, "ab") as file:
                while piece := answer.read(_CHUNK_BYTES):
                    file.write(piece)
                    progress(file.tell(), total)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # there is nothing after what we have: let the hash decide
            return ""
        if error.code in _PASSING_STATUS:
            return f"the server answered {error.code} {error.reason}"
        raise CheckpointError(f"{url}: the server answered {error.code} {error.reason}.") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, FileNotFoundError) or url.startswith("file:"):
            raise CheckpointError(f"{url}: there is no such file.") from error
        return f"no connection ({error.reason})"
    except (http.client.HTTPException, TimeoutError, ConnectionError) as error:
        return f"the connection broke ({error or type(error).__name__})"
    if total is not None and part.size() < total:
        return f"the connection broke after {part.size()} of {total} bytes"
    return ""


def _begin(answer: Any, part: _Part, have: int) -> Optional[int]:
    """Keep what is there if the server sends the rest of the same version; the total length."""
    length = answer.headers.get("Content-Length")
    if getattr(answer, "status", None) == 206:
        start = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
        if start is not None and int(start[1]) == have:
            return have + int(length) if length else None
    etag = answer.headers.get("ETag", "")
    strong = etag if etag and not etag.startswith("W/") else ""
    part.begin(strong or answer.headers.get("Last-Modified", ""))
    return int(length) if length else None


def _opener() -> urllib.request.OpenerDirector:
    """Knows http, https and file, and follows a redirection only to the first two."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.FileHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener


# -- checking --------------------------------------------------------------------------------------


def _file_name(url: str) -> str:
    parts = urllib.parse.urlsplit(url)
    if parts.scheme.lower() not in _SCHEMES:
        raise ConfigError(
            f"{url}: only {', '.join(_SCHEMES)} addresses are fetched. Fetch the file with the "
            "tool for that address and give its path."
        )
    name = Path(urllib.parse.unquote(parts.path)).name
    if not name or name in (".", ".."):
        raise ConfigError(f"{url}: the address does not end in the name of a file.")
    return name


def _compare(path: Path, url: str, size: Optional[int], sha256: str, *, is_new: bool) -> None:
    """Refuse a file that is not the one wanted."""
    advice = (
        "It was removed; fetch it again, and if that does not help the file at this address has "
        "changed."
        if is_new
        else f"Move {path} away to fetch it again."
    )
    found_size = path.stat().st_size
    if size is not None and found_size != size:
        raise CheckpointError(f"{url}: {found_size} bytes came, it should be {size}. {advice}")
    if sha256:
        found = digest_of(path).sha256
        if not found.startswith(sha256.lower()):
            raise CheckpointError(
                f"{url}: its SHA-256 is {found}, it should begin with {sha256}. {advice}"
            )

