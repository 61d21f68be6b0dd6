"""What makes features of videos."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed
from maskcube.insilico.errors import InvalidParameterError, ModelLoadError
from maskcube.insilico.features import S3DFeatures, no_weights
from maskcube.insilico.videos import N_FRAMES

__all__ = ["BACKBONES", "Backbone", "Pixels", "backbone_of"]

_GRID = 8


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
        means: NDArray[np.float32] = (sums / np.outer(heights, widths)).astype(np.float32)
        return means.reshape(len(videos), -1)


_MADE_BY: dict[str, Callable[[str | Path | None, str], Backbone]] = {
    "pixels": lambda _, __: Pixels(),
    "s3d": S3DFeatures.open,
}
"""What makes a backbone of its file, for a device, by its name."""

BACKBONES = tuple(_MADE_BY)
"""The names of backbones."""

_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


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
    if not _DEVICE.fullmatch(str(device)):
        raise InvalidParameterError(f"device={device!r}: give 'auto', 'cpu' or 'cuda'")
    if not isinstance(path, str | os.PathLike | None):
        raise InvalidParameterError(f"backbone={path!r}: give a path, or what makes features")
    if path is not None:
        _check_path(name, path)
    return partial(_made, name, path, device)


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
