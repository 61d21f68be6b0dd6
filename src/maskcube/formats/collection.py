"""Masks of another format, checked, on their way into a store."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.record import Record

__all__ = ["Collection", "Item", "KeptMaps"]

_BLOCK_BYTES = 2**20

_MOST_KEPT = 4
"""Decoded maps: masks of one image come one after the other, on a few threads."""


class Item(NamedTuple):
    """One mask of another format."""

    record: Record
    size: tuple[int, int]
    """Height and width in pixels."""
    read: Callable[[], NDArray[np.uint8]]
    """Gives its pixels, (y, x) uint8, 0 and 1; `ValueError`, with half a sentence, where it
    cannot. Called on several threads."""


class Collection:
    """The masks that are in an export of another tool, as far as can be told without decoding.

    Parameters
    ----------
    format : str
        The format's name.
    location : str
        Where they are, for messages.
    items : sequence of Item
        The masks.
    files : sequence of pathlib.Path, bytes or callable
        The files that they are in, the first of them the main one, or what gives the bytes of one.
    faults : sequence of str
        What speaks against storing them, all of it.
    lost : sequence of str
        What is there and does not go into a store; it is told as warnings.
    """

    def __init__(
        self,
        format: str,  # noqa: A002 - the report's word
        location: str | Path,
        items: Sequence[Item],
        files: Sequence[Path | bytes | Callable[[], bytes]] = (),
        *,
        faults: Sequence[str] = (),
        lost: Sequence[str] = (),
    ) -> None:
        self.format = format
        self.location = str(location)
        self.items = list(items)
        self.files = list(files)
        self.faults = list(faults)
        self.lost = list(lost)

    def __len__(self) -> int:
        return len(self.items)

    def fingerprint(self) -> dict[str, Any]:
        """Return what identifies the masks: size and SHA-256 of the main file, and of all."""
        every, first, size = hashlib.sha256(), hashlib.sha256(), 0
        # What is read once, from an iterator or by a function, has nothing else to go by.
        for item in self.items:
            every.update(repr((item.record, item.size)).encode("utf-8", "surrogatepass"))
        first_size = 0
        for number, file in enumerate(self.files):
            n_bytes = 0
            for block in _blocks_of(file):
                every.update(block)
                n_bytes += len(block)
                if not number:
                    first.update(block)
            every.update(n_bytes.to_bytes(8, "little"))
            size += n_bytes
            if not number:
                first_size = n_bytes
        name = Path(self.location).name
        return {
            "format": self.format,
            "masks": {"file": name, "size_bytes": size, "sha256": every.hexdigest()},
            "metadata": {
                "file": name,
                "size_bytes": first_size,
                "sha256": first.hexdigest(),
                "order": None,
            },
        }


class KeptMaps:
    """A few decoded maps that many masks share; threads may ask for them.

    Examples
    --------
    >>> maps = KeptMaps()
    >>> maps.get("a.png", lambda: np.zeros((2, 2), np.uint8)).shape
    (2, 2)
    """

    def __init__(self, most: int = _MOST_KEPT) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._turns: dict[Hashable, threading.Lock] = {}
        self._maps: OrderedDict[Hashable, NDArray[Any]] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the map of that key; made, by one thread, if it is not kept."""
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            with self._lock:
                found = self._maps.get(key)
            if found is None:
                found = make()
            with self._lock:
                self._maps[key] = found
                self._maps.move_to_end(key)
                while len(self._maps) > self._most:
                    self._turns.pop(self._maps.popitem(last=False)[0], None)
        return found


def _blocks_of(file: Path | bytes | Callable[[], bytes]) -> Iterator[bytes]:
    """Yield what is in a file; the one with the annotations may be larger than memory."""
    if not isinstance(file, Path):
        yield file if isinstance(file, bytes) else file()
        return
    try:
        with file.open("rb") as opened:
            while block := opened.read(_BLOCK_BYTES):
                yield block
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror or error}") from None
