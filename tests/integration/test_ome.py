"""OME-Zarr labels by the text of the format, read by plain zarr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr
from numpy.typing import NDArray
from panoptics import seen

import maskcube
from maskcube.errors import InvalidOption, StoreExists
from maskcube.formats.ome import to_ome_zarr


def _levels(group: zarr.Group) -> list[NDArray[Any]]:
    """Return the resolutions of an image, after what the format asks of them."""
    ome: Any = group.attrs["ome"]
    assert ome["version"] == "0.5"
    [multiscale] = ome["multiscales"]
    assert [(a["name"], a["type"]) for a in multiscale["axes"]] == [("y", "space"), ("x", "space")]
    found = []
    for level, dataset in enumerate(multiscale["datasets"]):
        assert dataset["coordinateTransformations"] == [
            {"type": "scale", "scale": [2.0**level, 2.0**level]}
        ]
        array = group[dataset["path"]]
        assert isinstance(array, zarr.Array)
        assert array.metadata.zarr_format == 3
        assert array.metadata.dimension_names == ("y", "x")
        found.append(np.asarray(array[:]))
    return found


def _images(folder: Path) -> dict[str, zarr.Group]:
    """Return the group of each image, as the folder itself tells."""
    paths: Any = zarr.open_group(folder, mode="r").attrs["maskcube"]
    found = {
        name: zarr.open_group(folder / path, mode="r") for name, path in paths["images"].items()
    }
    assert {path.name for path in folder.glob("*.zarr")} == set(paths["images"].values())
    assert {name: group.attrs["maskcube"] for name, group in found.items()} == {
        name: {"image": name} for name in found
    }
    return found


def _labels(image: zarr.Group) -> dict[str, zarr.Group]:
    ome: Any = image["labels"].attrs["ome"]
    assert ome["version"] == "0.5"
    found = {path: image[f"labels/{path}"] for path in ome["labels"]}
    assert all(isinstance(group, zarr.Group) for group in found.values())
    return found  # type: ignore[return-value]


def _said(group: zarr.Group) -> dict[int, dict[str, Any]]:
    """Return what is said of each label, after what the format asks of that."""
    ome: Any = group.attrs["ome"]
    said = ome["image-label"]
    assert said["version"] == "0.5"
    assert said["source"] == {"image": "../../"}
    properties = {entry["label-value"]: entry for entry in said["properties"]}
    colours = {entry["label-value"]: entry["rgba"] for entry in said["colors"]}
    assert colours.keys() == properties.keys()
    assert len(properties) == len(said["properties"]) == len(said["colors"])
    assert all(
        len(c) == 4 and all(type(v) is int and 0 <= v <= 255 for v in c) for c in colours.values()
    )
    return properties


@pytest.mark.parametrize("overlap", ["smallest", "score", "order"])
def test_labels_are_what_is_seen(overlap: str, small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    report = to_ome_zarr(masks, tmp_path / "out", overlap=overlap, levels=3, progress=False)
    images = _images(tmp_path / "out")
    assert [*images] == list(dict.fromkeys(masks.image.values))
    dropped = 0
    for name, image in images.items():
        of = masks[masks.image.values == name]
        shown = seen(list(of.values.astype(bool)), of.score.values, overlap)
        [(path, group)] = _labels(image).items()
        assert path == "masks"
        levels, said = _levels(group), _said(group)
        assert len(levels) == len(_levels(image)) == 3
        for k, mask in enumerate(shown):
            np.testing.assert_array_equal(levels[0] == k + 1, mask)
            assert (k + 1 in said) == mask.any()
            if mask.any():
                told = said[k + 1]
                assert told["noun"] == of.noun.values[k]
                assert told["visible"] == mask.sum()
                assert told["area"] == of.values[k].sum()
                assert told["instance"] == of.instance.values[k]
                assert told["mask_row"] == of.mask_row.values[k]
                score = of.score.values[k]
                assert told.get("score") == (None if np.isnan(score) else score)
            dropped += not mask.any()
        for level in (1, 2):
            np.testing.assert_array_equal(levels[level], levels[0][:: 2**level, :: 2**level])
        assert levels[0].max() <= len(of)
    assert len(report.dropped) == dropped
    assert (report.overlap, report.n_images) == (overlap, len(images))


def test_layers_lose_nothing(small_store: Path, tmp_path: Path) -> None:
    masks = maskcube.open_masks(small_store)
    report = to_ome_zarr(masks, tmp_path / "out", overlap="layers", progress=False)
    for name, image in _images(tmp_path / "out").items():
        of = masks[masks.image.values == name]
        labels = _labels(image)
        assert [*labels] == [f"masks-{number}" for number in range(len(labels))]
        found: dict[int, NDArray[Any]] = {}
        for group in labels.values():
            [level] = _levels(group)
            for number in _said(group):
                assert number not in found
                found[number] = level == number
        for k, mask in enumerate(of.values):
            np.testing.assert_array_equal(found.get(k + 1, np.zeros_like(mask)), mask)
    assert {m.area for m in report.dropped} <= {0}


@pytest.mark.parametrize("overlap", ["smallest", "layers"])
def test_the_image_is_how_many_masks_there_are(
    overlap: str, small_store: Path, tmp_path: Path
) -> None:
    masks = maskcube.open_masks(small_store)
    to_ome_zarr(masks, tmp_path / "out", overlap=overlap, progress=False)
    for name, image in _images(tmp_path / "out").items():
        [cover] = _levels(image)
        np.testing.assert_array_equal(cover, masks.values[masks.image.values == name].sum(axis=0))


def _many(n_masks: int, image: Any = "a.jpg") -> xr.DataArray:
    pixels = np.ones((n_masks, 3, 5), np.uint8)
    labels = {"image": image, "noun": "hand", "instance": np.arange(n_masks)}
    coords = {k: ("mask", np.broadcast_to(v, n_masks)) for k, v in labels.items()}
    return xr.DataArray(pixels, dims=("mask", "y", "x"), coords=coords)


def test_more_masks_than_a_byte_counts(tmp_path: Path) -> None:
    report = to_ome_zarr(_many(300), tmp_path / "out", overlap="order", progress=False)
    [image] = _images(tmp_path / "out").values()
    assert (_levels(image)[0] == 300).all()
    assert (_levels(_labels(image)["masks"])[0] == 300).all()
    assert len(report.dropped) == 299


def test_levels_until_all_is_seen_at_once(tmp_path: Path) -> None:
    masks = _many(1).isel(y=[0] * 600, x=[0] * 257)
    to_ome_zarr(masks, tmp_path / "out", progress=False)
    [image] = _images(tmp_path / "out").values()
    assert [level.shape for level in _levels(image)] == [(600, 257), (300, 129), (150, 65)]


def test_names_of_images_stay_what_they_are(tmp_path: Path) -> None:
    names = ["../x.jpg", "/x.jpg", "x.jpg", "X.jpg", "a/b", "n" * 300, "NUL", "ä", "labels"]
    masks = _many(len(names), image=np.array(names, object))
    to_ome_zarr(masks, tmp_path / "in" / "out", progress=False)
    images = _images(tmp_path / "in" / "out")
    assert [*images] == names
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    assert len({str(group.store_path).lower() for group in images.values()}) == len(names)


def test_the_metadata_is_plain_json(tmp_path: Path) -> None:
    masks = _many(2).assign_coords(
        score=("mask", [np.nan, np.float32(0.5)]), box_x0=("mask", [np.nan, 1.5])
    )
    to_ome_zarr(masks, tmp_path / "out", overlap="layers", progress=False)
    for path in (tmp_path / "out").rglob("*.json"):
        assert "NaN" not in path.read_text()
        json.loads(path.read_text())
    [image] = _images(tmp_path / "out").values()
    first, second = _labels(image).values()
    assert "score" not in _said(first)[1]
    assert (_said(second)[2]["score"], _said(second)[2]["box_x0"]) == (0.5, 1.5)


@pytest.mark.parametrize("levels", [0, 17, 1.0, True, "2"])
def test_levels_are_a_number(levels: Any, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="levels="):
        to_ome_zarr(_many(1), tmp_path / "out", levels=levels, progress=False)
    assert not list(tmp_path.iterdir())


def test_only_an_export_is_replaced(tmp_path: Path) -> None:
    to_ome_zarr(_many(1), tmp_path / "out", progress=False)
    with pytest.raises(StoreExists, match="overwrite=True would replace it"):
        to_ome_zarr(_many(1), tmp_path / "out", progress=False)
    to_ome_zarr(_many(1, "b.jpg"), tmp_path / "out", overwrite=True, progress=False)
    assert [*_images(tmp_path / "out")] == ["b.jpg"]


def test_overlaps_are_refused_when_asked_and_nothing_stays(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="masks overlap"):
        to_ome_zarr(_many(2), tmp_path / "out", overlap="error", progress=False)
    assert not [path for path in tmp_path.iterdir() if path.suffix != ".lock"]
