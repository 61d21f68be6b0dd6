"""BERG's own files, opened where they are."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import berg_folder
import numpy as np
import pytest
from berg_folder import (
    MEASURES,
    MODEL_FOLDER,
    PARTLY_OUTSIDE,
    REGIONS,
    BergFolder,
    write_berg_folder,
)
from crafted import write_npy
from memory import peak_of

from maskcube.insilico import brain as brains
from maskcube.insilico import catalog
from maskcube.insilico.berg_files import BergFiles
from maskcube.insilico.errors import CorruptWeights, InvalidParameterError, ModelLoadError
from maskcube.insilico.mapped import MappedArray
from maskcube.insilico.pickles import read_npy
from maskcube.insilico.weights import Weights

KINDS: list[dict[str, Any]] = [
    {},
    {"dtype": "float64", "order": "F"},
    {"order": "F", "layout": "old", "numpy": 1},
    {"n_features": 30_000, "n_components": 7, "n_voxels": 900},
    {"volume": (31, 33, 20), "n_voxels": 9000, "numpy": 1},
]


@pytest.mark.parametrize("kind", KINDS)
def test_files_are_as_numpy_unpickles_them(kind: dict[str, Any], tmp_path: Path) -> None:
    made = write_berg_folder(tmp_path, subjects=(1, 2, 10), **kind)
    files: Weights = BergFiles.open(str(tmp_path))
    assert files.subjects == (1, 2, 10)
    assert files.location == str(made.folder)
    assert files.backbone == ("s3d" if "n_features" in kind else "pixels")
    pca = made.load(made.pca)
    found = files.components()
    mean, scale, components = found.mean[:], found.scale[:], found.components[:]
    np.testing.assert_array_equal(mean, pca["scaler_param"]["mean_"])
    np.testing.assert_array_equal(scale, pca["scaler_param"]["scale_"])
    np.testing.assert_array_equal(components, pca["pca_param"]["components_"])
    assert components.dtype == kind.get("dtype", "float32")
    for subject in files.subjects:
        weights = made.load(made.weights(subject))
        coef, intercept = files.regression(subject)
        assert coef.shape == weights["coef_"].shape
        np.testing.assert_array_equal(coef[[0, 3, 400]], weights["coef_"][[0, 3, 400]])
        np.testing.assert_array_equal(coef[:], weights["coef_"])
        np.testing.assert_array_equal(intercept[:], weights["intercept_"])
        _compare(files.brain(subject), made.load(made.metadata(subject)))


def _compare(found: brains.Brain | None, metadata: dict[str, Any]) -> None:
    assert found is not None
    fmri = metadata["fmri"]
    for volume, name in ((found.voxels, "sub_mask"), (found.group, "group_mask")):
        np.testing.assert_array_equal(volume.mask, fmri[name])
        assert volume.mask.dtype == bool
        if f"{name}_affine" in fmri:
            np.testing.assert_array_equal(volume.affine, fmri[f"{name}_affine"])
            assert volume.header == fmri[f"{name}_header"].binaryblock
        else:
            assert np.isnan(volume.affine).all()
            assert volume.header is None
    assert list(found.regions) == list(fmri["rois"]) == REGIONS
    for name, region in found.regions.items():
        np.testing.assert_array_equal(region.indices, fmri["rois"][name][0])
        np.testing.assert_array_equal(region.flat, fmri["rois"][name][1])
    for name in MEASURES:
        expected = metadata["encoding_models"][name]
        np.testing.assert_array_equal(found.measures[name], expected)
        assert found.measures[name].dtype == expected.dtype


def test_the_rows_of_a_region_are_those_of_its_voxels(tmp_path: Path) -> None:
    made = write_berg_folder(tmp_path, subjects=(3,))
    found = BergFiles.open(tmp_path).brain(3)
    fmri = made.load(made.metadata(3))["fmri"]
    volume = np.full(fmri["sub_mask"].shape, -1)
    volume[fmri["sub_mask"]] = np.arange(found.n_voxels)
    for name, (indices, *_) in fmri["rois"].items():
        rows = sorted(row for row in volume[tuple(indices.T)] if row >= 0)
        assert found.rows(name).tolist() == rows
        assert (len(rows) < len(indices)) is (name == PARTLY_OUTSIDE)
        x = indices @ found.voxels.affine[0, :3] + found.voxels.affine[0, 3]
        if name != "BMDgeneral":
            assert ((x < 0) if name.startswith("l") else (x > 0)).all()


def test_the_names_are_those_of_the_catalog() -> None:
    assert sorted(REGIONS) == sorted(catalog.REGIONS)
    assert list(brains.MEASURES) == MEASURES


def test_streamed_components_are_those_that_numpy_would_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: dict[str, Any] = {"n_features": 20_000, "n_components": 9, "n_voxels": 60}
    whole = write_berg_folder(tmp_path / "whole", **kind)
    monkeypatch.setattr(berg_folder, "_STREAMED_BYTES", 0)
    streamed = write_berg_folder(tmp_path / "streamed", **kind)
    assert streamed.pca.read_bytes() == whole.pca.read_bytes()


# What is wrong

Tree = dict[str, Any]


def _cut(*keys: str) -> Callable[[Tree], None]:
    def spoil(tree: Tree) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return spoil


def _put(value: Any, *keys: str) -> Callable[[Tree], None]:
    def spoil(tree: Tree) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value(tree[keys[-1]]) if callable(value) else value

    return spoil


OUTSIDE = np.array([[0, 0, 0], [12, 0, 0], [0, -1, 0]])

FAULTS: list[tuple[str, Callable[[Tree], None], str]] = [
    ("pca", _cut("pca_param"), "pca_param components_ is missing"),
    ("pca", _cut("scaler_param", "scale_"), "scaler_param scale_ is missing"),
    ("pca", _put([1.0], "scaler_param", "mean_"), "mean_ is a list, and no array"),
    ("pca", _put(lambda a: a[:-1], "scaler_param", "mean_"), "mean_ has length 2687, where 2688"),
    ("pca", _put(lambda a: a[:, 0], "pca_param", "components_"), r"has shape \(20,\) and type"),
    ("pca", _put(lambda a: a.astype(int), "pca_param", "components_"), "and type int64"),
    ("pca", _put(lambda a: a[:0], "pca_param", "components_"), r"has shape \(0, 2688\)"),
    ("pca", _put(7, "pca_param", "n_features_in_"), "pca_param n_features_in_ is 7, where 2688"),
    ("pca", _put("7", "scaler_param", "n_features_in_"), "is a str, and no number"),
    ("weights", _cut("coef_"), "coef_ is missing"),
    ("weights", _put(lambda a: a[:-1], "intercept_"), "length 499, where 500 is right"),
    ("weights", _put(np.int64(19), "n_features_in_"), "n_features_in_ is 19, where 20 is right"),
    ("metadata", _cut("fmri"), "sub_mask is missing; fmri group_mask is missing; fmri rois is"),
    ("metadata", _put(lambda a: ~a, "fmri", "sub_mask"), "has voxels 1180, where 500 is right"),
    ("metadata", _put(lambda a: a[1:], "fmri", "group_mask"), r"\(11, 14, 10\), where \(12, 14"),
    ("metadata", _put(lambda a: a.astype("u1"), "fmri", "sub_mask"), "sub_mask has shape .* uint8"),
    ("metadata", _put(np.zeros((4, 4)), "fmri", "sub_mask_affine"), "is no affine, but"),
    ("metadata", _put(np.eye(3), "fmri", "sub_mask_affine"), "is no affine, but"),
    ("metadata", _put(np.full((4, 4), np.inf), "fmri", "group_mask_affine"), "is no affine, but"),
    ("metadata", _put(7, "fmri", "group_mask_header"), "is no header of NIfTI-1"),
    ("metadata", _put([], "fmri", "rois"), "fmri rois is a list, and no dictionary"),
    ("metadata", _put(7, "fmri", "rois", "lV1v"), "fmri rois 'lV1v' is no region"),
    ("metadata", _put((OUTSIDE, np.arange(3)), "fmri", "rois", "lMT"), "volume: 2, where 0 is"),
    ("metadata", _put((OUTSIDE[:1], np.arange(3)), "fmri", "rois", "lMT"), "length 3, where 1 is"),
    (
        "metadata",
        _put((OUTSIDE[:, :2], np.arange(3)), "fmri", "rois", "rMT"),
        "has columns 2, where",
    ),
    ("metadata", _put((OUTSIDE / 2, np.arange(3)), "fmri", "rois", "rMT"), "and type float64"),
    (
        "metadata",
        _put((OUTSIDE[:1], np.arange(1)), "fmri", "rois", "left V1"),
        "are called 'left V1'",
    ),
    (
        "metadata",
        _put(dict.fromkeys(map(str, range(3000)), (OUTSIDE[:1], np.arange(1))), "fmri", "rois"),
        "fmri rois are 3,000, at most 2,048",
    ),
    ("metadata", _cut("encoding_models", "r2"), "encoding_models r2 is missing"),
    ("metadata", _put(lambda a: a[1:], "encoding_models", "correlation"), "length 499, where 500"),
]


def _spoilt(folder: Path, name: str, spoil: Callable[[Tree], None]) -> Path:
    made = write_berg_folder(folder)
    path = {"pca": made.pca, "weights": made.weights(1), "metadata": made.metadata(1)}[name]
    tree = BergFolder.load(path)
    spoil(tree)
    write_npy(path, tree)
    return path


def _read(folder: Path, name: str) -> object:
    files = BergFiles.open(folder)
    read = {"pca": files.components, "weights": lambda: files.regression(1)}
    return read.get(name, lambda: files.brain(1))()


@pytest.mark.parametrize(("name", "spoil", "told"), FAULTS)
def test_a_file_that_is_not_as_it_should_be(
    name: str, spoil: Callable[[Tree], None], told: str, tmp_path: Path
) -> None:
    path = _spoilt(tmp_path, name, spoil)
    with pytest.raises(CorruptWeights, match=told) as raised:
        _read(tmp_path, name)
    assert str(path) in str(raised.value)
    # Nothing is said of what only follows from it.
    assert str(raised.value).count(";") == told.count(";")


def test_one_array_for_all_regions_is_not_copied_for_each(tmp_path: Path) -> None:
    """Sixty times the same 20 MB are 20 MB in a pickle."""
    places = np.zeros((600_000, 3), np.int64), np.zeros(600_000, np.int64)

    def spoil(tree: Tree) -> None:
        tree["fmri"]["rois"] = {f"region{number}": places for number in range(60)}

    path = _spoilt(tmp_path, "metadata", spoil)
    assert path.stat().st_size < 30e6
    with pytest.raises(CorruptWeights, match="more than 16,777,216 places"):
        _read(tmp_path, "metadata")


def test_all_faults_of_a_file_are_told(tmp_path: Path) -> None:
    def spoil(tree: Tree) -> None:
        for name in MEASURES:
            tree["encoding_models"][name] = tree["encoding_models"][name][1:]
        for name in REGIONS[:20]:
            tree["fmri"]["rois"][name] = (OUTSIDE, np.arange(3), None)

    _spoilt(tmp_path, "metadata", spoil)
    with pytest.raises(CorruptWeights, match=r"'lV1v' \[0\] has places .*; and 15 more") as raised:
        _read(tmp_path, "metadata")
    assert str(raised.value).count("where 0 is right") == 12


def test_bytes_that_are_no_bools_count_once(tmp_path: Path) -> None:
    """Numpy counts such bytes by another rule than it selects them."""

    def spoil(tree: Tree) -> None:
        mask = tree["fmri"]["sub_mask"]
        mask.view(np.uint8)[mask] = 2

    made = write_berg_folder(tmp_path)
    before = BergFiles.open(tmp_path).brain(1)
    _spoilt(tmp_path, "metadata", spoil)
    after = BergFiles.open(tmp_path).brain(1)
    assert (read_npy(made.metadata(1))["fmri"]["sub_mask"].view(np.uint8) == 2).sum() == 500
    np.testing.assert_array_equal(after.voxels.mask.view(np.uint8), before.voxels.mask)


def test_files_of_different_releases(tmp_path: Path) -> None:
    made = write_berg_folder(tmp_path)
    other = write_berg_folder(tmp_path / "other", n_components=19, n_voxels=499)
    shutil.copy(other.weights(1), made.weights(1))
    files = BergFiles.open(tmp_path)
    with pytest.raises(CorruptWeights, match=r"coefficients of 19 components, and pca.* has 20"):
        files.regression(1)
    with pytest.raises(CorruptWeights, match="sub_mask has voxels 500, where 499 is right"):
        files.brain(1)


def test_the_older_recipe_is_named(tmp_path: Path) -> None:
    kind: dict[str, Any] = {"n_components": 1, "dtype": "float32", "n_voxels": 60}
    write_berg_folder(tmp_path, n_features=5_337_088, **kind)
    with pytest.raises(ModelLoadError, match="5,337,088 features: the older recipe made it"):
        BergFiles.open(tmp_path).components()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    made = write_berg_folder(tmp_path / "berg", subjects=(1, 4))
    files = BergFiles.open(tmp_path / "berg")
    with pytest.raises(InvalidParameterError, match=r"subject=2 is no subject.* has \[1, 4\]"):
        files.regression(2)
    made.metadata(4).unlink()
    with pytest.raises(ModelLoadError, match=r"no metadata_sub-04\.npy; it has 'metadata_sub-01"):
        files.brain(4)
    for place in (tmp_path, made.folder, tmp_path / "nowhere"):
        with pytest.raises(ModelLoadError, match="berg_dir is the folder that holds encoding_mod"):
            BergFiles.open(place)
    for subject in (1, 4):
        made.weights(subject).unlink()
    with pytest.raises(ModelLoadError, match=r"no weights_sub-XX\.npy .* 'pca_weights\.npy'"):
        BergFiles.open(tmp_path / "berg")
    made.pca.unlink()
    with pytest.raises(ModelLoadError, match=r"no pca_weights\.npy; it has nothing"):
        BergFiles.open(tmp_path / "berg")
    assert MODEL_FOLDER.parts[-1] == "model-s3d"


# Arrays in the file


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f4", ">f8"])
def test_a_mapped_array_gives_memory_of_its_own(dtype: str, order: Any, tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((300, 700)).astype(dtype, order=order)
    write_npy(tmp_path / "a.npy", {"a": array})
    path = tmp_path / "a.npy"
    mapped = MappedArray(read_npy(path)["a"], path, ("a",))
    assert mapped.shape == (300, 700)
    assert mapped.dtype.isnative
    keys: list[Any] = [
        ...,
        np.s_[:, 3:90],
        np.s_[::-2, ::3],
        np.s_[[2, 5, 299]],
        np.s_[7],
        np.s_[:0],
    ]
    for key in [*keys, np.s_[7, 8], np.arange(300) % 3 == 0]:
        found = mapped[key]
        np.testing.assert_array_equal(found, array[key])
        assert found.dtype == mapped.dtype
        assert found.flags.aligned
        assert found.flags.writeable
        assert found.flags.c_contiguous


def test_another_process_finds_it_again(tmp_path: Path) -> None:
    made = write_berg_folder(tmp_path)
    files = BergFiles.open(tmp_path)
    expected = files.components().components[:, 5:9], files.regression(1).coef[:]
    sent = pickle.dumps((files, files.components(), files.regression(1)))
    assert len(sent) < 3000
    again, components, regression = pickle.loads(sent)  # noqa: S301 - our own
    np.testing.assert_array_equal(components.components[:, 5:9], expected[0])
    np.testing.assert_array_equal(regression.coef[:], expected[1])
    assert again.brain(1).n_voxels == 500
    write_berg_folder(tmp_path, n_components=19)
    with pytest.raises(CorruptWeights, match=r"or has changed: scaler_param|pca_param compon"):
        pickle.loads(sent)  # noqa: S301 - our own
    made.pca.unlink()
    with pytest.raises(ModelLoadError, match="cannot be read"):
        pickle.loads(sent)  # noqa: S301 - our own


@pytest.mark.parametrize("order", ["C", "F"])
def test_a_pass_over_all_takes_the_memory_of_a_block(order: str, tmp_path: Path) -> None:
    kind: dict[str, Any] = {"n_features": 300_000, "n_components": 100, "n_voxels": 60}
    made = write_berg_folder(tmp_path, **kind, order=order)
    assert made.pca.stat().st_size > 1.2e8
    code = f"""
from maskcube.insilico.berg_files import BergFiles
components = BergFiles.open({str(tmp_path)!r}).components().components
for start in range(0, 300_000, 20_000):
    components[:, start : start + 20_000]
"""
    assert peak_of(code) < 2**26 + 2**25


def test_the_images_of_regions_are_not_read(tmp_path: Path) -> None:
    made = write_berg_folder(tmp_path, volume=(31, 77, 61), n_voxels=54_000, n_components=1)
    assert made.metadata(1).stat().st_size > 1e8
    code = "from maskcube.insilico.berg_files import BergFiles\n"
    code += f"assert BergFiles.open({str(tmp_path)!r}).brain(1).n_voxels == 54_000"
    assert peak_of(code) < 2**26 + 2**25
