"""A model fitted to data: beside scikit-learn, planted, of several subjects, killed and resumed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pytest
import xarray as xr
import zarr
from memory import peak_of
from numpy.typing import NDArray
from scipy import stats
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

from maskcube.errors import InvalidOption, MissingDependency, StoreExists
from maskcube.insilico import BERG, Brain, Region, Volume
from maskcube.insilico.accuracy import explained_variance, noise_ceiling
from maskcube.insilico.backbones import Pixels
from maskcube.insilico.brain import MEASURES
from maskcube.insilico.draft import Draft
from maskcube.insilico.errors import (
    InvalidParameterError,
    ModelLoadError,
    ResourceError,
    StimulusError,
)
from maskcube.insilico.fit_report import FitReport
from maskcube.insilico.fitting import fit
from maskcube.insilico.model_store import ModelStore
from maskcube.insilico.scratch import Scratch
from maskcube.insilico.videos import frames_of

MODEL = "fmri-bmd-s3d"
N_TRAIN, N_TEST, N_FEATURES, N_COMPONENTS = 60, 25, 900, 10
SHAPE = (4, 3, 5)
N_VOXELS = 37

Array = NDArray[Any]


class Data:
    """Features of a few hidden causes, and voxels that answer to these."""

    def __init__(self, *, n_features: int = N_FEATURES, noise: float = 0.3) -> None:
        random = np.random.default_rng(11)
        n_videos = N_TRAIN + N_TEST
        causes = random.normal(size=(n_videos, N_COMPONENTS)) * np.linspace(3, 1, N_COMPONENTS)
        features = causes @ random.normal(size=(N_COMPONENTS, n_features))
        features += 0.05 * random.normal(size=features.shape)
        features = (features * 10.0 ** random.uniform(-1, 1, n_features) + 5).astype(np.float32)
        signal = causes @ random.normal(size=(N_COMPONENTS, N_VOXELS)) / 3 + 0.5
        self.features, self.test_features = features[:N_TRAIN], features[N_TRAIN:]
        self.signal, self.test_signal = signal[:N_TRAIN], signal[N_TRAIN:]
        repeats = random.normal(size=(N_TRAIN, 3, N_VOXELS)) * noise
        self.responses = self.signal[:, None] + repeats
        repeats = random.normal(size=(N_TEST, 10, N_VOXELS)) * noise
        self.test_responses = self.test_signal[:, None] + repeats

    @property
    def tests(self) -> dict[str, Array]:
        """What a model is tested with."""
        return {"test_features": self.test_features, "test_responses": self.test_responses}


@pytest.fixture(scope="module")
def data() -> Data:
    """Return data that tests only read."""
    return Data()


def _brain(regions: dict[str, Region] | None = None) -> Brain:
    mask = np.zeros(SHAPE, bool)
    mask.ravel()[np.random.default_rng(0).permutation(mask.size)[:N_VOXELS]] = True
    volume = Volume(mask, np.diag([2.0, 2, 2, 1]))
    return Brain(volume, volume, regions or {}, {"r2": np.zeros(N_VOXELS)})


def _fit(features: Any, responses: Any, store: Path, **options: Any) -> FitReport:
    chosen: dict[str, Any] = {"n_components": N_COMPONENTS, "backbone": "pixels", "progress": False}
    return fit(features, responses, store, **(chosen | options))


def _predicted(store: Path, features: Array, subject: int = 1) -> Array:
    model = BERG(store).get_encoding_model(MODEL, subject=subject)
    return np.asarray(model.encode(features))


def _judge(data: Data, responses: Array) -> Callable[[Array], Array]:
    """Return what scikit-learn predicts, step by step as BERG's models are made."""
    scaler = StandardScaler().fit(data.features)
    svd = TruncatedSVD(N_COMPONENTS, algorithm="arpack", random_state=0)
    scores = svd.fit_transform(scaler.transform(data.features))
    line = LinearRegression().fit(scores, responses)
    return lambda features: np.asarray(line.predict(svd.transform(scaler.transform(features))))


def test_it_predicts_what_scikit_learn_does(data: Data, tmp_path: Path) -> None:
    report = _fit(data.features, data.responses, tmp_path / "m.zarr")
    expected = _judge(data, data.responses.mean(axis=1))(data.test_features)
    found = _predicted(tmp_path / "m.zarr", data.test_features)
    np.testing.assert_allclose(found, expected, atol=5e-5 * expected.std())
    assert (report.n_videos, report.n_repeats, report.n_test) == (N_TRAIN, 3, 0)
    assert (report.n_features, report.n_voxels, report.n_missing) == (N_FEATURES, N_VOXELS, 0)


def test_a_planted_model_is_recovered(tmp_path: Path) -> None:
    """Its causes are all that varies, so that the components are these, turned."""
    noise = 0.05
    data = Data(noise=noise)
    report = _fit(data.features, data.responses, tmp_path / "m.zarr", **data.tests)
    found = _predicted(tmp_path / "m.zarr", data.test_features)
    for voxel in range(N_VOXELS):
        assert stats.pearsonr(found[:, voxel], data.test_signal[:, voxel]).statistic > 0.99
    residual = (found - data.test_signal).std() / data.test_signal.std()
    assert residual < 2 * noise
    assert report.explained_variance_ratio > 0.99
    assert np.median(report.measures["correlation"]) > 0.99


def test_the_measures_are_those_of_berg(data: Data, tmp_path: Path) -> None:
    test_responses = data.test_responses.copy()
    test_responses[:, :, 0] *= -1
    test_responses[:, :, 1] = 7
    test_responses[2, 4, 2] = np.nan
    tests = {"test_features": data.test_features, "test_responses": test_responses}
    report = _fit(data.features, data.responses, tmp_path / "m.zarr", brain=_brain(), **tests)
    assert set(report.measures) == set(MEASURES)
    predicted = _judge(data, data.responses.mean(axis=1))(data.test_features)
    measured = test_responses.mean(axis=1)
    expected: dict[str, Any] = {
        "noiseceiling_task_train_n_1": noise_ceiling(data.responses, 1),
        "noiseceiling_task_train_n_3": noise_ceiling(data.responses, 3),
        "noiseceiling_task_test_n_1": noise_ceiling(test_responses, 1),
        "noiseceiling_task_test_n_10": noise_ceiling(test_responses, 10),
        "correlation": [
            np.nan
            if voxel in (1, 2)
            else max(stats.pearsonr(predicted[:, voxel], measured[:, voxel]).statistic, 0)
            for voxel in range(N_VOXELS)
        ],
    }
    expected["r2"] = np.square(expected["correlation"])
    expected["explained_variance"] = explained_variance(
        expected["r2"], expected["noiseceiling_task_test_n_10"]
    )
    assert expected["correlation"][0] == 0
    stored = ModelStore.open(tmp_path / "m.zarr").brain(1)
    assert stored is not None
    for name, values in expected.items():
        np.testing.assert_allclose(report.measures[name], values, rtol=1e-4, err_msg=name)
        np.testing.assert_array_equal(stored.measures[name], report.measures[name])
        assert report.measures[name].dtype == np.float32


@pytest.mark.parametrize(
    ("train", "test", "names"),
    [
        (None, None, set()),
        (1, None, set()),
        (2, None, {"noiseceiling_task_train_n_1", "noiseceiling_task_train_n_2"}),
        (None, None, {"correlation", "r2"}),
        (None, 1, {"correlation", "r2"}),
        (
            None,
            4,
            {
                "noiseceiling_task_test_n_1",
                "noiseceiling_task_test_n_4",
                "correlation",
                "r2",
                "explained_variance",
            },
        ),
    ],
)
def test_what_can_be_measured_depends_on_repeats(
    train: int | None, test: int | None, names: set[str], data: Data, tmp_path: Path
) -> None:
    responses, test_responses = data.responses[:, 0], data.test_responses[:, 0]
    if train is not None:
        responses = data.responses[:, :train]
    if test is not None:
        test_responses = data.test_responses[:, :test]
    tests = {"test_features": data.test_features, "test_responses": test_responses}
    options = tests if "r2" in names else {}
    report = _fit(data.features, responses, tmp_path / "m.zarr", **options)
    assert set(report.measures) == names


def test_responses_that_are_missing_count_as_0(data: Data, tmp_path: Path) -> None:
    responses = data.responses.copy()
    responses[[3, 8], 1, 4] = np.nan
    responses[:, :, 9] = np.nan
    report = _fit(data.features, responses, tmp_path / "m.zarr", **data.tests)
    filled = np.nan_to_num(responses.mean(axis=1))
    expected = _judge(data, filled)(data.test_features)
    found = _predicted(tmp_path / "m.zarr", data.test_features)
    np.testing.assert_allclose(found, expected, atol=5e-5 * expected.std())
    assert (report.n_missing, report.n_voxels_missing) == (2 + N_TRAIN, 2)
    assert "62 responses of 2 voxels are NaN" in str(report)
    assert np.isnan(report.measures["noiseceiling_task_train_n_3"][[4, 9]]).all()
    assert np.isnan(report.measures["correlation"]).nonzero()[0].tolist() == [9]


@pytest.mark.parametrize("kind", ["zarr", "dask", "xarray", "float32"])
def test_whatever_holds_the_data(kind: str, data: Data, tmp_path: Path) -> None:
    def held(array: Array) -> Any:
        chunks = (7, *array.shape[1:-1], 16)
        holders: dict[str, Callable[[], Any]] = {
            "zarr": lambda: zarr.array(array, chunks=chunks),
            "dask": lambda: da.from_array(array, chunks),
            "xarray": lambda: xr.DataArray(array),
            "float32": lambda: array.astype(np.float32),
        }
        return holders[kind]()

    same = _fit(data.features, data.responses, tmp_path / "same.zarr", **data.tests)
    tests = {name: held(array) for name, array in data.tests.items()}
    found = _fit(held(data.features), held(data.responses), tmp_path / "m.zarr", **tests)
    for name, values in same.measures.items():
        np.testing.assert_allclose(found.measures[name], values, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(
        _predicted(tmp_path / "m.zarr", data.test_features),
        _predicted(tmp_path / "same.zarr", data.test_features),
        atol=1e-4,
    )


def _videos(n_videos: int = 30, dtype: str = "int64") -> Array:
    random = np.random.default_rng(4)
    return random.integers(0, 256, (n_videos, 15, 3, 12, 12)).astype(dtype)


class Brightness:
    """A backbone of somebody else: the mean brightness of each frame."""

    n_features = 14

    def __init__(self) -> None:
        self.batches: list[int] = []

    def __call__(self, videos: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.batches.append(len(videos))
        means: NDArray[np.float64] = videos.mean(axis=(2, 3, 4))
        return means.astype(np.float32)


@pytest.mark.parametrize("kind", ["numpy", "zarr", "dask", "xarray"])
def test_videos_are_seen_by_the_backbone(kind: str, tmp_path: Path) -> None:
    videos = _videos()
    holders: dict[str, Callable[[], Any]] = {
        "numpy": lambda: videos,
        "zarr": lambda: zarr.array(videos, chunks=(4, 15, 3, 12, 12)),
        "dask": lambda: da.from_array(videos, (4, 15, 3, 12, 12)),
        "xarray": lambda: xr.DataArray(videos),
    }
    held = holders[kind]()
    responses = np.random.default_rng(1).normal(size=(30, 5))
    tests = {"test_features": held[:6], "test_responses": responses[:6]}
    _fit(held, responses, tmp_path / "m.zarr", n_components=5, **tests)
    features = Pixels()(frames_of(videos))
    same = {"test_features": features[:6], "test_responses": responses[:6]}
    _fit(features, responses, tmp_path / "same.zarr", n_components=5, **same)
    model = BERG(tmp_path / "m.zarr").get_encoding_model(MODEL, subject=1)
    np.testing.assert_array_equal(
        model.encode(videos), _predicted(tmp_path / "same.zarr", features)
    )


def test_a_backbone_of_somebody_else_sees_few_videos_at_a_time(tmp_path: Path) -> None:
    backbone = Brightness()
    responses = np.random.default_rng(1).normal(size=(30, 5))
    report = _fit(_videos(), responses, tmp_path / "m.zarr", n_components=3, backbone=backbone)
    assert report.n_features == 14
    assert backbone.batches == [10, 10, 10]
    berg = BERG(tmp_path / "m.zarr")
    model = berg.get_encoding_model(MODEL, subject=1, backbone=Brightness())
    assert model.encode(_videos(4)).shape == (4, 5)


def test_features_of_s3d_need_no_torch(data: Data, tmp_path: Path) -> None:
    """By default; what has made features is only asked for when there are videos."""
    fit(data.features, data.responses, tmp_path / "m.zarr", n_components=3, progress=False)
    weights = ModelStore.open(tmp_path / "m.zarr")
    assert weights.backbone == "s3d"
    assert _predicted(tmp_path / "m.zarr", data.features).shape == (N_TRAIN, N_VOXELS)


def test_the_path_of_s3ds_weights(tmp_path: Path) -> None:
    missing = tmp_path / "s3d-d76dad2f.pth"
    for backbone in (missing, str(missing)):
        with pytest.raises((ModelLoadError, MissingDependency)):
            _fit(_videos(), np.ones((30, 5)), tmp_path / "m", n_components=3, backbone=backbone)


@pytest.mark.parametrize("backbone", [None, 3, b"x"])
def test_what_is_no_backbone_is_told(tmp_path: Path, backbone: Any) -> None:
    with pytest.raises(InvalidParameterError, match="a path, or a callable"):
        _fit(np.ones((9, 5)), np.ones((9, 5)), tmp_path / "m.zarr", backbone=backbone)


@pytest.mark.parametrize("name", ["features", "responses"])
def test_an_array_that_does_not_know_its_length_is_told(tmp_path: Path, name: str) -> None:
    given: dict[str, Any] = {"features": np.ones((9, 5)), "responses": np.ones((9, 5))}
    given[name] = da.from_array(given[name])[da.from_array(np.ones(9, bool))]
    with pytest.raises(InvalidParameterError, match=rf"{name}.compute_chunk_sizes\(\)"):
        _fit(given["features"], given["responses"], tmp_path / "m.zarr")


def test_a_backbone_that_makes_something_else(tmp_path: Path) -> None:
    backbone = Brightness()
    backbone.n_features = 15
    with pytest.raises(InvalidParameterError, match=r"\(10, 14\) of 10 videos, where 15 features"):
        _fit(_videos(), np.ones((30, 5)), tmp_path / "m.zarr", n_components=3, backbone=backbone)


def test_videos_of_other_values_are_refused(tmp_path: Path) -> None:
    videos = _videos()
    videos[17, 3] = 256
    with pytest.raises(StimulusError, match="256"):
        _fit(videos, np.ones((30, 5)), tmp_path / "m.zarr", n_components=3)
    assert not (tmp_path / "m.zarr").exists()


def test_a_region_of_the_brain_is_selected(data: Data, tmp_path: Path) -> None:
    places = _brain().indices[[3, 8, 21]]
    region = Region(places, np.arange(3))
    report = _fit(
        data.features, data.responses, tmp_path / "m.zarr", brain=_brain({"lV1v": region})
    )
    model = BERG(tmp_path / "m.zarr").get_encoding_model(
        MODEL, subject=1, selection={"roi": "lV1v"}
    )
    whole = _predicted(tmp_path / "m.zarr", data.test_features)
    found = model.encode(data.test_features)
    np.testing.assert_allclose(found, whole[:, [3, 8, 21]], atol=1e-6)
    assert set(report.measures) == {"noiseceiling_task_train_n_1", "noiseceiling_task_train_n_3"}


@pytest.mark.parametrize("name", ["left V1", "a/b", "i", ""])
def test_a_region_whose_name_no_coordinate_can_have_is_refused(
    data: Data, tmp_path: Path, name: str
) -> None:
    brain = _brain({name: Region(_brain().indices[:3], np.arange(3))})
    with pytest.raises(InvalidParameterError, match="a name of its own"):
        _fit(data.features, data.responses, tmp_path / "m.zarr", brain=brain)
    assert not (tmp_path / "m.zarr").exists()


def test_a_subject_is_added_and_the_others_stay_as_they_are(data: Data, tmp_path: Path) -> None:
    store = tmp_path / "m.zarr"
    _fit(data.features, data.responses, store)
    kept = ModelStore.open(store).components()
    before = [np.array(part[:]) for part in (kept.mean, kept.scale)]
    before.append(np.array(kept.components[:, :]))
    first = _predicted(store, data.test_features)
    report = _fit(
        zarr.array(data.features, chunks=(60, 128)),
        -data.responses,
        store,
        subject=2,
        memory="300MiB",
    )
    after = ModelStore.open(store).components()
    parts = [after.mean[:], after.scale[:], after.components[:, :]]
    for one, other in zip(before, parts, strict=True):
        np.testing.assert_array_equal(one, other)
    assert BERG(store).get_model_catalog() is not None
    assert ModelStore.open(store).subjects == (1, 2)
    np.testing.assert_array_equal(_predicted(store, data.test_features), first)
    second = _predicted(store, data.test_features, subject=2)
    np.testing.assert_allclose(second, -first, atol=1e-4)
    assert report.n_kept == 0


def test_what_is_there_is_not_replaced_unless_asked(data: Data, tmp_path: Path) -> None:
    store = tmp_path / "m.zarr"
    _fit(data.features, data.responses, store)
    first = _predicted(store, data.test_features)
    with pytest.raises(StoreExists, match=r"has a model of subject 1; overwrite=True"):
        _fit(data.features, -data.responses, store)
    with pytest.raises(StoreExists, match="made of something else"):
        _fit(data.features[::-1], data.responses, store, subject=2)
    np.testing.assert_array_equal(_predicted(store, data.test_features), first)
    _fit(data.features, -data.responses, store, overwrite=True)
    np.testing.assert_allclose(_predicted(store, data.test_features), -first, atol=1e-4)


class _Untouched:
    """An array that must not be read."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape, self.dtype = shape, np.dtype(np.float32)

    def __getitem__(self, key: Any) -> Any:
        raise AssertionError(key)


def test_a_place_that_is_taken_is_found_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.tex").write_text("all there is")
    with pytest.raises(StoreExists, match="no store of encoding models"):
        _fit(_Untouched((60, 900)), _Untouched((60, 7)), tmp_path / "taken")
    assert (tmp_path / "taken" / "thesis.tex").read_text() == "all there is"


KILLED = """
import os, sys
import numpy as np
from maskcube.insilico.draft import Draft
from maskcube.insilico.fitting import fit

put, left = Draft.put_{what}, [{n_calls}]
def strike(self, *given):
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)
    return put(self, *given)
Draft.put_{what} = strike
features, responses = np.load("features.npy"), np.load("responses.npy")
fit(features, responses, "m.zarr", n_components=10, backbone="pixels", progress=False)
"""


@pytest.mark.parametrize(("what", "n_calls"), [("block", 0), ("block", 2), ("subject", 0)])
def test_a_killed_fit_is_resumed(what: str, n_calls: int, tmp_path: Path) -> None:
    data = Data(n_features=2 * 65_536 + 1000)
    np.save(tmp_path / "features.npy", data.features)
    np.save(tmp_path / "responses.npy", data.responses)
    code = KILLED.format(what=what, n_calls=n_calls)
    (tmp_path / "tmp").mkdir()
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        check=False,
    )
    assert done.returncode == 9
    with pytest.raises(ModelLoadError, match="interrupted"):
        BERG(tmp_path / "m.zarr")
    report = _fit(data.features, data.responses, tmp_path / "m.zarr")
    assert report.n_kept >= 3 * min(n_calls + 3 * (what == "subject"), 3)
    _fit(data.features, data.responses, tmp_path / "whole.zarr")
    files = [
        {
            path.relative_to(root).as_posix(): path.read_bytes()
            for path in root.rglob("c/**/*")
            if path.is_file()
        }
        for root in (tmp_path / "m.zarr", tmp_path / "whole.zarr")
    ]
    assert files[0] == files[1]
    assert len(files[0]) > 9


def test_nothing_is_left_in_the_temporary_folder(
    data: Data, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    _fit(data.features, data.responses, tmp_path / "m.zarr")
    monkeypatch.setattr(Draft, "put_subject", lambda *_: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        _fit(data.features, data.responses, tmp_path / "n.zarr")
    assert not list((tmp_path / "tmp").iterdir())


def test_the_report_says_it_all(data: Data, tmp_path: Path) -> None:
    report = _fit(data.features, data.responses, tmp_path / "m.zarr", **data.tests)
    told = str(report)
    assert f"{tmp_path / 'm.zarr'}: subject 1, 37 voxels by 10 components of 900" in told
    assert "fitted to 60 videos" in told
    assert "25 test videos: median 0." in told
    plain = json.loads(json.dumps(report.to_json(), allow_nan=False))
    correlation = report.measures["correlation"]
    assert plain["measures"]["correlation"] == {
        "median": pytest.approx(float(np.median(correlation))),
        "maximum": pytest.approx(float(correlation.max())),
        "n_nan": 0,
    }
    assert plain["n_videos"] == 60


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        ({"features": np.ones(9)}, [r"features is an array \(9,\) of float64"]),
        ({"features": "features"}, ["features is an array .* of <U8"]),
        ({"features": None}, ["features is an array .* of object"]),
        ({"features": np.ones((59, 900))}, ["features are of 59 videos, responses of 60"]),
        ({"features": np.ones((60, 14, 3, 9, 8), int)}, ["60 videos|9 high and 8 wide"]),
        ({"features": _videos()[:, :9]}, ["they have 9 frames, at least 14"]),
        ({"features": _videos(dtype="float32")}, ["their values are float32"]),
        ({"features": np.ones((60, 900))}, ["have 0 components"]),
        ({"responses": np.ones((60, 3, 4, 5))}, [r"\(60, 3, 4, 5\)"]),
        ({"responses": np.ones((60, 0))}, [r"responses \(60, 0\) are empty"]),
        ({"responses": np.full((60, 3), np.inf)}, ["responses: 180 values are infinite"]),
        ({"test_features": np.ones((5, 900))}, ["test_features are given without test_resp"]),
        ({"test_responses": np.ones((5, 37))}, ["test_responses are given without test_feat"]),
        (
            {"test_features": np.ones((5, 899)), "test_responses": np.ones((5, 37))},
            ["900 features of a video, and 899 of a test video"],
        ),
        (
            {"test_features": np.ones((5, 900)), "test_responses": np.ones((6, 36))},
            ["test_features are of 5 videos, test_responses of 6", "37 voxels, test_resp.* 36"],
        ),
        (
            {"test_features": np.full((5, 900), np.nan), "test_responses": np.ones((5, 37))},
            ["test_features: 4,500 values are NaN or infinite"],
        ),
        ({"n_components": 60}, ["n_components=60: 60 videos have 1 to 59"]),
        ({"n_components": 0}, ["n_components=0"]),
        ({"n_components": True}, ["n_components=True is no whole number"]),
        ({"n_components": 2.0}, ["n_components=2.0 is no whole number"]),
        ({"subject": 0}, ["subject=0: give its number"]),
        ({"subject": "1"}, ["subject='1'"]),
        ({"subject": True}, ["subject=True"]),
        ({"brain": "brain"}, ["brain is a str"]),
        ({"brain": _brain(), "responses": np.ones((60, 36))}, ["brain has 37 voxels.* 36"]),
        ({"backbone": "pixel"}, ["backbone='pixel'"]),
        (
            {
                "features": np.full((60, 900), np.nan),
                "responses": np.full((60, 3), -np.inf),
            },
            ["no model can be fitted: 2 faults", "180 values are infinite", "900 of 900 features"],
        ),
        (
            {"subject": -1, "n_components": 99, "brain": 5, "test_features": np.ones((5, 900))},
            ["4 faults", "subject=-1", "n_components=99", "brain is a int", "test_features are"],
        ),
    ],
)
def test_what_no_model_can_be_fitted_to(
    change: dict[str, Any], messages: list[str], data: Data, tmp_path: Path
) -> None:
    given = {"features": data.features, "responses": data.responses} | change
    with pytest.raises(InvalidParameterError) as raised:
        _fit(given.pop("features"), given.pop("responses"), tmp_path / "m.zarr", **given)
    for message in messages:
        raised.match(message)
    assert not (tmp_path / "m.zarr").exists()


def test_memory_that_is_too_little(data: Data, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="give at least memory="):
        _fit(data.features, data.responses, tmp_path / "m.zarr", memory="64MiB")
    with pytest.raises(InvalidOption, match="memory='much'"):
        _fit(data.features, data.responses, tmp_path / "m.zarr", memory="much")


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    with pytest.raises(ResourceError, match=r"has no room for .* GB: set TMPDIR"):
        Scratch(tmp_path / "huge", (2**20, 2**30), np.float32)


LARGE = """
import sys
import numpy as np
import zarr
from maskcube.insilico.fitting import fit

features = zarr.open_array("features.zarr", mode="r")
responses = zarr.open_array("responses.zarr", mode="r")
report = fit(features, responses, "m.zarr", backbone="pixels", memory="600MiB", progress=False)
assert report.n_components == 100
"""


@pytest.mark.slow
@pytest.mark.parametrize("chunks", [(500, 8192), (25, 400_000)])
def test_more_features_than_memory(
    chunks: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """800 MB of features and 480 MB of responses, by chunks of columns, and of rows."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    shape = (500, 400_000)
    values = random.standard_normal(shape, np.float32)
    for start in range(0, shape[1], 40_000):
        causes = random.standard_normal((150, 40_000), np.float32)
        values[:, start : start + 40_000] += values[:, :150] @ causes
    features: Any = zarr.create_array(
        "features.zarr", shape=shape, chunks=chunks, dtype="f4", compressors=None
    )
    features[...] = values
    responses: Any = zarr.create_array(
        "responses.zarr", shape=(500, 3, 40_000), chunks=(500, 3, 2000), dtype="f8"
    )
    for start in range(0, 40_000, 8000):
        responses[:, :, start : start + 8000] = random.normal(size=(500, 3, 8000))
    assert peak_of(LARGE) < 600 * 2**20
    model = BERG("m.zarr").get_encoding_model(MODEL, subject=1)
    assert model.encode(values[:2]).shape == (2, 40_000)
