"""The brain that a model answers for: which voxels, where they are, and how well they are known."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed

__all__ = ["MEASURES", "MOST_REGIONS", "Brain", "Region", "Volume"]

MEASURES = {
    "noiseceiling_task_train_n_1": "noise ceiling of one repeat of a training video",
    "noiseceiling_task_train_n_3": "noise ceiling of the mean of 3 repeats of a training video",
    "noiseceiling_task_test_n_1": "noise ceiling of one repeat of a test video",
    "noiseceiling_task_test_n_10": "noise ceiling of the mean of 10 repeats of a test video",
    "correlation": "correlation of predicted and measured responses to the test videos",
    "r2": "square of that correlation",
    "explained_variance": "explained variance as a share of what the noise ceiling allows",
}
"""What is said of each voxel, by BERG's names."""

MOST_REGIONS = 2048
"""Each is a bool for every voxel in the end."""

_NAME = re.compile(r"\w[^\s/\\]{0,99}")
_TAKEN = {*"ijkxyz", "hemisphere", "roi", "voxel", "stimulus", "zarr.json"}
"""What else has a name beside those of regions and measures."""


@dataclass(frozen=True)
class Region:
    """A region of interest: voxels of the volume.

    Parameters
    ----------
    indices : numpy.ndarray
        (n, 3) int64: where its voxels are in the volume.
    flat : numpy.ndarray
        (n,) int64: the same "with respect to the flattened group mask", as BERG's files have it.
        Never rows of a model: its voxels are those of another mask.
    """

    indices: NDArray[np.int64]
    flat: NDArray[np.int64]


@dataclass(frozen=True)
class Volume:
    """Which voxels of a volume belong to a mask, and where the volume is.

    Parameters
    ----------
    mask : numpy.ndarray
        (i, j, k) bool.
    affine : numpy.ndarray
        (4, 4) float64: from i, j, k to x, y, z in mm.
    header : bytes, optional
        The NIfTI-1 header, 348 bytes.
    """

    mask: NDArray[np.bool_]
    affine: NDArray[np.float64]
    header: bytes | None = None

    @property
    def attributes(self) -> dict[str, list[int] | list[float]]:
        """What arrays say of the volume of their voxels; nothing where the affine is not known."""
        if not np.isfinite(self.affine).all():
            return {}
        return {"volume_shape": list(self.mask.shape), "affine": self.affine.ravel().tolist()}


@dataclass(frozen=True)
class Brain:
    """What is known of the voxels of one subject.

    Parameters
    ----------
    voxels : Volume
        The voxels that the model answers for. Row r of its coefficients is the r-th True voxel of
        the mask, in C order.
    group : Volume
        The voxels that all subjects have.
    regions : mapping of str to Region
        The regions of interest by their names.
    measures : mapping of str to numpy.ndarray
        (voxel,) float each: see `MEASURES`.
    """

    voxels: Volume
    group: Volume
    regions: Mapping[str, Region] = field(default_factory=dict)
    measures: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)

    @cached_property
    def indices(self) -> NDArray[np.int64]:
        """Where each voxel is in the volume: (voxel, 3) int64."""
        return np.argwhere(self.voxels.mask)

    @property
    def faults(self) -> list[str]:
        """What is wrong with regions: with their names, or with where they lie."""
        return self.faults_of_names or [
            f"region {name!r} has places that are not (n, 3) in the volume"
            f" {self.voxels.mask.shape}, or more or fewer flat indices than places"
            for name, region in self.regions.items()
            if not _lies_in(region, self.voxels.mask.shape)
        ]

    @property
    def faults_of_names(self) -> list[str]:
        """What is wrong with the names of regions and measures.

        They are words of the coordinate ``roi``, and coordinates themselves.
        """
        if len(self.regions) > MOST_REGIONS:
            return [f"there are {len(self.regions):,} regions, at most {MOST_REGIONS:,} can be"]
        counts = Counter([*self.regions, *self.measures])
        strange = [
            str(name)[:100] for name, count in counts.items() if count > 1 or not _is_name(name)
        ]
        if not strange:
            return []
        told = f"regions or measures are called {listed(strange)}: each wants a name of its own, of"
        return [f"{told} up to 100 characters, no spaces or slashes, which no other coordinate has"]

    @cached_property
    def _row_of(self) -> NDArray[np.int64]:
        """The row of each place of the volume, (i, j, k) int64; -1 where there is no voxel."""
        mask = self.voxels.mask
        counted = np.cumsum(mask.ravel()).reshape(mask.shape) - 1
        return np.where(mask, counted, -1)

    @property
    def n_voxels(self) -> int:
        """Number of voxels that the model answers for."""
        return len(self.indices)

    def rows(self, region: str) -> NDArray[np.int64]:
        """Return the rows of a region's voxels, ascending; those outside of the mask have none.

        By their places in the volume, as the rows of a model follow the subject's mask, and a
        region's flat indices another one.
        """
        found = self._row_of[tuple(self.regions[region].indices.T)]
        return np.unique(found[found >= 0])


def _lies_in(region: Region, shape: tuple[int, ...]) -> bool:
    places = np.asarray(region.indices)
    if places.shape != (len(region.flat), len(shape)):
        return False
    return bool(((places >= 0) & (places < shape)).all())


def _is_name(name: object) -> bool:
    is_word = isinstance(name, str) and _NAME.fullmatch(name) is not None and name.isprintable()
    return is_word and name not in _TAKEN
