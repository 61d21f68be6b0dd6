"""Responses as a labelled array, lazy over stimuli where that is asked for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, listed
from maskcube.insilico.model import EncodingModel, Stimulus, check_model
from maskcube.insilico.voxels import DIM

if TYPE_CHECKING:
    from dask.utils import SerializableLock

__all__ = ["encode", "turn_of"]

_STIMULUS = "stimulus"


def encode(
    model: EncodingModel,
    videos: Stimulus | xr.DataArray,
    *,
    chunks: int | None = None,
    progress: bool = False,
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
    progress : bool
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
    ModelLoadError, InvalidParameterError, ResourceError, MissingDependency
        As `EncodingModel.encode`; of what is lazy, when it is computed.

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
    _check_names({along, *labels}, model)
    if chunks is None and not hasattr(given, "dask"):
        values: Any = model.encode(given, show_progress=progress)
    else:
        values = _lazy(model, given, chunks)
    coords = model.coords.assign({**labels}) if labels else model.coords
    return xr.DataArray(values, coords, (along, DIM), "responses", model.attributes)


def turn_of(model: object) -> SerializableLock:
    """Return what one thread at a time holds that asks a model; each process has one.

    Few models may be asked by several threads, and one of BERG's would take its memory in each.
    """
    from dask.utils import SerializableLock

    return SerializableLock(f"maskcube-{os.getpid()}-{id(model)}")


def _encoded(videos: Stimulus, model: EncodingModel, turn: SerializableLock) -> NDArray[np.float32]:
    with turn:
        return model.encode(videos)


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


class _InPlace:
    """An array of numpy that dask reads block by block: it would make a copy of all of it."""

    def __init__(self, array: NDArray[Any]) -> None:
        self.shape, self.dtype, self.ndim = array.shape, array.dtype, array.ndim
        self._array = array

    def __getitem__(self, key: Any) -> NDArray[Any]:  # noqa: ANN401 - as numpy
        found: NDArray[Any] = self._array[key]
        return found


def _check_names(names: set[Hashable], model: EncodingModel) -> None:
    """Raise where something of the videos is called as something of the voxels."""
    twice = names & {DIM, *model.coords}
    if twice:
        raise InvalidOption(
            f"{listed(sorted(map(str, twice)))} would be of the videos and of the voxels:"
            " videos.rename(...), or .drop_vars(...)"
        )


def _lazy(model: EncodingModel, videos: Any, chunks: int | None) -> Any:  # noqa: ANN401 - dask is imported late
    """Return an array of dask, each block of which encodes some stimuli."""
    import dask.array as da

    if chunks is not None and (type(chunks) is not int or chunks < 1):
        raise InvalidOption(f"chunks={chunks!r} is no number of stimuli: give for example 64")
    # Looks at no value.
    model.check(videos)
    # All of a stimulus goes into one block.
    rest = [-1] * (videos.ndim - 1)
    if isinstance(videos, da.Array):
        blocks = videos.rechunk((videos.chunks[0] if chunks is None else chunks, *rest))
    else:
        # Without a name dask would read all values to make one of them.
        given = _InPlace(videos) if isinstance(videos, np.ndarray) else videos
        meta = np.empty(0, videos.dtype)
        blocks = da.from_array(given, (chunks, *rest), name=False, meta=meta)
    return blocks.map_blocks(
        _encoded,
        model=model,
        turn=turn_of(model),
        dtype=np.float32,
        chunks=(blocks.chunks[0], (model.n_voxels,)),
        drop_axis=list(range(2, videos.ndim)),
        meta=np.empty((0, 0), np.float32),
        # As above: the model would be pickled.
        name=f"responses-{uuid.uuid4().hex}",
    )
