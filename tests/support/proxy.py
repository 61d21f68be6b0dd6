"""A proxy between a client and a server that counts what it passes on, and spoils it on demand.

>>> with Proxy(server.endpoint) as proxy:
...     proxy.fault("503", "cut", rate=0.05)
...     store = server.obstore(bucket, endpoint=proxy.endpoint)

Bodies are held in memory, so that a fault is always a whole one.
"""

from __future__ import annotations

import asyncio
import random
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple, Self
from urllib.parse import urlsplit

from messages import Message, Torn, answer, error_xml, read_answer, read_request
from processes import free_ports

__all__ = ["FAULTS", "Proxy", "Request", "error_xml"]

When = Callable[[str, str], bool]
"""Which requests: by method, and path with query as the client sent it."""

_REFUSALS = {"500": "InternalError", "503": "SlowDown", "429": "TooManyRequests"}
_UPSTREAM = {"cut", "short", "flip", "lost", "slow"}
FAULTS = frozenset({*_REFUSALS, *_UPSTREAM, "drop", "hang"})
"""500, 503, 429
    An answer of that status; the server is not asked.
drop
    The connection is closed without an answer; the server is not asked.
hang
    Never answered, until the client gives up; the server is not asked.
lost
    The server did what was asked, and the connection is closed without an answer.
slow
    Answered after `delay_s`.
cut
    Half of the body, of which all was announced, then the connection is closed. An answer without a
    body is cut in its head.
short
    Half of the body, announced as all of it.
flip
    One bit of the body is another one.

`short` and `flip` do nothing to an answer without a body, and are then not counted.
"""


@dataclass
class Request:
    """A request that came, and what became of it."""

    method: str
    path: str
    """With the query, as the client sent it."""
    range: str | None
    """The header of that name."""
    bytes_up: int
    """Length of its body, as the client sent it."""
    started: float
    """When all of it was there, by `time.monotonic`."""
    status: int | None = None
    """What the client was told; None without an answer."""
    bytes_down: int = 0
    """Length of the body that the client was sent."""
    fault: str | None = None
    """Which fault it met: one of `FAULTS`, "answer", or "unreachable" when the server is."""


class _Rule(NamedTuple):
    kinds: tuple[str, ...]
    rate: float
    when: When
    delay_s: float
    answer: Message | None
    left: list[int]
    """How often it applies yet: one number, or none for always."""


@dataclass
class _Counts:
    requests: list[Request] = field(default_factory=list)
    under_way: int = 0
    most_at_once: int = 0


class Proxy:
    """A proxy on loopback, running from the beginning of its `with` to the end.

    Parameters
    ----------
    upstream : str
        The server: its scheme (``http``), address and port; a path after them is ignored.
    latency : float
        Seconds that pass before each request is passed on.
    seed : int
        Of the faults that come by chance.
    """

    def __init__(self, upstream: str, *, latency: float = 0, seed: int = 0) -> None:
        address = urlsplit(upstream)
        assert address.scheme == "http"
        self._upstream = (address.hostname, address.port)
        (self.port,) = free_ports(1)
        self.latency = latency
        self._random = random.Random(seed)  # noqa: S311 - the same faults each time
        self._rules: list[_Rule] = []
        self._counts = _Counts()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def endpoint(self) -> str:
        """Its address, to be given to clients instead of the server's."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """The requests since the last `reset`, in the order in which they came."""
        return [*self._counts.requests]

    @property
    def bytes_down(self) -> int:
        """Length of all bodies that clients were sent."""
        return sum(request.bytes_down for request in self.requests)

    @property
    def most_at_once(self) -> int:
        """The most requests that were waiting for their answers at one time."""
        return self._counts.most_at_once

    def reset(self) -> None:
        """Forget the requests; the faults stay."""
        self._counts = _Counts()

    def fault(
        self,
        *kinds: str,
        rate: float = 1,
        when: When = lambda _method, _path: True,
        times: int | None = None,
        delay_s: float = 2,
    ) -> None:
        """Spoil requests from now on: this part of those, at most so many, by one of these kinds.

        The first of several faults that applies to a request is the one that it meets.
        """
        assert kinds
        assert FAULTS.issuperset(kinds), kinds
        self._rules.append(_Rule(kinds, rate, when, delay_s, None, _left(times)))

    def answer(
        self,
        when: When,
        status: int,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        times: int | None = None,
    ) -> None:
        """Answer requests from now on like this, without asking the server."""
        given = answer(status, body, headers or {})
        self._rules.append(_Rule(("answer",), 1, when, 0, given, _left(times)))

    def clear(self) -> None:
        """Pass on everything from now on."""
        self._rules = []

    def start(self) -> None:
        """Take connections, on the same port as before."""
        assert self._thread is None
        listening = socket.create_server(("127.0.0.1", self.port), backlog=512)
        ready = threading.Event()
        self._thread = threading.Thread(
            target=asyncio.run, args=[self._serve(listening, ready)], daemon=True
        )
        self._thread.start()
        ready.wait()

    def stop(self) -> None:
        """Drop all connections and take no more: an outage."""
        if self._thread is None:
            return
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()
        self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    async def _serve(self, listening: socket.socket, ready: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, sock=listening, limit=2**20)
        ready.set()
        await self._ended.wait()
        server.close()
        # A connection that was taken just now gets its task in the next round.
        await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(OSError, Torn):
                while await self._exchange(reader, writer):
                    pass
        except asyncio.CancelledError:
            # asyncio would report that the handler of a connection was cancelled.
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort() if self._ended.is_set() else writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; return whether the connection stays."""
        asked = await read_request(reader, writer)
        if asked is None:
            return False
        method, path = asked.first.split(" ")[:2]
        request = Request(method, path, asked.get("range"), len(asked.body), time.monotonic())
        counts = self._counts
        counts.requests.append(request)
        counts.under_way += 1
        counts.most_at_once = max(counts.most_at_once, counts.under_way)
        try:
            await asyncio.sleep(self.latency)
            rule = self._rule(request)
            data, stays = await self._answer(request, asked, rule, reader)
        finally:
            # Before the answer is sent: a client that asks one after the other asks one at once.
            counts.under_way -= 1
        writer.write(data)
        await writer.drain()
        return stays and (asked.get("connection") or "").lower() != "close"

    def _rule(self, request: Request) -> _Rule | None:
        for rule in self._rules:
            if rule.left == [0] or not rule.when(request.method, request.path):
                continue
            if self._random.random() < rule.rate:
                rule.left[:] = [left - 1 for left in rule.left]
                return rule
        return None

    async def _answer(
        self, request: Request, asked: Message, rule: _Rule | None, reader: asyncio.StreamReader
    ) -> tuple[bytes, bool]:
        """Return what is sent to the client, and whether the connection stays."""
        kind = self._random.choice(rule.kinds) if rule else None
        if kind in {"drop", "hang"}:
            request.fault = kind
            if kind == "hang":
                await reader.read(1)
            return b"", False
        if kind in _REFUSALS or kind == "answer":
            request.fault = kind
            given = rule.answer if rule and rule.answer else _refusal(kind)
            return self._sent(request, given), True
        if kind == "slow" and rule:
            request.fault = kind
            await asyncio.sleep(rule.delay_s)
        try:
            given = await self._ask(asked, request.method)
        except (OSError, Torn):
            request.fault = "unreachable"
            return b"", False
        return self._spoilt(request, given, kind)

    async def _ask(self, asked: Message, method: str) -> Message:
        # A connection for each: one that the server has closed meanwhile is no fault of the client.
        reader, writer = await asyncio.open_connection(*self._upstream, limit=2**20)
        try:
            writer.write(asked.raw)
            await writer.drain()
            return await read_answer(reader, method)
        finally:
            writer.close()

    def _spoilt(self, request: Request, given: Message, kind: str | None) -> tuple[bytes, bool]:
        body = given.body
        if kind == "lost":
            request.fault = kind
            return b"", False
        if kind == "cut":
            data = self._sent(request, given)
            n_kept = len(data) - (len(body) - len(body) // 2) if body else len(data) // 2
            request.fault, request.bytes_down = kind, len(body) // 2
            return data[:n_kept], False
        if kind in {"short", "flip"} and body:
            request.fault = kind
            given = given.with_body(body[: len(body) // 2] if kind == "short" else self._flip(body))
        return self._sent(request, given), True

    def _flip(self, body: bytes) -> bytes:
        place = self._random.randrange(len(body))
        changed = body[place] ^ 1 << self._random.randrange(8)
        return body[:place] + bytes([changed]) + body[place + 1 :]

    def _sent(self, request: Request, given: Message) -> bytes:
        request.status = int(given.first.split(" ")[1])
        body = b"" if request.method == "HEAD" else given.body
        request.bytes_down = len(body)
        return given.head + body


def _left(times: int | None) -> list[int]:
    return [] if times is None else [times]


def _refusal(kind: str | None) -> Message:
    assert kind is not None
    body = error_xml(_REFUSALS[kind])
    return answer(int(kind), body, {"Content-Type": "application/xml"})
