"""The outlines of an object, along the edges of its pixels.

A pixel (y, x) is the square from (x, y) to (x + 1, y + 1), as in COCO. pycocotools [1]_ fills a
ring along such edges with exactly these pixels. A polygon of COCO has no holes; but what a ring
goes along twice counts as nothing, so that a hole becomes a part of the ring around it by a cut
that leads to it and back.

References
----------
.. [1] https://github.com/cocodataset/cocoapi/blob/master/common/maskApi.c (rleFrPoly)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["outlines_of"]

_Ints = NDArray[np.int64]


def outlines_of(mask: NDArray[np.uint8]) -> list[list[int]]:
    """Return the rings that enclose the pixels of a mask.

    Parameters
    ----------
    mask : numpy.ndarray
        (y, x) uint8 of 0 and 1.

    Returns
    -------
    list of list of int
        One ring for each connected part (pixels that share an edge): x0, y0, x1, y1, ... in pixels,
        clockwise as seen on a screen, each corner once. A hole is joined to its ring by a vertical
        cut. Empty for an empty mask.

    Examples
    --------
    >>> import numpy as np
    >>> outlines_of(np.array([[0, 1, 1], [1, 0, 0]], np.uint8))
    [[1, 0, 3, 0, 3, 1, 1, 1], [0, 1, 1, 1, 1, 2, 0, 2]]
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return []
    top, left = int(rows[0]), int(columns[0])
    # With a rim of background, every edge has two sides.
    part = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].view(np.int8), 1)
    edges = _Edges.of(part)
    following = _following(part, edges)
    after, points = _joined(part, edges, following)
    points += (left - 1, top - 1)
    return [_ring(points[walk]) for walk in _walks(after)]


class _Edges(NamedTuple):
    """Horizontal edges from corner to corner, sorted by line and then from left to right."""

    y: _Ints
    left: _Ints
    right: _Ints
    below: NDArray[np.bool_]
    """Whether the object is below the edge, which leads to the right then; else to the left."""

    @classmethod
    def of(cls, part: NDArray[np.int8]) -> _Edges:
        y, left, right, rises = _segments(part[1:] - part[:-1])
        return cls(y + 1, left, right, rises)


def _segments(sides: NDArray[np.int8]) -> tuple[_Ints, _Ints, _Ints, NDArray[np.bool_]]:
    """Return line, begin, end and sign of each stretch of the same value that is not 0."""
    changes = np.flatnonzero(sides[:, 1:] != sides[:, :-1])
    lines, places = np.divmod(changes, sides.shape[1] - 1)
    before, after = sides[lines, places], sides[lines, places + 1]
    begins, ends = after != 0, before != 0
    return lines[begins], places[begins] + 1, places[ends] + 1, after[begins] > 0


def _following(part: NDArray[np.int8], edges: _Edges) -> _Ints:
    """Return for each horizontal edge which one comes next, with the object on the right hand.

    Where two pixels touch at a corner only, the way keeps to the same pixel.
    """
    width = part.shape[1]
    x, upper, lower, rises = _segments(np.ascontiguousarray((part[:, 1:] - part[:, :-1]).T))
    x = x + 1
    # The object is on the right hand: to the right of an edge that leads up.
    tails = _key(width, np.where(rises, lower, upper), x, rises)
    heads_y = np.where(rises, upper, lower)
    heads_x = np.where(edges.below, edges.right, edges.left)
    # Leading right, the pixel ahead on the left hand is above; the way turns left only when both
    # pixels ahead are of the object, and that is when the one on the right hand is.
    ahead = np.where(edges.below, part[edges.y, edges.right], part[edges.y - 1, edges.left - 1])
    goes_up = np.where(edges.below, ahead > 0, ahead == 0)
    down_to = _found(tails, _key(width, edges.y, heads_x, goes_up))
    ahead = np.where(rises, part[heads_y - 1, x], part[heads_y, x - 1])
    goes_right = np.where(rises, ahead == 0, ahead > 0)
    starts = _key(width, edges.y, np.where(edges.below, edges.left, edges.right), edges.below)
    across_to = _found(starts, _key(width, heads_y, x, goes_right))
    following: _Ints = across_to[down_to]
    return following


def _key(width: int, y: _Ints, x: _Ints, way: NDArray[np.bool_]) -> _Ints:
    """Return a number for each way to leave a corner."""
    key: _Ints = (y * width + x) * 2 + way
    return key


def _found(keys: _Ints, wanted: _Ints) -> _Ints:
    order = np.argsort(keys)
    found: _Ints = order[np.searchsorted(keys, wanted, sorter=order)]
    return found


def _joined(part: NDArray[np.int8], edges: _Edges, following: _Ints) -> tuple[_Ints, _Ints]:
    """Return which point comes after each, and the points (x, y), with holes joined to rings."""
    n_edges = len(following)
    tails_x = np.where(edges.below, edges.left, edges.right)
    heads_x = np.where(edges.below, edges.right, edges.left)
    hole, target = _cuts(part, edges, following)
    # Cuts to the same edge, in the order in which the edge leads: to the right.
    order = np.lexsort((heads_x[hole], target))
    hole, target = hole[order], target[order]
    # Points: tails of edges, heads of edges; and for each cut, where it leaves its edge, where it
    # comes back to it, and the corner of the hole once more.
    x = np.concatenate([tails_x, heads_x, *[heads_x[hole]] * 3])
    y = np.concatenate([edges.y, edges.y, *[edges.y[target]] * 2, edges.y[hole]])
    leaves, returns, again = (2 * n_edges + len(hole) * k + np.arange(len(hole)) for k in range(3))
    after = np.concatenate(
        [n_edges + np.arange(n_edges), following, n_edges + hole, *[returns] * 2]
    )
    # The edge at the top of a hole leads left, to the corner where the cut arrives.
    after[hole] = again
    is_last = np.diff(target, append=-1) != 0
    after[returns[is_last]] = n_edges + target[is_last]
    after[returns[:-1][~is_last[:-1]]] = leaves[1:][~is_last[:-1]]
    is_first = np.diff(target, prepend=-1) != 0
    after[target[is_first]] = leaves[is_first]
    return after, np.stack([x, y], axis=1)


def _cuts(part: NDArray[np.int8], edges: _Edges, following: _Ints) -> tuple[_Ints, _Ints]:
    """Return for each hole an edge at its top, and the edge straight above that it is cut to."""
    ring = _first_of_ring(following)
    firsts = np.flatnonzero(ring == np.arange(ring.size))
    width = np.where(edges.below, edges.right - edges.left, edges.left - edges.right)
    area = -np.bincount(ring, width * edges.y)[firsts]
    # Edges are sorted by line: the first one of a hole is at its top, with the object above it.
    hole = firsts[area < 0]
    columns, column = np.unique(edges.left[hole], return_inverse=True)
    pixels = np.ascontiguousarray(part[:, columns].T)
    which, y = np.nonzero(pixels[:, 1:] != pixels[:, :-1])
    height = len(part)
    above = np.searchsorted(which * height + y + 1, column * height + edges.y[hole]) - 1
    starts = edges.y * part.shape[1] + edges.left
    wanted = (y[above] + 1) * part.shape[1] + edges.left[hole]
    return hole, np.searchsorted(starts, wanted, side="right") - 1


def _first_of_ring(following: _Ints) -> _Ints:
    """Return for each edge the first one of its ring, by looking ever twice as far."""
    first = np.arange(following.size)
    for _ in range(int(following.size).bit_length()):
        first = np.minimum(first, first[following])
        following = following[following]
    return first


def _walks(after: _Ints) -> list[list[int]]:
    """Return the points of each ring, in the order in which they come."""
    following = after.tolist()
    walks = []
    for start in range(len(following)):
        walk, point = [], start
        while following[point] >= 0:
            walk.append(point)
            following[point], point = -1, following[point]
        if walk:
            walks.append(walk)
    return walks


def _ring(points: _Ints) -> list[int]:
    """Return the coordinates of a ring without points that come twice in a row.

    Between two equal points pycocotools divides by zero.
    """
    differs = (np.diff(points, axis=0, append=points[:1]) != 0).any(axis=1)
    flat: list[int] = points[differs].ravel().tolist()
    return flat
