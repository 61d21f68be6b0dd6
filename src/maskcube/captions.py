"""Captions: in which colour a mask is shown, and where its name stands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Caption", "Front", "deepest_pixel", "palette", "place", "shortened", "write_names"]

Colours = npt.NDArray[np.float64]

_GRID = 160  # a name's place need not be exact to the pixel
_REACH = 8  # lines of text that a name may move away from its mask
_FONT_POINTS = (5.5, 8.5)  # in small and in large axes
_BRIGHT = 0.53  # luminance above which dark text is easier to read
_INK = "#2b2b2b"


def palette(n_colours: int) -> Colours:
    """Return colours as unlike as can be, also between neighbours: (n_colours, 3) in 0 to 1.

    Hues a golden angle apart in OKLCH, where equal steps look equal, at five lightnesses
    (https://bottosson.github.io/posts/oklab).

    Examples
    --------
    >>> palette(2).round(2).tolist()
    [[0.91, 0.43, 0.39], [0.0, 0.55, 0.34]]
    """
    index = np.arange(n_colours)
    hue = 0.45 + index * np.pi * (3 - np.sqrt(5))
    # Colours 13, 21 or 34 apart have almost the same hue; by fives, another lightness.
    light = np.array([0.68, 0.55, 0.8, 0.61, 0.74])[index % 5]
    a, b = 0.155 * np.cos(hue), 0.155 * np.sin(hue)
    to_lms = np.array(
        [
            [1, 0.3963377774, 0.2158037573],
            [1, -0.1055613458, -0.0638541728],
            [1, -0.0894841775, -1.2914855480],
        ]
    )
    to_rgb = np.array(
        [
            [4.0767416621, -3.3077115913, 0.2309699292],
            [-1.2684380046, 2.6097574011, -0.3413193965],
            [-0.0041960863, -0.7034186147, 1.7076147010],
        ]
    )
    linear = np.clip(to_rgb @ (to_lms @ np.stack([light, a, b])) ** 3, 0, 1).T
    dark, bright = 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055
    colours: Colours = np.where(dark < 0.04045, dark, bright)  # noqa: PLR2004
    return colours


def deepest_pixel(mask: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Return x, y of a pixel of `mask` far from its outline; the mask must not be empty.

    Examples
    --------
    >>> deepest_pixel(np.pad(np.ones((5, 5), dtype=bool), ((0, 0), (2, 3))))
    (4.0, 2.0)
    """
    step = -(-max(mask.shape) // _GRID)
    deep = np.pad(mask[step // 2 :: step, step // 2 :: step], 1)
    if not deep.any():  # thinner than the grid
        ys, xs = np.nonzero(mask)
        return float(xs[xs.size // 2]), float(ys[ys.size // 2])
    inner = deep
    while inner.any():
        deep = inner
        inner = np.zeros_like(deep)
        across = deep[1:-1, 1:-1] & deep[1:-1, :-2] & deep[1:-1, 2:]
        inner[1:-1, 1:-1] = across & deep[:-2, 1:-1] & deep[2:, 1:-1]
    ys, xs = np.nonzero(deep)
    middle = np.argmin((xs - xs.mean()) ** 2 + (ys - ys.mean()) ** 2)
    return float((xs[middle] - 1) * step + step // 2), float((ys[middle] - 1) * step + step // 2)


class Caption(NamedTuple):
    """A line of text: its middle x, y and half of its width and height, in pixels of the image."""

    x: float
    y: float
    half_width: float
    half_height: float

    def hides(self, other: Caption) -> bool:
        """Tell whether the two cannot both be read."""
        return (
            abs(self.x - other.x) < self.half_width + other.half_width
            and abs(self.y - other.y) < self.half_height + other.half_height
        )


def place(wanted: Caption, taken: list[Caption], shape: tuple[int, int]) -> Caption:
    """Return `wanted`, moved as little as need be to hide none of `taken` and be in the image.

    Where there is no room within a few lines of text, it stays where it is.
    """
    height, width = shape
    for radius in np.arange(0, _REACH, 0.5) * 2 * wanted.half_height:
        for angle in np.arange(0, 2 * np.pi, np.pi / 6) + np.pi / 2:
            x, y = wanted.x + radius * np.cos(angle), wanted.y + radius * np.sin(angle)
            moved = wanted._replace(
                x=float(max(min(x, width - wanted.half_width), wanted.half_width)),
                y=float(max(min(y, height - wanted.half_height), wanted.half_height)),
            )
            if not any(moved.hides(other) for other in taken):
                return moved
    return wanted


class Front(NamedTuple):
    """What can be seen of overlapping masks, the smallest on top."""

    owner: npt.NDArray[np.int32]
    """(y, x): the mask at each pixel, -1 where there is none."""
    anchors: list[tuple[float, float] | None]
    """A pixel x, y of each mask, whether it can be seen or not; None when the mask is empty."""


def write_names(ax: Axes, names: Sequence[str], front: Front, colours: Colours) -> None:
    """Write each name where its mask can be seen, moved aside where another stands already."""
    ax.apply_aspect()  # only then are the axes as wide as their image
    figure = ax.get_figure(root=True)
    inches = ax.get_position().height * (figure.get_figheight() if figure else 1)
    size = float(np.clip(2.5 * inches, *_FONT_POINTS))
    line = 1.8 * size / 72 / inches * front.owner.shape[0]
    taken: list[Caption] = []
    for row, (name, anchor) in enumerate(zip(names, front.anchors, strict=True)):
        if anchor is not None:
            seen = front.owner == row
            x, y = deepest_pixel(seen) if seen.any() else anchor
            wanted = Caption(x, y, (0.17 * len(name) + 0.3) * line, line / 2)
            taken.append(place(wanted, taken, front.owner.shape))
            _write_name(ax, name, (x, y), taken[-1], size=size, colour=colours[row])


def _write_name(
    ax: Axes, name: str, point: tuple[float, float], at: Caption, *, size: float, colour: Colours
) -> None:
    bright = colour @ (0.3, 0.59, 0.11) > _BRIGHT
    if (at.x, at.y) != point:
        ax.plot([point[0], at.x], [point[1], at.y], color=0.7 * colour, linewidth=1, zorder=4)
    ax.text(
        at.x,
        at.y,
        name,
        fontsize=size,
        color=_INK if bright else "white",
        ha="center",
        va="center",
        bbox={"boxstyle": "round,pad=0.25", "fc": (*colour, 0.92), "ec": "white", "lw": 0.8},
        zorder=5,
        parse_math=False,
    )


def shortened(text: str, n_characters: int) -> str:
    """Return `text`, its middle left out where it is longer than `n_characters`.

    Examples
    --------
    >>> shortened("shared_12rep_LAION_cluster_1003_i0.jpg", 21)
    'shared_12r…003_i0.jpg'
    """
    if len(text) <= n_characters:
        return text
    tail = (n_characters - 1) // 2
    return f"{text[: n_characters - 1 - tail]}…{text[len(text) - tail :]}"
