"""Objects and the stimuli that show, or hide, them: which are asked of the model, and when."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import islice, pairwise
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from maskcube.errors import InvalidOption
from maskcube.insilico.encoder import Encoder
from maskcube.insilico.pictures import Pictures
from maskcube.insilico.stills import INTACT, Stills
from maskcube.layout import DIMS
from maskcube.scan import check_dtype, check_masks, stored_rows

__all__ = ["Experiment", "ObjectMasks"]

_BLOCK_MASKS = 16
"""Masks that are read together."""


class ObjectMasks:
    """The masks of an experiment, which are read when they are asked for.

    Parameters
    ----------
    masks : xarray.DataArray
        (mask, y, x) uint8 or bool, 0 and 1, with the coordinate image.

    Attributes
    ----------
    images : tuple of str
        The images, in the order in which they come first.
    codes : numpy.ndarray
        (mask,) intp: which of them each mask is of.
    size : tuple of int
        Height and width.

    Raises
    ------
    InvalidOption
        When these are no masks.
    """

    def __init__(self, masks: xr.DataArray) -> None:
        check_masks(masks)
        check_dtype(masks, "objects are of")
        if "image" not in masks.coords:
            raise InvalidOption("masks have no coordinate 'image': of which images are they?")
        self._masks = masks
        self._stored = stored_rows(masks)
        self.size = masks.sizes[DIMS[1]], masks.sizes[DIMS[2]]
        if not all(self.size):
            raise InvalidOption(f"masks have {self.size} pixels (height, width): there are none")
        names = np.broadcast_to(np.asarray(masks.coords["image"].values), (masks.sizes[DIMS[0]],))
        codes: dict[str, int] = {}
        found = [codes.setdefault(str(name), len(codes)) for name in names.tolist()]
        self.images = tuple(codes)
        self.codes = np.array(found, np.intp)

    def __len__(self) -> int:
        return len(self.codes)

    def each(self, rows: NDArray[np.intp]) -> Iterator[NDArray[Any]]:
        """Yield the masks in these rows, (y, x) each; some are read at a time."""
        for start in range(0, len(rows), _BLOCK_MASKS):
            yield from self._read(rows[start : start + _BLOCK_MASKS])

    def _read(self, rows: NDArray[np.intp]) -> NDArray[Any]:
        if self._stored is not None:
            reader, stored = self._stored
            return reader.read(stored[rows], workers=1)
        masks = self._masks.isel({DIMS[0]: rows}).variable
        # Whoever asks may be a task of dask: another one must not be waited for.
        data = masks.data.compute(scheduler="synchronous") if masks.chunks else masks.to_numpy()
        found = np.asarray(data)
        if found.max(initial=0) > 1:
            raise InvalidOption(
                "a mask has values other than 0 and 1; give masks > 0, or masks == ..."
            )
        return found

    def coordinates(self) -> xr.Coordinates:
        """Return the coordinates along ``mask``, with their indexes."""
        return self._masks.coords.to_dataset().drop_dims(DIMS[1:], errors="ignore").coords


_Slot = tuple[int, int]
"""What a still is of: a condition, and the image if that is `INTACT`, else the mask's position."""


class Experiment:
    """Objects, images and a model.

    Parameters
    ----------
    masks : ObjectMasks
        The objects.
    pictures : Pictures
        The images.
    encoder : Encoder
        The model.
    fill : tuple of int
        Red, green and blue of what is not shown.
    batch_size : int
        Most stimuli to give to the model at once.
    """

    def __init__(
        self,
        masks: ObjectMasks,
        pictures: Pictures,
        encoder: Encoder,
        *,
        fill: tuple[int, int, int],
        batch_size: int,
    ) -> None:
        self.masks = masks
        self.pictures = pictures
        self.encoder = encoder
        self.fill = fill
        self.batch_size = batch_size
        self._token = uuid.uuid4().hex

    def __dask_tokenize__(self) -> str:
        # Nobody can tell whether two models are the same: two experiments never are.
        return self._token

    def intact(self, image: int) -> NDArray[np.float32]:
        """Return the responses to all of an image, (voxel,)."""
        answer: NDArray[np.float32] = self.encoder([self._stills(image).intact])[0]
        return answer

    def responses(
        self,
        rows: NDArray[np.intp],
        conditions: Sequence[int],
        known: Mapping[int, NDArray[np.float32]] | None = None,
    ) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the position in `rows` and the responses, (condition, voxel), of mask by mask.

        Image by image, of which each is read, and encoded, once; a mask is read once.

        Parameters
        ----------
        rows : numpy.ndarray
            (n,) the masks.
        conditions : sequence of int
            Positions in `CONDITIONS`.
        known : mapping of int to numpy.ndarray, optional
            Responses to all of an image, (voxel,), that somebody has.
        """
        found = {(INTACT, image): answer for image, answer in (known or {}).items()}
        groups = _by_image(self.masks.codes[rows])
        answered = self._answered(self._stimuli(rows, groups, conditions, {*found}))
        for image, positions in groups.items():
            for position in positions:
                slots = [(each, image if each == INTACT else position) for each in conditions]
                # Stills are answered in the order in which they are missed here.
                while not found.keys() >= {*slots}:
                    slot, answer = next(answered)
                    found[slot] = answer
                answers = np.array([found[slot] for slot in slots], np.float32)
                yield position, answers.reshape(len(slots), self.encoder.n_voxels)
                for slot in {*slots} - {(INTACT, image)}:
                    del found[slot]
            found.pop((INTACT, image), None)

    def parts(self, rows: NDArray[np.intp], conditions: Sequence[int]) -> list[slice]:
        """Return how to share rows among tasks.

        Neighbours of one image are together, and several images where they are one batch.
        """
        codes = self.masks.codes[rows]
        edges = [0, *(np.flatnonzero(np.diff(codes)) + 1).tolist(), len(rows)]
        others = len({*conditions} - {INTACT})
        found: list[slice] = []
        room = 0
        for start, stop in pairwise(edges):
            n_stimuli = (INTACT in conditions) + (stop - start) * others
            if found and n_stimuli <= room:
                found[-1] = slice(found[-1].start, stop)
            else:
                found.append(slice(start, stop))
                room = self.batch_size
            room -= n_stimuli
        return found

    def _answered(
        self, stimuli: Iterator[tuple[_Slot, NDArray[np.uint8]]]
    ) -> Iterator[tuple[_Slot, NDArray[np.float32]]]:
        """Yield the responses to one still after the other; the model gets them in batches."""
        while batch := list(islice(stimuli, self.batch_size)):
            slots, stills = zip(*batch, strict=True)
            del batch
            yield from zip(slots, self.encoder(stills), strict=True)

    def _stimuli(
        self,
        rows: NDArray[np.intp],
        groups: Mapping[int, list[int]],
        conditions: Sequence[int],
        known: AbstractSet[_Slot],
    ) -> Iterator[tuple[_Slot, NDArray[np.uint8]]]:
        """Yield the stills to encode, image by image."""
        others = [each for each in dict.fromkeys(conditions) if each != INTACT]
        for image, positions in groups.items():
            is_wanted = INTACT in conditions and (INTACT, image) not in known
            if not is_wanted and not others:
                continue
            stills = self._stills(image)
            if is_wanted:
                yield (INTACT, image), stills.intact
            if not others:
                continue
            masks = self.masks.each(rows[np.array(positions)])
            for position, mask in zip(positions, masks, strict=True):
                for condition in others:
                    yield (condition, position), stills.of(condition, mask)

    def _stills(self, image: int) -> Stills:
        return Stills(self.pictures[self.masks.images[image]], self.fill)


def _by_image(codes: NDArray[np.intp]) -> dict[int, list[int]]:
    """Return the positions of the masks of each image, images in the order they come first."""
    found: dict[int, list[int]] = {}
    for position, image in enumerate(codes.tolist()):
        found.setdefault(image, []).append(position)
    return found
