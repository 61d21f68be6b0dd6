"""The coordinates of a store far away, which are also kept in one object, end to end.

Thirteen coordinates are thirteen objects, because that is what any Zarr reader looks for. From
afar a request takes longer than all of them do, so their encoded chunks lie in one object as well,
image, noun and instance first: opening reads its beginning, and what is used next brings the rest.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from contextlib import suppress

from maskcube.errors import AccessDenied, CorruptStore
from maskcube.manifest import Piece
from maskcube.objects import Objects
from maskcube.schema import COORDINATES, PACKED

__all__ = ["HEAD_BYTES", "PackedCoordinates"]

HEAD_BYTES = 2**17
"""What is asked for together with the root, before anybody knows how much is needed. The labels of
all 24,011 masks take 57 kB."""

_MOST_TOGETHER = 2**22
"""Where the other coordinates are larger than that, they are read one by one."""


class PackedCoordinates:
    """The encoded chunks of coordinates, from their one object.

    Parameters
    ----------
    objects : Objects
        Where the store is.
    pieces : mapping of str to Piece
        Size and checksum of each coordinate's chunk.
    head : bytes
        The object's first bytes, as far as they are known.
    """

    def __init__(self, objects: Objects, pieces: Mapping[str, Piece], head: bytes = b"") -> None:
        self._objects = objects
        self._pieces = pieces
        self._places: dict[str, int] = {}
        start = 0
        for name in COORDINATES:
            self._places[name] = start
            start += pieces[name].length
        self._start_lock()
        self._parts = [(0, head)] if head else []

    def _start_lock(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()

    def get(self, name: str, group: tuple[str, ...]) -> bytes | None:
        """Return the chunk of a coordinate; None where it is not there as it was written.

        Parameters
        ----------
        name : str
            The coordinate.
        group : tuple of str
            Coordinates that are used together with it, one after the other in the object.
        """
        if self._process != os.getpid():
            # Who held it stayed with the process that was forked.
            self._start_lock()
        with self._lock:
            found = self._known(name)
            if found is None:
                asked = group if self._length(group) <= _MOST_TOGETHER else (name,)
                start = self._places[asked[0]]
                with suppress(CorruptStore, AccessDenied):
                    data = self._objects.get(PACKED, start, self._length(asked))
                    self._parts.append((start, data or b""))
                found = self._known(name)
        return found

    def _known(self, name: str) -> bytes | None:
        """Return the chunk of a coordinate that was read already, if it is whole."""
        place, piece = self._places[name], self._pieces[name]
        for start, data in self._parts:
            found = data[place - start : place - start + piece.length] if start <= place else b""
            if Piece.of(found) == piece:
                return found
        return None

    def _length(self, names: tuple[str, ...]) -> int:
        return sum(self._pieces[name].length for name in names)

    def __reduce__(self) -> tuple[type[PackedCoordinates], tuple[Objects, Mapping[str, Piece]]]:
        return type(self), (self._objects, self._pieces)
