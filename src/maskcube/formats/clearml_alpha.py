"""Alpha-channel masks of ClearML: one grey picture an object, both ways.

The format is that of ClearML's page "Masks" (HyperDatasets): a pixel's value is the opacity of the
image there, no labels are used, and the id of a mask is its only name.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption
from maskcube.formats.choices import check_choice
from maskcube.formats.clearml_frames import (
    FRAMES,
    MASKS,
    FrameWriter,
    MaskFile,
    Places,
    new_frame,
    object_ids,
)
from maskcube.formats.clearml_source import (
    IMAGES,
    FrameSource,
    PixelFile,
    ReadBytes,
    mask_reader,
    pixel_files,
)
from maskcube.formats.clearml_values import greys_of
from maskcube.formats.collection import Collection, Item
from maskcube.formats.files import Resolver
from maskcube.formats.findings import Findings
from maskcube.formats.images import ImageMasks, MaskImages
from maskcube.formats.intake import store_collection
from maskcube.formats.names import file_names
from maskcube.formats.output import new_folder
from maskcube.formats.png import encode, size_of
from maskcube.formats.record import Record, integer_of
from maskcube.formats.report import ExportReport, Tally
from maskcube.objects import StoreLike
from maskcube.report import ConversionReport
from maskcube.threads import spread

__all__ = ["from_clearml_alpha", "read_clearml_alpha", "to_clearml_alpha"]

_OPAQUE = 255
_HALF = 128
_NUMBERED = re.compile(r"(.+)-([0-9]{1,18})", re.DOTALL)
"""An id as `to_clearml_alpha` gives it."""

_TOGETHER = 256
"""Files that are looked at side by side."""


def to_clearml_alpha(
    masks: xr.DataArray,
    out: str | os.PathLike[str],
    *,
    alpha: int = _OPAQUE,
    outside: int = 0,
    mask_uri: str | None = None,
    source_uri: str | None = None,
    overwrite: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Write alpha-channel masks for ClearML: a grey PNG for each object; nothing is lost.

    In the folder: ``frames.json``, a list of frames as the API takes them, one on each line, and
    ``masks/``, the PNGs. The id of a mask is ``<noun>-<instance>``. ClearML has no labels for these
    masks; what the store says of each stands in the ``meta_blob`` of its frame, so that it comes
    back exactly.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.
    out : path-like
        The folder to write.
    alpha : int, default 255
        Opacity of the image inside of the object, 1 to 255: the value of those pixels.
    outside : int, default 0
        Opacity of the image elsewhere, less than `alpha`.
    mask_uri : str, optional
        Where PNGs will be, as in ``"s3://bucket/{file}"``; ``{file}`` is the name in ``masks/``,
        ``{image}`` the image and ``{id}`` the id of the mask, percent-encoded. By default the path
        in the folder.
    source_uri : str, optional
        Where images are, as in ``"s3://laion-fmri/stimuli/{image}"``; by default their name.
    overwrite : bool
        Replace the folder of an earlier export.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    ExportReport
        What was written.

    Raises
    ------
    InvalidOption
        When an argument has no meaning.
    StoreExists
        When something is at `out`.
    CorruptMask
        When a mask is missing or damaged.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr").sel(image="shared_12rep_LAION_cluster_1003_i0.jpg")
    >>> report = to_clearml_alpha(masks.sel(noun=["hand"]), "alpha", progress=False)
    >>> import json
    >>> frame = json.loads(Path("alpha/frames.json").read_text())[0]
    >>> [mask["id"] for mask in frame["sources"][0]["masks"]]
    ['hand-0', 'hand-1', 'hand-2', 'hand-3']
    """
    _check_opacities(alpha, outside)
    places = Places(mask_uri, source_uri)
    places.check(several=True)
    images = MaskImages(masks)
    stems = file_names(images.names, "")
    tally = Tally("clearml-alpha", os.fspath(out))
    with new_folder(os.fspath(out), overwrite=overwrite) as folder:
        (folder / MASKS).mkdir()
        drawing = _Drawing(folder, np.array([outside, alpha], np.uint8), places)
        with FrameWriter(folder / FRAMES) as frames:
            draw = partial(_draw, drawing, stems)
            for frame, found in images.map(draw, progress=progress):
                frames.write(frame)
                tally.add(found)
        return tally.report(folder)


def read_clearml_alpha(
    source: object,
    *,
    masks: str | os.PathLike[str] | Resolver | None = None,
    threshold: int | None = None,
    image: str = "context_id",
) -> Collection:
    """Return what frames with alpha-channel masks have for a store; decodes none of them.

    The id of a mask, ``<noun>-<instance>``, is its noun and instance where its frame is not one of
    ours; an id without a number is a noun. Masks with pixel values that a region names are none of
    these, and left out.

    Parameters
    ----------
    source, masks, image
        As for `read_clearml`.
    threshold : int, optional
        Smallest opacity, 1 to 255, that is the object. By default half-way between the two that
        `to_clearml_alpha` was asked for, and 128 of other masks; 1 takes all that is not black.

    Returns
    -------
    Collection
        The masks, what speaks against storing them, and what would be lost.

    Raises
    ------
    SourceNotFound
        When there are no frames at that place.
    SourceError
        When they are no JSON.
    InvalidOption
        When an argument has no meaning.
    MissingDependency
        When Pillow is not installed.
    """
    check_choice("image", image, IMAGES)
    if threshold is not None and (type(threshold) is not int or not 1 <= threshold <= _OPAQUE):
        raise InvalidOption(f"threshold={threshold!r}: give an opacity, 1 to {_OPAQUE}")
    frames, findings = FrameSource(source), Findings()
    read = mask_reader(frames, masks)
    found = [
        file
        for file in pixel_files(frames.frames, image, findings)
        if not _is_pixel_mask(file, findings)
    ]
    items = []
    for start in range(0, len(found), _TOGETHER):
        some = found[start : start + _TOGETHER]
        for file, item in zip(some, spread(partial(_item, read, threshold), some), strict=True):
            if isinstance(item, Item):
                file.check_size(item.size, findings)
                items.append(item)
            else:
                findings.faults.append(item)
    files = [partial(read, file.uri) for file in found]
    return Collection(
        "clearml-alpha",
        frames.location,
        items,
        [frames.main, *files],
        faults=findings.faults,
        lost=findings.lost,
    )


def from_clearml_alpha(
    source: object,
    store: StoreLike,
    *,
    masks: str | os.PathLike[str] | Resolver | None = None,
    threshold: int | None = None,
    image: str = "context_id",
    **options: Any,
) -> ConversionReport:
    """Write frames with alpha-channel masks to a store.

    Parameters
    ----------
    source, masks, threshold, image
        As for `maskcube.formats.clearml_alpha.read_clearml_alpha`.
    store : path, URL or zarr Store
        The target.
    **options
        As for `from_clearml`.

    Returns
    -------
    ConversionReport
        Counts, sizes and time.

    Raises
    ------
    SourceError
        With every fault; nothing is written then.
    StoreExists
        When something is at `store`.
    InvalidOption
        When an argument has no meaning.
    MissingDependency
        When Pillow is not installed.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> masks = open_masks("masks.zarr").sel(noun=["hand"])
    >>> _ = to_clearml_alpha(masks, "hands", alpha=200, progress=False)
    >>> report = from_clearml_alpha("hands", "hands.zarr", progress=False)
    >>> bool((open_masks("hands.zarr").values == masks.values).all())
    True
    """
    found = read_clearml_alpha(source, masks=masks, threshold=threshold, image=image)
    return store_collection(found, store, **options)


class _Drawing(NamedTuple):
    """What holds for every image of an export."""

    folder: Path
    opacities: np.ndarray[Any, np.dtype[np.uint8]]
    """Outside and inside."""
    places: Places


def _draw(
    drawing: _Drawing, stems: Mapping[str, str], masks: ImageMasks
) -> tuple[dict[str, Any], ImageMasks]:
    """Write the PNGs of an image and return its frame."""
    ids = object_ids(masks.records)
    stem, ends = stems[masks.image], file_names(ids, ".png")
    # No stem has a dot, so no two of these are the same.
    files = [MaskFile(mask_id, f"{stem}.{ends[mask_id]}") for mask_id in ids]
    outside, inside = drawing.opacities
    for file, mask in zip(files, masks.each(), strict=True):
        picture = mask * (inside - outside)
        if outside:
            picture += outside
        (drawing.folder / MASKS / file.file).write_bytes(encode(picture))
    objects = [
        {"id": mask_id, "noun": record.noun, **record.properties()}
        for mask_id, record in zip(ids, masks.records, strict=True)
    ]
    about = {"objects": objects, "opacity": drawing.opacities.tolist()}
    return new_frame(masks.image, masks.shape, files, drawing.places, meta_blob=about), masks


def _is_pixel_mask(file: PixelFile, findings: Findings) -> bool:
    """Whether the values of a mask are those of regions."""
    if file.regions:
        findings.lose(
            "masks whose values stand for labels are left out; from_clearml reads them", file.where
        )
    return bool(file.regions)


def _item(read: ReadBytes, threshold: int | None, file: PixelFile) -> Item | str:
    """Return a mask, or what is wrong with it."""
    try:
        record = _record(file)
        least = _threshold(file.about) if threshold is None else threshold
        size = size_of(read(file.uri))
    except (ValueError, OSError, LookupError, TypeError) as error:
        return f"{file.where}: {file.uri!r:.200} {error}"
    return Item(record, size, partial(_mask, read, file.uri, least))


def _mask(read: ReadBytes, uri: str, threshold: int) -> NDArray[np.uint8]:
    return (greys_of(read(uri)) >= threshold).view(np.uint8)


def _record(file: PixelFile) -> Record:
    objects = file.about.get("objects")
    for each in objects if isinstance(objects, list) else []:
        if isinstance(each, Mapping) and each.get("id") == file.id:
            return Record.of(file.image, each.get("noun"), each)
    named = _NUMBERED.fullmatch(file.id)
    noun, instance = (named[1], int(named[2])) if named else (file.id, None)
    return Record(image=file.image, noun=noun, instance=instance)


def _threshold(about: Mapping[str, Any]) -> int:
    """Return the opacity half-way between outside and inside."""
    found = about.get("opacity")
    if not isinstance(found, list):
        return _HALF
    outside, inside = (integer_of("opacity", each) or 0 for each in (*found, 0, 0)[:2])
    if not 0 <= outside < inside <= _OPAQUE:
        raise ValueError(f"has an opacity that is none: {found!r:.80}")
    return (outside + inside + 1) // 2


def _check_opacities(alpha: int, outside: int) -> None:
    for name, value in (("alpha", alpha), ("outside", outside)):
        if type(value) is not int or not 0 <= value <= _OPAQUE:
            raise InvalidOption(
                f"{name}={value!r}: an opacity is an integer from 0 to {_OPAQUE}, the value of the"
                " pixels; for a share, give round(255 * share)"
            )
    if outside >= alpha:
        raise InvalidOption(
            f"alpha={alpha}, outside={outside}: inside of an object the image must be more opaque"
            " than outside"
        )
