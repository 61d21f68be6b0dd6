"""Masks and the boundaries of their runs: one says exactly what the other does."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from maskcube.boundaries import boundaries_of, boundaries_of_steps, masks_from_runs, steps_of
from maskcube.errors import InvalidOption

stacks = array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=12).flatmap(
    lambda shape: arrays(np.uint8, shape, elements=st.integers(0, 1))
)


def ragged(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, parts)])
    return np.concatenate(parts), offsets


@given(stacks)
def test_masks_come_back_from_their_runs(masks: np.ndarray) -> None:
    boundaries, offsets = ragged([boundaries_of(mask) for mask in masks])
    assert boundaries.dtype == np.int32
    np.testing.assert_array_equal(masks_from_runs(boundaries, offsets, masks.shape[1:]), masks)


@given(stacks)
def test_boundaries_are_those_of_an_independent_count(masks: np.ndarray) -> None:
    for mask in masks:
        pixels = [0, *mask.reshape(-1).tolist(), 0]
        expected = [i for i in range(len(pixels) - 1) if pixels[i] != pixels[i + 1]]
        assert boundaries_of(mask).tolist() == expected


@given(
    st.integers(1, 70),
    st.integers(1, 90),
    st.lists(st.tuples(st.integers(0, 6400), st.integers(1, 40)), max_size=4),
)
def test_objects_anywhere_in_larger_masks(
    height: int, width: int, runs: list[tuple[int, int]]
) -> None:
    """Masks of several blocks, most of them empty, and a rest that is no whole block."""
    mask = np.zeros(height * width, np.uint8)
    for start, length in runs:
        mask[start : start + length] = 1
    pixels = [0, *mask.tolist(), 0]
    expected = [i for i in range(len(pixels) - 1) if pixels[i] != pixels[i + 1]]
    assert boundaries_of(mask.reshape(height, width)).tolist() == expected


@given(stacks)
def test_steps_sum_up_to_the_boundaries(masks: np.ndarray) -> None:
    boundaries, offsets = ragged([boundaries_of(mask) for mask in masks])
    steps = np.concatenate([steps_of(mask) for mask in masks])
    before = steps.copy()
    np.testing.assert_array_equal(boundaries_of_steps(steps, offsets), boundaries)
    np.testing.assert_array_equal(steps, before)
    for first, last in pairwise(offsets):
        np.testing.assert_array_equal(np.cumsum(steps[first:last]), boundaries[first:last])


@given(stacks)
def test_every_second_step_is_a_run(masks: np.ndarray) -> None:
    for mask in masks:
        assert steps_of(mask)[1::2].sum() == mask.sum()


def test_a_sum_over_many_large_masks_does_not_overflow() -> None:
    """The steps of all masks together are far more than an int32 holds."""
    mask = np.ones((1024, 1024), np.uint8)
    mask[0, 0] = 0
    steps = np.concatenate([steps_of(mask)] * 5000)
    offsets = np.arange(5001) * 2
    expected = [1, 1024 * 1024] * 5000
    np.testing.assert_array_equal(boundaries_of_steps(steps, offsets), expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint32, np.uint64, np.int8])
def test_any_integers_are_runs_or_refused(dtype: type) -> None:
    offsets: Any = np.array([0, 2], dtype)
    assert masks_from_runs(np.array([1, 3], dtype), offsets, (2, 2)).tolist() == [[[0, 1], [1, 0]]]
    with pytest.raises(InvalidOption, match="ascend"):
        masks_from_runs(np.array([3, 1], dtype), offsets, (2, 2))


@pytest.mark.parametrize(
    ("boundaries", "shape", "found"),
    [
        ([1.0, 3.0], (2, 2), "integers"),
        ([[1, 3]], (2, 2), "integers"),
        ([1, 3], (1, 2, 2), "shape"),
    ],
)
def test_arguments_of_another_kind(boundaries: Any, shape: Any, found: str) -> None:
    with pytest.raises(InvalidOption, match=found):
        masks_from_runs(boundaries, np.array([0, 2]), shape)


@pytest.mark.parametrize(
    ("boundaries", "offsets", "found"),
    [
        ([1, 3], [0, 1], "offsets"),
        ([1, 3], [1, 2], "offsets"),
        ([1, 3], [0, 1, 2], "even steps"),
        ([1, 3], [], "offsets"),
        ([1, 3, 0, 1], [0, 4, 2, 4], "offsets"),
        ([3, 1], [0, 2], "ascend"),
        ([1, 1], [0, 2], "ascend"),
        ([-1, 2], [0, 2], "within the 6 pixels"),
        ([1, 7], [0, 2], "within the 6 pixels"),
    ],
)
def test_what_are_no_runs_is_refused(boundaries: list[int], offsets: list[int], found: str) -> None:
    with pytest.raises(InvalidOption, match=found):
        masks_from_runs(np.array(boundaries, int), np.array(offsets, int), (2, 3))


def test_no_masks_at_all() -> None:
    none = np.array([], np.int32)
    assert masks_from_runs(none, np.array([0]), (2, 3)).shape == (0, 2, 3)
    assert masks_from_runs(none, np.array([0, 0]), (2, 3)).tolist() == [[[0] * 3] * 2]
