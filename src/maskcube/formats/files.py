"""The mask files that an annotation file names: found below one folder, or asked of a caller."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

__all__ = ["MaskFiles", "Resolver", "read_file"]

Resolver = Callable[[str], bytes | str | os.PathLike[str]]
"""Gives a mask file's bytes, or its path, for the name or URL that an annotation has for it."""

_MOST_BYTES = 2**28
"""Of a mask file: sixteen times what the largest picture takes that has no two pixels alike."""


class MaskFiles:
    """Reads the mask files that annotations name.

    A name in an annotation is data: of a path or URL only what lies below `place` is opened, first
    under the name as it is, then under its last part. Nothing is fetched from a network.

    Parameters
    ----------
    place : path or callable
        The folder where the mask files are, or a function that gives bytes or a path for the name
        of one.
    """

    def __init__(self, place: str | os.PathLike[str] | Resolver) -> None:
        self._place = place if callable(place) else Path(place).expanduser().absolute()

    def read(self, name: str) -> bytes:
        """Return the bytes of a mask file.

        Raises
        ------
        ValueError
            When there is none, or it is too large; the message is half a sentence.
        """
        if not isinstance(self._place, Path):
            found = self._place(name)
            return found if isinstance(found, bytes) else read_file(Path(found))
        folder = self._place.resolve()
        for relative in _candidates(name):
            # A name may be longer than any file's.
            with suppress(OSError):
                path = (folder / relative).resolve()
                # A link may lead elsewhere.
                if path.is_relative_to(folder) and path.is_file():
                    return read_file(path)
        raise ValueError(f"is not in {folder}")


def read_file(path: Path) -> bytes:
    """Return a file's bytes.

    Raises
    ------
    ValueError
        When it cannot be read, or is too large; the message is half a sentence.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
    if len(data) > _MOST_BYTES:
        raise ValueError(f"is larger than {_MOST_BYTES // 2**20} MiB")
    return data


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
    whole = PurePosixPath(path.replace("\\", "/").lstrip("/"))
    if not whole.name or "\0" in path:
        return []
    last = PurePosixPath(whole.name)
    return [last] if ".." in whole.parts or whole == last else [whole, last]
