"""HTTP/1.1 as it goes over the wire: requests and answers, each read as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus

__all__ = ["Message", "Torn", "answer", "error_xml", "read_answer", "read_request"]

_BODILESS = {204, 304}


class Torn(Exception):
    """The other side has ended in the middle of a message, or what it says is no HTTP."""


@dataclass(frozen=True)
class Message:
    """A request or an answer."""

    first: str
    """The line with the method and the path, or with the status."""
    headers: tuple[tuple[str, str], ...]
    """Names and values as they came."""
    body: bytes = b""
    """For an answer, without the frames of chunks; for a request, as it came."""

    def get(self, name: str) -> str | None:
        """Return the header of this name, in whatever case."""
        return next((value for key, value in self.headers if key.lower() == name), None)

    def with_body(self, body: bytes) -> Message:
        """Return the same with another body and its length."""
        kept = [pair for pair in self.headers if pair[0].lower() not in _FRAMING]
        length = ("Content-Length", str(len(body)))
        return replace(self, headers=(*kept, length), body=body)

    @property
    def head(self) -> bytes:
        lines = [self.first, *(f"{key}: {value}" for key, value in self.headers)]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    @property
    def raw(self) -> bytes:
        """All of it, as it goes over the wire."""
        return self.head + self.body


_FRAMING = {"content-length", "transfer-encoding"}


def answer(status: int, body: bytes, headers: Mapping[str, str]) -> Message:
    """Return an answer that is made up."""
    reason = HTTPStatus(status).phrase
    return Message(f"HTTP/1.1 {status} {reason}", tuple(headers.items())).with_body(body)


def error_xml(code: str, message: str = "said by the proxy") -> bytes:
    """Return the body of an error as S3 gives it."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
    ).encode()


async def read_request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> Message | None:
    """Return the next request of a connection, or None at its end."""
    found = await _read_head(reader)
    if found is None:
        return None
    if (found.get("expect") or "").lower() == "100-continue":
        writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    if _is_chunked(found):
        raw, _ = await _read_chunks(reader)
        return replace(found, body=raw)
    return replace(found, body=await _read_exactly(reader, int(found.get("content-length") or 0)))


async def read_answer(reader: asyncio.StreamReader, method: str) -> Message:
    """Return the answer to a request of this method, framed by its length."""
    while True:
        found = await _read_head(reader)
        if found is None:
            raise Torn
        status = int(found.first.split(" ")[1])
        if status >= HTTPStatus.OK:
            break
    if method == "HEAD" or status in _BODILESS:
        return found
    if _is_chunked(found):
        _, body = await _read_chunks(reader)
        return found.with_body(body)
    if (length := found.get("content-length")) is None:
        return found.with_body(await reader.read())
    return replace(found, body=await _read_exactly(reader, int(length)))


async def _read_head(reader: asyncio.StreamReader) -> Message | None:
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise Torn from error
        return None
    first, *lines = head.decode("latin-1").split("\r\n")[:-2]
    pairs = [line.split(":", 1) for line in lines]
    if len(first.split(" ")) < 2 or any(len(pair) < 2 for pair in pairs):
        raise Torn
    return Message(first, tuple((key, value.strip()) for key, value in pairs))


def _is_chunked(found: Message) -> bool:
    return (found.get("transfer-encoding") or "").lower() == "chunked"


async def _read_exactly(reader: asyncio.StreamReader, length: int) -> bytes:
    try:
        return await reader.readexactly(length)
    except asyncio.IncompleteReadError as error:
        raise Torn from error


async def _read_chunks(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Return the chunks as they came, and what is in them."""
    raw, body = bytearray(), bytearray()
    while True:
        line = await reader.readline()
        try:
            size = int(line.split(b";")[0], 16)
        except ValueError as error:
            raise Torn from error
        raw += line
        if not size:
            break
        data = await _read_exactly(reader, size + 2)
        raw += data
        body += data[:-2]
    while line := await reader.readline():
        raw += line
        if line == b"\r\n":
            return bytes(raw), bytes(body)
    raise Torn
