"""A server of Scale Nucleus on loopback: takes what the stock client sends, and gives it back.

What it refuses is what the vendor's pages say Nucleus refuses: maps that are no bytes, metadata
that are no scalars or have another type than before, numbers that JSON does not know.
"""

from __future__ import annotations

import io
import json
import threading
from collections import defaultdict
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self
from urllib.parse import unquote

import numpy as np
from PIL import Image

__all__ = ["NucleusServer", "Upload"]

_GROUPS = ("polygon", "line", "keypoints", "box", "cuboid", "category", "multicategory")
_PAGE = 7


class Upload(NamedTuple):
    """A request that uploaded annotations."""

    path: str
    is_multipart: bool
    authorization: str
    n_annotations: int
    file_names: list[str]


class Refused(Exception):
    """What the client has sent is not right."""


class NucleusServer:
    """Runs from the beginning of its `with` to the end; one dataset, whose items come by need.

    Attributes
    ----------
    uploads : list of Upload
        What was uploaded, request by request.
    maps : dict
        Pixels of the map that each item has, (y, x) uint8; None where its URL was sent only.
    segmentations, predictions : dict
        The payload of each item's map.
    shapes : dict
        Payloads of polygons and boxes, by item and annotation.
    """

    def __init__(self) -> None:
        self.uploads: list[Upload] = []
        self.maps: dict[str, np.ndarray[Any, np.dtype[np.uint8]] | None] = {}
        self.segmentations: dict[str, dict[str, Any]] = {}
        self.predictions: dict[str, dict[str, Any]] = {}
        self.shapes: dict[tuple[str, str], dict[str, Any]] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self._types: dict[str, type] = {}
        self._put: dict[str, bytes] = {}
        self._lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"nucleus": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def put(self, path: str, body: bytes) -> Any:
        self._put[path] = body
        return {}

    def get(self, path: str) -> Any:
        *_, route, last = path.split("/")
        if route == "signedUrl":
            return {"signed_url": f"{self.endpoint}/put/{last}"}
        if route == "refloc":
            return self._item(unquote(last))
        raise Refused(path)

    def post(self, path: str, headers: Any, body: bytes) -> Any:
        kind = headers.get("Content-Type", "")
        files: list[tuple[str, bytes]] = []
        if kind.startswith("multipart/form-data"):
            request, files = _parts(kind, body)
        else:
            request = _parsed(body)
        if path.endswith("/exportForTrainingPage"):
            return self._page(request)
        with self._lock:
            if path.endswith("?async=1"):
                lines = self._put[f"/put/{request['requestId']}"].decode().splitlines()
                sent = [_parsed(line) for line in lines]
                request["segmentations"] = [each for each in sent if each["type"] == "mask"]
                request["annotations"] = [each for each in sent if each["type"] != "mask"]
            segmentations = request.get("segmentations", [])
            shapes = request.get("annotations", [])
            names = [name for name, _ in files]
            n_sent = len(segmentations) + len(shapes)
            self.uploads.append(
                Upload(path, bool(files), headers.get("Authorization", ""), n_sent, names)
            )
            word = "predictions" if "Predictions" in path else "annotations"
            return self._take(segmentations, shapes, files, word, update=request["update"])

    def _take(
        self,
        segmentations: list[dict[str, Any]],
        shapes: list[dict[str, Any]],
        files: list[tuple[str, bytes]],
        word: str,
        *,
        update: bool,
    ) -> dict[str, Any]:
        if files and [name for name, _ in files] != [each["mask_url"] for each in segmentations]:
            raise Refused("files and annotations differ")
        known = self.predictions if word == "predictions" else self.segmentations
        n_taken = 0
        for position, payload in enumerate(segmentations):
            for segment in payload["annotations"]:
                self._check_metadata(segment.get("metadata") or {})
            image = payload["reference_id"]
            pixels = _map(files[position][1]) if files else None
            if image in known and not update:
                continue
            known[image], self.maps[image] = payload, pixels
            n_taken += 1
        for payload in shapes:
            self._check_metadata(payload.get("metadata") or {})
            key = payload["reference_id"], payload["annotation_id"]
            if key not in self.shapes or update:
                self.shapes[key] = payload
                n_taken += 1
        n_sent = len(segmentations) + len(shapes)
        if word == "annotations" and not files and not segmentations and not shapes:
            raise Refused("nothing was sent")
        return {
            "dataset_id": "ds_1",
            f"{word}_processed": n_taken,
            f"{word}_ignored": n_sent - n_taken,
            "job_id": "job_1",
            "job_last_known_status": "Running",
            "job_type": "uploadAnnotations",
            "job_creation_time": "now",
        }

    def _check_metadata(self, metadata: dict[str, Any]) -> None:
        for key, value in metadata.items():
            if type(value) not in (str, int, float):
                raise Refused(f"{key} is {value!r}")
            if self._types.setdefault(key, type(value)) is not type(value):
                raise Refused(f"{key} was {self._types[key]}, and is {value!r}")

    def _item(self, image: str) -> dict[str, Any]:
        """Return an item as `refloc` answers."""
        found: dict[str, list[Any]] = defaultdict(list)
        if image in self.segmentations:
            found["segmentation"].append(self.segmentations[image])
        for (reference, _), payload in self.shapes.items():
            if reference == image:
                found[payload["type"]].append(payload)
        return {"item": self._dataset_item(image), "annotations": found}

    def _dataset_item(self, image: str) -> dict[str, Any]:
        height, width = self.sizes.get(image, (None, None))
        return {
            "reference_id": image,
            "image_url": "https://images.example/stimulus.jpg",
            "metadata": {},
            "dataset_item_id": f"di_{image}",
            "height": height,
            "width": width,
        }

    def _page(self, request: dict[str, Any]) -> dict[str, Any]:
        images = list(dict.fromkeys([*self.segmentations, *(image for image, _ in self.shapes)]))
        first = int(request.get("pageToken") or 0)
        rows = []
        for image in images[first : first + _PAGE]:
            groups = self._item(image)["annotations"]
            segmentation = groups.pop("segmentation", [None])[0]
            row: dict[str, Any] = {
                "item": self._dataset_item(image),
                "segmentation": _anonymous(segmentation),
            }
            row |= {name: [_anonymous(each) for each in groups.get(name, [])] for name in _GROUPS}
            rows.append(row)
        more = first + _PAGE
        return {"data": rows, "nextPageToken": str(more) if more < len(images) else None}


def _anonymous(payload: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return a payload as an export has it: its item is said once, beside it."""
    if payload is None:
        return None
    return {key: value for key, value in payload.items() if key != "reference_id"}


def _parsed(text: str | bytes) -> Any:
    def refuse(constant: str) -> float:
        raise Refused(constant)

    return json.loads(text, parse_constant=refuse)


def _parts(kind: str, body: bytes) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
    """Return the request and the files of a form."""
    form = BytesParser(policy=HTTP).parsebytes(
        b"Content-Type: " + kind.encode() + b"\r\n\r\n" + body
    )
    request: dict[str, Any] = {}
    files = []
    for part in form.iter_parts():
        assert isinstance(part, EmailMessage)
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        assert isinstance(data, bytes)
        if name == "serialized_request":
            request = _parsed(data)
        elif name == "mask" and part.get_content_type() == "image/png":
            files.append((unquote(part.get_filename() or ""), data))
        else:
            raise Refused(f"a part {name!r}")
    return request, files


def _map(data: bytes) -> np.ndarray[Any, np.dtype[np.uint8]]:
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        if image.mode != "L":
            raise Refused(f"a map of mode {image.mode}")
        return np.array(image)


class _Handler(BaseHTTPRequestHandler):
    nucleus: NucleusServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's word
        del format, args

    def do_GET(self) -> None:
        self._answer(lambda: self.nucleus.get(self.path))

    def do_PUT(self) -> None:
        body = self._body()
        self._answer(lambda: self.nucleus.put(self.path, body))

    def do_POST(self) -> None:
        body = self._body()
        self._answer(lambda: self.nucleus.post(self.path, self.headers, body))

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, make: Any) -> None:
        try:
            code, answer = 200, make()
        except Exception as error:  # noqa: BLE001 - whatever it is, the client must hear of it
            # Of 503 and the like the client would ask again for a minute.
            code, answer = 400, {"error": repr(error)}
        text = json.dumps(answer).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
