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
from itertools import accumulate

from maskcube.errors import AccessDenied, CorruptStore
from maskcube.manifest import Piece
from maskcube.objects import Objects
from maskcube.schema import COORDINATES, INDEXED, PACKED

__all__ = ["HEAD_BYTES", "PackedCoordinates"]

HEAD_BYTES = 2**17
"""What is asked for together with the root, before anybody knows how much is needed. The labels of
all 24,011 masks take 57 kB."""

_MOST_TOGETHER = 2**22
"""Where the other coordinates are larger than that, they are read one by one."""


_MOST_BYTES = 2**28
"""No larger one is read at all."""

_GROUPS = (INDEXED, tuple(name for name in COORDINATES if name not in INDEXED))
"""Coordinates that are used together, one after the other in the object."""


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
        ends = accumulate(pieces[name].length for name in COORDINATES)
        self._places = dict(zip(COORDINATES, [0, *ends], strict=False))
        self._chunks: dict[str, bytes] = {}
        self._start_lock()
        self._take(0, head)

    def _start_lock(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()

    def get(self, name: str) -> bytes | None:
        """Return the chunk of a coordinate; None where it is not there as it was written."""
        if self._process != os.getpid():
            # Who held it stayed with the process that was forked.
            self._start_lock()
        with self._lock:
            if name not in self._chunks:
                self._fetch(name)
            return self._chunks.get(name)

    def _fetch(self, name: str) -> None:
        """Read a coordinate and, unless that is much, those that are used with it."""
        (asked,) = (group for group in _GROUPS if name in group)
        if self._length(asked) > _MOST_TOGETHER:
            asked = (name,)
        if self._length(asked) <= _MOST_BYTES:
            start = self._places[asked[0]]
            with suppress(CorruptStore, AccessDenied):
                self._take(start, self._objects.get(PACKED, start, self._length(asked)) or b"")

    def _take(self, start: int, data: bytes) -> None:
        """Keep the chunks that are whole in a part of the object."""
        for name, place in self._places.items():
            piece = self._pieces[name]
            if start <= place and place + piece.length <= start + len(data):
                chunk = data[place - start : place - start + piece.length]
                if Piece.of(chunk) == piece:
                    self._chunks[name] = chunk

    def _length(self, names: tuple[str, ...]) -> int:
        return sum(self._pieces[name].length for name in names)

    def __reduce__(self) -> tuple[type[PackedCoordinates], tuple[Objects, Mapping[str, Piece]]]:
        return type(self), (self._objects, self._pieces)
