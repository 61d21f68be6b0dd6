"""A file of a source at a URL: named without credentials, read by ranges.

Nothing but the file itself is ever asked for: a public bucket may forbid to be listed.
"""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from typing import Any
from urllib.parse import unquote, urlsplit

from maskcube.access import location_of
from maskcube.errors import CorruptStore, InvalidOption, SourceError
from maskcube.folder import reason
from maskcube.objects import Objects, open_objects

__all__ = ["RangeFile", "RemotePath", "SizedFile", "is_url", "plain_url"]

_BLOCK_BYTES = 2**18
"""Bytes of a cached block. HDF5 writes its list of chunks among these: what tells where a chunk
lies is most often in the same block."""

_MOST_BLOCKS = 64
"""Blocks that are kept: 16 MiB."""

_MOST_AHEAD = 8
"""Most blocks in a request, where they are asked for one after the other."""

_MOST_READ = 2**29
"""The library asks for as much as a file says of itself; no chunk may be larger than half of it."""


class RemotePath:
    """Where a file at a URL is, as `pathlib.Path` is for a local one.

    Its text names it for messages, without user, password or query. It pickles as what it takes to
    reach it, options included.

    Parameters
    ----------
    folder : str
        URL of the folder, or of the bucket.
    key : str
        Name of the file below it, parts joined by ``/``.
    options : dict, optional
        How to reach it.
    """

    def __init__(self, folder: str, key: str, options: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.key = key
        self._options = options
        self._objects: Objects | None = None

    @classmethod
    def of(cls, url: str, options: dict[str, Any] | None = None) -> RemotePath:
        """Return where the file at a URL is.

        Raises
        ------
        InvalidOption
            When the URL names no file, or has a query.
        """
        path = urlsplit(plain_url(url)).path
        if not path.strip("/"):
            raise InvalidOption(f"{plain_url(url)!r} names no file")
        folder, _, name = url.rstrip("/").rpartition("/")
        return cls(folder, unquote(name), options)

    @property
    def name(self) -> str:
        """The last part of its name."""
        return self.key.rpartition("/")[2]

    @property
    def suffix(self) -> str:
        """The end of its name, from the last dot on."""
        return os.path.splitext(self.name)[1]  # noqa: PTH122 - it is no local path

    def with_name(self, name: str) -> RemotePath:
        """Return the file of another name beside it."""
        folder, slash, _ = self.key.rpartition("/")
        return RemotePath(self.folder, f"{folder}{slash}{name}", self._options)

    @property
    def objects(self) -> Objects:
        """The folder, opened when it is first asked."""
        if self._objects is None:
            self._objects = open_objects(self.folder, self._options)
        return self._objects

    @property
    def at_once(self) -> int:
        """Most requests to send at once."""
        return self.objects.max_concurrency

    def get(self, start: int, length: int) -> bytes | None:
        """Return some bytes, fewer where the file ends; None if it is not there.

        Raises
        ------
        SourceError
            When they cannot be read.
        """
        try:
            return self.objects.get(self.key, start, length)
        except CorruptStore as error:
            raise self._unreadable(error) from error

    def size(self) -> int | None:
        """Return its size in bytes; None if it is not there.

        Raises
        ------
        SourceError
            When it cannot be told.
        """
        try:
            return self.objects.size(self.key)
        except CorruptStore as error:
            raise self._unreadable(error) from error

    def get_exactly(self, start: int, length: int) -> bytes:
        """Return some bytes, every one of them.

        Raises
        ------
        SourceError
            When they cannot be read, or are not there: the file was replaced by a smaller one.
        """
        data = self.get(start, length)
        if data is None or len(data) != length:
            raise self.changed(
                f"its bytes {start:,} to {start + length - 1:,} are gone"
                if data is None
                else f"{len(data):,} bytes came from {start:,} on instead of {length:,}"
            )
        return data

    def changed(self, found: str) -> SourceError:
        """Return the error of a file that is another one than when it was first asked for."""
        fault = f"changed while it was read, or was cut off: {found}; try again"
        return SourceError(str(self), [fault])

    def _unreadable(self, error: CorruptStore) -> SourceError:
        cause = error.__cause__
        said = reason(cause) if isinstance(cause, Exception) else str(error)
        return SourceError(str(self), [f"cannot be read: {said}"])

    def __str__(self) -> str:
        return f"{plain_url(self.folder)}/{self.key}"

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_objects": None}


class SizedFile(io.RawIOBase):
    """A file to read of which the size is known: where one is in it, and how to go elsewhere.

    Parameters
    ----------
    size : int
        Its size in bytes.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size
        self._position = 0

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place in the file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position


class RangeFile(SizedFile):
    """A file at a URL as a file object for h5py: what is asked for is fetched in blocks and kept.

    Blocks that are asked for one after the other are fetched several in a request. Every request is
    sent by the thread that reads: it holds the lock of the HDF5 library, which any other thread may
    come to wait for, be it only to free an object.

    Parameters
    ----------
    path : RemotePath
        The file.
    size : int
        Its size in bytes.
    """

    def __init__(self, path: RemotePath, size: int) -> None:
        super().__init__(size)
        self.path = path
        self._blocks: OrderedDict[int, bytes] = OrderedDict()
        self._next, self._ahead = -1, 1
        self._lock = threading.Lock()

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever has bytes
        """Fill a buffer from the place on, as far as the file goes."""
        with memoryview(buffer).cast("B") as view:
            data = self.read_at(self._position, len(view))
            view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_at(self, start: int, length: int) -> bytes:
        """Return some bytes, fewer where the file ends.

        Raises
        ------
        SourceError
            When they cannot be read, or are more than any chunk may have.
        """
        stop = min(start + length, self.size)
        if stop <= start:
            return b""
        if stop - start > _MOST_READ:
            raise SourceError(str(self.path), [f"has a piece of {stop - start:,} bytes: refused"])
        first, last = start // _BLOCK_BYTES, (stop - 1) // _BLOCK_BYTES
        with self._lock:
            data = b"".join(self._block(number) for number in range(first, last + 1))
        return data[start - first * _BLOCK_BYTES : stop - first * _BLOCK_BYTES]

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            self._fetch(number)
        self._blocks.move_to_end(number)
        return self._blocks[number]

    def _fetch(self, number: int) -> None:
        """Fetch a block, and those behind it where it follows on those that were fetched last."""
        self._ahead = min(2 * self._ahead, _MOST_AHEAD) if number == self._next else 1
        n_blocks = -(-self.size // _BLOCK_BYTES)
        self._next = number + 1
        while self._next < min(number + self._ahead, n_blocks) and self._next not in self._blocks:
            self._next += 1
        start, stop = number * _BLOCK_BYTES, min(self._next * _BLOCK_BYTES, self.size)
        data = self.path.get_exactly(start, stop - start)
        for each in range(number, self._next):
            at = (each - number) * _BLOCK_BYTES
            self._blocks[each] = data[at : at + _BLOCK_BYTES]
        while len(self._blocks) > _MOST_BLOCKS:
            self._blocks.popitem(last=False)


def is_url(source: object) -> bool:
    """Whether a source is at a URL, and not on this machine."""
    return "://" in str(source) and not str(source).startswith("file://")


def plain_url(url: str) -> str:
    """Return a URL without user and password.

    Raises
    ------
    InvalidOption
        When it is none, or has a query, which may be a secret.

    Examples
    --------
    >>> plain_url("https://me:secret@host:8000/laion-fmri/")
    'https://host:8000/laion-fmri'
    """
    try:
        parts, shown = urlsplit(url), location_of(url).rstrip("/")
    except ValueError as error:
        raise InvalidOption(f"source: a URL that cannot be understood: {error}") from None
    if parts.query or parts.fragment:
        raise InvalidOption(
            f"source={shown!r} and a query or fragment behind it: give the URL alone, and what it"
            " takes to be let in as source_options"
        )
    return shown
