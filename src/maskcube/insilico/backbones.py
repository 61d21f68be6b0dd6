"""What makes features of videos."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed
from maskcube.insilico.errors import InvalidParameterError, ModelLoadError
from maskcube.insilico.features import S3DFeatures, check_device, no_weights
from maskcube.insilico.videos import N_FRAMES, frames_of

__all__ = ["BACKBONES", "Backbone", "Pixels", "backbone_of", "features_of"]

_GRID = 8
_BATCH = 10
_BATCH_BYTES = 2**27
"""Of the videos of one batch as they are read, where they are large."""


class Backbone(Protocol):
    """What makes features of videos."""

    n_features: int
    """Features of a video."""

    def __call__(self, videos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the features of videos: (video, 14, 3, height, width) to (video, feature)."""


class Pixels:
    """A backbone of mean colours in an 8 x 8 grid, frame by frame: for samples and tests."""

    n_features = N_FRAMES * 3 * _GRID * _GRID

    def __call__(self, videos: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the mean of each colour in each field of the grid: (video, feature) float32."""
        rows, columns = (
            np.linspace(0, side, _GRID + 1).astype(int)[:-1] for side in videos.shape[-2:]
        )
        sums = np.add.reduceat(np.add.reduceat(videos, rows, -2, np.float32), columns, -1)
        heights, widths = (
            np.diff(np.append(edges, side))
            for edges, side in zip((rows, columns), videos.shape[-2:], strict=True)
        )
        # Of a side below 8 pixels some fields are empty, and see their neighbour's first pixel.
        n_pixels = np.outer(np.maximum(heights, 1), np.maximum(widths, 1))
        means: NDArray[np.float32] = (sums / n_pixels).astype(np.float32)
        return means.reshape(len(videos), -1)


_MADE_BY: dict[str, Callable[[str | Path | None, str], Backbone]] = {
    "pixels": lambda _, __: Pixels(),
    "s3d": S3DFeatures.open,
}
"""What makes a backbone of its file, for a device, by its name."""

BACKBONES = tuple(_MADE_BY)
"""The names of backbones."""


def backbone_of(
    name: str, device: str = "auto", path: str | Path | None = None
) -> Callable[[], Backbone]:
    """Return what makes the backbone of a name; reads nothing yet.

    A name that is not known is an error when the backbone is made: features and scores of a model
    can be encoded without.

    Raises
    ------
    InvalidParameterError
        When there is no such device, or a file is given to what is not read from one.
    ModelLoadError
        When there is no such file.
    """
    check_device(device)
    if not isinstance(path, str | os.PathLike | None):
        raise InvalidParameterError(f"backbone={path!r}: give a path, or what makes features")
    if path is not None:
        _check_path(name, path)
    return partial(_made, name, path, device)


def features_of(
    videos: Any,  # noqa: ANN401 - of any library
    backbone: Backbone,
    n_features: int,
) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Yield the features of a few videos at a time, (video, feature), and which videos these are.

    Parameters
    ----------
    videos : array
        (video, frame, 3, height, width), as `check_videos` returns them; read batch by batch.
    backbone : callable
        What makes features of videos.
    n_features : int
        How many it must make of each.

    Raises
    ------
    StimulusError
        When a video has values outside of 0..255.
    InvalidParameterError
        When the backbone makes something else.
    """
    video_bytes = math.prod(videos.shape[1:]) * videos.dtype.itemsize
    n_batch = min(_BATCH, max(1, _BATCH_BYTES // max(1, video_bytes)))
    # Not all arrays have a length: zarr's do not.
    n_videos = videos.shape[0]
    for start in range(0, n_videos, n_batch):
        at = slice(start, min(start + n_batch, n_videos))
        made = np.asarray(backbone(frames_of(np.asarray(videos[at]))))
        if made.shape != (at.stop - start, n_features):
            raise InvalidParameterError(
                f"the backbone makes {made.shape} of {at.stop - start} videos, where {n_features:,}"
                " features of each are wanted: give as backbone= what makes as many"
            )
        yield at, made


def _check_path(name: str, path: str | Path) -> None:
    """Refuse what would be ignored, or found missing after all videos were made ready."""
    if name in _MADE_BY and name != "s3d":
        raise InvalidParameterError(
            f"backbone={str(path)!r}: the model was made with the backbone {name!r}, which has no"
            " file: leave it out"
        )
    if name == "s3d" and not Path(path).is_file():
        raise ModelLoadError(no_weights(path))


def _made(name: str, path: str | Path | None, device: str) -> Backbone:
    if name not in _MADE_BY:
        raise InvalidParameterError(
            f"the model was made with the backbone {name!r}, and there are {listed(_MADE_BY)}: give"
            " it as backbone=, what makes features of videos"
        )
    return _MADE_BY[name](path, device)
