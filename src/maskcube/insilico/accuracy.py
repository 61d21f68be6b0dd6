"""How well a model predicts measured responses, and how well anything could: voxel by voxel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskcube.insilico.columns import Columns, spare_bytes, whole_chunks
from maskcube.insilico.errors import InvalidParameterError

__all__ = [
    "ceiling_of",
    "correlation",
    "explained_variance",
    "ncsnr",
    "noise_ceiling",
    "pearson",
    "r2",
    "variances",
]

_Floats = NDArray[np.float64]

_REPEATED = ("video, repeat, voxel",)
_MEASURED = ("video, voxel", "video, repeat, voxel")

_NO_CEILING = 1e-14
"""What BERG takes for a noise ceiling of 0, in percent."""

_MOST = 100.0
"""BERG's upper limit of explained variance."""


def ncsnr(responses: ArrayLike, *, memory: str | int = "1GiB") -> _Floats:
    """Return the noise ceiling's signal-to-noise ratio of each voxel [1]_, [2]_.

    The variance of the noise is that over the repeats of a video (divided by repeats - 1), its mean
    over videos. The variance of the signal is what the variance of all trials has more than that,
    not less than 0. The ratio is that of their standard deviations.

    Parameters
    ----------
    responses : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, repeat, voxel), of at least two videos and two repeats. Read by blocks of voxels.
    memory : str or int
        Most memory that the process may take.

    Returns
    -------
    numpy.ndarray
        (voxel,) float64, no unit, 0 or more; infinite where repeats are always equal, NaN where a
        response is NaN, or where all are the same.

    Raises
    ------
    InvalidParameterError
        When the responses have other axes, or there is one repeat only.
    InvalidOption
        When `memory` is too little.

    References
    ----------
    .. [1] Prince et al. (2022), https://doi.org/10.7554/eLife.77599
    .. [2] Allen et al. (2022), https://doi.org/10.1038/s41593-021-00962-x

    Examples
    --------
    >>> signal = np.array([[[1.0]], [[-1.0]]])
    >>> noise = np.array([[[1.0], [-1.0]], [[1.0], [-1.0]]]) / np.sqrt(2)
    >>> float(ncsnr(signal + noise)[0].round(3))
    0.707
    """

    def ratio(block: _Floats) -> _Floats:
        signal, noise = variances(block)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.sqrt(signal / noise)

    return _voxelwise(ratio, memory, _repeated(responses))


def noise_ceiling(
    responses: ArrayLike, n: int | None = None, *, memory: str | int = "1GiB"
) -> _Floats:
    """Return how much of each voxel's variance any model could explain [1]_, [2]_.

    The share of the signal in the variance of a mean of `n` repeats: with the variances of
    `ncsnr`, ``100 * signal / (signal + noise / n)``.

    Parameters
    ----------
    responses : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, repeat, voxel), of at least two videos and two repeats. Read by blocks of voxels.
    n : int, optional
        Repeats that are averaged in what a model is to predict; all by default.
    memory : str or int
        Most memory that the process may take.

    Returns
    -------
    numpy.ndarray
        (voxel,) float64 in percent, 0 to 100; NaN where a response is NaN, or where all are the
        same.

    Raises
    ------
    InvalidParameterError
        When the responses have other axes, there is one repeat only, or `n` is not at least 1.
    InvalidOption
        When `memory` is too little.

    References
    ----------
    .. [1] Prince et al. (2022), https://doi.org/10.7554/eLife.77599
    .. [2] Allen et al. (2022), https://doi.org/10.1038/s41593-021-00962-x

    Examples
    --------
    >>> signal = np.array([[[1.0]], [[-1.0]]])
    >>> noise = np.array([[[1.0], [-1.0]], [[1.0], [-1.0]]]) / np.sqrt(2)
    >>> noise_ceiling(signal + noise).round(1), noise_ceiling(signal + noise, n=1).round(1)
    (array([50.]), array([33.3]))
    """
    columns = _repeated(responses)
    averaged: object = columns.shape[1] if n is None else n
    if isinstance(averaged, bool) or not isinstance(averaged, int | np.integer) or averaged < 1:
        raise InvalidParameterError(f"n={n!r}: say of how many repeats the mean is, 1 or more")
    return _voxelwise(lambda block: ceiling_of(*variances(block), int(averaged)), memory, columns)


def correlation(
    predicted: ArrayLike, measured: ArrayLike, *, memory: str | int = "1GiB"
) -> _Floats:
    """Return Pearson's correlation of predicted and measured responses, voxel by voxel.

    Parameters
    ----------
    predicted : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, voxel). Read by blocks of voxels, as the next.
    measured : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, voxel), or (video, repeat, voxel), of which the mean over repeats is taken.
    memory : str or int
        Most memory that the process may take.

    Returns
    -------
    numpy.ndarray
        (voxel,) float64, -1 to 1; NaN where a value is NaN, or where either never varies.

    Raises
    ------
    InvalidParameterError
        When these have other axes, or not the same videos and voxels.
    InvalidOption
        When `memory` is too little.

    Examples
    --------
    >>> correlation([[0, 1], [1, 0], [2, 3]], [[1, 5], [2, 5], [3, 5]])
    array([ 1., nan])
    """
    columns = (
        Columns(predicted, "predicted", _MEASURED[:1]),
        Columns(measured, "measured", _MEASURED),
    )
    one, other = (found.shape[:1] + found.shape[-1:] for found in columns)
    if one != other:
        raise InvalidParameterError(
            f"predicted has {one[0]:,} videos and {one[1]:,} voxels, measured {other[0]:,} and"
            f" {other[1]:,}: give the same of both"
        )
    return _voxelwise(lambda left, right: pearson(left, mean_response(right)), memory, *columns)


def r2(predicted: ArrayLike, measured: ArrayLike, *, memory: str | int = "1GiB") -> _Floats:
    """Return the square of the correlation of predicted and measured responses, voxel by voxel.

    As BERG has it: 0 where the correlation is negative.

    Parameters
    ----------
    predicted : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, voxel). Read by blocks of voxels, as the next.
    measured : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, voxel), or (video, repeat, voxel), of which the mean over repeats is taken.
    memory : str or int
        Most memory that the process may take.

    Returns
    -------
    numpy.ndarray
        (voxel,) float64, 0 to 1; NaN where `correlation` is.

    Raises
    ------
    InvalidParameterError
        When these have other axes, or not the same videos and voxels.
    InvalidOption
        When `memory` is too little.

    Examples
    --------
    >>> r2([[0, 0], [1, 1], [2, 2]], [[1, 3], [2, 2], [3, 1]])
    array([1., 0.])
    """
    return np.maximum(correlation(predicted, measured, memory=memory), 0) ** 2


def explained_variance(r2: ArrayLike, noise_ceiling: ArrayLike) -> _Floats:
    """Return the explained variance as a share of what the noise ceiling allows.

    BERG's number, and its rules: the ceiling is in percent, so ``100 * r2 / ceiling`` is a
    fraction, 1 at the ceiling. A ceiling of 0 counts as 1e-14, and the result is not above 100,
    which therefore stands where a voxel without any ceiling is predicted at all: look at the
    ceiling before at this.

    Parameters
    ----------
    r2 : array_like
        (voxel,), 0 to 1: see `r2`.
    noise_ceiling : array_like
        (voxel,) in percent, 0 to 100, of the mean of as many repeats as were predicted: see
        `noise_ceiling`.

    Returns
    -------
    numpy.ndarray
        (voxel,) float64, a fraction: 0 is nothing, 1 all that could be; NaN where either is.

    Raises
    ------
    InvalidParameterError
        When these are not as many, or a ceiling is not in percent.

    Examples
    --------
    >>> explained_variance([0.4, 0.4, 0.0], [80.0, 40.0, 0.0])
    array([0.5, 1. , 0. ])
    """
    explained, ceiling = (np.asarray(values, np.float64) for values in (r2, noise_ceiling))
    if explained.shape != ceiling.shape:
        raise InvalidParameterError(
            f"r2 has shape {explained.shape}, noise_ceiling {ceiling.shape}: give the same voxels"
        )
    if np.any((ceiling < 0) | (ceiling > 100)):  # noqa: PLR2004 - percent
        raise InvalidParameterError(
            f"noise_ceiling is {np.nanmin(ceiling):g} to {np.nanmax(ceiling):g}; it is in percent,"
            " 0 to 100"
        )
    allowed = np.where(ceiling == 0, _NO_CEILING, ceiling)
    return np.minimum(explained / allowed * 100, _MOST)


def variances(responses: _Floats) -> tuple[_Floats, _Floats]:
    """Return the variances of signal and noise of (video, repeat, voxel): (voxel,) each."""
    noise = responses.var(axis=1, ddof=1).mean(axis=0)
    return np.maximum(responses.var(axis=(0, 1)) - noise, 0), noise


def ceiling_of(signal: _Floats, noise: _Floats, n: int) -> _Floats:
    """Return the noise ceiling of the mean of n repeats in percent; NaN where all is constant."""
    with np.errstate(invalid="ignore"):
        return 100 * signal / (signal + noise / n)


def mean_response(responses: _Floats) -> _Floats:
    """Return the mean over repeats, (video, voxel), of responses with or without these."""
    return responses.mean(axis=1) if responses.ndim == len(_REPEATED[0].split(", ")) else responses


def pearson(predicted: _Floats, measured: _Floats) -> _Floats:
    """Return the correlation of the columns of two blocks, (voxel,); NaN where one is constant."""
    normed = []
    for values in (predicted, measured):
        centred = values - values.mean(axis=0)
        # Rounding leaves something of a constant when its mean is subtracted.
        constant = (values == values[:1]).all(axis=0)
        norm = np.where(constant, np.nan, np.sqrt(np.einsum("ij,ij->j", centred, centred)))
        with np.errstate(divide="ignore", invalid="ignore"):
            normed.append(centred / norm)
    found: _Floats = np.clip(np.einsum("ij,ij->j", *normed), -1, 1)
    return found


def _repeated(responses: ArrayLike) -> Columns:
    columns = Columns(responses, "responses", _REPEATED)
    if min(columns.shape[:2]) < 2:  # noqa: PLR2004 - one has no variance
        raise InvalidParameterError(
            f"responses are of {columns.shape[0]:,} videos, {columns.shape[1]:,} repeats of each:"
            " noise shows from 2 videos and 2 repeats on"
        )
    return columns


def _voxelwise(measure: Callable[..., _Floats], memory: str | int, *arrays: Columns) -> _Floats:
    """Return a measure of every voxel, of blocks of voxels that fit into memory."""
    n_values = sum(int(np.prod(array.shape[:-1])) for array in arrays)
    # As read, as float64, and what the measure makes of it.
    voxel_bytes = sum(array.column_bytes for array in arrays) + 24 * n_values
    width = max(1, spare_bytes(memory, 0) // max(1, voxel_bytes))
    found: list[NDArray[Any]] = [np.empty(0)]
    step = whole_chunks(width, max(array.chunk_width for array in arrays))
    for start in range(0, arrays[0].width, step):
        block = slice(start, start + step)
        found.append(measure(*(array.read(block).astype(np.float64) for array in arrays)))
    return np.concatenate(found)
