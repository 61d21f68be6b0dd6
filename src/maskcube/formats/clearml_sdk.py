"""An export as objects of ClearML's own SDK, ``clearml.hyperdatasets``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from maskcube.errors import SourceError, missing
from maskcube.formats.clearml_source import FrameSource

__all__ = ["to_clearml_sdk"]


def to_clearml_sdk(
    folder: str | os.PathLike[str], *, upload: Callable[[str], str] | None = None
) -> list[Any]:
    """Return the frames of an export as entries that ``HyperDataset.add_data_entries`` takes.

    ClearML uploads images, not masks: where the masks have no URI yet (``mask_uri=``), `upload`
    gives each one, or they are registered with their path on this machine. The labels of a version
    are in ``mask_labels.json`` as ``HyperDataset.set_metadata`` takes them.

    Parameters
    ----------
    folder : path-like
        What `to_clearml` or `to_clearml_alpha` has written.
    upload : callable, optional
        Puts a PNG, given by its path, where ClearML finds it, and returns its URI; for instance
        ``lambda path: StorageManager.upload_file(path, f"s3://bucket/{Path(path).name}")``.

    Returns
    -------
    list of clearml.hyperdatasets.DataEntryImage
        One for each image, with a ``DataSubEntryImage`` whose masks keep their ids.

    Raises
    ------
    SourceError
        When there are no frames of ours at that place.
    MissingDependency
        When clearml is not installed.
    """
    try:
        from clearml.hyperdatasets import DataEntryImage
    except ImportError:
        raise missing("clearml", "clearml", "to_clearml_sdk") from None
    frames = FrameSource(folder)
    if frames.folder is None:
        raise SourceError(frames.location, ["is no folder of an export"])
    entries = []
    for number, frame in enumerate(frames.frames):
        try:
            told = _told(frame, frames.folder, upload)
        except (KeyError, TypeError, AttributeError):
            fault = f"frame {number} is not one that maskcube writes"
            raise SourceError(frames.location, [fault]) from None
        entries.append(DataEntryImage.from_api_object(told))
    return entries


def _told(
    frame: Mapping[str, Any], folder: Path, upload: Callable[[str], str] | None
) -> dict[str, Any]:
    """Return a frame with what the SDK would have written itself, in places that it keeps."""
    meta = dict(frame["meta"])
    sources = []
    for source in frame["sources"]:
        masks = [{**mask, "uri": _uri(mask["uri"], folder, upload)} for mask in source["masks"]]
        sources.append({**source, "masks": masks})
        if "meta_blob" in frame:
            # It has no place for the frame's own.
            meta[source["id"]] = frame["meta_blob"]
    rois = [
        {**roi, "meta": {**roi["meta"], "_type": "mask", "_id": roi["id"]}}
        for roi in frame.get("rois", [])
    ]
    return {**frame, "meta": meta, "sources": sources, "rois": rois}


def _uri(uri: str, folder: Path, upload: Callable[[str], str] | None) -> str:
    path = (folder / uri).resolve()
    # A path in data that leads out of the folder is nobody's mask.
    if "://" in uri or not path.is_relative_to(folder.resolve()) or not path.is_file():
        return uri
    return upload(str(path)) if upload else str(path)
