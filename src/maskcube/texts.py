"""Texts as a store keeps them: lengths and UTF-8 one after the other, read without an object each.

The codec ``vlen-utf8`` of Zarr puts the length of each text before it, four bytes little-endian, so
that where a text begins is known only after all those before it. Short texts without NUL give
themselves away all the same: the only zero bytes are the upper three of each length. They are found
at once, and then it is proved that each text ends where the next one begins. Any others are left to
numcodecs, one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.codec import DamagedBytes, decode_text_bytes
from maskcube.codes import Codes, numbered

__all__ = ["Texts"]

_LENGTH_BYTES = 4
_WORD_BYTES = 8
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(29)
"""Odd factor and shift of a multiplicative hash; two texts with one hash cost time only."""

_WIDEST = 256
"""Bytes of the longest text whose length has three zero bytes, in whole words."""

_BLOCK = 4096
_BLOCK_BYTES = 2**16
"""Texts and bytes to look at together: memory of this size is used again, more is asked of the
system anew each time, which takes longer than looking."""


class Texts:
    """The texts of a ``vlen-utf8`` chunk.

    Parameters
    ----------
    data : bytes
        A ``vlen-utf8, zstd, crc32c`` piece.
    n_texts : int
        How many there must be.

    Raises
    ------
    DamagedBytes
        When the checksum differs, or the piece says that it has more or fewer texts. That the bytes
        are texts is checked by what reads them.

    Examples
    --------
    >>> from maskcube.store import MaskStore
    >>> nouns = MaskStore.open("masks.zarr").texts("noun")
    >>> nouns[1], len(nouns)
    ('fingers', 306)
    >>> labels, codes = nouns.factorized()
    >>> labels[codes[1]]
    'fingers'
    """

    def __init__(self, data: bytes, n_texts: int) -> None:
        # A window as wide as the longest text may begin at the last one.
        self._padded = decode_text_bytes(data, slack=_WIDEST)
        self._raw = self._padded[:-_WIDEST]
        self._n_texts = n_texts
        # The decoder allocates as many texts as the first four bytes say.
        found = int.from_bytes(self._raw[:_LENGTH_BYTES].tobytes(), "little")
        if found != n_texts:
            raise DamagedBytes(f"holds {found:,} texts, expected {n_texts:,}")

    def __len__(self) -> int:
        return self._n_texts

    def __getitem__(self, row: int) -> str:
        place = self._located()
        if place is None:
            return str(self._objects()[row])
        start, size = (int(values[row]) for values in place)
        return _decoded(self._raw[start : start + size].tobytes())

    def array(self) -> NDArray[Any]:
        """Return the texts, (n_texts,) StringDType.

        Raises
        ------
        DamagedBytes
            When the bytes are not that many texts.
        """
        return np.asarray(self._objects(), dtype=np.dtypes.StringDType())

    def factorized(self) -> tuple[list[str], Codes]:
        """Return the distinct texts, sorted, and where among them each text is.

        Raises
        ------
        DamagedBytes
            When the bytes are not that many texts.
        """
        place = self._located()
        if place is None:
            return numbered([str(text) for text in self._objects()])
        heads, counts = zip(*map(_runs, self._words(*place)), strict=True)
        labels, codes = _factorized(np.concatenate(heads))
        return [_decoded(label) for label in labels], np.repeat(codes, np.concatenate(counts))

    def _located(self) -> tuple[NDArray[np.int32], NDArray[np.uint8]] | None:
        """Return where each text begins and its size in bytes; None if they are not that plain."""
        zeros = _zeros(self._raw, 3 * self._n_texts)
        if not self._n_texts or len(zeros) != 3 * self._n_texts:
            return None
        first, second, third = zeros.reshape(-1, 3).T
        sizes = self._raw[first - 1]
        starts = first + 3
        ends = starts + sizes
        follows = (
            first[0] == _LENGTH_BYTES + 1
            and np.array_equal(second - first, third - second)
            and bool((third - first == 2).all())  # noqa: PLR2004 - side by side
            and np.array_equal(ends[:-1] + 1, first[1:])
            and ends[-1] == len(self._raw)
        )
        return (starts, sizes) if follows else None

    def _words(
        self, starts: NDArray[np.int32], sizes: NDArray[np.uint8]
    ) -> Iterator[NDArray[np.uint64]]:
        """Yield some texts at a time as words of eight bytes, (n, n_words), filled up with 0."""
        width = -(-int(sizes.max()) // _WORD_BYTES) * _WORD_BYTES
        # An element for every byte, each reaching over the ones after it: one take gets them all.
        windows: NDArray[Any] = np.ndarray(len(self._raw), f"V{width}", self._padded, strides=(1,))
        is_text = np.arange(width) < np.arange(width + 1)[:, None]
        keep = np.where(is_text, np.uint8(255), np.uint8(0)).view(np.uint64)
        for begin in range(0, len(starts), _BLOCK):
            block = slice(begin, begin + _BLOCK)
            words = windows[starts[block]].view(np.uint64).reshape(-1, width // _WORD_BYTES)
            words &= keep[sizes[block]]
            yield words

    def _objects(self) -> NDArray[np.object_]:
        """Return the texts, (n_texts,) object."""
        from numcodecs.vlen import VLenUTF8

        try:
            texts: NDArray[np.object_] = VLenUTF8().decode(self._raw)
        except ValueError as error:
            raise DamagedBytes(f"holds no texts: {error}") from error
        size = len("".join(texts).encode()) + _LENGTH_BYTES * (self._n_texts + 1)
        if size != len(self._raw):
            # The decoder stops after the last text.
            raise DamagedBytes(f"holds no texts: {len(self._raw) - size:,} bytes are left over")
        return texts


def _zeros(raw: NDArray[np.uint8], most: int) -> NDArray[np.int32]:
    """Return where the bytes are 0, but for the first four: positions, ascending.

    None at all if there are more than `most`: they would take four times the bytes.
    """
    found, n_found = [np.empty(0, np.int32)], 0
    for begin in range(_LENGTH_BYTES, len(raw), _BLOCK_BYTES):
        zeros = (np.flatnonzero(raw[begin : begin + _BLOCK_BYTES] == 0) + begin).astype(np.int32)
        found.append(zeros)
        n_found += len(zeros)
        if n_found > most:
            return found[0]
    return np.concatenate(found)


def _runs(words: NDArray[np.uint64]) -> tuple[NDArray[np.uint64], NDArray[np.intp]]:
    """Return the first of each run of equal rows, (n_runs, n_words), and how long each run is."""
    changes = np.ones(len(words), bool)
    changes[1:] = words[1:, 0] != words[:-1, 0]
    for column in range(1, words.shape[1]):
        changes[1:] |= words[1:, column] != words[:-1, column]
    starts = np.flatnonzero(changes)
    return words[starts], np.diff(starts, append=len(words))


def _factorized(words: NDArray[np.uint64]) -> tuple[list[bytes], Codes]:
    """Do as `numbered` for texts as words, (n, n_words): by their hashes, then proved."""
    factors = np.multiply.accumulate(np.full(words.shape[1], _FACTOR))
    hashes = (words ^ (words >> _HALF)) @ factors
    ascending = np.sort(hashes)
    distinct = ascending[np.append(True, ascending[1:] != ascending[:-1])]
    groups = np.searchsorted(distinct, hashes)
    samples = np.empty(len(distinct), np.intp)
    samples[groups] = np.arange(len(words))
    if not np.array_equal(words[samples[groups]], words):
        return numbered(_texts_of(words))
    labels, ranks = numbered(_texts_of(words[samples]))
    return labels, ranks[groups]


def _texts_of(words: NDArray[np.uint64]) -> list[bytes]:
    texts: list[bytes] = words.view(f"S{words.shape[1] * _WORD_BYTES}")[:, 0].tolist()
    return texts


def _decoded(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise DamagedBytes(f"holds no texts: {error}") from error
