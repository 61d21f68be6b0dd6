"""Responses to objects in a Zarr store, written mask by mask: what is finished stays finished.

A chunk is what the model answers for one mask, and its object is there whole or not at all: which
masks are finished needs no other record. The question is written first, as the plan, and the root
metadata last: until then there is no Zarr group for anybody.
"""

from __future__ import annotations

import json
import re
from contextlib import nullcontext, suppress
from itertools import chain
from typing import Any

import numpy as np
import xarray as xr

from maskcube.disk import advise, locked
from maskcube.errors import CorruptStore, InvalidOption, StoreExists
from maskcube.folder import Folder
from maskcube.insilico.effects_arrays import (
    EFFECT_DIMS,
    RESPONSE,
    EffectsArrays,
    chunk_key,
    digest_of,
    is_name,
)
from maskcube.insilico.experiment import Experiment
from maskcube.insilico.stills import CONDITIONS, INTACT
from maskcube.objects import PLAN, WORK, Objects, StoreLike, get_at_most, open_objects
from maskcube.progress import mask_bar
from maskcube.root import MOST_METADATA_BYTES, parsed_metadata
from maskcube.schema import ROOT
from maskcube.session import SessionObjects

__all__ = ["write_effects"]

_BLOCK = "maskcube_effects"
"""Attribute of the root that holds the question."""

_CHUNK = re.compile(rf"{RESPONSE}/c/(\d+)/0/0")

_DIGESTS = {"masks", "voxels"}
_MOST_SHOWN = 60

_READ_BYTES = 2**22
_READ_MASKS = 64
"""Responses that are read in one task."""

_CLOSE = 1e-3
"""Of the largest response: what a model's own rounding may differ in from batch to batch."""


def write_effects(
    experiment: Experiment,
    effects: xr.DataArray,
    store: StoreLike,
    *,
    overwrite: bool,
    progress: bool,
    storage_options: dict[str, Any] | None,
) -> xr.DataArray:
    """Write the responses of an experiment to a store, those that are not there yet; open it.

    Parameters
    ----------
    experiment : Experiment
        Answers.
    effects : xarray.DataArray
        Its lazy responses, with all coordinates.
    store : path, URL or zarr Store
        Where to write.
    overwrite : bool
        Replace responses to another question.
    progress : bool
        Show a progress bar.
    storage_options : dict, optional
        For a URL: how to reach it.

    Raises
    ------
    StoreExists
        When something else is there.
    """
    objects = open_objects(store, storage_options, read_only=False)
    if isinstance(objects, SessionObjects):
        raise InvalidOption(f"store: {objects.location} cannot hold what is unfinished: give a URL")
    place = _Place(objects, experiment, effects, overwrite=overwrite)
    held = locked(objects.path, objects.location) if isinstance(objects, Folder) else nullcontext()
    with held:
        try:
            place.begin()
            place.fill(progress=progress)
        except OSError as error:
            advise(error, objects.location)
            raise
    return place.opened()


class _Place:
    """A store of responses, begun or finished."""

    def __init__(
        self, objects: Objects, experiment: Experiment, effects: xr.DataArray, *, overwrite: bool
    ) -> None:
        self._objects = objects
        self._experiment = experiment
        self._effects = effects
        self._overwrite = overwrite
        self.question = _question(experiment, effects)
        self._arrays = EffectsArrays(effects, {_BLOCK: self.question})

    def begin(self) -> None:
        """Write the question, or find it there; clear what is to be replaced.

        Raises
        ------
        StoreExists
            When something else is there.
        """
        root, plan = self._read(ROOT), self._read(PLAN)
        if plan is not None:
            begun = plan.get("question")
            if not isinstance(begun, dict):
                raise StoreExists(f"{self._where}: something else is unfinished there")
            self._require(begun)
            if not self._is_plan(plan):
                self._anew(begun.get("coordinates"), plan.get("clearing"))
        elif root is not None:
            done = _question_in(root)
            if done is None:
                raise StoreExists(
                    f"{self._where} is a Zarr group, and no responses to objects: choose another"
                )
            self._require(done)
            if self._overwrite:
                self._anew(done.get("coordinates"))
        # Killed with its plan half written, a run has left that only.
        elif not all(key.startswith(f"{WORK}/") for key in self._objects.keys()):  # noqa: SIM118 - no mapping
            raise StoreExists(
                f"{self._where} is not empty, and holds no responses to objects: choose another"
            )
        else:
            self._put_plan()

    def fill(self, *, progress: bool) -> None:
        """Write what is not there yet, and at last the metadata."""
        finished = self._finished()
        if finished and not self._is_of_model(finished):
            if not self._overwrite:
                raise StoreExists(
                    f"{self._where}: model {self._experiment.encoder.name!r} answers otherwise than"
                    " what is there, or the images are others; overwrite=True would begin anew"
                )
            self._anew()
            finished = []
        n_masks = len(self._experiment.masks)
        rows = np.setdiff1d(np.arange(n_masks), finished)
        with mask_bar(n_masks, "encoding", show=progress) as bar:
            bar.update(n_masks - len(rows))
            for position, answers in self._experiment.responses(rows, range(len(CONDITIONS))):
                self._check_is_ours()
                self._objects.put(chunk_key(int(rows[position])), self._arrays.encoded(answers))
                bar.update(1)
        if self._objects.size(PLAN) is not None:
            self._finish()

    def opened(self) -> xr.DataArray:
        """Return the responses, lazy, with all coordinates."""
        found = xr.open_zarr(self._objects.zarr_store(), chunks=None, consolidated=True)
        n_masks = max(1, min(_READ_MASKS, _READ_BYTES // max(1, self._effects[:1].nbytes)))
        chunks = {EFFECT_DIMS[0]: n_masks, EFFECT_DIMS[1]: -1, EFFECT_DIMS[2]: -1}
        return self._effects.copy(data=found[RESPONSE].variable.chunk(chunks).data)

    @property
    def _where(self) -> str:
        return self._objects.location

    def _read(self, key: str) -> dict[str, Any] | None:
        data = get_at_most(self._objects, key, MOST_METADATA_BYTES)
        return None if data is None else parsed_metadata(data)

    def _require(self, there: dict[str, Any]) -> None:
        """Raise if responses to another question are there, and are not to be replaced."""
        differs = sorted(
            name for name in {*self.question, *there} if self.question.get(name) != there.get(name)
        )
        if not differs or self._overwrite:
            return
        shown = ", ".join(
            _difference(name, there.get(name), self.question.get(name)) for name in differs
        )
        raise StoreExists(
            f"{self._where} holds, or has begun to, responses to another question: {shown};"
            " overwrite=True would begin anew"
        )

    def _anew(self, *names: object) -> None:
        """Delete what an earlier call has written; killed here, the next one does so."""
        known = [*self.question["coordinates"], *chain.from_iterable(map(_names, names))]
        self._put_plan(clearing=sorted({RESPONSE, *known}))
        self._objects.delete(ROOT)
        for name in {RESPONSE, *known}:
            # Nothing but arrays: the folder may hold what is somebody else's.
            if (self._read(f"{name}/{ROOT}") or {}).get("node_type") == "array":
                self._objects.delete(name)
        # What was not finished has chunks and no array.
        self._objects.delete(*map(chunk_key, self._rows()))
        self._put_plan()

    def _put_plan(self, clearing: list[str] | None = None) -> None:
        plan = {"question": self.question, "clearing": clearing}
        self._objects.put(PLAN, json.dumps(plan).encode())

    def _check_is_ours(self) -> None:
        """Raise if somebody else has begun with another question, or given this one up."""
        plan = self._read(PLAN)
        if plan is None:
            # Finished, by somebody with the same question, or before: chunks were missing.
            is_ours = _question_in(self._read(ROOT)) == self.question
        else:
            is_ours = self._is_plan(plan)
        if not is_ours:
            raise StoreExists(f"{self._where}: another process has begun to write it meanwhile")

    def _is_plan(self, plan: dict[str, Any]) -> bool:
        return plan.get("question") == self.question and not plan.get("clearing")

    def _finish(self) -> None:
        for key, data in self._arrays.objects().items():
            if key == ROOT:
                self._check_is_ours()
            self._objects.put(key, data)
        self._objects.delete(WORK)

    def _rows(self) -> list[int]:
        """Return the masks of which there are responses, ascending."""
        found = (_CHUNK.fullmatch(key) for key in self._objects.keys(f"{RESPONSE}/c/"))
        return sorted(int(each[1]) for each in found if each)

    def _finished(self) -> list[int]:
        n_masks = len(self._experiment.masks)
        return [row for row in self._rows() if row < n_masks]

    def _is_of_model(self, finished: list[int]) -> bool:
        """Whether the model answers as it did, to the image of a mask that is finished.

        There is no other way to know a model, whatever it is. Masks before that one, whose
        responses cannot be read, are taken out of the list.
        """
        while finished:
            with suppress(CorruptStore):
                chunk = self._objects.get(chunk_key(finished[0])) or b""
                there = self._arrays.decoded(chunk)[INTACT]
                image = int(self._experiment.masks.codes[finished[0]])
                asked = self._experiment.intact(image)
                close = _CLOSE * float(np.nanmax(np.abs(asked), initial=0))
                return np.allclose(there, asked, rtol=0, atol=close, equal_nan=True)
            del finished[0]
        return True


def _question(experiment: Experiment, effects: xr.DataArray) -> dict[str, Any]:
    """Return what is asked, as JSON has it."""
    coordinates = effects.coords
    along_mask = coordinates.to_dataset().drop_dims(EFFECT_DIMS[1:]).coords
    along_voxel = coordinates.to_dataset().drop_dims(EFFECT_DIMS[:2]).coords
    return {
        "format_version": 1,
        "masks": digest_of(along_mask),
        "voxels": digest_of(along_voxel),
        "coordinates": sorted(map(str, coordinates)),
        "n_masks": len(experiment.masks),
        "n_voxels": experiment.encoder.n_voxels,
        "size": list(experiment.masks.size),
        "fill": list(experiment.fill),
        "n_frames": experiment.encoder.n_frames,
        "model": experiment.encoder.name,
        "subject": _as_json(experiment.encoder.attributes.get("subject")),
    }


def _question_in(root: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the question that root metadata has, if any."""
    attributes = (root or {}).get("attributes")
    found = attributes.get(_BLOCK) if isinstance(attributes, dict) else None
    return found if isinstance(found, dict) else None


def _as_json(value: object) -> object:
    return value if isinstance(value, int | str | None) else str(value)


def _difference(name: str, there: object, asked: object) -> str:
    if name in _DIGESTS:
        return f"other {name}"
    return f"{name} is {str(there)[:_MOST_SHOWN]}, asked for {str(asked)[:_MOST_SHOWN]}"


def _names(value: object) -> list[str]:
    """Return the names of arrays in a list that was read."""
    return [each for each in value if is_name(each)] if isinstance(value, list) else []
