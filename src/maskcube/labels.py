"""One coordinate of labels: which there are, which mask has which, and what a question means.

A `LabelColumn` is immutable and knows no positions but the rows of its own masks; `maskcube.index`
puts three of them side by side.
"""

from __future__ import annotations

import reprlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from maskcube.codes import code_dtype, factorized
from maskcube.errors import InvalidOption, LabelNotFound, listed
from maskcube.texts import Texts

__all__ = ["Asked", "LabelColumn"]

# One misspelt image name against 1,492 others takes 0.1 s; nobody waits minutes for a hint.
_NEAR_LIMIT = 20_000
_NEAR_ASKED = 3


@dataclass(frozen=True, eq=False)
class Asked:
    """What a question wants of one coordinate.

    Parameters
    ----------
    codes : ndarray
        (n_asked,) intp, positions of the wanted labels in `LabelColumn.labels`, ascending.
    named : bool
        The labels were spelt out, so each of them exists; slices and callables are filters.
    scalar : bool
        One label was spelt out, and not in a list.
    """

    codes: NDArray[np.intp]
    named: bool = False
    scalar: bool = False


@dataclass(frozen=True, eq=False)
class LabelColumn:
    """One coordinate along ``mask``, with each distinct label kept once.

    Parameters
    ----------
    name : hashable
        Name of the coordinate.
    labels : ndarray
        (n_labels,) object, every label that some mask has, once, sorted: all str or all int.
    codes : ndarray
        (mask,) unsigned integers of the smallest size that fits: where in `labels` each mask's
        label is.
    dtype : numpy.dtype
        The coordinate's dtype: ``<U``, ``StringDType`` or object for strings, or any integer.

    Examples
    --------
    >>> nouns = LabelColumn.of_strings("noun", np.array(["hand", "cup", "hand"]))
    >>> nouns.labels.tolist(), nouns.codes.tolist()
    (['cup', 'hand'], [1, 0, 1])
    """

    name: Hashable
    labels: NDArray[np.object_]
    codes: NDArray[np.unsignedinteger[Any]]
    dtype: np.dtype[Any]

    @classmethod
    def of_strings(cls, name: Hashable, values: NDArray[Any]) -> Self:
        """Return the column of (mask,) ``<U``, ``StringDType`` or object `values`.

        Raises
        ------
        InvalidOption
            A value is missing or is no string.
        """
        labels, codes = factorized(_checked_strings(name, values))
        column = cls(name, _objects(map(str, labels)), codes, values.dtype)
        if values.dtype.kind == "T":
            # Made from the labels they would take five times as long as this copy.
            column.__dict__["array"] = _read_only(values.copy())
        return column

    @classmethod
    def of_texts(cls, name: Hashable, texts: Texts) -> Self:
        """Return the column of the texts of a store, without a Python object for each.

        Raises
        ------
        DamagedBytes
            The bytes are no texts.
        """
        labels, codes = texts.factorized()
        return cls(name, _objects(labels), codes, np.dtypes.StringDType())

    @classmethod
    def of_integers(cls, name: Hashable, values: NDArray[Any]) -> Self:
        """Return the column of (mask,) `values` of any integer dtype.

        Raises
        ------
        InvalidOption
            The values are not integers.
        """
        if values.dtype.kind not in "iu":
            raise InvalidOption(
                f"coordinate {name!r} must hold integers, not {values.dtype}: convert it with "
                '.astype("int64"), and give the coordinates in the order image, noun, instance'
            )
        labels, codes = factorized(values)
        return cls(name, _objects(labels), codes, values.dtype)

    @classmethod
    def concat(cls, columns: Sequence[Self]) -> Self:
        """Return the columns one after the other, under the name of the first."""
        labels = _objects(sorted(set().union(*(column.labels for column in columns))))
        codes = [np.searchsorted(labels, column.labels)[column.codes] for column in columns]
        dtype = _common_dtype([column.dtype for column in columns])
        return cls(
            columns[0].name, labels, np.concatenate(codes).astype(code_dtype(len(labels))), dtype
        )

    @cached_property
    def array(self) -> NDArray[Any]:
        """Return the label of every mask: (mask,) in the coordinate's dtype, read-only."""
        return _read_only(np.take(self.labels.astype(self.dtype), self.codes))

    @property
    def is_made(self) -> bool:
        """Say whether `array` has been made."""
        return "array" in self.__dict__

    def __len__(self) -> int:
        return len(self.codes)

    def __getstate__(self) -> dict[str, Any]:
        # A worker makes the array from the codes; it is ten times as large.
        return {key: item for key, item in self.__dict__.items() if key != "array"}

    def __deepcopy__(self, memo: Mapping[int, object]) -> Self:
        return self

    def equals(self, other: LabelColumn) -> bool:
        """Say whether both have the same name and the same labels, whatever their dtype."""
        # Sorted labels without unused ones make the codes comparable.
        return (
            self.name == other.name
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.codes, other.codes)
        )

    def take(self, rows: slice | NDArray[Any]) -> Self:
        """Return the column of some masks, without the labels that none of them has."""
        codes = self.codes[rows]
        present = np.zeros(len(self.labels), bool)
        present[codes] = True
        if present.all():
            return replace(self, codes=codes)
        labels = self.labels[present]
        new_codes = (np.cumsum(present) - 1).astype(code_dtype(len(labels)))
        return replace(self, labels=labels, codes=new_codes[codes])

    def code_of(self, label: object) -> int | None:
        """Return where a label is in `labels`; None when no mask has it."""
        try:
            code = bisect_left(self.labels, label)
        except TypeError:  # of another kind than the labels
            return None
        return code if code < len(self.labels) and self.labels[code] == label else None

    def labels_in(self, rows: NDArray[np.intp]) -> list[str | int]:
        """Return the distinct labels of some masks, sorted."""
        return list(self.labels[np.unique(self.codes[rows])])

    def holds(self, wanted: NDArray[np.intp], rows: slice | NDArray[np.intp]) -> NDArray[np.bool_]:
        """Say for each of `rows` whether its label is one of the `wanted` positions in `labels`."""
        codes = self.codes[rows]
        if len(wanted) == 1:
            # Six times as fast as the table below.
            is_it: NDArray[np.bool_] = codes == wanted[0]
            return is_it
        is_wanted = np.zeros(len(self.labels), bool)
        is_wanted[wanted] = True
        return np.take(is_wanted, codes)

    def asked(self, label: object) -> Asked:
        """Return what a label, a list of labels, a slice or a callable stands for.

        Parameters
        ----------
        label : object
            A scalar, a list or any other iterable ("any of these"), a slice (inclusive range of
            sorted labels), or a callable that is tried once for each distinct label.

        Raises
        ------
        LabelNotFound
            A label that was spelt out does not exist, or cannot be one of this coordinate.
        InvalidOption
            The question has no single answer: an array of more than one dimension, a labelled
            array, or a slice with a step.
        """
        label = _unwrapped(label)
        if isinstance(label, slice):
            return Asked(self._between(label))
        if callable(label):
            return Asked(self._passing(label))
        if isinstance(label, Iterable) and not isinstance(label, (str, bytes, Mapping)):
            return Asked(self._codes_of(self._each(label)), named=True)
        return Asked(self._codes_of([label]), named=True, scalar=True)

    def phrase(self, labels: Sequence[object]) -> str:
        """Return labels for a message: ``noun 'hand'``, ``nouns 'hand', 'cup'``."""
        return f"{self.name}{'' if len(labels) == 1 else 's'} {listed(labels)}"

    def _between(self, label: slice) -> NDArray[np.intp]:
        if label.step is not None:
            raise InvalidOption(
                f"a slice of {self.name} labels takes no step, which was {label.step!r}: "
                "use .sel without it, then .isel with it"
            )
        first, last = 0, len(self.labels)
        if label.start is not None:
            first = bisect_left(self.labels, self._checked(label.start))
        if label.stop is not None:
            last = bisect_right(self.labels, self._checked(label.stop))
        return np.arange(first, last)

    def _passing(self, test: Callable[[Any], object]) -> NDArray[np.intp]:
        return np.flatnonzero([bool(test(label)) for label in self.labels])

    def _each(self, label: Iterable[object]) -> list[object]:
        # A DataArray or a Variable; to import xarray only to ask would take longer than the answer.
        dims = getattr(label, "dims", None)
        if dims is not None:
            raise InvalidOption(
                f"{self.name} is an array with dims {dims}; each of its labels may name many "
                "masks: give its .values for any of these, or make labels unique first, as in "
                f'masks.groupby("{self.name}").any().sel({self.name}=...)'
            )
        if getattr(label, "ndim", 1) > 1:
            raise InvalidOption(
                f"{self.name} is an array of shape {getattr(label, 'shape', None)}: give a flat "
                "list of labels, as in .ravel()"
            )
        return list(label.tolist() if hasattr(label, "tolist") else label)

    def _checked(self, label: object) -> str | int:
        """Return a label that this coordinate could have, or say that it cannot."""
        label = _unwrapped(label)
        wanted = int if self.dtype.kind in "iu" else str
        if isinstance(label, wanted) and not isinstance(label, bool):
            return label
        noun = "an integer" if wanted is int else "a string"
        raise LabelNotFound(
            f"{self.name} takes {noun}, a list, a slice or a callable, not "
            f"{reprlib.repr(label)} ({type(label).__name__})"
        )

    def _codes_of(self, labels: Sequence[object]) -> NDArray[np.intp]:
        codes: set[int] = set()
        missing: dict[str | int, None] = {}
        for label in map(self._checked, labels):
            code = self.code_of(label)
            if code is None:
                missing[label] = None
            else:
                codes.add(code)
        if missing:
            raise LabelNotFound(f"no mask has {self.phrase(list(missing))}{self._hint(missing)}")
        return np.array(sorted(codes), np.intp)

    def _hint(self, missing: Iterable[str | int]) -> str:
        near = dict.fromkeys(
            spelling
            for label in list(missing)[:_NEAR_ASKED]
            if isinstance(label, str)
            for spelling in self._near(label)
        )
        if near:
            return f"; did you mean {' or '.join(map(repr, near))}?"
        if not len(self.labels):
            return "; there are no masks here"
        return (
            f"; there {'is' if len(self.labels) == 1 else 'are'} {self.phrase(list(self.labels))}"
        )

    def _near(self, label: str) -> list[str]:
        if len(self.labels) > _NEAR_LIMIT:
            return []
        import difflib

        spellings = defaultdict(list)
        for spelling in self.labels:
            spellings[spelling.casefold()].append(spelling)
        folded = difflib.get_close_matches(label.casefold(), spellings)
        return [spelling for key in folded for spelling in spellings[key]]


def _unwrapped(label: object) -> object:
    """Return the scalar inside a 0-d array, a numpy scalar or a 0-d ``DataArray``."""
    return np.asarray(label).item() if getattr(label, "ndim", None) == 0 else label


def _read_only(values: NDArray[Any]) -> NDArray[Any]:
    # Writing to a coordinate would leave its index behind with the old labels.
    values.flags.writeable = False
    return values


def _objects(labels: Iterable[object]) -> NDArray[np.object_]:
    return np.array(list(labels), dtype=object)


def _common_dtype(dtypes: Sequence[np.dtype[Any]]) -> np.dtype[Any]:
    dtype: np.dtype[Any] = np.result_type(*dtypes)
    # int64 with uint64 would be float64, and 2**53 + 1 another instance.
    return np.dtype("int64") if dtype.kind == "f" else dtype


def _checked_strings(name: Hashable, values: NDArray[Any]) -> NDArray[Any]:
    kind, may_miss = values.dtype.kind, hasattr(values.dtype, "na_object")
    if kind == "U" or (kind == "T" and not may_miss):
        return values
    if kind not in "TO":
        raise InvalidOption(
            f"coordinate {name!r} must hold strings, not {values.dtype}: give the coordinates in "
            "the order image, noun, instance"
        )
    import pandas as pd

    objects = values.astype(object)
    if pd.api.types.infer_dtype(objects, skipna=False) not in {"string", "empty"}:
        row = next(row for row, value in enumerate(objects) if not isinstance(value, str))
        raise InvalidOption(
            f"coordinate {name!r} must hold strings: row {row:,} has "
            f"{reprlib.repr(objects[row])} ({type(objects[row]).__name__})"
        )
    return objects
