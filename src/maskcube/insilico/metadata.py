"""What is known of a subject's voxels, as the dict that BERG gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from maskcube.insilico.brain import Brain, Region, Volume
from maskcube.insilico.errors import InvalidParameterError

__all__ = ["metadata_of"]


def metadata_of(brain: Brain | None) -> dict[str, Any]:
    """Return what is known of a subject's voxels under BERG's names.

    Returns
    -------
    dict
        ``fmri``: ``group_mask`` and ``sub_mask``, (i, j, k) bool, the ``_affine`` of each, (4, 4)
        float64, the ``_header`` of each, and ``rois``, by their names: places in the volume, (n, 3)
        int64; numbers in the flattened group mask, (n,) int64, which are no rows of the model; an
        image of 1 in the region and 0 elsewhere. Headers and images are nibabel's; None where that
        is not installed. ``encoding_models``: noise ceilings, in percent, and accuracies, (voxel,).
        ``explained_variance`` is a fraction, 1 at the noise ceiling.

    Raises
    ------
    InvalidParameterError
        When nothing is known of them.
    """
    if brain is None:
        raise InvalidParameterError("this model has no metadata: it was made without a brain")
    fmri: dict[str, Any] = {}
    for name, volume in (("group_mask", brain.group), ("sub_mask", brain.voxels)):
        fmri[name] = volume.mask
        fmri[f"{name}_header"] = _header(volume)
        fmri[f"{name}_affine"] = volume.affine
    fmri["rois"] = {
        name: (region.indices, region.flat, _image(region, brain.voxels))
        for name, region in brain.regions.items()
    }
    return {"fmri": fmri, "encoding_models": dict(brain.measures)}


def _header(volume: Volume) -> object:
    try:
        import nibabel as nib
    except ImportError:
        return None
    return None if volume.header is None else nib.Nifti1Header(volume.header)


def _image(region: Region, volume: Volume) -> object:
    """Return a region as an image, or None without nibabel."""
    try:
        import nibabel as nib
    except ImportError:
        return None
    inside = np.zeros(volume.mask.shape, np.uint8)
    inside[tuple(region.indices.T)] = 1
    is_placed = np.isfinite(volume.affine).all()
    return nib.Nifti1Image(inside, volume.affine if is_placed else None)
