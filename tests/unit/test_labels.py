"""LabelColumn: labels once each, codes for the masks, and what a question stands for."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.typing import DTypeLike, NDArray

from maskcube.errors import InvalidOption, LabelNotFound
from maskcube.labels import LabelColumn

NOUNS = ["hand", "cup", "hand", "face", "cup"]
STRING_DTYPES = [
    pytest.param("U8", id="U"),
    pytest.param(np.dtypes.StringDType(), id="StringDType"),
    pytest.param(np.dtypes.StringDType(na_object=np.nan), id="StringDType-nan"),
    pytest.param(object, id="object"),
]


def nouns(values: Iterable[object] = NOUNS, dtype: DTypeLike = "U8") -> LabelColumn:
    return LabelColumn.of_strings("noun", np.array(list(values), dtype))


def instances(values: Iterable[int] = (0, 2, 1, 0), dtype: DTypeLike = "int64") -> LabelColumn:
    return LabelColumn.of_integers("instance", np.array(list(values), dtype))


def spelt(column: LabelColumn, label: object) -> list[Any]:
    return list(column.labels[column.asked(label).codes])


@pytest.mark.parametrize("dtype", STRING_DTYPES)
def test_strings_are_kept_once_and_come_back_in_their_dtype(dtype: DTypeLike) -> None:
    column = nouns(dtype=dtype)
    assert column.labels.tolist() == ["cup", "face", "hand"]
    assert column.codes.tolist() == [2, 0, 2, 1, 0]
    assert column.codes.dtype == np.uint8
    assert column.array.tolist() == NOUNS
    assert column.array.dtype == np.dtype(dtype)
    assert len(column) == 5


@pytest.mark.parametrize("dtype", STRING_DTYPES)
@pytest.mark.parametrize("length", [0, 1, 2])
def test_few_or_no_masks(dtype: DTypeLike, length: int) -> None:
    column = nouns(NOUNS[:length], dtype)
    assert column.array.tolist() == NOUNS[:length]
    assert column.array.dtype == np.dtype(dtype)


@pytest.mark.parametrize("dtype", ["int64", "uint8", ">i4", "uint64"])
def test_integers_come_back_in_their_dtype(dtype: str) -> None:
    column = instances(dtype=dtype)
    assert column.labels.tolist() == [0, 1, 2]
    assert column.array.tolist() == [0, 2, 1, 0]
    assert column.array.dtype == np.dtype(dtype)


def test_strings_of_numpy_become_plain_ones() -> None:
    column = LabelColumn.of_strings("noun", np.array([np.str_("hand")], object))
    assert [type(label) for label in column.labels] == [str]


def test_runs_of_one_label_and_no_runs_give_the_same_codes() -> None:
    in_runs = np.repeat(np.array([f"{i}.jpg" for i in range(300)]), 7)
    shuffled = np.random.default_rng(0).permutation(len(in_runs))
    column = LabelColumn.of_strings("image", in_runs)
    assert column.codes.dtype == np.uint16
    np.testing.assert_array_equal(column.array, in_runs)
    again = LabelColumn.of_strings("image", in_runs[shuffled])
    np.testing.assert_array_equal(again.codes, column.codes[shuffled])


@pytest.mark.parametrize("dtype", STRING_DTYPES[1:])
@pytest.mark.parametrize(
    "labels",
    [["a\0b", "a\0c", "a"], ["nan", "NA", "None", ""], ["\u00e9", "e\u0301", "E", "e"], ["", " "]],
)
def test_labels_that_look_alike_stay_apart(labels: list[str], dtype: DTypeLike) -> None:
    column = nouns(labels, dtype)
    assert column.labels.tolist() == sorted(labels)
    assert [spelt(column, label) for label in labels] == [[label] for label in labels]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            np.array([1, 2]),
            "'noun' must hold strings, not int64: give the coordinates in the order",
        ),
        (np.array([b"hand"]), "'noun' must hold strings, not |S4"),
        (np.array(["hand", None], object), r"must hold strings: row 1 has None (NoneType)"),
        (np.array(["hand", np.nan], object), "must hold strings: row 1 has nan (float)"),
        (np.array([["hand"], 3], object), "must hold strings: row 0 has ['hand'] (list)"),
        (
            np.array(["hand", np.nan], np.dtypes.StringDType(na_object=np.nan)),
            "must hold strings: row 1 has nan (float)",
        ),
    ],
)
def test_what_is_no_string_is_refused(values: NDArray[Any], complaint: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        LabelColumn.of_strings("noun", values)
    assert complaint in str(caught.value)


@pytest.mark.parametrize("values", [np.array([0.0]), np.array([True]), np.array([0], object)])
def test_what_is_no_integer_is_refused(values: NDArray[Any]) -> None:
    message = rf"'instance' must hold integers, not {values.dtype}: convert it with \.astype"
    with pytest.raises(InvalidOption, match=message):
        LabelColumn.of_integers("instance", values)


@pytest.mark.parametrize("dtype", STRING_DTYPES)
def test_values_are_read_only_and_not_those_given(dtype: DTypeLike) -> None:
    given = np.array(NOUNS, dtype)
    column = LabelColumn.of_strings("noun", given)
    given[0] = "changed"
    assert column.array.tolist() == NOUNS
    with pytest.raises(ValueError, match="read-only"):
        column.array[0] = "changed"


@pytest.mark.parametrize(
    "rows", [slice(1, 2), np.array([3, 3]), np.array([True, False] * 2 + [True])]
)
def test_taken_rows_know_only_their_own_labels(rows: slice | NDArray[Any]) -> None:
    taken = nouns().take(rows)
    expected = np.array(NOUNS)[rows].tolist()
    assert taken.array.tolist() == expected
    assert taken.labels.tolist() == sorted(set(expected))


def test_a_pickle_holds_codes_and_no_values() -> None:
    column = nouns(NOUNS * 1000, np.dtypes.StringDType())
    stored = pickle.dumps(column)
    assert len(stored) < 6000
    again = pickle.loads(stored)  # noqa: S301
    assert again.equals(column)
    assert again.array.tolist() == column.array.tolist()
    assert copy.deepcopy(column) is column


def test_equal_means_name_and_labels_whatever_the_dtype() -> None:
    assert nouns().equals(nouns(dtype=object))
    assert not nouns().equals(nouns(NOUNS[::-1]))
    assert not nouns().equals(nouns(["hand", "cup", "hand", "fac", "cup"]))
    assert not nouns().equals(nouns(NOUNS[:-1]))
    assert not nouns().equals(LabelColumn.of_strings("concept", np.array(NOUNS)))


@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [
        ("U4", "U9", np.dtype("U9")),
        ("U4", np.dtypes.StringDType(), np.dtypes.StringDType()),
        ("U4", object, np.dtype(object)),
    ],
)
def test_concat_widens_the_dtype(first: DTypeLike, second: DTypeLike, dtype: np.dtype[Any]) -> None:
    joined = LabelColumn.concat([nouns(["hand", "cup"], first), nouns(["armadillo"], second)])
    assert joined.array.tolist() == ["hand", "cup", "armadillo"]
    assert joined.array.dtype == dtype
    assert joined.labels.tolist() == ["armadillo", "cup", "hand"]


def test_concat_of_signed_and_unsigned_integers_stays_exact() -> None:
    large = 2**53 + 1
    joined = LabelColumn.concat([instances([large]), instances([0], "uint64")])
    assert joined.array.tolist() == [large, 0]
    assert joined.array.dtype == np.int64


@pytest.mark.parametrize(
    "label", ["cup", np.str_("cup"), np.array("cup"), xr.DataArray("cup"), xr.Variable((), "cup")]
)
def test_a_scalar_is_asked_in_many_forms(label: object) -> None:
    asked = nouns().asked(label)
    assert asked.codes.tolist() == [0]
    assert asked.named
    assert asked.scalar


@pytest.mark.parametrize("label", [1, np.int8(1), np.uint64(1), np.array(1), xr.DataArray(1)])
def test_an_integer_is_asked_in_many_forms(label: object) -> None:
    assert instances().asked(label).codes.tolist() == [1]


@pytest.mark.parametrize(
    "labels",
    [
        ["hand", "cup", "hand"],
        ("hand", "cup"),
        {"hand", "cup"},
        iter(["hand", "cup"]),
        {"hand": 1, "cup": 2}.keys(),
        np.array(["hand", "cup"]),
        np.array(["hand", "cup"], np.dtypes.StringDType()),
        np.array(["hand", "cup"], object),
        pd.Series(["hand", "cup"], index=[5, 6]),
        pd.Index(["hand", "cup"]),
        pd.Categorical(["hand", "cup"]),
        [np.array("hand"), xr.DataArray("cup")],
    ],
)
def test_a_list_is_any_iterable(labels: object) -> None:
    asked = nouns().asked(labels)
    assert asked.codes.tolist() == [0, 2]
    assert asked.named
    assert not asked.scalar


@pytest.mark.parametrize("labels", [[1, 2, 1], range(1, 3), np.array([2, 1], "uint8"), {1, 2}])
def test_a_list_of_integers(labels: object) -> None:
    assert instances().asked(labels).codes.tolist() == [1, 2]


@pytest.mark.parametrize("labels", [[], (), np.array([]), set()])
def test_an_empty_list_is_a_list_of_nothing(labels: object) -> None:
    asked = nouns().asked(labels)
    assert asked.codes.tolist() == []
    assert asked.named


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        (slice(None), ["cup", "face", "hand"]),
        (slice("cup", "face"), ["cup", "face"]),
        (slice("d", "g"), ["face"]),
        (slice(None, "face"), ["cup", "face"]),
        (slice("face", None), ["face", "hand"]),
        (slice(np.str_("face"), np.array("hand")), ["face", "hand"]),
        (slice("hand", "cup"), []),
        (slice("x", "z"), []),
    ],
)
def test_a_slice_is_an_inclusive_range_of_sorted_labels(bounds: slice, expected: list[str]) -> None:
    assert spelt(nouns(), bounds) == expected
    assert not nouns().asked(bounds).named


def test_a_slice_of_integers_may_lie_beyond_int64() -> None:
    assert spelt(instances(), slice(1, 2**80)) == [1, 2]
    assert spelt(instances(), slice(-(2**80), 1)) == [0, 1]


def test_a_callable_is_tried_once_for_each_distinct_label() -> None:
    tried: list[str] = []

    def is_no_face(noun: str) -> bool:
        tried.append(noun)
        return noun != "face"

    asked = nouns().asked(is_no_face)
    assert tried == ["cup", "face", "hand"]
    assert asked.codes.tolist() == [0, 2]
    assert not asked.named
    assert spelt(nouns(), re.compile("a[cn]").search) == ["face", "hand"]
    assert spelt(nouns(), lambda _: False) == []


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (3, "3 (int)"),
        (True, "True (bool)"),
        (None, "None (NoneType)"),
        (np.nan, "nan (float)"),
        (b"hand", "b'hand' (bytes)"),
        ({"hand": 1}, "{'hand': 1} (dict)"),
        (re.compile("x"), "re.compile('x') (Pattern)"),
        ([True, False], "True (bool)"),
        (["hand", None], "None (NoneType)"),
        ([["hand"]], "['hand'] (list)"),
        (slice(0, 2), "0 (int)"),
        (slice(None, 2.5), "2.5 (float)"),
    ],
)
def test_a_label_of_another_type_is_no_string(label: object, shown: str) -> None:
    with pytest.raises(LabelNotFound) as caught:
        nouns().asked(label)
    message = f"noun takes a string, a list, a slice or a callable, not {shown}"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("0", "'0' (str)"),
        (True, "True (bool)"),
        (np.True_, "True (bool)"),
        (0.0, "0.0 (float)"),
        (None, "None (NoneType)"),
        (np.array([0.0, 1.0]), "0.0 (float)"),
        (np.datetime64("2020-01-01"), "datetime.date(2020, 1, 1) (date)"),
    ],
)
def test_a_label_of_another_type_is_no_integer(label: object, shown: str) -> None:
    with pytest.raises(LabelNotFound) as caught:
        instances().asked(label)
    message = f"instance takes an integer, a list, a slice or a callable, not {shown}"
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("hnd", "no mask has noun 'hnd'; did you mean 'hand'?"),
        ("HAND", "no mask has noun 'HAND'; did you mean 'hand'?"),
        (" cup", "no mask has noun ' cup'; did you mean 'cup'?"),
        ("piano", "no mask has noun 'piano'; there are nouns 'cup', 'face', 'hand'"),
        ("", "no mask has noun ''; there are nouns 'cup', 'face', 'hand'"),
        (["cup", "fase", "hnd"], "no mask has nouns 'fase', 'hnd'; did you mean 'face' or 'hand'?"),
        (["hnd", "hamd"], "no mask has nouns 'hnd', 'hamd'; did you mean 'hand'?"),
        (
            ["x", "y", "z", "hnd"],
            "no mask has nouns 'x', 'y', 'z', 'hnd'; there are nouns 'cup', 'face', 'hand'",
        ),
    ],
)
def test_a_missing_label_names_near_spellings(label: object, message: str) -> None:
    with pytest.raises(LabelNotFound) as caught:
        nouns().asked(label)
    assert str(caught.value) == message
    assert isinstance(caught.value, KeyError)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (7, "no mask has instance 7; there are instances 0, 1, 2"),
        ([0, -1, 2**70], "no mask has instances -1, 1180591620717411303424; there are"),
    ],
)
def test_a_missing_integer_names_those_that_exist(label: object, message: str) -> None:
    with pytest.raises(LabelNotFound) as caught:
        instances().asked(label)
    assert str(caught.value).startswith(message)


def test_a_missing_label_among_one_or_none() -> None:
    with pytest.raises(LabelNotFound, match=r"^no mask has noun 'zz'; there is noun 'cup'$"):
        nouns(["cup"]).asked("zz")
    with pytest.raises(LabelNotFound, match=r"^no mask has noun 'cup'; there are no masks here$"):
        nouns([]).asked("cup")


def test_labels_that_differ_in_case_only_are_both_suggested() -> None:
    with pytest.raises(LabelNotFound, match=r"did you mean 'Hand' or 'hand'\?$"):
        nouns(["hand", "Hand"]).asked("HAND")


def test_no_spellings_are_compared_among_very_many_labels() -> None:
    column = nouns([f"image {i:05}" for i in range(20_001)], object)
    with pytest.raises(LabelNotFound, match=r"; there are nouns .* \.\.\. \(20,001 in all\)$"):
        column.asked("image 0000")


def test_an_array_with_dimensions_is_refused() -> None:
    message = (
        r"^noun is an array with dims \('trial',\); each of its labels may name many masks: give "
        r"its \.values for any of these, or make labels unique first, as in "
        r'masks\.groupby\("noun"\)\.any\(\)\.sel\(noun=\.\.\.\)$'
    )
    for label in (xr.DataArray(["hand"], dims="trial"), xr.Variable("trial", ["hand"])):
        with pytest.raises(InvalidOption, match=message):
            nouns().asked(label)
    with pytest.raises(InvalidOption, match=r"^noun is an array of shape \(1, 1\): give a flat"):
        nouns().asked(np.array([["hand"]]))


def test_a_slice_takes_no_step() -> None:
    with pytest.raises(InvalidOption, match=r"^a slice of noun labels takes no step, which was 2:"):
        nouns().asked(slice("a", "z", 2))


def test_what_a_callable_raises_comes_through() -> None:
    with pytest.raises(ZeroDivisionError):
        instances().asked(lambda instance: 1 // instance)
