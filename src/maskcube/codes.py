"""Numbers for labels: which distinct values there are, and which of them each mask has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Codes", "code_dtype", "factorized", "numbered"]

Codes = NDArray[np.unsignedinteger[Any]]
"""Positions among the distinct values, in the smallest dtype that fits."""

_SMALL = 2**16
"""Largest integer for which a table of all integers is made."""


def code_dtype(n_labels: int) -> np.dtype[Any]:
    """Return the smallest unsigned dtype that numbers so many labels."""
    return np.min_scalar_type(max(n_labels - 1, 0))


def numbered(values: Sequence[Any]) -> tuple[list[Any], Codes]:
    """Return the distinct values, sorted, and where among them each value is.

    Examples
    --------
    >>> numbered(["hand", "cup", "hand"])
    (['cup', 'hand'], array([1, 0, 1], dtype=uint8))
    """
    labels = sorted(set(values))
    code_of = {label: code for code, label in enumerate(labels)}
    codes = np.fromiter(
        map(code_of.__getitem__, values), dtype=code_dtype(len(labels)), count=len(values)
    )
    return labels, codes


def factorized(values: NDArray[Any]) -> tuple[list[Any], Codes]:
    """Do as `numbered` for an array of texts or integers, (mask,).

    ``pandas.factorize`` is as fast, but before pandas 3 it ends a string at a NUL.
    """
    if values.dtype.kind in "iu" and len(values) and 0 <= values.min() <= values.max() <= _SMALL:
        return _tabulated(values)
    changes = np.ones(len(values), bool)
    changes[1:] = values[1:] != values[:-1]
    starts = np.flatnonzero(changes)
    # Masks of an image follow each other: one Python string for each run is enough.
    in_runs = 2 * len(starts) < len(values)
    labels, codes = numbered((values[starts] if in_runs else values).tolist())
    return labels, np.repeat(codes, np.diff(starts, append=len(values))) if in_runs else codes


def _tabulated(values: NDArray[Any]) -> tuple[list[int], Codes]:
    """Do as `factorized` for small integers, ten times as fast."""
    is_there = np.zeros(int(values.max()) + 1, bool)
    is_there[values] = True
    labels = np.flatnonzero(is_there)
    codes = (np.cumsum(is_there) - 1).astype(code_dtype(len(labels)))
    return labels.tolist(), codes[values]
