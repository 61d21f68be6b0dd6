"""Responses as a labelled array, lazy over stimuli where that is asked for."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import numpy as np
import xarray as xr

from maskcube.errors import InvalidOption
from maskcube.insilico.model import EncodingModel, Stimulus, check_model
from maskcube.insilico.voxels import DIM

__all__ = ["encode"]

_STIMULUS = "stimulus"


def encode(
    model: EncodingModel,
    videos: Stimulus | xr.DataArray,
    *,
    chunks: int | None = None,
    show_progress: bool = False,
) -> xr.DataArray:
    """Return the responses to videos, with all that is known of the voxels.

    Parameters
    ----------
    model : EncodingModel
        What `BERG.get_encoding_model` gives.
    videos : array or xarray.DataArray
        (stimulus, frame, 3, height, width) of integers in 0..255; or float features or component
        scores: see `EncodingModel.encode`. Of a DataArray the first dimension keeps its name and
        its coordinates. Of an array of dask the responses are one too.
    chunks : int, optional
        Stimuli of a task of dask: nothing is encoded before it is computed. Every task reads the
        components once, 1.6 GB, and so few large ones are quicker than many small ones: 64 is as
        many as `get_encoding_model` takes at a time. Without it numpy's are encoded at once.
    show_progress : bool
        Show a progress bar on stderr, where everything is encoded at once.

    Returns
    -------
    xarray.DataArray
        (stimulus, voxel) float32, in standard deviations of a session's responses. Coordinates of
        the voxels: their place in the volume (``i``, ``j``, ``k``) and in MNI152 (``x``, ``y``,
        ``z``, mm), ``hemisphere``, ``roi`` and a bool for each region, noise ceilings and
        accuracies, whose attributes say their units. ``.sel(roi="lV1v")`` gives a region.

    Raises
    ------
    InvalidParameterError
        When `model` is none.
    StimulusError
        When these are no such videos.
    InvalidOption
        When `chunks` is no number of stimuli.

    Examples
    --------
    >>> from maskcube.insilico import BERG, sample_model
    >>> model = BERG(sample_model("models.zarr")).get_encoding_model("fmri-bmd-s3d", subject=1)
    >>> import numpy as np
    >>> videos = np.random.default_rng(0).integers(0, 256, (4, 14, 3, 32, 32), "uint8")
    >>> responses = encode(model, videos, chunks=2)
    >>> responses.sizes["stimulus"], responses.chunks[0]
    (4, (2, 2))
    >>> bool(responses.sel(roi="lV1v").hemisphere.isin(["left"]).all())
    True
    """
    check_model(model)
    along, labels, given = _stimuli(videos)
    if chunks is None and not hasattr(given, "dask"):
        values: Any = model.encode(given, show_progress=show_progress)
    else:
        values = _lazy(model, given, chunks)
    coords = model.coords.assign({**labels}) if labels else model.coords
    return xr.DataArray(values, coords, (along, DIM), "responses", model.attributes)


def _stimuli(videos: Stimulus | xr.DataArray) -> tuple[Hashable, dict[Hashable, Any], Any]:
    """Return the dimension of stimuli, their coordinates, and the array."""
    if not isinstance(videos, xr.DataArray):
        return _STIMULUS, {}, videos
    along = videos.dims[0]
    labels = {
        name: (along, each.to_numpy(), each.attrs)
        for name, each in videos.coords.items()
        if each.dims == (along,)
    }
    return along, labels, videos.data


def _lazy(model: EncodingModel, videos: Any, chunks: int | None) -> Any:  # noqa: ANN401 - dask is imported late
    """Return an array of dask, each block of which encodes some stimuli."""
    import dask.array as da

    if chunks is not None and (type(chunks) is not int or chunks < 1):
        raise InvalidOption(f"chunks={chunks!r} is no number of stimuli: give for example 64")
    if hasattr(videos, "shape") and hasattr(videos, "dtype"):
        # Of the same shape and type, in no memory: no value is looked at.
        model.check(np.broadcast_to(np.empty((), videos.dtype), videos.shape))
    else:
        model.check(videos)
    # All of a stimulus goes into one block.
    rest = [-1] * (videos.ndim - 1)
    if isinstance(videos, da.Array):
        blocks = videos.rechunk((videos.chunks[0] if chunks is None else chunks, *rest))
    else:
        blocks = da.from_array(videos, (chunks, *rest), meta=np.empty(0, videos.dtype))
    return blocks.map_blocks(
        model.encode,
        dtype=np.float32,
        chunks=(blocks.chunks[0], (model.n_voxels,)),
        drop_axis=list(range(2, videos.ndim)),
        meta=np.empty((0, 0), np.float32),
        name=None,
    )
