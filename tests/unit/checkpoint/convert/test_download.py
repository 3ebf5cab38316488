"""Fetching weights: resumed, checked, whole or not there; against a server of our own."""

from __future__ import annotations

import hashlib
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from passl.checkpoint.convert.download import download, hash_in_name, is_url
from passl.cli.convert import main
from passl.errors import CheckpointError, ConfigError

CONTENT = os.urandom(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    """Serves CONTENT; breaks off, forgets ranges or fails as the server is told."""

    def do_GET(self) -> None:
        server = self.server
        server.requests.append(dict(self.headers))
        if server.failures:
            self.send_error(server.failures.pop(0))
            return
        start = 0
        asked = self.headers.get("Range")
        if asked and self.headers.get("If-Range") == server.etag:
            start = int(asked[len("bytes="):-1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.send_header("ETag", server.etag)
        self.end_headers()
        end = start + server.breaks.pop(0) if server.breaks else len(CONTENT)
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *args) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.requests, server.failures, server.breaks, server.etag = [], [], [], '"one"'
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    server.url = f"http://127.0.0.1:{server.server_port}/w/weights.npz"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_file_appears_whole_under_its_own_name(server, tmp_path):
    seen = []
    path = download(server.url, tmp_path, size=len(CONTENT), sha256=SHA256,
                    progress=lambda done, total: seen.append((done, total)))
    assert path == tmp_path / "weights.npz"
    assert path.read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["weights.npz"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))


def test_what_is_there_and_right_is_not_fetched_again(server, tmp_path):
    (tmp_path / "weights.npz").write_bytes(CONTENT)
    download(server.url, tmp_path, sha256=SHA256)
    assert server.requests == []


def test_what_is_there_and_wrong_is_refused(server, tmp_path):
    (tmp_path / "weights.npz").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match=r"SHA-256 is .* Move .* away to fetch it again"):
        download(server.url, tmp_path, sha256=SHA256)
    assert server.requests == []


def test_a_broken_connection_is_resumed_where_it_broke(server, tmp_path):
    server.breaks = [100_000, 50_000]
    path = download(server.url, tmp_path, sha256=SHA256, pause_s=0.0)
    assert path.read_bytes() == CONTENT
    assert [request.get("Range") for request in server.requests] == [
        None, "bytes=100000-", "bytes=150000-"
    ]


def test_another_version_on_the_server_is_fetched_from_its_start(server, tmp_path):
    server.breaks = [1000] * 5
    with pytest.raises(CheckpointError, match=r"5 attempts.* are kept; run the same command"):
        download(server.url, tmp_path, pause_s=0.0)
    server.etag = '"two"'
    assert download(server.url, tmp_path, sha256=SHA256).read_bytes() == CONTENT


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.failures = [503, 429]
    assert download(server.url, tmp_path, pause_s=0.0).read_bytes() == CONTENT


def test_a_file_that_is_not_there_is_not_asked_for_again(server, tmp_path):
    server.failures = [404]
    with pytest.raises(CheckpointError, match="the server answered 404"):
        download(server.url, tmp_path, pause_s=0.0)
    assert len(server.requests) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("known", "text"), [
    ({"size": 7}, "300000 bytes came, it should be 7"),
    ({"sha256": "0" * 64}, "it should begin with 0000"),
])
def test_another_file_than_expected_is_removed(known, text, server, tmp_path):
    with pytest.raises(CheckpointError, match=text):
        download(server.url, tmp_path, **known)
    assert os.listdir(tmp_path) == []


def test_the_hash_in_a_file_name_is_compared(server, tmp_path):
    assert hash_in_name("deit_tiny_patch16_224-a1311bcf.pth") == "a1311bcf"
    assert hash_in_name("Ti_16-i21k-300ep-lr_0.001-aug_none.npz") == ""
    with pytest.raises(CheckpointError, match="it should begin with 12345678"):
        download(server.url.replace("weights", "weights-12345678"), tmp_path)


def test_a_server_that_nobody_runs_is_a_sentence(tmp_path):
    with pytest.raises(CheckpointError, match=r"no connection .*5 attempts"):
        download("http://127.0.0.1:1/w.npz", tmp_path, pause_s=0.0)


def test_a_file_address_is_copied(tmp_path):
    source = tmp_path / "a b.npz"
    source.write_bytes(CONTENT)
    folder = tmp_path / "to"
    folder.mkdir()
    assert download(source.as_uri(), folder, sha256=SHA256).name == "a b.npz"
    with pytest.raises(CheckpointError, match="there is no such file"):
        download((tmp_path / "none.npz").as_uri(), folder)


@pytest.mark.parametrize("url", ["ftp://h/x.npz", "s3://bucket/x.npz", "https://h/"])
def test_an_address_that_cannot_be_fetched_is_a_sentence(url, tmp_path):
    assert is_url(url)
    with pytest.raises(ConfigError):
        download(url, tmp_path)


def test_the_command_fetches_converts_and_notes_the_address(server, tmp_path, capsys):
    status = main([server.url, str(tmp_path / "x.pdparams"), "--download"])
    captured = capsys.readouterr()
    assert status == 1  # random bytes are no weights
    assert "fetched" in captured.out
    assert "weights.npz" in captured.err
    assert os.listdir(tmp_path) == ["weights.npz"]
