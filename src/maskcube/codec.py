"""Pixels to bytes and back: the codecs of one mask, the shard around them, and those of runs.

A mask is the Zarr 3 codec chain ``bytes, zstd (level 3), crc32c``. A shard is the chunks end to
end, then an index of one (offset, length) for each slot, then the index's own crc32c: the layout of
the Zarr 3 ``sharding_indexed`` codec with the index at the end [1]_. zstd frames are RFC 8878 [2]_.
The steps of runs are ``bytes, blosc (zstd level 5, bytes shuffled), crc32c`` [3]_.

References
----------
.. [1] https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
.. [2] https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1.1
.. [3] https://zarr-specs.readthedocs.io/en/latest/v3/codecs/blosc/index.html
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import google_crc32c
import numpy as np
from numcodecs.blosc import SHUFFLE, Blosc
from numcodecs.zstd import Zstd

__all__ = [
    "MOST_TEXT_BYTES",
    "STEPS_LEVEL",
    "ZSTD_LEVEL",
    "EncodedSteps",
    "Steps",
    "checksum",
    "decode_chunk",
    "decode_steps",
    "decode_text_bytes",
    "encode_mask",
    "encode_steps",
    "frame_content_bytes",
    "index_bytes",
    "pack_shard",
    "unpack_index",
]

ZSTD_LEVEL = 3
STEPS_LEVEL = 5
MOST_TEXT_BYTES = 2**28
"""As large as the CSV may be that the texts are from."""

_CRC_BYTES = 4
_ENTRY_BYTES = 16
_ABSENT = 2**64 - 1

_zstd = Zstd(level=ZSTD_LEVEL)
_blosc = Blosc("zstd", clevel=STEPS_LEVEL, shuffle=SHUFFLE, typesize=4)


class DamagedBytes(ValueError):
    """Bytes that are not what the codecs wrote; callers say where they came from."""


def checksum(data: bytes | np.ndarray[Any, Any]) -> int:
    """CRC-32C of bytes, or of a C-contiguous array's memory."""
    return int(google_crc32c.value(data))


def encode_mask(mask: np.ndarray[Any, Any]) -> bytes:
    """Encode one mask, (y, x) uint8 and C-contiguous, to the bytes of its inner chunk."""
    data: bytes = _zstd.encode(mask)
    return data + checksum(data).to_bytes(_CRC_BYTES, "little")


def decode_chunk(data: bytes, out: np.ndarray[Any, Any]) -> None:
    """Decode an inner chunk, or any ``zstd, crc32c`` piece, into `out` (uint8, C-contiguous).

    Raises
    ------
    DamagedBytes
        When the checksum differs, or the bytes do not decode to exactly the size of `out`.
    """
    frame = checked(data)
    # The decoder fills what it has and leaves the rest of `out` as it was: ask before, not after.
    size = frame_content_bytes(frame)
    if size != out.nbytes:
        raise DamagedBytes(f"decodes to {size} bytes, expected {out.nbytes:,}")
    try:
        _zstd.decode(frame, out)
    except (RuntimeError, ValueError) as error:
        raise DamagedBytes(str(error)) from error


def decode_text_bytes(data: bytes, slack: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Decode a ``vlen-utf8, zstd, crc32c`` piece to lengths and UTF-8.

    Parameters
    ----------
    data : bytes
        The piece.
    slack : int
        Bytes of no meaning to have after the decoded ones.

    Returns
    -------
    numpy.ndarray
        (n_bytes + slack,) uint8.

    Raises
    ------
    DamagedBytes
        When the checksum differs, or the piece is larger than texts can be.
    """
    size = frame_content_bytes(checked(data))
    if size is None or size > MOST_TEXT_BYTES:
        raise DamagedBytes(f"decodes to {size} bytes of text, at most {MOST_TEXT_BYTES:,}")
    raw = np.empty(size + slack, np.uint8)
    decode_chunk(data, raw[:size])
    return raw


def checked(data: bytes) -> bytes:
    """Return a piece without the crc32c at its end, after comparing it.

    Raises
    ------
    DamagedBytes
        When the checksum differs.
    """
    body, stored = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if len(stored) < _CRC_BYTES or checksum(body).to_bytes(_CRC_BYTES, "little") != stored:
        raise DamagedBytes("its crc32c differs")
    return body


def frame_content_bytes(frame: bytes) -> int | None:
    """Return the decoded size that a zstd frame declares; None when it declares none."""
    if len(frame) < 6 or frame[:4] != b"\x28\xb5\x2f\xfd":  # noqa: PLR2004 - the smallest header
        return None
    descriptor = frame[4]
    single_segment = descriptor >> 5 & 1
    width = (single_segment, 2, 4, 8)[descriptor >> 6]
    start = 5 + (not single_segment) + (0, 1, 2, 4)[descriptor & 3]
    field = frame[start : start + width]
    if not width or len(field) < width:
        return None
    return int.from_bytes(field, "little") + (256 if width == 2 else 0)  # noqa: PLR2004 - RFC 8878


class Steps(Protocol):
    """Steps of runs, end to end, of some masks."""

    @property
    def n_steps(self) -> int:
        """How many there are."""

    def encoded(self) -> bytes:
        """Return them as `encode_steps` gives them."""

    def decoded(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return them, (n_steps,) int32."""


class EncodedSteps(NamedTuple):
    """`Steps` that are held encoded."""

    n_steps: int
    data: bytes

    @classmethod
    def of(cls, steps: np.ndarray[Any, np.dtype[Any]]) -> EncodedSteps:
        """Encode steps of runs, (n,) integer."""
        return cls(len(steps), encode_steps(steps.astype(np.int32, copy=False)))

    def encoded(self) -> bytes:
        """Return the bytes of a chunk of all these steps."""
        return self.data

    def decoded(self) -> np.ndarray[Any, np.dtype[np.int32]]:
        """Return the steps, (n,) int32; raises as `decode_steps` does."""
        steps = np.empty(self.n_steps, np.int32)
        decode_steps(self.data, steps)
        return steps


def encode_steps(steps: np.ndarray[Any, np.dtype[np.int32]]) -> bytes:
    """Encode steps of runs, (n,) int32, to the bytes of a chunk."""
    # On the main thread c-blosc would use several of its own, and put blocks in the order in which
    # these finish: the same steps would not always be the same bytes.
    with ThreadPoolExecutor(1) as pool:
        data: bytes = pool.submit(_blosc.encode, np.ascontiguousarray(steps, "<i4")).result()
    return data + checksum(data).to_bytes(_CRC_BYTES, "little")


def decode_steps(data: bytes, out: np.ndarray[Any, np.dtype[np.int32]]) -> None:
    """Decode a chunk of steps into `out`, (n,) int32 and C-contiguous.

    Raises
    ------
    DamagedBytes
        When the checksum differs, or the bytes do not decode to exactly the size of `out`.
    """
    frame = checked(data)
    # The header says how much to read and to write, and the decoder believes it.
    n_bytes, _, n_encoded = (int(size) for size in np.frombuffer(frame[4:16].ljust(12), "<u4"))
    if n_encoded != len(frame) or n_bytes != out.nbytes:
        raise DamagedBytes(f"decodes to {n_bytes:,} bytes, expected {out.nbytes:,}")
    if not n_bytes:
        return
    try:
        _blosc.decode(frame, out)
    except (RuntimeError, ValueError) as error:
        raise DamagedBytes(str(error)) from error


def index_bytes(slots: int) -> int:
    """Size of a shard's index in bytes, its checksum included."""
    return slots * _ENTRY_BYTES + _CRC_BYTES


def pack_shard(chunks: Sequence[bytes], slots: int) -> bytes:
    """Assemble a shard of `slots` slots; those after the last chunk are marked absent."""
    index = np.full((slots, 2), _ABSENT, dtype="<u8")
    lengths = [len(chunk) for chunk in chunks]
    index[: len(chunks), 0] = np.cumsum([0, *lengths[:-1]])
    index[: len(chunks), 1] = lengths
    entries = index.tobytes()
    return b"".join([*chunks, entries, checksum(entries).to_bytes(_CRC_BYTES, "little")])


def unpack_index(data: bytes, n_chunks: int, body_bytes: int) -> list[tuple[int, int]]:
    """Return where the chunks of a shard lie.

    Parameters
    ----------
    data : bytes
        The index with its checksum.
    n_chunks : int
        Chunks that the shard must hold.
    body_bytes : int
        Bytes of the shard before the index: no chunk may reach beyond.

    Returns
    -------
    list of (int, int)
        Offset and length of each of the n_chunks chunks in bytes.

    Raises
    ------
    DamagedBytes
        When the checksum differs, a chunk is marked absent, one reaches beyond the shard, or two
        overlap.
    """
    entries = np.frombuffer(checked(data), dtype="<u8").reshape(-1, 2)[:n_chunks]
    offsets, lengths = entries[:, 0], entries[:, 1]
    if len(entries) < n_chunks or (entries == _ABSENT).any():
        raise DamagedBytes("its index says that a mask is absent")
    if (offsets > body_bytes).any() or (lengths > body_bytes - offsets).any():
        raise DamagedBytes("its index points outside of the shard")
    # Whoever wrote a shard has put its chunks side by side: no byte is of two of them.
    if (np.sort(offsets)[1:] < np.sort(offsets + lengths)[:-1]).any():
        raise DamagedBytes("its index has masks that overlap")
    return list(zip(offsets.tolist(), lengths.tolist(), strict=True))
