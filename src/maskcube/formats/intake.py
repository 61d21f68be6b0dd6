"""Masks of another format on their way into a store: in order, numbered, all of one size."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.conversion import write_store
from maskcube.errors import SourceError, listed
from maskcube.formats.collection import Collection, Item
from maskcube.formats.fit import check_fit, common_shape, fitted, fitted_record
from maskcube.formats.record import columns_of
from maskcube.layout import Layout
from maskcube.metadata import MOST_ROWS
from maskcube.objects import StoreLike
from maskcube.report import ConversionReport

__all__ = ["store_collection"]

_MOST_LISTED = 8


class _FittedSource:
    """A collection as what is converted: its masks have one size, an order and instances."""

    def __init__(
        self, collection: Collection, items: Sequence[Item], shape: tuple[int, int], fit: str
    ) -> None:
        self.path = Path(collection.location)
        self.faults = collection.faults
        self.layout = Layout(n_masks=len(items), height=shape[0], width=shape[1])
        self._collection = collection
        self._items = items
        self._fit = fit
        self._fingerprint: dict[str, Any] | None = None

    @property
    def file(self) -> _FittedSource:
        """What masks are read from."""
        return self

    @property
    def size_bytes(self) -> int:
        """Size of all files."""
        return int(self.fingerprint()["masks"]["size_bytes"])

    def mask(self, row: int) -> NDArray[np.uint8]:
        """Return a mask, (y, x) uint8 of 0 and 1.

        Raises
        ------
        SourceError
            When it cannot be read.
        """
        item = self._items[row]
        try:
            found = item.read()
        except ValueError as error:
            raise self._fault(item, str(error)) from error
        if found.shape != item.size:
            raise self._fault(item, f"has {found.shape} pixels, not the {item.size} announced")
        if found.max(initial=0) > 1:
            raise self._fault(item, "has values other than 0 and 1")
        shape = self.layout.shape[1], self.layout.shape[2]
        return np.ascontiguousarray(fitted(found, shape, self._fit))

    def _fault(self, item: Item, found: str) -> SourceError:
        record = item.record
        named = f"mask of {record.noun!r} {record.instance} in image {record.image!r}"
        return SourceError(str(self.path), [f"{named} {found}"])

    def coordinates(self) -> dict[str, NDArray[Any]]:
        """Return the coordinates of the store, (mask,) each."""
        return columns_of([item.record for item in self._items])

    def fingerprint(self, sha256: str | None = None) -> dict[str, Any]:  # noqa: ARG002 - as a MaskSource's
        """Return what identifies the source, and the sizes that its masks had."""
        if self._fingerprint is None:
            try:
                self._fingerprint = {**self._collection.fingerprint(), **self._sizes()}
            except ValueError as error:
                raise SourceError(str(self.path), [f"a file of it {error}"]) from error
        return self._fingerprint

    def _sizes(self) -> dict[str, Any]:
        """Return which images had another size."""
        shape = self.layout.shape[1:]
        found: dict[tuple[int, int], dict[str, None]] = {}
        for item in self._items:
            if item.size != shape:
                found.setdefault(item.size, {})[item.record.image] = None
        if not found:
            return {}
        sizes = [{"height": h, "width": w, "images": [*of]} for (h, w), of in found.items()]
        return {"fit": self._fit, "sizes": sizes}

    def pixel_faults(
        self,
        progress: Callable[[int], object] = lambda _: None,
        *,
        normalize: bool = False,  # noqa: ARG002 - as a MaskSource's
    ) -> list[str]:
        """Read every mask and return what is wrong with them."""
        faults: list[str] = []
        n_faults = 0
        for row in range(self.layout.n_masks):
            try:
                self.mask(row)
            except SourceError as error:
                n_faults += 1
                faults += error.faults[: _MOST_LISTED - len(faults)]
            progress(1)
        more = n_faults > len(faults)
        return [*faults, f"... ({n_faults:,} such masks in all)"] if more else faults


def store_collection(
    collection: Collection,
    store: StoreLike,
    *,
    fit: str = "refuse",
    shape: tuple[int, int] | None = None,
    overwrite: bool = False,
    allow_duplicates: bool = False,
    workers: int | None = None,
    memory: str | int = "1GiB",
    progress: bool = True,
    storage_options: dict[str, Any] | None = None,
    license: str = "that of the source",  # noqa: A002 - the attribute's name
) -> ConversionReport:
    """Write masks of another format to a store, as `convert` does: whole, or not at all.

    Parameters
    ----------
    collection : Collection
        The masks. Where all have a ``mask_row`` they are put in that order. An instance that is not
        known is counted: of a noun in an image, the highest score is 0.
    store : path, URL or zarr Store
        The target.
    fit : str
        What is done with masks of another size than `shape`: ``"refuse"``; ``"pad"``: background is
        added on the right and below; ``"resize"``: the nearest pixel is taken, and boxes are
        scaled. The store's attributes keep the sizes that images had.
    shape : (int, int), optional
        Height and width of the store's masks in pixels; by default that of most masks, or when
        padding the largest.
    overwrite, workers, memory, progress, storage_options, license
        As for `convert`.
    allow_duplicates : bool
        Accept several masks with the same image, noun and instance.

    Returns
    -------
    ConversionReport
        Counts, sizes and time.

    Raises
    ------
    SourceError
        With every fault; nothing is written then.
    StoreExists
        When something is at the target.
    InvalidOption
        When an argument has no meaning.
    """
    check_fit(fit, shape)
    faults = list(collection.faults)
    if not collection.items and not faults:
        faults += ["has no masks", *collection.lost]
    if len(collection.items) > MOST_ROWS:
        faults.append(f"has more than {MOST_ROWS:,} masks")
    if collection.items:
        found, misfits = common_shape([item.size for item in collection.items], fit)
        faults += misfits if shape is None else _misfits(collection.items, shape, fit)
        shape = shape or found
    if faults or shape is None:
        raise SourceError(collection.location, faults)
    items = _numbered(_in_order(collection.items))
    if not allow_duplicates:
        faults += _duplicates(items)
    if faults:
        raise SourceError(collection.location, faults)
    for told in collection.lost:
        warnings.warn(f"{collection.location}: {told}", stacklevel=3)
    items = [
        item._replace(record=fitted_record(item.record, item.size, shape, fit)) for item in items
    ]
    return write_store(
        _FittedSource(collection, items, shape, fit),
        store,
        overwrite=overwrite,
        workers=workers,
        memory=memory,
        progress=progress,
        storage_options=storage_options,
        license=license,
    )


def _in_order(items: Sequence[Item]) -> list[Item]:
    """Return masks in the order of their rows, if each has one of its own."""
    rows = [item.record.mask_row for item in items]
    known = [row for row in rows if row is not None]
    if len(known) < len(rows) or len(set(known)) < len(rows):
        return list(items)
    return [items[position] for position in np.argsort(np.array(known), kind="stable")]


def _numbered(items: Sequence[Item]) -> list[Item]:
    """Count the instances that are not known, of each noun in each image, best score first."""
    taken: dict[tuple[str, str], set[int]] = {}
    for item in items:
        if item.record.instance is not None:
            key = item.record.image, item.record.noun
            taken.setdefault(key, set()).add(item.record.instance)
    unknown = [n for n, item in enumerate(items) if item.record.instance is None]
    numbered = list(items)
    upcoming: Counter[tuple[str, str]] = Counter()
    for position in sorted(unknown, key=lambda n: -(items[n].record.score or 0.0)):
        item = items[position]
        key = item.record.image, item.record.noun
        while upcoming[key] in taken.get(key, ()):
            upcoming[key] += 1
        record = replace(item.record, instance=upcoming[key])
        upcoming[key] += 1
        numbered[position] = item._replace(record=record)
    return numbered


def _duplicates(items: Iterable[Item]) -> list[str]:
    keys = Counter((r.image, r.noun, r.instance) for r in (item.record for item in items))
    twice = [key for key, count in keys.items() if count > 1]
    if not twice:
        return []
    found = listed(twice)
    return [f"the same image, noun and instance twice: {found}; allow_duplicates=True accepts them"]


def _misfits(items: Iterable[Item], shape: tuple[int, int], fit: str) -> list[str]:
    """Return what speaks against a shape that was asked for."""
    if fit == "resize":
        return []
    others = {item.record.image: item.size for item in items if _is_misfit(item, shape, fit)}
    if not others:
        return []
    found = listed(others.items())
    advice = (
        "fit='resize' scales them" if fit == "pad" else "fit='pad' or fit='resize' fits them in"
    )
    return [f"masks do not have shape {shape}, as (image, (height, width)): {found}; {advice}"]


def _is_misfit(item: Item, shape: tuple[int, int], fit: str) -> bool:
    if fit == "pad":
        return item.size[0] > shape[0] or item.size[1] > shape[1]
    return item.size != shape
