"""The ``segmentation`` of an annotation of COCO: polygons, or counts as numbers or as text.

What a file says is checked before it is decoded. pycocotools, which only fills polygons here,
crashes on points that are far away and takes memory for every pixel of a polygon's edge.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import missing
from maskcube.formats.rle import Rle
from maskcube.manifest import MOST_MASK_BYTES

__all__ = ["Size", "checked_mask", "filled", "packed", "size_of"]

Size = tuple[int, int]
"""Height and width in pixels."""

_MOST_TEXT = 2**24
"""Characters of compressed counts; those of a mask of pure noise have less than two a pixel."""
_MOST_EDGE = 2**22
"""Pixels along the edges of a mask's polygons: pycocotools holds some hundred bytes for each."""
_LEAST_EDGE = 2**16
"""What they may have, however small the image is."""
_MOST_PLACE = 2**24
"""Pixels from the corner of an image to a point of a polygon."""
_FEWEST = 6
"""Numbers of a polygon: three points."""
_SIZES = 2
"""Height and width."""


def packed(value: dict[str, Any]) -> dict[str, Any]:
    """Return an object of a JSON file with its numbers in a third of the memory.

    For ``object_hook``: nothing is refused here, what cannot be packed stays as it is.
    """
    counts, rings = value.get("counts"), value.get("segmentation")
    try:
        if isinstance(counts, list) and {*map(type, counts)} <= {int}:
            value["counts"] = array("q", counts)
        elif isinstance(rings, list) and all({*map(type, ring)} <= {int, float} for ring in rings):
            value["segmentation"] = [array("d", ring) for ring in rings]
    except (TypeError, ValueError, OverflowError):
        pass
    return value


def size_of(height: object, width: object) -> Size | None:
    """Return the size of an image; None when it has none.

    Raises
    ------
    ValueError
        When it is no size, or too large; the message is half a sentence.
    """
    if height is None and width is None:
        return None
    if type(height) is not int or type(width) is not int or height < 1 or width < 1:
        raise ValueError("height and width are no pixels")
    if height * width > MOST_MASK_BYTES:
        raise ValueError(f"is larger than the {MOST_MASK_BYTES:,} pixels that a mask may have")
    return height, width


def checked_mask(
    segmentation: object, size: Size | None
) -> tuple[Size, Callable[[], NDArray[np.uint8]]]:
    """Return the size of a mask, and what gives its pixels, (y, x) uint8 of 0 and 1.

    Parameters
    ----------
    segmentation : object
        As the JSON has it, `packed` or not.
    size : (int, int), optional
        Height and width that the file gives the image.

    Raises
    ------
    ValueError
        When it is no mask of this size; the message is half a sentence.
    MissingDependency
        When there are polygons and pycocotools is not installed.
    """
    if isinstance(segmentation, dict):
        return _counted(segmentation, size)
    if not isinstance(segmentation, list):
        raise ValueError("has a segmentation that is neither polygons nor counts")  # noqa: TRY004 - a fault
    if size is None:
        raise ValueError("has polygons, but its image no height and width")
    # Rather now than in the middle of a conversion.
    _filler()
    rings = [_checked_ring(ring) for ring in segmentation]
    _check_edges(rings, size)
    return size, lambda: filled(rings, size).mask()


def filled(rings: Sequence[Sequence[float]], size: Size) -> Rle:
    """Return the runs of the pixels that pycocotools finds in some polygons, at least one.

    Raises
    ------
    MissingDependency
        When pycocotools is not installed.
    """
    fill = _filler()
    # One at a time: this is what takes memory. Its own union takes minutes for some thousands.
    found = (fill([list(ring)], *size)[0]["counts"] for ring in rings)
    return Rle.union([Rle.parsed(counts.decode("ascii"), size) for counts in found])


def _filler() -> Callable[..., Any]:
    try:
        from pycocotools.mask import frPyObjects
    except ImportError:
        raise missing("pycocotools", "coco", "filling polygons") from None
    fill: Callable[..., Any] = frPyObjects
    return fill


def _counted(segmentation: dict[str, Any], size: Size | None) -> tuple[Size, Callable[[], Any]]:
    counts, told = segmentation.get("counts"), segmentation.get("size")
    if not isinstance(told, list) or len(told) != _SIZES:
        raise ValueError("has counts without a size of height and width")
    own = size_of(*told)
    if own is None or own != (size or own):
        raise ValueError(f"has counts of (height, width) {own}, and its image has {size}")
    if isinstance(counts, str):
        if len(counts) > _MOST_TEXT:
            raise ValueError(f"has counts of more than {_MOST_TEXT:,} characters")
        text = _unquoted(counts)
        Rle.parsed(text, own)
        return own, lambda: Rle.parsed(text, own).mask()
    if not isinstance(counts, list | array):
        raise ValueError("has counts that are neither numbers nor text")  # noqa: TRY004 - a fault
    Rle.counted(counts, own)
    return own, lambda: Rle.counted(counts, own).mask()


def _unquoted(text: str) -> str:
    """Return the counts of a text that shows bytes, as Python does: a quote is in no counts."""
    if not (text.startswith(("b'", 'b"')) and text.endswith(text[1])):
        return text
    return text[2:-1].replace("\\\\", "\\")


def _checked_ring(ring: object) -> Sequence[float]:
    if not isinstance(ring, list | array) or not all(map(_is_number, ring)):
        raise ValueError("has a polygon that is no list of numbers within reach of its image")
    if len(ring) < _FEWEST or len(ring) % 2:
        raise ValueError(f"has a polygon of {len(ring):,} numbers: x and y of at least 3 points")
    return ring


def _check_edges(rings: Sequence[Sequence[float]], size: Size) -> None:
    """Raise `ValueError` if all edges together are longer than any mask's outlines."""
    edge = 0.0
    for ring in rings:
        points = np.array(ring, np.float64).reshape(-1, 2)
        edge += float(np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum())
    height, width = size
    # No outline is longer than all edges of all pixels, cuts to its holes included.
    if edge > min(_MOST_EDGE, max(_LEAST_EDGE, 4 * height * width + 8 * (height + width))):
        raise ValueError(f"has polygons with an edge of {edge:,.0f} pixels, which is no outline")


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= _MOST_PLACE  # type: ignore[arg-type]
