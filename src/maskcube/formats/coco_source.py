"""COCO's instances, results and LVIS's files [1]_ [2]_ as masks for a store.

References
----------
.. [1] https://cocodataset.org/#format-data and https://cocodataset.org/#format-results
.. [2] https://www.lvisdataset.org/dataset
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from maskcube.errors import InvalidOption, SourceError
from maskcube.formats.choices import check_choice
from maskcube.formats.coco_file import (
    CocoLabels,
    Faults,
    Id,
    id_of,
    labels_in,
    list_in,
    read_json,
    repeated,
    shown,
)
from maskcube.formats.coco_mask import checked_mask
from maskcube.formats.collection import Collection, Item
from maskcube.formats.files import source_path
from maskcube.formats.intake import store_collection
from maskcube.formats.record import BOX, Record, number_of
from maskcube.objects import StoreLike
from maskcube.report import ConversionReport

__all__ = ["from_coco", "read_coco"]

_CROWD = ("keep", "skip")
_WITHOUT_MASK = ("refuse", "skip")


def from_coco(
    source: str | Path,
    store: StoreLike,
    *,
    annotations: str | Path | None = None,
    crowd: str = "keep",
    without_mask: str = "refuse",
    **options: Any,
) -> ConversionReport:
    """Write the masks of a file of COCO to a store.

    Parameters
    ----------
    source, annotations, crowd, without_mask
        As for `maskcube.formats.coco_source.read_coco`.
    store : path, URL or zarr Store
        The target.
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
        With every fault of the file; nothing is written then.
    SourceNotFound
        When there is none; it is a ``FileNotFoundError``.
    StoreExists
        When something is at the target.
    InvalidOption
        When an argument has no meaning.
    MissingDependency
        When there are polygons and pycocotools is not installed.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> from maskcube.formats.coco import to_coco
    >>> masks = open_masks("masks.zarr").sel(noun="hand")
    >>> report = to_coco(masks, "hands.json", progress=False)
    >>> report = from_coco("hands.json", "hands.zarr", progress=False)
    >>> bool((open_masks("hands.zarr") == masks.values).all())
    True
    """
    found = read_coco(source, annotations=annotations, crowd=crowd, without_mask=without_mask)
    return store_collection(found, store, **options)


def read_coco(
    source: str | Path,
    *,
    annotations: str | Path | None = None,
    crowd: str = "keep",
    without_mask: str = "refuse",
) -> Collection:
    """Return the masks of a file of COCO or LVIS, checked; pixels are decoded later.

    Of an export of `to_coco` everything comes back. Of others: the image is ``file_name``, or the
    last two parts of ``coco_url``; the noun the category's name; the box is ``bbox``; instances are
    counted, the highest score first. The file is held in memory, in about three times its size.

    Parameters
    ----------
    source : str or pathlib.Path
        A JSON of instances, or of results.
    annotations : str or pathlib.Path, optional
        For results: the JSON that has their images and categories.
    crowd : str
        ``"keep"``: annotations with ``iscrowd`` are masks as others are, ``"skip"``: they are left
        out. Either is told as a warning.
    without_mask : str
        Annotations that have no segmentation, such as boxes alone, are a fault (``"refuse"``), or
        left out, which is told as a warning (``"skip"``).

    Raises
    ------
    SourceError
        When this is no such file.
    SourceNotFound
        When there is none; it is a ``FileNotFoundError``.
    InvalidOption
        When an argument has no meaning.
    MissingDependency
        When there are polygons and pycocotools is not installed.
    """
    check_choice("crowd", crowd, _CROWD)
    check_choice("without_mask", without_mask, _WITHOUT_MASK)
    path, faults = source_path(source), Faults()
    document = read_json(path)
    files, labels_of = [path], document
    if isinstance(document, list):
        if annotations is None:
            raise SourceError(
                str(path), ["has results: give the file of their images as annotations=..."]
            )
        files.append(source_path(annotations))
        labels_of = read_json(files[-1])
    elif annotations is not None:
        raise InvalidOption(f"annotations={annotations!r}: {path.name} has images of its own")
    labels = labels_in(labels_of, files[-1], faults)
    entries = document if isinstance(document, list) else list_in(document, "annotations", path)
    reading = _Reading(labels, faults, crowd=crowd, without_mask=without_mask)
    items = list(reading.items(entries))
    return Collection(
        "coco",
        path,
        items,
        [each.read_bytes for each in files],
        faults=faults.told(),
        # What is lost of what is not stored need not be told.
        lost=[] if faults.told() else reading.lost(labels_of),
    )


class _Reading:
    """Makes items of annotations, and notes what does not become one."""

    def __init__(
        self, labels: CocoLabels, faults: Faults, *, crowd: str, without_mask: str
    ) -> None:
        self._labels = labels
        self._faults = faults
        self._crowd = crowd
        self._without_mask = without_mask
        self._n_crowd = self._n_without = 0
        self._images: dict[Id, None] = {}
        self._categories: dict[Id, None] = {}

    def items(self, entries: list[Any]) -> Iterator[Item]:
        """Yield the mask of each annotation, which is taken from the list."""
        for position, entry in enumerate(entries):
            # What is read is no longer needed, and a list of COCO is large.
            entries[position] = None
            try:
                item = self._item(entry)
            except ValueError as error:
                self._faults.add("annotation", _key(entry, position), error)
            except RecursionError:
                self._faults.add("annotation", _key(entry, position), "is nested too deep")
            else:
                if item is not None:
                    yield item
        self._note_same_names()

    def _note_same_names(self) -> None:
        """Note where masks of two images, or of two categories, would become those of one."""
        images = {key: self._labels.images[key].name for key in self._images}
        categories = {key: self._labels.categories[key] for key in self._categories}
        for of, names in (("images", images), ("categories", categories)):
            same = repeated(names.values())
            for key, name in names.items():
                if name in same:
                    self._faults.add(of, key, f"have the same name {shown(name)}")

    def lost(self, document: dict[str, Any]) -> list[str]:
        """Return what does not go into a store."""
        told = []
        if self._n_crowd:
            doing = "are masks as others are" if self._crowd == "keep" else "are left out"
            told.append(f"annotations with iscrowd {doing}: {self._n_crowd:,}")
        if self._n_without:
            told.append(f"annotations without a segmentation are left out: {self._n_without:,}")
        n_empty = len(self._labels.images) - len(self._images)
        if n_empty:
            told.append(f"images without masks are not in the store: {n_empty:,}")
        return told + [
            f"{key} of images are not kept"
            for key in ("neg_category_ids", "not_exhaustive_category_ids")
            if any(image.get(key) for image in document["images"] if isinstance(image, dict))
        ]

    def _item(self, entry: object) -> Item | None:
        if not isinstance(entry, dict):
            raise ValueError("is no object")  # noqa: TRY004 - told with all faults
        if "segments_info" in entry:
            raise ValueError("is one of COCO panoptic: from_panoptic reads it")
        image_id = id_of(entry, "image_id", self._labels.images)
        category_id = id_of(entry, "category_id", self._labels.categories)
        image, noun = self._labels.images[image_id], self._labels.categories[category_id]
        is_crowd = entry.get("iscrowd", 0)
        if is_crowd not in (0, 1):
            raise ValueError(f"has iscrowd {shown(is_crowd)}, which is neither 0 nor 1")
        self._n_crowd += bool(is_crowd)
        if is_crowd and self._crowd == "skip":
            return None
        if not entry.get("segmentation"):
            self._refuse()
            return None
        self._images[image_id] = self._categories[category_id] = None
        size, read = checked_mask(entry["segmentation"], image.size)
        return Item(Record.of(image.name, noun, _properties(entry)), size, read)

    def _refuse(self) -> None:
        if self._without_mask == "refuse":
            raise ValueError("has no segmentation; without_mask='skip' leaves such out")
        self._n_without += 1


def _properties(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a record that an annotation has, ours or those of COCO."""
    own = ("score", "localized", "mask_file", "mask_row")
    return {
        "instance": entry.get("instance_id"),
        **{name: entry.get(name) for name in own},
        **dict(zip(BOX, _edges(entry), strict=True)),
    }


def _edges(entry: Mapping[str, Any]) -> list[float | None]:
    """Return left, upper, right and lower edge of a box."""
    name = "bbox" if entry.get("box_xyxy") is None else "box_xyxy"
    values = entry.get(name)
    if values is None:
        return [None] * len(BOX)
    if not isinstance(values, list) or len(values) != len(BOX):
        raise ValueError(f"has a {name} that is no list of 4 numbers")
    numbers = [number_of(name, value) for value in values]
    left, top, *rest = numbers
    if name == "box_xyxy":
        return numbers
    sums = [
        None if a is None or b is None else a + b for a, b in zip((left, top), rest, strict=True)
    ]
    return [left, top, *sums]


def _key(entry: object, position: int) -> Id:
    key = entry.get("id") if isinstance(entry, dict) else None
    return key if isinstance(key, int | str) else f"at {position}"
