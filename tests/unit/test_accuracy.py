"""How well a model predicts, and how well any could: beside plain formulas and scipy."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from scipy import stats

from maskcube.errors import InvalidOption
from maskcube.insilico.accuracy import (
    correlation,
    explained_variance,
    ncsnr,
    noise_ceiling,
    r2,
)
from maskcube.insilico.errors import InvalidParameterError

N_VIDEOS, N_REPEATS, N_VOXELS = 30, 4, 17


@pytest.fixture
def trials() -> np.ndarray[Any, Any]:
    """Return (video, repeat, voxel), of more noise from voxel to voxel."""
    random = np.random.default_rng(3)
    signal = random.normal(size=(N_VIDEOS, 1, N_VOXELS))
    noise = random.normal(size=(N_VIDEOS, N_REPEATS, N_VOXELS)) * np.linspace(0.1, 3, N_VOXELS)
    return signal + noise


def _notebook(trials: np.ndarray[Any, Any], n: int) -> tuple[Any, Any]:
    """Return signal-to-noise ratio and ceiling, voxel by voxel, as they are told in words."""
    ratios, ceilings = [], []
    for voxel in range(trials.shape[-1]):
        of_videos = [np.var(video, ddof=1) for video in trials[:, :, voxel]]
        noise = np.mean(of_videos)
        signal = max(np.var(trials[:, :, voxel].ravel()) - noise, 0)
        ratio = np.sqrt(signal) / np.sqrt(noise)
        ratios.append(ratio)
        ceilings.append(100 * ratio**2 / (ratio**2 + 1 / n))
    return np.array(ratios), np.array(ceilings)


@pytest.mark.parametrize("n", [1, 3, N_REPEATS, 10])
def test_the_noise_ceiling_is_that_of_the_formula(trials: np.ndarray[Any, Any], n: int) -> None:
    ratio, ceiling = _notebook(trials, n)
    np.testing.assert_allclose(ncsnr(trials), ratio, rtol=1e-10)
    np.testing.assert_allclose(noise_ceiling(trials, n), ceiling, rtol=1e-10, atol=1e-10)


def test_all_repeats_are_meant_by_default(trials: np.ndarray[Any, Any]) -> None:
    np.testing.assert_array_equal(noise_ceiling(trials), noise_ceiling(trials, N_REPEATS))


@pytest.mark.parametrize("planted", [0.25, 1.0, 2.0])
def test_a_planted_signal_to_noise_is_found(planted: float) -> None:
    random = np.random.default_rng(0)
    signal = planted * random.normal(size=(4000, 1, 8))
    trials = signal + random.normal(size=(4000, 5, 8))
    np.testing.assert_allclose(ncsnr(trials).mean(), planted, rtol=0.05)
    share = 100 * planted**2 / (planted**2 + 1 / 5)
    np.testing.assert_allclose(noise_ceiling(trials).mean(), share, rtol=0.05)


def test_a_model_at_the_ceiling_explains_all_that_can_be() -> None:
    """The truth itself, against the mean of noisy repeats."""
    random = np.random.default_rng(1)
    signal = random.normal(size=(5000, 6))
    trials = signal[:, None] + 2 * random.normal(size=(5000, 3, 6))
    share = explained_variance(r2(signal, trials), noise_ceiling(trials))
    np.testing.assert_allclose(share, 1, atol=0.1)


def test_what_has_no_noise_or_nothing_at_all() -> None:
    trials = np.repeat(np.arange(5.0).reshape(5, 1, 1), 3, axis=1) * [1, 0, np.nan]
    assert ncsnr(trials)[0] == np.inf
    assert noise_ceiling(trials)[0] == 100
    assert np.isnan(ncsnr(trials)[1:]).all()
    assert np.isnan(noise_ceiling(trials)[1:]).all()


def test_pure_noise_has_a_ceiling_of_0() -> None:
    trials = np.tile([[[1.0], [-1.0]]], (6, 1, 1))
    assert noise_ceiling(trials).tolist() == [0]
    assert ncsnr(trials).tolist() == [0]


def test_the_correlation_is_pearsons(trials: np.ndarray[Any, Any]) -> None:
    predicted = trials[:, 0]
    measured = trials[:, 1:]
    expected = [
        stats.pearsonr(predicted[:, voxel], measured[:, :, voxel].mean(axis=1)).statistic
        for voxel in range(N_VOXELS)
    ]
    np.testing.assert_allclose(correlation(predicted, measured), expected, atol=1e-13)
    np.testing.assert_allclose(correlation(predicted, measured.mean(axis=1)), expected, atol=1e-13)
    np.testing.assert_allclose(r2(-predicted, -measured), np.maximum(expected, 0) ** 2)


def test_a_negative_correlation_explains_nothing() -> None:
    line = np.arange(5.0)[:, None]
    assert correlation(line, -line).tolist() == [-1]
    assert r2(line, -line).tolist() == [0]


@pytest.mark.parametrize("constant", [0.0, 0.1, 1e6 + 0.1, np.nan])
def test_a_constant_has_no_correlation(constant: float) -> None:
    line = np.arange(7.0)[:, None]
    assert np.isnan(correlation(line, np.full_like(line, constant))).all()
    assert np.isnan(correlation(np.full_like(line, constant), line)).all()
    assert np.isnan(r2(line, np.full_like(line, constant))).all()


def test_explained_variance_is_bergs_number() -> None:
    share = np.array([0.0, 0.2, 0.5, 0.3, 1e-20, np.nan, 0.1])
    ceiling = np.array([50.0, 40.0, 40.0, 0.0, 0.0, 30.0, np.nan])
    found = explained_variance(share, ceiling)
    np.testing.assert_allclose(found, [0, 0.5, 1.25, 100, 1e-4, np.nan, np.nan])


def test_explained_variance_refuses_what_is_not_in_percent() -> None:
    with pytest.raises(InvalidParameterError, match="percent"):
        explained_variance([0.5], [-1.0])
    with pytest.raises(InvalidParameterError, match="percent"):
        explained_variance([0.5], [101.0])
    with pytest.raises(InvalidParameterError, match=r"\(1,\).*\(2,\)"):
        explained_variance([0.5], [50.0, 50.0])


@pytest.mark.parametrize("kind", ["float32", "list", "fortran", "dask", "zarr", "xarray"])
def test_whatever_holds_the_responses(trials: np.ndarray[Any, Any], kind: str) -> None:
    chunks = (7, N_REPEATS, 5)
    held: Any = {
        "float32": lambda: trials.astype(np.float32),
        "list": trials.tolist,
        "fortran": lambda: np.asfortranarray(trials),
        "dask": lambda: da.from_array(trials, chunks),
        "zarr": lambda: zarr.array(trials, chunks=chunks),
        "xarray": lambda: xr.DataArray(trials, dims=("video", "repeat", "voxel")),
    }[kind]()
    rtol = 1e-4 if kind == "float32" else 1e-12
    np.testing.assert_allclose(noise_ceiling(held), noise_ceiling(trials), rtol=rtol, atol=1e-3)
    predicted = trials[:, 0] + 1
    expected = correlation(predicted, trials)
    np.testing.assert_allclose(correlation(predicted, held), expected, atol=1e-6)


class _Watched:
    """An array that remembers what is read of it."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self.shape, self.dtype = array.shape, array.dtype
        self._array = array
        self.n_voxels: list[int] = []

    def __getitem__(self, key: Any) -> Any:
        found = self._array[key]
        self.n_voxels.append(found.shape[-1])
        return found


def test_voxels_are_read_block_by_block_and_each_once() -> None:
    trials = np.random.default_rng(0).normal(size=(200, 3, 3000))
    watched = _Watched(trials)
    blockwise = noise_ceiling(watched, memory="290MiB")  # type: ignore[arg-type]
    np.testing.assert_array_equal(blockwise, noise_ceiling(trials, memory="4GiB"))
    assert sum(watched.n_voxels) == 3000
    assert max(watched.n_voxels) < 2900


def test_too_little_memory_says_how_much_is_needed(trials: np.ndarray[Any, Any]) -> None:
    with pytest.raises(InvalidOption, match="give at least memory='272MiB'"):
        noise_ceiling(trials, memory="100MiB")


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "3"])
def test_a_number_of_repeats_that_is_none(trials: np.ndarray[Any, Any], n: Any) -> None:
    with pytest.raises(InvalidParameterError, match="of how many repeats"):
        noise_ceiling(trials, n)


@pytest.mark.parametrize(
    ("responses", "message"),
    [
        (np.zeros((4, 5)), r"\(4, 5\).*\(video, repeat, voxel\)"),
        (np.zeros((4, 1, 5)), "1 repeats of each"),
        (np.zeros((1, 3, 5)), "of 1 videos"),
        (np.zeros((4, 3, 5), complex), "complex128"),
        (np.zeros((4, 3, 5), object), "object"),
        (np.zeros((4, 3, 5), bool), "bool"),
        ([[1, 2], [3]], "is no array"),
        ("responses", "<U9"),
        (None, "object"),
        (np.ma.zeros((4, 3, 5)), r"masked array: give responses.filled\(np.nan\)"),
    ],
)
def test_what_are_no_responses(responses: Any, message: str) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        noise_ceiling(responses)


def test_predicted_and_measured_must_be_of_the_same() -> None:
    with pytest.raises(InvalidParameterError, match="9 videos and 3 voxels, measured 9 and 4"):
        correlation(np.zeros((9, 3)), np.zeros((9, 2, 4)))
    with pytest.raises(InvalidParameterError, match="8 videos"):
        r2(np.zeros((8, 3)), np.zeros((9, 3)))
