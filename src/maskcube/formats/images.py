"""Masks image by image, as the exports want them: few of them in memory at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, listed
from maskcube.formats.record import integer_of, number_of, records_of, text_of
from maskcube.layout import DIMS, worker_count
from maskcube.progress import mask_bar
from maskcube.scan import check_dtype, check_masks, stored_rows
from maskcube.schema import COORDINATES

__all__ = ["ImageMasks", "MaskImages"]

_Result = TypeVar("_Result")

_BLOCK_MASKS = 32
"""Masks that are decoded together, however many an image has."""

_TEXTS = ("image", "noun", "mask_file")
_INTEGERS = ("instance", "localized", "mask_row")

_DEFAULTS: dict[str, Any] = {"instance": 0, "score": np.nan, "localized": 1, "mask_file": ""}
"""Of coordinates that somebody has dropped."""


class ImageMasks:
    """The masks of one image, which are read when they are asked for.

    Attributes
    ----------
    image : str
        Its name.
    records : tuple of Record
        What is said of each mask, in the order of the store.
    shape : tuple of int
        Height and width of the masks in pixels.
    """

    def __init__(self, images: MaskImages, image: str, rows: NDArray[np.intp]) -> None:
        self.image = image
        self.records = tuple(images.records[row] for row in rows.tolist())
        self.shape = images.shape
        self._images = images
        self._rows = rows

    def __len__(self) -> int:
        return len(self.records)

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Pixels that are 1 in each mask, (mask,) int64."""
        known = self._images.areas
        if known is not None:
            return known[self._rows]
        return np.array([np.count_nonzero(mask) for mask in self.each()], np.int64)

    def each(self, order: Iterable[int] | None = None) -> Iterator[NDArray[np.uint8]]:
        """Yield masks one after the other, (y, x) uint8, 1 where the object is.

        A mask is valid until the next one is asked for.

        Parameters
        ----------
        order : iterable of int, optional
            Which ones, by their position in `records`; all of them by default.
        """
        rows = self._rows if order is None else self._rows[np.fromiter(order, np.intp)]
        for start in range(0, len(rows), _BLOCK_MASKS):
            yield from self._images.read(rows[start : start + _BLOCK_MASKS])


class MaskImages:
    """A selection of masks, image by image.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, of `open_masks`, selected from or not.

    Attributes
    ----------
    names : list of str
        The images, in the order in which they come first.
    nouns : list of str
        The distinct nouns, sorted.
    records : list of Record
        What is said of each mask.
    shape : tuple of int
        Height and width of the masks in pixels.

    Raises
    ------
    InvalidOption
        When these are no masks.
    """

    def __init__(self, masks: xr.DataArray) -> None:
        check_masks(masks)
        check_dtype(masks, "an export takes")
        self._masks = masks
        self._stored = stored_rows(masks)
        self.shape = masks.sizes[DIMS[1]], masks.sizes[DIMS[2]]
        if not all(self.shape):
            raise InvalidOption(f"masks have {self.shape} pixels (height, width): there are none")
        self.records = list(records_of(_columns(masks)))
        self.nouns = sorted({record.noun for record in self.records})
        rows: dict[str, list[int]] = {}
        for row, record in enumerate(self.records):
            rows.setdefault(record.image, []).append(row)
        self._rows = rows
        self.names = list(rows)

    def __getitem__(self, image: str) -> ImageMasks:
        return ImageMasks(self, image, np.array(self._rows[image], np.intp))

    @property
    def n_masks(self) -> int:
        """How many masks there are."""
        return len(self.records)

    @cached_property
    def areas(self) -> NDArray[np.int64] | None:
        """Pixels of each mask that are 1, (mask,); None where the pixels must be counted."""
        if self._stored is None or "area" not in self._masks.coords:
            return None
        # Only of whole masks is it that of what is exported.
        return np.asarray(self._masks.coords["area"].values, np.int64)

    def check_nouns(self, name: str, nouns: Iterable[str]) -> frozenset[str]:
        """Return nouns that an option gives; raises `InvalidOption` if no mask has one of them."""
        if isinstance(nouns, str):
            raise InvalidOption(f"{name}={nouns!r}: give a list of nouns")
        found = list(nouns)
        unknown = [noun for noun in found if noun not in self.nouns]
        if unknown:
            raise InvalidOption(f"{name}: no mask has the noun {listed(unknown)}")
        return frozenset(found)

    def read(self, rows: NDArray[np.intp]) -> NDArray[np.uint8]:
        """Return the masks in these rows of the selection, (len(rows), y, x) uint8."""
        if self._stored is not None:
            reader, stored = self._stored
            # Whoever asks is one of several threads already.
            return reader.read(stored[rows], workers=1)
        found = np.ascontiguousarray(self._masks.isel({DIMS[0]: rows}).values).view(np.uint8)
        if found.max(initial=0) > 1:
            raise InvalidOption(
                "a mask has values other than 0 and 1; give masks > 0, or masks == ..."
            )
        return found

    def map(
        self, function: Callable[[ImageMasks], _Result], *, progress: bool
    ) -> Iterator[_Result]:
        """Yield ``function(masks)`` of each image, in order, computed on threads.

        Few results wait, so that what is yielded may be large.

        Parameters
        ----------
        function : callable
            Takes the `ImageMasks` of an image.
        progress : bool
            Show a progress bar on stderr.
        """
        n_workers = worker_count(None)
        waiting: deque[tuple[int, Future[_Result]]] = deque()
        with (
            mask_bar(self.n_masks, "exporting", show=progress) as bar,
            ThreadPoolExecutor(n_workers) as pool,
        ):
            try:
                for name in self.names:
                    masks = self[name]
                    waiting.append((len(masks), pool.submit(function, masks)))
                    if len(waiting) > n_workers:
                        n_masks, future = waiting.popleft()
                        yield future.result()
                        bar.update(n_masks)
                for n_masks, future in waiting:
                    yield future.result()
                    bar.update(n_masks)
            finally:
                for _, future in waiting:
                    future.cancel()


def _columns(masks: xr.DataArray) -> dict[str, NDArray[Any]]:
    """Return the coordinates that records are made of, (mask,) each."""
    n_masks = masks.sizes[DIMS[0]]
    lost = [name for name in ("image", "noun") if name not in masks.coords]
    if lost:
        raise InvalidOption(f"masks have no coordinate {lost[0]!r}: which objects are these?")
    found = {}
    for name, coordinate in COORDINATES.items():
        if coordinate.column is None:
            continue
        if name in masks.coords:
            values = np.broadcast_to(np.asarray(masks.coords[name].values), (n_masks,))
        elif name == "mask_row":
            values = np.arange(n_masks)
        else:
            values = np.full(n_masks, _DEFAULTS.get(name, np.nan), object)
        try:
            found[name] = _checked(name, values)
        except ValueError as error:
            raise InvalidOption(f"of coordinate {name!r} masks have a value: {error}") from None
    return found


def _checked(name: str, values: NDArray[Any]) -> NDArray[Any]:
    """Return a coordinate as a store has it; somebody may have assigned another one."""
    if name in _TEXTS:
        for text in map(str, values.tolist()):
            text_of(name, text, empty=True)
        return values
    kinds = "iub" if name in _INTEGERS else "iubf"
    if values.dtype.kind not in kinds:
        read = integer_of if name in _INTEGERS else number_of
        known = [read(name, None if each != each else each) for each in values.tolist()]  # noqa: PLR0124 - NaN
        if name in _INTEGERS:
            return np.array(known, object)
        values = np.array(known, np.float64)
    if values.dtype.kind == "f" and np.isinf(values).any():
        raise ValueError(f"{name} must be a finite number, found inf")
    return values
