"""HDF5 filters: which are known, and how to undo them without the HDF5 library.

The library believes what a chunk says of itself: a stream that ends early leaves uninitialised
memory for pixels (gzip, lzf and szip alike), and one that does not end is inflated whole. Here what
a filter gives is bounded before it is undone, and must have exactly the size that it had before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cramjam
import numpy as np

__all__ = ["CHECKED", "COMPRESSORS", "FILTERS", "InflateError", "most_stored_bytes", "undo"]

_GZIP, _SHUFFLE, _FLETCHER32, _LZF = "gzip", "shuffle", "fletcher32", "lzf"

FILTERS = {1: _GZIP, 2: _SHUFFLE, 3: _FLETCHER32, 32000: _LZF}
"""Names of the filters that are read, by HDF5's numbers."""

COMPRESSORS = frozenset({_GZIP, _LZF})
"""Those of them after which the size of a chunk is any."""

CHECKED = frozenset({_GZIP, _FLETCHER32})
"""Those of them that have a checksum of the bytes."""

_SUM_BYTES = 4
_MODULUS = 2**16 - 1
_WORDS = 2**14
"""Words to sum at once: their weighted sum is exact as float64."""

_LITERALS = 32
_LONG_MATCH = 7


class InflateError(ValueError):
    """A chunk does not inflate to the pixels that it must hold."""


def most_stored_bytes(n_bytes: int) -> int:
    """Return how many bytes a chunk of `n_bytes` pixels can take in the file, by far."""
    return n_bytes + n_bytes // 16 + 1024


def undo(data: bytes, applied: Sequence[str], out: np.ndarray[Any, Any]) -> None:
    """Undo the filters of a chunk, the last one first, into `out`, which it must fill exactly.

    Parameters
    ----------
    data : bytes
        The chunk as it lies in the file.
    applied : sequence of str
        Names of the filters that were applied to it, in that order; one compressor at most.
        Shuffling changes nothing on elements of one byte.
    out : numpy.ndarray
        uint8, C-contiguous.

    Raises
    ------
    InflateError
        When it is damaged, or holds too few or too many bytes.
    """
    body: bytes | bytearray | memoryview = data
    for position in reversed(range(len(applied))):
        # fletcher32 adds its sum to what the filters before it gave.
        n_bytes = out.nbytes + _SUM_BYTES * applied[:position].count(_FLETCHER32)
        if applied[position] == _FLETCHER32:
            body = _summed(body)
        elif applied[position] == _GZIP:
            in_place = n_bytes == out.nbytes
            target = out.reshape(-1) if in_place else np.empty(n_bytes, np.uint8)
            _inflate(body, target)
            if in_place:
                return
            body = target.data
        elif applied[position] == _LZF:
            body = _expand(body, n_bytes)
    if len(body) != out.nbytes:
        raise InflateError(f"holds {len(body):,} bytes, not {out.nbytes:,}")
    out[...] = np.frombuffer(body, np.uint8).reshape(out.shape)


def _inflate(
    body: bytes | bytearray | memoryview,
    out: Any,  # noqa: ANN401 - numpy declares itself a buffer from Python 3.12 on
) -> None:
    """Inflate a zlib stream into `out`, which it must fill."""
    try:
        n_bytes = cramjam.zlib.decompress_into(body, out)
    except cramjam.DecompressionError as error:
        raise InflateError(f"does not inflate: {error}") from error
    if n_bytes != out.nbytes:
        raise InflateError(f"inflates to {n_bytes:,} bytes, not {out.nbytes:,}")


def _summed(body: bytes | bytearray | memoryview) -> memoryview:
    """Return bytes without the fletcher32 at their end, after comparing it."""
    view = memoryview(body)
    data, stored = view[:-_SUM_BYTES], view[-_SUM_BYTES:]
    if len(stored) < _SUM_BYTES or fletcher32(data).to_bytes(_SUM_BYTES, "little") != stored:
        raise InflateError("has another fletcher32 checksum")
    return data


def fletcher32(data: bytes | memoryview) -> int:
    """Return the checksum of HDF5's filter, Fletcher's [1]_ of 16-bit words, big-endian.

    An odd byte at the end is the upper one of a word.

    .. [1] https://www.rfc-editor.org/rfc/rfc1146
    """
    whole = len(data) // 2
    words = np.frombuffer(data, ">u2", whole)
    first = second = 0
    for begin in range(0, whole, _WORDS):
        part = words[begin : begin + _WORDS].astype(np.float64)
        n_words = len(part)
        second += n_words * first + int(part @ np.arange(n_words, 0, -1, dtype=np.float64))
        first += int(part.sum())
    if len(data) % 2:
        first += data[-1] << 8
        second += first
    return _folded(second) << 16 | _folded(first)


def _folded(total: int) -> int:
    """Return a sum as one's complement adds it up: 0 only if nothing was added."""
    return (total - 1) % _MODULUS + 1 if total else 0


def _expand(body: bytes | bytearray | memoryview, n_bytes: int) -> bytearray:
    """Expand an lzf stream, which must give exactly `n_bytes`.

    It is runs of literals, one to 32, and copies of what came up to 8 KiB before.
    """
    data = bytes(body)
    out = bytearray()
    place = 0
    try:
        while place < len(data) and len(out) <= n_bytes:
            control = data[place]
            place += 1
            if control < _LITERALS:
                # What a cut run lacks, the size shows in the end.
                out += data[place : place + control + 1]
                place += control + 1
                continue
            length = control >> 5
            if length == _LONG_MATCH:
                length += data[place]
                place += 1
            distance = ((control & 31) << 8) + data[place] + 1
            place += 1
            _repeat(out, distance, length + 2)
    except IndexError:
        raise InflateError("does not expand: it ends within a copy") from None
    if len(out) != n_bytes or place != len(data):
        found = f"more than {n_bytes:,}" if len(out) > n_bytes else f"{len(out):,}"
        raise InflateError(f"expands to {found} bytes, not {n_bytes:,}")
    return out


def _repeat(out: bytearray, distance: int, length: int) -> None:
    """Append `length` bytes that begin `distance` before the end, and may reach into themselves."""
    start = len(out) - distance
    if start < 0:
        raise InflateError("does not expand: it copies from before its beginning")
    if length <= distance:
        out += out[start : start + length]
    else:
        out += (out[start:] * (length // distance + 1))[:length]
