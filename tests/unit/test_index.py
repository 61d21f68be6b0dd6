"""MaskIndex: ``.sel`` by image, noun and instance, and everything that must not lose it."""

from __future__ import annotations

import copy
import operator
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import ArrayLike, DTypeLike

from maskcube.errors import InvalidOption, LabelNotFound
from maskcube.index import MaskIndex

NAMES = ["image", "noun", "instance"]
TABLE = [
    ("a.jpg", "cup", 0),
    ("a.jpg", "hand", 0),
    ("a.jpg", "hand", 1),
    ("b.jpg", "face", 0),
    ("b.jpg", "hand", 0),
    ("c.jpg", "fingers", 0),
    ("c.jpg", "piano", 0),
    ("a.jpg", "face", 0),
]
ROWS = list(range(len(TABLE)))
STRING = np.dtypes.StringDType()


def plain(dtype: DTypeLike = STRING, *, chunked: bool = False) -> xr.DataArray:
    """Masks whose pixels say their row, without an index."""
    image, noun, instance = zip(*TABLE, strict=True)
    pixels: Any = np.broadcast_to(np.arange(len(TABLE), dtype="uint8")[:, None, None], (8, 2, 3))
    # Without it xarray 2026.4 to 2026.7 write StringDType as strings of one length.
    encoding = {"dtype": object}
    coords: dict[str, Any] = {
        "image": ("mask", np.array(image, dtype), {}, encoding),
        "noun": ("mask", np.array(noun, dtype), {"long_name": "what it is"}, encoding),
        "instance": ("mask", np.array(instance)),
        "score": ("mask", np.linspace(0, 1, len(TABLE))),
    }
    masks = xr.DataArray(pixels, coords, ("mask", "y", "x"), "masks", attrs={"license": "CC0"})
    return masks.chunk(mask=2) if chunked else masks


def indexed(dtype: DTypeLike = STRING, *, chunked: bool = False) -> xr.DataArray:
    return plain(dtype, chunked=chunked).set_xindex(NAMES, MaskIndex)


@pytest.fixture
def masks() -> xr.DataArray:
    return indexed()


def rows(masks: xr.DataArray) -> list[int]:
    """Rows that a selection holds, read from its pixels."""
    assert masks.dims == ("mask", "y", "x")
    return [int(row) for row in masks[:, 0, 0]]


def index_of(masks: xr.DataArray | xr.Dataset, name: str = "noun") -> MaskIndex:
    index = masks.xindexes[name]
    assert isinstance(index, MaskIndex)
    return index


def labels(masks: xr.DataArray) -> list[tuple[Any, ...]]:
    return list(zip(*(masks[name].to_numpy().tolist() for name in NAMES), strict=True))


def check(masks: xr.DataArray, expected: list[int]) -> None:
    """Check rows, coordinates and that the index is that of the coordinates."""
    assert rows(masks) == expected
    assert labels(masks) == [TABLE[row] for row in expected]
    fresh = masks.drop_indexes(NAMES).set_xindex(NAMES, MaskIndex)
    assert index_of(masks).equals(index_of(fresh))
    assert {id(masks.xindexes[name]) for name in NAMES} == {id(index_of(masks))}


# Questions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True], ids=["numpy", "dask"])
@pytest.mark.parametrize("dtype", ["U8", STRING, object], ids=["U", "StringDType", "object"])
@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ({"noun": "hand"}, [1, 2, 4]),
        ({"noun": "piano"}, [6]),
        ({"noun": ["hand", "cup", "hand"]}, [0, 1, 2, 4]),
        ({"noun": ["piano"]}, [6]),
        ({"noun": []}, []),
        ({"noun": slice("face", "fingers")}, [3, 5, 7]),
        ({"noun": slice("x", None)}, []),
        ({"noun": re.compile("^f").search}, [3, 5, 7]),
        ({"noun": lambda noun: len(noun) > 10}, []),
        ({"image": "a.jpg"}, [0, 1, 2, 7]),
        ({"image": ["c.jpg", "b.jpg"]}, [3, 4, 5, 6]),
        ({"instance": 1}, [2]),
        ({"instance": range(2)}, ROWS),
        ({"instance": slice(1, None)}, [2]),
        ({"instance": lambda instance: instance == 0}, [0, 1, 3, 4, 5, 6, 7]),
        ({"image": "a.jpg", "noun": "hand"}, [1, 2]),
        ({"image": "a.jpg", "instance": 1}, [2]),
        ({"image": "a.jpg", "noun": ["hand", "face", "piano"]}, [1, 2, 7]),
        ({"image": ["a.jpg", "b.jpg"], "noun": "hand", "instance": 0}, [1, 4]),
        ({"image": "a.jpg", "noun": "hand", "instance": [0]}, [1]),
        ({"image": "a.jpg", "noun": "hand", "instance": slice(None)}, [1, 2]),
        ({"image": "b.jpg", "noun": re.compile("cup").search}, []),
        ({"image": [], "noun": "hand", "instance": 0}, []),
        ({"image": "b.jpg", "noun": "cup", "instance": []}, []),
    ],
)
def test_answers_keep_store_order_and_the_mask_dimension(
    question: dict[str, Any], expected: list[int], dtype: DTypeLike, *, chunked: bool
) -> None:
    selected = indexed(dtype, chunked=chunked).sel(question)
    check(selected, expected)
    assert selected.noun.dtype == np.dtype(dtype)
    assert selected.noun.attrs == {"long_name": "what it is"}
    assert selected.noun.encoding == {"dtype": object}
    assert selected.attrs == {"license": "CC0"}
    assert (selected.chunks is not None) is chunked


@pytest.mark.parametrize("instance", [0, np.int64(0), np.array(0), xr.DataArray(0)])
def test_three_scalars_name_one_mask(masks: xr.DataArray, instance: object) -> None:
    one = masks.sel(image="b.jpg", noun="hand", instance=instance)
    assert one.dims == ("y", "x")
    assert int(one[0, 0]) == 4
    assert [one[name].item() for name in NAMES] == ["b.jpg", "hand", 0]
    assert one.noun.dtype == STRING
    assert not one.xindexes
    assert list(masks.sel(image="b.jpg", noun="hand", instance=0, drop=True).coords) == []


def test_dataset_and_loc_answer_too(masks: xr.DataArray) -> None:
    assert masks.to_dataset().sel(noun="hand").sizes["mask"] == 3
    check(masks.loc[{"noun": "hand"}], [1, 2, 4])
    writable = masks.copy(deep=True, data=masks.to_numpy().copy())
    writable.loc[{"image": "a.jpg"}] = 99
    assert writable[:, 0, 0].to_numpy().tolist() == [99, 99, 99, 3, 4, 5, 6, 99]


def test_a_label_of_the_masks_own_coordinate_is_a_scalar(masks: xr.DataArray) -> None:
    check(masks.sel(noun=masks.noun[3]), [3, 7])


def test_consecutive_rows_are_a_slice(masks: xr.DataArray) -> None:
    index = index_of(masks)
    assert index.sel({"image": "c.jpg"}).dim_indexers == {"mask": slice(5, 7)}
    assert index.sel({"noun": "piano"}).dim_indexers == {"mask": slice(6, 7)}
    assert index.sel({"noun": []}).dim_indexers == {"mask": slice(0, 0)}
    scattered = index.sel({"image": "a.jpg"}).dim_indexers["mask"]
    assert scattered.tolist() == [0, 1, 2, 7]
    one = index.sel({"image": "a.jpg", "noun": "face", "instance": 0}).dim_indexers["mask"]
    assert one == 7
    assert isinstance(one, int)


def test_rows_are_those_of_sel(masks: xr.DataArray) -> None:
    index = index_of(masks)
    assert index.rows({"noun": "hand"}).tolist() == [1, 2, 4]
    assert index.rows({}).tolist() == ROWS
    with pytest.raises(
        InvalidOption, match=r"the index has 'image', 'noun', 'instance', not 'nou'"
    ):
        index.rows({"nou": "hand"})


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({"noun": "hnd"}, "no mask has noun 'hnd'; did you mean 'hand'?"),
        ({"noun": "hnd", "image": "a.jpg"}, "no mask has noun 'hnd'; did you mean 'hand'?"),
        ({"instance": 2}, "no mask has instance 2; there are instances 0, 1"),
        ({"noun": 3}, "noun takes a string, a list, a slice or a callable, not 3 (int)"),
        (
            {"instance": True},
            "instance takes an integer, a list, a slice or a callable, not True (bool)",
        ),
        (
            {"image": "b.jpg", "noun": "cup"},
            "no mask has image 'b.jpg' and noun 'cup'; image 'b.jpg' has nouns: 'face', 'hand'",
        ),
        (
            {"noun": "cup", "image": "b.jpg", "instance": slice(None)},
            "no mask has image 'b.jpg' and noun 'cup'; image 'b.jpg' has nouns: 'face', 'hand'",
        ),
        (
            {"noun": "cup", "instance": 1},
            "no mask has noun 'cup' and instance 1; noun 'cup' has instances: 0",
        ),
        (
            {"image": ["b.jpg", "c.jpg"], "instance": [1]},
            (
                "no mask has images 'b.jpg', 'c.jpg' and instance 1; "
                "images 'b.jpg', 'c.jpg' have instances: 0"
            ),
        ),
        (
            {"image": "a.jpg", "noun": ["cup", "face"], "instance": 1},
            (
                "no mask has image 'a.jpg' with nouns 'cup', 'face' and instance 1; "
                "image 'a.jpg' with nouns 'cup', 'face' has instances: 0"
            ),
        ),
    ],
)
def test_labels_that_are_spelt_out_must_exist_together(
    masks: xr.DataArray, question: dict[str, Any], message: str
) -> None:
    with pytest.raises(LabelNotFound) as caught:
        masks.sel(question)
    assert str(caught.value) == message


def test_labels_are_those_left_by_a_selection(masks: xr.DataArray) -> None:
    message = r"^no mask has noun 'cup'; there are nouns 'face', 'hand'$"
    with pytest.raises(LabelNotFound, match=message):
        masks.sel(image="b.jpg").sel(noun="cup")
    with pytest.raises(LabelNotFound, match=r"^no mask has noun 'cup'; there are no masks here$"):
        masks.isel(mask=[]).sel(noun="cup")


@pytest.mark.parametrize("option", [{"method": "nearest"}, {"tolerance": 1}])
def test_method_and_tolerance_are_refused(masks: xr.DataArray, option: dict[str, Any]) -> None:
    message = r"no method= and no tolerance= here: give a slice or a callable, as in \.sel\(noun="
    with pytest.raises(InvalidOption, match=message):
        masks.sel(noun="hand", **option)


def test_a_labelled_array_is_refused_and_its_alternatives_work(masks: xr.DataArray) -> None:
    trials = xr.DataArray(["b.jpg", "a.jpg", "b.jpg"], dims="trial")
    with pytest.raises(InvalidOption, match=r'as in masks\.groupby\("image"\)\.any\(\)\.sel'):
        masks.sel(image=trials)
    check(masks.sel(image=trials.values), [0, 1, 2, 3, 4, 7])
    by_trial = masks.groupby("image").max().sel(image=trials)
    assert by_trial.dims == ("trial", "y", "x")
    assert by_trial[:, 0, 0].to_numpy().tolist() == [4, 7, 4]


def test_a_key_of_several_masks_is_refused_with_its_rows(masks: xr.DataArray) -> None:
    twice = masks.isel(mask=[4, 0, 4])
    key: dict[str, Any] = {"image": "b.jpg", "noun": "hand", "instance": 0}
    with pytest.raises(InvalidOption) as caught:
        twice.sel(key)
    assert str(caught.value) == (
        "image 'b.jpg', noun 'hand', instance 0 names 2 masks, rows 0, 2: to get them all give a "
        "list for one, as in instance=[...], which keeps the dimension 'mask'"
    )
    check(twice.sel({**key, "instance": [0]}), [4, 4])


@pytest.mark.parametrize(
    ("names", "complaint"),
    [
        (["image", "noun"], r"needs image, noun and instance together, not 'image', 'noun'"),
        (["image"], r"needs image, noun and instance together, not 'image': set_xindex\(\["),
        ([*NAMES, "score"], r"needs image, noun and instance together"),
        (["image", "noun", "score"], r"coordinate 'score' must hold integers, not float64"),
        (["instance", "noun", "score"], r"coordinate 'instance' must hold strings, not int64"),
    ],
)
def test_other_coordinates_are_refused(names: list[str], complaint: str) -> None:
    with pytest.raises(InvalidOption, match=complaint):
        plain().set_xindex(names, MaskIndex)


def test_coordinates_along_other_dimensions_are_refused() -> None:
    one = xr.Variable("mask", ["a"])
    for noun, found in [
        (xr.Variable("object", ["a"]), r"noun \{'object': 1\}"),
        (xr.Variable((), "a"), r"noun \{\}"),
        (xr.Variable(("mask", "y"), [["a"]]), r"noun \{'mask': 1, 'y': 1\}"),
        (xr.Variable("mask", ["a", "b"]), r"noun \{'mask': 2\}"),
    ]:
        variables = {"image": one, "noun": noun, "instance": xr.Variable("mask", [0])}
        with pytest.raises(InvalidOption, match=rf"1-D along one dimension, not image .*, {found}"):
            MaskIndex.from_variables(variables, options={})
    flat = {
        "image": xr.Variable((), "a"),
        "noun": xr.Variable((), "a"),
        "instance": xr.Variable((), 0),
    }
    with pytest.raises(InvalidOption, match=r"must be 1-D along one dimension, not image \{\}"):
        MaskIndex.from_variables(flat, options={})


def test_options_are_refused() -> None:
    with pytest.raises(InvalidOption, match=r"^MaskIndex takes no options, not 'near'$"):
        plain().set_xindex(NAMES, MaskIndex, near=True)


def test_a_coordinate_cannot_leave_its_index_behind(masks: xr.DataArray) -> None:
    with pytest.raises(ValueError, match="corrupt"):
        masks.drop_vars("noun")
    with pytest.raises(ValueError, match="corrupt"):
        masks.assign_coords(noun=("mask", ["x"] * 8))
    with pytest.raises(ValueError, match="read-only"):
        masks.noun[0] = "changed"
    assert "noun" not in masks.drop_indexes(NAMES).drop_vars("noun").coords


# Making one ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "noun",
    [
        ["hand", "cup"],
        pd.Series(["hand", "cup"], dtype="str"),
        pd.Series(["hand", "cup"], dtype=object),
        pd.Categorical(["hand", "cup"]),
        np.array(["hand", "cup"], np.dtypes.StringDType(na_object=np.nan)),
        xr.Variable("mask", ["hand", "cup"]).chunk().data,
    ],
    ids=["list", "str", "object", "categorical", "StringDType-nan", "dask"],
)
@pytest.mark.parametrize(
    "instance", [[0, 1], pd.array([0, 1], dtype="Int64"), np.array([0, 1], "uint8")]
)
def test_strings_and_integers_of_all_kinds(noun: ArrayLike, instance: ArrayLike) -> None:
    dataset = xr.Dataset(
        coords={
            "image": ("mask", ["a", "b"]),
            "noun": ("mask", noun),
            "instance": ("mask", instance),
        }
    ).set_xindex(NAMES, MaskIndex)
    assert dataset.sel(noun="cup").instance.to_numpy().tolist() == [1]
    assert dataset.sel(instance=[0]).noun.to_numpy().tolist() == ["hand"]
    assert dataset.image.dtype.kind == "U"


def test_the_order_of_known_names_does_not_matter() -> None:
    masks = plain().set_xindex(["instance", "noun", "image"], MaskIndex)
    check(masks.sel(noun="hand"), [1, 2, 4])
    assert index_of(masks).equals(index_of(indexed()))


def test_coordinates_can_be_made_from_an_index() -> None:
    variables = {name: plain()[name].variable for name in NAMES}
    index = MaskIndex.from_variables(variables, options={})
    masks = xr.DataArray(
        plain().data, coords=xr.Coordinates.from_xindex(index), dims=("mask", "y", "x")
    )
    check(masks.sel(noun="hand"), [1, 2, 4])
    created = index.create_variables(variables)
    assert list(created) == NAMES
    assert created["noun"].attrs == {"long_name": "what it is"}


# Operations that keep the index -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows_asked", "expected"),
    [
        (slice(None), ROWS),
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [7, 5, 3, 1]),
        ([6, 0, 0], [6, 0, 0]),
        ([], []),
        (range(3), [0, 1, 2]),
        (np.array([True, False] * 4), [0, 2, 4, 6]),
        (np.array([-1, 0]), [7, 0]),
        (xr.DataArray([5, 4], dims="mask"), [5, 4]),
        (xr.Variable("mask", [5, 4]), [5, 4]),
    ],
)
def test_isel_keeps_the_index(masks: xr.DataArray, rows_asked: Any, expected: list[int]) -> None:
    check(masks.isel(mask=rows_asked), expected)
    check(masks[rows_asked], expected)


def test_isel_that_removes_the_dimension_drops_the_index(masks: xr.DataArray) -> None:
    assert not masks[3].xindexes
    assert masks[3].noun.item() == "face"
    assert not masks.isel(mask=xr.DataArray(3)).xindexes
    at_points = masks.isel(mask=xr.DataArray([3, 4], dims="trial"))
    assert not at_points.xindexes
    assert at_points.noun.dims == ("trial",)
    check(masks.isel(y=0, drop=True).expand_dims("y", axis=1).isel(x=[0]), ROWS)


def test_numbers_stay_ordinary_coordinates(masks: xr.DataArray) -> None:
    check(masks[masks.score > 0.5], [4, 5, 6, 7])
    check(masks.where(masks.score > 0.5, drop=True).sel(noun="hand"), [4])
    assert masks.to_dataset().query(mask="score > 0.5").sel(noun="hand").sizes["mask"] == 1
    check(masks.sortby("score", ascending=False), ROWS[::-1])


def test_concat_puts_masks_back_together(masks: xr.DataArray) -> None:
    check(xr.concat([masks[5:], masks[:0], masks[:5]], dim="mask"), [5, 6, 7, 0, 1, 2, 3, 4])
    check(xr.concat([indexed("U8"), masks], dim="mask"), ROWS * 2)
    nested = xr.combine_nested([masks[:2], masks[2:]], concat_dim="mask")
    assert isinstance(nested, xr.DataArray)
    check(nested, ROWS)
    stacked = xr.concat([masks, masks + 1], dim="session")
    assert stacked.sel(noun="hand").dims == ("session", "mask", "y", "x")


def test_concat_in_given_positions(masks: xr.DataArray) -> None:
    parts = [index_of(masks[1::2]), index_of(masks[::2])]
    joined = MaskIndex.concat(parts, "mask", positions=[range(1, 8, 2), range(0, 8, 2)])
    assert joined.equals(index_of(masks))


@pytest.mark.parametrize(
    ("join", "expected"),
    [
        ("inner", [3, 4]),
        ("outer", [0, 1, 2, 3, 4, 7, 6, 5]),
        ("left", [0, 1, 2, 3, 4]),
        ("right", [7, 6, 5, 4, 3]),
    ],
)
def test_align_by_key(
    masks: xr.DataArray, join: Literal["inner", "outer", "left", "right"], expected: list[int]
) -> None:
    first, second = masks[:5], masks[:2:-1]
    aligned = xr.align(first, second, join=join, fill_value=255)
    for one, rows_of_one in zip(aligned, (ROWS[:5], ROWS[3:]), strict=True):
        assert labels(one) == [TABLE[row] for row in expected]
        assert rows(one) == [row if row in rows_of_one else 255 for row in expected]
        assert one.noun.dtype == STRING
    assert index_of(aligned[0]).equals(index_of(aligned[1]))


def test_align_of_nothing(masks: xr.DataArray) -> None:
    none, of_none = xr.align(masks[:0], masks, join="inner")
    check(none, [])
    check(of_none, [])
    filled, every = xr.align(masks[:0], masks, join="outer", fill_value=0)
    check(every, ROWS)
    assert labels(filled) == TABLE


def test_arithmetic_aligns(masks: xr.DataArray) -> None:
    check((masks + masks[::-1]) // 2, ROWS)
    check((masks[2:] * masks[:4]) ** 0.5, [2, 3])
    assert (
        masks[:3].reindex_like(masks, fill_value=9)[:, 0, 0].to_numpy().tolist()
        == [0, 1, 2] + [9] * 5
    )


def test_align_needs_unique_keys(masks: xr.DataArray) -> None:
    twice = masks.isel(mask=[3, 4, 3])
    message = (
        r"^masks can be aligned only where each key is there once, and image 'b\.jpg', "
        r"noun 'face', instance 0 is at rows 0, 2: keep one of them with \.isel\(mask=\.\.\.\)$"
    )
    with pytest.raises(InvalidOption, match=message):
        xr.align(twice, masks, join="inner")
    with pytest.raises(InvalidOption, match=message):
        xr.align(masks, twice, join="outer")
    with pytest.raises(InvalidOption, match=message):
        twice.reindex_like(masks)
    check((twice + twice) // 2, [3, 4, 3])
    check(masks.reindex_like(twice), [3, 4, 3])


def test_reindex_with_a_method_is_refused(masks: xr.DataArray) -> None:
    with pytest.raises(InvalidOption, match=r"align without method= and tolerance="):
        masks[:3].reindex_like(masks, method="nearest")


def test_groupby(masks: xr.DataArray) -> None:
    by_noun = masks.groupby("noun").max()
    assert dict(
        zip(by_noun.noun.to_numpy().tolist(), by_noun[:, 0, 0].to_numpy().tolist(), strict=True)
    ) == {
        "cup": 0,
        "face": 7,
        "fingers": 5,
        "hand": 4,
        "piano": 6,
    }
    assert masks.groupby("image").mean().sel(image="c.jpg")[0, 0] == 5.5
    assert masks.groupby(["image", "noun"]).count().sizes["noun"] == 5
    check(masks.groupby("noun").map(lambda group: group), ROWS)
    groups = {str(noun): rows(group.sel(noun=noun)) for noun, group in masks.groupby("noun")}
    assert groups["hand"] == [1, 2, 4]


def test_map_blocks(masks: xr.DataArray) -> None:
    chunked = masks.chunk(mask=3)
    doubled = chunked.map_blocks(lambda block: block * 2)
    check(doubled.compute() // 2, ROWS)
    hands = chunked.sel(noun="hand")
    check(hands.map_blocks(lambda block: block + 0, template=hands).compute(), [1, 2, 4])
    renamed = chunked.rename(noun="concept")
    again = chunked.map_blocks(lambda block: block.rename(noun="concept"), template=renamed)
    assert again.sel(concept="hand").compute()[:, 0, 0].to_numpy().tolist() == [1, 2, 4]


def test_labels_are_in_memory_again_after_chunk(masks: xr.DataArray) -> None:
    chunked = masks.chunk(mask=3)
    assert chunked[:].noun.chunks is None
    assert chunked[:].groupby("noun").max().compute().sel(noun="hand")[0, 0] == 4


def test_copies_and_pickles(masks: xr.DataArray) -> None:
    for again in (
        masks.copy(),
        masks.copy(deep=True),
        copy.deepcopy(masks),
        pickle.loads(pickle.dumps(masks)),  # noqa: S301
    ):
        xr.testing.assert_identical(again, masks)
        check(again.sel(noun="hand"), [1, 2, 4])
        assert again.noun.dtype == STRING


def test_rename(masks: xr.DataArray) -> None:
    renamed = masks.rename(noun="concept", mask="object")
    assert renamed.sel(concept="hand").sizes["object"] == 3
    assert renamed.concept.attrs == {"long_name": "what it is"}
    with pytest.raises(LabelNotFound, match=r"^no mask has concept 'hnd'; did you mean 'hand'\?$"):
        renamed.sel(concept="hnd")
    assert repr(index_of(renamed, "concept")).startswith(
        "MaskIndex (8 objects; images: 3, concepts: 5)\n"
    )
    check(renamed.rename(concept="noun", object="mask"), ROWS)
    other_names = renamed.drop_indexes(["image", "concept", "instance"])
    again = other_names.set_xindex(["image", "concept", "instance"], MaskIndex)
    assert index_of(again, "concept").equals(index_of(renamed, "concept"))


@pytest.mark.parametrize("shift", [0, 3, -3, 11])
def test_roll(masks: xr.DataArray, shift: int) -> None:
    check(masks.roll(mask=shift, roll_coords=True), np.roll(ROWS, shift).tolist())


def test_sort_by_label(masks: xr.DataArray) -> None:
    check(masks.sortby("noun"), [0, 3, 7, 5, 1, 2, 4, 6])
    check(masks.sortby(["image", "noun"]).sel(noun="hand"), [1, 2, 4])


def test_reductions_that_keep_masks(masks: xr.DataArray) -> None:
    area = masks.sum(("y", "x"))
    assert area.sel(noun="hand").to_numpy().tolist() == [6, 12, 24]
    assert not masks.any("mask").xindexes
    check(masks.transpose("x", "mask", "y").transpose("mask", "y", "x"), ROWS)


def test_swap_dims_leaves_no_wrong_answer(masks: xr.DataArray) -> None:
    swapped = masks.swap_dims(mask="noun")
    assert not swapped[2:4].xindexes
    with pytest.raises(ValueError, match="mask"):
        swapped.sel(noun="hand")


def test_keys_are_numbered_and_join_needs_unique_ones(masks: xr.DataArray) -> None:
    twice = index_of(masks.isel(mask=[4, 0, 4, 1]))
    assert twice.keys().tolist() == [2, 0, 2, 1]
    with pytest.raises(InvalidOption, match=r"instance 0 is at rows 0, 2: keep one of them"):
        twice.join(index_of(masks))
    with pytest.raises(InvalidOption, match=r"instance 0 is at rows 0, 2: keep one of them"):
        index_of(masks).join(twice, how="outer")


def test_equals(masks: xr.DataArray) -> None:
    index = index_of(masks)
    assert index.equals(index_of(indexed("U8")))
    assert not index.equals(index_of(masks[::-1]))
    assert not index.equals(index_of(masks[1:]))
    assert not index.equals(index_of(masks.rename(noun="concept"), "image"))
    assert not index.equals(index_of(masks.rename(mask="object")))
    assert not index.equals(xr.indexes.PandasIndex([1], "mask"))
    assert masks.equals(masks.copy(deep=True))
    assert not masks.equals(masks[::-1])


def test_pandas_sees_a_multiindex(masks: xr.DataArray) -> None:
    by_key = masks.sel(image="a.jpg").indexes["noun"]
    assert isinstance(by_key, pd.MultiIndex)
    assert by_key.names == NAMES
    assert by_key.tolist() == [TABLE[row] for row in (0, 1, 2, 7)]
    assert index_of(masks[:0]).to_pandas_index().tolist() == []


def test_a_table_needs_the_index_dropped_first(masks: xr.DataArray) -> None:
    """The three would be left out: levels of the table's index, xarray believes."""
    area = masks.sum(("y", "x"), keep_attrs=False)
    assert list(area.to_dataframe().columns) == ["score", "masks"]
    table = area.drop_indexes(NAMES).to_dataframe()
    assert table["noun"].tolist() == [noun for _, noun, _ in TABLE]


# What one sees ------------------------------------------------------------------------------------


def test_reprs(masks: xr.DataArray) -> None:
    assert repr(index_of(masks)) == (
        "MaskIndex (8 masks; images: 3, nouns: 5)\n"
        "  image     'a.jpg', 'b.jpg', 'c.jpg'\n"
        "  noun      'cup', 'face', 'fingers', 'hand', 'piano'\n"
        "  instance  0, 1"
    )
    assert "image     MaskIndex (8 masks; images: 3, nouns: 5)" in repr(masks)
    assert "MaskIndex (1 mask; images: 1, nouns: 1)" in repr(masks[:1])
    assert index_of(masks)._repr_inline_(20) == "MaskIndex (8 masks;…"


def test_html_repr_escapes_labels(masks: xr.DataArray) -> None:
    evil = masks.drop_indexes(NAMES).assign_coords(noun=("mask", ["<script>"] * 8))
    html = str(operator.methodcaller("_repr_html_")(evil.set_xindex(NAMES, MaskIndex)))
    assert "MaskIndex (8 masks; images: 3, nouns: 1)" in html
    assert "<script>" not in html


# Elsewhere ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [STRING, object], ids=["StringDType", "object"])
def test_a_selection_goes_to_zarr_and_back(tmp_path: Path, dtype: DTypeLike) -> None:
    masks = indexed(dtype, chunked=True)
    masks.sel(image=["a.jpg", "c.jpg"]).to_dataset().to_zarr(tmp_path / "first.zarr", zarr_format=3)
    with xr.open_zarr(tmp_path / "first.zarr") as stored:
        again = stored.masks.set_xindex(NAMES, MaskIndex)
        check(again, [0, 1, 2, 5, 6, 7])
        assert again.noun.dtype == STRING
        # Chunks that the coordinates remember are larger than this selection.
        again.sel(noun="hand").compute().to_dataset().to_zarr(
            tmp_path / "second.zarr", zarr_format=3
        )
    with xr.open_zarr(tmp_path / "second.zarr", chunks=None) as stored:
        check(stored.masks.set_xindex(NAMES, MaskIndex), [1, 2])


def test_dask_workers_get_the_index() -> None:
    distributed = pytest.importorskip("distributed")
    masks = indexed(chunked=True)
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=1,
            processes=True,
            dashboard_address="127.0.0.1:0",
            host="127.0.0.1",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        select = operator.methodcaller("sel", noun=["hand", "face"])
        answer = client.submit(select, masks.compute()).result(timeout=60)
        check(answer, [1, 2, 3, 4, 7])
        assert answer.noun.dtype == STRING
        check(masks.sel(noun="hand").persist().compute(), [1, 2, 4])


def test_the_index_needs_no_reader() -> None:
    program = (
        "import sys, maskcube.index; "
        "print([name for name in ('dask', 'zarr', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
