"""Measured responses, from which a regression is made and by which it is judged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.accuracy import (
    ceiling_of,
    explained_variance,
    mean_response,
    pearson,
    variances,
)
from maskcube.insilico.columns import Columns
from maskcube.insilico.regression import LeastSquares
from maskcube.insilico.weights import Regression

__all__ = ["Fitted", "Measured", "fit_voxels"]

_Floats = NDArray[np.float64]

_REPEATED = 3
"""Axes of responses with repeats."""


@dataclass(frozen=True)
class Measured:
    """Responses to videos, and the scores of these."""

    responses: Columns
    """(video, voxel) or (video, repeat, voxel)."""
    scores: _Floats
    """(video, component)."""
    task: str
    """What BERG's names of noise ceilings call these videos: "train" or "test"."""

    @property
    def n_repeats(self) -> int:
        """Repeats of each video; 1 where there are none."""
        shape = self.responses.shape
        return shape[1] if len(shape) == _REPEATED else 1

    @property
    def has_noise(self) -> bool:
        """Whether noise can be told from signal."""
        return self.n_repeats > 1 and len(self.responses) > 1

    def ceiling_name(self, n: int) -> str:
        """Return BERG's name of the noise ceiling of the mean of n repeats."""
        return f"noiseceiling_task_{self.task}_n_{n}"

    def ceilings(self, block: _Floats) -> dict[str, _Floats]:
        """Return the noise ceilings of one repeat and of all, in percent; none without repeats."""
        if not self.has_noise:
            return {}
        signal, noise = variances(block)
        return {self.ceiling_name(n): ceiling_of(signal, noise, n) for n in (1, self.n_repeats)}


@dataclass
class Fitted:
    """A regression for each voxel, and what is known of each."""

    regression: Regression
    measures: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    """(voxel,) each: see `maskcube.insilico.brain.MEASURES`."""
    n_missing: int = 0
    """Responses that are NaN and were taken as 0."""
    n_voxels_missing: int = 0

    def keep(self, voxels: slice, measures: dict[str, _Floats]) -> None:
        """Take over measures of some voxels."""
        n_voxels = self.regression.coef.shape[0]
        for name, values in measures.items():
            place = self.measures.setdefault(name, np.empty(n_voxels, np.float32))
            place[voxels] = values


def fit_voxels(
    train: Measured,
    test: Measured | None,
    width: int,
    advance: Callable[[int], object] = lambda _: None,
) -> Fitted:
    """Return the regression of each voxel on the scores, and its accuracy, some voxels at a time.

    As BERG's model was made: responses are averaged over repeats; of those to be fitted NaN counts
    as 0; a negative correlation is given as 0.

    Parameters
    ----------
    train : Measured
        Responses to fit.
    test : Measured, optional
        Responses to predict.
    width : int
        Most voxels at a time.
    advance : callable
        Called with the number of voxels after each block.
    """
    line = LeastSquares(train.scores)
    n_voxels, n_components = train.responses.width, train.scores.shape[1]
    coef = np.empty((n_voxels, n_components), np.float32)
    intercept = np.empty(n_voxels, np.float32)
    fitted = Fitted(Regression(coef, intercept))
    for voxels, read in train.responses.blocks(width):
        block = read.astype(np.float64)
        fitted.keep(voxels, train.ceilings(block))
        mean = mean_response(block)
        missing = np.isnan(mean)
        fitted.n_missing += int(missing.sum())
        fitted.n_voxels_missing += int(missing.any(axis=0).sum())
        coef[voxels], intercept[voxels] = line.fit(np.where(missing, 0, mean))
        if test is not None:
            measured = test.responses.read(voxels).astype(np.float64)
            predicted = test.scores @ coef[voxels].T.astype(np.float64) + intercept[voxels]
            fitted.keep(voxels, _accuracy(test, measured, predicted))
        advance(len(intercept[voxels]))
    return fitted


def _accuracy(test: Measured, measured: _Floats, predicted: _Floats) -> dict[str, _Floats]:
    """Return the measures of some voxels, by BERG's names and rules."""
    found = test.ceilings(measured)
    # NaN stays what it is.
    found["correlation"] = np.maximum(pearson(predicted, mean_response(measured)), 0)
    found["r2"] = found["correlation"] ** 2
    if test.has_noise:
        ceiling = found[test.ceiling_name(test.n_repeats)]
        found["explained_variance"] = explained_variance(found["r2"], ceiling)
    return found
