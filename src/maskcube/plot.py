"""Pictures of masks: over their stimulus, or side by side.

Figures are made without pyplot: they work on a machine without a screen and are freed when the
last reference is gone. Masks are read one at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from maskcube.captions import Front, deepest_pixel, palette, write_names
from maskcube.errors import InvalidOption, listed, missing
from maskcube.sheet import Entry, Sheet

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["contact_sheet", "overlay"]

_INK = "#2b2b2b"
_PAPER = 247  # grey level behind masks without an image
_SMALLEST_THUMBNAIL = 32

Colours = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


def overlay(
    masks: xr.DataArray,
    image: npt.ArrayLike | None = None,
    *,
    ax: Axes | None = None,
    alpha: float = 0.5,
    labels: bool = True,
) -> Axes:
    """Return axes that show the masks of one image in colour, on top of it.

    Every mask has its own colour and outline. Where masks overlap the smallest is on top, so that
    fingers can be seen on a hand, and the hand on a person.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) or (y, x), uint8 or bool, not 0 where the object is. Read one at a time.
        The coordinates ``noun``, ``instance`` and ``image`` are shown where there are any.
    image : array-like, optional
        The stimulus: (y, x, 3) uint8, red, green, blue. Without it the background is plain.
    ax : matplotlib.axes.Axes, optional
        Where to draw; by default in a figure of its own, which is ``overlay(...).figure``.
    alpha : float, default 0.5
        How much the colours cover the image, from 0 (outlines only) to 1.
    labels : bool, default True
        Write its noun on each mask, with the instance where there are several of that noun.

    Returns
    -------
    matplotlib.axes.Axes
        In pixels of the image: y points down, (0, 0) is the centre of the upper left pixel.

    Raises
    ------
    InvalidOption
        The masks are of several images or are no masks, `image` has another shape, or `alpha` is
        out of range.
    MissingDependency
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> pixels = np.eye(64, dtype="uint8")[np.newaxis]
    >>> mask = xr.DataArray(pixels, dims=("mask", "y", "x"), coords={"noun": ("mask", ["rope"])})
    >>> ax = overlay(mask)
    >>> [text.get_text() for text in ax.texts]
    ['rope']
    """
    _need_matplotlib("overlay")
    stack = _Stack(masks, "overlay")
    if not 0 <= alpha <= 1:
        raise InvalidOption(f"alpha={alpha!r}: must be from 0 to 1")
    images = sorted(set(stack.texts("image")))
    if len(images) > 1:
        raise InvalidOption(
            f"overlay draws the masks of one image, these are of {len(images):,}: {listed(images)};"
            " choose one with masks.sel(image=...), or use contact_sheet"
        )
    canvas = _background(image, stack.shape)
    if ax is None:
        ax = _framed(stack.shape)
    colours = palette(stack.n_masks)
    front = _draw_outlines(ax, stack, colours)
    _tint(canvas, front.owner, colours, alpha)
    _show(ax, canvas)
    ax.set_title(
        _title(images, front.anchors),
        loc="left",
        x=0.012,
        fontsize=10,
        color=_INK,
        parse_math=False,
    )
    if labels:
        write_names(ax, stack.names(), front, colours)
    return ax


def contact_sheet(
    masks: xr.DataArray, *, n_columns: int = 6, max_masks: int = 48, thumbnail: int = 200
) -> Figure:
    """Return a figure with a thumbnail of each mask, titled with its noun, instance and image.

    Masks of the same noun have the same colour. A pixel of a thumbnail is as dark as the object
    covers it, and never invisible when there is any: small objects stay.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) or (y, x), uint8 or bool, not 0 where the object is. Only those that are shown
        are read, one at a time.
    n_columns : int, default 6
        Thumbnails in a row.
    max_masks : int, default 48
        Show the first so many; the figure says how many were left out.
    thumbnail : int, default 200
        Longer side of a thumbnail in pixels, at least 32.

    Returns
    -------
    matplotlib.figure.Figure
        ``figure.savefig("sheet.png")`` writes it.

    Raises
    ------
    InvalidOption
        `masks` are no masks, or a number is out of range.
    MissingDependency
        matplotlib is not installed.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> pixels = np.ones((3, 64, 64), dtype="uint8")
    >>> figure = contact_sheet(xr.DataArray(pixels, dims=("mask", "y", "x")), max_masks=2)
    >>> figure.axes[0].texts[0].get_text()
    '2 of 3 masks, 1 left out'
    """
    _need_matplotlib("contact_sheet")
    limits = {"n_columns": (n_columns, 1), "max_masks": (max_masks, 1)}
    limits["thumbnail"] = (thumbnail, _SMALLEST_THUMBNAIL)
    for name, (value, least) in limits.items():
        if value < least:
            raise InvalidOption(f"{name}={value!r}: must be at least {least}")
    stack = _Stack(masks, "contact_sheet")
    n_shown = min(stack.n_masks, max_masks)
    kinds = list(dict.fromkeys(stack.texts("noun")))
    sheet = Sheet(n_shown, n_columns, thumbnail, stack.shape)
    return sheet.draw(
        _count(stack.n_masks, n_shown), _entries(stack, n_shown, kinds), len(kinds) or 1
    )


def _count(n_masks: int, n_shown: int) -> str:
    masks = {0: "no masks", 1: "1 mask"}.get(n_masks, f"{n_masks:,} masks")
    n_left_out = n_masks - n_shown
    return f"{n_shown:,} of {masks}, {n_left_out:,} left out" if n_left_out else masks


def _entries(stack: _Stack, n_shown: int, kinds: Sequence[str]) -> Iterator[Entry]:
    names, nouns, images = stack.names(numbered=True), stack.texts("noun"), stack.texts("image")
    for row in range(n_shown):
        kind = kinds.index(nouns[row]) if nouns else 0
        yield Entry(stack[row], kind, names[row], images[row] if images else "")


def _need_matplotlib(purpose: str) -> None:
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise missing("matplotlib", "plot", purpose) from error


class _Stack:
    """Masks to be drawn, with their names; reads one at a time."""

    def __init__(self, masks: xr.DataArray, purpose: str) -> None:
        dims = getattr(masks, "dims", None)
        if dims is None or set(dims) not in ({"y", "x"}, {"mask", "y", "x"}):
            raise InvalidOption(
                f"{purpose} draws a DataArray with dimensions (mask, y, x) or (y, x); this is"
                f" {type(masks).__name__} {dims if dims is not None else ''}".rstrip()
            )
        if masks.dtype.kind not in "bui":
            raise InvalidOption(
                f"{purpose} draws masks, uint8 or bool; this is {masks.dtype}. A heatmap draws"
                " itself: heatmap.plot.imshow(yincrease=False)"
            )
        stack = masks if "mask" in dims else masks.expand_dims("mask")
        self._coords = stack.coords
        self._pixels = stack.variable.transpose("mask", "y", "x")
        self.n_masks = stack.sizes["mask"]
        self.shape = (stack.sizes["y"], stack.sizes["x"])

    def __getitem__(self, row: int) -> Mask:
        mask: Mask = self._pixels[row].to_numpy() != 0
        return mask

    def texts(self, name: str) -> list[str]:
        """Values of a coordinate, one a mask; empty when there is no such coordinate."""
        if name not in self._coords:
            return []
        values = np.broadcast_to(self._coords[name].to_numpy(), (self.n_masks,))
        return [str(value) for value in values.tolist()]

    def names(self, *, numbered: bool = False) -> list[str]:
        """Noun of each mask, with its instance if `numbered` or if it has the noun of another."""
        nouns, instances = self.texts("noun"), self.texts("instance")
        if not nouns or not instances:
            return nouns or [f"mask {row}" for row in range(self.n_masks)]
        times = Counter(nouns)
        pairs = zip(nouns, instances, strict=True)
        return [f"{noun} {which}" if numbered or times[noun] > 1 else noun for noun, which in pairs]


def _background(image: npt.ArrayLike | None, shape: tuple[int, int]) -> Pixels:
    if image is None:
        return np.full((*shape, 3), _PAPER, dtype=np.uint8)
    pixels = np.array(image)
    if pixels.shape != (*shape, 3) or pixels.dtype != np.uint8:
        raise InvalidOption(
            f"image is {pixels.dtype} {pixels.shape}; on these masks goes uint8 {(*shape, 3)}"
        )
    return pixels


def _framed(shape: tuple[int, int], pixels: int = 1000) -> Axes:
    """Axes that fill a figure of their own but for a line above, for the title."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    height, width = shape
    scale = pixels / max(height, width) / 125
    title = 0.3
    tall = height * scale + title
    figure = Figure(figsize=(width * scale, tall), dpi=125)
    FigureCanvasAgg(figure)
    return figure.add_axes((0, 0, 1, 1 - title / tall))


def _draw_outlines(ax: Axes, stack: _Stack, colours: Colours) -> Front:
    """Draw the outline of each mask, smaller ones later; return which mask is on top where."""
    owner = np.full(stack.shape, -1, dtype=np.int32)
    least = np.full(stack.shape, np.iinfo(np.int64).max)
    anchors: list[tuple[float, float] | None] = []
    for row in range(stack.n_masks):
        mask = stack[row]
        area = int(np.count_nonzero(mask))
        smaller = mask & (least > area)
        owner[smaller], least[smaller] = row, area
        anchors.append(deepest_pixel(mask) if area else None)
        if area:
            _draw_outline(ax, mask, colours[row], zorder=2 + 1 / (1 + area))
    return Front(owner, anchors)


def _draw_outline(ax: Axes, mask: Mask, colour: npt.NDArray[np.float64], zorder: float) -> None:
    from matplotlib.patheffects import withStroke

    ys, xs = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    # A frame of zeros closes the outlines of objects that the border cuts.
    window = np.pad(mask[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1], 1).astype(np.float32)
    x, y = np.arange(xs[0] - 1, xs[-1] + 2), np.arange(ys[0] - 1, ys[-1] + 2)
    lines = ax.contour(x, y, window, levels=[0.5], colors=[colour * 0.8], linewidths=1.3)
    lines.set(zorder=zorder, path_effects=[withStroke(linewidth=2.6, foreground="white")])


def _tint(canvas: Pixels, owner: npt.NDArray[np.int32], colours: Colours, alpha: float) -> None:
    covered = owner >= 0
    blend = (1 - alpha) * canvas[covered] + alpha * 255 * colours[owner[covered]]
    canvas[covered] = np.round(blend)


def _show(ax: Axes, canvas: Pixels) -> None:
    height, width = canvas.shape[:2]
    ax.imshow(canvas, zorder=1)
    ax.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    ax.set_axis_off()


def _title(images: Sequence[str], anchors: Sequence[tuple[float, float] | None]) -> str:
    n_empty = anchors.count(None)
    note = f"{n_empty:,} of {len(anchors):,} masks empty" if n_empty else ""
    return "  ·  ".join(filter(None, [*images, note if anchors else "no masks"]))
