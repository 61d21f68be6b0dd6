"""Responses as labelled arrays: lazy, back in the volume, and by the command line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import dask.array as da
import dask.base
import nibabel as nib
import numpy as np
import pytest
import xarray as xr
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from maskcube import InvalidOption, LabelNotFound
from maskcube.cli import main
from maskcube.insilico import (
    BERG,
    EncodingModel,
    InvalidParameterError,
    RegionIndex,
    StimulusError,
    encode,
    sample_model,
    to_nifti,
)

MODEL = "fmri-bmd-s3d"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> str:
    return sample_model(tmp_path_factory.mktemp("models") / "models.zarr", n_subjects=2)


@pytest.fixture(scope="module")
def model(models: str) -> EncodingModel:
    return BERG(models).get_encoding_model(MODEL, subject=1)


@pytest.fixture(scope="module")
def videos() -> NDArray[np.uint8]:
    return np.random.default_rng(5).integers(0, 256, (7, 20, 3, 24, 24), np.uint8)


def test_every_voxel_is_labelled(model: EncodingModel, videos: NDArray[np.uint8]) -> None:
    responses = encode(model, videos)
    assert responses.dims == ("stimulus", "voxel")
    assert responses.dtype == np.float32
    np.testing.assert_array_equal(responses, model.encode(videos))
    labels = {"i", "j", "k", "x", "y", "z", "hemisphere", "roi", "lV1v", "BMDgeneral"}
    labels |= {"noiseceiling_task_test_n_10", "correlation", "r2", "explained_variance"}
    assert labels <= set(responses.coords)
    assert responses.noiseceiling_task_test_n_1.attrs["units"] == "percent"
    assert "standard deviations" in responses.attrs["units"]
    region = responses.sel(roi="rFFA")
    assert region.rFFA.all()
    assert region.sizes["voxel"] == int(responses.rFFA.sum())
    assert set(region.hemisphere.values.tolist()) == {"right"}


@pytest.mark.parametrize("chunks", [1, 3, 7, 100])
def test_chunks_make_it_lazy(
    model: EncodingModel, videos: NDArray[np.uint8], chunks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    encoded = EncodingModel.encode

    def counted(self: EncodingModel, stimulus: Any, **options: Any) -> Any:
        seen.append(len(stimulus))
        return encoded(self, stimulus, **options)

    monkeypatch.setattr(EncodingModel, "encode", counted)
    lazy = encode(model, videos, chunks=chunks)
    assert dask.base.is_dask_collection(lazy)
    assert lazy.sel(roi="lV1v").shape[0] == 7
    assert not seen
    two = lazy.isel(stimulus=[0, 1]).compute()
    assert sum(seen) == min(7, -(-2 // chunks) * chunks)
    np.testing.assert_allclose(two, encoded(model, videos[:2]), atol=1e-4)


def test_what_is_dasks_stays_dasks(model: EncodingModel, videos: NDArray[np.uint8]) -> None:
    given = da.from_array(videos, (2, 5, 3, 24, 12))
    responses = encode(model, given)
    assert responses.chunks == ((2, 2, 2, 1), (model.n_voxels,))
    np.testing.assert_allclose(responses, model.encode(videos), atol=1e-4)


def test_stimuli_keep_their_names(model: EncodingModel, videos: NDArray[np.uint8]) -> None:
    names = [f"video-{number}" for number in range(7)]
    given = xr.DataArray(
        videos,
        {"clip": names, "set": ("clip", list("aabbbcc")), "height": np.arange(24)},
        ("clip", "frame", "channel", "height", "width"),
    )
    for responses in (encode(model, given), encode(model, given, chunks=2)):
        assert responses.dims == ("clip", "voxel")
        assert responses.sel(clip="video-3").set.item() == "b"
        assert "height" not in responses.coords
        assert responses.sel(roi="lV1v", clip="video-3").ndim == 1


@pytest.mark.parametrize("chunks", [0, -1, 1.5, "auto", True])
def test_bad_chunks_are_told(model: EncodingModel, videos: NDArray[Any], chunks: Any) -> None:
    with pytest.raises(InvalidOption, match="chunks="):
        encode(model, videos, chunks=chunks)


def test_bad_videos_are_told_before_anything_is_computed(model: EncodingModel) -> None:
    with pytest.raises(StimulusError, match="13 frames"):
        encode(model, da.zeros((2, 13, 3, 8, 8), dtype="u1"))
    with pytest.raises(StimulusError):
        encode(model, [[1, 2]], chunks=2)


def test_responses_go_back_into_the_volume(
    model: EncodingModel, videos: NDArray[np.uint8], tmp_path: Path
) -> None:
    responses = encode(model, videos)
    assert model.volume is not None
    mask = model.volume.mask
    image = to_nifti(responses)
    assert image.shape == (*mask.shape, 7)
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(image.affine, model.volume.affine)
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_array_equal(np.asarray(image.dataobj)[mask].T, responses)
    assert np.isnan(np.asarray(image.dataobj)[~mask]).all()
    image.to_filename(tmp_path / "responses.nii.gz")
    again = nib.nifti1.Nifti1Image.from_filename(tmp_path / "responses.nii.gz")
    np.testing.assert_array_equal(again.get_fdata(), np.asarray(image.dataobj))
    x, y, z = (float(responses[axis][40]) for axis in "xyz")
    place = [int(responses[axis][40]) for axis in "ijk"]
    assert nib.affines.apply_affine(image.affine, place).tolist() == [x, y, z]


def test_what_is_left_of_responses_goes_back_too(
    model: EncodingModel, videos: NDArray[np.uint8]
) -> None:
    region = encode(model, videos, chunks=3).sel(roi=["lV1v", "rV1v"])
    image = np.asarray(to_nifti(region[0], fill=0).dataobj)
    assert np.count_nonzero(image) == region.sizes["voxel"]
    ceiling = to_nifti(region.noiseceiling_task_test_n_1, fill=0)
    assert ceiling.ndim == 3
    assert np.asarray(ceiling.dataobj).sum() == pytest.approx(
        float(region.noiseceiling_task_test_n_1.sum())
    )
    np.testing.assert_array_equal(ceiling.affine, to_nifti(region).affine)
    assert to_nifti((region[0] - region[1]).drop_attrs(deep=False)).ndim == 3
    transposed = to_nifti(region.T)
    np.testing.assert_array_equal(transposed.dataobj, to_nifti(region).dataobj)


@pytest.mark.parametrize(
    "given", [None, np.zeros(3), xr.DataArray(np.zeros((2, 3)), dims=("a", "b"))]
)
def test_what_has_no_voxels_is_no_image(given: Any) -> None:
    with pytest.raises(InvalidOption, match="along 'voxel'"):
        to_nifti(given)


def test_what_has_lost_its_place_is_told(model: EncodingModel, videos: NDArray[Any]) -> None:
    responses = encode(model, videos)
    with pytest.raises(InvalidOption, match=r"no coordinates 'i', .* brain="):
        to_nifti(responses.drop_vars("i"))
    with pytest.raises(InvalidOption, match="'affine'"):
        to_nifti(responses.drop_attrs())
    with pytest.raises(InvalidOption, match="dimensions"):
        to_nifti(responses.expand_dims("repeat"))
    with pytest.raises(InvalidOption, match=r"along 'voxel'.* take their mean"):
        to_nifti(responses.mean("voxel"))


@pytest.fixture
def files(videos: NDArray[np.uint8], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    np.save("videos.npy", videos)
    return tmp_path


def _run(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["insilico", *arguments])
    assert done.exit_code == 0, done.output
    return done.output


def _refused(*arguments: str) -> str:
    done = CliRunner().invoke(main, ["insilico", *arguments])
    assert done.exit_code == 1
    assert "Traceback" not in done.output
    return done.output


@pytest.mark.parametrize("name", ["voxel", "i", "roi", "lV1v", "correlation"])
@pytest.mark.parametrize("chunks", [None, 2])
def test_labels_of_videos_never_replace_those_of_voxels(
    model: EncodingModel, name: str, chunks: int | None
) -> None:
    features = np.zeros((3, model.n_features), "f4")
    labelled = xr.DataArray(features, {name: ("video", [1, 2, 3])}, ("video", "feature"))
    for given in (labelled, xr.DataArray(features, dims=(name, "feature"))):
        with pytest.raises(InvalidOption, match=f"'{name}' would be of the videos and of the vox"):
            encode(model, given, chunks=chunks)


def test_lazy_responses_look_at_no_value(model: EncodingModel) -> None:
    """Dask would name an array by its values: these would take 16 TiB."""
    videos = np.broadcast_to(np.uint8(7), (10**6, 90, 3, 256, 256))
    responses = encode(model, videos, chunks=2)
    assert responses.shape == (10**6, model.n_voxels)
    np.testing.assert_allclose(responses[-1:].compute(), model.encode(videos[:1]), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda responses: responses.pad(voxel=2), "are not there"),
        (lambda responses: responses.assign_coords(i=-responses.i), "are not there"),
        (lambda responses: responses.assign_coords(k=responses.k + 0.5), "are not there"),
        (lambda responses: responses.assign_attrs(volume_shape=[3, 3, 3]), "are not there"),
        (lambda responses: responses.assign_attrs(volume_shape=[10**6] * 3), "no volume"),
        (lambda responses: responses.assign_attrs(volume_shape="big"), "no volume"),
        (lambda responses: responses.assign_attrs(affine=[1, 2]), "no volume"),
        (lambda responses: responses * 1j, "real numbers"),
        (lambda responses: responses.hemisphere.assign_attrs(responses.attrs), "real numbers"),
        (
            lambda responses: responses[np.zeros(2**15, int)].isel(voxel=slice(2)),
            "at most 32,767 stimuli",
        ),
    ],
)
def test_what_is_no_image_is_told(model: EncodingModel, change: Any, told: str) -> None:
    responses = encode(model, np.zeros((3, model.n_components), "f4"))
    with pytest.raises(InvalidOption, match=told):
        to_nifti(change(responses).assign_attrs(responses.attrs | change(responses).attrs))


def _headed(text: str) -> bytes:
    return b"\x93NUMPY\1\0" + len(text).to_bytes(2, "little") + text.encode() + bytes(9000)


@pytest.mark.parametrize(
    "data",
    [
        _headed("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2"),
        _headed("{'descr': '<f4', 'fortran_order': False, 'shape': '''"),
        _headed("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 2688), }"),
        _headed(f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, 2), }}"),
        b"PK\3\4",
        b"",
    ],
)
def test_the_command_refuses_damaged_videos(models: str, tmp_path: Path, data: bytes) -> None:
    (tmp_path / "videos.npy").write_bytes(data)
    result = _asked(models, tmp_path / "videos.npy", tmp_path / "out.npy")
    assert isinstance(result.exception, SystemExit)
    assert "cannot be read as a .npy of numbers" in result.output
    assert not (tmp_path / "out.npy").exists()


def test_the_command_waits_for_no_pipe(models: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "videos.npy")
    result = _asked(models, tmp_path / "videos.npy", tmp_path / "out.npy")
    assert "is no file" in result.output


@pytest.mark.parametrize(
    ("name", "told"),
    [
        (".npy", "must end in"),
        (".zarr", "must end in"),
        (".nii.gz", "must end in"),
        ("nowhere/out.npy", "there is no folder"),
        ("link.npy", "exists"),
    ],
)
def test_the_command_says_where_nothing_can_be_written(
    models: str, tmp_path: Path, name: str, told: str
) -> None:
    """Before anything is encoded."""
    np.save(tmp_path / "scores.npy", np.zeros((2, 20), "f4"))
    (tmp_path / "link.npy").symlink_to(tmp_path / "elsewhere.npy")
    result = _asked(models, tmp_path / "scores.npy", tmp_path / name)
    assert result.exit_code == 1
    assert told in result.output
    assert "Encoding" not in result.output
    assert not (tmp_path / "elsewhere.npy").exists()


def _asked(models: str, videos: Path, output: Path) -> Result:
    arguments = ["insilico", "encode", models, str(videos), str(output), "--subject", "1"]
    return CliRunner().invoke(main, arguments)


@pytest.mark.usefixtures("files")
def test_the_command_encodes(models: str, model: EncodingModel, videos: NDArray[Any]) -> None:
    expected = encode(model, videos)
    arguments = ["encode", models, "videos.npy"]
    assert "7 stimuli" in _run(*arguments, "all.npy", "--subject", "1", "-q")
    np.testing.assert_array_equal(np.load("all.npy"), expected)
    _run(*arguments, "v1.zarr", "--subject", "1", "--roi", "lV1v", "-q")
    with xr.open_dataarray("v1.zarr", engine="zarr") as opened:
        region = opened.load().set_xindex("roi", RegionIndex)
    xr.testing.assert_allclose(region.drop_vars("roi"), expected.sel(roi="lV1v").drop_vars("roi"))
    assert region.sel(roi="lV1v").shape == region.shape
    assert region.hemisphere.values.tolist() == expected.sel(roi="lV1v").hemisphere.values.tolist()
    _run(*arguments, "all.nii.gz", "--subject", "1", "-q")
    np.testing.assert_array_equal(
        nib.nifti1.Nifti1Image.from_filename("all.nii.gz").get_fdata(),
        to_nifti(expected).get_fdata(),
    )


@pytest.mark.usefixtures("files")
def test_the_command_says_what_is_wrong(models: str) -> None:
    Path("videos.txt").write_text("no")
    arguments = ["encode", models, "videos.npy"]
    assert "must end in .zarr" in _refused(*arguments, "out.mat", "--subject", "1")
    assert "did you mean 'lV1v'" in _refused(*arguments, "o.npy", "--subject", "1", "--roi", "lV1V")
    assert "[1, 2]" in _refused(*arguments, "o.npy", "--subject", "5")
    told = _refused("encode", models, "videos.txt", "o.npy", "--subject", "1")
    assert "cannot be read as a .npy" in told
    assert "pickle" not in told
    assert "no folder no" in _refused(*arguments, str(Path("no", "o.npy")), "--subject", "1")
    Path("o.npy").touch()
    assert "exists" in _refused(*arguments, "o.npy", "--subject", "1")
    assert "no encoding model" in _refused("info", "nothing.zarr")


def test_the_command_says_what_is_there(models: str, model: EncodingModel) -> None:
    assert "subject 2: 806 voxels" in _run("info", models)
    said = json.loads(_run("info", models, "--json"))
    assert said["subjects"]["1"]["n_voxels"] == model.n_voxels
    assert said["subjects"]["1"]["regions"]["lV1v"] == model.coords["lV1v"].sum()
    assert said["n_features"] == model.n_features


def test_the_command_converts(tmp_path: Path) -> None:
    from berg_folder import write_berg_folder

    folder = write_berg_folder(tmp_path / "berg", subjects=(1, 4))
    place = str(tmp_path / "models.zarr")
    report = json.loads(_run("convert", str(folder.root), place, "--subject", "4", "--json"))
    assert report["subjects"] == [4]
    assert "subject 1: 500 voxels" in _run("convert", str(folder.root), place, "-q")
    assert "[1, 4]" in _refused("convert", str(folder.root), place, "--subject", "3")
    other = write_berg_folder(tmp_path / "other", seed=3)
    assert "--overwrite would replace it" in _refused("convert", str(other.root), place)


def test_regions_are_told_in_the_order_of_the_model(
    model: EncodingModel, videos: NDArray[Any]
) -> None:
    responses = encode(model, videos)
    index = responses.xindexes["roi"]
    assert isinstance(index, RegionIndex)
    assert index.regions[:4] == ("lV1v", "rV1v", "lV1d", "rV1d")
    with pytest.raises(LabelNotFound, match="there are 'lV1v', 'rV1v', 'lV1d'"):
        responses.sel(roi="?")
    with pytest.raises(LabelNotFound, match="'lV1v', 'rV1v', 'lV1d' or 'rV1d'"):
        responses.sel(roi="V1")


@pytest.mark.usefixtures("files")
def test_what_an_image_needs_is_asked_for_before_anything_is_encoded(
    models: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("maskcube.insilico.commands.find_spec", lambda _: None)
    told = _refused("encode", models, "videos.npy", "out.nii.gz", "--subject", "1")
    assert "out.nii.gz needs nibabel" in told
    assert "Encoding" not in told


@pytest.mark.parametrize("given", [None, np.zeros(3), "fmri-bmd-s3d"])
def test_what_is_no_model_is_told(given: Any, models: str, videos: NDArray[Any]) -> None:
    with pytest.raises(InvalidParameterError, match="model is a"):
        encode(given, videos)
    with pytest.raises(InvalidParameterError, match="get_encoding_model"):
        BERG(models).encode(given, videos)


def test_the_models_are_no_model(models: str, videos: NDArray[Any]) -> None:
    berg: Any = BERG(models)
    with pytest.raises(
        InvalidParameterError, match="model is a BERG; give what get_encoding_model"
    ):
        encode(berg, videos)


@pytest.mark.parametrize("n_subjects", [0, -1, 1.5, True])
def test_a_sample_has_subjects(n_subjects: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidParameterError, match="n_subjects="):
        sample_model(tmp_path / "models.zarr", n_subjects=n_subjects)
    assert not (tmp_path / "models.zarr").exists()
