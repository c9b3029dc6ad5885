import hashlib
import re
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from src.data.fetch import download
from src.data.fetch.download import fetch, resolve_weights
from src.utils.errors import UserError

BODY = bytes(range(256)) * 8192  # 2 MiB


class Handler(BaseHTTPRequestHandler):
    """Serves BODY, with ranges; the path says what goes wrong."""

    def do_GET(self):
        self.server.requests.append((self.path, self.headers.get("Range")))
        if "missing" in self.path:
            return self.send_error(404)
        etag = f'"{self.server.version}"'
        start = 0
        asked = re.match(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if asked and "norange" not in self.path and self.headers["If-Range"] == etag:
            start = int(asked[1])
        if start >= len(self.server.body):
            return self.send_error(416)
        self.send_response(206 if start else 200)
        if "page" in self.path:
            self.send_header("Content-Type", "text/html; charset=utf-8")
        if "unmarked" not in self.path:
            self.send_header("ETag", etag)
        if start:
            end = len(self.server.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{end}/{end + 1}")
        rest = self.server.body[start:]
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if self.server.drops > 0:
            self.server.drops -= 1
            rest = rest[: len(rest) // 2]
        self.wfile.write(rest)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.body, server.version, server.drops, server.requests = BODY, 1, 0, []
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def ranges(server):
    return [asked for _, asked in server.requests]


def visible(folder):
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_fetches_a_file_once_and_leaves_nothing_else(server, tmp_path):
    path = fetch(f"{server.url}/a%20b.bin?token=1", tmp_path / "new")
    assert path == tmp_path / "new" / "a b.bin" and path.read_bytes() == BODY
    fetch(f"{server.url}/a%20b.bin?token=1", tmp_path / "new")
    assert len(server.requests) == 1
    assert visible(tmp_path / "new") == ["a b.bin"]


def test_goes_on_where_a_dropped_connection_stopped(server, tmp_path):
    server.drops = 2
    assert fetch(f"{server.url}/a.bin", tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, "bytes=1048576-", "bytes=1572864-"]
    assert visible(tmp_path) == ["a.bin"]


def test_resumes_in_a_later_call_what_stayed_incomplete(server, tmp_path):
    server.drops = 5
    with pytest.raises(
        UserError, match=r"connection lost after 2\.0 of 2\.1 MB .*run again, or put"
    ):
        fetch(f"{server.url}/a.bin", tmp_path)
    assert not (tmp_path / "a.bin").exists()
    assert fetch(f"{server.url}/a.bin", tmp_path).read_bytes() == BODY
    assert ranges(server)[-1] == f"bytes={len(BODY) - len(BODY) // 32}-"


@pytest.mark.parametrize("name", ["norange.bin", "unmarked.bin"])
def test_starts_again_when_the_server_cannot_resume(server, tmp_path, name):
    server.drops = 9
    with pytest.raises(UserError, match=r"connection lost after 1\.0 of 2\.1 MB"):
        fetch(f"{server.url}/{name}", tmp_path)
    server.drops = 0
    assert fetch(f"{server.url}/{name}", tmp_path).read_bytes() == BODY


def test_never_joins_two_versions_of_a_file(server, tmp_path):
    server.drops = 9
    with pytest.raises(UserError):
        fetch(f"{server.url}/a.bin", tmp_path)
    server.drops, server.version, server.body = 0, 2, BODY[::-1]
    assert fetch(f"{server.url}/a.bin", tmp_path).read_bytes() == BODY[::-1]


def test_starts_again_when_more_lies_here_than_the_server_has(server, tmp_path):
    (tmp_path / ".a.bin.part").write_bytes(b"x" * (len(BODY) + 1))
    (tmp_path / ".a.bin.part.version").write_text('"1"')
    assert fetch(f"{server.url}/a.bin", tmp_path).read_bytes() == BODY
    assert ranges(server) == [f"bytes={len(BODY) + 1}-", None]


def test_accepts_a_right_checksum_of_either_kind(server, tmp_path):
    sha256 = hashlib.sha256(BODY).hexdigest()
    md5 = f"md5:{hashlib.md5(BODY).hexdigest()}"
    assert fetch(f"{server.url}/a.bin", tmp_path, checksum=sha256).is_file()
    assert fetch(f"{server.url}/a.bin", tmp_path, checksum=md5).is_file()
    assert len(server.requests) == 1


def test_replaces_a_file_that_has_not_the_checksum(server, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"cut")
    path = fetch(f"{server.url}/a.bin", tmp_path, checksum=hashlib.sha256(BODY).hexdigest())
    assert path.read_bytes() == BODY


def one_line(error, *parts):
    text = str(error.value)
    assert "\n" not in text and len(text) < 400
    for part in parts:
        assert str(part) in text


def test_refuses_a_wrong_checksum_and_keeps_nothing(server, tmp_path):
    with pytest.raises(UserError) as error:
        fetch(f"{server.url}/a.bin", tmp_path, checksum="md5:" + "0" * 32)
    one_line(error, server.url, "md5:0000", f"put the file at {tmp_path / 'a.bin'}")
    assert visible(tmp_path) == []


def test_says_what_the_server_answers(server, tmp_path):
    with pytest.raises(UserError) as error:
        fetch(f"{server.url}/missing.bin", tmp_path)
    one_line(error, "404 Not Found", f"put the file at {tmp_path / 'missing.bin'}")
    assert len(server.requests) == 1


def test_refuses_a_web_page_in_place_of_a_file(server, tmp_path):
    with pytest.raises(UserError) as error:
        fetch(f"{server.url}/page.bin", tmp_path)
    one_line(error, "sends a web page", f"put the file at {tmp_path / 'page.bin'}")
    assert visible(tmp_path) == []


def test_says_in_one_line_that_nobody_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/a.bin"
        with pytest.raises(UserError) as error:
            fetch(url, tmp_path)
    one_line(error, url, "Connection refused", f"put the file at {tmp_path / 'a.bin'}")


def test_says_that_the_folder_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError) as error:
        fetch(f"{server.url}/a.bin", tmp_path / "file")
    one_line(error, tmp_path / "file" / "a.bin", "cannot be written")


@pytest.mark.parametrize("url", ["ftp://host/a.bin", "a.bin", "http://[bad/a", "https:///a.bin"])
def test_refuses_what_is_no_address(url, tmp_path):
    with pytest.raises(UserError, match="expected an address"):
        fetch(url, tmp_path)


def test_an_address_must_name_a_file(tmp_path):
    with pytest.raises(UserError, match="names no file"):
        fetch("https://host/..", tmp_path)


def test_two_at_once_download_once(server, tmp_path):
    threads = [
        threading.Thread(target=fetch, args=(f"{server.url}/a.bin", tmp_path)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(server.requests) == 1
    assert (tmp_path / "a.bin").read_bytes() == BODY


def test_weights_are_a_file_a_known_name_or_an_address(server, tmp_path, monkeypatch):
    own = tmp_path / "own.ckpt"
    own.write_bytes(b"1")
    assert resolve_weights(str(own), tmp_path / "cache") == own
    monkeypatch.setitem(download.KNOWN_WEIGHTS, "tutorial_fcn8s", f"{server.url}/FCN8s.ckpt")
    known = resolve_weights("tutorial_fcn8s", tmp_path / "cache")
    assert known == tmp_path / "cache" / "FCN8s.ckpt" and known.read_bytes() == BODY


def test_weights_of_two_addresses_do_not_share_a_file(server, tmp_path):
    first = resolve_weights(f"{server.url}/a/best.ckpt", tmp_path)
    second = resolve_weights(f"{server.url}/b/best.ckpt", tmp_path)
    assert first != second and first.name.endswith("-best.ckpt")


def test_an_unknown_name_of_weights_gets_the_nearest(tmp_path):
    with pytest.raises(UserError) as error:
        resolve_weights("tutorial_fcn8", tmp_path)
    one_line(error, "'tutorial_fcn8': no such file", "did you mean 'tutorial_fcn8s'?")


def test_a_folder_that_may_not_be_entered_is_named(tmp_path, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(UserError, match="x.pth: a folder above it may not be entered by this user"):
        resolve_weights(tmp_path / "x.pth", tmp_path)


def test_the_known_weights_are_the_tutorials(tmp_path):
    names = {name: url.rsplit("/", 1)[1] for name, url in download.KNOWN_WEIGHTS.items()}
    assert names == {
        "tutorial_vgg16": "fcn8s_vgg16_pretrain.ckpt",
        "tutorial_fcn8s": "FCN8s.ckpt",
    }
