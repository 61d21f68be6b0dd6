"""The videos that a model is asked about: what they must be, and the frames that it sees."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.errors import StimulusError

__all__ = ["N_FRAMES", "check_length", "check_videos", "frames_of"]

N_FRAMES = 14
"""Frames that a model sees of a video."""

_DIMS = ("video", "frame", "3", "height", "width")
_COLOURS = 3
_BRIGHTEST = 255
_BLOCK_BYTES = 2**20
"""Checked at a time: the largest value is looked for while it is in the processor's cache."""

_KINDS = {
    "b": "of yes and no: (stimulus * np.uint8(255)) if True is white",
    "f": (
        "whole numbers are wanted: (stimulus * 255).round().astype('uint8') where 1 is white,"
        " stimulus.round().astype('uint8') where 255 is"
    ),
    "c": "complex numbers are no brightness",
    "O": "these are Python's objects: np.stack videos of one shape, of dtype uint8",
}
"""What to do about a dtype, by its kind."""

_OTHER_CHANNELS = {
    1: "grey: np.repeat(stimulus, 3, axis=2)",
    2: "grey with opacity? np.repeat(stimulus[:, :, :1], 3, axis=2)",
    4: "with opacity? stimulus[:, :, :3]",
}
"""What a number of channels looks like."""


def check_videos(stimulus: object) -> Any:  # noqa: ANN401 - numpy's, or like it
    """Return what a model is asked about, if it can be videos: no value is read.

    Parameters
    ----------
    stimulus : object
        What somebody gives for videos.

    Returns
    -------
    array
        The same, numpy's or like it, as those of dask, zarr and h5py are: (video, frame, 3, height,
        width) of whole numbers, 14 frames or more, as high as wide; there may be no video.

    Raises
    ------
    StimulusError
        When it is no such array: all that is wrong with its type, shape and dtype.

    Examples
    --------
    >>> import numpy as np
    >>> check_videos(np.zeros((2, 90, 3, 64, 64), np.uint8)).shape
    (2, 90, 3, 64, 64)
    >>> check_videos(np.zeros((2, 10, 64, 64, 3)))
    Traceback (most recent call last):
    maskcube.insilico.errors.StimulusError: these are no videos (video, frame, 3, height, width):
      - their values are float64: whole numbers are wanted: ...
      - they are (2, 10, 64, 64, 3), colours last: np.moveaxis(stimulus, -1, 2)
      - they have 10 frames, at least 14 are wanted: repeat the last one until there are 14, ...
    """
    array: Any = stimulus
    is_like = isinstance(getattr(array, "dtype", None), np.dtype) and hasattr(array, "shape")
    if not is_like or isinstance(array, np.generic | np.ma.MaskedArray):
        raise _refused([_type_fault(array)])
    check_length(array)
    faults = _dtype_faults(array.dtype) + _shape_faults(tuple(array.shape))
    if faults:
        raise _refused(faults)
    return array


def check_length(array: Any) -> None:  # noqa: ANN401 - numpy's, or like it
    """Raise `StimulusError` unless an array knows how long it is: dask's may not."""
    if any(size != size for size in array.shape):  # noqa: PLR0124 - NaN
        raise StimulusError(
            f"stimulus has the shape {tuple(array.shape)}: dask does not know yet how many there"
            " are; stimulus.compute_chunk_sizes() finds out"
        )


def frames_of(videos: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the frames that a model sees of videos, evenly spaced from the first to the last.

    The values of all frames are checked, also of those that it does not see, in little memory;
    bytes need no check. Those of BERG are the same frames, ``np.linspace(0, n - 1, 14)`` cut to
    whole numbers.

    Parameters
    ----------
    videos : numpy.ndarray
        (video, frame, 3, height, width) of whole numbers 0 to 255, as `check_videos` returns them.

    Returns
    -------
    numpy.ndarray
        (video, 14, 3, height, width) uint8, 0 is dark and 255 bright.

    Raises
    ------
    StimulusError
        When there are other values.

    Examples
    --------
    >>> import numpy as np
    >>> videos = np.broadcast_to(np.arange(90).reshape(1, 90, 1, 1, 1), (2, 90, 3, 8, 8))
    >>> frames_of(videos)[0, :, 0, 0, 0]
    array([ 0,  6, 13, 20, 27, 34, 41, 47, 54, 61, 68, 75, 82, 89], dtype=uint8)
    """
    if videos.dtype != np.uint8:
        _check_values(videos)
    n_videos, n_frames, *rest = videos.shape
    seen = np.empty((n_videos, N_FRAMES, *rest), np.uint8)
    for place, frame in enumerate(np.linspace(0, n_frames - 1, N_FRAMES, dtype=int)):
        seen[:, place] = videos[:, frame]
    return seen


def _refused(faults: list[str]) -> StimulusError:
    if len(faults) == 1:
        return StimulusError(f"these are no videos ({', '.join(_DIMS)}): {faults[0]}")
    lines = "".join(f"\n  - {fault}" for fault in faults)
    return StimulusError(f"these are no videos ({', '.join(_DIMS)}):{lines}")


def _type_fault(stimulus: object) -> str:
    kind = type(stimulus)
    if isinstance(stimulus, np.ma.MaskedArray):
        advice = "what is masked has no brightness: stimulus.filled(0)"
    elif isinstance(stimulus, list | tuple):
        advice = "np.stack(stimulus) makes one of videos of one shape"
    elif kind.__module__.partition(".")[0] == "torch":
        advice = "stimulus.cpu().numpy()"
    elif callable(getattr(stimulus, "to_numpy", None)):
        advice = "stimulus.to_numpy()"
    elif isinstance(stimulus, str | bytes | os.PathLike):
        advice = "no files are read here: read its frames, or np.load it, first"
    else:
        advice = "np.asarray(stimulus)"
    name = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    return f"a numpy array is wanted, and this is a {name}: {advice}"


def _dtype_faults(dtype: np.dtype[Any]) -> list[str]:
    if dtype.kind in "iu":
        return []
    advice = _KINDS.get(dtype.kind, "give brightness 0 to 255 as uint8")
    return [f"their values are {dtype}: {advice}"]


def _shape_faults(shape: tuple[int, ...]) -> list[str]:
    if len(shape) != len(_DIMS):
        advice = ": stimulus[None], if it is one video" if len(shape) == len(_DIMS) - 1 else ""
        return [f"they have {len(shape)} dimensions {shape}, not {len(_DIMS)}{advice}"]
    (frames, channels, height, width), faults = _arranged(shape)
    if frames < N_FRAMES:
        advice = (
            f"repeat the last one until there are {N_FRAMES}, np.concatenate([stimulus,"
            f" np.repeat(stimulus[:, -1:], {N_FRAMES - frames}, axis=1)], axis=1)"
        )
        faults.append(
            f"they have {frames} frames, at least {N_FRAMES} are wanted"
            + (f": {advice}" if frames else "")
        )
    if channels != _COLOURS:
        known = _OTHER_CHANNELS.get(channels)
        faults.append(
            f"they have {channels} channels in {shape}, not red, green and blue"
            + (f": {known}" if known else "")
        )
    if height != width:
        faults.append(
            f"their frames are {height} high and {width} wide: crop or pad them to squares, or what"
            " is seen would be squashed"
        )
    elif not height:
        faults.append(f"their frames have no pixels: {shape}")
    return faults


def _arranged(shape: tuple[int, ...]) -> tuple[tuple[int, ...], list[str]]:
    """Return frames, channels, height and width, and what is wrong with their order."""
    _, *rest = shape
    if rest[1] == _COLOURS:
        return tuple(rest), []
    if rest[-1] == _COLOURS:
        frames, height, width, channels = rest
        fault = f"they are {shape}, colours last: np.moveaxis(stimulus, -1, 2)"
    elif rest[0] == _COLOURS:
        channels, frames, height, width = rest
        fault = f"they are {shape}, colours before frames: np.moveaxis(stimulus, 1, 2)"
    else:
        return tuple(rest), []
    return (frames, channels, height, width), [fault]


def _check_values(videos: NDArray[Any]) -> None:
    ends = [(int(block.min()), int(block.max())) for block in _blocks(videos) if block.size]
    least = min((low for low, _ in ends), default=0)
    most = max((high for _, high in ends), default=0)
    if least < 0 or most > _BRIGHTEST:
        raise StimulusError(
            f"the values of the videos ({videos.dtype}) go from {least} to {most}; brightness is 0"
            f" to {_BRIGHTEST}: scale them, or np.clip(stimulus, 0, {_BRIGHTEST}) if the rest is"
            " noise"
        )


def _blocks(videos: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Yield all values, some frames at a time; what is only repeated comes once."""
    once = tuple(slice(None if step else 1) for step in videos.strides)
    videos = videos[once]
    frames = max(1, _BLOCK_BYTES // max(1, videos[:1, :1].nbytes))
    for video in videos:
        for start in range(0, len(video), frames):
            yield video[start : start + frames]
