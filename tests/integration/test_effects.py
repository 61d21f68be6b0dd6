"""Which object drives what: equal to one stimulus after the other, and no stimulus too many."""

from __future__ import annotations

import pickle
import re
import shutil
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pytest
import xarray as xr
from distributed.protocol.pickle import dumps, loads
from hypothesis import given
from hypothesis import strategies as st
from reference import Source
from responders import Answers, expected, masks_of, pictures_of

import maskcube
from maskcube.errors import CorruptMask, InvalidOption, LabelNotFound
from maskcube.insilico import (
    BERG,
    InvalidParameterError,
    StimulusError,
    object_effects,
    sample_model,
    to_nifti,
)
from maskcube.insilico.backbones import Pixels

SIZE = (24, 20)
SOME = slice(20, 50)
"""Masks of several images, whose answers are computed pixel by pixel."""


@pytest.fixture(scope="module")
def masks(small_store: Path) -> xr.DataArray:
    return maskcube.open_masks(small_store)


@pytest.fixture(scope="module")
def images(small: Source) -> dict[str, Any]:
    return pictures_of(small.table["image_name"].tolist(), SIZE)


@pytest.fixture(scope="module")
def answers(small: Source, images: dict[str, Any]) -> Any:
    """Return what `Answers` answers to all masks, one by one."""
    names = small.by_row["image_name"].tolist()
    return expected(images, names, small.masks, Answers().answer)


def n_stimuli(masks: xr.DataArray) -> int:
    """Return how many stimuli the masks have: two each, and one for each image."""
    return 2 * masks.sizes["mask"] + len(set(masks["image"].values.tolist()))


@pytest.mark.parametrize("batch_size", [1, 2, 7, 1000])
def test_equal_to_one_after_the_other(
    masks: xr.DataArray, images: dict[str, Any], answers: Any, batch_size: int
) -> None:
    model = Answers()
    effects = object_effects(images, masks, model, batch_size=batch_size)
    assert effects.dims == ("mask", "condition", "voxel")
    assert effects.dtype == np.float32
    assert effects["condition"].values.tolist() == ["intact", "kept", "removed"]
    assert model.n_encoded == 0
    np.testing.assert_array_equal(effects.values, answers)
    assert model.n_encoded == n_stimuli(masks)
    assert max(model.calls) <= batch_size
    assert model.shapes == {(90, 3, *SIZE)}
    assert model.at_once == 1


def test_all_coordinates_are_those_of_the_masks(
    masks: xr.DataArray, images: dict[str, Any]
) -> None:
    effects = object_effects(images, masks, Answers())
    for name in masks.coords:
        xr.testing.assert_identical(
            effects[name].drop_vars(effects[name].coords), masks[name].drop_vars(masks[name].coords)
        )
    assert effects.xindexes["noun"].equals(masks.xindexes["noun"])
    assert effects["voxel"].values.tolist() == list(range(7))
    assert effects.attrs["fill"] == [128, 128, 128]
    assert effects.attrs["n_frames"] == 90
    assert effects.attrs["model"] == "Answers"
    with pytest.raises(LabelNotFound, match="did you mean"):
        effects.sel(noun="hnad")


def test_another_fill_and_other_frames(
    masks: xr.DataArray, images: dict[str, Any], small: Source
) -> None:
    model = Answers()
    effects = object_effects(images, masks[:9], model, fill=(0, 17, 255), n_frames=15)
    names = masks["image"].values[:9].tolist()
    wanted = expected(images, names, small.masks[:9], model.answer, (0, 17, 255))
    np.testing.assert_array_equal(effects.values, wanted)
    assert model.shapes == {(15, 3, *SIZE)}


def _asked(effects: xr.DataArray) -> Iterator[Any]:
    yield effects.sel(noun="hand")
    yield effects.sel(noun="hand").sel(condition="removed").isel(voxel=[2, 0])
    yield effects.isel(voxel=slice(1, 4)).sel(noun=["hand", "nan"])
    yield effects[SOME].sel(condition=["removed", "kept"])
    yield effects.sel(condition="intact")
    yield effects.isel(mask=[40, 3, 41, 3])
    yield effects.isel(mask=7)
    yield effects.isel(mask=7, condition=0, voxel=3)
    yield effects.isel(mask=effects.area.values > np.median(effects.area.values))
    yield effects.isel(mask=[])
    yield effects.isel(condition=[])
    yield effects.isel(condition=[0, 0, 2, 1])
    yield effects.sortby("area").isel(mask=slice(None, None, 5))
    yield effects.sel(noun=re.compile("a").search).isel(voxel=-1, condition=-1)


@pytest.mark.parametrize("number", range(14))
def test_a_selection_encodes_what_it_needs(
    masks: xr.DataArray, images: dict[str, Any], answers: Any, number: int
) -> None:
    model = Answers()
    effects = object_effects(images, masks, model)
    known = xr.DataArray(answers, effects.coords, effects.dims)
    asked, wanted = ([*_asked(each)][number] for each in (effects, known))
    assert model.n_encoded == 0
    np.testing.assert_array_equal(asked.values, wanted.values)
    assert asked.dims == wanted.dims
    conditions = np.atleast_1d(asked["condition"].values).tolist()
    others = len({*conditions} - {"intact"})
    names = np.atleast_1d(asked["image"].values).tolist()
    assert model.n_encoded == others * len(names) + ("intact" in conditions) * len({*names})


def test_there_are_as_many_selections() -> None:
    effects = object_effects({}, masks_of()[:0], Answers())
    assert effects.shape == (0, 3, 7)
    assert effects.compute().shape == (0, 3, 7)


def indexers(size: int) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.integers(-size, size - 1),
        st.slices(size),
        st.lists(st.integers(-size, size - 1), max_size=5),
        st.lists(st.booleans(), min_size=size, max_size=size).map(np.array),
    )


@given(first=st.tuples(*map(indexers, (150, 3, 7))), data=st.data())
def test_one_selection_after_another(
    masks: xr.DataArray, images: dict[str, Any], answers: Any, first: Any, data: st.DataObject
) -> None:
    effects = object_effects(images, masks, _Known(answers, masks, images))
    ours, theirs = effects, xr.DataArray(answers, dims=effects.dims)
    for number in range(2):
        drawn = tuple(data.draw(indexers(size)) if size else slice(None) for size in ours.shape)
        chosen = dict(zip(ours.dims, drawn if number else first, strict=True))
        ours, theirs = ours.isel(chosen), theirs.isel(chosen)
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours.compute(scheduler="sync"), theirs)


class _Known:
    """`Answers` that have been given before, found by the stimulus: quick enough for many."""

    _found: dict[bytes, Any] = {}  # noqa: RUF012 - all of them are the same

    def __init__(self, answers: Any, masks: xr.DataArray, images: dict[str, Any]) -> None:
        self.n_voxels = answers.shape[-1]
        if self._found:
            return
        names, pixels = masks["image"].values.tolist(), masks.values
        for name, mask, each in zip(names, pixels, answers, strict=True):
            shown = np.moveaxis(images[name], -1, 0)
            for still, answer in zip(
                (shown, np.where(mask, shown, np.uint8(128)), np.where(mask, np.uint8(128), shown)),
                each,
                strict=True,
            ):
                self._found[still.tobytes()] = answer

    def encode(self, stimulus: Any) -> Any:
        return [self._found[video[0].tobytes()] for video in stimulus]


def chunks_of(effects: xr.DataArray) -> tuple[tuple[int, ...], ...]:
    assert effects.chunks is not None
    return effects.chunks


def test_chunks_are_of_images(masks: xr.DataArray, images: dict[str, Any]) -> None:
    """Whole images only: several where they are one batch, and all voxels."""
    effects = object_effects(images, masks, Answers(), batch_size=16)
    assert chunks_of(effects)[1:] == ((3,), (7,))
    runs = [len([*run]) for _, run in groupby(masks["image"].values.tolist())]
    edges = {*np.cumsum(runs).tolist()}
    assert {*np.cumsum(chunks_of(effects)[0]).tolist()} <= edges
    assert len(chunks_of(effects)[0]) == len(runs)
    hands = effects.sel(noun="hand")
    assert len(chunks_of(hands)[0]) < len({*hands["image"].values.tolist()})
    alone = object_effects(images, masks, Answers(), batch_size=1)
    assert chunks_of(alone)[0] == tuple(runs)


def test_in_a_dataset_with_other_arrays_of_dask(
    masks: xr.DataArray, images: dict[str, Any], answers: Any
) -> None:
    effects = object_effects(images, masks, Answers())[:9]
    both = xr.Dataset({"mean": effects.mean("voxel"), "effects": effects}).compute()
    np.testing.assert_array_equal(both["effects"].values, answers[:9])
    chunked = object_effects(images, masks.chunk(mask=13), Answers())[:9]
    np.testing.assert_array_equal(chunked.load().values, answers[:9])


def test_scattered_masks_share_their_image(masks: xr.DataArray, images: dict[str, Any]) -> None:
    model = Answers()
    order = np.random.default_rng(1).permutation(masks.sizes["mask"])
    effects = object_effects(images, masks, model, batch_size=4).isel(mask=order)
    assert effects.data.npartitions > len(images)
    effects.compute()
    assert model.n_encoded == n_stimuli(masks)


def test_each_mask_is_read_once(
    masks: xr.DataArray, images: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from maskcube.insilico.experiment import ObjectMasks

    read: list[int] = []
    whole = ObjectMasks._read  # noqa: SLF001 - what is counted

    def counted(self: Any, rows: Any) -> Any:
        read.extend(rows.tolist())
        return whole(self, rows)

    monkeypatch.setattr(ObjectMasks, "_read", counted)
    effects = object_effects(images, masks, Answers())
    effects.sel(condition="intact").compute()
    assert read == []
    effects.compute()
    assert sorted(read) == list(range(150))


def test_what_dask_does_beside(masks: xr.DataArray, images: dict[str, Any], answers: Any) -> None:
    effects = object_effects(images, masks, Answers())
    change = effects.sel(condition="intact") - effects.sel(condition="removed")
    wanted = answers[:, 0] - answers[:, 2]
    np.testing.assert_array_equal(change.values, wanted)
    np.testing.assert_allclose(change.mean("voxel").values, wanted.mean(-1), rtol=1e-6)
    np.testing.assert_array_equal(effects.transpose("voxel", ...)[2, :5].values, answers[:5, :, 2])
    loud = effects.copy()
    loud[0, 0] = 5
    assert loud[0].values[0].tolist() == [5] * 7
    np.testing.assert_array_equal(loud[1:3].values, answers[1:3])
    points = effects.isel(mask=xr.DataArray([1, 2], dims="p"), voxel=xr.DataArray([3, 4], dims="p"))
    np.testing.assert_array_equal(points.values, answers[[1, 2], :, [3, 4]])
    np.testing.assert_array_equal(effects.data.rechunk((10, 1, 2))[:4].compute(), answers[:4])
    np.testing.assert_array_equal(effects.data[..., 2][None, 3].compute(), answers[None, 3, :, 2])


@pytest.mark.parametrize("scheduler", ["sync", "threads", "processes"])
def test_schedulers(
    masks: xr.DataArray, images: dict[str, Any], answers: Any, scheduler: str
) -> None:
    model = Answers()
    effects = object_effects(images, masks, model, batch_size=3)
    with dask.config.set(scheduler=scheduler, num_workers=2):
        np.testing.assert_array_equal(effects[SOME].values, answers[SOME])
    assert model.at_once == (0 if scheduler == "processes" else 1)


def test_workers_of_a_cluster(masks: xr.DataArray, images: dict[str, Any], answers: Any) -> None:
    from distributed import Client, LocalCluster

    local = xr.DataArray(masks.values, masks.coords, masks.dims).chunk(mask=13)
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=2,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            worker_dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster) as client,
    ):
        for source in (masks, local):
            effects = object_effects(images, source, Answers(), batch_size=4)
            np.testing.assert_array_equal(effects.values, answers)
            hands = client.submit(lambda array: array.sel(noun="hand").load(), effects).result()
            is_hand = masks["noun"].values == "hand"
            np.testing.assert_array_equal(hands.values, answers[is_hand])


def test_pickled(masks: xr.DataArray, images: dict[str, Any], answers: Any) -> None:
    effects = object_effects(images, masks, Answers()).isel(voxel=[1, 2])
    again = pickle.loads(pickle.dumps(effects)).sel(noun="hand")  # noqa: S301 - our own
    is_hand = masks["noun"].values == "hand"
    np.testing.assert_array_equal(again.values, answers[is_hand][..., 1:3])


def test_masks_in_memory_and_chunked(images: dict[str, Any], small: Source, answers: Any) -> None:
    names = small.by_row["image_name"].tolist()
    found = xr.DataArray(small.masks, {"image": ("mask", names)}, ("mask", "y", "x"))
    for source in (found, found.astype(bool), found.chunk(mask=7), found.chunk(y=5)):
        effects = object_effects(images, source, Answers())
        np.testing.assert_array_equal(effects[SOME].values, answers[SOME])
    of_one = found[:3].drop_vars("image").assign_coords(image=names[0])
    np.testing.assert_array_equal(object_effects(images, of_one, Answers()).values, answers[:3])


def test_a_cut_is_encoded_as_it_is(masks: xr.DataArray, images: dict[str, Any]) -> None:
    cut = {name: image[2:12, 3:13] for name, image in images.items()}
    effects = object_effects(cut, masks[:9, 2:12, 3:13], Answers())
    names = masks["image"].values[:9].tolist()
    wanted = expected(cut, names, masks[:9, 2:12, 3:13].values, Answers().answer)
    np.testing.assert_array_equal(effects.values, wanted)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"masks": 3}, "masks is a int"),
        ({"masks": masks_of()[0]}, "select with a list"),
        ({"masks": masks_of().astype(float)}, "masks have dtype float64"),
        ({"masks": masks_of().drop_vars("image")}, "no coordinate 'image'"),
        ({"masks": masks_of()[:, :0]}, "there are none"),
        ({"masks": masks_of().rename(noun="condition")}, "there is 'condition' twice"),
        ({"masks": masks_of().rename(noun="voxel")}, "there is 'voxel' twice"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"fill": 300}, "fill=300"),
        ({"overwrite": True}, "overwrite is of a store"),
        ({"storage_options": {"anon": True}}, "storage_options is of a store"),
        ({"model": None}, "no encode"),
        ({"images": 5}, "images is a int"),
    ],
)
def test_what_has_no_meaning(changes: dict[str, Any], told: str) -> None:
    given = masks_of()
    images = pictures_of(given["image"].values.tolist(), (4, 5))
    asked = {"images": images, "masks": given, "model": Answers(), **changes}
    with pytest.raises(InvalidOption, match=told):
        object_effects(asked.pop("images"), asked.pop("masks"), asked.pop("model"), **asked)


def test_pixels_of_another_value_are_refused_when_they_are_read() -> None:
    given = masks_of() * np.uint8(2)
    images = pictures_of(given["image"].values.tolist(), (4, 5))
    effects = object_effects(images, given, Answers())
    with pytest.raises(InvalidOption, match="values other than 0 and 1"):
        effects.compute()


def test_missing_images_are_told_at_once(masks: xr.DataArray, images: dict[str, Any]) -> None:
    fewer = dict([*images.items()][3:])
    with pytest.raises(StimulusError, match="3 images cannot be shown"):
        object_effects(fewer, masks, Answers())


def test_a_damaged_mask_is_told(small_store: Path, images: dict[str, Any], tmp_path: Path) -> None:
    store = shutil.copytree(small_store, tmp_path / "masks.zarr")
    shard = store / "masks" / "c" / "0" / "0" / "0"
    data = bytearray(shard.read_bytes())
    data[60] ^= 255
    shard.write_bytes(data)
    effects = object_effects(images, maskcube.open_masks(store), Answers())
    with pytest.raises(CorruptMask):
        effects.compute()


def test_the_place_that_a_voxel_looks_at_is_found() -> None:
    """Each voxel of a made-up brain sees one object only; its region is told by the effect."""
    masks = np.zeros((6, 8, 8), np.uint8)
    for row in range(6):
        masks[row, 1 + 3 * (row % 3) - row % 3 : 3 + 2 * (row % 3), 2:6] = 1
    names = ["a.png"] * 3 + ["b.png"] * 3
    labels = {"image": ("mask", names), "noun": ("mask", [*"xyzxyz"])}
    found = xr.DataArray(masks, labels, ("mask", "y", "x"))
    images = pictures_of(names, (8, 8))
    # Bright enough to be told from the grey.
    images = {name: image // 4 + np.uint8(180) for name, image in images.items()}

    class Brain:
        n_voxels = 6
        coords = xr.Coordinates({"roi": ("voxel", [f"R{row}" for row in range(6)])}).copy()

        def encode(self, stimulus: Any) -> Any:
            return np.einsum("nyx,vyx->nv", stimulus[:, 0].mean(1), masks)

    effects = object_effects(images, found, Brain()).set_xindex("roi")
    change = abs(effects.sel(condition="intact") - effects.sel(condition="removed"))
    for row in range(6):
        driven = change.sel(roi=f"R{row}")
        # The same place in the other image drives it too.
        assert {*np.flatnonzero(driven.values > 1).tolist()} == {row % 3, row % 3 + 3}
    kept = effects.sel(condition="kept", roi="R1").values
    assert kept.argmax() in (1, 4)


def test_the_model_of_berg(tmp_path: Path, masks: xr.DataArray) -> None:
    """The real model's kind, by stimuli that are made here by hand."""
    square = masks[:12, :20]
    names = square["image"].values.tolist()
    images = pictures_of(names, (20, 20))
    berg = BERG(sample_model(tmp_path / "models.zarr"))
    model = berg.get_encoding_model("fmri-bmd-s3d", subject=1)
    effects = object_effects(images, square, model)
    wanted = expected(
        images,
        names,
        square.values,
        lambda still: model.encode(np.repeat(still[None, None], 90, 1))[0],
    )
    np.testing.assert_allclose(effects.values, wanted, atol=5e-5 * wanted.std())
    region = berg.get_encoding_model("fmri-bmd-s3d", subject=1, selection={"roi": "lV1v"})
    np.testing.assert_allclose(
        effects.sel(roi="lV1v").values,
        object_effects(images, square, region).values,
        atol=5e-5 * wanted.std(),
    )
    assert effects.attrs["units"] == "standard deviations of a session's responses"
    assert effects.sel(roi="lV1v").sel(noun=square["noun"].values[:1].tolist()).sizes["voxel"] > 1
    with pytest.raises(StimulusError, match="14"):
        object_effects(images, square, model, n_frames=13)
    assert to_nifti(effects[0, 0]).shape == (12, 14, 10)
    # As it goes to other processes.
    sent = loads(dumps(effects[:3]))
    np.testing.assert_allclose(sent.values, wanted[:3], atol=5e-5 * wanted.std())


def test_a_linear_model_of_pixels(masks: xr.DataArray, images: dict[str, Any]) -> None:
    """14 of 90 frames are seen, as BERG's do; floats, batches of any size."""
    pixels, weights = Pixels(), np.random.default_rng(8).standard_normal((Pixels.n_features, 3))

    class Linear:
        n_voxels = 3

        def encode(self, stimulus: Any) -> Any:
            seen = np.ascontiguousarray(stimulus[:, np.linspace(0, 89, 14, dtype=int)])
            return pixels(seen).astype(float) @ weights

    found = [
        object_effects(images, masks[:20], Linear(), batch_size=size).values for size in (1, 5, 64)
    ]
    names = masks["image"].values[:20].tolist()
    wanted = expected(
        images,
        names,
        masks[:20].values,
        lambda still: Linear().encode(np.repeat(still[None, None], 90, 1))[0],
    )
    for each in found:
        np.testing.assert_allclose(each, wanted, rtol=1e-4, atol=1e-3)


def test_the_models_are_no_model(masks: xr.DataArray, tmp_path: Path) -> None:
    berg: Any = BERG(sample_model(tmp_path / "models.zarr"))
    with pytest.raises(
        InvalidParameterError, match="model is a BERG; give what get_encoding_model"
    ):
        object_effects(dict.fromkeys(["unseen"]), masks[:0], berg)
