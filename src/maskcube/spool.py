"""A whole file at a URL, in an anonymous temporary file: every byte is fetched once."""

from __future__ import annotations

import hashlib
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from typing import IO, Any

from maskcube.errors import MaskcubeError, SourceError
from maskcube.folder import reason
from maskcube.remote import RemotePath, SizedFile

__all__ = ["Spool", "spool"]

_PART_BYTES = 2**23
"""Bytes of a request: more would hardly be faster, and is lost when a connection breaks."""

_AT_ONCE = 4
"""Most parts in memory: twice as many were no faster at 20 ms a request."""


class Spool(SizedFile):
    """A local copy of a file, for as long as it is open.

    It has no name: however the process ends, nothing stays on the disk. Reading moves no place that
    a forked process would share.

    Attributes
    ----------
    size : int
        Its bytes.
    sha256 : str
        SHA-256 of them, in hexadecimal digits.
    """

    def __init__(self, file: IO[bytes], size: int, sha256: str) -> None:
        super().__init__(size)
        self.sha256 = sha256
        self._file = file

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - whatever has bytes
        """Fill a buffer from the place on, as far as the file goes."""
        n_read = os.preadv(self._file.fileno(), [buffer], self._position)
        self._position += n_read
        return n_read

    def close(self) -> None:
        """Give the room on the disk back."""
        self._file.close()
        super().close()


def spool(path: RemotePath, most: int | None = None) -> Spool | None:
    """Fetch a whole file, several parts at once, and hash it; None if it is not there.

    Parameters
    ----------
    path : RemotePath
        The file.
    most : int, optional
        Most bytes that it may have.

    Raises
    ------
    SourceError
        When it cannot be read, has more bytes, changes meanwhile, or the disk has no room for it.
    """
    first = path.get(0, _PART_BYTES)
    if first is None:
        return None
    # Where it ends in the first part, one answer was all of it.
    size = _size(path) if len(first) == _PART_BYTES else len(first)
    if size < len(first):
        raise path.changed(f"it had {len(first):,} bytes at least and has {size:,}")
    if most is not None and size > most:
        raise SourceError(str(path), [f"cannot be read: it is larger than {most // 2**20} MiB"])
    try:
        with ExitStack() as stack:
            file = stack.enter_context(tempfile.TemporaryFile(prefix="maskcube-"))
            digest = _fill(path, file, first, size)
            if size > len(first) and (now := _size(path)) != size:
                raise path.changed(f"it had {size:,} bytes and has {now:,}")
            stack.pop_all()
    except OSError as error:
        if isinstance(error, MaskcubeError):
            raise
        raise _no_room(path, size, error) from error
    return Spool(file, size, digest)


def _size(path: RemotePath) -> int:
    size = path.size()
    if size is None:
        raise path.changed("it is gone")
    return size


def _fill(path: RemotePath, file: IO[bytes], first: bytes, size: int) -> str:
    """Write every part in its place; return the SHA-256 of what is then in the file."""
    if hasattr(os, "posix_fallocate") and size:
        # A disk that is too small says so before anything is fetched.
        os.posix_fallocate(file.fileno(), 0, size)
    _write(file, 0, first)
    starts = range(len(first), size, _PART_BYTES)
    digest = hashlib.sha256(first)
    pool = ThreadPoolExecutor(max(1, min(path.at_once, _AT_ONCE, len(starts))), "maskcube-spool")
    try:
        lengths = pool.map(partial(_fetch, path, file, size), starts)
        # What is hashed is what was written, while the parts behind it are still on their way.
        for start, length in zip(starts, lengths, strict=True):
            digest.update(os.pread(file.fileno(), length, start))
    finally:
        pool.shutdown(cancel_futures=True)
    return digest.hexdigest()


def _fetch(path: RemotePath, file: IO[bytes], size: int, start: int) -> int:
    data = path.get_exactly(start, min(_PART_BYTES, size - start))
    _write(file, start, data)
    return len(data)


def _write(file: IO[bytes], start: int, data: bytes) -> None:
    with memoryview(data) as view:
        written = 0
        while written < len(view):
            written += os.pwrite(file.fileno(), view[written:], start + written)


def _no_room(path: RemotePath, size: int, error: OSError) -> SourceError:
    fault = (
        f"its {size:,} bytes cannot be kept in the temporary folder {tempfile.gettempdir()!r}:"
        f" {reason(error)}; set TMPDIR to a folder that has room"
    )
    return SourceError(str(path), [fault])
