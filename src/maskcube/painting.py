"""Painting: outlines of things, and a picture of them painted back to front.

Outlines are (n, 2) float64 arrays of x, y in units of the picture: (0, 0) is its upper left corner,
(1, 1) its lower right one; the last point joins the first. A picture keeps one bit plane a thing,
so that what is painted later hides what is behind it, a part stays inside its whole and glass shows
both. NumPy only: the masks of the sample dataset need no drawing library.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Outline", "Painting", "Thing", "blob", "limb", "oval", "placed", "ring", "smooth"]

Outline = npt.NDArray[np.float64]
Points = str | Sequence[tuple[float, float]]

_ALL = 0xFFFFFFFF  # a pixel is a uint32: a picture has room for 32 things


def oval(x: float, y: float, rx: float, ry: float | None = None, *, turn: float = 0) -> Outline:
    """Ellipse around (x, y) with half axes `rx` and `ry`, turned by `turn` radians."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    points = np.stack([rx * np.cos(angle), (rx if ry is None else ry) * np.sin(angle)], axis=1)
    return _moved(points, turn, x, y)


def blob(
    rng: np.random.Generator,
    x: float,
    y: float,
    rx: float,
    ry: float | None = None,
    *,
    rough: float = 0.05,
    turn: float = 0,
) -> Outline:
    """Ellipse whose radius a few random Fourier terms perturb: leaves, clouds, bread."""
    angle = np.linspace(0, 2 * np.pi, 120, endpoint=False)
    orders = np.arange(2, 9)
    waves = np.cos(np.outer(angle, orders) + rng.uniform(0, 2 * np.pi, orders.size))
    radius = 1 + rough * waves @ (rng.uniform(1, 3, orders.size) / orders)
    points = np.stack(
        [rx * radius * np.cos(angle), (rx if ry is None else ry) * radius * np.sin(angle)], axis=1
    )
    return _moved(points, turn, x, y)


def ring(x: float, y: float, outer: float, inner: float) -> Outline:
    """Ring around (x, y): by the even-odd rule, the inside of its inner circle is outside."""
    rim, hole = oval(x, y, outer), oval(x, y, inner)
    # Both circles are closed first, so that the bridge between them runs both ways and cancels.
    return np.concatenate([rim, rim[:1], hole, hole[:1]])


def limb(points: Points, *radii: float) -> list[Outline]:
    """Chain of capsules along `points` with one radius a point: arms, fingers, tails."""
    half = np.linspace(-np.pi / 2, np.pi / 2, 16)
    path = _vertices(points)
    outlines = []
    for (x0, y0), (x1, y1), r0, r1 in zip(path, path[1:], radii, radii[1:], strict=False):
        along = np.arctan2(y1 - y0, x1 - x0)
        front, back = half + along, half + along + np.pi
        head = np.stack([x1 + r1 * np.cos(front), y1 + r1 * np.sin(front)], axis=1)
        tail = np.stack([x0 + r0 * np.cos(back), y0 + r0 * np.sin(back)], axis=1)
        outlines.append(np.concatenate([head, tail]))
    return outlines


def smooth(points: Points, *, rounds: int = 4, cut: float = 0.2) -> Outline:
    """Round a polygon: in each round, the share `cut` of both ends of every edge is cut off.

    The algorithm for high-speed curve generation of Chaikin (1974).
    """
    curve = _vertices(points)
    for _ in range(rounds):
        following = np.roll(curve, -1, axis=0)
        ends = [curve + cut * (following - curve), following + cut * (curve - following)]
        curve = np.stack(ends, axis=1).reshape(-1, 2)
    return curve


def placed(
    outlines: Sequence[Outline],
    x: float,
    y: float,
    scale: float = 1,
    *,
    turn: float = 0,
    flip: bool = False,
) -> list[Outline]:
    """Outlines of a thing drawn around (0, 0): flipped, turned, scaled, moved to (x, y)."""
    side = (-scale if flip else scale, scale)
    return [_moved(outline * side, turn, x, y) for outline in outlines]


def _vertices(points: Points) -> Outline:
    """Points as an array; text is read as SVG writes a polygon: ``"0,0 1,0 .5,1"``."""
    pairs = [pair.split(",") for pair in points.split()] if isinstance(points, str) else points
    return np.array(pairs, dtype=np.float64)


def _moved(points: Outline, turn: float, x: float, y: float) -> Outline:
    """Turn points around (0, 0) by `turn` radians, then move them by (x, y)."""
    sine, cosine = np.sin(turn), np.cos(turn)
    moved: Outline = points @ np.array([[cosine, sine], [-sine, cosine]]) + np.array([x, y])
    return moved


class Thing(NamedTuple):
    """One object of a picture: its noun, its bit plane, the planes of it and of its wholes."""

    noun: str
    plane: int
    bits: int


class _Layer(NamedTuple):
    outlines: tuple[Outline, ...]
    bits: int
    kept: int


class Painting:
    """A picture painted back to front; nothing is drawn before `masks` is called.

    Parameters
    ----------
    mirrored : bool
        Swap left and right.

    Attributes
    ----------
    things : list of Thing
        In the order in which they were added; each has one mask.

    Examples
    --------
    >>> picture = Painting()
    >>> car = picture.add("car", oval(0.5, 0.5, 0.4, 0.2))
    >>> wheel = picture.add("wheel", oval(0.3, 0.7, 0.1), whole=car)
    >>> [int(mask.sum()) for mask in picture.masks(100, 100)]
    [2726, 316]
    """

    def __init__(self, *, mirrored: bool = False) -> None:
        self.things: list[Thing] = []
        self._layers: list[_Layer] = []
        self._mirrored = mirrored

    def add(
        self,
        noun: str,
        *outlines: Outline,
        whole: Thing | None = None,
        through: Sequence[Thing] | None = (),
    ) -> Thing:
        """Paint a new thing, part of `whole` if given, and return it; see `cover`."""
        plane = len(self.things)
        thing = Thing(noun, plane, 1 << plane | (whole.bits if whole else 0))
        self.things.append(thing)
        self.cover(thing, *outlines, through=through)
        return thing

    def cover(
        self,
        thing: Thing | None,
        *outlines: Outline,
        through: Sequence[Thing] | None = (),
    ) -> None:
        """Paint the union of `outlines` as `thing`, over everything painted so far.

        Parameters
        ----------
        thing : Thing or None
            None is background: it hides without having a mask.
        *outlines : (n, 2) float64
            Each filled by the even-odd rule.
        through : sequence of Thing or None
            Things that show through: their masks keep these pixels. None is glass: all do.
        """
        kept = _ALL if through is None else 0
        for other in through or ():
            kept |= other.bits
        self._layers.append(_Layer(outlines, thing.bits if thing else 0, kept))

    def masks(self, height: int, width: int) -> Iterator[npt.NDArray[np.bool_]]:
        """Yield the mask of each thing: (height, width) bool, True where it can be seen.

        A thing that is hidden, or smaller than a pixel, has the pixel in its middle.
        """
        canvas = np.zeros((height, width), dtype=np.uint32)
        for layer in self._layers:
            for outline in layer.outlines:
                _paint(canvas, self._in_pixels(outline, canvas), layer)
        for thing in self.things:
            mask = (canvas & np.uint32(1 << thing.plane)) != 0
            if not mask.any():
                mask[self._middle(thing, canvas)] = True
            yield mask

    def _in_pixels(self, outline: Outline, canvas: npt.NDArray[np.uint32]) -> Outline:
        height, width = canvas.shape
        points = np.stack([1 - outline[:, 0], outline[:, 1]], axis=1) if self._mirrored else outline
        # Sines differ in their last bit between machines; masks shall not.
        return np.round(points * (width, height) * 64) / 64

    def _middle(self, thing: Thing, canvas: npt.NDArray[np.uint32]) -> tuple[int, int]:
        first = next(layer for layer in self._layers if layer.bits == thing.bits)
        x, y = self._in_pixels(first.outlines[0], canvas).mean(axis=0)
        height, width = canvas.shape
        return min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)


def _paint(canvas: npt.NDArray[np.uint32], outline: Outline, layer: _Layer) -> None:
    height, width = canvas.shape
    left, top = np.clip(np.floor(outline.min(axis=0)), 0, (width, height)).astype(int)
    right, bottom = np.clip(np.ceil(outline.max(axis=0)), 0, (width, height)).astype(int)
    if left < right and top < bottom:
        window = canvas[top:bottom, left:right]
        inside = _filled(outline - (left, top), *window.shape)
        painted = window & np.uint32(layer.kept) | np.uint32(layer.bits)
        np.copyto(window, painted, where=inside)


def _filled(outline: Outline, height: int, width: int) -> npt.NDArray[np.bool_]:
    """Pixels whose centre is inside `outline` by the even-odd rule: (height, width) bool."""
    x0, y0 = outline.T
    x1, y1 = np.roll(outline, -1, axis=0).T
    # Row r is crossed by the edges with one end above its centre line r + 0.5, one at or below.
    first = np.clip(np.ceil(np.minimum(y0, y1) - 0.5), 0, height).astype(int)
    last = np.clip(np.ceil(np.maximum(y0, y1) - 0.5), 0, height).astype(int)
    n_rows = last - first
    edge = np.repeat(np.arange(n_rows.size), n_rows)
    row = np.arange(edge.size) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first[edge]
    slope = (x1 - x0)[edge] / (y1 - y0)[edge]
    x = x0[edge] + (row + 0.5 - y0[edge]) * slope
    column = np.clip(np.ceil(x - 0.5), 0, width).astype(int)
    crossings = np.zeros((height, width + 1), dtype=np.uint8)
    np.add.at(crossings, (row, column), 1)
    inside = np.add.accumulate(crossings[:, :width], axis=1, dtype=np.uint8) & 1
    return inside.astype(np.bool_)
