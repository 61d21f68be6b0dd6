"""The big arrays of a model's store: chunks of plain bytes, each with its checksum.

The codecs are ``bytes, crc32c`` of Zarr 3: weights hardly compress (zstd takes 8 % off), and so a
chunk is in memory as soon as it is read. Any other encoding, of somebody who has rewritten the
store, is read by zarr.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskcube.codec import checksum
from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.weights import LazyArray
from maskcube.objects import Objects

if TYPE_CHECKING:
    import zarr

__all__ = ["ChunkedArray", "encode_chunk", "lazy_array"]

_CRC_BYTES = 4
_PLAIN_CODECS = 2
_MOST_CHUNK_BYTES = 2**28


def encode_chunk(values: NDArray[Any], chunk: tuple[int, ...]) -> bytes:
    """Return the bytes of a chunk; at the end of an axis the rest is 0."""
    whole = np.zeros(chunk, values.dtype.newbyteorder("<"))
    whole[tuple(map(slice, values.shape))] = values
    data = whole.tobytes()
    return data + checksum(data).to_bytes(_CRC_BYTES, "little")


def lazy_array(objects: Objects, array: zarr.Array[Any]) -> LazyArray:
    """Return an array of a store that is read where it is indexed."""
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    if _is_plain(array) and chunk_bytes <= _MOST_CHUNK_BYTES:
        return ChunkedArray(objects, array.path, array.shape, array.chunks, array.dtype)
    return array


def _is_plain(array: zarr.Array[Any]) -> bool:
    """Whether the chunks of an array are its values as they are in memory, and their checksum."""
    from zarr.codecs import BytesCodec, Crc32cCodec
    from zarr.core.metadata.v3 import ArrayV3Metadata

    metadata = array.metadata
    if not isinstance(metadata, ArrayV3Metadata) or len(metadata.codecs) != _PLAIN_CODECS:
        return False
    first, second = metadata.codecs
    is_little = isinstance(first, BytesCodec) and str(first.endian).endswith("little")
    return is_little and sys.byteorder == "little" and isinstance(second, Crc32cCodec)


class ChunkedArray:
    """An array in chunks of plain bytes; reads only the chunks that hold what is asked for.

    Parameters
    ----------
    objects : Objects
        Where it is.
    path : str
        Its path in the store.
    shape, chunks : tuple of int
        Shape of the array, and of a chunk.
    dtype : numpy.dtype
        Type of the values.
    """

    def __init__(
        self,
        objects: Objects,
        path: str,
        shape: tuple[int, ...],
        chunks: tuple[int, ...],
        dtype: np.dtype[Any],
    ) -> None:
        self.objects = objects
        self.path = path
        self.shape = shape
        self.chunks = chunks
        self.dtype = dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 - as numpy
        """Return slices without a step, or rows by their numbers, as an array in memory."""
        given = key if isinstance(key, tuple) else (key,)
        given += (slice(None),) * (len(self.shape) - len(given))
        wanted = [_positions(each, size) for each, size in zip(given, self.shape, strict=True)]
        grids = [
            np.unique(at // chunk).tolist() for at, chunk in zip(wanted, self.chunks, strict=True)
        ]
        if all(len(grid) == 1 for grid in grids):
            place = tuple(grid[0] for grid in grids)
            return self._part(place, wanted)
        found = np.empty([len(at) for at in wanted], self.dtype)
        for place in product(*grids):
            inside = [
                np.flatnonzero(at // chunk == number)
                for at, chunk, number in zip(wanted, self.chunks, place, strict=True)
            ]
            part = [at[rows] for at, rows in zip(wanted, inside, strict=True)]
            found[np.ix_(*inside)] = self._part(place, part)
        return found

    def _part(self, place: tuple[int, ...], wanted: list[NDArray[np.intp]]) -> NDArray[Any]:
        local = [at - chunk * n for at, chunk, n in zip(wanted, self.chunks, place, strict=True)]
        whole = self._chunk(place)
        spans = tuple(_span(at) for at in local)
        # Slices of what was just read are no copy.
        return whole[spans] if None not in spans else whole[np.ix_(*local)]

    def _chunk(self, place: tuple[int, ...]) -> NDArray[Any]:
        key = "/".join([self.path, "c", *map(str, place)])
        n_bytes = math.prod(self.chunks) * self.dtype.itemsize
        data = self.objects.get(key, 0, n_bytes + _CRC_BYTES + 1)
        if data is None:
            raise CorruptWeights(f"{self.objects.location}: {key} is missing")
        if len(data) != n_bytes + _CRC_BYTES:
            raise CorruptWeights(
                f"{self.objects.location}: {key} does not have {n_bytes + _CRC_BYTES:,} bytes"
            )
        values = np.frombuffer(data, np.uint8, n_bytes)
        if checksum(values).to_bytes(_CRC_BYTES, "little") != data[n_bytes:]:
            raise CorruptWeights(f"{self.objects.location}: {key} is damaged: its crc32c differs")
        return values.view(self.dtype).reshape(self.chunks)

    def keys(self) -> Iterator[str]:
        """Yield the key of every chunk."""
        counts = [-(-size // chunk) for size, chunk in zip(self.shape, self.chunks, strict=True)]
        for place in product(*map(range, counts)):
            yield "/".join([self.path, "c", *map(str, place)])


def _positions(key: Any, size: int) -> NDArray[np.intp]:  # noqa: ANN401 - as numpy
    """Return what a slice or a list of rows asks for as numbers."""
    return np.arange(size)[key if isinstance(key, slice) else np.asarray(key, np.intp)]


def _span(at: NDArray[np.intp]) -> slice | None:
    """Return consecutive numbers as a slice."""
    if not len(at):
        return slice(0, 0)
    is_run = bool(at[-1] - at[0] + 1 == len(at) and (np.diff(at) == 1).all())
    return slice(int(at[0]), int(at[-1]) + 1) if is_run else None
