"""BERG's calls, on BERG's own files and on a store that they were converted to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import pytest
from berg_folder import MEASURES, PARTLY_OUTSIDE, REGIONS, BergFolder, write_berg_folder
from numpy.typing import NDArray

from maskcube import InvalidOption, MaskcubeError
from maskcube.insilico import (
    BERG,
    BERGError,
    EncodingModel,
    InvalidParameterError,
    ModelLoadError,
    ModelNotFoundError,
    StimulusError,
    ValidationError,
    convert,
)
from maskcube.insilico.backbones import backbone_of

MODEL = "fmri-bmd-s3d"
N_VOXELS = 500


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> BergFolder:
    root = tmp_path_factory.mktemp("berg")
    return write_berg_folder(root, subjects=(1, 3), n_voxels=N_VOXELS)


@pytest.fixture(scope="module", params=["folder", "store"])
def berg(request: pytest.FixtureRequest, folder: BergFolder, tmp_path_factory: Any) -> BERG:
    if request.param == "folder":
        return BERG(folder.root)
    store = tmp_path_factory.mktemp("converted") / "models.zarr"
    convert(folder.root, store, progress=False)
    return BERG(store)


@pytest.fixture(scope="module")
def model(berg: BERG) -> EncodingModel:
    return berg.get_encoding_model(MODEL, subject=1)


@pytest.fixture(scope="module")
def videos() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (3, 20, 3, 40, 40), np.uint8)


@pytest.fixture(scope="module")
def whole(berg: BERG, model: EncodingModel, videos: NDArray[np.uint8]) -> NDArray[np.float32]:
    found = berg.encode(model, videos, show_progress=False)
    assert isinstance(found, np.ndarray)
    return found


def test_the_catalogue_is_that_of_berg(berg: BERG, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = {"fMRI": ["BOLD Moments Dataset (BMD) (MNI152 volume space)"]}
    assert berg.get_model_catalog() == catalog
    assert berg.list_models() == [MODEL]
    assert berg.get_model_variants(MODEL) == []
    assert berg.get_model_catalog(print_format=True) is None
    assert "BOLD Moments" in capsys.readouterr().out


def test_a_model_is_described(berg: BERG, capsys: pytest.CaptureFixture[str]) -> None:
    told = berg.describe(MODEL)
    assert set(told) == {
        *("model_id", "model_info", "description", "input", "output", "parameters"),
        *("parameters_by_function", "performance", "example_usage"),
    }
    assert told["parameters"]["subject"]["valid_values"] == list(range(1, 11))
    regions = told["parameters"]["selection"]["properties"]["roi"]["valid_values"]
    assert sorted(regions) == sorted(REGIONS)
    assert MODEL in capsys.readouterr().out


def test_responses_are_as_on_the_page(whole: NDArray[np.float32]) -> None:
    assert whole.shape == (3, N_VOXELS)
    assert whole.dtype == np.float32
    assert whole.std() > 0.1
    assert (whole.std(axis=0) > 0).all()


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_is_its_slice_of_the_brain(
    berg: BERG, folder: BergFolder, videos: NDArray[np.uint8], whole: NDArray[Any], region: str
) -> None:
    stored = folder.load(folder.metadata(1))["fmri"]
    mask = stored["sub_mask"]
    row_of = np.cumsum(mask.ravel()) - 1
    flat = np.ravel_multi_index(tuple(stored["rois"][region][0].T), mask.shape)
    inside = mask.ravel()[flat]
    assert inside.all() == (region != PARTLY_OUTSIDE)
    model = berg.get_encoding_model(MODEL, subject=1, selection={"roi": region})
    expected = whole[:, np.sort(row_of[flat[inside]])]
    np.testing.assert_allclose(model.encode(videos), expected, atol=1e-6)
    assert np.column_stack([model.coords[axis] for axis in "ijk"]).tolist() == sorted(
        stored["rois"][region][0][inside].tolist()
    )


@pytest.mark.parametrize("kind", ["?", "i8", "f4", ">i4", "list"])
def test_voxels_are_a_slice_of_the_brain(
    berg: BERG, videos: NDArray[np.uint8], whole: NDArray[Any], kind: str
) -> None:
    chosen = np.random.default_rng(2).random(N_VOXELS) < 0.1
    given: Any = chosen.tolist() if kind == "list" else chosen.astype(kind)
    model = berg.get_encoding_model(MODEL, subject=1, selection={"voxels": given})
    np.testing.assert_allclose(model.encode(videos), whole[:, chosen], atol=1e-6)


def test_a_region_goes_before_voxels(berg: BERG) -> None:
    both = {"roi": "lV1v", "voxels": np.ones(N_VOXELS)}
    n_voxels = berg.get_encoding_model(MODEL, subject=1, selection=both).n_voxels
    assert n_voxels == berg.get_encoding_model(MODEL, subject=1, selection={"roi": "lV1v"}).n_voxels
    for everything in (None, {}, {"roi": None}, {"voxels": None}):
        assert berg.get_encoding_model(MODEL, subject=1, selection=everything).n_voxels == N_VOXELS


@pytest.mark.parametrize("dtype", ["i2", "u2", "i4", "u4", "i8", "u8", ">i4", ">u2"])
def test_integers_of_any_width_mean_the_same(
    model: EncodingModel, videos: NDArray[np.uint8], whole: NDArray[Any], dtype: str
) -> None:
    np.testing.assert_array_equal(model.encode(videos.astype(dtype)), whole)


def test_a_video_does_not_depend_on_its_batch(
    model: EncodingModel, videos: NDArray[np.uint8], whole: NDArray[Any]
) -> None:
    many = model.encode(np.concatenate([videos] * 8))
    single = np.concatenate([model.encode(video[None]) for video in videos])
    for found in (many[-3:], single):
        np.testing.assert_allclose(found, whole, atol=5e-5 * whole.std())


def test_no_videos_have_no_responses(model: EncodingModel, videos: NDArray[np.uint8]) -> None:
    assert model.encode(videos[:0]).shape == (0, N_VOXELS)


def test_features_and_scores_need_no_videos(
    berg: BERG, videos: NDArray[np.uint8], whole: NDArray[Any]
) -> None:
    def unseen(_: object) -> NDArray[np.float32]:
        raise AssertionError

    asked = berg.get_encoding_model(MODEL, subject=1)
    features = asked.backbone(videos[:, np.linspace(0, 19, 14, dtype=int)])
    model = berg.get_encoding_model(MODEL, subject=1, backbone=unseen)  # type: ignore[arg-type]
    for dtype in ("f4", "f8"):
        np.testing.assert_allclose(model.encode(features.astype(dtype)), whole, atol=1e-5)
    scores = model.scores(features)
    assert scores.shape == (3, model.n_components)
    np.testing.assert_allclose(model.encode(scores), whole, atol=1e-5)
    with pytest.raises(AssertionError):
        model.encode(videos)


def test_metadata_is_as_on_the_page(berg: BERG, folder: BergFolder) -> None:
    model = berg.get_encoding_model(MODEL, subject=3, selection={"roi": "rFFA"})
    scores = np.ones((1, model.n_components), "f4")
    answer = berg.encode(model, scores, return_metadata=True)
    assert isinstance(answer, tuple)
    stored = folder.load(folder.metadata(3))
    for metadata in (answer[1], berg.get_model_metadata(MODEL, subject=3), model.get_metadata()):
        assert set(metadata) == {"fmri", "encoding_models"}
        fmri, expected = metadata["fmri"], stored["fmri"]
        assert set(fmri) == set(expected)
        for name in ("group_mask", "sub_mask"):
            np.testing.assert_array_equal(fmri[name], expected[name], strict=True)
            np.testing.assert_array_equal(fmri[f"{name}_affine"], expected[f"{name}_affine"])
            assert fmri[f"{name}_header"] == expected[f"{name}_header"]
        assert list(fmri["rois"]) == list(expected["rois"])
        for name, (indices, flat, image) in fmri["rois"].items():
            np.testing.assert_array_equal(indices, expected["rois"][name][0], strict=True)
            np.testing.assert_array_equal(flat, expected["rois"][name][1], strict=True)
            assert (np.argwhere(image.dataobj) == np.unique(indices, axis=0)).all()
        assert sorted(metadata["encoding_models"]) == sorted(MEASURES)
        for name, values in metadata["encoding_models"].items():
            expected_values = stored["encoding_models"][name]
            np.testing.assert_array_equal(values, expected_values, strict=True)


@pytest.mark.parametrize("model_id", ["fmri-bmd-s4d", "", None, 1, MODEL.upper()])
def test_an_unknown_model_is_named(berg: BERG, model_id: Any) -> None:
    calls: list[Any] = [berg.describe, berg.get_model_variants]
    calls += [lambda name: berg.get_encoding_model(name, subject=1)]
    calls += [lambda name: berg.get_model_metadata(name, subject=1)]
    for call in calls:
        with pytest.raises(ModelNotFoundError, match="there is 'fmri-bmd-s3d'"):
            call(model_id)


@pytest.mark.parametrize("subject", [None, 0, 2, 11, -1, "1", 1.0, True, [1], np.float64(1)])
def test_a_bad_subject_is_told_which_there_are(berg: BERG, subject: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"has \[1, 3\]"):
        berg.get_encoding_model(MODEL, subject=subject)
    with pytest.raises(InvalidParameterError, match=r"has \[1, 3\]"):
        berg.get_model_metadata(MODEL, subject=subject)


def test_a_number_of_numpy_is_a_subject(berg: BERG) -> None:
    assert berg.get_encoding_model(MODEL, subject=np.int64(3)).subject == 3


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        ([1], "selection=.* is a list; give a dict"),
        ("lV1v", "is a str; give a dict"),
        ({"rois": "lV1v"}, "did you mean 'roi'"),
        ({"roi": "lV1v", 3: 4}, "selection has 3"),
        ({"roi": "lV1V"}, "did you mean 'lV1v'"),
        ({"roi": "V1"}, "no roi 'V1'; did you mean"),
        ({"roi": "zzz"}, "there are 'lV1v'"),
        ({"roi": ["lV1v"]}, "give one name"),
        ({"roi": 1}, "give one name"),
        ({"voxels": np.ones(N_VOXELS - 1)}, r"voxels is \(499,\); subject 1 has 500"),
        ({"voxels": np.ones((N_VOXELS, 2))}, r"voxels is \(500, 2\)"),
        ({"voxels": np.zeros(N_VOXELS)}, "chooses none"),
        ({"voxels": np.full(N_VOXELS, 2)}, "voxels has 2, 2"),
        ({"voxels": np.full(N_VOXELS, np.nan)}, r"voxels has nan, .* \(500 in all\)"),
        ({"voxels": np.full(N_VOXELS, 0.5)}, "voxels has 0.5"),
        ({"voxels": ["1"] * N_VOXELS}, "voxels has '1'"),
        ({"voxels": 1}, r"voxels is \(\)"),
        ({"voxels": [[1], [1, 2]]}, "voxels cannot be read"),
    ],
)
def test_a_bad_selection_is_told(berg: BERG, selection: Any, told: str) -> None:
    with pytest.raises(InvalidParameterError, match=told) as caught:
        berg.get_encoding_model(MODEL, subject=1, selection=selection)
    is_value = isinstance(selection, dict) and set(selection) <= {"roi", "voxels"}
    assert isinstance(caught.value, ValidationError) == is_value


@pytest.mark.parametrize("memory", [0, -1, "0", "-1GiB", "much", None])
def test_a_bad_memory_is_told(berg: BERG, memory: Any) -> None:
    with pytest.raises(InvalidOption, match="memory="):
        berg.get_encoding_model(MODEL, subject=1, memory=memory)


@pytest.mark.parametrize("device", ["banana", "gpu", "cuda:x", None, 0, ""])
def test_a_bad_device_is_told(berg: BERG, device: Any) -> None:
    with pytest.raises(InvalidParameterError, match="there are 'auto', 'cpu', 'cuda'"):
        berg.get_encoding_model(MODEL, subject=1, device=device)


def _unknown(array: NDArray[Any]) -> Any:
    """Return an array of dask that does not know how many rows it has."""
    lazy = da.from_array(array)
    return lazy[da.from_array(np.ones(len(array), bool))]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda videos: videos.tolist(), "numpy array"),
        (lambda videos: videos[0], "dimensions"),
        (lambda videos: videos[:, :13], "13 frames"),
        (lambda videos: videos[..., :30], "40 high and 30 wide"),
        (lambda videos: videos[:, :, :1], "1 channels"),
        (lambda videos: np.moveaxis(videos, 2, -1), "colours last"),
        (lambda videos: videos.astype("f4"), "float32"),
        (lambda videos: videos > 0, "bool"),
        (lambda videos: videos.astype("i2") + 1, "go from 1 to 256"),
        (lambda videos: videos.astype("i8") - 1, "go from -1 to 254"),
        (lambda _: np.zeros((2, 7), "f4"), r"stimulus is \(2, 7\) float32"),
        (lambda _: np.zeros((2, 20), "i4"), r"stimulus is \(2, 20\) int32"),
        (lambda _: np.full((2, 20), np.nan), "not finite"),
        (lambda _: np.full((2, 2688), np.inf, "f4"), "not finite"),
        (lambda _: np.full((2, 2688), 1e300), "not finite as float32"),
        (lambda _: np.full((2, 20), -1e300), "not finite as float32"),
        (lambda _: np.ma.array(np.zeros((2, 20)), mask=True), r"filled\(0\)"),
        (lambda _: pd.DataFrame(np.zeros((2, 20))), r"stimulus\.to_numpy\(\)"),
        (lambda _: _unknown(np.zeros((2, 20))), r"compute_chunk_sizes\(\)"),
        (_unknown, r"compute_chunk_sizes\(\)"),
        (lambda _: None, "numpy array"),
        (lambda _: "video.mp4", "numpy array"),
    ],
)
def test_a_bad_stimulus_is_told(
    model: EncodingModel, videos: NDArray[np.uint8], change: Any, told: str
) -> None:
    with pytest.raises(StimulusError, match=told):
        model.encode(change(videos))


def test_one_bad_value_in_an_unseen_frame_is_told(
    model: EncodingModel, videos: NDArray[np.uint8]
) -> None:
    wrong = videos.astype("i4")
    unseen = set(range(20)) - set(np.linspace(0, 19, 14, dtype=int).tolist())
    wrong[2, min(unseen), 1, 7, 9] = 256
    with pytest.raises(StimulusError, match="256"):
        model.encode(wrong)


def test_a_backbone_of_another_model_is_told(berg: BERG, videos: NDArray[np.uint8]) -> None:
    def narrow(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.zeros((len(frames), 7), "f4")

    model = berg.get_encoding_model(MODEL, subject=1, backbone=narrow)  # type: ignore[arg-type]
    with pytest.raises(InvalidParameterError, match=r"makes \(3, 7\) of 3 videos"):
        model.encode(videos)


def test_a_backbone_without_numbers_is_to_blame(berg: BERG, videos: NDArray[np.uint8]) -> None:
    def blind(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        return np.full((len(frames), 2688), np.nan, "f4")

    model = berg.get_encoding_model(MODEL, subject=1, backbone=blind)  # type: ignore[arg-type]
    with pytest.raises(StimulusError, match="the backbone makes features that are not finite"):
        model.encode(videos)


class _Far:
    """Videos that are read from somewhere, a counted number of bytes at a time."""

    def __init__(self, values: NDArray[Any]) -> None:
        self._values = values
        # No length, as zarr's arrays have none.
        self.shape, self.dtype, self.ndim = values.shape, values.dtype, values.ndim
        self.read_bytes: list[int] = []

    def __getitem__(self, key: Any) -> Any:
        found = self._values[key]
        return _Part(self, found)


class _Part(_Far):
    def __init__(self, whole: _Far, values: NDArray[Any]) -> None:
        super().__init__(values)
        self.read_bytes = whole.read_bytes

    def __array__(self, dtype: Any = None, **_: Any) -> NDArray[Any]:
        self.read_bytes.append(self._values.nbytes)
        return np.array(self._values, dtype)


@pytest.mark.parametrize(("dtype", "most"), [("u1", 10 * 90 * 3 * 64**2), ("i8", 2**27)])
def test_long_videos_are_read_few_at_a_time(berg: BERG, dtype: str, most: int) -> None:
    # 35 MB of int64 for a video of 4 seconds: three fit.
    n_frames = 90 if dtype == "u1" else 360
    far = _Far(np.broadcast_to(np.ones((), dtype), (12, n_frames, 3, 64, 64)))
    model = berg.get_encoding_model(MODEL, subject=1)
    assert model.encode(far).shape == (12, N_VOXELS)
    assert sum(far.read_bytes) == 12 * n_frames * 3 * 64**2 * np.dtype(dtype).itemsize
    assert max(far.read_bytes) <= most


def test_a_model_is_a_context_and_cleans_up(berg: BERG, videos: NDArray[np.uint8]) -> None:
    with berg.get_encoding_model(MODEL, subject=1, cache=True) as model:
        first = model.generate_response(videos, show_progress=False)
        assert model._projection._kept  # noqa: SLF001 - what is to be freed
    assert not model._projection._kept  # noqa: SLF001
    assert "backbone" not in vars(model)
    assert model.get_model_id() == MODEL
    np.testing.assert_array_equal(model.encode(videos), first)


def test_every_error_is_one_of_bergs_and_of_ours() -> None:
    for error in (ModelNotFoundError, ModelLoadError, InvalidParameterError, StimulusError):
        assert issubclass(error, BERGError)
        assert issubclass(error, MaskcubeError)
    assert issubclass(StimulusError, ValueError)


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no encoding model"):
        BERG(tmp_path / "none")
    (tmp_path / "encoding_models").mkdir()
    with pytest.raises(ModelLoadError, match="model-s3d"):
        BERG(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file.txt").touch()
    with pytest.raises(ModelLoadError, match="neither BERG's folder nor a store"):
        BERG(tmp_path / "other")


def test_a_file_of_s3d_that_is_not_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"no weights of S3D at '.*none\.pth'"):
        backbone_of("s3d", path=tmp_path / "none.pth")
    (tmp_path / "s3d.pth").touch()
    assert callable(backbone_of("s3d", path=tmp_path / "s3d.pth"))


def test_a_file_for_a_model_that_wants_none_is_told(berg: BERG) -> None:
    with pytest.raises(InvalidParameterError, match="backbone 'pixels', which has no file"):
        berg.get_encoding_model(MODEL, subject=1, backbone="s3d-d76dad2f.pth")


@pytest.mark.parametrize("subject", ["1", 1.0, True, [1, 2]])
def test_what_is_no_number_of_a_subject_is_told(berg: BERG, subject: Any) -> None:
    with pytest.raises(InvalidParameterError, match=r"no number of one subject: .* has"):
        berg.get_encoding_model(MODEL, subject=subject)
