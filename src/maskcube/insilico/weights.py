"""What a model is made of, wherever it is read from: nothing is read before it is indexed."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from maskcube.insilico.brain import Brain
from maskcube.insilico.errors import InvalidParameterError

__all__ = ["Components", "LazyArray", "Regression", "Weights", "subject_of"]


class LazyArray(Protocol):
    """An array that is read where it is indexed: by slices, or by sorted rows."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its type."""

    def __getitem__(self, key: Any, /) -> Any:  # noqa: ANN401 - as numpy
        """Return what is asked for, in memory."""


class Components(NamedTuple):
    """From features to a few scores: z-scored, then projected. All subjects share it."""

    mean: LazyArray
    """(feature,) float."""
    scale: LazyArray
    """(feature,) float: standard deviations, 1 where there is none."""
    components: LazyArray
    """(component, feature) float."""
    ahead: int = 1
    """Blocks of features to read before they are needed: more where a request takes long."""


class Regression(NamedTuple):
    """From scores to the responses of a subject's voxels."""

    coef: LazyArray
    """(voxel, component) float."""
    intercept: LazyArray
    """(voxel,) float."""


class Weights(Protocol):
    """A place that models are read from: BERG's folder, or a store."""

    @property
    def location(self) -> str:
        """Where it is, for messages."""

    @property
    def backbone(self) -> str:
        """Name of what makes features of videos: see `maskcube.insilico.backbones`."""

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that there are, ascending."""

    def components(self) -> Components:
        """Return what all subjects share; raises a leaf of `ModelLoadError`."""

    def regression(self, subject: int) -> Regression:
        """Return the regression of a subject; raises a leaf of `ModelLoadError`."""

    def brain(self, subject: int) -> Brain | None:
        """Return what is known of a subject's voxels, if anything; raises as `regression`."""


def subject_of(weights: Weights, subject: object) -> int:
    """Return the number of a subject that there is.

    Raises
    ------
    InvalidParameterError
        When there is no such subject.
    """
    is_number = isinstance(subject, int | np.integer) and not isinstance(subject, bool)
    if is_number and subject in weights.subjects:
        return int(subject)
    there = f"{weights.location} has {list(weights.subjects)}"
    if subject is None:
        raise InvalidParameterError(f"subject= is missing: {there}")
    if not is_number:
        raise InvalidParameterError(f"subject={subject!r} is no number of one subject: {there}")
    raise InvalidParameterError(f"subject={subject!r} is no subject here: {there}")
