"""A shard as it is stored: its index, and the bytes of its masks; no I/O."""

from __future__ import annotations

from maskcube.codec import DamagedBytes, index_bytes, unpack_index
from maskcube.layout import Layout

__all__ = ["EncodedShard", "merged_ranges"]

_GAP_BYTES = 64 * 2**10
"""Ranges nearer than this are fetched as one: reading over the gap is cheaper than asking twice."""


class EncodedShard:
    """A shard's index, and those of its bytes that were fetched.

    Parameters
    ----------
    index : list of (int, int)
        Offset and length of each encoded mask in bytes.
    """

    def __init__(self, index: list[tuple[int, int]]) -> None:
        self.index = index
        self._ranges: list[tuple[int, bytes]] = []

    @classmethod
    def whole(cls, data: bytes, layout: Layout, shard: int) -> EncodedShard:
        """Return a shard of which all bytes are there.

        Raises
        ------
        DamagedBytes
            When its index is damaged, or says that a mask is absent.
        """
        body = len(data) - index_bytes(layout.shard_masks)
        if body < 0:
            raise DamagedBytes("it is too short for an index")
        found = cls(unpack_index(data[body:], len(layout.shard_rows(shard)), body))
        found.add(0, data)
        return found

    def add(self, start: int, data: bytes) -> None:
        """Take bytes that begin at `start`."""
        self._ranges.append((start, data))

    def chunk(self, slot: int) -> bytes:
        """Return the encoded mask at a place in the shard, which must have been fetched."""
        offset, length = self.index[slot]
        start, data = next(
            (start, data)
            for start, data in self._ranges
            if start <= offset and offset + length <= start + len(data)
        )
        return data[offset - start : offset - start + length]


def merged_ranges(entries: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the ranges to fetch for some entries, ascending offsets and lengths."""
    ranges: list[tuple[int, int]] = []
    for offset, length in entries:
        if ranges and offset - ranges[-1][1] <= _GAP_BYTES:
            ranges[-1] = ranges[-1][0], max(ranges[-1][1], offset + length)
        else:
            ranges.append((offset, offset + length))
    return ranges
