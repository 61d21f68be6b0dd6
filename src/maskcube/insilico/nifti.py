"""Responses back in the volume, as a NIfTI image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, listed, missing
from maskcube.insilico.voxels import DIM

if TYPE_CHECKING:
    import nibabel as nib

__all__ = ["to_nifti"]

_PLACES = ("i", "j", "k")
_VOLUME = ("volume_shape", "affine")
_MOST_AXES = 2
_MOST_IMAGES = 2**15 - 1
_MOST_VOXELS = 2**26


def to_nifti(responses: xr.DataArray, *, fill: float = np.nan) -> nib.Nifti1Image:
    """Return responses as an image of the brain, in the space of the model's volume.

    Needs nibabel, of the extra ``berg``. Computes what is lazy.

    Parameters
    ----------
    responses : xarray.DataArray
        (stimulus, voxel) or (voxel,), as `encode` gives them, selected from or not; any other
        quantity along ``voxel`` will do, such as a noise ceiling or the mean over a region.
    fill : float, default NaN
        Value outside of these voxels.

    Returns
    -------
    nibabel.Nifti1Image
        (i, j, k) float32, or (i, j, k, stimulus), with the affine of the model, MNI152 in mm.

    Raises
    ------
    InvalidOption
        When there is no volume to put them into, or other dimensions than these.
    MissingDependency
        When nibabel is not installed.

    Examples
    --------
    >>> from maskcube.insilico import BERG, encode, sample_model
    >>> model = BERG(sample_model("models.zarr")).get_encoding_model("fmri-bmd-s3d", subject=1)
    >>> import numpy as np
    >>> scores = np.ones((2, model.n_components), "float32")
    >>> to_nifti(encode(model, scores)).shape
    (12, 14, 10, 2)
    """
    try:
        import nibabel as nib
    except ImportError as error:
        raise missing("nibabel", "berg", "to_nifti") from error
    said = _checked(responses)
    others = [dim for dim in responses.dims if dim != DIM]
    values = responses.transpose(DIM, *others).to_numpy()
    size, affine = _space(said)
    if values.dtype.kind not in "fiub" or max(values.shape[1:], default=0) > _MOST_IMAGES:
        raise InvalidOption(
            f"responses {responses.shape} of {values.dtype}: an image has real numbers, and at most"
            f" {_MOST_IMAGES:,} stimuli"
        )
    volume = np.full((*size, *values.shape[1:]), fill, np.float32)
    volume[_places(responses, size)] = values
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    return image


def _space(said: dict[str, Any]) -> tuple[tuple[int, ...], NDArray[np.float64]]:
    """Return shape and affine of the volume, which a file may have changed, or anybody."""
    try:
        size = tuple(int(each) for each in said["volume_shape"])
        affine = np.array(said["affine"], float).reshape(4, 4)
    except (ValueError, TypeError, OverflowError):
        size, affine = (), np.empty((4, 4))
    if len(size) != len(_PLACES) or min(size) < 1 or math.prod(size) > _MOST_VOXELS:
        raise InvalidOption(
            "the attributes volume_shape and affine of responses are no volume: those of encode are"
        )
    return size, affine


def _places(responses: xr.DataArray, size: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    found = [np.asarray(responses[name].to_numpy()) for name in _PLACES]
    are_inside = all(
        each.dtype.kind in "iuf" and ((each >= 0) & (each < limit) & (each == each // 1)).all()
        for each, limit in zip(found, size, strict=True)
    )
    if not are_inside:
        raise InvalidOption(
            f"coordinates i, j and k of responses are no places in a volume of {size}: voxels that"
            " are not there, as after .pad, have none: .isel(voxel=...) what is"
        )
    return tuple(each.astype(np.int64) for each in found)


def _checked(responses: xr.DataArray) -> dict[str, Any]:
    """Return what is said of the volume; raises `InvalidOption` where responses have no place."""
    if not isinstance(responses, xr.DataArray):
        raise InvalidOption(
            f"to_nifti takes a DataArray along {DIM!r}, as encode gives it, and this is a"
            f" {type(responses).__name__}"
        )
    if DIM not in responses.dims or responses.ndim > _MOST_AXES:
        raise InvalidOption(
            f"responses have the dimensions {responses.dims}: give one along {DIM!r}, (stimulus,"
            f" {DIM}) or ({DIM},); select from the others, or take their mean"
        )
    lacking = [name for name in _PLACES if name not in responses.coords]
    if lacking:
        raise InvalidOption(
            f"responses have no coordinates {listed(lacking)}, and so their voxels have no place:"
            " encode gives them, where the model has a brain; fit(..., brain=) makes one that has"
        )
    said = {**responses[_PLACES[0]].attrs, **responses.attrs}
    if not set(_VOLUME) <= set(said):
        raise InvalidOption(
            f"responses and their coordinate {_PLACES[0]!r} lack the attributes"
            f" {listed(_VOLUME)}, as encode gives them where the model's files have an affine"
        )
    return said
