"""Which file is the map of an annotation: its URL is from somewhere else, perhaps of long ago."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from maskcube.formats.files import MaskFiles, Resolver

__all__ = ["MapFiles"]


class MapFiles:
    """The maps of annotations.

    Parameters
    ----------
    place : path or callable, optional
        The folder where they are, or a function that gives bytes or a path for a URL.
    known : mapping of str to str
        The names that some of the URLs have there.
    """

    def __init__(self, place: Path | Resolver | None, known: Mapping[str, str]) -> None:
        self._files = None if place is None else MaskFiles(place)
        self._known = known

    def find(self, url: str) -> Callable[[], bytes]:
        """Return what gives the bytes of a map; raises ValueError where it cannot.

        Raises
        ------
        ValueError
            When no place is known, or another URL leads to the same file; the message is half a
            sentence.
        """
        if self._files is None:
            raise ValueError(
                f"has its mask at {url!r}; give masks=, the folder where that is or what gets it"
            )
        name = self._known.get(url, url)
        try:
            # Here, and not on some thread later: it is the second of two that is refused.
            self._files.find(name)
        except ValueError as error:
            raise ValueError(f"has its mask at {url!r}, which {error}") from error
        return partial(_read, self._files, name, url)


def _read(files: MaskFiles, name: str, url: str) -> bytes:
    try:
        return files.read(name)
    except ValueError as error:
        raise ValueError(f"has its mask at {url!r}, which {error}") from error
