"""Masks to Scale Nucleus: a map with segments for each image, or polygons, or boxes.

On disk is what the asynchronous upload of Scale's client takes [1]_: JSON lines, one annotation a
line, and beside them the maps. An item of Nucleus has one map [2]_, so that where masks overlap one
of them has the pixel; polygons and boxes overlap.

References
----------
.. [1] https://nucleus.scale.com/docs/large-ingestion
.. [2] https://nucleus.scale.com/docs/segmentation-annotations
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption
from maskcube.formats.choices import check_choice
from maskcube.formats.images import ImageMasks, MaskImages
from maskcube.formats.names import file_names
from maskcube.formats.nucleus_segments import KINDS, MOST_SEGMENTS, Palette
from maskcube.formats.nucleus_shapes import box_payload, polygon_payloads
from maskcube.formats.nucleus_urls import MaskUrls
from maskcube.formats.output import new_folder, to_json
from maskcube.formats.overlap import check_overlap, check_share
from maskcube.formats.png import encode
from maskcube.formats.report import ExportReport, Tally
from maskcube.paths import folder_path

__all__ = ["ANNOTATIONS", "EMPTY", "FILES", "FOLDER", "to_nucleus"]

ANNOTATIONS = "annotations.jsonl"
EMPTY = "empty.jsonl"
"""Masks without a pixel: Nucleus has no polygon for them, and `from_nucleus` reads them here."""
FILES = "masks.json"
"""The file of each URL, where these were asked for."""
FOLDER = "masks"

_GEOMETRIES = (None, "polygon", "box")


def to_nucleus(
    masks: xr.DataArray,
    out: str | Path,
    *,
    kind: str = "panoptic",
    overlap: str = "smallest",
    min_visible: float = 0.0,
    stuff: Collection[str] = (),
    mask_url: str | None = None,
    background: bool = True,
    geometry: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Write masks as annotations of Scale Nucleus; ``annotations.jsonl`` and the maps.

    The maps are ``masks/<image>.png``, one byte a pixel, 0 for the background and the index of a
    segment elsewhere. ``reference_id`` is the name of the image. Score, instance, row, box and the
    like are in the metadata of a segment; ``visible_fraction`` there is what of a mask is not
    hidden by others. Reads one image at a time.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.
    out : path
        The folder to make.
    kind : {"panoptic", "instance", "semantic"}, default "panoptic"
        ``"panoptic"``: a segment for each mask, and one for each noun in `stuff`; ``"instance"``:
        the same, but `stuff` is background; ``"semantic"``: a segment for each noun, whose index is
        the same in every image if there are at most 255 nouns.
    overlap : {"smallest", "score", "order", "error"}, default "smallest"
        Which mask has a pixel of several: the smallest, that of the highest score, the later one;
        or none may have. Masks of one segment hide nothing of each other.
    min_visible : float, default 0.0
        Masks of which a smaller fraction can be seen are left out, as are those of which nothing
        can be seen.
    stuff : collection of str
        Nouns that are not counted: ``["sky", "grass"]``.
    mask_url : str, optional
        Template of the URLs where the maps will be, as in ``"s3://bucket/{file}"``: ``{file}`` is
        the name of the file, ``{image}`` that of the image, percent-encoded. Without it the URLs
        are the paths of the files, which Scale's client uploads.
    background : bool, default True
        Whether there is a segment for 0.
    geometry : {"polygon", "box"}, optional
        Write polygons or boxes instead of maps: `kind`, `overlap`, `min_visible`, `stuff` and
        `background` have no meaning then, as nothing hides anything. Polygons run along the edges
        of pixels and hold every mask bit by bit: one for each part of a mask, its holes joined to
        its outline. Boxes are those of the coordinates, or of the pixels where there are none.
    overwrite : bool, default False
        Replace `out`.
    progress : bool, default True
        Show a bar on stderr.

    Returns
    -------
    ExportReport
        What was written; for each mask its area, and what of it can be seen.

    Raises
    ------
    InvalidOption
        When an argument has no meaning, when an image has more than 255 segments, or when masks
        overlap and ``overlap="error"``. Nothing is written then.
    StoreExists
        When `out` is taken.
    CorruptMask
        When a mask is missing or damaged.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr").sel(noun=["hand", "fingers"])
    >>> report = to_nucleus(masks, "nucleus", mask_url="s3://bucket/{file}", progress=False)
    >>> report.n_masks == masks.sizes["mask"]
    True
    """
    images = MaskImages(masks)
    check_choice("geometry", geometry, _GEOMETRIES)
    check_choice("kind", kind, KINDS)
    check_overlap(overlap, why="an item of Nucleus has one; geometry='polygon' keeps overlaps, or")
    check_share(min_visible)
    if geometry is not None:
        if mask_url is not None:
            raise InvalidOption(f"mask_url={mask_url!r}: a {geometry} has no mask")
        return _write_shapes(images, out, geometry, overwrite=overwrite, progress=progress)
    nouns = images.nouns if kind == "semantic" and len(images.nouns) <= MOST_SEGMENTS else ()
    palette = Palette(
        kind=kind,
        overlap=overlap,
        min_visible=float(min_visible),
        stuff=images.check_nouns("stuff", stuff),
        classes=nouns,
        background=background,
    )
    return _write_maps(images, out, palette, mask_url, overwrite=overwrite, progress=progress)


@dataclass(frozen=True)
class _Written:
    """What became of an image."""

    masks: ImageMasks
    lines: str
    """Annotations, as JSON lines."""
    visible: NDArray[np.int64] | None
    dropped: list[bool] | None = None
    empty: str = ""
    """Masks that Nucleus cannot have, as JSON lines."""


def _write_maps(
    images: MaskImages,
    out: str | Path,
    palette: Palette,
    template: str | None,
    *,
    overwrite: bool,
    progress: bool,
) -> ExportReport:
    names = file_names(images.names, ".png")
    with new_folder(out, overwrite=overwrite) as folder:
        target = folder_path(out) or folder
        urls = MaskUrls(template, target / FOLDER)
        tally = Tally("nucleus", target, palette.overlap)
        (folder / FOLDER).mkdir()

        def write(masks: ImageMasks) -> _Written:
            found, name = palette.map_of(masks), names[masks.image]
            (folder / FOLDER / name).write_bytes(encode(found.pixels))
            payload = {
                "type": "mask",
                "mask_url": urls.of(masks.image, name),
                "annotations": found.segments,
                "annotation_id": f"{masks.image}_mask",
                "reference_id": masks.image,
            }
            return _Written(masks, f"{to_json(payload)}\n", found.visible)

        _write_all(images, folder, tally, write, progress=progress)
        if template is not None:
            files = {urls.of(image, name): f"{FOLDER}/{name}" for image, name in names.items()}
            (folder / FILES).write_text(to_json(files), encoding="utf-8")
        return tally.report(folder)


def _write_shapes(
    images: MaskImages, out: str | Path, geometry: str, *, overwrite: bool, progress: bool
) -> ExportReport:
    with new_folder(out, overwrite=overwrite) as folder:
        tally = Tally("nucleus", folder_path(out) or folder)
        write = _polygons_of if geometry == "polygon" else _boxes_of
        _write_all(images, folder, tally, write, progress=progress)
        return tally.report(folder)


def _write_all(
    images: MaskImages,
    folder: Path,
    tally: Tally,
    write: Callable[[ImageMasks], _Written],
    *,
    progress: bool,
) -> None:
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / name).open("w", encoding="utf-8", newline="\n"))
            for name in (ANNOTATIONS, EMPTY)
        ]
        for written in images.map(write, progress=progress):
            for file, lines in zip(files, (written.lines, written.empty), strict=True):
                file.write(lines)
            tally.add(written.masks, written.visible, written.dropped)
    if not (folder / EMPTY).stat().st_size:
        (folder / EMPTY).unlink()


def _polygons_of(masks: ImageMasks) -> _Written:
    lines, empty = StringIO(), StringIO()
    for number, record, mask in zip(_numbers(masks), masks.records, masks.each(), strict=True):
        for payload in polygon_payloads(record, number, mask):
            file = lines if payload["geometry"]["vertices"] else empty
            file.write(f"{to_json(payload)}\n")
    return _Written(masks, lines.getvalue(), None, None, empty.getvalue())


def _boxes_of(masks: ImageMasks) -> _Written:
    each = zip(_numbers(masks), masks.records, masks.each(), strict=True)
    payloads = [box_payload(record, number, mask) for number, record, mask in each]
    lines = [f"{to_json(payload)}\n" for payload in payloads if payload is not None]
    # A box has none of the pixels.
    visible = np.zeros(len(masks), np.int64)
    return _Written(masks, "".join(lines), visible, [payload is None for payload in payloads])


def _numbers(masks: ImageMasks) -> list[int]:
    """Return what tells the masks of an image apart: their rows, which a selection keeps too.

    By it Nucleus knows an annotation that comes again.
    """
    rows = [record.mask_row for record in masks.records if record.mask_row is not None]
    return rows if len(set(rows)) == len(masks) else list(range(len(masks)))
