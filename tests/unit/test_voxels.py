"""The labels of voxels: regions as an index of xarray, places in the brain, measures and units."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import xarray as xr

from maskcube import InvalidOption, LabelNotFound
from maskcube.insilico.brain import MOST_REGIONS, Brain, Region, Volume
from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.voxels import RegionIndex, voxel_coordinates

ROI = ["V1", "V1 V2", "", "V2 IPS1-2-3", "V1"]


@pytest.fixture
def responses() -> xr.DataArray:
    values = np.arange(10.0).reshape(2, 5)
    array = xr.DataArray(values, {"roi": ("voxel", ROI)}, ("stimulus", "voxel"))
    return array.set_xindex("roi", RegionIndex)


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("V1", [0, 1, 4]),
        ("IPS1-2-3", [3]),
        (["V1", "IPS1-2-3"], [0, 1, 3, 4]),
        (("V2",), [1, 3]),
        (np.array(["V2"]), [1, 3]),
        (np.str_("V2"), [1, 3]),
        (xr.DataArray("V2"), [1, 3]),
        (re.compile("^V").search, [0, 1, 3, 4]),
        (lambda name: name == "none", []),
        ([], []),
    ],
)
def test_a_region_is_its_voxels_in_order(
    responses: xr.DataArray, asked: object, found: list[int]
) -> None:
    chosen = responses.sel(roi=asked)
    assert chosen.dims == ("stimulus", "voxel")
    assert chosen[0].values.tolist() == found
    assert chosen.roi.values.tolist() == [ROI[row] for row in found]


@pytest.mark.parametrize("asked", ["V3", "v1", ["V1", "V3"], ""])
def test_a_region_that_there_is_not_is_named(responses: xr.DataArray, asked: object) -> None:
    with pytest.raises(LabelNotFound, match="no voxel is in roi"):
        responses.sel(roi=asked)


def test_a_near_spelling_is_offered(responses: xr.DataArray) -> None:
    with pytest.raises(LabelNotFound, match=r"did you mean 'IPS1-2-3'\?"):
        responses.sel(roi="ips1-2")


@pytest.mark.parametrize("asked", [slice("V1", "V2"), 1, None, [1], True])
def test_what_is_no_name_is_refused(responses: xr.DataArray, asked: object) -> None:
    with pytest.raises(InvalidOption, match="give a name"):
        responses.sel(roi=asked)


def test_there_is_no_nearest_region(responses: xr.DataArray) -> None:
    with pytest.raises(InvalidOption, match="no nearest"):
        responses.sel(roi="V1", method="nearest")


def test_the_index_follows_its_voxels(responses: xr.DataArray) -> None:
    assert responses.isel(voxel=[3, 0]).sel(roi="V1")[0].values.tolist() == [0.0]
    assert responses.isel(voxel=slice(1, 4)).sel(roi="V2")[0].values.tolist() == [1.0, 3.0]
    assert responses.isel(voxel=[]).sizes["voxel"] == 0
    assert responses.isel(voxel=0).roi.item() == "V1"
    assert responses.isel(stimulus=0).sel(roi="V2").values.tolist() == [1.0, 3.0]
    assert responses.roll(voxel=1, roll_coords=True).sel(roi="V1")[0].values.tolist() == [4, 0, 1]
    assert responses[:, responses.roi != ""].sel(roi="V2")[0].values.tolist() == [1.0, 3.0]
    renamed = responses.rename(roi="region", voxel="place")
    assert renamed.sel(region="V2")[0].values.tolist() == [1.0, 3.0]
    both = xr.concat([responses.isel(voxel=[0]), responses.isel(voxel=[3])], "voxel")
    assert both.sel(roi="IPS1-2-3")[0].values.tolist() == [3.0]


def test_only_equal_voxels_are_added(responses: xr.DataArray) -> None:
    assert (responses + responses).sel(roi="V2")[0].values.tolist() == [2.0, 6.0]
    with pytest.raises(InvalidOption, match="these are other voxels, 2 and 2"):
        _ = responses.isel(voxel=[0, 1]) + responses.isel(voxel=[2, 3])


def test_the_index_says_what_it_holds(responses: xr.DataArray) -> None:
    assert "RegionIndex (5 voxels; regions: 3)" in repr(responses.xindexes["roi"])
    assert "'IPS1-2-3'" in repr(responses.xindexes["roi"])
    assert responses.xindexes["roi"].equals(responses.copy().xindexes["roi"])
    assert not responses.xindexes["roi"].equals(
        responses.roll(voxel=1, roll_coords=True).xindexes["roi"]
    )


@pytest.mark.parametrize("names", [["roi", "other"], ["deep"]])
def test_other_coordinates_are_no_regions(names: list[str]) -> None:
    coords = {"roi": ("voxel", ROI), "other": ("voxel", ROI), "deep": (("a", "b"), [["V1"]])}
    with pytest.raises(InvalidOption, match="one"):
        xr.Dataset(coords=coords).set_xindex(names, RegionIndex)


def _brain(**options: object) -> Brain:
    mask = np.zeros((4, 3, 2), bool)
    mask[0, 0, 0] = mask[0, 2, 1] = mask[1, 1, 0] = mask[3, 0, 1] = True
    affine = np.array([[2.5, 0, 0, -2.5], [0, 2.5, 0, 10], [0, 0, 2.5, -5], [0, 0, 0, 1]])
    volume = Volume(mask, affine)
    given: dict[str, object] = {"regions": {}, "measures": {}, **options}
    return Brain(volume, volume, **given)  # type: ignore[arg-type]


def test_voxels_are_where_the_affine_says() -> None:
    coords = voxel_coordinates(_brain(), np.arange(4))
    places = np.stack([coords[axis].to_numpy() for axis in "ijk"], 1)
    assert places.tolist() == [[0, 0, 0], [0, 2, 1], [1, 1, 0], [3, 0, 1]]
    assert coords["x"].values.tolist() == [-2.5, -2.5, 0, 5]
    assert coords["y"].values.tolist() == [10, 15, 12.5, 10]
    assert coords["z"].values.tolist() == [-5, -2.5, -5, -2.5]
    assert coords["x"].attrs["units"] == "mm"
    assert coords["hemisphere"].values.tolist() == ["left", "left", "", "right"]


def test_a_region_is_found_by_places_never_by_its_flat_indices() -> None:
    # The flat indices are those of another mask, and would name other voxels.
    region = Region(np.array([[3, 0, 1], [0, 2, 1], [2, 2, 1]]), np.array([0, 1, 2]))
    brain = _brain(regions={"V1": region})
    assert brain.rows("V1").tolist() == [1, 3]
    coords = voxel_coordinates(brain, np.array([0, 3]))
    assert coords["V1"].values.tolist() == [False, True]
    assert coords["roi"].values.tolist() == ["", "V1"]


def test_measures_say_their_units() -> None:
    values = np.arange(4, dtype="f4")
    brain = _brain(
        measures={
            "noiseceiling_task_test_n_10": values,
            "explained_variance": values,
            "own": values,
        }
    )
    coords = voxel_coordinates(brain, np.array([2, 3]))
    assert coords["noiseceiling_task_test_n_10"].attrs["units"] == "percent"
    assert coords["explained_variance"].attrs["units"] == "1 (1 is at the noise ceiling)"
    assert coords["explained_variance"].values.tolist() == [2, 3]
    assert coords["own"].attrs["units"] == "1"


@pytest.mark.parametrize(
    "name",
    [
        "hemisphere",
        "i",
        "roi",
        "voxel",
        "r2",
        "left V1",
        "a/b",
        "../up",
        "a\\b",
        "",
        "\n",
        "V1\x1b",
        "x" * 1000,
        ".hidden",
        "zarr.json",
    ],
)
def test_a_name_that_no_coordinate_can_have_is_refused(name: str) -> None:
    """One with a space would be two regions as soon as it was saved; a slash leads elsewhere."""
    region = Region(np.array([[0, 0, 0]]), np.array([0]))
    values = np.arange(4, dtype="f4")
    with pytest.raises(CorruptWeights, match="are called") as caught:
        voxel_coordinates(_brain(regions={name: region}, measures={"r2": values}), np.arange(4))
    assert len(str(caught.value)) < 500
    if name != "r2":
        with pytest.raises(CorruptWeights, match="are called"):
            voxel_coordinates(_brain(measures={name: values}), np.arange(4))


def test_names_of_other_atlases_are_names() -> None:
    region = Region(np.array([[0, 0, 0]]), np.array([0]))
    names = ["IPS1-2-3", "7AL", "ROI(left)", "Gehörrinde", "V1+V2", "L_V1:ROI"]
    coords = voxel_coordinates(_brain(regions=dict.fromkeys(names, region)), np.arange(4))
    assert set(names) < set(coords)


def test_too_many_regions_are_refused_before_they_take_memory() -> None:
    region = Region(np.array([[0, 0, 0]]), np.array([0]))
    regions = {f"region{number}": region for number in range(MOST_REGIONS + 1)}
    with pytest.raises(CorruptWeights, match="2,049 regions"):
        voxel_coordinates(_brain(regions=regions), np.arange(4))


@pytest.mark.parametrize(
    ("places", "flat"),
    [([[0, 0, 2]], [0]), ([[-1, 0, 0]], [0]), ([[0, 0, 0]], [0, 1]), ([[0, 0]], [0]), ([0], [0])],
)
def test_a_region_that_is_nowhere_is_told(places: list[Any], flat: list[int]) -> None:
    region = Region(np.array(places), np.array(flat))
    with pytest.raises(CorruptWeights, match="'V1' has places that are not"):
        voxel_coordinates(_brain(regions={"V1": region}), np.arange(4))
