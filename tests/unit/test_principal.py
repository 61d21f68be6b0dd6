"""Principal components by the products of the videos: scikit-learn is the judge."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import StandardScaler

from maskcube.errors import InvalidOption
from maskcube.insilico import gram as gram_module
from maskcube.insilico.columns import Columns
from maskcube.insilico.errors import InvalidParameterError
from maskcube.insilico.gram import Gram
from maskcube.insilico.principal import (
    PrincipalComponents,
    principal_components,
    project,
    scores_of,
)

N_VIDEOS, N_FEATURES, N_COMPONENTS = 40, 700, 12


def _features(
    dtype: str = "float64", shape: tuple[int, int] = (N_VIDEOS, N_FEATURES)
) -> NDArray[Any]:
    """Return features of a falling spectrum, correlated, far from 0, of many scales."""
    random = np.random.default_rng(5)
    n_videos, n_features = shape
    hidden = random.normal(size=(n_videos, n_videos)) * 0.8 ** np.arange(n_videos)
    values = hidden @ random.normal(size=(n_videos, n_features))
    scales = 10.0 ** random.uniform(-3, 3, n_features)
    return ((values + random.normal(0, 3, n_features)) * scales).astype(dtype)


class _Judge(NamedTuple):
    scaler: Any
    svd: Any
    scores: NDArray[Any]


def _judge(features: NDArray[Any], n_components: int) -> _Judge:
    """Return what scikit-learn makes of features; by arpack, which iterates to the end."""
    scaler = StandardScaler().fit(features)
    svd = TruncatedSVD(n_components, algorithm="arpack", random_state=0)
    return _Judge(scaler, svd, svd.fit_transform(scaler.transform(features)))


def _agree(found: PrincipalComponents, judge: _Judge, tolerance: float) -> None:
    np.testing.assert_allclose(found.weights.mean[:], judge.scaler.mean_, rtol=1e-12)
    np.testing.assert_allclose(found.weights.scale[:], judge.scaler.scale_, rtol=1e-12)
    singular = judge.svd.singular_values_
    np.testing.assert_allclose(found.singular_values, singular, rtol=tolerance)
    np.testing.assert_allclose(
        found.explained_variance_ratio, judge.svd.explained_variance_ratio_, atol=tolerance
    )
    np.testing.assert_allclose(
        found.explained_variance, judge.svd.explained_variance_, rtol=10 * tolerance
    )
    # Signs too.
    components = found.weights.components[:]
    np.testing.assert_allclose(components, judge.svd.components_, atol=50 * tolerance)
    np.testing.assert_allclose(found.scores, judge.scores, atol=50 * tolerance * singular[0])


@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-8), ("float32", 3e-6)])
@pytest.mark.parametrize(
    ("shape", "n_components"),
    [
        ((N_VIDEOS, N_FEATURES), N_COMPONENTS),
        ((N_VIDEOS, N_FEATURES), 1),
        ((N_VIDEOS, 30), N_COMPONENTS),
        ((N_VIDEOS, N_COMPONENTS + 1), N_COMPONENTS),
        ((N_COMPONENTS + 1, N_FEATURES), N_COMPONENTS - 1),
    ],
)
def test_the_components_are_scikit_learns(
    shape: tuple[int, int], n_components: int, dtype: str, tolerance: float
) -> None:
    features = _features(dtype, shape)
    found = principal_components(features, n_components)
    _agree(found, _judge(features, n_components), tolerance)


def test_the_components_of_the_randomized_solver_too() -> None:
    features = _features("float32")
    z_scored = StandardScaler().fit_transform(features)
    judge = TruncatedSVD(N_COMPONENTS, random_state=20200220).fit(z_scored)
    found = principal_components(features, N_COMPONENTS)
    np.testing.assert_allclose(found.singular_values, judge.singular_values_, rtol=1e-5)
    cosines = (found.weights.components[:] * judge.components_).sum(axis=1)
    np.testing.assert_allclose(cosines, 1, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "int16", "uint8", ">f4"])
def test_other_numbers(dtype: str) -> None:
    features = (np.random.default_rng(0).normal(size=(20, 90)) * 30 + 100).astype(dtype)
    found = principal_components(features, 5)
    _agree(found, _judge(features.astype(np.float64), 5), 1e-8)


def _nearly_constant() -> NDArray[np.float64]:
    features = _features()
    features[:, 3] = 0
    features[:, 5] = 0.1
    features[:, 7] = 1e8
    features[:, 11] = 1e8 + 1e-9 * np.arange(N_VIDEOS)
    features[:, 13] = 1e-12 * np.arange(N_VIDEOS)
    features[:, 17] = 1e8 + 1e-4 * np.arange(N_VIDEOS)
    return features


def test_constant_features_have_scale_1_where_scikit_learn_says_so() -> None:
    features = _nearly_constant()
    found, judge = principal_components(features, N_COMPONENTS), _judge(features, N_COMPONENTS)
    _agree(found, judge, 1e-8)
    scales = np.asarray(found.weights.scale)
    assert (scales == 1).nonzero()[0].tolist() == [3, 5, 7, 11]
    assert scales[13] < 1e-10
    assert Gram.of(Columns(features, "features", ("a, b",)), 100).n_constant == 4


@pytest.mark.parametrize("width", [1, 7, 64, N_FEATURES - 1, N_FEATURES, 10_000])
@pytest.mark.parametrize("piece", [1, 50, 2048])
def test_the_width_of_blocks_does_not_matter(
    width: int, piece: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = _nearly_constant()
    monkeypatch.setattr(gram_module, "_PIECE", piece)
    columns = Columns(features, "features", ("video, feature",))
    gram = Gram.of(columns, width)
    out = np.empty((N_COMPONENTS, N_FEATURES), np.float32)
    found = project(gram, gram.singular(N_COMPONENTS), columns, out, width)
    _agree(found, _judge(features, N_COMPONENTS), 1e-8)
    assert gram.digest == Gram.of(columns, N_FEATURES).digest
    scores = scores_of(found.weights, columns, width)
    np.testing.assert_allclose(scores, found.scores, atol=1e-5 * found.singular_values[0])


@pytest.mark.parametrize(
    "kind", ["memmap", "fortran", "strided", "dask", "zarr", "rows", "sharded", "xarray", "lists"]
)
def test_whatever_holds_the_features(kind: str, tmp_path: Path) -> None:
    features = _features("float32")
    path = tmp_path / "features.npy"
    np.save(path, features)
    twice = np.repeat(np.repeat(features, 2, axis=0), 2, axis=1)
    held: Any = {
        "memmap": lambda: np.load(path, mmap_mode="r"),
        "fortran": lambda: np.asfortranarray(features),
        "strided": lambda: twice[::2, ::2],
        "dask": lambda: da.from_array(features, (7, 64)),
        "zarr": lambda: zarr.array(features, chunks=(9, 100)),
        "rows": lambda: zarr.array(features, chunks=(1, N_FEATURES)),
        "sharded": lambda: zarr.create_array({}, data=features, chunks=(10, 70), shards=(40, 140)),
        "xarray": lambda: xr.DataArray(da.from_array(features, (40, 64)), dims=("v", "f")),
        "lists": features.tolist,
    }[kind]()
    found, same = (principal_components(each, N_COMPONENTS) for each in (held, features))
    np.testing.assert_array_equal(found.weights.mean[:], same.weights.mean[:])
    np.testing.assert_array_equal(found.weights.scale[:], same.weights.scale[:])
    np.testing.assert_allclose(found.singular_values, same.singular_values, rtol=1e-12)
    np.testing.assert_allclose(found.scores, same.scores, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.weights.components[:], same.weights.components[:], atol=1e-7)


class _Counted:
    """An array in chunks that counts how often each feature is read."""

    def __init__(self, array: NDArray[Any], chunks: tuple[int, int]) -> None:
        self.shape, self.dtype, self.chunks = array.shape, array.dtype, chunks
        self._array = array
        self.counts = np.zeros(array.shape, int)

    def __getitem__(self, key: Any) -> Any:
        self.counts[key] += 1
        return self._array[key]


def test_features_are_read_twice_and_wide_chunks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    features = _features("float32")
    narrow, wide = (_Counted(features, chunks) for chunks in ((5, 10), (5, N_FEATURES)))
    monkeypatch.setattr("maskcube.insilico.principal.block_width", lambda *_: 96)
    for held, times in ((narrow, 2), (wide, 1)):
        found = principal_components(held, N_COMPONENTS)  # type: ignore[arg-type]
        assert (held.counts == times).all()
        _agree(found, _judge(features, N_COMPONENTS), 3e-6)


def test_blocks_end_where_chunks_end() -> None:
    columns = Columns(zarr.array(np.zeros((3, 100)), chunks=(3, 15)), "x", ("a, b",))
    assert [block.start for block, _ in columns.blocks(40)] == [0, 30, 60, 90]


def test_videos_in_another_order_are_other_features() -> None:
    features = _features()
    digests = {
        Gram.of(Columns(each, "features", ("a, b",)), 100).digest
        for each in (features, features[::-1], features[:, ::-1], features[:-1], features + 1e-9)
    }
    assert len(digests) == 5


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e200])
def test_features_that_are_not_finite_are_named(bad: float) -> None:
    features = _features()
    features[3, [0, 65, 699]] = bad
    columns = Columns(features, "features", ("video, feature",))
    with pytest.raises(InvalidParameterError, match=r"3 of 700 features.*: 0, 65, 699"):
        Gram.of(columns, 64)


@pytest.mark.parametrize(
    ("features", "n_components", "message"),
    [
        (np.zeros((10, 50)), 3, "have 0 components"),
        (np.tile(_features(shape=(5, 50)), (4, 1)), 6, "have 4 components.*at most n_comp.*=4"),
        (_features(shape=(10, 50)), 10, "10 videos of 50 features have 1 to 9"),
        (_features(shape=(10, 5)), 6, "have 1 to 5"),
        (_features(shape=(10, 5)), 0, "n_components=0"),
        (_features(shape=(1, 5)), 1, "have 1 to 0"),
        (np.zeros((10, 50), complex), 3, "complex128"),
        (np.zeros(10), 3, r"\(10,\)"),
    ],
)
def test_what_has_no_such_components(
    features: NDArray[Any], n_components: int, message: str
) -> None:
    with pytest.raises(InvalidParameterError, match=message):
        principal_components(features, n_components)


def test_the_products_must_fit_into_memory() -> None:
    features = np.broadcast_to(np.float32(0), (20_000, 1000))
    with pytest.raises(InvalidOption, match="too little for so many videos: give at least"):
        principal_components(features, memory="1GiB")
