"""Videos to fit a model to: read, and seen by a backbone, a few at a time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from maskcube.insilico.backbones import Backbone, features_of
from maskcube.insilico.columns import Columns
from maskcube.insilico.errors import InvalidParameterError, StimulusError
from maskcube.insilico.scratch import Scratch
from maskcube.insilico.videos import check_videos

__all__ = ["Footage"]


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
        for at, made in features_of(self._videos, backbone, backbone.n_features):
            found[at] = made
            advance(at.stop - at.start)
        return Columns(found, self.name, ("video, feature",))
