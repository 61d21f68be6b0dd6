"""Least squares with an intercept, for many responses to the same videos."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LeastSquares"]

_Floats = NDArray[np.float64]

_CUTOFF = 1e-6
"""Singular values that are smaller, beside the largest, count as 0: as in scikit-learn."""


class LeastSquares:
    """Least squares with an intercept, for many responses to the same videos.

    The numbers are those of scikit-learn's ``LinearRegression``: of all solutions the one of the
    smallest coefficients. The scores are decomposed once, whatever number of voxels follows.

    Parameters
    ----------
    scores : numpy.ndarray
        (video, component): what responses are predicted from.

    Examples
    --------
    >>> line = LeastSquares(np.array([[0.0], [1.0], [2.0]]))
    >>> coef, intercept = line.fit(np.array([[1.0], [3.0], [5.0]]))
    >>> coef.round(6), intercept.round(6)
    (array([[2.]]), array([1.]))
    """

    def __init__(self, scores: _Floats) -> None:
        self._mean = scores.mean(axis=0)
        left, singular, right = np.linalg.svd(scores - self._mean, full_matrices=False)
        kept = singular > _CUTOFF * singular[:1].max(initial=0)
        self.rank = int(kept.sum())
        """Components that are not combinations of others."""
        self._inverse = (right[kept].T / singular[kept]) @ left[:, kept].T

    def fit(self, responses: _Floats) -> tuple[_Floats, _Floats]:
        """Return coefficients and intercepts.

        Parameters
        ----------
        responses : numpy.ndarray
            (video, voxel), finite.

        Returns
        -------
        coef : numpy.ndarray
            (voxel, component) float64.
        intercept : numpy.ndarray
            (voxel,) float64.
        """
        mean = responses.mean(axis=0)
        coef = (self._inverse @ (responses - mean)).T
        return coef, mean - coef @ self._mean
