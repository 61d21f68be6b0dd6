"""Polygons and boxes of Nucleus: what a mask is beside its map, overlaps and all.

A polygon of Nucleus is one ring [1]_: a mask of several parts becomes several, which say so in
their metadata, and holes are joined by bridges; see `maskcube.formats.rings`.

References
----------
.. [1] https://dashboard.scale.com/nucleus/docs/api, PolygonAnnotation
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.record import Record
from maskcube.formats.rings import fill_ring, rings_of

__all__ = [
    "box_payload",
    "box_ring",
    "fill_rings",
    "polygon_payloads",
    "vertices_of",
]

_FARTHEST = 1e9
"""No vertex is further away than this; larger ones would not leave the numbers exact."""

_FEWEST = 3
"""Vertices of a ring."""


def polygon_payloads(record: Record, number: int, mask: NDArray[np.uint8]) -> list[dict[str, Any]]:
    """Return the polygons of a mask, one for each part; one without vertices of an empty mask.

    Parameters
    ----------
    record : Record
        Its coordinates.
    number : int
        A number that no other mask of this image has, best the same in every export.
    mask : numpy.ndarray
        (y, x) uint8, 1 where the object is.
    """
    rings = rings_of(mask) or [np.empty((0, 2), np.int64)]
    height, width = mask.shape
    size = {"image_height": height, "image_width": width}
    metadata = {**record.properties(), "area": int(np.count_nonzero(mask)), **size}
    return [
        {
            "label": record.noun,
            "type": "polygon",
            "geometry": {"vertices": [{"x": x, "y": y} for x, y in ring.tolist()]},
            "reference_id": record.image,
            "annotation_id": f"{record.image}_{number}_{part}",
            "metadata": {**metadata, "mask": number, "part": part, "n_parts": len(rings)},
        }
        for part, ring in enumerate(rings)
    ]


def box_payload(record: Record, number: int, mask: NDArray[np.uint8]) -> dict[str, Any] | None:
    """Return the box of a mask: the detector's, or that of its pixels; None if it has none.

    Parameters
    ----------
    record, number, mask
        As in `polygon_payloads`.
    """
    edges, source = _detected(record.box), "detector"
    if edges is None:
        edges, source = _box_of(mask), "mask"
    if edges is None:
        return None
    x0, y0, x1, y1 = edges
    height, width = mask.shape
    size = {"image_height": height, "image_width": width}
    area = int(np.count_nonzero(mask))
    return {
        "label": record.noun,
        "type": "box",
        "geometry": {"x": x0, "y": y0, "width": x1 - x0, "height": y1 - y0},
        "reference_id": record.image,
        "annotation_id": f"{record.image}_{number}",
        "metadata": {**record.properties(), "area": area, **size, "mask": number, "box_of": source},
    }


def _detected(box: tuple[float | None, ...]) -> tuple[float, float, float, float] | None:
    x0, y0, x1, y1 = box
    if x0 is None or y0 is None or x1 is None or y1 is None or x1 <= x0 or y1 <= y0:
        return None
    return (x0, y0, x1, y1) if math.isfinite(x0 + y0 + x1 + y1) else None


def _box_of(mask: NDArray[np.uint8]) -> tuple[float, float, float, float] | None:
    lines, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(lines):
        return None
    return float(columns[0]), float(lines[0]), float(columns[-1] + 1), float(lines[-1] + 1)


def vertices_of(geometry: Any) -> NDArray[np.floating[Any] | np.integer[Any]]:  # noqa: ANN401 - any JSON
    """Return the vertices of a polygon.

    Parameters
    ----------
    geometry : object
        As it was found.

    Returns
    -------
    numpy.ndarray
        (vertex, 2) int32 where all are integers, else float64: x and y in pixels.

    Raises
    ------
    ValueError
        With a sentence, when it is none of a polygon.
    """
    found = geometry.get("vertices") if isinstance(geometry, Mapping) else None
    if not isinstance(found, list):
        raise ValueError("has no list of vertices")  # noqa: TRY004 - a fault of data
    if not found:
        return np.empty((0, 2), np.int32)
    values = [_number(vertex, key) for vertex in found for key in ("x", "y")]
    if len(found) < _FEWEST:
        raise ValueError(f"has {len(found)} vertices, and a ring has three at least")
    ring = np.array(values, np.float64).reshape(-1, 2)
    small = ring.astype(np.int32)
    return small if (small == ring).all() else ring


def box_ring(geometry: Any) -> NDArray[np.float64]:  # noqa: ANN401 - any JSON
    """Return the corners of a box.

    Returns
    -------
    numpy.ndarray
        (4, 2) float64, x and y in pixels.

    Raises
    ------
    ValueError
        With a sentence, when it is no geometry of a box.
    """
    if not isinstance(geometry, Mapping):
        raise ValueError("has no geometry")  # noqa: TRY004 - a fault of data
    x, y, width, height = (_number(geometry, key) for key in ("x", "y", "width", "height"))
    corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    return np.array(corners, np.float64)


def _number(values: Any, key: str) -> float:  # noqa: ANN401 - any JSON
    value = values.get(key) if isinstance(values, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= _FARTHEST:
        raise ValueError(f"has a {key} in its geometry that is no number of pixels")
    return float(value)


def fill_rings(
    rings: list[NDArray[np.floating[Any] | np.integer[Any]]], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return the mask with the pixels whose centres are in any of these rings.

    Parameters
    ----------
    rings : list of numpy.ndarray
        (vertex, 2) each, x and y in pixels.
    size : (int, int)
        Height and width in pixels.

    Returns
    -------
    numpy.ndarray
        (y, x) uint8, 1 inside.
    """
    mask = np.zeros(size, np.uint8)
    for ring in rings:
        fill_ring(ring.astype(np.float64), mask)
    return mask
