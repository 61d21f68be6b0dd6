"""Pixel segmentation masks of ClearML: colours that stand for nouns, both ways.

The format is that of ClearML's page "Masks" (HyperDatasets) and of the schema of its
``SaveFramesRequest``, API 2.23.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import xarray as xr

from maskcube.errors import InvalidOption
from maskcube.formats.choices import check_choice
from maskcube.formats.clearml_drawing import Drawing, draw
from maskcube.formats.clearml_frames import (
    FRAMES,
    LABELS,
    LEGEND,
    MASKS,
    FrameWriter,
    Places,
    check_template,
)
from maskcube.formats.clearml_palette import BACKGROUND, MaskLabels, Palette
from maskcube.formats.clearml_regions import read_masks
from maskcube.formats.clearml_source import IMAGES, FrameSource, mask_reader
from maskcube.formats.clearml_values import version_labels
from maskcube.formats.collection import Collection
from maskcube.formats.files import Resolver
from maskcube.formats.findings import Findings
from maskcube.formats.images import MaskImages
from maskcube.formats.intake import store_collection
from maskcube.formats.names import file_names
from maskcube.formats.output import new_folder, to_json
from maskcube.formats.overlap import check_overlap, check_share
from maskcube.formats.report import ExportReport, Tally
from maskcube.objects import StoreLike
from maskcube.report import ConversionReport

__all__ = ["from_clearml", "mask_labels", "read_clearml", "to_clearml"]


def to_clearml(
    masks: xr.DataArray,
    out: str | os.PathLike[str],
    *,
    overlap: str = "smallest",
    min_visible: float = 0.0,
    mask_uri: str | None = None,
    source_uri: str | None = None,
    mask_id: str = "{number}",
    nouns: Iterable[str] | None = None,
    background: str | None = BACKGROUND,
    overwrite: bool = False,
    progress: bool = True,
) -> ExportReport:
    """Write pixel segmentation masks for ClearML: PNGs, frames and the labels of their colours.

    In the folder: ``frames.json``, a list of frames as the API takes them, one on each line;
    ``masks/``, the PNGs; ``mask_labels.json``, the metadata of the dataset version, for
    ``HyperDataset.set_metadata``; ``_mask_legend.json``, the colour of each label.

    A noun has one value in all masks: grey (v, v, v) with v from 1 on, or where there are more than
    255 nouns, R + 256 G + 65536 B. Each mask has a region of interest in its frame, with label,
    confidence, value, and the rest of what the store says in its ``meta``. What is lost by nature:
    which pixels are of which instance where an image shows a noun several times, except with
    ``overlap="layers"``, which loses nothing: no PNG has two masks of one noun.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.
    out : path-like
        The folder to write.
    overlap : str, default "smallest"
        What is seen where masks of different nouns overlap: ``"smallest"``, ``"score"``,
        ``"order"``, ``"error"``, or ``"layers"`` for several PNGs a frame.
    min_visible : float, default 0
        Masks of which a smaller share can be seen are left out.
    mask_uri : str, optional
        Where PNGs will be, as in ``"s3://bucket/{file}"``; ``{file}`` is the name in ``masks/``,
        ``{image}`` the image and ``{id}`` the id of the mask, percent-encoded. By default the path
        in the folder.
    source_uri : str, optional
        Where images are, as in ``"s3://laion-fmri/stimuli/{image}"``; by default their name.
    mask_id : str, default "{number}"
        Id of a frame's masks; ``{number}`` is ``00``, ``01``, ..., with so many digits that their
        order as text is right.
    nouns : iterable of str, optional
        Nouns that get the first values, in this order: those of all masks of a dataset version,
        when it is written in several parts. By default the nouns of `masks`, sorted.
    background : str or None, default "background"
        Label of the pixels of no object, value 0; None for none.
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
    >>> masks = open_masks("masks.zarr").sel(image="shared_12rep_LAION_cluster_1003_i0.jpg")
    >>> report = to_clearml(masks, "clearml", overlap="layers", progress=False)
    >>> report.changed
    []
    >>> import json
    >>> metadata = json.loads(Path("clearml/mask_labels.json").read_text())
    >>> metadata["mask_labels"]["_all_"][0]
    {'value': [0, 0, 0], 'labels': ['background']}
    """
    check_overlap(overlap, layers=True)
    check_share(min_visible)
    several = overlap == "layers"
    places = Places(mask_uri, source_uri)
    places.check(several=several)
    check_template("mask_id", mask_id, {"number"}, [{"number"}] if several else ())
    if not mask_id:
        raise InvalidOption("mask_id='': an id has at least one letter")
    images = MaskImages(masks)
    palette = Palette.of(images.nouns, nouns, background=background)
    stems = file_names(images.names, "")
    tally = Tally("clearml", os.fspath(out), overlap)
    with new_folder(os.fspath(out), overwrite=overwrite) as folder:
        (folder / MASKS).mkdir()
        drawing = Drawing(folder, overlap, min_visible, places, mask_id, palette)
        with FrameWriter(folder / FRAMES) as frames:
            drawn = partial(draw, drawing, stems)
            for found in images.map(drawn, progress=progress):
                frames.write(found.frame)
                tally.add(found.masks, found.visible, found.dropped)
        _write(folder / LABELS, palette.metadata())
        _write(folder / LEGEND, palette.legend())
        return tally.report(folder)


def mask_labels(
    masks: xr.DataArray,
    *,
    nouns: Iterable[str] | None = None,
    background: str | None = BACKGROUND,
) -> MaskLabels:
    """Return the labels of each colour as ``DatasetVersion.set_masks_labels`` takes them.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x), what is exported; no pixel is read.
    nouns, background
        As for `to_clearml`.

    Returns
    -------
    dict of (int, int, int) to list of str
        The labels of each red, green and blue.

    Examples
    --------
    >>> from maskcube import open_masks
    >>> mask_labels(open_masks("masks.zarr").sel(noun=["hand", "fingers"]))
    {(0, 0, 0): ['background'], (1, 1, 1): ['fingers'], (2, 2, 2): ['hand']}
    """
    return Palette.of(MaskImages(masks).nouns, nouns, background=background).labels()


def read_clearml(
    source: object,
    *,
    masks: str | os.PathLike[str] | Resolver | None = None,
    labels: object = None,
    image: str = "context_id",
    background: str | None = BACKGROUND,
) -> Collection:
    """Return what frames with pixel segmentation masks have for a store; decodes each PNG once.

    Which value is which object a frame says itself (``rois``), or the labels of the dataset version
    do; the latter know classes only, and each comes in as one mask, instance 0. A value with
    several labels is a mask of each. A negative part of a value, as in ``[-1, 1, 255]``, stands for
    any. Where several regions of a noun have one value in one mask, their pixels cannot be told
    apart: they come in as one.

    Parameters
    ----------
    source : path, mapping or iterable
        The folder that `to_clearml` has written; a JSON file of frames, a list or one on each line;
        frames as dicts; or entries of ``clearml.hyperdatasets``.
    masks : path or callable, optional
        Where the PNGs are: a folder, below which they are found by their path or by their name, or
        a function that gives the path or the bytes for a URI; it is called several times for each.
        By default they are beside the file of frames, or in ``masks`` there. Nothing is downloaded.
    labels : object, optional
        The labels of the dataset version, as `to_clearml` writes them, ``HyperDataset`` gives them
        by ``get_metadata()``, or ``set_masks_labels`` takes them, or a legend. By default those
        beside the file of frames.
    image : "context_id", "id" or "uri", default "context_id"
        What is taken as the name of an image where a frame is not one of ours; of a URL the last
        part. Frames of a video share a ``context_id``: take their ``id``.
    background : str or None, default "background"
        The label that value 0 has where it is no object.

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
    frames = FrameSource(source)
    findings = Findings()
    known = frames.labels if labels is None else labels
    try:
        named = {} if known is None else version_labels(known)
    except ValueError as error:
        named = {}
        findings.faults.append(str(error))
    read = mask_reader(frames, masks)
    items, files = read_masks(
        frames.frames, read, named, findings, image=image, background=background
    )
    return Collection(
        "clearml",
        frames.location,
        items,
        [frames.main, *files],
        faults=findings.faults,
        lost=findings.lost,
    )


def from_clearml(
    source: object,
    store: StoreLike,
    *,
    masks: str | os.PathLike[str] | Resolver | None = None,
    labels: object = None,
    image: str = "context_id",
    background: str | None = BACKGROUND,
    **options: Any,
) -> ConversionReport:
    """Write frames with pixel segmentation masks to a store.

    Parameters
    ----------
    source, masks, labels, image, background
        As for `maskcube.formats.clearml.read_clearml`.
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
    >>> masks = open_masks("masks.zarr").sel(image="shared_12rep_LAION_cluster_1003_i0.jpg")
    >>> _ = to_clearml(masks, "pixels", overlap="layers", progress=False)
    >>> report = from_clearml("pixels", "again.zarr", progress=False)
    >>> report.n_masks == masks.sizes["mask"]
    True
    """
    found = read_clearml(source, masks=masks, labels=labels, image=image, background=background)
    return store_collection(found, store, **options)


def _write(path: Path, value: object) -> None:
    path.write_text(f"{to_json(value)}\n", encoding="utf-8", newline="\n")
