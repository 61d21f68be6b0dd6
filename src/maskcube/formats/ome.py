"""OME-Zarr label images, for the viewers of bio-imaging: napari, vizarr and others.

Each image is a group of its own, ``<image>.zarr``. Labels belong to an image; as no stimulus is
ever copied, that is how many masks there are at each pixel. Version 0.5 of the format, on Zarr
format 3: https://ngff.openmicroscopy.org/0.5/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.captions import palette
from maskcube.errors import InvalidOption
from maskcube.formats.images import ImageMasks, MaskImages
from maskcube.formats.names import file_names
from maskcube.formats.output import new_folder
from maskcube.formats.overlap import LabelMaps, check_overlap, check_share, label_maps
from maskcube.formats.report import ExportReport, Tally

__all__ = ["to_ome_zarr"]

_VERSION = "0.5"
_LABELS = "labels"
_AXES = ("y", "x")
_SMALLEST = 256
"""Longest side of the smallest level in pixels: what a viewer shows first."""
_MOST_LEVELS = 16
_CHUNK = 1024
"""Longest side of a chunk in pixels."""


class _Written(NamedTuple):
    """What was written of an image."""

    masks: ImageMasks
    visible: NDArray[np.int64]


def to_ome_zarr(
    masks: xr.DataArray,
    out: str | Path,
    *,
    overlap: str = "smallest",
    min_visible: float = 0.0,
    levels: int | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Write masks as OME-Zarr label images: one group ``<image>.zarr`` for each image.

    In it, ``labels/masks`` has k + 1 where the k-th mask of the image is, with a colour, noun,
    instance, score and the rest for each. By ``overlap="layers"`` there are several label images,
    ``labels/masks-0`` and so on, and nothing is hidden. The image that they belong to is how many
    masks there are at each pixel. ``zarr.json`` of the folder tells the group of each image. Reads
    at once, one image after the other.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.
    out : path
        The folder that will be written.
    overlap : str
        What is seen where masks overlap: ``"smallest"``, ``"score"``, ``"order"``, ``"error"``, or
        ``"layers"``.
    min_visible : float
        A mask of which a smaller share than this can be seen is left out.
    levels : int, optional
        Resolutions, each with every second pixel of the one before; by default until no side is
        longer than 256 pixels.
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
    >>> import zarr
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr").sel(noun=["hand", "fingers"])
    >>> report = to_ome_zarr(masks, "labels", overlap="layers", progress=False)
    >>> report.changed
    []
    >>> image, path = next(iter(zarr.open("labels").attrs["maskcube"]["images"].items()))
    >>> zarr.open(f"labels/{path}/labels/masks-0/0", mode="r").shape
    (1000, 1000)
    """
    import zarr

    check_overlap(overlap, layers=True)
    check_share(min_visible)
    images = MaskImages(masks)
    n_levels = _level_count(levels, images.shape)
    names = file_names(images.names, ".zarr")
    tally = Tally("ome-zarr", out, overlap)
    with new_folder(out, overwrite=overwrite) as folder:
        zarr.create_group(folder, attributes={"maskcube": {"images": names}})

        def write(image: ImageMasks) -> _Written:
            found = label_maps(image, overlap, min_visible=min_visible)
            paths = ["masks"]
            if overlap == "layers":
                paths = [f"masks-{number}" for number in range(len(found.maps))]
            place = folder / names[image.image]
            cover = _cover(image, found)
            ome = _multiscale(image.image, n_levels)
            _write_image(place, cover, n_levels, ome, {"maskcube": {"image": image.image}})
            ome = {"version": _VERSION, "labels": paths}
            zarr.create_group(place / _LABELS, attributes={"ome": ome})
            for number, (path, label) in enumerate(zip(paths, found.maps, strict=True)):
                ome = {**_multiscale(path, n_levels), "image-label": _said(image, found, number)}
                _write_image(place / _LABELS / path, label, n_levels, ome)
            return _Written(image, found.visible)

        for written in images.map(write, progress=progress):
            tally.add(written.masks, written.visible)
        return tally.report(folder)


def _level_count(levels: int | None, shape: tuple[int, int]) -> int:
    if levels is None:
        longest, found = max(shape), 1
        while longest > _SMALLEST:
            longest, found = -(-longest // 2), found + 1
        return found
    if type(levels) is not int or not 1 <= levels <= _MOST_LEVELS:
        raise InvalidOption(f"levels={levels!r}: give a number from 1 to {_MOST_LEVELS}")
    return levels


def _cover(image: ImageMasks, found: LabelMaps) -> NDArray[Any]:
    """Return how many masks there are at each pixel, (y, x)."""
    dtype = np.uint8 if len(image) <= np.iinfo(np.uint8).max else np.uint32
    cover = np.zeros(image.shape, dtype)
    if np.array_equal(found.visible, image.areas):
        # Nothing is hidden: the maps say it all.
        for label in found.maps:
            cover += label > 0
    else:
        for mask in image.each():
            cover += mask
    return cover


def _multiscale(name: str, n_levels: int) -> dict[str, Any]:
    """Return what the format says of an image."""
    # Levels begin with the same pixel, so a scale is all it takes from one to the other.
    datasets = [
        {
            "path": str(level),
            "coordinateTransformations": [{"type": "scale", "scale": [2.0**level] * len(_AXES)}],
        }
        for level in range(n_levels)
    ]
    multiscale = {
        "name": name,
        "axes": [{"name": axis, "type": "space"} for axis in _AXES],
        "datasets": datasets,
        "type": "nearest",
        "metadata": {"description": "every second pixel of the level before"},
    }
    return {"version": _VERSION, "multiscales": [multiscale]}


def _write_image(
    place: Path,
    pixels: NDArray[Any],
    n_levels: int,
    ome: dict[str, Any],
    attributes: dict[str, Any] | None = None,
) -> None:
    """Write the group of an image, (y, x), with all its levels."""
    import zarr

    group = zarr.create_group(place, attributes={"ome": ome, **(attributes or {})})
    for level in range(n_levels):
        step = 2**level
        group.create_array(
            str(level),
            data=np.ascontiguousarray(pixels[::step, ::step]),
            chunks=tuple(min(_CHUNK, -(-size // step)) for size in pixels.shape),
            dimension_names=_AXES,
        )


def _said(image: ImageMasks, found: LabelMaps, layer: int) -> dict[str, Any]:
    """Return what is said of the labels that are in a label image."""
    there = np.flatnonzero((found.layer == layer) & (found.visible > 0)).tolist()
    shown = (palette(len(image)) * 255).round().astype(int).tolist()
    return {
        "version": _VERSION,
        "colors": [{"label-value": k + 1, "rgba": [*shown[k], 255]} for k in there],
        "properties": [
            {
                "label-value": k + 1,
                "noun": image.records[k].noun,
                "area": int(image.areas[k]),
                "visible": int(found.visible[k]),
                **image.records[k].properties(),
            }
            for k in there
        ],
        "source": {"image": "../../"},
    }
