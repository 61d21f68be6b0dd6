"""EncodingModel: from videos to the responses of the voxels that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.insilico.backbones import Backbone, features_of
from maskcube.insilico.brain import Brain, Volume
from maskcube.insilico.catalog import MODEL_ID
from maskcube.insilico.errors import InvalidParameterError, StimulusError
from maskcube.insilico.metadata import metadata_of
from maskcube.insilico.projection import Projection
from maskcube.insilico.videos import check_length, check_videos
from maskcube.insilico.voxels import plain_coordinates, voxel_coordinates
from maskcube.insilico.weights import Weights
from maskcube.provenance import generator

__all__ = ["EncodingModel", "Stimulus", "check_model"]

Stimulus = Any
"""Anything like an array of numpy: dask's, zarr's, a memory map."""

_ROW_DIMS = 2
_READ_AGAIN = {"backbone", "coords", "_brain"}
_LOOKED_AT = 2**22
"""Values that are looked at together, for such as are not finite."""


class EncodingModel:
    """The in-silico brain of one subject, or some of its voxels.

    `BERG.get_encoding_model` makes it. The coefficients of the voxels are in memory; components are
    read block by block when something is encoded, once for as many videos as `memory` has room for.

    Parameters
    ----------
    weights : Weights
        Where the model is read from.
    subject : int
        Number of the subject.
    rows : numpy.ndarray, optional
        (voxel,) int, ascending: which voxels of the subject; all without it.
    backbone : callable
        Returns what makes features of videos, when it is first needed.
    cache : bool
        Keep the components in memory once they were read: 1.6 GB.
    memory : int
        Bytes that the features of videos may take.
    """

    def __init__(
        self,
        weights: Weights,
        subject: int,
        rows: NDArray[np.intp] | None,
        backbone: Callable[[], Backbone],
        *,
        cache: bool = False,
        memory: int = 2**30,
    ) -> None:
        self.subject = subject
        self.weights = weights
        self._projection = Projection(weights.components(), cache=cache)
        regression = weights.regression(subject)
        wanted: Any = slice(None) if rows is None else rows
        self._coef = np.require(regression.coef[wanted], np.float32, ["A", "E"])
        self._intercept = np.require(regression.intercept[wanted], np.float32, ["A", "E"])
        self._rows = np.arange(len(self._intercept)) if rows is None else rows
        self._make_backbone = backbone
        self._memory = memory

    @property
    def n_voxels(self) -> int:
        """Number of voxels that were chosen."""
        return len(self._intercept)

    @property
    def n_features(self) -> int:
        """Number of features of a video."""
        return self._projection.n_features

    @property
    def n_components(self) -> int:
        """Number of scores of a video."""
        return self._projection.n_components

    @cached_property
    def backbone(self) -> Backbone:
        """What makes features of videos; S3D is read when this is first asked for.

        Raises as `encode` does.
        """
        return self._make_backbone()

    @property
    def volume(self) -> Volume | None:
        """The volume that the voxels are of, where that is known."""
        brain = self._brain
        return None if brain is None else brain.voxels

    @cached_property
    def _brain(self) -> Brain | None:
        return self.weights.brain(self.subject)

    @cached_property
    def coords(self) -> xr.Coordinates:
        """The coordinates of the chosen voxels, along ``voxel``: see `voxel_coordinates`."""
        brain = self._brain
        if brain is None:
            return plain_coordinates(self._rows)
        return voxel_coordinates(brain, self._rows)

    @property
    def attributes(self) -> dict[str, Any]:
        """What is said of responses: their units, the model, and the volume of the voxels."""
        said: dict[str, Any] = {
            "long_name": "in-silico fMRI response",
            "units": "standard deviations of a session's responses",
            "model": MODEL_ID,
            "subject": self.subject,
            "generator": generator(),
        }
        volume = self.volume
        return said if volume is None else said | volume.attributes

    def get_metadata(self) -> dict[str, Any]:
        """Return what is known of all voxels of the subject: see `metadata_of`."""
        return metadata_of(self._brain)

    def encode(self, stimulus: Stimulus, *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return the responses to videos: (video, voxel) float32, z-scored.

        Parameters
        ----------
        stimulus : array
            (video, frame, 3, height, width) of integers in 0..255, square, at least 14 frames, of
            which 14 are seen. Or what was made of videos before: features, (video, feature), or
            component scores, (video, component), both float; these need no backbone.
        show_progress : bool
            Show a progress bar on stderr.

        Raises
        ------
        StimulusError
            When these are no such videos, features or scores.
        ModelLoadError
            When the weights of S3D are not there, or the components are damaged (`CorruptWeights`).
        InvalidParameterError
            When the backbone is not known, or is another one than that of the model.
        ResourceError
            When the device is not in this machine, or its memory does not suffice.
        MissingDependency
            When torch is not installed.
        """
        scores = self.scores(stimulus, show_progress=show_progress)
        responses: NDArray[np.float32] = scores @ self._coef.T
        responses += self._intercept
        return responses

    def scores(self, stimulus: Stimulus, *, show_progress: bool = False) -> NDArray[np.float32]:
        """Return the component scores of videos or of features: (video, component) float32.

        Parameters and errors are those of `encode`.
        """
        from tqdm import tqdm

        self.check(stimulus)
        is_rows = stimulus.ndim == _ROW_DIMS
        if is_rows and stimulus.shape[1] == self.n_components != self.n_features:
            return _finite(stimulus)
        found = np.empty((stimulus.shape[0], self.n_components), np.float32)
        with tqdm(
            total=stimulus.shape[0], desc="Encoding", unit=" videos", disable=not show_progress
        ) as bar:
            for at, features in self._features(stimulus, bar.update):
                found[at] = self._projection.scores(features)
        return found

    def _features(
        self,
        stimulus: Stimulus,
        done: Callable[[int], object],
    ) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Yield the features of as many videos at a time as fit into memory."""
        n_fit = max(1, self._memory // (4 * self.n_features))
        for start in range(0, stimulus.shape[0], n_fit):
            at = slice(start, min(start + n_fit, stimulus.shape[0]))
            if stimulus.ndim == _ROW_DIMS:
                yield at, _finite(stimulus[at])
                done(at.stop - at.start)
            else:
                yield at, self._seen(stimulus[at], done)

    def _seen(self, videos: Stimulus, done: Callable[[int], object]) -> NDArray[np.float32]:
        """Return the features of videos, which the backbone sees a few at a time."""
        features = np.empty((videos.shape[0], self.n_features), np.float32)
        for at, made in features_of(videos, self.backbone, self.n_features):
            features[at] = made
            done(at.stop - at.start)
        return features

    def check(self, stimulus: Stimulus) -> None:
        """Raise `StimulusError` unless a shape and type are those of videos, features or scores."""
        is_like = isinstance(getattr(stimulus, "dtype", None), np.dtype)
        is_plain = is_like and not isinstance(stimulus, np.ma.MaskedArray)
        if getattr(stimulus, "ndim", None) != _ROW_DIMS or not is_plain:
            check_videos(stimulus)
            return
        check_length(stimulus)
        is_wide = stimulus.shape[1] in (self.n_features, self.n_components)
        if stimulus.dtype.kind != "f" or not is_wide:
            raise StimulusError(
                f"stimulus is {stimulus.shape} {stimulus.dtype}: give videos (video, frame, 3,"
                f" height, width), or float features (video, {self.n_features:,}) or component"
                f" scores (video, {self.n_components:,})"
            )

    # What follows is what BERG's models have beside `encode`.

    def generate_response(
        self, stimulus: Stimulus, *, show_progress: bool = True
    ) -> NDArray[np.float32]:
        """Return what `encode` does; BERG's name of it."""
        return self.encode(stimulus, show_progress=show_progress)

    def get_model_id(self) -> str:
        """Return the name of the model."""
        return MODEL_ID

    def cleanup(self) -> None:
        """Free what is kept in memory to be quicker: the backbone and cached components."""
        self._projection.clear()
        self.__dict__.pop("backbone", None)

    def __getstate__(self) -> dict[str, Any]:
        # What can be read again does not travel.
        return {key: value for key, value in vars(self).items() if key not in _READ_AGAIN}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cleanup()

    def __repr__(self) -> str:
        return (
            f"EncodingModel({MODEL_ID!r}, subject={self.subject}, {self.n_voxels:,} voxels,"
            f" {self.n_components:,} components of {self.n_features:,} features,"
            f" from {self.weights.location})"
        )


def check_model(model: object) -> None:
    """Raise `InvalidParameterError` unless this is an `EncodingModel`."""
    if not isinstance(model, EncodingModel):
        raise InvalidParameterError(
            f"model is a {type(model).__name__}; give what get_encoding_model of BERG returns"
        )


def _finite(rows: Stimulus) -> NDArray[np.float32]:
    """Return features or scores in memory.

    Raises
    ------
    StimulusError
        When some are not finite, as float32.
    """
    with np.errstate(over="ignore"):
        found = np.asarray(rows).astype(np.float32, copy=False)
    step = max(1, _LOOKED_AT // max(1, found.shape[1]))
    if not all(np.isfinite(found[at : at + step]).all() for at in range(0, len(found), step)):
        raise StimulusError("stimulus has values that are not finite as float32: NaN or infinite")
    return found
