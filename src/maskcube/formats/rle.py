"""A mask as COCO's run-length encoding: runs down the columns, as numbers or as a short text.

The first count is of background, and may be 0; then object and background take turns until all
pixels are counted. The text is that of pycocotools [1]_: each count, less the one two before it
from the fourth on, in groups of five bits, lowest first, with a bit that says whether more follow.

All of it is done here: where counts are too few, pycocotools shows what lay in memory, and it needs
pixels in columns, which takes longer to make than everything else together.

References
----------
.. [1] https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rle"]

_BITS, _MORE, _SIGN, _FIRST = 5, 32, 16, 48
"""Bits in a character; which says that more follow; which is the sign; the character of 0."""
_MOST_GROUPS = 7
"""35 bits count more pixels than any mask has."""
_RAW = 3
"""Counts that are written as they are."""


@dataclass(frozen=True, eq=False)
class Rle:
    """The runs of one mask, column by column.

    Parameters
    ----------
    counts : numpy.ndarray
        (n_runs,) int64, pixels of background, object, background, ..., that sum up to all pixels.
    shape : (int, int)
        Height and width of the mask in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> rle = Rle.of(np.array([[0, 1, 1], [0, 0, 1]], np.uint8))
    >>> rle.counts.tolist(), rle.text(), rle.area, rle.box()
    ([2, 1, 1, 2], '2111', 3, (1, 0, 2, 2))
    >>> Rle.parsed("2111", (2, 3)).mask().tolist()
    [[0, 1, 1], [0, 0, 1]]
    """

    counts: NDArray[np.int64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: NDArray[np.uint8]) -> Self:
        """Return the runs of a mask, (y, x) uint8 of 0 and 1, C-contiguous.

        A run begins or is over where a pixel differs from the one above it, and at the top of a
        column, from the last one of the column before: nothing is transposed.
        """
        height, width = mask.shape
        rows = np.flatnonzero(mask.any(axis=1))
        top, bottom = (max(int(rows[0]) - 1, 0), int(rows[-1]) + 2) if rows.size else (0, 0)
        part = mask[top:bottom]
        ys, xs = np.divmod(np.flatnonzero(part[1:] != part[:-1]), width)
        above = np.zeros(width, mask.dtype)
        above[1:] = mask[-1, :-1]
        at_top = np.flatnonzero(mask[0] != above) * height
        ends = np.concatenate([xs * height + (ys + top + 1), at_top, [height * width]])
        ends.sort()
        return cls(np.diff(ends, prepend=0), (height, width))

    @classmethod
    def parsed(cls, text: str, shape: tuple[int, int]) -> Self:
        """Return the runs that a compressed text tells.

        Raises
        ------
        ValueError
            When the text is none of a mask of this shape.
        """
        try:
            values = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - _FIRST
        except UnicodeEncodeError:
            raise ValueError("has counts that are no compressed text") from None
        if ((values < 0) | (values >= 2 * _MORE)).any():
            raise ValueError("has counts that are no compressed text")
        lasts = np.flatnonzero((values & _MORE) == 0)
        lengths = np.diff(lasts, prepend=-1)
        if lengths.max(initial=0) > _MOST_GROUPS or values.size != lengths.sum():
            raise ValueError("has a count that does not end")
        places = np.arange(values.size) - np.repeat(lasts + 1 - lengths, lengths)
        parts = (values & (_MORE - 1)) << (_BITS * places)
        counts = np.add.reduceat(parts, lasts + 1 - lengths) if lasts.size else parts
        counts -= ((values[lasts] & _SIGN) > 0) * (np.int64(1) << (_BITS * lengths))
        # Each is a difference to the one two before, but for the first three.
        counts[1::2] = np.cumsum(counts[1::2])
        counts[2::2] = np.cumsum(counts[2::2])
        return cls(_checked(counts, shape), shape)

    @classmethod
    def counted(cls, counts: Sequence[Any], shape: tuple[int, int]) -> Self:
        """Return the runs that plain numbers tell.

        Raises
        ------
        ValueError
            When they are none of a mask of this shape.
        """
        n_pixels = shape[0] * shape[1]
        if not all(type(each) is int and 0 <= each <= n_pixels for each in counts):
            raise ValueError(f"has counts that are no integers from 0 to {n_pixels:,}")
        return cls(_checked(np.array(counts, np.int64), shape), shape)

    @classmethod
    def union(cls, parts: Sequence[Rle]) -> Rle:
        """Return the runs of what at least one of several masks of one shape covers."""
        if len(parts) == 1:
            return parts[0]
        ends = [np.cumsum(part.counts) for part in parts]
        stops = np.concatenate([each[1::2] for each in ends])
        starts = np.concatenate([each[: each.size // 2 * 2 : 2] for each in ends])
        places = np.concatenate([starts, stops])
        steps = np.repeat([1, -1], starts.size)
        # At the same place, what begins comes before what is over: touching runs become one.
        order = np.lexsort((-steps, places))
        places, steps = places[order], steps[order]
        depth = np.cumsum(steps)
        at = places[(depth == 0) | ((depth == 1) & (steps == 1))]
        height, width = parts[0].shape
        return cls(np.diff(at, prepend=0, append=height * width), parts[0].shape)

    def text(self) -> str:
        """Return the counts as a compressed text, as in JSON."""
        values = self.counts.copy()
        values[_RAW:] -= self.counts[1:-2]
        # A group holds its bits and, if it is the last one, the sign.
        sizes, lengths = np.where(values < 0, ~values, values), np.ones(values.size, np.intp)
        for bits in count(_BITS - 1, _BITS):
            longer = sizes >> bits > 0
            if not longer.any():
                break
            lengths += longer
        ends = np.cumsum(lengths)
        places = np.arange(ends[-1]) - np.repeat(ends - lengths, lengths)
        groups = (np.repeat(values, lengths) >> (_BITS * places)) & (_MORE - 1)
        groups += _MORE
        groups[ends - 1] -= _MORE
        return bytes((groups + _FIRST).astype(np.uint8)).decode("ascii")

    def mask(self) -> NDArray[np.uint8]:
        """Return the pixels, (y, x) uint8, 1 where the object is."""
        height, width = self.shape
        ends = np.cumsum(self.counts)[:-1]
        if not self.counts[1:].all():
            # A run of nothing begins and is over at the same place.
            ends, times = np.unique(ends, return_counts=True)
            ends = ends[(times % 2 == 1) & (ends < height * width)]
        xs, ys = np.divmod(ends, height)
        mask = np.zeros(self.shape, np.uint8)
        mask[ys, xs] = 1
        mask[0] = np.searchsorted(ends, np.arange(width) * height, side="right") % 2
        first = 0 if mask[0].any() else int(ys.min(initial=height - 1))
        last = max(first, int(ys.max(initial=0)))
        for above, row in pairwise(mask[first : last + 1]):
            np.bitwise_xor(row, above, out=row)
        mask[last + 1 :] = mask[last]
        return mask

    @property
    def area(self) -> int:
        """Pixels of the object."""
        return int(self.counts[1::2].sum())

    def box(self) -> tuple[int, int, int, int]:
        """Return left, top, width and height in pixels; zeros for an empty mask."""
        height = self.shape[0]
        ends = np.cumsum(self.counts)
        stops = ends[1::2]
        starts = ends[::2][: stops.size]
        starts, stops = starts[starts < stops], stops[starts < stops]
        if not starts.size:
            return 0, 0, 0, 0
        (lefts, tops), (rights, bottoms) = np.divmod(starts, height), np.divmod(stops - 1, height)
        left, right = int(lefts[0]), int(rights[-1]) + 1
        if (lefts < rights).any():
            return left, 0, right - left, height
        top, bottom = int(tops.min()), int(bottoms.max()) + 1
        return left, top, right - left, bottom - top


def _checked(counts: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[np.int64]:
    n_pixels = shape[0] * shape[1]
    if (counts < 0).any() or (counts > n_pixels).any() or counts.sum() != n_pixels:
        raise ValueError(
            f"has counts that do not sum up to the {shape[0]} x {shape[1]} pixels of its image"
        )
    return counts
