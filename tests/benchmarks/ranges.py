"""Byte ranges of the masks in a store: the floor reads these and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
from numcodecs.zstd import Zstd

__all__ = ["Ranges", "decode"]

_CRC_BYTES = 4
_zstd = Zstd()

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


class Ranges:
    """Where each mask of a store lies, from the indexes of its shards.

    Parameters
    ----------
    store : pathlib.Path
        A store on disk.
    """

    def __init__(self, store: Path) -> None:
        described = json.loads((store / "masks" / "zarr.json").read_text())
        self.n_masks, self.height, self.width = described["shape"]
        self.shard_masks = described["chunk_grid"]["configuration"]["chunk_shape"][0]
        n_shards = -(-self.n_masks // self.shard_masks)
        self.paths = [store / "masks" / "c" / str(shard) / "0" / "0" for shard in range(n_shards)]
        self._files = [os.open(path, os.O_RDONLY) for path in self.paths]
        self._entries = [self._index(file) for file in self._files]

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)

    def mask(self, row: int) -> Pixels:
        """Return one mask, (y, x) uint8, a new array each time."""
        return self.read(row, np.empty((self.height, self.width), np.uint8))

    def read(self, row: int, out: Pixels) -> Pixels:
        """Read one mask into `out`, (y, x) uint8."""
        shard, slot = divmod(row, self.shard_masks)
        offset, length = self._entries[shard][slot]
        return decode(os.pread(self._files[shard], length, offset), out)

    def chunks(self, shard: int) -> Iterator[memoryview]:
        """Read a whole shard and yield the bytes of each of its masks."""
        data = memoryview(self.paths[shard].read_bytes())
        rows = min(self.shard_masks, self.n_masks - shard * self.shard_masks)
        for offset, length in self._entries[shard][:rows]:
            yield data[offset : offset + length]

    def _index(self, file: int) -> list[tuple[int, int]]:
        size = self.shard_masks * 16
        data = os.pread(file, size, os.fstat(file).st_size - size - _CRC_BYTES)
        return [(int(pair[0]), int(pair[1])) for pair in np.frombuffer(data, "<u8").reshape(-1, 2)]


def decode(data: bytes | memoryview, out: Pixels) -> Pixels:
    """Check a mask's bytes and decode them into `out`."""
    body, stored = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if google_crc32c.value(bytes(body)) != int.from_bytes(stored, "little"):
        raise ValueError("a mask's crc32c differs")
    _zstd.decode(body, out)
    return out
