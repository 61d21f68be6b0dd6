"""Masks as COCO's results: what a detector has found, with scores [1]_.

References
----------
.. [1] https://cocodataset.org/#format-results
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr

from maskcube.errors import InvalidOption, SourceError, listed
from maskcube.formats.coco_file import Id, coco_labels
from maskcube.formats.coco_lines import ImageLines, counted, tallied
from maskcube.formats.images import ImageMasks, MaskImages
from maskcube.formats.output import new_file, to_json, write_list
from maskcube.formats.record import number_of
from maskcube.formats.report import ExportReport, Tally
from maskcube.formats.rle import Rle

__all__ = ["to_coco_results"]


def to_coco_results(
    masks: xr.DataArray,
    out: str | Path,
    *,
    annotations: str | Path | None = None,
    score: float | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Write masks as one JSON of COCO's results: runs and scores, as of a detector.

    There are no boxes: pycocotools would take areas from them.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.
    out : str or pathlib.Path
        The JSON to write, on this machine.
    annotations : str or pathlib.Path, optional
        A JSON of instances, whose ids are used: by ``file_name`` and name of category. By default
        the ids are those that `to_coco` gives to the same selection.
    score : float, optional
        That of masks whose score is NaN; by default these are left out, as the report says.
    overwrite, progress
        As for `to_coco`.

    Returns
    -------
    ExportReport
        Counts, size and time; which masks were left out.

    Raises
    ------
    StoreExists
        When there is a file, and `overwrite` is not set or it is no export.
    SourceError
        When `annotations` does not have an image or a noun.
    InvalidOption
        When these are no masks, or `score` is no number.
    CorruptMask
        When a mask is missing or damaged.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr").sel(noun="hand")
    >>> report = to_coco_results(masks, "detected.json", score=0.5, progress=False)
    >>> len(report.dropped)
    0
    """
    try:
        default = number_of("score", score)
    except ValueError as error:
        raise InvalidOption(str(error)) from None
    images = MaskImages(masks)
    image_ids, category_ids = _known_ids(images, annotations)

    def part(found: ImageMasks) -> ImageLines:
        scores = [default if each.score is None else each.score for each in found.records]
        kept = [position for position, each in enumerate(scores) if each is not None]
        lines = [
            to_json(
                {
                    "image_id": image_ids[found.image],
                    "category_id": category_ids[found.records[position].noun],
                    "segmentation": counted(mask, Rle.of(mask))[0],
                    "score": scores[position],
                }
            )
            for position, mask in zip(kept, found.each(kept), strict=True)
        ]
        dropped = [each is None for each in scores]
        return ImageLines(found, lines, np.where(dropped, 0, found.areas), dropped)

    tally = Tally("coco-results", out)
    with new_file(out, overwrite=overwrite) as file:
        write_list(file, tallied(images.map(part, progress=progress), tally))
        file.write("\n")
    return tally.report(Path(out))


def _known_ids(
    images: MaskImages, annotations: str | Path | None
) -> tuple[dict[str, Id], dict[str, Id]]:
    """Return the ids of images and of nouns."""
    if annotations is None:
        return (
            {name: number for number, name in enumerate(images.names, 1)},
            {noun: number for number, noun in enumerate(images.nouns, 1)},
        )
    labels = coco_labels(annotations)
    image_ids = {image.name: key for key, image in labels.images.items()}
    category_ids = {name: key for key, name in labels.categories.items()}
    faults = [
        f"has no {of} {listed(lost)}"
        for of, lost in (
            ("image", [name for name in images.names if name not in image_ids]),
            ("category", [noun for noun in images.nouns if noun not in category_ids]),
        )
        if lost
    ]
    if faults:
        raise SourceError(str(annotations), faults)
    return image_ids, category_ids
