"""Least squares with an intercept: scikit-learn is the judge."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from maskcube.insilico.regression import LeastSquares


@pytest.mark.parametrize("case", ["tall", "wide", "square", "duplicate", "constant", "nearly"])
def test_the_coefficients_are_scikit_learns(case: str) -> None:
    random = np.random.default_rng(2)
    n_videos, n_scores = {"wide": (8, 20), "square": (10, 10)}.get(case, (40, 10))
    scores = random.normal(size=(n_videos, n_scores)) + 3
    if case == "duplicate":
        scores[:, 4] = scores[:, 2]
    if case == "constant":
        scores[:, 4] = 7
    if case == "nearly":
        scores[:, 4] = scores[:, 2] + 1e-9 * random.normal(size=n_videos)
    responses = random.normal(size=(n_videos, 6)) + 2
    judge = LinearRegression().fit(scores, responses)
    line = LeastSquares(scores)
    coef, intercept = line.fit(responses)
    np.testing.assert_allclose(coef, judge.coef_, atol=1e-9)
    np.testing.assert_allclose(intercept, judge.intercept_, atol=1e-9)
    assert line.rank == judge.rank_


def test_what_never_varies_is_all_intercept() -> None:
    coef, intercept = LeastSquares(np.ones((5, 2))).fit(np.full((5, 3), 4.0))
    assert not coef.any()
    assert intercept.tolist() == [4, 4, 4]
