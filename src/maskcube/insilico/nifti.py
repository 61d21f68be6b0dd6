"""Responses back in the volume, as a NIfTI image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from maskcube.errors import InvalidOption, listed, missing
from maskcube.insilico.voxels import DIM

if TYPE_CHECKING:
    import nibabel as nib

__all__ = ["to_nifti"]

_NEEDED = ("i", "j", "k")
_MOST_AXES = 2


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
    if DIM not in getattr(responses, "dims", ()):
        raise InvalidOption("to_nifti takes a DataArray along 'voxel', as encode gives it")
    lacking = [name for name in _NEEDED if name not in responses.coords]
    lacking += [name for name in ("volume_shape", "affine") if name not in responses.attrs]
    if lacking:
        raise InvalidOption(
            f"responses lack {listed(lacking)}: give them with the coordinates and attributes of"
            " encode; arithmetic keeps attributes with xarray.set_options(keep_attrs=True)"
        )
    if responses.ndim > _MOST_AXES:
        raise InvalidOption(
            f"responses have the dimensions {responses.dims}: give (stimulus, voxel) or (voxel,)"
        )
    others = [dim for dim in responses.dims if dim != DIM]
    values = responses.transpose(DIM, *others).to_numpy()
    shape: tuple[Any, ...] = (*responses.attrs["volume_shape"], *values.shape[1:])
    volume = np.full(shape, fill, np.float32)
    volume[tuple(responses[name].to_numpy() for name in _NEEDED)] = values
    affine = np.array(responses.attrs["affine"], float).reshape(4, 4)
    image = nib.Nifti1Image(volume, affine)
    image.header.set_xyzt_units("mm")
    return image
