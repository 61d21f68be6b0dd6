"""MaskIndex: masks by image, noun and instance, as an xarray index."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from xarray import Variable
from xarray.core.indexing import IndexSelResult
from xarray.indexes import Index

from maskcube.catalog import Catalog
from maskcube.coordinates import label_variable
from maskcube.errors import InvalidOption, listed
from maskcube.labels import LabelColumn
from maskcube.schema import INDEXED

__all__ = ["MaskIndex"]


class MaskIndex(Index):
    """Index of the coordinates ``image``, ``noun`` and ``instance``, all along ``mask``.

    It gives ``masks.sel`` these questions, for each of the three, in any combination:

    ====================================  ======================================================
    ``noun="hand"``                       this label
    ``noun=["hand", "fingers"]``          any of these labels
    ``noun=slice("face", "hand")``        labels from ... to in sorted order, both included
    ``noun=re.compile("finger").search``  labels that pass; tried once for each distinct label
    ====================================  ======================================================

    Answers are in store order and keep the dimension ``mask``, unless image, noun and instance are
    all scalars: these name one mask, ``(y, x)``. The shape follows from the question, never from
    the data. Labels that are spelt out must exist, also together; slices and callables are filters
    and may find nothing. Selection reads no pixels. Numbers stay ordinary coordinates:
    ``masks[masks.score > 0.5]``. For a table of masks drop the index, or xarray leaves the three
    out: ``area.drop_indexes(["image", "noun", "instance"]).to_dataframe()``.

    Parameters
    ----------
    catalog : Catalog
        Image, noun and instance of each mask.
    dim : hashable, default "mask"
        The dimension that they run along.

    Examples
    --------
    >>> import numpy as np, xarray as xr
    >>> labels = {
    ...     "image": ("mask", ["a.jpg", "a.jpg", "b.jpg"]),
    ...     "noun": ("mask", ["cup", "hand", "hand"]),
    ...     "instance": ("mask", [0, 0, 0]),
    ... }
    >>> masks = xr.DataArray(np.zeros((3, 4, 4), "uint8"), labels, ("mask", "y", "x"))
    >>> masks = masks.set_xindex(["image", "noun", "instance"], MaskIndex)
    >>> masks.xindexes["noun"]
    MaskIndex (3 masks; images: 2, nouns: 2)
      image     'a.jpg', 'b.jpg'
      noun      'cup', 'hand'
      instance  0
    >>> masks.sel(noun="hand").image.values.tolist()
    ['a.jpg', 'b.jpg']
    >>> masks.sel(image="a.jpg", noun="cup", instance=0).dims
    ('y', 'x')
    >>> masks.sel(noun="hnad")
    Traceback (most recent call last):
        ...
    maskcube.errors.LabelNotFound: no mask has noun 'hnad'; did you mean 'hand'?
    """

    def __init__(self, catalog: Catalog, dim: Hashable = "mask") -> None:
        self.catalog = catalog
        self.dim = dim

    @classmethod
    def from_variables(
        cls, variables: Mapping[Any, Variable], *, options: Mapping[str, Any]
    ) -> Self:
        """Return the index of three coordinates; ``set_xindex`` calls it.

        Parameters
        ----------
        variables : mapping of hashable to Variable
            (mask,) each: image, noun and instance, or three by other names in this order. Lazy
            ones are loaded.
        options : mapping
            Must be empty.

        Raises
        ------
        InvalidOption
            They are not three, not 1-D along one dimension, or do not hold such labels.
        """
        if options:
            raise InvalidOption(f"MaskIndex takes no options, not {listed(options)}")
        names = INDEXED if set(variables) == set(INDEXED) else tuple(variables)
        if len(names) != len(INDEXED):
            raise InvalidOption(
                f"MaskIndex needs image, noun and instance together, not {listed(names)}: "
                f"set_xindex({list(INDEXED)}, MaskIndex)"
            )
        sizes = {name: dict(variables[name].sizes) for name in names}
        if len(sizes[names[0]]) != 1 or any(each != sizes[names[0]] for each in sizes.values()):
            found = ", ".join(f"{name} {each}" for name, each in sizes.items())
            raise InvalidOption(f"the coordinates must be 1-D along one dimension, not {found}")
        arrays = {name: variables[name].to_numpy() for name in names}
        return cls(Catalog.of_arrays(arrays), *sizes[names[0]])

    @classmethod
    def concat(
        cls,
        indexes: Sequence[Self],
        dim: Hashable,
        positions: Iterable[Iterable[int]] | None = None,
    ) -> Self:
        """Return the index of masks one after the other; ``xarray.concat`` calls it."""
        joined = cls(Catalog.concat(index.catalog for index in indexes), dim)
        if positions is None:
            return joined
        return joined[np.argsort(np.concatenate([list(part) for part in positions]))]

    @property
    def n_masks(self) -> int:
        """Return the number of masks."""
        return len(self.catalog)

    @property
    def columns(self) -> tuple[LabelColumn, ...]:
        """Return the labels of image, noun and instance."""
        return self.catalog.columns

    def __getitem__(self, rows: slice | NDArray[Any]) -> Self:
        return type(self)(self.catalog.take(rows), self.dim)

    def keys(self) -> NDArray[np.intp]:
        """Return a number for each mask, (mask,): the same where all three labels are."""
        return self.catalog.keys()

    def create_variables(
        self, variables: Mapping[Any, Variable] | None = None
    ) -> dict[Any, Variable]:
        """Return the three coordinates, (mask,) each, read-only and lazy.

        Parameters
        ----------
        variables : mapping of hashable to Variable, optional
            Where attributes and encoding come from. Their data may be those of before a selection.
        """
        created = {}
        for column in self.columns:
            old = (variables or {}).get(column.name)
            attrs, encoding = (None, None) if old is None else (old.attrs, old.encoding)
            created[column.name] = label_variable(self.dim, column, attrs, encoding)
        return created

    def rows(self, labels: Mapping[Any, object]) -> NDArray[np.intp]:
        """Return the rows that ``.sel`` would take: (n_rows,) intp, ascending, along ``mask``.

        Raises
        ------
        LabelNotFound
            A label that is spelt out does not exist, or not together with the others.
        InvalidOption
            A question has no single answer, or asks a coordinate that is not indexed here.
        """
        return self.catalog.rows(labels)

    def sel(
        self, labels: Mapping[Any, object], method: object = None, tolerance: object = None
    ) -> IndexSelResult:
        """Answer ``.sel``, as the class describes.

        Parameters
        ----------
        labels : mapping of hashable to object
            For each coordinate that is asked: a scalar, a list, a slice or a callable.
        method, tolerance : object
            Refused.

        Raises
        ------
        LabelNotFound
            A label that is spelt out does not exist, or not together with the others.
        InvalidOption
            A question has no single answer, or three scalars name several masks.
        """
        if method is not None or tolerance is not None:
            raise InvalidOption(
                "labels have no nearest one, so there is no method= and no tolerance= here: give a "
                'slice or a callable, as in .sel(noun=re.compile("hand").search)'
            )
        asked = self.catalog.asked(labels)
        rows = self.catalog.rows_of(asked)
        if len(asked) < len(self.columns) or not all(each.scalar for each in asked.values()):
            return IndexSelResult({self.dim: _sliced(rows)})
        if len(rows) > 1:
            last, mask = self.columns[-1], self.catalog.phrase(rows[0])
            raise InvalidOption(
                f"{mask} names {len(rows):,} masks, rows {listed(rows.tolist())}: "
                f"to get them all give a list for one, as in {last.name}=[...], which keeps the "
                f"dimension {self.dim!r}"
            )
        return IndexSelResult({self.dim: int(rows[0])})

    def isel(self, indexers: Mapping[Any, object]) -> Self | None:
        """Return the index of some rows, or None where the dimension goes."""
        # Without its dimension, as swap_dims leaves an index, there is nothing to keep.
        rows = indexers.get(self.dim, 0)
        if isinstance(rows, slice):
            return self if rows == slice(None) else self[rows]
        if getattr(rows, "dims", (self.dim,)) != (self.dim,):
            return None
        rows = np.asarray(rows)
        if rows.ndim != 1:
            return None
        return self[rows if len(rows) else rows.astype(np.intp)]

    def roll(self, shifts: Mapping[Any, int]) -> Self:
        """Return the index with its rows rotated."""
        return self[np.roll(np.arange(self.n_masks), shifts[self.dim])]

    def rename(self, name_dict: Mapping[Any, Hashable], dims_dict: Mapping[Any, Hashable]) -> Self:
        """Return the index under new names of coordinates or of its dimension."""
        return type(self)(self.catalog.renamed(name_dict), dims_dict.get(self.dim, self.dim))

    def equals(self, other: Index, **_exclude: object) -> bool:
        """Say whether both have the same labels in the same order."""
        return (
            isinstance(other, MaskIndex)
            and self.dim == other.dim
            and self.catalog.equals(other.catalog)
        )

    def join(self, other: Self, how: str = "inner") -> Self:
        """Return the masks in both or in either, in the order of the first; for ``xarray.align``.

        Raises
        ------
        InvalidOption
            An image, noun and instance are there twice.
        """
        both = self.concat([self, other], self.dim)
        mine, others = np.split(both.keys(), [self.n_masks])
        self._require_unique(mine)
        other._require_unique(others)
        if how == "inner":
            return self[np.isin(mine, others)]
        new = np.flatnonzero(~np.isin(others, mine))
        return both[np.concatenate([np.arange(len(mine)), len(mine) + new])]

    def reindex_like(
        self, other: Self, method: object = None, tolerance: object = None
    ) -> dict[Hashable, NDArray[np.intp]]:
        """Return for each mask of `other` its row here, or -1; for ``xarray.align``.

        Raises
        ------
        InvalidOption
            An image, noun and instance are here twice, or `method` or `tolerance` is given.
        """
        if method is not None or tolerance is not None:
            raise InvalidOption("labels have no nearest one: align without method= and tolerance=")
        keys = self.concat([self, other], self.dim).keys()
        mine, others = np.split(keys, [self.n_masks])
        self._require_unique(mine)
        row_of = np.full(keys.max(initial=-1) + 1, -1)
        row_of[mine] = np.arange(len(mine))
        return {self.dim: row_of[others]}

    def to_pandas_index(self) -> pd.MultiIndex:
        """Return a pandas index with one level for each coordinate."""
        levels = [column.labels.tolist() for column in self.columns]
        codes: list[Any] = [column.codes.astype(np.intp) for column in self.columns]
        names = [column.name for column in self.columns]
        return pd.MultiIndex(levels, codes, names=names, verify_integrity=False)

    def _repr_inline_(self, max_width: int) -> str:
        counts = ", ".join(f"{each.name}s: {len(each.labels)}" for each in self.columns[:-1])
        line = f"MaskIndex ({self.n_masks} {self.dim}{'s'[: self.n_masks != 1]}; {counts})"
        return line if len(line) <= max_width else f"{line[: max_width - 1]}…"

    def __repr__(self) -> str:
        width = max(len(str(column.name)) for column in self.columns)
        lines = [f"  {each.name!s:<{width}}  {listed(each.labels)}" for each in self.columns]
        return "\n".join([self._repr_inline_(80), *lines])

    def _require_unique(self, keys: NDArray[np.intp]) -> None:
        counts = np.bincount(keys)
        if counts.max(initial=0) <= 1:
            return
        rows = np.flatnonzero(keys == counts.argmax())
        mask = self.catalog.phrase(rows[0])
        raise InvalidOption(
            f"masks can be aligned only where each key is there once, and {mask} is "
            f"at rows {listed(rows.tolist())}: keep one of them with .isel({self.dim}=...)"
        )


def _sliced(rows: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return consecutive rows as a slice, which keeps reads contiguous."""
    if not len(rows):
        return slice(0, 0)
    is_run = rows[-1] - rows[0] + 1 == len(rows)
    return slice(int(rows[0]), int(rows[-1]) + 1) if is_run else rows
