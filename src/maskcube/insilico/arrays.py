"""The big arrays of a model's store: chunks of plain bytes, each with its checksum.

The codecs are ``bytes, crc32c`` of Zarr 3: weights hardly compress (zstd takes 8 % off), and so a
chunk is in memory as soon as it is read. Any other encoding, of somebody who has rewritten the
store, is read by zarr.
"""

from __future__ import annotations

import math
import sys
from itertools import product
from mmap import mmap
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskcube.codec import checksum
from maskcube.errors import MaskcubeError
from maskcube.folder import Folder
from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.weights import LazyArray
from maskcube.objects import Objects

if TYPE_CHECKING:
    import zarr

__all__ = ["CRC_BYTES", "ChunkedArray", "encode_chunk", "lazy_array"]

CRC_BYTES = 4
"""Of the checksum at the end of a chunk."""

_PLAIN_CODECS = 2
_MOST_CHUNK_BYTES = 2**28
_MAPPED_BYTES = 2**20
"""From here on a chunk is not copied from its file."""


def encode_chunk(values: NDArray[Any], chunk: tuple[int, ...]) -> bytes:
    """Return the bytes of a chunk; at the end of an axis the rest is 0."""
    whole = np.zeros(chunk, values.dtype.newbyteorder("<"))
    whole[tuple(map(slice, values.shape))] = values
    data = whole.tobytes()
    return data + checksum(data).to_bytes(CRC_BYTES, "little")


def lazy_array(objects: Objects, array: zarr.Array[Any]) -> LazyArray:
    """Return an array of a store that is read where it is indexed."""
    chunk_bytes = math.prod(array.chunks) * array.dtype.itemsize
    if _is_plain(array) and chunk_bytes <= _MOST_CHUNK_BYTES:
        return ChunkedArray(objects, array.path, array.shape, array.chunks, array.dtype)
    return _ByZarr(objects.location, array)


class _ByZarr:
    """An array that zarr reads, in whatever encoding."""

    def __init__(self, location: str, array: zarr.Array[Any]) -> None:
        self._location, self._array = location, array
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 - as numpy
        try:
            return np.asarray(self._array[key])
        except MaskcubeError:
            raise
        except Exception as error:  # zarr and its codecs raise whatever they like
            raise CorruptWeights(
                f"{self._location}: {self._array.path} cannot be read: {error}"
            ) from error


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


class _Part(NamedTuple):
    """What is wanted of a chunk, along one axis."""

    number: int
    inside: slice | NDArray[np.intp]
    """Where it is in the chunk."""
    target: slice | NDArray[np.intp]
    """Where it is in what was asked for."""


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
        axes = [
            _rows_cut(each, size, chunk) if not isinstance(each, slice) else _cut(each, size, chunk)
            for each, size, chunk in zip(given, self.shape, self.chunks, strict=True)
        ]
        pieces = list(product(*(pieces for pieces, _ in axes)))
        if len(pieces) == 1:
            # A part of the one chunk is no copy.
            return self._piece(pieces[0])
        found = np.empty([length for _, length in axes], self.dtype)
        for piece in pieces:
            found[tuple(part.target for part in piece)] = self._piece(piece)
        return found

    def _piece(self, piece: tuple[_Part, ...]) -> NDArray[Any]:
        part: NDArray[Any] = self._chunk(tuple(part.number for part in piece))[
            tuple(part.inside for part in piece)
        ]
        return part

    def _chunk(self, place: tuple[int, ...]) -> NDArray[Any]:
        key = "/".join([self.path, "c", *map(str, place)])
        n_bytes = math.prod(self.chunks) * self.dtype.itemsize
        if isinstance(self.objects, Folder) and n_bytes >= _MAPPED_BYTES:
            data: mmap | bytes | None = self.objects.map(key)
        else:
            data = self.objects.get(key, 0, n_bytes + CRC_BYTES + 1)
        if data is None:
            raise CorruptWeights(f"{self.objects.location}: {key} is missing")
        if len(data) != n_bytes + CRC_BYTES:
            raise CorruptWeights(
                f"{self.objects.location}: {key} does not have {n_bytes + CRC_BYTES:,} bytes"
            )
        values = np.frombuffer(data, np.uint8, n_bytes)
        if checksum(values).to_bytes(CRC_BYTES, "little") != data[n_bytes:]:
            raise CorruptWeights(f"{self.objects.location}: {key} is damaged: its crc32c differs")
        return values.view(self.dtype).reshape(self.chunks)


def _cut(wanted: slice, size: int, chunk: int) -> tuple[list[_Part], int]:
    """Return the parts of a slice, chunk by chunk, and its length."""
    start, stop, step = wanted.indices(size)
    if step != 1:
        raise IndexError(f"{wanted} has a step, and chunks are read without one")
    parts = []
    for number in range(start // chunk, -(-stop // chunk)):
        first, last = max(start, number * chunk), min(stop, (number + 1) * chunk)
        inside = slice(first - number * chunk, last - number * chunk)
        parts.append(_Part(number, inside, slice(first - start, last - start)))
    return parts, max(0, stop - start)


def _rows_cut(wanted: ArrayLike, size: int, chunk: int) -> tuple[list[_Part], int]:
    """Return the parts of rows, chunk by chunk, and how many rows they are."""
    rows = np.asarray(wanted, np.intp)
    if len(rows) and not (rows.min() >= 0 and rows.max() < size):
        raise IndexError(f"rows go from {rows.min()} to {rows.max()}, and there are {size}")
    numbers = rows // chunk
    places = [(int(number), np.flatnonzero(numbers == number)) for number in np.unique(numbers)]
    return [_Part(number, rows[at] - number * chunk, at) for number, at in places], len(rows)
