"""A server on loopback that speaks as much of ClearML's API as its SDK asks for.

It keeps the frames and the metadata that arrive, and hands out the files of a folder, as a file
server would. Nothing is checked here: that is what the tests do.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

__all__ = ["Call", "ClearMLServer"]

_FILES = "/files/"


class Call(NamedTuple):
    """A request that was answered."""

    method: str
    action: str
    """As in ``datasets.save_frames``; of a file ``files``."""
    body: dict[str, Any]


class ClearMLServer:
    """One dataset with one version, on a free port.

    Parameters
    ----------
    files : pathlib.Path, optional
        A folder whose files are under ``url + "/files/"``.

    Attributes
    ----------
    frames : dict of str to dict
        The frames that arrived, by id.
    metadata : dict
        That of the version.
    calls : list of Call
        Every request.
    """

    def __init__(self, files: Path | None = None) -> None:
        self.files = files
        self.frames: dict[str, dict[str, Any]] = {}
        self.metadata: dict[str, Any] = {}
        self.calls: list[Call] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, owner=self))
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """What the SDK must find before it is imported."""
        return {
            "CLEARML_CONFIG_FILE": "/dev/null",
            "CLEARML_API_HOST": self.url,
            "CLEARML_WEB_HOST": self.url,
            "CLEARML_FILES_HOST": self.url,
            "CLEARML_API_ACCESS_KEY": "anyone",
            "CLEARML_API_SECRET_KEY": "anything",
            "NO_PROXY": "127.0.0.1",
        }

    def actions(self) -> list[str]:
        """Return what was asked for, in order."""
        return [call.action for call in self.calls]

    def answer(self, action: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the data that answers a request; of an unknown one, none."""
        answers: dict[str, Callable[[Any], dict[str, Any]]] = {
            "auth.login": lambda _: {"token": _token()},
            "projects.get_all": lambda _: {"projects": [{"id": "project-1", "name": "masks"}]},
            "datasets.create": lambda _: {"id": "dataset-1"},
            "datasets.create_version": lambda _: {"id": "version-1"},
            "datasets.get_versions": lambda _: {"versions": [self._version()]},
            "datasets.update_version": self._update,
            "datasets.save_frames": self._save,
            "datasets.commit_version": lambda _: {"version": "version-1"},
        }
        return answers[action](body) if action in answers else {}

    def _version(self) -> dict[str, Any]:
        return {"id": "version-1", "name": "v1", "status": "draft", "metadata": self.metadata}

    def _update(self, body: dict[str, Any]) -> dict[str, Any]:
        self.metadata = body.get("metadata", {})
        return {"updated": 1, "fields": {}}

    def _save(self, body: dict[str, Any]) -> dict[str, Any]:
        self.frames |= {frame["id"]: frame for frame in body["frames"]}
        return {"saved": len(body["frames"]), "failed": 0, "errors": []}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, *args: Any, owner: ClearMLServer) -> None:
        self.owner = owner
        super().__init__(*args)

    def do_GET(self) -> None:
        # The SDK sends its questions as GET, with a body.
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        path = self.path.partition("?")[0]
        if path.startswith(_FILES):
            self._send_file(path.removeprefix(_FILES))
            return
        action = path.rpartition("/")[2]
        asked = json.loads(body) if body else {}
        with self.owner.lock:
            self.owner.calls.append(Call(self.command, action, asked))
            data = self.owner.answer(action, asked)
        about = {
            "id": "1",
            "trx": "1",
            "endpoint": {"name": action, "requested_version": "2.23", "actual_version": "1.0"},
            "result_code": 200,
            "result_subcode": 0,
            "result_msg": "OK",
            "error_stack": "",
            "error_data": {},
        }
        self._send(json.dumps({"meta": about, "data": data}).encode(), "application/json")

    do_POST = do_GET  # noqa: N815 - the base's name
    do_PUT = do_GET  # noqa: N815 - the base's name
    do_HEAD = do_GET  # noqa: N815 - the base's name

    def _send_file(self, name: str) -> None:
        with self.owner.lock:
            self.owner.calls.append(Call(self.command, "files", {"name": name}))
        path = Path(self.owner.files or "/nonexistent") / Path(name).name
        if path.is_file():
            self._send(path.read_bytes(), "image/png")
        else:
            self.send_error(HTTPStatus.NOT_FOUND)

    def _send(self, data: bytes, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _token() -> str:
    """Return a token that nobody verifies, of a server with datasets of frames."""
    now = int(time.time())
    claims = {
        "iat": now,
        "exp": now + 86_400,
        "identity": {"user": "u", "company": "c", "role": "user"},
        "api_version": "2.23",
        "server_version": "3.25",
        "server_build": "1",
        "feature_set": "advanced",
    }
    parts = [{"alg": "HS256", "typ": "JWT"}, claims]
    texts = [json.dumps(part).encode() for part in parts]
    return ".".join(_encoded(each) for each in (*texts, b"no signature"))


def _encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
