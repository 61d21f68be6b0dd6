"""What the response of the brain owes to each object, by an encoding model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from maskcube.errors import InvalidOption, listed
from maskcube.insilico.effect_rows import EffectRows, Selection
from maskcube.insilico.effects_arrays import EFFECT_DIMS, RESPONSE
from maskcube.insilico.effects_store import write_effects
from maskcube.insilico.encoder import Encoder, Encodes, check_count
from maskcube.insilico.experiment import Experiment, ObjectMasks
from maskcube.insilico.pictures import Images, Pictures
from maskcube.insilico.stills import CONDITIONS, fill_of

if TYPE_CHECKING:
    from maskcube.objects import StoreLike

__all__ = ["object_effects"]


def object_effects(
    images: Images,
    masks: xr.DataArray,
    model: Encodes,
    *,
    fill: int | tuple[int, int, int] = 128,
    n_frames: int = 90,
    batch_size: int = 16,
    store: StoreLike | None = None,
    overwrite: bool = False,
    progress: bool = True,
    storage_options: dict[str, Any] | None = None,
) -> xr.DataArray:
    """Return the responses to each object alone, to its image without it, and to all of the image.

    The effect of an object is ``intact - removed``; what it drives by itself is ``kept``. An image
    is shown as a video in which nothing moves, as the models are trained on videos of 3 seconds;
    what is not shown has the grey of the screen in the scanner.

    Parameters
    ----------
    images : mapping, callable or path
        The images by their names, (y, x, 3) uint8, red, green and blue, of the height and width of
        the masks: a mapping, of which values may be read when they are asked for; a function of a
        name; or a folder of JPEG, PNG, WebP or BMP files (with Pillow, extra ``formats``).
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 1 where the object is, of `open_masks`, selected from or not.
    model : object
        Has ``encode(stimulus)``, which takes (n, n_frames, 3, y, x) uint8, read-only, and gives
        (n, voxel). It may have ``n_voxels``, ``coords`` (xarray coordinates along ``voxel``) and
        ``attributes`` (a mapping that says units, model and subject); one that does not know its
        number of voxels is asked for the responses to a grey video at once. It is never called by
        two threads of a process at the same time. To compute in other processes it must be
        picklable, and goes there with `images`: rather a folder than arrays then.
    fill : int or tuple of int
        What is shown where nothing is to be seen: a grey from 0 to 255, or red, green and blue.
    n_frames : int
        Frames of a video; 90 are 3 seconds of 30 a second.
    batch_size : int
        Most videos in one call of the model, which costs BERG's a pass over 1.6 GB of components.
        A still of 1000 x 1000 pixels takes 6 MB here.
    store : path, URL or zarr Store, optional
        Compute all of it now, mask by mask into a Zarr store there, and return it opened from
        there. The same call goes on with what was interrupted, and opens what is finished, after
        asking the model for one response that is there.
    overwrite : bool
        Replace what another call of this function has written to `store`, or has begun to.
    progress : bool
        Show a progress bar on stderr while writing to `store`.
    storage_options : dict, optional
        For a URL: how to reach it, as in ``{"anon": True}`` or ``{"key": ...,
        "secret": ..., "endpoint_url": ...}``; else as the environment says, or anonymously.

    Returns
    -------
    xarray.DataArray
        (mask, condition, voxel) float32, in the units of the model. Along ``mask`` it has the
        coordinates and the index of `masks`, along ``condition`` "intact", "kept" and "removed",
        along ``voxel`` the coordinates and the indexes of the model, or numbers. Lazy, with dask:
        nothing is encoded before it is computed, and then only what was selected, each image once
        for all its objects. With `store` it is lazy too, and encodes nothing any more; plain
        ``xarray.open_zarr`` opens the same, and ``.set_xindex(["image", "noun", "instance"],
        MaskIndex)`` gives it the index of masks.

    Raises
    ------
    InvalidOption
        When an argument has no meaning here, or the model answers something else than (n, voxel);
        the latter when it is computed.
    StimulusError
        With all images that are missing, or not of 8 bits and three colours, or not of the size of
        the masks, as far as can be told without reading their pixels; otherwise when it is
        computed.
    StoreExists
        When something else is at `store`, the responses to another question, or those of another
        model; or another process is writing there.
    CorruptMask
        When a mask is missing or damaged.
    MissingDependency
        When `images` is a folder and Pillow is not installed.

    Examples
    --------
    >>> import numpy as np
    >>> from maskcube import open_masks
    >>> from maskcube.insilico import BERG, sample_model
    >>> model = BERG(sample_model("models.zarr")).get_encoding_model("fmri-bmd-s3d", subject=1)
    >>> def noise(name):
    ...     return np.random.default_rng(len(name)).integers(0, 256, (1000, 1000, 3), np.uint8)
    >>> effects = object_effects(noise, open_masks("masks.zarr"), model)
    >>> effects.dims, effects.dtype
    (('mask', 'condition', 'voxel'), dtype('float32'))
    >>> hands = effects.sel(noun="hand").isel(mask=slice(2)).sel(roi="lV1v").compute()
    >>> effect = hands.sel(condition="intact") - hands.sel(condition="removed")
    >>> effect.mean("voxel").dims
    ('mask',)

    Only these two objects of one image were encoded: five videos. Any model will do:

    >>> class Brightness:
    ...     n_voxels = 1
    ...
    ...     def encode(self, stimulus):
    ...         return stimulus[:, 0].mean(axis=(1, 2, 3))[:, None]
    >>> masks = open_masks("masks.zarr").sel(noun="hand")[:3]
    >>> object_effects(noise, masks, Brightness(), store="effects.zarr", progress=False).sizes
    Frozen({'mask': 3, 'condition': 3, 'voxel': 1})
    """
    objects = ObjectMasks(masks)
    pictures = Pictures(images, objects.size)
    colours, size = fill_of(fill), check_count("batch_size", batch_size)
    _check_store_options(store, overwrite=overwrite, storage_options=storage_options)
    pictures.check(objects.images)
    encoder = Encoder(model, n_frames, objects.size)
    experiment = Experiment(objects, pictures, encoder, fill=colours, batch_size=size)
    effects = _labelled(experiment)
    if store is None:
        return effects
    return write_effects(
        experiment,
        effects,
        store,
        overwrite=overwrite,
        progress=progress,
        storage_options=storage_options,
    )


def _check_store_options(
    store: StoreLike | None, *, overwrite: bool, storage_options: dict[str, Any] | None
) -> None:
    if store is None and (overwrite or storage_options):
        name = "overwrite" if overwrite else "storage_options"
        raise InvalidOption(f"{name} is of a store, and there is no store=")


def _labelled(experiment: Experiment) -> xr.DataArray:
    """Return the lazy responses with all coordinates."""
    along_mask = experiment.masks.coordinates()
    along_voxel = experiment.encoder.coordinates()
    twice = {*along_mask} & {*along_voxel, *EFFECT_DIMS[1:]} | {*along_voxel} & {*EFFECT_DIMS[:2]}
    if twice:
        raise InvalidOption(
            f"coordinates of masks, of the model and of the result must differ; there is"
            f" {listed(sorted(map(str, twice)))} twice: masks.rename would help"
        )
    attributes: dict[str, Any] = {
        "long_name": "predicted response",
        **experiment.encoder.attributes,
        "fill": list(experiment.fill),
        "n_frames": experiment.encoder.n_frames,
        "comment": (
            "intact: the whole image; kept: the object alone, all else filled; removed: the image,"
            " the object filled. intact - removed is the effect of the object."
        ),
    }
    data = EffectRows(experiment, Selection.whole(experiment))
    effects = xr.DataArray(data, dims=EFFECT_DIMS, name=RESPONSE, attrs=attributes)
    conditions = {EFFECT_DIMS[1]: np.array(CONDITIONS)}
    return effects.assign_coords(along_mask).assign_coords(along_voxel).assign_coords(conditions)
