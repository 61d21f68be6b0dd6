"""A web server of a folder in a process of its own, which says what it was asked for.

It knows byte ranges, lists nothing, and may answer as slowly as a bucket does.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple

__all__ = ["OPTIONS", "Asked", "WebServer", "serving"]

OPTIONS = {"client_options": {"allow_http": True}}
"""What it takes to reach it."""


class Asked(NamedTuple):
    """A request that was answered."""

    method: str
    name: str
    """The last part of the path."""
    start: int
    length: int
    """Bytes that were sent, from `start` on."""


class WebServer:
    """A server that runs, and its log."""

    def __init__(self, url: str, log: Path) -> None:
        self.url = url
        self._log = log
        self._read = 0

    def asked(self) -> list[Asked]:
        """Return what was asked for since the last time."""
        lines = self._log.read_text().splitlines()[self._read :]
        self._read += len(lines)
        fields = (line.split() for line in lines)
        return [Asked(method, name, int(at), int(n)) for method, name, at, n in fields]


@contextlib.contextmanager
def serving(folder: Path, log: Path, *, seconds: float = 0) -> Iterator[WebServer]:
    """Serve a folder on a free port, each answer after so many seconds."""
    log.touch()
    command = [sys.executable, __file__, str(folder), str(log), str(seconds)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield WebServer(f"http://127.0.0.1:{int(process.stdout.readline())}", log)
        finally:
            process.kill()


class _Ranges(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, *args: object, log: Path, seconds: float, **options: str) -> None:
        self.log = log
        self.seconds = seconds
        super().__init__(*args, **options)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        time.sleep(self.seconds)
        path = Path(self.translate_path(self.path))
        data = path.read_bytes() if path.is_file() else None
        if data is None:
            self._note(path.name, 0, 0)
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, len(data)) if asked and asked[2] else len(data)
        if asked and start >= len(data):
            self._note(path.name, start, 0)
            self.send_error(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
            return
        self._note(path.name, start, stop - start if with_body else 0)
        self.send_response(HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
        self.send_header("Content-Length", str(stop - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Last-Modified", self.date_time_string(path.stat().st_mtime))
        self.end_headers()
        if with_body:
            self.wfile.write(data[start:stop])

    def _note(self, name: str, start: int, length: int) -> None:
        with self.log.open("a") as file:
            file.write(f"{self.command} {name} {start} {length}\n")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    given, log, seconds = sys.argv[1:]
    handler = partial(_Ranges, directory=given, log=Path(log), seconds=float(seconds))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        sys.stdout.write(f"{server.server_port}\n")
        sys.stdout.flush()
        server.serve_forever()
