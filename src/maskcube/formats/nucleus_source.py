"""Masks from Scale Nucleus: our own folders, payloads of anybody, rows of an export."""

from __future__ import annotations

import json
from collections.abc import Collection as Some
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from maskcube.errors import InvalidOption, SourceError, SourceNotFound, listed
from maskcube.formats.choices import check_size
from maskcube.formats.collection import Collection
from maskcube.formats.files import Resolver, source_path
from maskcube.formats.intake import store_collection
from maskcube.formats.nucleus import ANNOTATIONS, EMPTY, FILES
from maskcube.formats.nucleus_files import MapFiles
from maskcube.formats.nucleus_findings import NucleusFindings
from maskcube.formats.nucleus_maps import MapReader
from maskcube.formats.nucleus_outlines import OutlineReader
from maskcube.formats.nucleus_rows import (
    BOX,
    MASK,
    POLYGON,
    Annotation,
    Row,
    annotations_of,
    rows_of,
)
from maskcube.objects import StoreLike
from maskcube.report import ConversionReport

__all__ = ["from_nucleus", "read_nucleus"]

_TYPES = (MASK, POLYGON, BOX)

Source = str | Path | Mapping[str, Any] | Iterable[Any]


def read_nucleus(
    source: Source,
    *,
    masks: str | Path | Resolver | None = None,
    types: Some[str] = (MASK, POLYGON),
    size: tuple[int, int] | None = None,
) -> Collection:
    """Return the masks that annotations of Scale Nucleus hold; their pixels are read later.

    Every map is read once to see that it can be, and what is in it. Nothing is asked over a
    network.

    Parameters
    ----------
    source : path, or iterable of dict or of objects of Scale's client
        A folder that `to_nucleus` has made; a file of JSON lines, or, with the suffix ``.json``, a
        JSON document; or what is in such files: payloads of annotations, rows of
        ``Dataset.items_and_annotation_generator`` and answers of ``Dataset.refloc``, also as these
        come from the server.
    masks : path or callable, optional
        The folder of the maps: each is that whose path ends most like its URL. Or what gets them:
        it takes a URL and gives the PNG's bytes or a path, and is asked on several threads, and
        again for each URL. By default the folder of the source; nothing outside of a folder is
        read.
    types : collection of {"mask", "polygon", "box"}, default ("mask", "polygon")
        Which annotations are masks. A segment of a map is one, but not that of 0 which is called
        background. A polygon has the pixels whose centres are inside of it (even-odd), a box
        likewise.
    size : (int, int), optional
        Height and width of the images of polygons and boxes that do not say it.

    Returns
    -------
    Collection
        The masks; what in `source` is faulty, and what a store does not keep.

    Raises
    ------
    SourceNotFound
        When nothing is at that place.
    InvalidOption
        When an argument has no meaning.
    MissingDependency
        Pillow is not installed.

    Examples
    --------
    >>> polygon = {
    ...     "type": "polygon",
    ...     "label": "hand",
    ...     "geometry": {"vertices": [{"x": 1, "y": 0}, {"x": 3, "y": 0}, {"x": 3, "y": 2}]},
    ...     "reference_id": "a.jpg",
    ... }
    >>> [item] = read_nucleus([polygon], size=(2, 4)).items
    >>> item.record.noun, item.read().tolist()
    ('hand', [[0, 1, 1, 0], [0, 0, 1, 0]])
    """
    _check_types(types)
    folder, files = _place_of(source)
    findings = NucleusFindings()
    maps = MapReader(_map_files(masks, folder), findings)
    check_size("size", size)
    outlines = OutlineReader(size, findings)
    reader = _Reader(types, maps, outlines, findings)
    sources: list[Any] = [*files] or [source]
    for each in sources:
        for row in rows_of(each):
            reader.read(row)
    numbered = sorted([*maps.items(), *outlines.items()], key=itemgetter(0))
    items = [item for _, item in numbered]
    if not items and not findings.faults:
        others = f" ({'; '.join(findings.lost)})" if findings.lost else ""
        findings.faults.append(
            f"there are no masks among its {reader.n_annotations:,} annotations{others}"
        )
    return Collection(
        "nucleus",
        str(source_path(source)) if isinstance(source, str | Path) else "annotations",
        items,
        [*files, findings.identity, *findings.files],
        faults=findings.faults,
        lost=findings.lost,
    )


def from_nucleus(
    source: Source,
    store: StoreLike,
    *,
    masks: str | Path | Resolver | None = None,
    types: Some[str] = (MASK, POLYGON),
    size: tuple[int, int] | None = None,
    **options: Any,
) -> ConversionReport:
    """Make a store of what annotations of Scale Nucleus hold.

    Parameters
    ----------
    source, masks, types, size
        As in `maskcube.formats.nucleus_source.read_nucleus`.
    store : path, URL or zarr Store
        The store to make.
    **options
        As for `maskcube.formats.intake.store_collection`: ``fit`` and ``shape``
        for masks of several sizes, ``overwrite``, ``allow_duplicates``, ``workers``, ``memory``,
        ``progress``, ``storage_options``, ``license``.

    Returns
    -------
    ConversionReport
        Counts, sizes and time.

    Raises
    ------
    SourceError
        When something in `source` cannot be read: everything that is wrong is told, and nothing is
        written.
    InvalidOption, MissingDependency, StoreExists
        As in `read_nucleus` and `store_collection`.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> from maskcube.formats.nucleus import to_nucleus
    >>> masks = open_masks("masks.zarr").sel(noun="hand")
    >>> report = to_nucleus(masks, "hands", geometry="polygon", progress=False)
    >>> report = from_nucleus("hands", "hands.zarr", progress=False)
    >>> bool((open_masks("hands.zarr").values == masks.values).all())
    True
    """
    collection = read_nucleus(source, masks=masks, types=types, size=size)
    return store_collection(collection, store, **options)


def _check_types(types: Some[str]) -> None:
    if isinstance(types, str) or not types or not set(types) <= set(_TYPES):
        raise InvalidOption(f"types={types!r}: give a list of some of {listed(_TYPES)}")


def _place_of(source: Source) -> tuple[Path | None, list[Path]]:
    """Return the folder to look for maps in, and the files to read; none if it is no path."""
    if not isinstance(source, str | Path):
        return None, []
    path = source_path(source)
    if path.is_dir():
        files = [path / ANNOTATIONS, path / EMPTY]
        if not files[0].is_file():
            raise SourceNotFound(str(path), [f"there is no {ANNOTATIONS} in this folder"])
        return path, [file for file in files if file.is_file()]
    if not path.is_file():
        raise SourceNotFound(str(path), ["there is no such file or folder"])
    return path.parent, [path]


def _map_files(masks: str | Path | Resolver | None, folder: Path | None) -> MapFiles:
    if callable(masks):
        return MapFiles(masks, {})
    if masks is None:
        return MapFiles(folder, _known(folder))
    if not isinstance(masks, str | Path):
        raise InvalidOption(f"masks={masks!r}: give a folder, or what takes a URL and gets a mask")
    place = source_path(masks)
    if not place.is_dir():
        raise SourceNotFound(str(place), ["there is no such folder of masks"])
    return MapFiles(place, _known(folder))


def _known(folder: Path | None) -> dict[str, str]:
    """Return the files of URLs that `to_nucleus` has noted."""
    if folder is None or not (folder / FILES).is_file():
        return {}
    try:
        found = json.loads((folder / FILES).read_bytes())
    except (ValueError, RecursionError) as error:
        raise SourceError(str(folder), [f"{FILES} is no JSON: {error}"]) from None
    if not isinstance(found, dict) or not all(isinstance(file, str) for file in found.values()):
        raise SourceError(str(folder), [f"{FILES} should hold a file for each URL"])
    return found


class _Reader:
    """Takes the annotations of rows to where they belong."""

    def __init__(
        self, types: Some[str], maps: MapReader, outlines: OutlineReader, findings: NucleusFindings
    ) -> None:
        self.n_annotations = 0
        self._types = types
        self._maps = maps
        self._outlines = outlines
        self._findings = findings

    def read(self, row: Row) -> None:
        """Take the annotations of a row."""
        try:
            annotations = list(annotations_of(row.load()))
        except ValueError as error:
            self._findings.fault(row.place, error)
            return
        is_alone = len(annotations) == 1
        for position, annotation in enumerate(annotations, 1):
            place = row.place if is_alone else f"{row.place}, annotation {position:,}"
            try:
                self._take(row, place, annotation, is_alone=is_alone)
            except ValueError as error:
                self._findings.fault(place, error)

    def _take(self, row: Row, place: str, annotation: Annotation, *, is_alone: bool) -> None:
        self.n_annotations += 1
        if annotation.kind not in self._types:
            kind = repr(annotation.kind[:60])
            what = f"annotations of type {kind} are no masks"
            if annotation.kind in _TYPES:
                what = f"annotations of type {kind} are left out; types=[{kind}] reads them"
            self._findings.lose(what, place)
        elif annotation.kind == MASK:
            self._maps.add(self.n_annotations, place, annotation)
        else:
            self._outlines.add(self.n_annotations, place, row, annotation, is_alone=is_alone)
