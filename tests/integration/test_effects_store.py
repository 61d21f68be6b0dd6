"""Effects in a store: resumed wherever it was killed, refused where it is another question."""

from __future__ import annotations

import fcntl
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from forks import Forks, Strike, crash
from responders import Answers, expected, masks_of, pictures_of, write
from servers import SeaweedFS
from zarr.storage import MemoryStore

import maskcube
from maskcube.errors import InvalidOption, NotAMaskStore, StoreExists
from maskcube.insilico import BERG, object_effects, sample_model, to_nifti

SIZE = (4, 5)
PLAN = "_maskcube/plan.json"
LONG = [pytest.mark.slow, pytest.mark.timeout(900)]  # also where others keep the machine busy


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture
def masks() -> xr.DataArray:
    return masks_of().set_xindex(["image", "noun", "instance"], maskcube.MaskIndex)


@pytest.fixture
def images(masks: xr.DataArray) -> dict[str, Any]:
    return pictures_of(masks["image"].values.tolist(), SIZE)


@pytest.fixture
def answers(masks: xr.DataArray, images: dict[str, Any]) -> Any:
    return expected(images, masks["image"].values.tolist(), masks.values, Answers().answer)


@pytest.fixture
def ask(masks: xr.DataArray, images: dict[str, Any]) -> Callable[..., xr.DataArray]:
    """Return what writes to a store, and takes changes of the question."""

    def asked(store: Any, **changes: Any) -> xr.DataArray:
        given = {"images": images, "masks": masks, "model": Answers(), "progress": False, **changes}
        three = [given.pop(name) for name in ("images", "masks", "model")]
        return object_effects(*three, store=store, **given)

    return asked


def opened(place: Any) -> xr.Dataset:
    """Open what is at a place with xarray alone."""
    found: xr.Dataset = xr.open_zarr(place, chunks=None)
    return found


def tree(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_store_is_what_was_asked(
    ask: Any, masks: xr.DataArray, answers: Any, tmp_path: Path
) -> None:
    model = Answers()
    place = tmp_path / "new" / "effects.zarr"
    effects = ask(place, model=model)
    assert model.n_encoded == 2 * 6 + 3
    np.testing.assert_array_equal(effects.values, answers)
    np.testing.assert_array_equal(effects.sel(noun="hand").values, answers[::2])
    assert model.n_encoded == 2 * 6 + 3
    assert effects.chunks is not None
    found = opened(place)
    np.testing.assert_array_equal(found["response"].values, answers)
    for name in ("image", "noun", "instance", "condition", "voxel"):
        assert found[name].values.tolist() == effects[name].values.tolist()
    again = found["response"].set_xindex(["image", "noun", "instance"], maskcube.MaskIndex)
    assert again.xindexes["noun"].equals(masks.xindexes["noun"])
    assert again.attrs == effects.attrs
    array = zarr.open_array(place, path="response", mode="r")
    np.testing.assert_array_equal(np.asarray(array[:]), answers)
    # Nothing but arrays is left, neither there nor beside it.
    assert {path.name for path in place.iterdir()} == {"zarr.json", *found.variables}
    assert [path.name for path in place.parent.iterdir()] == ["effects.zarr"]


def test_all_coordinates_of_a_store_of_masks(small_store: Path, tmp_path: Path, ask: Any) -> None:
    of_store = maskcube.open_masks(small_store)
    images = pictures_of(of_store["image"].values.tolist(), (24, 20))
    effects = ask(tmp_path / "effects.zarr", masks=of_store, images=images)
    found = opened(tmp_path / "effects.zarr")
    for name in of_store.coords:
        np.testing.assert_array_equal(found[name].values, of_store[name].values)
        np.testing.assert_array_equal(effects[name].values, of_store[name].values)


def test_what_a_model_says_need_not_be_json(ask: Any, tmp_path: Path) -> None:
    model = Answers()
    model.attributes = {  # type: ignore[attr-defined]
        "subject": np.int64(3),
        "mean": np.zeros(2),
        "nothing": float("nan"),
        "key": b"x",
        "shape": (2, 3),
    }
    ask(tmp_path / "effects.zarr", model=model)
    said = opened(tmp_path / "effects.zarr")["response"].attrs
    assert [said[name] for name in ("subject", "mean", "shape")] == [3, [0, 0], [2, 3]]
    assert [said[name] for name in ("nothing", "key")] == ["nan", "b'x'"]


def test_voxels_of_a_brain_come_back(tmp_path: Path, ask: Any, masks: xr.DataArray) -> None:
    model = BERG(sample_model(tmp_path / "models.zarr")).get_encoding_model(
        "fmri-bmd-s3d", subject=1
    )
    # The model sees an 8 x 8 grid.
    square = xr.concat([xr.concat([masks] * 2, "x")] * 3, "y")[:, :10, :10]
    images = pictures_of(masks["image"].values.tolist(), (10, 10))
    effects = ask(tmp_path / "effects.zarr", masks=square, images=images, model=model)
    lazy = object_effects(images, square, model)
    np.testing.assert_allclose(effects.values, lazy.values, atol=5e-5 * float(lazy.std()))
    assert effects.sel(roi="lV1v").sizes["voxel"] == lazy.sel(roi="lV1v").sizes["voxel"]
    found = opened(tmp_path / "effects.zarr")
    for name in effects.coords:
        assert found[name].dims == effects[name].dims
        assert found[name].values.tolist() == effects[name].values.tolist()
    assert to_nifti(found["response"][0]).shape == (12, 14, 10, 3)


@pytest.mark.parametrize("kind", ["memory", "url", "file"])
def test_places(ask: Any, answers: Any, tmp_path: Path, kind: str) -> None:
    place: Any = {
        "memory": MemoryStore(),
        "url": f"memory://{tmp_path.name}",
        "file": f"file://{tmp_path}/effects.zarr",
    }[kind]
    model = Answers()
    np.testing.assert_array_equal(ask(place, model=model).values, answers)
    assert ask(place, model=model).shape == answers.shape
    assert model.n_encoded == 15 + 1
    with pytest.raises(StoreExists, match=r"fill is \[128, 128, 128\], asked for \[0, 0, 0\]"):
        ask(place, fill=0)
    assert (ask(place, fill=0, overwrite=True).values != answers).any()


@pytest.mark.parametrize("rows", [slice(0), slice(1), slice(5, 6)])
def test_few_masks(
    ask: Any, masks: xr.DataArray, answers: Any, tmp_path: Path, rows: slice
) -> None:
    effects = ask(tmp_path / "effects.zarr", masks=masks[rows])
    np.testing.assert_array_equal(effects.values, answers[rows])
    assert opened(tmp_path / "effects.zarr").sizes["mask"] == len(answers[rows])


def test_the_same_call_opens_what_is_finished(ask: Any, answers: Any, tmp_path: Path) -> None:
    ask(tmp_path / "effects.zarr")
    before, model = tree(tmp_path), Answers()
    np.testing.assert_array_equal(ask(tmp_path / "effects.zarr", model=model).values, answers)
    # One response tells whether it is the same model.
    assert model.n_encoded == 1
    assert tree(tmp_path) == before


def test_a_missing_or_damaged_chunk_is_encoded_again(
    ask: Any, answers: Any, tmp_path: Path
) -> None:
    place = tmp_path / "effects.zarr"
    ask(place)
    whole = tree(place)
    (place / "response/c/3/0/0").unlink()
    damaged = place / "response/c/0/0/0"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"x")
    model = Answers()
    np.testing.assert_array_equal(ask(place, model=model).values, answers)
    assert model.n_encoded == 1 + 2 * 3
    assert tree(place) == whole


class Failing(Answers):
    """A model that fails after so many calls."""

    def __init__(self, n_calls: int = 5) -> None:
        super().__init__()
        self._n_calls = n_calls

    def encode(self, stimulus: Any) -> Any:
        if len(self.calls) == self._n_calls:
            raise RuntimeError("out of memory")
        return super().encode(stimulus)


Failing.__name__ = Answers.__name__


def test_what_is_finished_stays_finished(ask: Any, answers: Any, tmp_path: Path) -> None:
    place = tmp_path / "effects.zarr"
    with pytest.raises(RuntimeError, match="out of memory"):
        ask(place, model=Failing(), batch_size=2)
    # Five calls of two: two images whole, 2 + 2 masks of them.
    assert {path for path in tree(place) if path != PLAN} == {
        f"response/c/{row}/0/0" for row in range(4)
    }
    with pytest.raises(FileNotFoundError):
        opened(place)
    model = Answers()
    np.testing.assert_array_equal(ask(place, model=model).values, answers)
    # One to know the model, and the third image.
    assert model.n_encoded == 1 + 5


def test_the_same_store_however_it_was_interrupted(ask: Any, tmp_path: Path) -> None:
    ask(tmp_path / "whole.zarr")
    whole = tree(tmp_path / "whole.zarr")
    for n_calls in range(15):
        place = tmp_path / f"{n_calls}.zarr"
        with pytest.raises(RuntimeError):
            ask(place, model=Failing(n_calls), batch_size=1)
        # What is begun goes on, also where it would replace what is finished.
        ask(place, batch_size=4, overwrite=True)
        assert tree(place) == whole


KILLED = """
from responders import Deadly, write
from pathlib import Path
write(Path({target!r}), model=Deadly({n_calls}))
"""


def test_killed_and_resumed(tmp_path: Path, answers: Any, ask: Any) -> None:
    """In a real process, by -9, again and again."""
    target = tmp_path / "effects.zarr"
    sizes = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for n_calls in (0, 3, 3):
        code = KILLED.format(target=str(target), n_calls=n_calls)
        done = subprocess.run([sys.executable, "-c", code], check=False, env=environment)
        assert done.returncode == -signal.SIGKILL
        sizes.append(len([path for path in tree(target) if path.startswith("response/c/")]))
    assert sizes[0] == 0 < sizes[1] < sizes[2] < 6
    model = Answers()
    np.testing.assert_array_equal(ask(target, model=model).values, answers)
    assert model.n_encoded < 15
    assert [path.name for path in tmp_path.iterdir()] == ["effects.zarr"]


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


_BEFORE = partial(write, fill=3)


@pytest.mark.parametrize("every", [pytest.param(True, id="every", marks=LONG), False])
@pytest.mark.parametrize(
    ("begin", "strike"),
    [
        pytest.param(None, Strike.KILL, id="new, killed"),
        pytest.param(_BEFORE, Strike.KILL, id="overwritten, killed"),
        pytest.param(_BEFORE, Strike.TEAR, id="overwritten, torn"),
        pytest.param(_BEFORE, Strike.FAIL, id="overwritten, failed"),
    ],
)
def test_struck_at_every_change(
    forks: Forks,
    tmp_path: Path,
    begin: Callable[[Path], None] | None,
    strike: Strike,
    every: bool,  # noqa: FBT001 - whether to strike at all of them
) -> None:
    """The old store, the new one, or none; the same command goes on, and leaves nothing else."""
    run = partial(write, overwrite=begin is not None)
    whole = tmp_path / "whole" / "effects.zarr"
    write(whole)
    wanted, old = tree(whole.parent), None
    if begin is not None:
        begin(tmp_path / "old.zarr")
        old = opened(tmp_path / "old.zarr")["response"].values
    new = opened(whole)["response"].values

    def prepared(name: str) -> Path:
        target = tmp_path / name / "effects.zarr"
        target.parent.mkdir()
        if begin is not None:
            begin(target)
        return target

    counted = forks.run(partial(crash, run, prepared("counted"), 0, strike))
    n_changes = len(counted.result.changes)
    assert n_changes > 10
    for at in range(1, n_changes + 1):
        # Most put one object after the other; what comes first and last is tried in full.
        if not every and min(at, n_changes + 1 - at) > 3 and at % 60:
            continue
        target = prepared(str(at))
        forks.run(partial(crash, run, target, at, strike))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of xarray, that there may be a store of zarr 2
            try:
                found = opened(target)["response"].values
            except FileNotFoundError:
                found = None
        known = [new] if old is None else [new, old]
        assert found is None or any(np.array_equal(found, each) for each in known), at
        run(target)
        assert tree(target.parent) == wanted, at


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"fill": 0}, r"fill is \[128, 128, 128\], asked for \[0, 0, 0\]"),
        ({"n_frames": 30}, "n_frames is 90, asked for 30"),
        ({"masks": masks_of()[:5]}, "other masks, n_masks is 6, asked for 5"),
        ({"masks": masks_of().assign_coords(noun="x")}, "other masks"),
        ({"model": Answers(8)}, "n_voxels is 7, asked for 8, other voxels"),
        ({"model": Answers(seed=1)}, "model 'Answers' answers otherwise"),
    ],
)
@pytest.mark.parametrize("state", ["finished", "begun"])
def test_another_question_is_refused(
    ask: Any, tmp_path: Path, change: dict[str, Any], told: str, state: str
) -> None:
    place = tmp_path / "effects.zarr"
    if state == "finished":
        ask(place)
    else:
        with pytest.raises(RuntimeError):
            ask(place, model=Failing(), batch_size=2)
    before = tree(place)
    with pytest.raises(StoreExists, match=told) as caught:
        ask(place, **change)
    assert "overwrite=True would begin anew" in str(caught.value)
    assert tree(place) == before
    ask(tmp_path / "alone.zarr", **change)
    ask(place, **change, overwrite=True)
    assert tree(place) == tree(tmp_path / "alone.zarr")


class Other(Answers):
    """Another class."""


def test_another_class_is_another_model(ask: Any, tmp_path: Path) -> None:
    ask(tmp_path / "effects.zarr")
    with pytest.raises(StoreExists, match="model is Answers, asked for Other"):
        ask(tmp_path / "effects.zarr", model=Other())


@pytest.mark.parametrize("options", [{"overwrite": True}, {}], ids=str)
def test_what_is_somebody_elses_stays(
    ask: Any, tmp_path: Path, small_store: Path, options: dict[str, Any]
) -> None:
    taken = {
        "a file": tmp_path / "file",
        "a folder": tmp_path / "folder",
        "a group": tmp_path / "group.zarr",
        "masks": tmp_path / "masks.zarr",
        "a plan": tmp_path / "plan.zarr",
        "a link": tmp_path / "link",
    }
    taken["a file"].write_text("mine")
    taken["a folder"].mkdir()
    (taken["a folder"] / "thesis.txt").write_text("mine")
    zarr.create_group(taken["a group"]).create_array("response", shape=(3,), dtype="f4")[:] = 1
    shutil.copytree(small_store, taken["masks"])
    (taken["a plan"] / "_maskcube").mkdir(parents=True)
    (taken["a plan"] / PLAN).write_text('{"action": "convert"}')
    taken["a link"].symlink_to(tmp_path / "nowhere")
    before = tree(tmp_path)
    for place in taken.values():
        with pytest.raises(StoreExists):
            ask(place, **options)
    assert tree(tmp_path) == before
    assert not (tmp_path / "nowhere").exists()


def test_what_lies_beside_the_arrays_stays(ask: Any, tmp_path: Path) -> None:
    place = tmp_path / "effects.zarr"
    ask(place)
    (place / "notes.txt").write_text("mine")
    (place / "noun" / "c").rename(place / "kept")
    ask(place, fill=0, overwrite=True)
    assert (place / "notes.txt").read_text() == "mine"
    assert (place / "kept" / "0").exists()


def test_names_of_a_plan_are_no_paths(ask: Any, tmp_path: Path) -> None:
    """A store that somebody sent must not have other folders deleted."""
    victim = tmp_path / "victim"
    zarr.create_array(victim, shape=(3,), dtype="f4")
    place = tmp_path / "effects.zarr"
    ask(place)
    root = json.loads((place / "zarr.json").read_text())
    names = ["../victim", str(victim), "..", ".", "", "zarr.json", 3, None, ["a"], {"a": 1}]
    root["attributes"]["maskcube_effects"]["coordinates"] = names
    (place / "zarr.json").write_text(json.dumps(root))
    ask(place, fill=0, overwrite=True)
    assert (victim / "zarr.json").exists()
    (place / "_maskcube").mkdir()
    (place / PLAN).write_text(json.dumps({"question": {"coordinates": 5}, "clearing": names}))
    ask(place, overwrite=True)
    assert (victim / "zarr.json").exists()


def test_it_is_no_store_of_masks(ask: Any, tmp_path: Path) -> None:
    ask(tmp_path / "effects.zarr")
    with pytest.raises(NotAMaskStore):
        maskcube.open_masks(tmp_path / "effects.zarr")


@pytest.mark.parametrize("name", ["a b", "zarr.json", "response", "a/b", "_maskcube", ".."])
def test_a_coordinate_that_a_store_cannot_have(
    ask: Any, masks: xr.DataArray, tmp_path: Path, name: str
) -> None:
    strange = masks.assign_coords({name: ("mask", range(6))})
    with pytest.raises(InvalidOption, match="a coordinate of a store cannot be called"):
        ask(tmp_path / "effects.zarr", masks=strange)
    assert not [*tmp_path.iterdir()]


def test_two_at_once(ask: Any, tmp_path: Path) -> None:
    """A second process is told; it is this one here, by the lock that it would find."""
    lock = tmp_path / ".effects.zarr.maskcube-lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StoreExists, match=r"another process .* is writing"):
            ask(tmp_path / "effects.zarr")
    ask(tmp_path / "effects.zarr")


def test_another_begins_meanwhile(ask: Any, tmp_path: Path) -> None:
    """Where there is no lock, as in a bucket."""
    memory = MemoryStore()

    class Slow(Answers):
        def encode(self, stimulus: Any) -> Any:
            if len(self.calls) == 3:
                ask(memory, fill=9, overwrite=True)
            return super().encode(stimulus)

    Slow.__name__ = Answers.__name__
    with pytest.raises(StoreExists, match="another process"):
        ask(memory, model=Slow(), batch_size=2)
    np.testing.assert_array_equal(ask(memory, fill=9).values, ask(tmp_path / "a", fill=9).values)


def test_memory_does_not_grow_with_the_masks(ask: Any, masks: xr.DataArray) -> None:
    """Few responses are held at a time, however many masks an image has."""
    many = xr.concat([masks.isel(mask=[0])] * 200, "mask")
    written: dict[str, Any] = {}
    memory = MemoryStore(store_dict=written)
    seen: list[int] = []

    class Watching(Answers):
        def encode(self, stimulus: Any) -> Any:
            seen.append(len([key for key in written if key.startswith("response/c")]))
            return super().encode(stimulus)

    ask(memory, masks=many, model=Watching(), batch_size=4)
    encoded = np.arange(len(seen)) * 4
    # What is encoded is written before more is.
    assert (encoded - 2 * np.array(seen) <= 4).all()


def test_progress_is_on_stderr(ask: Any, capsys: pytest.CaptureFixture[str]) -> None:
    ask(MemoryStore(), progress=True)
    out, err = capsys.readouterr()
    assert not out
    assert "encoding" in err
    assert "6/6" in err


def test_a_bucket(seaweed: SeaweedFS, ask: Any, answers: Any) -> None:
    """Begun, gone on with, opened and refused through the API of S3."""
    url, options = seaweed.url(seaweed.new_bucket(), "effects"), seaweed.options
    with pytest.raises(RuntimeError):
        ask(url, model=Failing(), batch_size=2, storage_options=options)
    model = Answers()
    effects = ask(url, model=model, storage_options=options)
    np.testing.assert_array_equal(effects.values, answers)
    assert model.n_encoded == 1 + 5
    with pytest.raises(StoreExists, match="n_frames is 90, asked for 30"):
        ask(url, n_frames=30, storage_options=options)
    again = ask(url, n_frames=30, overwrite=True, storage_options=options)
    np.testing.assert_array_equal(again.values, answers)
    assert again.attrs["n_frames"] == 30


def test_what_is_opened_goes_to_other_processes(ask: Any, answers: Any, tmp_path: Path) -> None:
    effects = pickle.loads(pickle.dumps(ask(tmp_path / "effects.zarr")))  # noqa: S301 - our own
    np.testing.assert_array_equal(effects.sel(noun="cup").values, answers[1::2])


def test_a_session_of_icechunk_cannot_be_resumed(ask: Any) -> None:
    import icechunk

    session = icechunk.Repository.create(icechunk.in_memory_storage()).writable_session("main")
    with pytest.raises(InvalidOption, match="cannot hold what is unfinished"):
        ask(session.store)
    assert not session.has_uncommitted_changes
