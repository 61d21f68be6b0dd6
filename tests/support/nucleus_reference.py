"""Masks for exports to Nucleus, and what its maps must show: nothing of maskcube is used here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from PIL import Image
from reference import Masks

__all__ = ["lines_of", "map_of", "mask_array", "panoptic_map", "semantic_map"]


def panoptic_map(masks: Masks, table: pd.DataFrame) -> Any:
    """Return (y, x) int: 1 + the position of the smallest mask at each pixel, 0 where none is.

    Of equally large ones it is that of the higher score, then the one of the lower row.
    """
    scores = table["score"].fillna(-np.inf).tolist()
    areas = masks.sum(axis=(1, 2)).tolist()
    order = sorted(range(len(masks)), key=lambda k: (-areas[k], scores[k], -k))
    owner = np.zeros(masks.shape[1:], int)
    for position in order:
        owner[masks[position] == 1] = position + 1
    return owner


def semantic_map(masks: Masks, table: pd.DataFrame) -> Any:
    """Return (y, x) of texts: the noun of that mask, empty where none is."""
    return np.array(["", *table["noun"]])[panoptic_map(masks, table)]


def mask_array(pixels: Any, **coordinates: Any) -> xr.DataArray:
    """Return masks, (mask, y, x), with coordinates that are given, or are plain."""
    pixels = np.asarray(pixels, np.uint8)
    n_masks = len(pixels)
    defaults = {
        "image": ["a.jpg"] * n_masks,
        "noun": ["hand"] * n_masks,
        "instance": list(range(n_masks)),
        "score": [0.5] * n_masks,
        **{f"box_{edge}": [np.nan] * n_masks for edge in ("x0", "y0", "x1", "y1")},
        "localized": [1] * n_masks,
        "mask_file": [""] * n_masks,
        "mask_row": list(range(n_masks)),
    }
    values = {name: ("mask", coordinates.get(name, plain)) for name, plain in defaults.items()}
    return xr.DataArray(pixels, dims=("mask", "y", "x"), coords=values)


def lines_of(folder: Path, name: str = "annotations.jsonl") -> list[dict[str, Any]]:
    """Return the annotations in a folder, as plain JSON has them."""
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def map_of(folder: Path, line: dict[str, Any]) -> Any:
    """Return the map of an annotation, (y, x) uint8."""
    with Image.open(folder / "masks" / Path(line["mask_url"]).name) as image:
        assert image.mode == "L"
        return np.array(image)
