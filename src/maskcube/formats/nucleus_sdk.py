"""Annotations as the objects of Scale's own client, ready for an upload."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import xarray as xr

from maskcube.errors import InvalidOption, SourceError, missing
from maskcube.formats.nucleus import ANNOTATIONS, FOLDER, to_nucleus
from maskcube.formats.nucleus_rows import BOX, MASK, POLYGON, rows_of

__all__ = ["to_nucleus_sdk"]

_CLASSES = {MASK: "Segmentation", POLYGON: "Polygon", BOX: "Box"}


def to_nucleus_sdk(
    masks: xr.DataArray | str | Path,
    out: str | Path | None = None,
    *,
    predictions: bool = False,
    **options: Any,
) -> list[Any]:
    """Return annotations as objects of Scale's client, for ``Dataset.annotate(..., update=True)``.

    The client uploads the maps, ten in each request; with ``update=True`` they replace those that
    items have, else items that have one keep it [1]_.

    Parameters
    ----------
    masks : xarray.DataArray or path
        (mask, y, x), of `open_masks`; or a folder that `to_nucleus` has made.
    out : path, optional
        The folder to make of an array: the client reads the maps from there.
    predictions : bool, default False
        Give predictions, for ``Dataset.upload_predictions``; polygons and boxes have their score as
        confidence.
    **options
        As in `to_nucleus`.

    Returns
    -------
    list
        ``nucleus.SegmentationAnnotation``, ``PolygonAnnotation`` or ``BoxAnnotation``, or likewise
        ``...Prediction``, in the order of ``annotations.jsonl``.

    Raises
    ------
    MissingDependency
        scale-nucleus is not installed.
    InvalidOption
        When there is an array and no `out`, or an `out` and no array; else as in `to_nucleus`.
    SourceError
        When a folder is none of `to_nucleus`.

    References
    ----------
    .. [1] https://nucleus.scale.com/docs/segmentation-annotations
    """
    nucleus = _nucleus()
    if isinstance(masks, xr.DataArray):
        if out is None:
            raise InvalidOption("out=None: the client uploads files, give the folder to make")
        folder = Path(to_nucleus(masks, out, **options).location)
    elif out is not None or options:
        raise InvalidOption(f"{str(masks)!r} is written already; out and options are for an array")
    else:
        folder = Path(os.path.abspath(masks))  # noqa: PTH100 - resolve would follow links
    if not (folder / ANNOTATIONS).is_file():
        raise SourceError(str(folder), [f"there is no {ANNOTATIONS} in this folder"])
    suffix = "Prediction" if predictions else "Annotation"
    classes = {kind: getattr(nucleus, f"{name}{suffix}") for kind, name in _CLASSES.items()}
    found = []
    for row in rows_of(folder / ANNOTATIONS):
        try:
            payload = row.load()
            found.append(classes[payload["type"]].from_json(_present(payload, folder)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SourceError(
                str(folder), [f"{row.place}: is none of to_nucleus: {error}"]
            ) from error
    return found


def _nucleus() -> Any:  # noqa: ANN401 - an optional library
    try:
        import nucleus
    except ImportError:
        raise missing("scale-nucleus", "nucleus", "to_nucleus_sdk") from None
    return nucleus


def _present(payload: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a payload with its map where the folder is now, and its score as confidence."""
    url = payload.get("mask_url")
    if url is not None and "://" not in url:
        there = folder / FOLDER / url.replace("\\", "/").rpartition("/")[2]
        payload = {**payload, "mask_url": str(there)} if there.is_file() else payload
    score = payload.get("metadata", {}).get("score")
    return payload if score is None else {**payload, "confidence": score}
