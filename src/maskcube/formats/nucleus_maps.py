"""Masks out of maps: each segment of a map of Nucleus is one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.collection import Item, KeptMaps
from maskcube.formats.nucleus_files import MapFiles
from maskcube.formats.nucleus_findings import NucleusFindings, metadata_of, record_of
from maskcube.formats.nucleus_rows import Annotation
from maskcube.formats.nucleus_segments import BACKGROUND
from maskcube.formats.png import decode, greys
from maskcube.formats.record import Record
from maskcube.threads import spread

__all__ = ["MapReader"]

_LONGEST_INDEX = 9


@dataclass(frozen=True)
class _Map:
    """A map and its segments."""

    number: int
    place: str
    read: Callable[[], bytes]
    segments: dict[int, Record]

    def decoded(self) -> NDArray[Any]:
        """Return the map, (y, x) unsigned."""
        data = self.read()
        try:
            return greys(decode(data))
        except ValueError as error:
            raise ValueError(f"has a map that {error}") from error

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
    findings : NucleusFindings
        Where to tell what is wrong.
    """

    def __init__(self, files: MapFiles, findings: NucleusFindings) -> None:
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
        self._maps.append(_Map(number, place, read, segments))

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
        self._findings.lose_metadata(metadata_of(fields), place)
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
    if index is None:
        return None
    if isinstance(index, bool) or not isinstance(index, Integral):
        raise ValueError("has an index that is no number")  # noqa: TRY004 - a fault of data
    return int(index)


def _contents(found: _Map) -> tuple[tuple[int, int], set[int]] | str:
    """Return size and values of a map, or what is wrong with it."""
    try:
        pixels = found.decoded()
    except (OSError, ValueError) as error:
        return str(error)
    height, width = pixels.shape
    return (height, width), set(np.flatnonzero(np.bincount(pixels.reshape(-1))).tolist())
