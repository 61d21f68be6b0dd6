"""The bucket: a real server of S3 on loopback, behind a proxy that counts, and is far away.

Server and proxy are processes of their own: what they compute does not hold up the clients.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import Any, NamedTuple, Self

import obstore
from proxy import Proxy
from servers import SeaweedFS

__all__ = ["LATENCY_S", "Bucket", "Traffic", "counted"]

LATENCY_S = 0.02
"""What each request takes longer than on loopback: a bucket in the same region takes about that."""


class Traffic(NamedTuple):
    """What was asked for and answered."""

    n_requests: int
    n_writes: int
    """How many of them were PUT."""
    bytes_down: int
    bytes_up: int


class _Counter(Proxy):
    """A proxy whose sums can be asked for from another process."""

    def address(self) -> str:
        return self.endpoint

    def settle(self, latency_s: float) -> None:
        """Set the latency, and forget the requests."""
        self.latency = latency_s
        self.reset()

    def traffic(self) -> tuple[int, int, int, int]:
        requests = self.requests
        return (
            len(requests),
            sum(request.method == "PUT" for request in requests),
            sum(request.bytes_down for request in requests),
            sum(request.bytes_up for request in requests),
        )


class _Manager(BaseManager):
    pass


_Manager.register(
    "Counter", _Counter, exposed=("address", "settle", "start", "stop", "reset", "traffic")
)


class Bucket:
    """A bucket of that server, open from the beginning of its `with` to the end.

    Attributes
    ----------
    name : str
        Its name; anybody may read it, who writes has to sign.
    endpoint : str
        The proxy's.
    """

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._server = stack.enter_context(SeaweedFS())
            manager: Any = _Manager(ctx=get_context("spawn"))
            manager.start()
            stack.callback(manager.shutdown)
            self._proxy = manager.Counter(self._server.endpoint)
            self._proxy.start()
            stack.callback(self._proxy.stop)
            self.endpoint: str = self._proxy.address()
            self.name = self._server.new_bucket("public-bench")
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def options(self) -> dict[str, Any]:
        """What a client needs besides the URL, in the words of fsspec."""
        return {**self._server.options, "endpoint_url": self.endpoint}

    def url(self, path: str) -> str:
        """Return the URL of what is in the bucket."""
        return f"s3://{self.name}/{path}"

    def obstore(self, prefix: str) -> Any:
        """Return a new client of obstore, by way of the proxy."""
        return self._server.obstore(self.name, prefix, endpoint=self.endpoint)

    def upload(self, local: Path, path: str) -> None:
        """Put a file, or all files of a folder, without the proxy."""
        target = self._server.obstore(self.name)
        for file in [local] if local.is_file() else sorted(local.rglob("*")):
            if file.is_file():
                below = "" if file == local else f"/{file.relative_to(local)}"
                obstore.put(target, f"{path}{below}", file.read_bytes(), use_multipart=False)

    @contextmanager
    def far(self, latency_s: float = LATENCY_S) -> Iterator[None]:
        """Make it that far away, and count from now on."""
        self._proxy.settle(latency_s)
        try:
            yield
        finally:
            self._proxy.settle(0)

    def traffic(self) -> Traffic:
        """Return what came since it was last made far."""
        return Traffic(*self._proxy.traffic())


def counted(
    bucket: Bucket, function: Callable[[], Any], latency_s: float = LATENCY_S
) -> tuple[Any, float, Traffic]:
    """Return what a function returns, the seconds that it took, and what it asked for."""
    with bucket.far(latency_s):
        start = time.perf_counter()
        answer = function()
        wall = time.perf_counter() - start
        return answer, wall, bucket.traffic()
