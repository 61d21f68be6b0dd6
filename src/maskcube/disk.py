"""What a local disk can do: lock a place, exchange two folders, flush them, fail."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from maskcube.errors import MaskcubeError, StoreExists

__all__ = ["Lock", "advise", "exchange", "flush", "locked", "make_folder"]

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_CANNOT = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM}
"""What a kernel or a file system says that cannot exchange."""


class Lock:
    """Held by the one process that writes a store; the system frees it when that process ends.

    Parameters
    ----------
    path : pathlib.Path
        The file to lock; it is there only while it is held.
    location : str
        The store, for messages.
    """

    def __init__(self, path: Path, location: str) -> None:
        self.path = path
        self.location = location
        self._descriptor: int | None = None

    @property
    def is_held(self) -> bool:
        """Whether this process has it."""
        return self._descriptor is not None

    def acquire(self) -> None:
        """Take the lock.

        Raises
        ------
        StoreExists
            When another process has it.
        """
        import fcntl

        while True:
            descriptor = self._open()
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever had it may have deleted the file in between: then it locks nothing.
                if os.path.samestat(os.fstat(descriptor), self.path.stat()):
                    os.ftruncate(descriptor, 0)
                    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                    self._descriptor = descriptor
                    return
            except BlockingIOError:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace")
                os.close(descriptor)
                raise StoreExists(
                    f"another process ({holder or 'just begun'}) is writing {self.location}:"
                    " let it finish"
                ) from None
            except FileNotFoundError:
                pass
            except OSError:
                # Some network disks have no locks: there, nobody else must write to this place.
                self._descriptor = descriptor
                return
            os.close(descriptor)

    def _open(self) -> int:
        """Open the file to lock, or make it; raise if it is another one, or none."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
        try:
            descriptor = os.open(self.path, flags, 0o644)
        except OSError as error:
            if error.errno not in (errno.ELOOP, errno.EISDIR):
                raise
        else:
            status = os.fstat(descriptor)
            # It will be written over.
            if stat.S_ISREG(status.st_mode) and status.st_nlink <= 1:
                return descriptor
            os.close(descriptor)
        raise StoreExists(f"{self.path} is not the lock of a process that writes: delete it")

    def tidy(self) -> None:
        """Delete the file that a killed process has left.

        Raises
        ------
        StoreExists
            When a process has the lock.
        """
        if self.path.exists():
            self.acquire()
            self.release()

    def release(self) -> None:
        """Give the lock back."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            try:
                self.path.unlink(missing_ok=True)
            finally:
                os.close(descriptor)


@contextmanager
def locked(target: Path, location: str) -> Iterator[None]:
    """Keep other processes out of a folder that is written in its place, and may not be there yet.

    Parameters
    ----------
    target : pathlib.Path
        The folder; those above it are made.
    location : str
        The store, for messages.

    Raises
    ------
    StoreExists
        When another process has it, or it is no folder.
    """
    if os.path.lexists(target) and not target.is_dir():
        raise StoreExists(f"{target} is no folder: choose another place")
    make_folder(target.parent)
    lock = Lock(target.with_name(f".{target.name}.maskcube-lock"), location)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def exchange(first: Path, second: Path) -> bool:
    """Let two folders change places in one step, so that there is never none; False if it cannot.

    Linux only, by ``renameat2`` [1]_, which Python does not have.

    Raises
    ------
    OSError
        When the system refuses for another reason than that it cannot do such a thing.

    .. [1] https://man7.org/linux/man-pages/man2/rename.2.html
    """
    rename = _renameat2()
    if rename is None:
        return False
    sys.audit("maskcube.exchange", str(first), str(second))
    paths = os.fsencode(first), os.fsencode(second)
    if rename(_AT_FDCWD, paths[0], _AT_FDCWD, paths[1], _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


@cache
def _renameat2() -> Any:  # noqa: ANN401 - a function of the C library
    """Return the C library's ``renameat2``, or None where it has none."""
    try:
        found = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return None
    path, number = ctypes.c_char_p, ctypes.c_int
    found.argtypes = (number, path, number, path, ctypes.c_uint)
    return found


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, for good: each is flushed to the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        flush(each.parent)


def advise(error: BaseException | None, location: str) -> None:
    """Raise a system's error again, saying which store could not be written and what to do.

    Raises
    ------
    OSError
        Of the same kind.
    """
    if isinstance(error, OSError) and error.errno and not isinstance(error, MaskcubeError):
        raise OSError(
            error.errno,
            f"{error.strerror}: cannot write {location}, or beside it; what is finished stays: mend"
            " that and run the same command again",
            *((error.filename,) if error.filename else ()),
        ) from error


def flush(folder: Path) -> None:
    """Flush a folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
