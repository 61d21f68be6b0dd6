"""Masks as rings around their parts, and back, bit for bit.

A ring runs along the edges of pixels: pixel (y, x) is the square from (x, y) to (x + 1, y + 1), and
a pixel is inside when its centre is. A ring has no holes, so a hole is joined to what is around it
by a bridge without width, which is gone along and back: by even-odd as well as by winding number
such a bridge encloses nothing, and by the rule of pycocotools [2]_ too. Pixels that touch in a
corner only are two parts.

The vertices of such a ring determine it: sorted by line, each second one ends the horizontal edge
that the one before begins, and sorted by column likewise the vertical ones [1]_.

References
----------
.. [1] J. O'Rourke, Uniqueness of orthogonal connect-the-dots, Computational Morphology (1988)
.. [2] https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleFrPoly)
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["fill_ring", "rings_of"]

_CROSSINGS = 2**20
"""Crossings of edges and lines to compute at a time: an edge may cross every line of the image."""

_TURNS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], np.uint8)
"""Vertices at a corner, by which of the four pixels around it are of the object: upper left, upper
right, lower left and lower right, from the lowest bit on."""

_LEFT_AND_DOWN = 0b0110
"""Corner whose upper right and lower left pixel are of the object, and the others are not."""
_LOWER_RIGHT = 0b1000


def rings_of(mask: NDArray[np.uint8]) -> list[NDArray[np.int64]]:
    """Return a ring around each part of a mask.

    Parameters
    ----------
    mask : numpy.ndarray
        (y, x) uint8, 1 where the object is.

    Returns
    -------
    list of numpy.ndarray
        (vertex, 2) int64 each, x and y of the edges of pixels, clockwise as seen on a screen, the
        first vertex not repeated. Parts are in the order of their uppermost, leftmost pixels.

    Examples
    --------
    >>> import numpy as np
    >>> rings_of(np.array([[0, 1], [0, 0]], np.uint8))[0].tolist()
    [[1, 0], [2, 0], [2, 1], [1, 1]]
    """
    lines, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(lines):
        return []
    top, left = int(lines[0]), int(columns[0])
    part = np.pad(mask[top : lines[-1] + 1, left : columns[-1] + 1], 1)
    return [ring + np.array([left, top]) for ring in _Outline(part).rings()]


class _Outline:
    """The corners of a mask with a margin of one pixel, linked to rings.

    Parameters
    ----------
    pixels : numpy.ndarray
        (y, x) uint8, 1 where the object is, nowhere along the margin.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.height = pixels.shape[0] + 1
        around: Any = pixels[:-1, :-1] | pixels[:-1, 1:] << 1 | pixels[1:, :-1] << 2
        around |= pixels[1:, 1:] << 3
        turns = _TURNS[around].reshape(-1)
        corners = np.flatnonzero(turns)
        places = np.repeat(corners, turns[corners])
        self.y, self.x = np.divmod(places, around.shape[1])
        code = around.reshape(-1)[places]
        self.begins_part = (code & _LOWER_RIGHT) > 0
        self.columns = self._by_column(code)
        self.next: list[int] = []

    def _by_column(self, code: NDArray[np.uint8]) -> NDArray[np.intp]:
        """Return the vertices from top to bottom in each column: two by two they are edges.

        Where two pixels touch in a corner there are two vertices: the first has the edge to the
        left, the second that to the right, and each goes on along the pixel that it came along.
        """
        second = np.zeros(len(code), np.int64)
        second[1:] = (self.y[1:] == self.y[:-1]) & (self.x[1:] == self.x[:-1])
        twin = second.copy()
        twin[:-1] |= second[1:]
        swapped = (code == _LEFT_AND_DOWN) & (twin > 0)
        second[swapped] ^= 1
        return np.argsort((self.x * self.height + self.y) * 2 + second)

    def rings(self) -> list[NDArray[np.int64]]:
        """Return the rings; each hole is joined to what is to its left."""
        parts, holes = self._link()
        x, y = self.x.tolist(), self.y.tolist()
        if holes:
            self._join(np.array(holes), x, y)
        found = []
        for first in parts:
            ring, vertex = [(x[first], y[first])], self.next[first]
            while vertex != first:
                ring.append((x[vertex], y[vertex]))
                vertex = self.next[vertex]
            found.append(np.array(ring))
        return found

    def _link(self) -> tuple[list[int], list[int]]:
        """Link the vertices so that the object is always to the right; return parts and holes.

        Each is told by its first vertex, the leftmost of the uppermost ones.
        """
        across = (np.arange(len(self.x)) ^ 1).tolist()
        along = np.empty(len(self.x), np.int64)
        along[self.columns[::2]], along[self.columns[1::2]] = self.columns[1::2], self.columns[::2]
        edges = (across, along.tolist())
        begins_part = self.begins_part.tolist()
        self.next = [-1] * len(across)
        parts: list[int] = []
        holes: list[int] = []
        for first, known in enumerate(self.next):
            if known >= 0:
                continue
            (parts if begins_part[first] else holes).append(first)
            vertex, is_vertical = first, not begins_part[first]
            while self.next[vertex] < 0:
                self.next[vertex] = edges[is_vertical][vertex]
                vertex, is_vertical = self.next[vertex], not is_vertical
        return parts, holes

    def _join(self, holes: NDArray[np.int64], x: list[int], y: list[int]) -> None:
        """Put each hole into the ring that passes to its left, there and back along its top."""
        hole_x, hole_y = self.x[holes], self.y[holes]
        starts = self._starts_of_runs(hole_y, hole_x)
        tops = self.columns[::2]
        keys = self.x[tops] * self.height + self.y[tops]
        edges = np.searchsorted(keys, starts * self.height + hole_y, side="right") - 1
        upper, lower = tops[edges].tolist(), self.columns[1::2][edges].tolist()
        tails: dict[int, int] = {}
        # Such edges lead upwards: those that leave an edge further down leave it earlier.
        for each in np.argsort(-hole_y, kind="stable").tolist():
            hole, end = int(holes[each]), upper[each]
            before = tails.get(end, lower[each])
            leave, back = len(x), len(x) + 1
            x += [int(starts[each]), x[hole]]
            y += [y[hole], y[hole]]
            self.next += [hole, end]
            self.next[before], self.next[hole ^ 1] = leave, back
            if (x[leave], y[leave]) != (x[end], y[end]):
                x.append(x[leave])
                y.append(y[leave])
                self.next.append(end)
                self.next[back] = tails[end] = back + 1

    def _starts_of_runs(self, y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the left edge of the run that ends at each of these holes' upper left corners."""
        # In the corners' own count a corner is the upper left one of the pixel one further on.
        inside = self.pixels[1:, 1:] > self.pixels[1:, :-1]
        places = np.flatnonzero(inside)
        found = np.searchsorted(places, y * inside.shape[1] + x, side="left") - 1
        starts: NDArray[np.int64] = places[found] % inside.shape[1]
        return starts


def fill_ring(vertices: NDArray[np.floating[Any]], into: NDArray[np.uint8]) -> None:
    """Set the pixels whose centres are inside of a ring, by the even-odd rule.

    Parameters
    ----------
    vertices : numpy.ndarray
        (vertex, 2) float64, x and y in pixels, finite; the last one is joined to the first.
    into : numpy.ndarray
        (y, x) uint8; becomes 1 inside, and stays what it was elsewhere.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.zeros((2, 3), np.uint8)
    >>> fill_ring(np.array([[1.0, 0.0], [3.0, 0.0], [3.0, 1.0], [1.0, 1.0]]), mask)
    >>> mask.tolist()
    [[0, 1, 1], [0, 0, 0]]
    """
    height, width = into.shape
    ends = np.roll(vertices, -1, axis=0)
    # The first line, and column, whose centre is not before a place.
    starts = np.clip(np.ceil(np.minimum(vertices, ends)[:, 1] - 0.5), 0, height).astype(np.int64)
    stops = np.clip(np.ceil(np.maximum(vertices, ends)[:, 1] - 0.5), 0, height).astype(np.int64)
    crosses = starts < stops
    if not crosses.any():
        return
    vertices, ends, starts, stops = (each[crosses] for each in (vertices, ends, starts, stops))
    top, bottom = int(starts.min()), int(stops.max())
    flips = np.zeros((bottom - top, width + 1), np.uint8)
    block = max(1, _CROSSINGS // height)
    for first in range(0, len(starts), block):
        edges = slice(first, first + block)
        lines, columns = _crossings(
            vertices[edges], ends[edges], starts[edges], stops[edges], width
        )
        np.bitwise_xor.at(flips, (lines - top, columns), 1)
    into[top:bottom] |= np.bitwise_xor.accumulate(flips[:, :width], axis=1)


def _crossings(
    vertices: NDArray[np.floating[Any]],
    ends: NDArray[np.floating[Any]],
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    width: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where edges cross the centres of lines: the lines, and the first columns beyond."""
    counts = stops - starts
    edge = np.repeat(np.arange(len(counts)), counts)
    lines = np.arange(len(edge)) - np.repeat(np.cumsum(counts) - counts, counts) + starts[edge]
    (x, y), (dx, dy) = vertices.T, (ends - vertices).T
    slope = dx / dy
    at = x[edge] + (lines + 0.5 - y[edge]) * slope[edge]
    return lines, np.clip(np.ceil(at - 0.5), 0, width).astype(np.int64)
