"""COCO panoptic: a PNG for each image whose colours are ids of segments, and a JSON for all.

An id is R + 256 G + 65536 B, and 0 is void. A pixel belongs to one segment, so what a mask has
below others is lost, and a mask of which nothing is seen has no segment. Formats:
https://cocodataset.org/#format-data and https://github.com/cocodataset/panopticapi.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.captions import palette
from maskcube.formats.files import Resolver
from maskcube.formats.images import ImageMasks, MaskImages
from maskcube.formats.intake import store_collection
from maskcube.formats.names import file_names
from maskcube.formats.output import new_folder, to_json, write_list
from maskcube.formats.overlap import check_overlap, check_share, label_maps
from maskcube.formats.panoptic_source import JSON_NAME, read_panoptic
from maskcube.formats.png import encode
from maskcube.formats.report import ExportReport, Tally
from maskcube.objects import StoreLike
from maskcube.provenance import generator
from maskcube.report import ConversionReport

__all__ = ["from_panoptic", "to_panoptic"]


class _Written(NamedTuple):
    """What was written of an image."""

    masks: ImageMasks
    visible: NDArray[np.int64]
    segments: list[dict[str, Any]]


def to_panoptic(
    masks: xr.DataArray,
    out: str | Path,
    *,
    overlap: str = "smallest",
    min_visible: float = 0.0,
    stuff: Collection[str] = (),
    overwrite: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Write masks as COCO panoptic: ``panoptic.json``, and a PNG of each image in ``panoptic``.

    Every mask that can be seen is a segment, with area and box of what can be seen of it; score,
    instance and the rest stand beside them. Reads at once, one image after the other.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.
    out : path
        The folder that will be written.
    overlap : str
        What is seen where masks overlap: ``"smallest"``, ``"score"``, ``"order"``, or ``"error"``.
    min_visible : float
        A mask of which a smaller share than this can be seen is left out.
    stuff : collection of str
        Nouns that are no things (``isthing`` 0): their masks of an image are one segment.
    overwrite : bool
        Replace the folder of an earlier export.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    ExportReport
        What was written, and what of each mask can be seen.

    Raises
    ------
    InvalidOption
        When an argument has no meaning, or masks overlap and must not.
    StoreExists
        When something is at `out`.
    CorruptMask
        When a mask is missing or damaged.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr")
    >>> report = to_panoptic(masks, "panoptic", stuff=["grass"], progress=False)
    >>> report.overlap, report.n_images == len(set(masks.image.values))
    ('smallest', True)
    """
    check_overlap(overlap, why="COCO panoptic has one of each")
    check_share(min_visible)
    images = MaskImages(masks)
    stuff = images.check_nouns("stuff", stuff)
    names = file_names(images.names, ".png")
    categories = {noun: number for number, noun in enumerate(images.nouns, 1)}
    tally = Tally("panoptic", out, overlap)
    with new_folder(out, overwrite=overwrite) as folder:
        pictures = folder / Path(JSON_NAME).stem
        pictures.mkdir()

        def write(image: ImageMasks) -> _Written:
            # Masks of a noun that is stuff are one group; each other mask is its own.
            groups = [r.noun if r.noun in stuff else n for n, r in enumerate(image.records)]
            label, _, visible = label_maps(
                image, overlap, min_visible=min_visible, groups=groups if stuff else None
            )
            ids, members = _segment_ids(label[0], groups, visible)
            (pictures / names[image.image]).write_bytes(encode(_colours_of(ids)))
            return _Written(image, visible, _segments(image, ids, members, visible, categories))

        with (folder / JSON_NAME).open("w", encoding="utf-8", newline="\n") as file:
            _begin(file, images, categories, stuff)
            annotations = images.map(write, progress=progress)
            for number, written in enumerate(annotations, 1):
                tally.add(written.masks, written.visible)
                annotation = {
                    "image_id": number,
                    "file_name": names[written.masks.image],
                    "segments_info": written.segments,
                }
                file.write(f"{',' if number > 1 else ''}\n{to_json(annotation)}")
            file.write("\n]}\n")
        return tally.report(folder)


def from_panoptic(
    source: str | os.PathLike[str],
    store: StoreLike,
    *,
    masks: str | os.PathLike[str] | Resolver | None = None,
    **options: Any,
) -> ConversionReport:
    """Write the segments of a COCO panoptic JSON and its PNGs to a store.

    Parameters
    ----------
    source : path
        The JSON, or a folder with ``panoptic.json`` or a single JSON.
    store : path, URL or zarr Store
        The target.
    masks : path or callable, optional
        The folder of the PNGs, or what gives their bytes or paths by their names; by default the
        folder called like the JSON, or else the one that it is in.
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
        With every fault; nothing is written then.
    SourceNotFound
        When there is no JSON; it is a ``FileNotFoundError``.
    StoreExists
        When something is at the target.
    InvalidOption
        When an argument has no meaning.
    MissingDependency
        When Pillow is not installed.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> report = to_panoptic(open_masks("masks.zarr"), "coco", progress=False)
    >>> stored = from_panoptic("coco", "back.zarr", progress=False)
    >>> stored.n_masks == report.n_masks - len(report.dropped)
    True
    """
    return store_collection(read_panoptic(source, masks=masks), store, **options)


def _segment_ids(
    label: NDArray[Any], groups: list[Any], visible: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], list[list[int]]]:
    """Return the id of each pixel's segment, 0 is void, and the masks of segments 1, 2, ..."""
    together: dict[Any, list[int]] = {}
    for position, group in enumerate(groups):
        if visible[position]:
            together.setdefault(group, []).append(position)
    members = list(together.values())
    id_of = np.zeros(len(groups) + 1, np.uint32)
    for number, positions in enumerate(members, 1):
        id_of[np.array(positions) + 1] = number
    return id_of[label], members


def _colours_of(ids: NDArray[np.uint32]) -> NDArray[np.uint8]:
    """Return ids as (y, x, 3) uint8: red counts ones, green 256s, blue 65,536s."""
    found = np.zeros((*ids.shape, 3), np.uint8)
    most = int(ids.max(initial=0))
    for channel in range(3):
        if most >> 8 * channel:
            found[..., channel] = ids >> 8 * channel & 255
    return found


def _segments(
    image: ImageMasks,
    ids: NDArray[np.uint32],
    members: list[list[int]],
    visible: NDArray[np.int64],
    categories: dict[str, int],
) -> list[dict[str, Any]]:
    """Return what is said of each segment of an image."""
    areas, boxes = _extents(ids, len(members))
    found = []
    for number, positions in enumerate(members, 1):
        records = [image.records[position] for position in positions]
        whole = int(image.areas[positions].sum())
        segment: dict[str, Any] = {
            "id": number,
            "category_id": categories[records[0].noun],
            "area": areas[number],
            "bbox": boxes[number],
            "iscrowd": 0,
            "visible_fraction": int(visible[positions].sum()) / whole,
        }
        if len(records) == 1:
            segment |= records[0].properties()
        else:
            segment["mask_rows"] = [record.mask_row for record in records]
        found.append(segment)
    return found


def _extents(ids: NDArray[np.uint32], n_segments: int) -> tuple[list[int], list[list[int]]]:
    """Return how many pixels each id has, and its left and upper edge, width and height."""
    height, width = ids.shape
    begins_here = np.ones(ids.shape, np.bool_)
    np.not_equal(ids[:, 1:], ids[:, :-1], out=begins_here[:, 1:])
    begin = np.flatnonzero(begins_here)
    number = ids.ravel()[begin]
    # Runs end where the next one begins, and with their line: there are few beside the pixels.
    length = np.diff(begin, append=ids.size)
    top, left = np.divmod(begin, width)
    areas = np.zeros(n_segments + 1, np.int64)
    np.add.at(areas, number, length)
    first = np.full((2, n_segments + 1), max(height, width))
    last = np.zeros_like(first)
    for axis, (start, stop) in enumerate([(left, left + length), (top, top + 1)]):
        np.minimum.at(first[axis], number, start)
        np.maximum.at(last[axis], number, stop)
    return areas.tolist(), np.concatenate([first, last - first]).T.tolist()


def _begin(
    file: TextIO, images: MaskImages, categories: dict[str, int], stuff: Collection[str]
) -> None:
    """Write all but the annotations, which come image by image."""
    height, width = images.shape
    pictures = (
        {"id": number, "file_name": name, "height": height, "width": width}
        for number, name in enumerate(images.names, 1)
    )
    colours = _category_colours(len(categories))
    kinds = (
        {
            "id": number,
            "name": noun,
            "supercategory": noun,
            "isthing": int(noun not in stuff),
            "color": colours[number - 1],
        }
        for noun, number in categories.items()
    )
    info = {"description": "Object masks", "version": "1.0", "contributor": generator()}
    file.write(f'{{"info": {to_json(info)},\n"licenses": [],\n"images": ')
    write_list(file, map(to_json, pictures))
    file.write(',\n"categories": ')
    write_list(file, map(to_json, kinds))
    file.write(',\n"annotations": [')


def _category_colours(n_colours: int) -> list[list[int]]:
    """Return distinct colours: viewers take that of stuff for its id."""
    found: dict[tuple[int, ...], None] = {}
    for colour in (palette(n_colours) * 255).astype(int).tolist():
        number = colour[0] | colour[1] << 8 | colour[2] << 16
        while (taken := tuple(number >> shift & 255 for shift in (0, 8, 16))) in found:
            number = (number + 1) % 2**24
        found[taken] = None
    return [list(colour) for colour in found]
