"""COCO panoptic as it is found: a JSON and its PNGs, checked against each other."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import SourceError, SourceNotFound, listed
from maskcube.formats.collection import Collection, Item, KeptMaps
from maskcube.formats.files import MaskFiles, Resolver, read_file, source_path
from maskcube.formats.output import REPORT
from maskcube.formats.png import colours, decode, palette_of, size_of
from maskcube.formats.record import Record, integer_of, text_of
from maskcube.threads import spread

__all__ = ["JSON_NAME", "read_panoptic"]

JSON_NAME = "panoptic.json"
"""What our own export calls it."""

_MOST_ID = 2**24
_MOST_JSON_BYTES = 2**31
"""That of all training images of COCO has a third of a gigabyte."""


class _Map(NamedTuple):
    """The PNG of an image, and what the JSON says is in it."""

    file: str
    size: tuple[int, int] | None
    """Height and width in pixels, if the JSON says so."""
    records: dict[int, Record]
    """By the id of the segment."""
    n_crowds: int


class _Seen(NamedTuple):
    """What a PNG has."""

    size: tuple[int, int]
    """Height and width in pixels."""
    empty: list[int]
    """Ids that no pixel has."""
    unknown: list[int]
    """Ids of pixels that the JSON does not know."""


def read_panoptic(
    source: str | os.PathLike[str], *, masks: str | os.PathLike[str] | Resolver | None = None
) -> Collection:
    """Return the segments of a COCO panoptic JSON and its PNGs, compared with each other.

    A segment without pixels is an empty mask; pixels of an id that the JSON does not know are left
    out; both are told when they are stored. Every PNG is decoded once for that. The values of a PNG
    of greys or with a palette are the ids, unless the JSON rather has their colours.

    Parameters
    ----------
    source : path
        The JSON, or a folder with ``panoptic.json`` or a single JSON.
    masks : path or callable, optional
        The folder of the PNGs, or what gives their bytes or paths by their names; by default the
        folder called like the JSON, or else the one that it is in.

    Returns
    -------
    Collection
        The masks, and what speaks against storing them.

    Raises
    ------
    SourceNotFound
        When there is no JSON.
    SourceError
        When it is none.
    """
    path = _json_of(source_path(source))
    document = _Document(_loaded(path))
    maps = document.maps()
    faults = document.faults
    beside = path.with_suffix("")
    if masks is None:
        masks = beside if beside.is_dir() else path.parent
    files = MaskFiles(masks)
    # Pixels are looked at only where the JSON makes sense.
    found = [] if faults else spread(partial(_look, files), maps)
    faults += [seen for seen in found if isinstance(seen, str)]
    known = [(m, seen) for m, seen in zip(maps, found, strict=False) if isinstance(seen, _Seen)]
    kept = KeptMaps()
    return Collection(
        "panoptic",
        path,
        [
            Item(record, seen.size, partial(_mask, kept, files, m, number))
            for m, seen in known
            for number, record in m.records.items()
        ],
        [partial(_json_bytes, path), *(partial(files.read, m.file) for m in maps)],
        faults=faults,
        lost=list(_lost(known)),
    )


def _json_of(place: Path) -> Path:
    """Return the JSON that is meant."""
    if not place.is_dir():
        if not place.is_file():
            raise SourceNotFound(str(place), ["there is no such file or folder"])
        return place
    if (place / JSON_NAME).is_file():
        return place / JSON_NAME
    found = sorted(path for path in place.glob("*.json") if path.name != REPORT)
    if len(found) == 1:
        return found[0]
    names = listed(path.name for path in found) or "none"
    raise SourceNotFound(str(place), [f"has no {JSON_NAME}, and as other JSON {names}: name one"])


def _json_bytes(path: Path) -> bytes:
    return read_file(path, _MOST_JSON_BYTES)


def _loaded(path: Path) -> Any:  # noqa: ANN401 - whatever the JSON has
    try:
        return json.loads(_json_bytes(path))
    except RecursionError:
        raise SourceError(str(path), ["is JSON nested too deep"]) from None
    except ValueError as error:
        raise SourceError(str(path), [f"is no JSON: {error}"]) from None


class _Document:
    """What a panoptic JSON says; all that is wrong with it is in `faults`."""

    def __init__(self, document: Any) -> None:  # noqa: ANN401 - whatever the JSON has
        self.faults: list[str] = []
        self._document = document if isinstance(document, dict) else {}
        if not isinstance(document, dict):
            self.faults.append(f"is a JSON of {type(document).__name__}, no object")

    def maps(self) -> list[_Map]:
        """Return what is said of each PNG."""
        images = self._by_id("images", "file_name")
        nouns = {number: noun for number, (noun, _) in self._by_id("categories", "name").items()}
        found: dict[str, _Map] = {}
        taken: set[int | None] = set()
        for place, annotation in self._objects(self._document, "annotations", ""):
            try:
                number = integer_of("image_id", annotation.get("image_id"))
                file = text_of("file_name", annotation.get("file_name"))
                if number not in images:
                    raise ValueError(f"image_id {number} is no image")  # noqa: TRY301 - told with the rest
                if number in taken or file in found:
                    raise ValueError(f"image_id {number} or {file!r} was there before")  # noqa: TRY301
            except ValueError as error:
                self.faults.append(f"{place}: {error}")
                continue
            taken.add(number)
            name, size = images[number]
            records, n_crowds = self._segments(annotation, place, name, nouns)
            found[file] = _Map(file, size, records, n_crowds)
        return list(found.values())

    def _by_id(self, what: str, name: str) -> dict[int | None, tuple[str, tuple[int, int] | None]]:
        """Return name and size of each image or category, by its id."""
        found: dict[int | None, tuple[str, tuple[int, int] | None]] = {}
        names: set[str] = set()
        for place, entry in self._objects(self._document, what, ""):
            try:
                number = _id_of(entry)
                called = text_of(name, entry.get(name))
                if number in found or (what == "images" and called in names):
                    raise ValueError(f"id {number} or {called!r} was there before")  # noqa: TRY301 - told with the rest
                found[number] = called, _size_of(entry)
                names.add(called)
            except ValueError as error:
                self.faults.append(f"{place}: {error}")
        return found

    def _segments(
        self, annotation: dict[str, Any], place: str, image: str, nouns: dict[int | None, str]
    ) -> tuple[dict[int, Record], int]:
        """Return the segments of an image by their ids, and how many of them are crowds."""
        records: dict[int, Record] = {}
        n_crowds = 0
        for part, segment in self._objects(annotation, "segments_info", f"{place} "):
            try:
                number = _id_of(segment)
                if not 0 < number < _MOST_ID or number in records:
                    raise ValueError(f"id {number} is void, too large, or was there before")  # noqa: TRY301 - told with the rest
                category = integer_of("category_id", segment.get("category_id"))
                if category not in nouns:
                    raise ValueError(f"category_id {category} is no category")  # noqa: TRY301
                records[number] = Record.of(image, nouns[category], segment)
                n_crowds += bool(integer_of("iscrowd", segment.get("iscrowd")))
            except ValueError as error:
                self.faults.append(f"{part}: {error}")
        return records, n_crowds

    def _objects(
        self, parent: dict[str, Any], name: str, where: str
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the objects of a list, and where each is."""
        entries = parent.get(name)
        if not isinstance(entries, list):
            self.faults.append(f"{where}{name}: must be a list, found {type(entries).__name__}")
            return
        for position, entry in enumerate(entries):
            place = f"{where}{name}[{position}]"
            if isinstance(entry, dict):
                yield place, entry
            else:
                self.faults.append(f"{place}: must be an object, found {type(entry).__name__}")


def _id_of(entry: dict[str, Any]) -> int:
    number = integer_of("id", entry.get("id"))
    if number is None:
        raise ValueError("has no id")
    return number


def _size_of(entry: dict[str, Any]) -> tuple[int, int] | None:
    """Return height and width, if both are there."""
    height, width = (integer_of(name, entry.get(name)) for name in ("height", "width"))
    return None if height is None or width is None else (height, width)


def _look(files: MaskFiles, panoptic: _Map) -> _Seen | str:
    """Return what a PNG has, or what is wrong with it."""
    try:
        data = files.read(panoptic.file)
        size = size_of(data)
        if panoptic.size not in (None, size):
            raise ValueError(f"has {size} pixels, and {panoptic.size} by the JSON")  # noqa: TRY301 - told with the rest
        there = _distinct(_ids(data, panoptic))
    except ValueError as error:
        return f"{panoptic.file!r} {error}"
    there.discard(0)
    known = panoptic.records.keys()
    return _Seen(size, sorted(known - there), sorted(there - known))


def _ids(data: bytes, panoptic: _Map) -> NDArray[np.uint32]:
    """Return the id of each pixel, (y, x)."""
    pixels = decode(data)
    if pixels.ndim > 2:  # noqa: PLR2004 - colours
        return colours(pixels)
    # Tools that make files smaller write the same colours as greys, or with a palette.
    there = np.array(sorted(_distinct(pixels)))
    meanings = [there, colours(there[np.newaxis])[0]]
    palette = palette_of(data)
    if palette is not None and there[-1] < len(palette):
        meanings.append(colours(palette[np.newaxis])[0][there])
    known = panoptic.records.keys()
    meaning = max(meanings, key=lambda ids: len(known & {*ids.tolist()}))
    ids = np.zeros(there[-1] + 1, np.uint32)
    ids[there] = meaning
    return np.asarray(ids[pixels], np.uint32)


def _distinct(values: NDArray[Any]) -> set[int]:
    """Return the distinct values; segments are connected, so most pixels equal the one before."""
    flat = values.ravel()
    first = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    return {*flat[:1].tolist(), *np.unique(flat[first]).tolist()}


def _mask(kept: KeptMaps, files: MaskFiles, panoptic: _Map, number: int) -> NDArray[np.uint8]:
    """Return the mask of a segment, (y, x) uint8."""
    ids = kept.get(panoptic.file, lambda: _ids(files.read(panoptic.file), panoptic))
    return np.asarray(ids == number).view(np.uint8)


def _lost(known: list[tuple[_Map, _Seen]]) -> Iterator[str]:
    """Yield what a store will not have of these."""
    empty = [(m.file, number) for m, seen in known for number in seen.empty]
    if empty:
        yield f"segments without a pixel become empty masks: {listed(empty)}"
    unknown = [(m.file, number) for m, seen in known for number in seen.unknown]
    if unknown:
        yield f"pixels of ids that the JSON does not have are left out: {listed(unknown)}"
    n_crowds = sum(m.n_crowds for m, _ in known)
    if n_crowds:
        yield f"crowds (iscrowd) become masks like all others: {n_crowds:,}"
