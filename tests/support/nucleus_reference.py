"""What a map of Nucleus must show, painted mask by mask: nothing of maskcube is used here."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from reference import Masks

__all__ = ["panoptic_map", "semantic_map"]


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
