"""Masks out of outlines: polygons of Nucleus, one or several of which are one, and boxes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.collection import Item
from maskcube.formats.nucleus_findings import NucleusFindings, metadata_of, record_of
from maskcube.formats.nucleus_rows import BOX, Annotation, Row, annotations_of
from maskcube.formats.nucleus_shapes import box_ring, fill_rings, vertices_of
from maskcube.formats.record import Record, integer_of

__all__ = ["OutlineReader"]

_MOST_PIXELS = 2**26
"""Of an image that only says how large it is; as many as a PNG may have."""

Ring = NDArray[np.floating[Any] | np.integer[Any]]


@dataclass
class _Outlined:
    """A mask, as the rings of its parts."""

    number: int
    place: str
    record: Record
    size: tuple[int, int]
    n_parts: int
    rings: list[Callable[[], Ring]]

    def mask(self) -> NDArray[np.uint8]:
        """Return the mask."""
        return fill_rings([ring() for ring in self.rings], self.size)


class OutlineReader:
    """Reads annotations that are polygons, or boxes.

    Parameters
    ----------
    size : (int, int), optional
        Height and width of images of which nothing else says it.
    findings : NucleusFindings
        Where to tell what is wrong.
    """

    def __init__(self, size: tuple[int, int] | None, findings: NucleusFindings) -> None:
        self._size = size
        self._findings = findings
        self._shapes: dict[Any, _Outlined] = {}
        self._places: dict[tuple[str, str], str] = {}

    def add(
        self, number: int, place: str, row: Row, annotation: Annotation, *, is_alone: bool
    ) -> None:
        """Take an annotation of a row, perhaps the only one there.

        Raises
        ------
        ValueError
            With a sentence, when it cannot be read.
        """
        record, metadata = record_of(annotation, annotation.fields), metadata_of(annotation.fields)
        ring = _ring(annotation)
        self._check_identity(record.image, annotation.fields.get("annotation_id"), place)
        self._findings.lose_metadata(metadata, place)
        # Others may have made floats or texts of our integers; a part is no mask for that.
        n_parts, mask = (integer_of(key, metadata.get(key)) for key in ("n_parts", "mask"))
        is_part = n_parts is not None and n_parts > 1 and mask is not None
        n_all = n_parts if n_parts is not None and is_part else 1
        key = (record.image, record.noun, mask) if is_part else number
        if key not in self._shapes:
            size = self._size_of(annotation, metadata)
            self._shapes[key] = _Outlined(number, place, record, size, n_all, [])
        shape = self._shapes[key]
        if shape.record != record or shape.n_parts != n_all:
            raise ValueError(
                f"is a part of the mask of {shape.place}, and says something else of it"
            )
        self._findings.identify(record.image, record.noun, ring.tobytes())
        # What is alone on its line is read again; others would be read as often as they are many.
        again = partial(_ring_again, row)
        shape.rings.append(again if is_alone and not row.is_kept else lambda: ring)

    def _check_identity(self, image: str, identity: object, place: str) -> None:
        if identity is None:
            return
        if not isinstance(identity, str):
            raise ValueError("has an annotation_id that is no text")  # noqa: TRY004 - a fault of data
        if (first := self._places.setdefault((image, identity), place)) != place:
            raise ValueError(f"has the annotation_id {identity!r} of another one, in {first}")

    def _size_of(self, annotation: Annotation, metadata: Mapping[str, Any]) -> tuple[int, int]:
        own = (metadata.get("image_height"), metadata.get("image_width"))
        for height, width in (own, annotation.size, self._size or (None, None)):
            if height is None or width is None:
                continue
            if not (type(height) is type(width) is int and height > 0 and width > 0):
                raise ValueError("has an image whose height or width is no number of pixels")
            if height * width > _MOST_PIXELS:
                raise ValueError(f"has an image of more than {_MOST_PIXELS:,} pixels")
            return height, width
        raise ValueError("does not say how large its image is: give size=(height, width)")

    def items(self) -> Iterator[tuple[int, Item]]:
        """Yield the masks, each with the number of its first annotation."""
        for shape in self._shapes.values():
            if len(shape.rings) != shape.n_parts:
                problem = f"is of a mask of {shape.n_parts} parts; there are {len(shape.rings)}"
                self._findings.fault(shape.place, problem)
                continue
            yield shape.number, Item(shape.record, shape.size, shape.mask)


def _ring(annotation: Annotation) -> Ring:
    geometry = annotation.fields.get("geometry")
    return box_ring(geometry) if annotation.kind == BOX else vertices_of(geometry)


def _ring_again(row: Row) -> Ring:
    return _ring(next(annotations_of(row.load())))
