"""Videos to fit a model to: read, and seen by a backbone, a few at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maskcube.insilico.backbones import Backbone
from maskcube.insilico.columns import Columns
from maskcube.insilico.errors import InvalidParameterError, StimulusError
from maskcube.insilico.scratch import Scratch
from maskcube.insilico.videos import check_videos, frames_of

__all__ = ["Footage"]

_BATCH = 10
_BATCH_BYTES = 2**27
"""Frames of the videos of one batch, where videos are large."""


class Footage:
    """Videos that are read, and seen by a backbone, a few at a time.

    Parameters
    ----------
    videos : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, frame, 3, height, width) of integers in 0..255.
    name : str
        What messages call them.

    Raises
    ------
    InvalidParameterError
        When they are no such videos, as far as shape and type tell.
    """

    def __init__(self, videos: Any, name: str) -> None:  # noqa: ANN401 - of any library
        self.name = name
        self._videos = getattr(videos, "variable", videos)
        self.shape = tuple(map(int, videos.shape))
        # An array of the same shape and type that takes no memory.
        alike = np.broadcast_to(np.zeros((), videos.dtype), self.shape)
        try:
            check_videos(videos if isinstance(videos, np.ndarray) else alike)
        except StimulusError as error:
            raise InvalidParameterError(f"{name}: {error}") from None

    def __len__(self) -> int:
        return self.shape[0]

    def features(
        self, backbone: Backbone, path: Path, advance: Callable[[int], object] = lambda _: None
    ) -> Columns:
        """Return the features of all videos, in a file.

        Parameters
        ----------
        backbone : callable
            What makes features of videos.
        path : pathlib.Path
            The file.
        advance : callable
            Called with the number of videos after each batch.

        Raises
        ------
        StimulusError
            When a video has values outside of 0..255.
        InvalidParameterError
            When the backbone does not make the features that it says.
        ResourceError
            When the disk has no room.
        """
        found = Scratch(path, (len(self), backbone.n_features), np.float32)
        rows = max(1, min(_BATCH, _BATCH_BYTES * len(self) // max(1, self._n_bytes)))
        for start in range(0, len(self), rows):
            videos = np.asarray(self._videos[start : start + rows])
            made = np.asarray(backbone(frames_of(videos)))
            if made.shape != (len(videos), backbone.n_features):
                raise InvalidParameterError(
                    f"backbone made an array {made.shape} of {len(videos)} videos; it says that a"
                    f" video has {backbone.n_features!r} features"
                )
            found[start : start + rows] = made
            advance(len(videos))
        return Columns(found, self.name, ("video, feature",))

    @property
    def _n_bytes(self) -> int:
        return math.prod(self.shape) * int(self._videos.dtype.itemsize)
