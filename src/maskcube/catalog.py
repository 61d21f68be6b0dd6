"""Which masks there are: image, noun and instance of each, and the rows that a question means.

What `maskcube.index` tells xarray, it knows from here; nothing of xarray or pandas is needed to
find a mask by its labels.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from maskcube.codec import DamagedBytes
from maskcube.errors import InvalidOption, LabelNotFound, listed
from maskcube.labels import Asked, LabelColumn
from maskcube.schema import COORDINATES, INDEXED
from maskcube.store import MaskStore

__all__ = ["Catalog"]


@dataclass(frozen=True, eq=False)
class Catalog:
    """The labels of masks, side by side.

    Parameters
    ----------
    columns : tuple of LabelColumn
        Image, noun and instance, in this order and of the same length.

    Examples
    --------
    >>> from maskcube.store import MaskStore
    >>> catalog = Catalog.of_store(MaskStore.open("masks.zarr"))
    >>> catalog.rows({"noun": "hand", "instance": 1}).tolist()[:3]
    [4, 109, 205]
    """

    columns: tuple[LabelColumn, ...]

    @classmethod
    def of_store(cls, store: MaskStore) -> Self:
        """Read the three coordinates of a store.

        Raises
        ------
        CorruptStore
            One of them is missing or damaged.
        """
        if store.objects.has_cheap_ranges:
            return cls(tuple(_column(store, name) for name in INDEXED))
        from concurrent.futures import ThreadPoolExecutor

        # Elsewhere a request takes longer than what is done with the answer.
        with ThreadPoolExecutor(len(INDEXED)) as pool:
            return cls(tuple(pool.map(lambda name: _column(store, name), INDEXED)))

    @classmethod
    def of_arrays(cls, arrays: Mapping[Any, NDArray[Any]]) -> Self:
        """Return the catalog of (mask,) image, noun and instance, by name and in this order.

        Raises
        ------
        InvalidOption
            They do not hold such labels.
        """
        (image, images), (noun, nouns), (instance, instances) = arrays.items()
        return cls(
            (
                LabelColumn.of_strings(image, images),
                LabelColumn.of_strings(noun, nouns),
                LabelColumn.of_integers(instance, instances),
            )
        )

    @classmethod
    def concat(cls, catalogs: Iterable[Self]) -> Self:
        """Return the catalog of masks one after the other."""
        columns = zip(*(catalog.columns for catalog in catalogs), strict=True)
        return cls(tuple(LabelColumn.concat(column) for column in columns))

    def __len__(self) -> int:
        return len(self.columns[0])

    def take(self, rows: slice | NDArray[Any]) -> Self:
        """Return the catalog of some masks."""
        return type(self)(tuple(column.take(rows) for column in self.columns))

    def renamed(self, names: Mapping[Any, Hashable]) -> Self:
        """Return the catalog under new names of its columns."""
        return type(self)(
            tuple(replace(each, name=names.get(each.name, each.name)) for each in self.columns)
        )

    def equals(self, other: Catalog) -> bool:
        """Say whether both have the same labels in the same order."""
        return all(map(LabelColumn.equals, self.columns, other.columns))

    def keys(self) -> NDArray[np.intp]:
        """Return a number for each mask, (mask,): the same where all three labels are."""
        keys = np.zeros(len(self), np.intp)
        for column in self.columns:
            keys = keys * len(column.labels) + column.codes
            # Numbered anew each time, three counts of labels never overflow.
            keys = np.unique(keys, return_inverse=True)[1]
        return keys

    def phrase(self, row: int) -> str:
        """Return a mask's three labels for a message."""
        return ", ".join(each.phrase([each.labels[each.codes[row]]]) for each in self.columns)

    def asked(self, labels: Mapping[Any, object]) -> dict[LabelColumn, Asked]:
        """Return what a question wants of each column that it names.

        Raises
        ------
        LabelNotFound
            A label that is spelt out does not exist.
        InvalidOption
            A question has no single answer, or asks what is not one of the columns.
        """
        unknown = set(labels) - {column.name for column in self.columns}
        if unknown:
            names = listed(column.name for column in self.columns)
            raise InvalidOption(f"the index has {names}, not {listed(unknown)}")
        return {each: each.asked(labels[each.name]) for each in self.columns if each.name in labels}

    def rows(self, labels: Mapping[Any, object]) -> NDArray[np.intp]:
        """Return the rows of the masks that have all these labels: (n_rows,) intp, ascending.

        Raises
        ------
        LabelNotFound
            A label that is spelt out does not exist, or not together with the others.
        InvalidOption
            A question has no single answer, or asks what is not one of the columns.
        """
        return self.rows_of(self.asked(labels))

    def rows_of(self, asked: Mapping[LabelColumn, Asked]) -> NDArray[np.intp]:
        """Return the rows of what was `asked`.

        Raises
        ------
        LabelNotFound
            Labels that are spelt out are not there together.
        """
        rows = np.arange(len(self))
        spelt = {column: wanted for column, wanted in asked.items() if wanted.named}
        filters = {column: wanted for column, wanted in asked.items() if not wanted.named}
        # An empty list names nothing, and no masks are the answer.
        must_exist = all(len(wanted.codes) for wanted in spelt.values())
        for column, wanted in (spelt | filters).items():
            found = rows[column.holds(wanted.codes, rows)]
            if wanted.named and must_exist and not len(found):
                raise _not_together(spelt, column, rows)
            rows = found
        return rows


def _column(store: MaskStore, name: str) -> LabelColumn:
    if COORDINATES[name].dtype != "string":
        return LabelColumn.of_integers(name, store.coordinate(name))
    if not store.is_native(name):
        return LabelColumn.of_strings(name, store.coordinate(name))
    try:
        return LabelColumn.of_texts(name, store.texts(name))
    except DamagedBytes as error:
        raise store.corrupt(name, error) from error


def _not_together(
    spelt: Mapping[LabelColumn, Asked], last: LabelColumn, rows: NDArray[np.intp]
) -> LabelNotFound:
    """Return the error of labels that exist, but not together with those before the last."""
    phrases = {each: each.phrase(list(each.labels[spelt[each].codes])) for each in spelt}
    before: Sequence[LabelColumn] = list(spelt)[: list(spelt).index(last)]
    together = " with ".join(phrases[each] for each in before)
    verb = "have" if len(before) == 1 and len(spelt[before[0]].codes) > 1 else "has"
    return LabelNotFound(
        f"no mask has {together} and {phrases[last]}; "
        f"{together} {verb} {last.name}s: {listed(last.labels_in(rows))}"
    )
