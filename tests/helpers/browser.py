"""Chromium without a screen, through chromedriver's protocol (W3C WebDriver); no other package."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Callable

from local_ports import free_port

__all__ = ["MISSING", "Browser", "is_up", "wait_for"]

_FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1500,1100",
]
#: Why there is no browser here; None if there is one.
MISSING = (
    None
    if shutil.which("chromium") and shutil.which("chromedriver")
    else "chromium and chromedriver are not installed: apt-get install chromium chromium-driver"
)


class Browser:
    """One window; a context manager.

    Args:
        profile: a new folder for what the browser keeps.
    """

    def __init__(self, profile: Path) -> None:
        port = free_port()
        self._address = f"http://127.0.0.1:{port}"
        self._driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        wait_for(lambda: self._call("GET", "/status")["ready"], "chromedriver")
        options = {
            "binary": shutil.which("chromium"),
            "args": [*_FLAGS, f"--user-data-dir={profile}"],
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self._session = "/session/" + self._call("POST", "/session", wanted)["sessionId"]

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._call("DELETE", self._session)
        finally:
            self._driver.terminate()
            self._driver.wait()

    def open(self, url: str) -> None:
        """Load a page."""
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str) -> Any:
        """What a piece of JavaScript returns."""
        return self._call("POST", f"{self._session}/execute/sync", {"script": script, "args": []})

    def text(self) -> str:
        """What is written on the page, and in the frames of it that are ours to see."""
        return str(
            self.run(
                "return [document, ...[...document.querySelectorAll('iframe')]"
                ".map(frame => frame.contentDocument)].map(page => page ?"
                " page.body.innerText + ' ' + [...page.querySelectorAll('svg text')]"
                ".map(text => text.textContent).join(' ') : '').join('\\n')"
            )
        )

    def screenshot(self, path: Path) -> None:
        """Write the window as PNG."""
        path.write_bytes(base64.b64decode(self._call("GET", f"{self._session}/screenshot")))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body).encode() if body is not None else None
        address = self._address + path
        request = urllib.request.Request(address, data=data, method=method)  # noqa: S310 (http)
        with urllib.request.urlopen(request, timeout=300) as answer:  # noqa: S310
            return json.load(answer)["value"]


def is_up(url: str) -> bool:
    """Whether a page of this machine can be read."""
    with urllib.request.urlopen(url, timeout=300) as answer:  # noqa: S310 (http)
        return bool(answer.status == 200)


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 300.0) -> None:
    """Until ``condition`` is true; a server that is not up yet is not an error.

    Raises:
        AssertionError: it did not become true.
    """
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (urllib.error.URLError, ConnectionError, KeyError):
            pass
        assert time.monotonic() < end, f"{what} did not come within {seconds:g} s"
        time.sleep(0.3)
