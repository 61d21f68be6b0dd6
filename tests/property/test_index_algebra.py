"""Every question and every rearrangement, against a plain pandas filter."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import DTypeLike

from maskcube.errors import InvalidOption, LabelNotFound
from maskcube.index import MaskIndex

NAMES = ["image", "noun", "instance"]
IMAGES = ["a.jpg", "B.jpg", "b.jpg", "", "shared_12rep_1003_i0.jpg", "\u00e9.jpg"]
NOUNS = ["hand", "Hand", "hands", "nan", "NA", "cell phone", "e\u0301", "a\0b", "0"]
INSTANCES = [0, 1, 2, 7]
DTYPES: list[DTypeLike] = ["U30", np.dtypes.StringDType(), object]

# Labels that a question may use: the first of each list are often in the table, the last never.
ASKED: dict[str, list[Any]] = {
    "image": [*IMAGES, "c.jpg", "a.jp"],
    "noun": [*NOUNS, "zebra", "an"],
    "instance": [*INSTANCES, 3, -1, 2**70],
}
EXHAUSTIVE = settings(max_examples=300, deadline=None)


@dataclass(frozen=True)
class Question:
    """What is asked of one coordinate, in three forms that mean the same."""

    label: Any  # what goes to .sel
    keeps: Callable[[Any], bool]  # whether a label is meant
    named: tuple[Any, ...] | None  # labels that must exist, or None for a filter
    scalar: bool = False

    def __repr__(self) -> str:
        return f"<{self.label!r}>"


def scalars(name: str) -> st.SearchStrategy[Question]:
    """Make one label, as it is or as a 0-d array."""

    def question(label: object, form: Callable[[object], object]) -> Question:
        return Question(form(label), lambda each: each == label, (label,), scalar=True)

    forms = [lambda label: label, lambda label: np.array(label, object), xr.DataArray]
    return st.builds(question, st.sampled_from(ASKED[name]), st.sampled_from(forms))


def lists(name: str) -> st.SearchStrategy[Question]:
    """Make several labels with repeats, in one of the containers that hold such."""

    def question(labels: list[Any], form: Callable[[list[Any]], Any]) -> Question:
        return Question(form(labels), lambda each: each in labels, tuple(labels))

    forms: list[Callable[[list[Any]], object]] = [
        list,
        tuple,
        set,
        lambda labels: np.array(labels, object),
        pd.Index,
    ]
    present = ASKED[name][:4]
    labels = st.lists(st.sampled_from(present), max_size=5) | st.lists(
        st.sampled_from(ASKED[name]), max_size=3
    )
    return st.builds(question, labels, st.sampled_from(forms))


def slices(name: str) -> st.SearchStrategy[Question]:
    """Make a range of labels, open or closed."""

    def question(start: object, stop: object) -> Question:
        return Question(
            slice(start, stop),
            lambda each: (start is None or each >= start) and (stop is None or each <= stop),
            None,
        )

    bounds = st.none() | st.sampled_from(ASKED[name])
    return st.builds(question, bounds, bounds)


def callables(name: str) -> st.SearchStrategy[Question]:
    """Make a predicate that some labels pass."""

    def question(labels: set[Any]) -> Question:
        return Question(lambda each: each in labels or None, lambda each: each in labels, None)

    return st.builds(question, st.sets(st.sampled_from(ASKED[name])))


def questions() -> st.SearchStrategy[dict[str, Question]]:
    """Questions for one, two or three coordinates."""
    of_each = {name: scalars(name) | lists(name) | slices(name) | callables(name) for name in NAMES}
    keys = st.fixed_dictionaries({name: scalars(name) for name in NAMES})
    return keys | st.fixed_dictionaries({}, optional=of_each).filter(bool)


def tables(*, unique: bool = False) -> st.SearchStrategy[pd.DataFrame]:
    """Tables of masks: sorted or not, with or without duplicates."""
    row = st.tuples(st.sampled_from(IMAGES), st.sampled_from(NOUNS), st.sampled_from(INSTANCES))
    every = st.lists(row, max_size=25, unique=unique)
    rows = every | every.map(sorted)
    return rows.map(lambda rows: pd.DataFrame(rows, columns=NAMES, dtype=object))


def masks_of(table: pd.DataFrame, dtype: DTypeLike) -> xr.DataArray:
    """Masks with an index, whose pixels say their row."""
    coords = {
        "image": ("mask", np.array(table["image"], dtype)),
        "noun": ("mask", np.array(table["noun"], dtype)),
        "instance": ("mask", np.array(table["instance"], "int64")),
    }
    pixels = np.arange(len(table))[:, None] * np.ones(2, int)
    return xr.DataArray(pixels, coords, ("mask", "x")).set_xindex(NAMES, MaskIndex)


def rows_of(masks: xr.DataArray) -> list[int]:
    assert masks.dims == ("mask", "x")
    return [int(row) for row in masks[:, 0]]


def check(masks: xr.DataArray, table: pd.DataFrame, dtype: DTypeLike) -> None:
    """Check pixels, labels, dtypes and index against a table whose index are the rows."""
    assert rows_of(masks) == table.index.tolist()
    for name in NAMES:
        assert masks[name].to_numpy().tolist() == table[name].tolist()
    assert masks.noun.dtype == np.dtype(dtype)
    assert masks.instance.dtype == np.int64
    index = masks.xindexes["noun"]
    fresh = MaskIndex.from_variables({name: masks[name].variable for name in NAMES}, options={})
    assert isinstance(index, MaskIndex)
    assert index.equals(fresh)
    assert repr(index) == repr(fresh)


def filtered(table: pd.DataFrame, asked: dict[str, Question]) -> pd.DataFrame:
    """Answer with a boolean filter, or raise what ``.sel`` should."""
    holds = {
        name: np.array([bool(question.keeps(label)) for label in table[name]], bool)
        for name, question in asked.items()
    }
    spelt = {name: question.named for name, question in asked.items() if question.named is not None}
    for name, labels in spelt.items():
        if set(labels) - set(table[name]):
            raise LabelNotFound(name)
    together = np.logical_and.reduce([holds[name] for name in spelt]) if spelt else np.array([True])
    if all(spelt.values()) and not together.any():
        raise LabelNotFound("together")
    kept = table[np.logical_and.reduce(list(holds.values()))]
    if is_key(asked) and len(kept) > 1:
        raise InvalidOption("several")
    return kept


def is_key(asked: dict[str, Question]) -> bool:
    return len(asked) == len(NAMES) and all(question.scalar for question in asked.values())


def check_answer(
    masks: xr.DataArray, table: pd.DataFrame, asked: dict[str, Question], dtype: DTypeLike
) -> None:
    labels = {name: question.label for name, question in asked.items()}
    try:
        answer = filtered(table, asked)
    except (LabelNotFound, InvalidOption) as expected:
        with pytest.raises(type(expected)):
            masks.sel(labels)
        return
    selected = masks.sel(labels)
    if is_key(asked):
        assert selected.dims == ("x",)
        assert [int(selected[0])] == answer.index.tolist()
        assert [selected[name].item() for name in NAMES] == answer.iloc[0].tolist()
    else:
        check(selected, answer, dtype)


@EXHAUSTIVE
@given(table=tables(), asked=questions(), dtype=st.sampled_from(DTYPES))
def test_sel_is_a_boolean_filter(
    table: pd.DataFrame, asked: dict[str, Question], dtype: DTypeLike
) -> None:
    check_answer(masks_of(table, dtype), table, asked, dtype)


@EXHAUSTIVE
@given(table=tables(), dtype=st.sampled_from(DTYPES), in_list=st.sampled_from(NAMES))
def test_every_key_finds_its_masks(table: pd.DataFrame, dtype: DTypeLike, in_list: str) -> None:
    masks = masks_of(table, dtype)
    for values in set(table.itertuples(index=False, name=None)):
        key = dict(zip(NAMES, values, strict=True))
        rows = [row for row, each in enumerate(table.to_numpy().tolist()) if tuple(each) == values]
        if len(rows) == 1:
            assert int(masks.sel(key)[0]) == rows[0]
        else:
            with pytest.raises(InvalidOption, match=f"names {len(rows)} masks, rows {rows[0]}, "):
                masks.sel(key)
        assert rows_of(masks.sel({**key, in_list: [key[in_list]]})) == rows


Rearranged = tuple[xr.DataArray, pd.DataFrame]


def isel(masks: xr.DataArray, table: pd.DataFrame, rows: slice) -> Rearranged:
    return masks.isel(mask=rows), table.iloc[rows]


def take(masks: xr.DataArray, table: pd.DataFrame, numbers: list[int]) -> Rearranged:
    rows = [number % len(table) for number in numbers] if len(table) else []
    return masks.isel(mask=rows), table.iloc[rows]


def keep(masks: xr.DataArray, table: pd.DataFrame, bits: int) -> Rearranged:
    wanted = np.array([bits >> row & 1 for row in range(len(table))], bool)
    return masks[xr.DataArray(wanted, dims="mask")], table[wanted]


def permute(masks: xr.DataArray, table: pd.DataFrame, seed: int) -> Rearranged:
    order = np.random.default_rng(seed).permutation(len(table))
    return masks[order], table.iloc[order]


def concat(masks: xr.DataArray, table: pd.DataFrame, cut: int) -> Rearranged:
    parts = [slice(cut, None), slice(cut), slice(1)]
    joined = xr.concat([masks[part] for part in parts], dim="mask")
    return joined, pd.concat([table.iloc[part] for part in parts])


def roll(masks: xr.DataArray, table: pd.DataFrame, shift: int) -> Rearranged:
    if not len(table):
        # Variable.roll divides by their number in some versions of xarray.
        return masks, table
    order = np.roll(np.arange(len(table)), shift)
    return masks.roll(mask=shift, roll_coords=True), table.iloc[order]


def sort(masks: xr.DataArray, table: pd.DataFrame, name: str) -> Rearranged:
    return masks.sortby(name), table.sort_values(name, kind="stable")


def carry(masks: xr.DataArray, table: pd.DataFrame, how: str) -> Rearranged:
    if how == "deep copy":
        return copy.deepcopy(masks), table
    if how == "pickle":
        return pickle.loads(pickle.dumps(masks)), table  # noqa: S301
    renamed = masks.rename(noun="concept", mask="object")
    return renamed.rename(concept="noun", object="mask"), table


def select(masks: xr.DataArray, table: pd.DataFrame, asked: dict[str, Question]) -> Rearranged:
    try:
        answer = filtered(table, asked)
    except (LabelNotFound, InvalidOption):
        return masks, table
    selected = masks.sel({name: question.label for name, question in asked.items()})
    return (masks, table) if is_key(asked) else (selected, answer)


def steps() -> st.SearchStrategy[tuple[Callable[..., Rearranged], Any]]:
    """Ways to rearrange masks, each with its argument."""
    numbers = st.integers(-30, 30)
    ends = st.none() | numbers
    arguments: dict[Callable[..., Rearranged], st.SearchStrategy[Any]] = {
        isel: st.builds(slice, ends, ends, st.sampled_from([None, 2, -1, -3])),
        take: st.lists(numbers, max_size=12),
        keep: st.integers(0, 2**25),
        permute: st.integers(0, 1000),
        concat: numbers,
        roll: numbers,
        sort: st.sampled_from(NAMES),
        carry: st.sampled_from(["deep copy", "pickle", "rename"]),
        select: questions(),
    }
    return st.one_of([st.tuples(st.just(step), each) for step, each in arguments.items()])


@EXHAUSTIVE
@given(
    table=tables(),
    path=st.lists(steps(), min_size=1, max_size=4),
    asked=questions(),
    dtype=st.sampled_from(DTYPES),
)
def test_sel_after_any_rearrangement(
    table: pd.DataFrame,
    path: list[tuple[Callable[..., Rearranged], Any]],
    asked: dict[str, Question],
    dtype: DTypeLike,
) -> None:
    masks = masks_of(table, dtype)
    for step, argument in path:
        masks, table = step(masks, table, argument)
        check(masks, table, dtype)
    check_answer(masks, table, asked, dtype)


@EXHAUSTIVE
@given(
    table=tables(unique=True),
    cuts=st.tuples(st.integers(0, 25), st.integers(0, 25)),
    seed=st.integers(0, 1000),
    dtypes=st.tuples(st.sampled_from(DTYPES), st.sampled_from(DTYPES)),
    join=st.sampled_from(["inner", "outer", "left", "right"]),
)
def test_align_is_a_merge_on_the_three_labels(
    table: pd.DataFrame,
    cuts: tuple[int, int],
    seed: int,
    dtypes: tuple[DTypeLike, DTypeLike],
    join: Literal["inner", "outer", "left", "right"],
) -> None:
    tables_of = [table.iloc[: cuts[0]], table.iloc[cuts[1] :].sample(frac=1, random_state=seed)]
    both = [
        masks_of(part, dtype) + 100 * number
        for number, (part, dtype) in enumerate(zip(tables_of, dtypes, strict=True))
    ]
    aligned = xr.align(*both, join=join, fill_value=-1)
    first, second = ([tuple(row) for row in part.to_numpy().tolist()] for part in tables_of)
    expected = {
        "inner": [row for row in first if row in second],
        "outer": [*first, *(row for row in second if row not in first)],
        "left": first,
        "right": second,
    }[join]
    if first == second:
        expected = first
    for number, (one, rows) in enumerate(zip(aligned, (first, second), strict=True)):
        found = zip(*(one[name].to_numpy().tolist() for name in NAMES), strict=True)
        assert list(found) == expected
        assert rows_of(one) == [
            rows.index(row) + 100 * number if row in rows else -1 for row in expected
        ]
