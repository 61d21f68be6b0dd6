"""Plain zarr under guard: it reads arrays that somebody else has written, and trusts no sizes.

zarr's codecs allocate and inflate whatever a chunk says of itself: 98 kB become 3 GiB before anyone
compares them with the chunk's shape. Here the shape is bounded first, only codecs that are known
are let through, and each may give as many bytes as the shape says.

Importing this module imports zarr.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import math
from collections.abc import Mapping
from typing import Any, Protocol, Self

import cramjam
import numpy as np
import zarr
from zarr.abc.codec import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec
from zarr.abc.store import ByteRequest, Store
from zarr.codecs import (
    BloscCodec,
    BytesCodec,
    Crc32cCodec,
    GzipCodec,
    ShardingCodec,
    TransposeCodec,
    VLenUTF8Codec,
    ZstdCodec,
)
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, BufferPrototype, NDBuffer
from zarr.core.metadata.v3 import ArrayV3Metadata
from zarr.storage import LocalStore, StorePath, WrapperStore

from maskcube.codec import MOST_TEXT_BYTES, DamagedBytes, frame_content_bytes

__all__ = ["guarded_array", "guarded_folder"]

_MOST_CHUNK_BYTES = 2**28
_MOST_CHUNK_TEXTS = 2**21
_MOST_CHUNKS = 2**20
"""In a shard: its index is read whole."""

_TEXT = "string"

Codec = ArrayArrayCodec | ArrayBytesCodec | BytesBytesCodec


class _Readable(Protocol):
    """What `guarded_folder` takes: a folder of objects."""

    location: str

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None: ...


class _GuardedFolder(WrapperStore[LocalStore]):
    """Files of a folder, after the folder has looked that they are files and lie in it."""

    def __init__(self, folder: _Readable) -> None:
        super().__init__(LocalStore(folder.location, read_only=True))
        self._folder = folder

    def _with_store(self, store: LocalStore) -> Self:  # noqa: ARG002 - it is always read-only
        return type(self)(self._folder)

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        if self._folder.get(key, 0, 0) is None:
            return None
        return await super().get(key, prototype, byte_range)

    def get_sync(self, key: str, *args: Any, **options: Any) -> Buffer | None:
        """As `get`; newer versions of zarr ask so."""
        if self._folder.get(key, 0, 0) is None:
            return None
        parent: Any = super()
        found: Buffer | None = parent.get_sync(key, *args, **options)
        return found


def guarded_folder(folder: _Readable) -> Store:
    """Return a folder as a zarr store that reads no pipe and nothing outside of the folder."""
    return _GuardedFolder(folder)


class _GuardedZstd(ZstdCodec):
    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        data, most = chunk_bytes.to_bytes(), _most_bytes(chunk_spec)
        size = frame_content_bytes(data)
        if size is not None:
            _check_size(size, most)
            return super()._decode_sync(chunk_bytes, chunk_spec)
        # Other writers leave the size out.
        out = np.empty(most, np.uint8)
        size = cramjam.zstd.decompress_into(data, out.data)
        return chunk_spec.prototype.buffer.from_bytes(out[:size].tobytes())


class _GuardedGzip(GzipCodec):
    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        most = _most_bytes(chunk_spec)
        with gzip.GzipFile(fileobj=io.BytesIO(chunk_bytes.to_bytes())) as file:
            data = file.read(most + 1)
        _check_size(len(data), most)
        return chunk_spec.prototype.buffer.from_bytes(data)


class _GuardedBlosc(BloscCodec):
    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> Buffer:
        data = chunk_bytes.to_bytes()
        # The header says how much to read and to write, and the decoder believes it.
        n_bytes, _, n_encoded = (int(size) for size in np.frombuffer(data[4:16].ljust(12), "<u4"))
        if n_encoded != len(data):
            raise DamagedBytes(f"says that it is {n_encoded:,} bytes, and is {len(data):,}")
        _check_size(n_bytes, _most_bytes(chunk_spec))
        return super()._decode_sync(chunk_bytes, chunk_spec)


class _GuardedTexts(VLenUTF8Codec):
    def _decode_sync(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        # The decoder allocates as many texts as the first four bytes say.
        found = int.from_bytes(chunk_bytes.to_bytes()[:4], "little")
        if found != math.prod(chunk_spec.shape):
            raise DamagedBytes(f"holds {found:,} texts in a chunk of {chunk_spec.shape}")
        return super()._decode_sync(chunk_bytes, chunk_spec)


# zarr knows the codec of texts by the name of its class.
_GuardedTexts.__name__ = VLenUTF8Codec.__name__


_GUARDED: dict[type, type[Any]] = {
    ZstdCodec: _GuardedZstd,
    GzipCodec: _GuardedGzip,
    BloscCodec: _GuardedBlosc,
    VLenUTF8Codec: _GuardedTexts,
}


def _most_bytes(chunk_spec: ArraySpec) -> int:
    """Return the most bytes that a chunk of this shape may be, encoded somehow or not."""
    dtype: np.dtype[Any] = chunk_spec.dtype.to_native_dtype()
    if dtype.kind in "OT":
        return MOST_TEXT_BYTES
    size = math.prod(chunk_spec.shape) * dtype.itemsize
    # What a compressor cannot make smaller it makes a little larger.
    return size + size // 64 + 2**12


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise DamagedBytes(f"decodes to {size:,} bytes or more, at most {most:,} are expected")


def guarded_array(store: Store, name: str, metadata: Mapping[str, Any]) -> zarr.Array[Any]:
    """Return an array as plain zarr reads it, of which no chunk can be larger than it should be.

    Reads nothing: `metadata` is what leads, whatever else is written beside the array.

    Raises
    ------
    Exception
        Whatever zarr raises for metadata that it cannot use; ValueError for chunks out of bounds
        and for unknown codecs.
    """
    grid = metadata["chunk_grid"]
    if grid["name"] != "regular":
        raise ValueError(f"chunk grid {grid['name']!r}")
    parsed = ArrayV3Metadata.from_dict(dict(metadata))
    shape = tuple(grid["configuration"]["chunk_shape"])
    is_text = metadata["data_type"] == _TEXT
    itemsize = 1 if is_text else np.dtype(metadata["data_type"]).itemsize
    most = _MOST_CHUNK_TEXTS if is_text else _MOST_CHUNK_BYTES // itemsize
    codecs = _guarded(parsed.codecs, shape, most)
    guarded = dataclasses.replace(parsed, codecs=codecs)
    return zarr.Array(zarr.AsyncArray(guarded, StorePath(store, name)))


def _guarded(codecs: tuple[Codec, ...], shape: tuple[int, ...], most: int) -> tuple[Codec, ...]:
    """Return the codecs of chunks of this shape, each under guard."""
    first = codecs[0]
    if len(codecs) == 1 and type(first) is ShardingCodec:
        inner = first.chunk_shape
        if min(inner) < 1 or math.prod(shape) // math.prod(inner) > _MOST_CHUNKS:
            raise ValueError(f"chunks of {inner} in shards of {shape} are out of bounds")
        _guarded(first.index_codecs, (), most)
        return (dataclasses.replace(first, codecs=_guarded(first.codecs, inner, most)),)
    if not 0 < math.prod(shape) <= most:
        raise ValueError(f"chunks of {shape} are out of bounds")
    return tuple(_one_guarded(codec) for codec in codecs)


def _one_guarded(codec: Codec) -> Any:  # noqa: ANN401 - a subclass of the codec's own class
    if type(codec) in {BytesCodec, Crc32cCodec, TransposeCodec}:
        return codec
    guarded = _GUARDED.get(type(codec))
    if guarded is not None:
        found = object.__new__(guarded)
        found.__dict__.update(codec.__dict__)
        return found
    raise ValueError(f"codec {codec.to_dict().get('name')!r} is not among those that are known")
