"""Whatever plain data numpy pickles is read as numpy unpickles it."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from crafted import npy_of, write_npy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from maskcube.insilico.pickles import read_npy

DTYPES = ["?", "<f2", "<i8", ">i2", "<u4", ">f4", "<f8", ">c8", "<c16", "|i1", "|u1", "S5", "<U4"]
DTYPES += [">U2", "V7"]
STRUCTURED = [
    np.dtype([("dim", "<i2", (8,)), ("magic", "S4")]),
    np.dtype([("a", ">f8"), ("b", [("c", "?"), ("d", "<u2", (2, 3))])]),
    np.dtype({"names": ["x", "y"], "formats": ["<i4", "u1"], "offsets": [4, 1], "itemsize": 12}),
    np.dtype([("a", "u1"), ("b", "<f8")], align=True),
]


@st.composite
def arrays(draw: st.DrawFn) -> NDArray[Any]:
    dtype = np.dtype(draw(st.sampled_from([*DTYPES, *STRUCTURED])))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=5))
    # Not of any bytes: a bool is 0 or 1, and not every four bytes are a character.
    if dtype.kind in "biufcSU":
        array = draw(hnp.arrays(dtype, shape))
    else:
        size = int(np.prod(shape)) * dtype.itemsize
        array = np.frombuffer(bytearray(np.arange(size, dtype="u1") % 2), dtype).reshape(shape)
    kind = draw(st.sampled_from(["C", "F", "turned", "stepped"]))
    if kind == "stepped":
        return array[::2] if array.ndim else array
    return array.T if kind == "turned" else np.asarray(array, order="F" if kind == "F" else "C")


SCALARS = st.builds(
    lambda dtype, value: np.dtype(dtype).type(value),
    st.sampled_from(["?", "i8", "u1", "f4", "f8", "c16"]),
    st.integers(0, 9),
) | st.sampled_from([np.bytes_(b"ab"), np.str_("åb")])
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**400), 2**400),
    st.floats(),
    st.text(max_size=300),
    st.binary(max_size=300),
    arrays(),
    SCALARS,
)
KEYS = st.text(max_size=20) | st.integers(-(2**60), 2**60) | st.binary(max_size=8)
TREES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.lists(inner, max_size=5).map(tuple),
        st.dictionaries(KEYS, inner, max_size=5),
        st.tuples(inner).map(lambda one: [one[0], {"again": one[0]}, (one[0],)]),
    ),
    max_leaves=12,
)


def _steps(array: NDArray[Any]) -> tuple[int, ...]:
    """Return the steps of an array's axes, of which those of one element mean nothing."""
    return tuple(
        step for step, n in zip(array.strides, array.shape, strict=True) if n > 1 < array.size
    )


def _same(mine: Any, theirs: Any) -> bool:
    if type(mine) is not type(theirs):
        return False
    if isinstance(mine, np.ndarray):
        # What numpy unpickles it turns into the byte order of this machine.
        mine, theirs = (each.astype(each.dtype.newbyteorder("=")) for each in (mine, theirs))
        alike = mine.dtype == theirs.dtype and mine.shape == theirs.shape
        steps = _steps(mine) == _steps(theirs)
        return bool(alike and steps and repr(mine.tolist()) == repr(theirs.tolist()))
    if isinstance(mine, np.generic):
        return bool(mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes())
    if isinstance(mine, list | tuple):
        return len(mine) == len(theirs) and all(map(_same, mine, theirs))
    if isinstance(mine, dict):
        return list(mine) == list(theirs) and all(map(_same, mine.values(), theirs.values()))
    return bool(repr(mine) == repr(theirs))


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, protocol=st.integers(2, 5))
def test_trees_are_as_numpy_reads_them(tree: object, protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "tree.npy"
    write_npy(path, tree, protocol)
    assert _same(read_npy(path), np.load(path, allow_pickle=True).item())


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=TREES, shape=hnp.array_shapes(max_dims=3, max_side=3))
def test_arrays_of_objects_are_as_numpy_reads_them(
    tree: object, shape: tuple[int, ...], tmp_path: Path
) -> None:
    path = tmp_path / "tree.npy"
    whole = np.empty(shape, object, order="F")
    for place in np.ndindex(shape):
        whole[place] = {"tree": tree}
    path.write_bytes(npy_of(pickle.dumps(whole, 4), shape))
    mine, theirs = read_npy(path), np.load(path, allow_pickle=True)
    assert mine.shape == theirs.shape == shape
    assert mine.flags.f_contiguous
    assert all(map(_same, mine.ravel(), theirs.ravel()))


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(array=arrays().filter(lambda array: array.dtype.names is None))
def test_arrays_of_numbers_are_as_numpy_reads_them(array: NDArray[Any], tmp_path: Path) -> None:
    path = tmp_path / "array.npy"
    np.save(path, array)
    assert _same(read_npy(path), np.load(path))


@pytest.mark.parametrize("protocol", [2, 3])
def test_the_older_names_of_numpy_are_the_same(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "tree.npy"
    data = write_npy(path, {"a": np.arange(6.0), "b": np.float32(2)}, protocol)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    path.write_bytes(old)
    found = read_npy(path)
    assert _same(found, {"a": np.arange(6.0), "b": np.float32(2)})
