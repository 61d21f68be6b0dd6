"""A contact sheet: thumbnails in rows, each with two lines of text below."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from maskcube.captions import palette, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Entry", "Sheet", "thumbnail"]

_DPI = 100
_GAP = 16
_HEADER = 38
_TEXT = 34
_LEAST_WIDTH = 260  # room for the line above
_PAPER = 244  # grey level of a thumbnail where the object is not
_FAINTEST = 0.35  # how dark is a pixel that an object hardly touches
_INK = "#2b2b2b"
_FAINT_INK = "#777777"


class Entry(NamedTuple):
    """A mask with its two lines of text; masks of one kind have one colour."""

    mask: npt.NDArray[np.bool_]
    kind: int
    name: str
    image: str


class Sheet:
    """Where things stand on a contact sheet, in pixels of its figure.

    Parameters
    ----------
    n_shown : int
        Number of thumbnails.
    n_columns : int
        Thumbnails in a row.
    side : int
        Longer side of a thumbnail.
    shape : (int, int)
        Height and width of a mask.
    """

    def __init__(self, n_shown: int, n_columns: int, side: int, shape: tuple[int, int]) -> None:
        self._n_columns = max(1, min(n_columns, n_shown))
        self._side = side
        self._cell = (thumbnail(np.zeros(shape, dtype=np.bool_), side).shape[0] + _TEXT, side)
        n_lines = -(-n_shown // self._n_columns)
        self._height = _HEADER + n_lines * (self._cell[0] + _GAP)
        self._width = max(_GAP + self._n_columns * (side + _GAP), _LEAST_WIDTH)

    def draw(self, header: str, entries: Iterable[Entry], n_kinds: int) -> Figure:
        """Return the figure; takes the entries one at a time."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(self._width / _DPI, self._height / _DPI), dpi=_DPI)
        FigureCanvasAgg(figure)
        ax = figure.add_axes((0, 0, 1, 1))
        _write(ax, header, (_GAP, _HEADER / 2), size=10, colour=_INK)
        page = np.full((self._height, self._width, 3), 255, dtype=np.uint8)
        colours = palette(n_kinds)
        for position, entry in enumerate(entries):
            self._draw_entry(ax, page, position, entry, colours[entry.kind])
        ax.imshow(page, extent=(0, self._width, self._height, 0), interpolation="nearest")
        ax.set_axis_off()
        return figure

    def _draw_entry(
        self,
        ax: Axes,
        page: npt.NDArray[np.uint8],
        position: int,
        entry: Entry,
        colour: npt.NDArray[np.float64],
    ) -> None:
        line, column = divmod(position, self._n_columns)
        top = _HEADER + line * (self._cell[0] + _GAP)
        left = _GAP + column * (self._side + _GAP)
        cover = thumbnail(entry.mask, self._side)[..., np.newaxis]
        height, width, _ = cover.shape
        page[top : top + height, left : left + width] = np.round(
            _PAPER * (1 - cover) + 255 * colour * cover
        )
        name = shortened(entry.name, max(self._side // 7, 4))
        image = shortened(entry.image, max((self._side + _GAP) * 2 // 11, 4))
        _write(ax, name, (left, top + height + 11), size=8.5, colour=_INK)
        _write(ax, image, (left, top + height + 25), size=6.2, colour=_FAINT_INK)


def thumbnail(mask: npt.NDArray[np.bool_], side: int) -> npt.NDArray[np.float64]:
    """Return how much of each pixel of a thumbnail the object covers: (y, x) in 0 to 1.

    The longer side has `side` pixels. A pixel that the object only touches has 0.35, so
    that no object disappears.

    Examples
    --------
    >>> mask = np.zeros((100, 50), dtype=bool)
    >>> mask[7, 7] = True
    >>> small = thumbnail(mask, 25)
    >>> small.shape, float(small.max())
    ((25, 12), 0.35)
    """
    scale = side / max(mask.shape)
    # Bounds of the blocks of lines and of columns that become one pixel; where a small mask is
    # magnified they repeat, and a block is one pixel of the mask.
    (ys, n_lines), (xs, n_columns) = (_blocks(length, scale) for length in mask.shape)
    covered = np.add.reduceat(np.add.reduceat(mask, ys, axis=0, dtype=np.int64), xs, axis=1)
    cover: npt.NDArray[np.float64] = covered / np.outer(n_lines, n_columns)
    return np.where(cover > 0, np.maximum(cover, _FAINTEST), 0)


def _blocks(length: int, scale: float) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    n_blocks = max(round(length * scale), 1)
    starts = np.arange(n_blocks) * length // n_blocks
    return starts, np.maximum(np.diff(starts, append=length), 1)


def _write(ax: Axes, text: str, at: tuple[float, float], *, size: float, colour: str) -> None:
    ax.text(*at, text, fontsize=size, color=colour, va="center", parse_math=False)
