"""Masks out of annotations of Nucleus: segments of maps, and polygons that are parts of a mask."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.collection import Item, KeptMaps
from maskcube.formats.nucleus_files import MapFiles
from maskcube.formats.nucleus_rows import BOX, Annotation, Row, annotations_of
from maskcube.formats.nucleus_segments import BACKGROUND
from maskcube.formats.nucleus_shapes import box_ring, fill_rings, vertices_of
from maskcube.formats.png import decode, greys
from maskcube.formats.record import Record
from maskcube.threads import spread

__all__ = ["Findings", "MapReader", "ShapeReader"]

_MOST_PIXELS = 2**26
_LONGEST_INDEX = 9
_OWN_KEYS = frozenset(
    (
        *("instance", "score", "box_x0", "box_y0", "box_x1", "box_y1", "localized", "mask_file"),
        *("mask_row", "area", "visible_fraction", "n_masks", "mask", "part", "n_parts"),
        *("image_height", "image_width", "box_of"),
    )
)
"""What a store keeps of the metadata, or what can be counted again."""

Ring = NDArray[np.floating[Any] | np.integer[Any]]


@dataclass
class Findings:
    """What is wrong with a source, and what of it a store does not keep."""

    faults: list[str] = field(default_factory=list)
    files: list[Callable[[], bytes]] = field(default_factory=list)
    """What gives the bytes of each map."""
    _identity: Any = field(default_factory=hashlib.sha256)
    _lost: Counter[str] = field(default_factory=Counter)
    _examples: dict[str, str] = field(default_factory=dict)

    def fault(self, place: str, problem: object) -> None:
        """Note that something cannot be read."""
        self.faults.append(f"{place}: {problem}")

    def lose(self, what: str, example: str) -> None:
        """Note that something is not kept."""
        self._lost[what] += 1
        self._examples.setdefault(what, example)

    def identify(self, *parts: object) -> None:
        """Note what tells these masks from others, beside their records."""
        self._identity.update(repr(parts).encode("utf-8", "backslashreplace"))

    @property
    def identity(self) -> bytes:
        """All of that."""
        return bytes(self._identity.digest())

    @property
    def lost(self) -> list[str]:
        """What is not kept: a sentence for each kind of thing, with the first of them."""
        return [
            f"{what}: {count:,}, the first in {self._examples[what]}"
            for what, count in self._lost.items()
        ]


def record_of(annotation: Annotation, fields: Mapping[str, Any]) -> Record:
    """Return what an annotation, or a segment of it, says of its mask.

    Raises
    ------
    ValueError
        With a sentence, when it says no noun or no image, or something that cannot be.
    """
    image, noun, metadata = annotation.image, fields.get("label"), metadata_of(fields)
    if not isinstance(image, str) or not image:
        raise ValueError("has no reference_id that is a text")
    if not isinstance(noun, str) or not noun:
        raise ValueError("has no label that is a text")
    if "confidence" in fields and "score" not in metadata:
        metadata = {**metadata, "score": fields["confidence"]}
    return Record.of(image, noun, metadata)


def metadata_of(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of an annotation, or a segment.

    Raises
    ------
    ValueError
        With a sentence, when these are no mapping.
    """
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ValueError("has metadata that are no object")
    return metadata or {}


def _lose_metadata(findings: Findings, metadata: Mapping[str, Any], place: str) -> None:
    for key in metadata:
        if key not in _OWN_KEYS:
            findings.lose(f"metadata {str(key)[:60]!r} is not kept", place)


@dataclass(frozen=True)
class _Map:
    """A map and its segments."""

    number: int
    place: str
    image: str
    read: Callable[[], bytes]
    segments: dict[int, Record]

    def decoded(self) -> NDArray[Any]:
        """Return the map, (y, x) unsigned."""
        try:
            return greys(decode(self.read()))
        except ValueError as error:
            raise ValueError(f"the mask of {self.image!r} {error}") from error

    def mask(self, kept: KeptMaps, index: int) -> NDArray[np.uint8]:
        """Return the mask of a segment."""
        pixels = kept.get(self.number, self.decoded)
        mask: NDArray[np.bool_] = pixels == index
        return mask.view(np.uint8)


class MapReader:
    """Reads annotations that are maps with segments.

    Parameters
    ----------
    files : MapFiles
        Finds the maps.
    findings : Findings
        Where to tell what is wrong.
    """

    def __init__(self, files: MapFiles, findings: Findings) -> None:
        self._files = files
        self._findings = findings
        self._maps: list[_Map] = []
        self._places: dict[str, str] = {}

    def add(self, number: int, place: str, annotation: Annotation) -> None:
        """Take an annotation; its map is not read yet.

        Raises
        ------
        ValueError
            With a sentence, when it cannot be read.
        """
        image, url = annotation.image, annotation.fields.get("mask_url")
        if not isinstance(image, str) or not image:
            raise ValueError("has no reference_id that is a text")
        if not isinstance(url, str) or not url:
            raise ValueError("has no mask_url that is a text")
        if (first := self._places.setdefault(image, place)) != place:
            raise ValueError(f"is a second map of {image!r}; the first is in {first}")
        found = annotation.fields.get("annotations")
        if not isinstance(found, list | tuple):
            raise ValueError("has no list of segments")  # noqa: TRY004 - a fault of data
        segments = self._segments(place, annotation, list(found))
        read = self._files.find(url)
        self._findings.identify(image, url, sorted(segments))
        self._findings.files.append(read)
        self._maps.append(_Map(number, place, image, read, segments))

    def _segments(self, place: str, annotation: Annotation, found: list[Any]) -> dict[int, Record]:
        segments: dict[int, Record] = {}
        for position, fields in enumerate(found):
            try:
                index, record = self._segment(place, annotation, fields)
            except ValueError as error:
                raise ValueError(f"has the segment {position}, which {error}") from None
            if index is None:
                self._findings.lose("segments without an index have no pixels", place)
            elif index in segments:
                raise ValueError(f"has two segments of index {index}")
            else:
                segments[index] = record
        return segments

    def _segment(
        self, place: str, annotation: Annotation, fields: object
    ) -> tuple[int | None, Record]:
        if not isinstance(fields, Mapping):
            raise ValueError("is no object")  # noqa: TRY004 - a fault of data
        _lose_metadata(self._findings, metadata_of(fields), place)
        return _index(fields.get("index")), record_of(annotation, fields)

    def items(self) -> Iterator[tuple[int, Item]]:
        """Yield the masks, each with the number of its annotation; reads every map once."""
        kept = KeptMaps()
        for each, found in zip(self._maps, spread(_contents, self._maps), strict=True):
            if isinstance(found, str):
                self._findings.fault(each.place, found)
                continue
            size, values = found
            masks = {
                i: record for i, record in each.segments.items() if not _is_background(i, record)
            }
            for _ in masks.keys() - values:
                self._findings.lose("segments without a pixel are no masks", each.place)
            for _ in values - each.segments.keys() - {0}:
                self._findings.lose("values without a segment are not kept", each.place)
            for index in sorted(masks.keys() & values):
                record = masks[index]
                yield each.number, Item(record, size, partial(each.mask, kept, index))


def _is_background(index: int, record: Record) -> bool:
    return index == 0 and record.noun.strip().casefold() == BACKGROUND


def _index(index: object) -> int | None:
    """Return the value of a segment; the vendor's own examples have it as text too."""
    if isinstance(index, str) and index.isdecimal() and len(index) <= _LONGEST_INDEX:
        return int(index)
    if isinstance(index, float) and index.is_integer():
        return int(index)
    if index is not None and (isinstance(index, bool) or not isinstance(index, int)):
        raise ValueError("has an index that is no number")
    return index


def _contents(found: _Map) -> tuple[tuple[int, int], set[int]] | str:
    """Return size and values of a map, or what is wrong with it."""
    try:
        pixels = found.decoded()
    except (OSError, ValueError) as error:
        return str(error)
    height, width = pixels.shape
    return (height, width), set(np.flatnonzero(np.bincount(pixels.reshape(-1))).tolist())


@dataclass
class _Shape:
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


class ShapeReader:
    """Reads annotations that are polygons, or boxes.

    Parameters
    ----------
    size : (int, int), optional
        Height and width of images of which nothing else says it.
    findings : Findings
        Where to tell what is wrong.
    """

    def __init__(self, size: tuple[int, int] | None, findings: Findings) -> None:
        self._size = size
        self._findings = findings
        self._shapes: dict[Any, _Shape] = {}
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
        _lose_metadata(self._findings, metadata, place)
        n_parts, mask = metadata.get("n_parts", 1), metadata.get("mask")
        is_part = isinstance(n_parts, int) and n_parts > 1 and isinstance(mask, int)
        key = (record.image, record.noun, mask) if is_part else number
        if key not in self._shapes:
            size = self._size_of(annotation, metadata)
            self._shapes[key] = _Shape(number, place, record, size, n_parts if is_part else 1, [])
        shape = self._shapes[key]
        if shape.record != record or shape.n_parts != (n_parts if is_part else 1):
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
