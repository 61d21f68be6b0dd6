"""The mask files that an annotation file names: found below one folder, or asked of a caller."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from maskcube.errors import InvalidOption
from maskcube.paths import folder_path

__all__ = ["MaskFiles", "Resolver", "read_file", "source_path"]

Resolver = Callable[[str], bytes | str | os.PathLike[str]]
"""Gives a mask file's bytes, or its path, for the name or URL that an annotation has for it."""

_MOST_BYTES = 2**28
"""Of a mask file: sixteen times what the largest picture takes that has no two pixels alike."""


class MaskFiles:
    """Reads the mask files that annotations name.

    A name in an annotation is data: of a path or URL only what lies below `place` is opened, first
    under the name as it is, then under ever shorter ends of it. Nothing is fetched from a network.

    Parameters
    ----------
    place : path or callable
        The folder where the mask files are, or a function that gives bytes or a path for the name
        of one.
    inside : str
        A folder in it in which is looked where nothing is found in `place` itself.
    """

    def __init__(self, place: str | os.PathLike[str] | Resolver, inside: str = "") -> None:
        self._inside = inside
        self._place = place if callable(place) else source_path(place)
        self._names: dict[Path, str] = {}
        self._crcs: dict[str, int] = {}

    def read(self, name: str) -> bytes:
        """Return the bytes of a mask file.

        Raises
        ------
        ValueError
            When there is none, it is too large, or another one than before; the message is half a
            sentence.
        """
        data = self._read(name)
        # It is looked at before anything is written, and read again when it is stored.
        crc = zlib.crc32(data)
        if self._crcs.setdefault(name, crc) != crc:
            raise ValueError("has other bytes than when it was first read")
        return data

    def _read(self, name: str) -> bytes:
        if not isinstance(self._place, Path):
            return _given(self._place, name)
        path = self.find(name)
        if path is None:
            raise ValueError(f"is not in {self._place.resolve()}")
        return read_file(path)

    def find(self, name: str) -> Path | None:
        """Return the mask file of that name; None when there is none, or a function gives them.

        Raises
        ------
        ValueError
            When it is the file of another name already: a mask would be another's.
        """
        if not isinstance(self._place, Path):
            return None
        folder = self._place.resolve()
        places = [folder, folder / self._inside] if self._inside else [folder]
        found = (_file_below(each, relative) for each in places for relative in _candidates(name))
        path = next((path for path in found if path is not None), None)
        if path is not None and self._names.setdefault(path, name) != name:
            raise ValueError(f"would be {path}, as {self._names[path]!r:.200} is")
        return path


def source_path(source: str | os.PathLike[str]) -> Path:
    """Return where a source is on this machine, absolute.

    Raises
    ------
    InvalidOption
        When it is a URL, or in a zip.
    """
    path = folder_path(source)
    if path is None:
        raise InvalidOption(
            f"an import reads files and folders of this machine, not {os.fspath(source)!r}"
        )
    return path


def read_file(path: Path, most: int = _MOST_BYTES) -> bytes:
    """Return a file's bytes.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    most : int
        Bytes that it may have.

    Raises
    ------
    ValueError
        When it cannot be read, or is too large; the message is half a sentence.
    """
    try:
        # A pipe would be waited for.
        if path.exists() and not path.is_file():
            raise ValueError("is no file")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > most:
        raise ValueError(f"is larger than {most // 2**20} MiB")
    return data


def _given(resolver: Resolver, name: str) -> bytes:
    """Return the bytes that a caller's function gives; whatever it raises is a fault of that file.

    One file that cannot be had must not hide what is wrong with the others.
    """
    try:
        found = resolver(name)
        if isinstance(found, bytes | bytearray | memoryview):
            return bytes(found)
        path = Path(found)
    except Exception as error:
        raise ValueError(f"was not given: {type(error).__name__}: {error!s:.200}") from error
    return read_file(path)


def _candidates(name: str) -> list[PurePosixPath]:
    """Return where below the folder a file of that name may be, the likeliest first."""
    if "\0" in name:
        return []
    # `urlsplit` refuses some texts that are no URLs but good file names.
    path = name
    if "://" in name:
        try:
            path = unquote(urlsplit(name).path)
        except ValueError:
            return []
    if "\0" in path:
        return []
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part != "/"]
    # What is before the last step upwards is not below the folder, or may not be.
    first = len(parts) - parts[::-1].index("..") if ".." in parts else 0
    return [PurePosixPath(*parts[start:]) for start in range(first, len(parts))]


def _file_below(folder: Path, relative: PurePosixPath) -> Path | None:
    try:
        path = (folder / relative).resolve()
        # A link may lead elsewhere.
        return path if path.is_relative_to(folder.resolve()) and path.is_file() else None
    except (OSError, RuntimeError):
        # A name may be longer than the system takes, and links may lead in a circle.
        return None
