"""Stores of encoding models: what is in them, what is read of them, and what a crash leaves."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from mmap import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorstore as ts
import xarray as xr
import zarr
from berg_folder import BergFolder, write_berg_folder
from servers import SeaweedFS
from zarr.storage import MemoryStore

from maskcube import StoreExists
from maskcube.folder import Folder
from maskcube.insilico import (
    BERG,
    Brain,
    CorruptWeights,
    InvalidParameterError,
    ModelLoadError,
    Region,
    Volume,
    convert,
    encode,
    sample_model,
)
from maskcube.insilico.backbones import Pixels
from maskcube.insilico.berg_files import BergFiles
from maskcube.insilico.draft import new_model
from maskcube.insilico.model_store import ModelStore, read_root
from maskcube.insilico.projection import BLOCK_FEATURES
from maskcube.insilico.weights import Regression

MODEL = "fmri-bmd-s3d"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> BergFolder:
    return write_berg_folder(tmp_path_factory.mktemp("berg"), subjects=(1, 2))


@pytest.fixture
def store(folder: BergFolder, tmp_path: Path) -> Path:
    convert(folder.root, tmp_path / "models.zarr", progress=False)
    return tmp_path / "models.zarr"


def _tree(place: Path) -> dict[str, bytes]:
    return {
        path.relative_to(place).as_posix(): path.read_bytes()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def _same(first: Path, second: Path) -> bool:
    """Whether two stores are the same but for when they were written."""
    trees = [_tree(first), _tree(second)]
    roots = [json.loads(tree.pop("zarr.json")) for tree in trees]
    for root in roots:
        root["attributes"]["maskcube_insilico"].pop("created")
    return trees[0] == trees[1] and roots[0] == roots[1]


@pytest.mark.parametrize("layout", ["current", "old"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_store_holds_what_the_files_held(
    tmp_path: Path, dtype: str, order: str, layout: str
) -> None:
    files = write_berg_folder(tmp_path / "berg", dtype=dtype, order=order, layout=layout)
    convert(files.root, tmp_path / "models.zarr", progress=False)
    pca, weights = files.load(files.pca), files.load(files.weights(1))
    group = zarr.open_group(tmp_path / "models.zarr", mode="r")
    for name, expected in (
        ("mean", pca["scaler_param"]["mean_"]),
        ("scale", pca["scaler_param"]["scale_"]),
        ("components", pca["pca_param"]["components_"]),
        ("subject-01/coef", weights["coef_"]),
        ("subject-01/intercept", weights["intercept_"]),
    ):
        array = group[name]
        assert isinstance(array, zarr.Array)
        np.testing.assert_array_equal(array[...], expected, strict=True)
    read, made = BERG(files.root), BERG(tmp_path / "models.zarr")
    first, second = (each.get_model_metadata(MODEL, subject=1) for each in (read, made))
    assert np.array_equal(
        first["fmri"]["sub_mask_affine"], second["fmri"]["sub_mask_affine"], equal_nan=True
    )
    for name, values in first["encoding_models"].items():
        np.testing.assert_array_equal(values, second["encoding_models"][name], strict=True)


def test_any_reader_opens_it(store: Path) -> None:
    ours = ModelStore.open(store).components().components[:, :]
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str(store / "components")},
    }
    np.testing.assert_array_equal(ts.open(spec).result().read().result(), ours)
    with xr.open_zarr(store, consolidated=True, chunks=None) as opened:
        assert dict(opened.sizes) == {"feature": ours.shape[1], "component": ours.shape[0]}
        np.testing.assert_array_equal(opened.components, ours)
    with xr.open_zarr(store, group="subject-02", chunks=None) as opened:
        assert opened.coef.dims == ("voxel", "component")


class _Counting(Folder):
    """A folder that knows what was read of it."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.read: Counter[str] = Counter()

    def get(self, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        self.read[key.partition("/c/")[0]] += 1
        return super().get(key, start, length)

    def map(self, key: str) -> mmap | bytes | None:
        self.read[key.partition("/c/")[0]] += 1
        return super().map(key)


def _opened(objects: Folder) -> ModelStore:
    root = read_root(objects)
    assert root is not None
    return ModelStore(objects, root)


def test_only_what_is_asked_for_is_read(tmp_path: Path) -> None:
    n_features, n_voxels = 2 * BLOCK_FEATURES + 5, 5000
    random = np.random.default_rng(1)
    with new_model(tmp_path / "wide", {}, shape=(4, n_features), backbone="pixels") as draft:
        for block in draft.blocks:
            width = block.stop - block.start
            ones = np.ones(width, "f4")
            draft.put_block(block, ones, ones, random.random((4, width), "f4"))
        coef = random.random((n_voxels, 4), "f4")
        draft.put_subject(1, Regression(coef, coef[:, 0]), None)
    objects = _Counting(tmp_path / "wide")
    opened = _opened(objects)
    objects.read.clear()
    regression = opened.regression(1)
    components = opened.components()
    assert not [key for key in objects.read if not key.endswith("zarr.json")]
    rows = np.array([10, 700, 1023, 4999])
    np.testing.assert_array_equal(regression.coef[rows], coef[rows])
    assert objects.read["subject-01/coef"] == 2
    block = components.components[:, BLOCK_FEATURES : 2 * BLOCK_FEATURES]
    assert block.shape == (4, BLOCK_FEATURES)
    assert objects.read["components"] == 1
    across = components.components[:, BLOCK_FEATURES - 3 : BLOCK_FEATURES + 2]
    whole = zarr.open_group(tmp_path / "wide", mode="r")["components"]
    assert isinstance(whole, zarr.Array)
    np.testing.assert_array_equal(across, whole[:, BLOCK_FEATURES - 3 : BLOCK_FEATURES + 2])
    np.testing.assert_array_equal(components.components[1:3, -2:], whole[1:3, -2:])


def test_one_pass_reads_each_block_once_for_all_videos(store: Path) -> None:
    objects = _Counting(store)
    berg = BERG(store)
    berg._weights = _opened(objects)  # noqa: SLF001 - to count
    model = berg.get_encoding_model(MODEL, subject=1)
    objects.read.clear()
    features = np.random.default_rng(0).random((300, model.n_features), "f4")
    model.encode(features)
    assert objects.read == {"mean": 1, "scale": 1, "components": 1}
    cached = berg.get_encoding_model(MODEL, subject=1, cache=True)
    objects.read.clear()
    np.testing.assert_array_equal(cached.encode(features), cached.encode(features))
    assert objects.read == {"mean": 1, "scale": 1, "components": 1}
    # 4 bytes a feature: room for ten videos at a time is thirty passes.
    tight = berg.get_encoding_model(MODEL, subject=1, memory=40 * model.n_features)
    objects.read.clear()
    whole = model.encode(features)
    objects.read.clear()
    np.testing.assert_allclose(tight.encode(features), whole, atol=5e-5 * whole.std())
    assert objects.read["components"] == 30


def test_it_may_be_rewritten_in_another_layout(store: Path, tmp_path: Path) -> None:
    """Somebody may compress it, or choose other chunks: zarr reads it then."""
    before = encode(BERG(store).get_encoding_model(MODEL, subject=1), np.eye(20, dtype="f4"))
    group = zarr.open_group(store)
    for name in ("components", "subject-01/coef"):
        old = group[name]
        assert isinstance(old, zarr.Array)
        values = np.asarray(old[...])
        group.create_array(name, data=values, chunks=(7, 13), overwrite=True)
    zarr.consolidate_metadata(store)
    model = BERG(store).get_encoding_model(MODEL, subject=1, selection={"roi": "rFFA"})
    after = encode(model, np.eye(20, dtype="f4"))
    np.testing.assert_array_equal(after, before.sel(roi="rFFA"))
    shutil.rmtree(tmp_path / "models.zarr")


@pytest.mark.parametrize("place", ["memory", "path", "url"])
def test_a_store_may_be_anywhere(folder: BergFolder, tmp_path: Path, place: str) -> None:
    given: Any = {
        "memory": MemoryStore(),
        "path": str(tmp_path / "a" / "b.zarr"),
        "url": (tmp_path / "c.zarr").as_uri(),
    }[place]
    report = convert(folder.root, given, subject=2, progress=False)
    assert report.subjects == (2,)
    assert report.n_voxels == {2: BERG(given).get_encoding_model(MODEL, subject=2).n_voxels}
    assert "subject 2" in str(report)
    assert json.loads(json.dumps(report.to_json()))["n_components"] == 20


def test_a_store_may_be_in_a_bucket(folder: BergFolder, seaweed: SeaweedFS) -> None:
    bucket = seaweed.new_bucket()
    url = f"s3://{bucket}/models.zarr"
    convert(folder.root, url, subject=1, storage_options=seaweed.options, progress=False)
    convert(folder.root, url, subject=2, storage_options=seaweed.options, progress=False)
    there = BERG(url, storage_options=seaweed.options)
    here = BERG(folder.root)
    scores = np.random.default_rng(0).random((2, 20), "f4")
    for subject in (1, 2):
        found, expected = (
            encode(berg.get_encoding_model(MODEL, subject=subject), scores)
            for berg in (there, here)
        )
        xr.testing.assert_identical(found, expected)


def test_subjects_are_added_and_the_rest_stays(
    folder: BergFolder, store: Path, tmp_path: Path
) -> None:
    one = tmp_path / "one.zarr"
    assert convert(folder.root, one, subject=1, progress=False).n_kept == 0
    report = convert(folder.root, one, subject=[2], progress=False)
    assert report.subjects == (1, 2)
    assert report.n_kept >= 3
    assert _same(one, store)
    before = _tree(one)
    again = convert(folder.root, one, progress=False)
    assert again.n_kept > 10
    after = _tree(one)
    assert {key for key in after if after[key] != before[key]} <= {"zarr.json"}


def test_words_of_another_zarr_are_no_other_model(folder: BergFolder, tmp_path: Path) -> None:
    place = tmp_path / "models.zarr"
    convert(folder.root, place, subject=1, progress=False)
    root = json.loads((place / "zarr.json").read_text())
    for document in root["consolidated_metadata"]["metadata"].values():
        document["storage_transformers"] = []
        document.pop("node_type")
    (place / "zarr.json").write_text(json.dumps(root))
    for path in place.rglob("*/zarr.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=1))
    assert convert(folder.root, place, progress=False).subjects == (1, 2)
    group = zarr.open_group(place / "subject-01")
    group.attrs["affine"] = np.eye(4).tolist()
    zarr.consolidate_metadata(place)
    with pytest.raises(StoreExists, match="has subject-01 already"):
        convert(folder.root, place, subject=1, progress=False)


@pytest.mark.parametrize("subject", [3, [1, 3], "1", [], True, 1.5])
def test_a_subject_that_there_is_not_is_refused(
    folder: BergFolder, tmp_path: Path, subject: Any
) -> None:
    with pytest.raises(InvalidParameterError, match=r"has \[1, 2\]"):
        convert(folder.root, tmp_path / "models.zarr", subject=subject, progress=False)
    assert not (tmp_path / "models.zarr").exists()


def test_other_components_are_refused_or_replace(
    folder: BergFolder, store: Path, tmp_path: Path
) -> None:
    other = write_berg_folder(tmp_path / "other", seed=9)
    before = _tree(store)
    with pytest.raises(StoreExists, match="overwrite=True would replace it"):
        convert(other.root, store, progress=False)
    assert _tree(store) == before
    convert(other.root, store, overwrite=True, progress=False)
    assert BERG(store).get_encoding_model(MODEL, subject=1).n_voxels == 500
    with pytest.raises(InvalidParameterError, match="subject=2"):
        BERG(store).get_encoding_model(MODEL, subject=2)
    convert(folder.root, store, overwrite=True, progress=False)
    assert {key: value for key, value in _tree(store).items() if key != "zarr.json"} == {
        key: value for key, value in before.items() if key != "zarr.json"
    }


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["thesis.txt", "zarr.json", "_maskcube/other.json"])
def test_what_is_something_else_is_never_touched(
    folder: BergFolder, tmp_path: Path, name: str, *, overwrite: bool
) -> None:
    place = tmp_path / "taken"
    (place / name).parent.mkdir(parents=True)
    (place / name).write_text("{}")
    with pytest.raises(StoreExists, match="no store of encoding models"):
        convert(folder.root, place, overwrite=overwrite, progress=False)
    assert _tree(place) == {name: b"{}"}


def test_a_mask_store_is_never_touched(
    folder: BergFolder, small_store: Path, tmp_path: Path
) -> None:
    place = tmp_path / "masks.zarr"
    shutil.copytree(small_store, place)
    before = _tree(place)
    with pytest.raises(StoreExists):
        convert(folder.root, place, overwrite=True, progress=False)
    assert _tree(place) == before


def test_what_lies_beside_a_model_outlives_its_replacement(store: Path, tmp_path: Path) -> None:
    mine = ("notes.txt", "subject-01/notes.txt", "results/c/0", "subject-01/mean.csv")
    for name in mine:
        (store / name).parent.mkdir(parents=True, exist_ok=True)
        (store / name).write_text(name)
    other = write_berg_folder(tmp_path / "other", seed=9)
    convert(other.root, store, overwrite=True, progress=False)
    left = _tree(store)
    assert {name: left.get(name) for name in mine} == {name: name.encode() for name in mine}
    assert not (store / "subject-02" / "zarr.json").exists()
    assert BERG(store).get_encoding_model(MODEL, subject=1).n_voxels == 500


@pytest.mark.parametrize("plan", [b'{"source": "masks.hdf5"}', b"", b"[", b"null"])
def test_what_another_run_has_begun_is_never_touched(
    folder: BergFolder, tmp_path: Path, plan: bytes
) -> None:
    """Conversions of masks have their plan in the same place."""
    place = tmp_path / "begun"
    (place / "_maskcube").mkdir(parents=True)
    (place / "_maskcube" / "plan.json").write_bytes(plan)
    (place / "masks").write_text("precious")
    before = _tree(place)
    for overwrite in (False, True):
        with pytest.raises(StoreExists, match="no store of encoding models"):
            convert(folder.root, place, overwrite=overwrite, progress=False)
    assert _tree(place) == before


def test_a_run_killed_in_its_first_write_is_begun_again(folder: BergFolder, tmp_path: Path) -> None:
    left = tmp_path / "models.zarr" / "_maskcube" / ("0f" * 16)
    left.parent.mkdir(parents=True)
    left.write_bytes(b"{")
    convert(folder.root, tmp_path / "models.zarr", subject=1, progress=False)
    assert not left.exists()


def test_a_run_killed_while_it_deletes_is_taken_up(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_berg_folder(tmp_path / "other", seed=9)
    delete = Folder.delete

    def delete_root(self: Folder, *keys: str) -> None:
        delete(self, *keys[:1])
        if keys != ("zarr.json",):
            raise _Crash

    with monkeypatch.context() as patched:
        patched.setattr(Folder, "delete", delete_root)
        with pytest.raises(_Crash):
            convert(other.root, store, overwrite=True, progress=False)
    with pytest.raises(ModelLoadError, match="interrupted"):
        BERG(store)
    convert(other.root, store, overwrite=True, progress=False)
    assert BERG(store).get_encoding_model(MODEL, subject=1).n_voxels == 500


def test_what_is_complete_never_changes_in_place(tmp_path: Path) -> None:
    """Killed meanwhile, it would be made of both, and nobody could tell."""

    def write(coef: float, scale: float = 1, *, overwrite: bool = False) -> None:
        with new_model(tmp_path / "m", {}, shape=(2, 5), overwrite=overwrite) as draft:
            ones = np.ones(5, "f4")
            draft.put_block(draft.blocks[0], ones, scale * ones, np.ones((2, 5), "f4"))
            draft.put_subject(1, Regression(np.full((8, 2), coef, "f4"), np.zeros(8, "f4")), None)

    write(1)
    before = _tree(tmp_path / "m")
    for other in ((2, 1), (1, 2)):
        with pytest.raises(StoreExists, match="made of something else; overwrite=True"):
            write(*other)
        after = _tree(tmp_path / "m")
        after.pop("_maskcube/plan.json")
        assert after == before
    (tmp_path / "m" / "subject-01" / "coef" / "c" / "0" / "0").unlink()
    write(1)
    write(2, overwrite=True)
    model = BERG(tmp_path / "m").get_encoding_model(MODEL, subject=1)
    assert model.encode(np.ones((1, 2), "f4")).tolist() == [[4.0] * 8]


@pytest.mark.parametrize("affines", [(2.5, 3.5)])
def test_metadata_of_a_killed_run_is_replaced_where_it_differs(
    tmp_path: Path, affines: tuple[float, float]
) -> None:
    """A document of the same length may end alike: only chunks end with a checksum."""
    for size, error in zip(affines, (_Crash, None), strict=True):
        volume = Volume(np.ones((2, 2, 2), bool), np.diag([size, size, size, 1]))
        with suppress(_Crash), new_model(tmp_path / "m", {}, shape=(2, 5)) as draft:
            ones = np.ones((2, 5), "f4")
            draft.put_block(draft.blocks[0], ones[0], ones[0], ones)
            regression = Regression(np.ones((8, 2), "f4"), np.zeros(8, "f4"))
            draft.put_subject(1, regression, Brain(volume, volume))
            if error is not None:
                raise error
    said = json.loads((tmp_path / "m" / "subject-01" / "zarr.json").read_text())
    assert said["attributes"]["affine"][0][0] == affines[1]


def test_nothing_is_added_to_a_store_that_lost_its_metadata(
    folder: BergFolder, tmp_path: Path
) -> None:
    place = tmp_path / "one.zarr"
    convert(folder.root, place, subject=1, progress=False)
    root = json.loads((place / "zarr.json").read_text())
    root["consolidated_metadata"] = None
    (place / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(CorruptWeights, match="nothing can be added"):
        convert(folder.root, place, subject=2, progress=False)


@pytest.mark.parametrize("kind", ["regions", "measures"])
@pytest.mark.parametrize("name", ["left V1", "../up", "i", "lV1v", "\n"])
def test_names_that_no_coordinate_can_have_are_refused(
    tmp_path: Path, name: str, kind: str
) -> None:
    volume = Volume(np.ones((2, 2, 2), bool), np.eye(4))
    regions = {"lV1v": Region(np.zeros((1, 3), int), np.zeros(1, int))}
    measures = {"r2": np.zeros(8, "f4")}
    if kind == "regions":
        regions[name], measures["lV1v"] = regions["lV1v"], measures["r2"]
    else:
        measures[name] = measures["r2"]
    ones = np.ones((2, 5), "f4")
    with new_model(tmp_path / "m", {}, shape=(2, 5)) as draft:
        draft.put_block(draft.blocks[0], ones[0], ones[0], ones)
        regression = Regression(np.ones((8, 2), "f4"), np.zeros(8, "f4"))
        draft.put_subject(1, regression, Brain(volume, volume, regions, measures))
    with pytest.raises(CorruptWeights, match="are called"):
        BERG(tmp_path / "m").get_model_metadata(MODEL, subject=1)


@pytest.mark.parametrize(
    ("path", "field", "value"),
    [
        ("subject-01/coef", "codecs", [{"name": "bytes", "configuration": {"endian": "little"}}]),
        ("subject-01/mask", "shape", [12, 14, 2**63]),
        ("subject-01/region", "shape", [2**63]),
        ("subject-01/region_size", "fill_value", 10**40),
        ("subject-01/coef", "shape", [2**22, 20]),
        ("subject-01/region_indices", "data_type", "float64"),
    ],
)
def test_metadata_of_an_array_that_is_not_there_is_corrupt(
    store: Path, path: str, field: str, value: Any
) -> None:
    root = json.loads((store / "zarr.json").read_text())
    root["consolidated_metadata"]["metadata"][path][field] = value
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(CorruptWeights):
        _ = BERG(store).get_encoding_model(MODEL, subject=1).coords


def test_coefficients_that_no_memory_holds_are_refused(store: Path) -> None:
    """A kilobyte of metadata may promise terabytes of the fill value."""
    root = json.loads((store / "zarr.json").read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    n_voxels, n_components = 2**22, 2**14
    for path, shape in (
        ("components", [n_components, 2688]),
        ("subject-01/coef", [n_voxels, n_components]),
        ("subject-01/intercept", [n_voxels]),
    ):
        nodes[path]["shape"] = shape
        nodes[path]["codecs"] = nodes[path]["codecs"][:1]
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(CorruptWeights, match="subject-01/coef is"):
        BERG(store).get_encoding_model(MODEL, subject=1)


@pytest.mark.parametrize("number", [10**400, "x", [1]])
def test_an_affine_that_is_none_is_corrupt(store: Path, number: Any) -> None:
    root = json.loads((store / "zarr.json").read_text())
    nodes = root["consolidated_metadata"]["metadata"]
    nodes["subject-01"]["attributes"]["affine"][2][1] = number
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(CorruptWeights, match="subject-01 cannot be read"):
        BERG(store).get_model_metadata(MODEL, subject=1)


class _Crash(BaseException):
    """What no code expects."""


def test_a_crash_at_any_write_leaves_no_half_model(
    folder: BergFolder, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Folder.put
    left = 0

    def put_some(self: Folder, key: str, data: bytes) -> None:
        nonlocal left
        if left == 0:
            raise _Crash
        left -= 1
        put(self, key, data)

    monkeypatch.setattr(Folder, "put", put_some)
    place = tmp_path / "crashed.zarr"
    n_crashes = 0
    while True:
        left = n_crashes
        try:
            convert(folder.root, place, progress=False)
        except _Crash:
            n_crashes += 1
            assert not (place / "zarr.json").exists()
            with pytest.raises((ModelLoadError, FileNotFoundError)):
                BERG(place)
            if n_crashes % 2:  # every other run goes on over what the one before has left
                shutil.rmtree(place, ignore_errors=True)
        else:
            break
    assert n_crashes > 20
    assert _same(place, store)


def test_a_killed_conversion_goes_on(tmp_path: Path) -> None:
    files = write_berg_folder(tmp_path / "berg", n_features=20 * BLOCK_FEATURES, n_components=20)
    place = tmp_path / "models.zarr"
    code = (
        "from maskcube.insilico import convert;"
        f"convert({str(files.root)!r}, {str(place)!r}, progress=False)"
    )
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        third = place / "components" / "c" / "0" / "3"
        while not third.exists() and process.poll() is None:
            time.sleep(0.001)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert not (place / "zarr.json").exists()
    with pytest.raises(ModelLoadError, match="interrupted is finished by the same command"):
        BERG(place)
    report = convert(files.root, place, progress=False)
    assert report.n_kept >= 9
    expected = files.load(files.pca)["pca_param"]["components_"]
    np.testing.assert_array_equal(ModelStore.open(place).components().components[:, :], expected)
    assert not (place / "_maskcube").exists()


def test_two_do_not_write_at_once(folder: BergFolder, tmp_path: Path) -> None:
    place = tmp_path / "models.zarr"
    with new_model(place, {"own": 1}, shape=(2, 3), backbone="pixels") as draft:
        with pytest.raises(StoreExists, match="another process"):
            convert(folder.root, place, overwrite=True, progress=False)
        ones = np.ones(3, "f4")
        draft.put_block(draft.blocks[0], ones, ones, np.ones((2, 3), "f4"))
    assert ModelStore.open(place).components().components.shape == (2, 3)


def test_a_crash_while_an_old_store_is_deleted_is_no_dead_end(
    folder: BergFolder, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write_berg_folder(tmp_path / "other", seed=9)
    expected = tmp_path / "expected.zarr"
    convert(other.root, expected, progress=False)
    delete = Folder.delete

    def delete_some(self: Folder, *keys: str) -> None:
        delete(self, *keys[: len(keys) // 2 or 1])
        if len(keys) > 1:
            raise _Crash

    monkeypatch.setattr(Folder, "delete", delete_some)
    with pytest.raises(_Crash):
        convert(other.root, store, overwrite=True, progress=False)
    monkeypatch.undo()
    with pytest.raises(StoreExists, match="half of one"):
        convert(folder.root, store, progress=False)
    convert(other.root, store, overwrite=True, progress=False)
    assert _same(store, expected)


def test_metadata_of_a_killed_run_are_written_anew(folder: BergFolder, tmp_path: Path) -> None:
    brain = BergFiles.open(folder.root).brain(1)
    ones = np.ones(2688, "f4")
    rows = Regression(np.ones((brain.n_voxels, 2), "f4"), np.ones(brain.n_voxels, "f4"))
    place = tmp_path / "m"

    def write(affine: np.ndarray[Any, Any]) -> None:
        with new_model(place, {}, shape=(2, 2688), backbone="pixels") as draft:
            draft.put_block(draft.blocks[0], ones, ones, np.ones((2, 2688), "f4"))
            moved = replace(brain, voxels=replace(brain.voxels, affine=affine))
            draft.put_subject(1, rows, moved)
            if affine[0, 3]:
                raise _Crash

    first = np.eye(4)
    first[0, 3] = 5  # as many characters as 0
    with pytest.raises(_Crash):
        write(first)
    write(np.eye(4))
    said = json.loads((place / "subject-01" / "zarr.json").read_text())["attributes"]
    assert said["affine"] == np.eye(4).tolist()


def test_who_was_overtaken_does_not_end_what_another_has_begun() -> None:
    ones = np.ones(3, "f4")
    memory = MemoryStore()

    def write(subject: int, meanwhile: Callable[[], None]) -> None:
        with new_model(memory, {}, shape=(2, 3), backbone="pixels") as draft:
            draft.put_block(draft.blocks[0], ones, ones, np.ones((2, 3), "f4"))
            rows = Regression(np.ones((5, 2), "f4"), np.ones(5, "f4"))
            draft.put_subject(subject, rows, None)
            meanwhile()

    with pytest.raises(StoreExists, match="another process has written to it meanwhile"):
        write(1, lambda: write(2, lambda: None))
    assert ModelStore.open(memory).subjects == (2,)
    write(1, lambda: None)
    assert ModelStore.open(memory).subjects == (1, 2)


def test_regions_of_a_long_volume_stay_where_they_are(tmp_path: Path) -> None:
    mask = np.zeros((70_000, 1, 1), bool)
    mask[-5:] = True
    volume = Volume(mask, np.eye(4))
    brain = Brain(volume, volume)
    brain = replace(brain, regions={"end": Region(brain.indices, np.arange(5))})
    ones = np.ones(3, "f4")
    with new_model(tmp_path / "m", {}, shape=(2, 3), backbone="pixels") as draft:
        draft.put_block(draft.blocks[0], ones, ones, np.ones((2, 3), "f4"))
        draft.put_subject(1, Regression(np.ones((5, 2), "f4"), np.ones(5, "f4")), brain)
    model = BERG(tmp_path / "m").get_encoding_model(MODEL, subject=1, selection={"roi": "end"})
    assert model.coords["i"].values.tolist() == brain.indices[:, 0].tolist()


def test_a_model_without_a_brain_has_numbers_for_voxels(tmp_path: Path) -> None:
    with new_model(tmp_path / "m", {}, shape=(2, 2688), backbone="pixels") as draft:
        ones = np.ones(2688, "f4")
        draft.put_block(draft.blocks[0], ones, ones, np.ones((2, 2688), "f4"))
        draft.put_subject(7, Regression(np.ones((5, 2), "f4"), np.ones(5, "f4")), None)
    berg = BERG(tmp_path / "m")
    model = berg.get_encoding_model(MODEL, subject=7, selection={"voxels": [0, 1, 0, 0, 1]})
    assert encode(model, np.ones((1, 2), "f4")).voxel.values.tolist() == [1, 4]
    with pytest.raises(InvalidParameterError, match="knows no regions"):
        berg.get_encoding_model(MODEL, subject=7, selection={"roi": "lV1v"})
    with pytest.raises(InvalidParameterError, match="without a brain"):
        berg.get_model_metadata(MODEL, subject=7)


@pytest.mark.parametrize(
    "key", ["components/c/0/0", "mean/c/0", "scale/c/0", "subject-01/coef/c/0/0"]
)
@pytest.mark.parametrize("damage", ["flipped", "short", "long", "missing", "empty"])
def test_a_damaged_piece_is_named(store: Path, key: str, damage: str) -> None:
    path = store / key
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    changed: dict[str, bytes | bytearray] = {"flipped": data, "empty": b""}
    changed |= {"short": data[:-9], "long": data + b"x"}
    path.unlink()
    if damage in changed:
        path.write_bytes(changed[damage])
    with pytest.raises(CorruptWeights, match=key):
        BERG(store).get_encoding_model(MODEL, subject=1).encode(np.ones((1, 2688), "f4"))


def _with(root: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split(".")
    place: Any = root
    for each in parents:
        place = place[each]
    if value is None:
        del place[last]
    else:
        place[last] = value


_SAID = "attributes.maskcube_insilico"
_NODES = "consolidated_metadata.metadata"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{_SAID}.format_version", 2),
        (f"{_SAID}.subjects", "12"),
        (f"{_SAID}.subjects", [1, "../2"]),
        (f"{_SAID}.backbone", 3),
        (f"{_NODES}.components.shape", [20, 2**40]),
        (f"{_NODES}.components.shape", [2**40, 2688]),
        (f"{_NODES}.components.shape", [20]),
        (f"{_NODES}.components.data_type", "int32"),
        (f"{_NODES}.components", None),
        (f"{_NODES}.components", "x"),
        (f"{_NODES}.mean.shape", [2687]),
        (f"{_NODES}.subject-01/coef.shape", [500, 21]),
        (f"{_NODES}.subject-01/coef.shape", [0, 20]),
        (f"{_NODES}.subject-01/intercept", None),
    ],
)
def test_metadata_that_lies_is_refused(store: Path, path: str, value: object) -> None:
    root = json.loads((store / "zarr.json").read_text())
    _with(root, path.replace("subject-01/coef", "subject-01/coef"), value)
    (store / "zarr.json").write_text(json.dumps(root))
    with pytest.raises((CorruptWeights, InvalidParameterError)) as caught:
        BERG(store).get_encoding_model(MODEL, subject=1).encode(np.ones((1, 2688), "f4"))
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("region_indices", np.full((3, 3), 99, "i2")),
        ("region_size", np.array([-1, 4], "i8")),
        ("mask", np.zeros((3, 3), bool)),
        ("mask", np.zeros((12, 14, 10), bool)),
        ("measures", np.zeros((2, 3), "f4")),
    ],
)
def test_a_brain_that_lies_is_refused(store: Path, name: str, value: Any) -> None:
    zarr.open_group(store / "subject-01").create_array(name, data=value, overwrite=True)
    zarr.consolidate_metadata(store)
    with pytest.raises(CorruptWeights, match="subject-01"):
        BERG(store).get_model_metadata(MODEL, subject=1)


@pytest.mark.parametrize(("mean", "scale", "value"), [(np.nan, 1, 1), (0, 0, 1), (0, 1, np.inf)])
def test_values_that_are_no_numbers_are_told(
    tmp_path: Path, mean: float, scale: float, value: float
) -> None:
    with new_model(tmp_path / "m", {}, shape=(2, 2688), backbone="pixels") as draft:
        row = np.full(2688, value, "f4")
        ones = np.ones(2688, "f4")
        draft.put_block(draft.blocks[0], ones * mean, ones * scale, np.stack([row, row]))
        draft.put_subject(1, Regression(np.ones((5, 2), "f4"), np.ones(5, "f4")), None)
    model = BERG(tmp_path / "m").get_encoding_model(MODEL, subject=1)
    with pytest.raises(CorruptWeights, match="not finite, or scales of 0"):
        model.encode(np.ones((1, 2688), "f4"))


def test_an_unknown_backbone_is_told_when_it_is_needed(store: Path) -> None:
    root = json.loads((store / "zarr.json").read_text())
    _with(root, f"{_SAID}.backbone", "os.system")
    (store / "zarr.json").write_text(json.dumps(root))
    model = BERG(store).get_encoding_model(MODEL, subject=1)
    assert model.encode(np.ones((1, 2688), "f4")).shape == (1, 500)
    with pytest.raises(InvalidParameterError, match=r"'os.system', and there are 'pixels', 's3d'"):
        model.encode(np.zeros((1, 14, 3, 8, 8), "u1"))


def test_models_travel(store: Path) -> None:
    videos = np.random.default_rng(0).integers(0, 256, (4, 14, 3, 16, 16), np.uint8)
    model = BERG(store).get_encoding_model(MODEL, subject=1, selection={"roi": "lV1v"})
    expected = model.encode(videos)
    copied = pickle.loads(pickle.dumps(model))  # noqa: S301 - our own
    np.testing.assert_array_equal(copied.encode(videos), expected)
    lazy = encode(model, videos, chunks=2)
    for scheduler in ("threads", "processes", "synchronous"):
        computed = lazy.compute(scheduler=scheduler)
        np.testing.assert_allclose(computed, expected, atol=1e-5)


def test_threads_ask_a_model_one_after_the_other(store: Path) -> None:
    inside: list[int] = []
    most = 0

    class Watched(Pixels):
        def __call__(self, videos: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
            nonlocal most
            inside.append(len(videos))
            most = max(most, len(inside))
            time.sleep(0.01)
            found = super().__call__(videos)
            inside.pop()
            return found

    videos = np.random.default_rng(0).integers(0, 256, (8, 14, 3, 16, 16), np.uint8)
    model = BERG(store).get_encoding_model(MODEL, subject=1, backbone=Watched())
    encode(model, videos, chunks=1).compute(scheduler="threads", num_workers=8)
    assert most == 1


def test_a_sample_is_a_model(tmp_path: Path) -> None:
    place = sample_model(tmp_path / "sample.zarr")
    with pytest.raises(StoreExists):
        sample_model(place, n_subjects=2)
    assert repr(BERG(sample_model(place, n_subjects=2, overwrite=True))).endswith("[1, 2])")
