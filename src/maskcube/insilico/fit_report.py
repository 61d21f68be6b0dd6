"""What a fit has made, and how well it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FitReport"]


@dataclass(frozen=True, kw_only=True)
class FitReport:
    """What a fit has made, and how well it predicts."""

    location: str
    """Where the store is."""
    subject: int
    n_videos: int
    """Videos that it was fitted to."""
    n_repeats: int
    """Repeats of each of these; 1 where responses had none."""
    n_test: int
    """Videos that it was tested with."""
    n_features: int
    n_constant: int
    """Features that are the same for all videos; they count for nothing."""
    n_components: int
    explained_variance_ratio: float
    """Share of the variance of all z-scored features that the components keep, 0 to 1."""
    n_voxels: int
    n_missing: int
    """Responses (of a video, in a voxel) that are NaN and were taken as 0."""
    n_voxels_missing: int
    """Voxels that have such responses."""
    n_kept: int
    """Objects of the store that an earlier, interrupted run had written."""
    seconds: float
    """Wall time."""
    measures: Mapping[str, NDArray[np.float32]] = field(default_factory=dict, repr=False)
    """Noise ceilings and accuracies, (voxel,) float32 each, by their names: see
    `maskcube.insilico.brain.MEASURES`. Noise ceilings are in percent, all others fractions."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types; of each measure its median, most, and NaN."""
        plain = {each.name: getattr(self, each.name) for each in fields(self)}
        return plain | {"measures": {name: _told(values) for name, values in self.measures.items()}}

    def __str__(self) -> str:
        kept = f", {self.n_kept:,} objects of an earlier run" if self.n_kept else ""
        missing = (
            f"; {self.n_missing:,} responses of {self.n_voxels_missing:,} voxels are NaN and were"
            " taken as 0"
            if self.n_missing
            else ""
        )
        return (
            f"{self.location}: subject {self.subject}, {self.n_voxels:,} voxels by"
            f" {self.n_components:,} components of {self.n_features:,} features, fitted to"
            f" {self.n_videos:,} videos{missing}; the components keep"
            f" {self.explained_variance_ratio:.1%} of the features' variance{self._accuracy()};"
            f" {self.seconds:.1f} s{kept}"
        )

    def _accuracy(self) -> str:
        if "correlation" not in self.measures:
            return ""
        found = self.measures["correlation"]
        median = _told(found)["median"]
        told = "none" if median is None else f"median {median:.3f}, at most {np.nanmax(found):.3f}"
        return f"; correlation with responses to {self.n_test:,} test videos: {told}"


def _told(values: NDArray[np.float32]) -> dict[str, float | int | None]:
    """Return the median and the maximum of what is not NaN, if anything, and how many are."""
    known = values[~np.isnan(values)].astype(np.float64)
    return {
        "median": float(np.median(known)) if len(known) else None,
        "maximum": float(known.max()) if len(known) else None,
        "n_nan": len(values) - len(known),
    }
