"""Downloads: fetched once, checked, and given their name only when complete."""

import hashlib
import logging
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

import pooch
import requests

from src.utils.console import progress
from src.utils.errors import UserError, nearest
from src.utils.lock import exclusive

log = logging.getLogger(__name__)

_TUTORIAL = "https://mindspore-website.obs.cn-north-4.myhuaweicloud.com/notebook/datasets"
KNOWN_WEIGHTS = {
    "tutorial_vgg16": f"{_TUTORIAL}/fcn8s_vgg16_pretrain.ckpt",
    "tutorial_fcn8s": f"{_TUTORIAL}/FCN8s.ckpt",
}

_ATTEMPTS = 5
_TIMEOUT = (15, 60)  # seconds: to connect, between two packets
_CHUNK = 1 << 16  # bytes; a broken connection costs at most one
_MB = 1e6


def fetch(
    url: str, directory: str | Path, checksum: str | None = None, name: str | None = None
) -> Path:
    """Returns `directory/name`, downloading it from `url` unless it is there already.

    A broken download goes on where it stopped if the server can tell that the file is still the
    same one, and starts again if not. The file gets its name only when it is complete. Processes
    that want the same file wait for the one that downloads it.

    Args:
        url: An http or https address.
        directory: Made if absent.
        checksum: SHA-256 in hexadecimal, or "md5:…", "sha1:…". A file that is there but differs is
            fetched anew; without a checksum, a file that is there is taken as it is.
        name: File name; None takes the last part of the address.

    Raises:
        UserError: No network, no such address, incomplete or altered content, no place to write.
    """
    name = name or _file_name(url)
    path = Path(directory) / name
    if checksum is None and path.is_file():
        return path
    repair = f"or put the file at {path}"
    downloader = _Downloader(path)
    pooch.get_logger().setLevel(logging.WARNING)
    try:
        with exclusive(path):
            pooch.retrieve(url, checksum, name, path.parent, downloader=downloader)
    except requests.HTTPError as error:
        raise UserError(
            f"{url}: the server answers {error.response.status_code} {error.response.reason}; "
            f"check the address, {repair}"
        ) from error
    except requests.RequestException as error:
        raise UserError(
            f"{url}: {downloader.state()} ({_reason(error)}); check the network and run again, "
            f"{repair}"
        ) from error
    except UserError as error:
        raise UserError(f"{error}, {repair}") from error
    except ValueError as error:  # pooch's word for a wrong hash; what was fetched is deleted
        raise UserError(
            f"{url}: what was fetched does not have the checksum {checksum}; run again, {repair}"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); make room there, or choose "
            "another folder"
        ) from error
    return path


def resolve_weights(weights: str | Path, cache_dir: str | Path) -> Path:
    """Turns a file, a name of `KNOWN_WEIGHTS` or an http(s) address into a file.

    Downloads go to `cache_dir`; those from an address carry a digest of it before their name.

    Raises:
        UserError: No such file or name, a folder that may not be entered, or the download fails.
    """
    text = str(weights)
    path = Path(text).expanduser()
    try:
        if path.is_file():
            return path
    except PermissionError as error:
        raise UserError(
            f"{path}: a folder above it may not be entered by this user; its owner can chmod a+x it"
        ) from error
    if text in KNOWN_WEIGHTS:
        return fetch(KNOWN_WEIGHTS[text], cache_dir)
    if text.startswith(("http://", "https://")):
        # Many addresses end alike ("model.ckpt"): the digest keeps them apart
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return fetch(text, cache_dir, name=f"{digest}-{_file_name(text)}")
    raise UserError(
        f"weights '{text}': no such file; expected a file, an http(s) address or one of "
        f"{', '.join(KNOWN_WEIGHTS)}{nearest(text, KNOWN_WEIGHTS)}"
    )


class _Downloader:
    """Pooch's downloader, with resumption: bytes gather in `.<name>.part` until all are there.

    The server's mark of the version (ETag or date) lies beside them, since bytes of two versions
    must not be joined.
    """

    def __init__(self, path: Path) -> None:
        self._name = path.name
        self._part = path.with_name(f".{path.name}.part")
        self._mark = path.with_name(f".{path.name}.part.version")
        self._expected: int | None = None

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        with progress() as bar:
            task = bar.add_task(f"fetching {self._name} (MB)", total=None)
            for attempt in range(1, _ATTEMPTS + 1):
                before = self._size()
                try:
                    for size in self._receive(url):
                        total = self._expected and self._expected / _MB
                        bar.update(task, completed=size / _MB, total=total)
                    break
                except requests.HTTPError:
                    raise
                except requests.RequestException as error:
                    if attempt == _ATTEMPTS or self._size() in (0, before):
                        raise
                    log.info("%s: connection lost (%s), trying again", url, _reason(error))
        self._mark.unlink(missing_ok=True)
        self._part.replace(output_file)

    def state(self) -> str:
        """How far the download came, for an error message."""
        if not self._size():
            return "no connection"
        total = f" of {self._expected / _MB:.1f}" if self._expected else ""
        return f"connection lost after {self._size() / _MB:.1f}{total} MB"

    def _size(self) -> int:
        return self._part.stat().st_size if self._part.exists() else 0

    def _receive(self, url: str) -> Iterator[int]:
        """Writes one answer of the server, yielding the size reached."""
        start = self._size() if self._mark.exists() else 0
        # Compressed on the way, neither Content-Length nor ranges would be those of the file
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": self._mark.read_text()}
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT) as response:
            status, answer = response.status_code, response.headers
            part = status == 206 and answer.get("Content-Range", "").startswith(f"bytes {start}-")
            if start and status in (206, 416) and not part:  # what is here fits nothing there
                self._part.unlink()
                yield from self._receive(url)
                return
            response.raise_for_status()
            if answer.get("Content-Type", "").startswith("text/html"):
                raise UserError(f"{url}: the server sends a web page; check the address")
            start = start if part else 0
            length = answer.get("Content-Length")
            self._expected = start + int(length) if length else None
            if not start:
                self._keep_mark(response)
            with self._part.open("ab" if start else "wb") as file:
                for chunk in response.iter_content(_CHUNK):
                    file.write(chunk)
                    yield file.tell()
        if self._expected is not None and self._size() != self._expected:
            raise requests.ConnectionError("incomplete")

    def _keep_mark(self, response: requests.Response) -> None:
        etag = response.headers.get("ETag", "")
        mark = etag if etag.startswith('"') else response.headers.get("Last-Modified")
        if mark:
            self._mark.write_text(mark)
        else:
            self._mark.unlink(missing_ok=True)


def _file_name(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UserError(f"'{url}': expected an address such as https://host/path/file")
    name = PurePosixPath(unquote(parts.path)).name
    if name in ("", ".."):
        raise UserError(f"{url}: names no file; expected an address such as https://host/path/file")
    return name


def _reason(error: BaseException) -> str:
    """The operating system's error message, which requests wraps in several layers."""
    if isinstance(error, requests.Timeout):
        return "timed out"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    broken = isinstance(error, requests.ConnectionError | requests.exceptions.ChunkedEncodingError)
    return "closed too early" if broken else str(error)
