"""A store in a local folder: its objects are files, and nothing outside of it is read.

Whatever the system says of a file that is there and cannot be read comes out as `CorruptStore`.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from maskcube.errors import CorruptStore
from maskcube.plain import PlainObjects

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["WORK", "Folder", "reason", "unreadable"]

WORK = "_maskcube"
"""Prefix of everything that is not part of a finished store: plan, journal, unfinished writes."""

_MOST_SAID = 300
"""Characters of another library's message to repeat."""


class Folder(PlainObjects):
    """Objects as the files of a local folder.

    The folder itself may be reached through a link; a link in it that leads out of it is refused:
    a store that somebody sent must not read other files.
    """

    has_cheap_ranges = True
    max_concurrency = 1
    reach = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)
        # Folders that were looked at; once for each.
        self._inside: set[str] = {""}

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        """Return an object, or a range of it."""
        descriptor = self._open_if_there(key)
        if descriptor is None:
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            left = max(0, status.st_size - start)
            return _read(descriptor, left if length is None else min(length, left), start)
        except (OSError, OverflowError, MemoryError) as error:
            raise unreadable(self.location, key, error) from error
        finally:
            os.close(descriptor)

    def map(self, key: str) -> mmap.mmap | bytes | None:
        """Return an object as it lies in the file, without a copy; None if it is not there.

        For large objects: new memory for a copy takes twice as long as reading. A file that is cut
        short meanwhile ends the process; maskcube replaces files, and never changes one.
        """
        descriptor = self._open_if_there(key)
        if descriptor is None:
            return None
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                return None
            if not status.st_size:
                return b""
            # All pages at once, where the system can: one by one they take as long as a copy.
            flags = mmap.MAP_SHARED | getattr(mmap, "MAP_POPULATE", 0)
            return mmap.mmap(descriptor, status.st_size, flags, mmap.PROT_READ)
        except (OSError, ValueError) as error:
            raise unreadable(self.location, key, error) from error
        finally:
            os.close(descriptor)

    def _open_if_there(self, key: str) -> int | None:
        try:
            return self._open(key)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(self.location, key, error) from error

    def _open(self, key: str) -> int:
        # Making a Path takes as long as reading.
        path = f"{self.location}/{key}"
        parent = key.rpartition("/")[0]
        if parent not in self._inside:
            self._look_at(parent)
        # Not to wait for a writer, should it be a pipe.
        flags = os.O_RDONLY | os.O_NONBLOCK
        try:
            return os.open(path, flags | os.O_NOFOLLOW)
        except OSError as error:
            if error.errno != errno.ELOOP:
                raise
        return os.open(self._resolved(key), flags)

    def _look_at(self, folder: str) -> None:
        """Raise if a folder in this one leads out of it."""
        above = folder.rpartition("/")[0]
        if above not in self._inside:
            self._look_at(above)
        if os.path.islink(f"{self.location}/{folder}"):  # noqa: PTH114 - a Path takes longer
            self._resolved(folder)
        self._inside.add(folder)

    def _resolved(self, key: str) -> str:
        """Return the path of an object or folder without links; raise if they lead out."""
        root = os.path.realpath(self.location)
        path = os.path.realpath(f"{root}/{key}")
        if os.path.commonpath([root, path]) != root:
            raise CorruptStore(
                f"{self.location}: {key} is a link that leads out of the store, to {path}:"
                " put the files themselves there"
            )
        return path

    def stamp(self, key: str) -> tuple[int, ...] | None:
        """Return inode, time and size of an object's file; all 0 if it is not there."""
        try:
            found = os.stat(f"{self.location}/{key}")  # noqa: PTH116 - half the time of a Path
        except OSError:
            return (0, 0, 0)
        return found.st_ino, found.st_mtime_ns, found.st_size

    def size(self, key: str) -> int | None:
        """Return the size of an object in bytes."""
        parent = key.rpartition("/")[0]
        if parent not in self._inside:
            self._look_at(parent)
        try:
            status = (self.path / key).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise unreadable(self.location, key, error) from error
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def put(self, key: str, data: bytes) -> None:
        """Write an object beside its place, flush it to the disk, and move it there."""
        for folder in {WORK, key.rpartition("/")[0]} - self._inside:
            self._look_at(folder)
        path = self.path / key
        unfinished = self.path / WORK / uuid.uuid4().hex
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise

    def link(self, key: str, path: Path) -> bool:
        """Let a file be an object as well; False where it cannot."""
        self._look_at(key.rpartition("/")[0])
        place = self.path / key
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            place.hardlink_to(path)
            return True
        return False

    def delete(self, *keys: str) -> None:
        """Delete objects, and folders of them."""
        for key in keys:
            path = self.path / key
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """Yield the keys below a prefix, in any order."""
        for path in (self.path / prefix).rglob("*"):
            if path.is_file():
                yield path.relative_to(self.path).as_posix()

    def zarr_store(self) -> Store:
        """Return a zarr store that reads what `get` reads."""
        from maskcube.guarded import guarded_folder

        return guarded_folder(self)

    def __reduce__(self) -> tuple[type[Folder], tuple[Path]]:
        return type(self), (self.path,)


def _read(descriptor: int, length: int, start: int) -> bytes:
    """Read a range of a file: one call returns at most 2 GiB."""
    data = os.pread(descriptor, length, start)
    while len(data) < length:
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def unreadable(location: str, key: str, error: Exception) -> CorruptStore:
    """Return the error of an object that is there and cannot be read."""
    return CorruptStore(f"{location}: {key} cannot be read: {reason(error)}")


def reason(error: Exception) -> str:
    """Say in one line what the system or a library has said."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    first = str(error).partition("\n")[0][:_MOST_SAID]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
