"""Masks as COCO's instances [1]_, or LVIS's [2]_.

Every mask is an annotation of its own, so nothing hides anything; as compressed runs every pixel is
kept. Beside what COCO knows, an annotation has ``instance_id``, ``score``, ``box_xyxy`` (the box of
the store, where ``bbox`` is that of the pixels), ``localized``, ``mask_file`` and ``mask_row``:
pycocotools keeps them, and `maskcube.formats.coco_source.from_coco` reads them.

References
----------
.. [1] https://cocodataset.org/#format-data
.. [2] https://www.lvisdataset.org/dataset; frequencies as in https://arxiv.org/abs/1908.03195
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption
from maskcube.formats.choices import check_choice
from maskcube.formats.coco_lines import ImageLines, counted, tallied
from maskcube.formats.coco_mask import filled
from maskcube.formats.images import ImageMasks, MaskImages
from maskcube.formats.output import new_file, to_json, write_list
from maskcube.formats.record import Record
from maskcube.formats.report import ExportReport, Tally
from maskcube.formats.rings import rings_of
from maskcube.formats.rle import Rle
from maskcube.provenance import generator

__all__ = ["to_coco"]

_DIALECTS = ("coco", "lvis")
_SEGMENTATIONS = ("rle", "polygon")
_SUPERCATEGORY = "object"
_RARE, _COMMON = 10, 100
"""Most images with a category that LVIS calls rare, and common; more are frequent."""


def to_coco(
    masks: xr.DataArray,
    out: str | Path,
    *,
    segmentation: str = "rle",
    dialect: str = "coco",
    supercategories: Mapping[str, str] | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Write masks as one JSON of COCO's instances; reads image by image, and holds few.

    Images are numbered from 1 in the order in which they come, categories (the nouns, sorted) from
    1; an annotation's id is ``mask_row`` + 1 where these are distinct, or else counted from 1.
    Masks without a pixel are written too; as COCOeval matches them with nothing, export
    ``masks[masks.area > 0]`` for an evaluation.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.
    out : str or pathlib.Path
        The JSON to write, on this machine.
    segmentation : str
        ``"rle"``: compressed runs, every pixel; ``"polygon"``: outlines along the edges of pixels,
        with cuts that lead to holes. pycocotools fills them with the same pixels, which is checked;
        other tools may fill them otherwise. A mask without a pixel has no outline and stays runs.
    dialect : str
        ``"coco"``, or ``"lvis"``: categories with their frequency, images with the lists
        of categories that were not looked for, which are empty, and no ``iscrowd``.
    supercategories : mapping of str to str, optional
        The supercategory of nouns; that of others is "object".
    overwrite : bool
        Replace a JSON that is there; a file of another kind is never replaced.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    ExportReport
        Counts, size and time; of each mask its pixels, and those that the file tells.

    Raises
    ------
    StoreExists
        When there is a file, and `overwrite` is not set or it is no export.
    InvalidOption
        When these are no masks, or an argument has no meaning.
    MissingDependency
        When polygons are wanted and pycocotools is not installed.
    CorruptMask
        When a mask is missing or damaged.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr").sel(noun=["hand", "fingers"])
    >>> report = to_coco(masks, "hands-and-fingers.json", progress=False)
    >>> report.n_masks == masks.sizes["mask"], report.changed
    (True, [])
    """
    check_choice("segmentation", segmentation, _SEGMENTATIONS)
    check_choice("dialect", dialect, _DIALECTS)
    images = MaskImages(masks)
    image_ids = {name: number for number, name in enumerate(images.names, 1)}
    category_ids = {noun: number for number, noun in enumerate(images.nouns, 1)}
    annotation_ids = _annotation_ids(images)
    told = counted if segmentation == "rle" else _polygon

    def part(found: ImageMasks) -> ImageLines:
        lines, visible = [], []
        ids = annotation_ids(found)
        for number, record, mask in zip(ids, found.records, found.each(), strict=True):
            rle = Rle.of(mask)
            pixels, shown = told(mask, rle)
            keys = {
                "id": number,
                "image_id": image_ids[found.image],
                "category_id": category_ids[record.noun],
                "segmentation": pixels,
                "area": rle.area,
                "bbox": rle.box(),
                **({} if dialect == "lvis" else {"iscrowd": 0}),
                **_properties(record),
            }
            lines.append(to_json(keys))
            visible.append(shown)
        return ImageLines(found, lines, np.array(visible, np.int64), [False] * len(found))

    sizes = _sizes(images, image_ids, dialect)
    images.check_nouns("supercategories", supercategories or {})
    categories = _categories(images, category_ids, dialect, supercategories or {})
    tally = Tally(dialect, out)
    with new_file(out, overwrite=overwrite) as file:
        info = {"description": "Object masks", "contributor": generator()}
        file.write(f'{{"info": {to_json(info)},\n"licenses": [],\n"images": ')
        write_list(file, sizes)
        file.write(',\n"categories": ')
        write_list(file, categories)
        file.write(',\n"annotations": ')
        write_list(file, tallied(images.map(part, progress=progress), tally))
        file.write("}\n")
    return tally.report(Path(out))


def _polygon(mask: NDArray[np.uint8], rle: Rle) -> tuple[Any, int]:
    rings = [ring.ravel().tolist() for ring in rings_of(mask)]
    if not rings:
        # pycocotools cannot read an empty list of polygons.
        return counted(mask, rle)
    found = filled(rings, rle.shape)
    if np.array_equal(found.counts, rle.counts):
        return rings, rle.area
    return rings, int(np.count_nonzero(found.mask() & mask))


def _properties(record: Record) -> dict[str, Any]:
    """Return what COCO does not know of a mask."""
    found = {
        "instance_id": record.instance,
        "score": record.score,
        "box_xyxy": record.box,
        "localized": record.localized,
        "mask_file": record.mask_file or None,
        "mask_row": record.mask_row,
    }
    return {name: value for name, value in found.items() if value is not None}


def _annotation_ids(images: MaskImages) -> Callable[[ImageMasks], Iterable[int]]:
    """Return what gives the ids of an image's annotations; none is 0, which evaluators skip."""
    rows = [record.mask_row for record in images.records]
    known = {row for row in rows if row is not None and row >= 0}
    if len(known) == len(rows):
        return lambda found: [int(record.mask_row or 0) + 1 for record in found.records]
    firsts, upcoming = {}, 1
    for name in images.names:
        firsts[name] = upcoming
        upcoming += len(images[name])
    return lambda found: range(firsts[found.image], firsts[found.image] + len(found))


def _sizes(images: MaskImages, image_ids: Mapping[str, int], dialect: str) -> Iterator[str]:
    height, width = images.shape
    more: dict[str, list[int]] = {"neg_category_ids": [], "not_exhaustive_category_ids": []}
    for name, number in image_ids.items():
        found = {"id": number, "file_name": name, "height": height, "width": width}
        yield to_json({**found, **(more if dialect == "lvis" else {})})


def _categories(
    images: MaskImages,
    category_ids: Mapping[str, int],
    dialect: str,
    supercategories: Mapping[str, str],
) -> Iterator[str]:
    counts: dict[str, list[str]] = {noun: [] for noun in images.nouns}
    for record in images.records:
        counts[record.noun].append(record.image)
    for noun, number in category_ids.items():
        above = supercategories.get(noun, _SUPERCATEGORY)
        if not isinstance(above, str):
            raise InvalidOption(f"supercategories[{noun!r}]={above!r} is no text")
        found: dict[str, Any] = {"id": number, "name": noun, "supercategory": above}
        if dialect == "lvis":
            n_images = len(set(counts[noun]))
            found |= {
                "synset": "",
                "synonyms": [noun],
                "def": "",
                "frequency": "r" if n_images <= _RARE else "c" if n_images <= _COMMON else "f",
                "image_count": n_images,
                "instance_count": len(counts[noun]),
            }
        yield to_json(found)
