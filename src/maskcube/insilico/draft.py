"""A store of models under construction: chunk after chunk, and its root last.

Until the root is there nothing opens the store, on a disk as in a bucket. What a killed run has
written is compared with what is to be written, by size and checksum, and stays where it is equal.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.disk import advise, locked
from maskcube.errors import StoreExists
from maskcube.folder import Folder
from maskcube.insilico.arrays import CRC_BYTES, encode_chunk
from maskcube.insilico.brain import Brain
from maskcube.insilico.catalog import MODEL_ID
from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.model_store import (
    ATTRIBUTE,
    FORMAT_VERSION,
    MOST_ROOT_BYTES,
    group_of,
    read_root,
)
from maskcube.insilico.nodes import Nodes, brain_arrays, brain_attributes
from maskcube.insilico.projection import BLOCK_FEATURES
from maskcube.insilico.weights import Regression
from maskcube.objects import PLAN, WORK, Objects, StoreLike, get_at_most, open_objects
from maskcube.provenance import generator, now
from maskcube.schema import ROOT

__all__ = ["Draft", "is_unused", "new_model"]

_BLOCK_VOXELS = 1024
_MOST_PLAN_BYTES = 2**24
_ARRAYS = (
    "mean|scale|components|coef|intercept|mask|group_mask|measures?|region(_size|_indices|_flat)?"
)
_OURS = re.compile(
    rf"(subject-\d+/)?({_ARRAYS})/(zarr\.json|c(/\d+)*)|subject-\d+/zarr\.json|{WORK}/.*"
)
"""What a store of models consists of; whatever else is beside it is somebody's."""
_SAID_OF_ARRAYS = ("shape", "data_type", "attributes")
_UNFINISHED = re.compile(rf"{WORK}/[0-9a-f]{{32}}")
"""What a write that was killed leaves."""


class _Shaped(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@contextmanager
def new_model(
    store: StoreLike,
    plan: Mapping[str, Any],
    *,
    shape: tuple[int, int],
    backbone: str = "s3d",
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
) -> Iterator[Draft]:
    """Give a store to fill, which is one when the context ends without an error.

    Parameters
    ----------
    store : path, URL or zarr Store
        Where it will be.
    plan : mapping
        What the model is made of, as plain JSON: a killed run is resumed by one with an equal plan,
        and a subject is added to a complete store whose plan was equal.
    shape : tuple of int
        Number of components and of features.
    backbone : str
        Name of what makes features.
    overwrite : bool
        Replace a store of models, or discard an unfinished one.
    storage_options : dict, optional
        How to reach a URL.

    Raises
    ------
    StoreExists
        When something else is there, or a model with another plan and no `overwrite`.
    """
    objects = open_objects(store, storage_options, read_only=False)
    # What JSON makes of it is what will be read again.
    full = json.loads(
        json.dumps({"insilico": dict(plan), "shape": list(shape), "backbone": backbone})
    )
    held = locked(objects.path, objects.location) if isinstance(objects, Folder) else nullcontext()
    with held:
        draft = Draft(objects, full, shape, backbone)
        draft.prepare(overwrite=overwrite)
        yield draft
        draft.finish()


class Draft:
    """A store of models that is being written; `new_model` gives it.

    Parameters
    ----------
    objects : Objects
        Where it is written.
    plan : dict
        What it is made of.
    shape : tuple of int
        Number of components and of features.
    backbone : str
        Name of what makes features.
    """

    def __init__(
        self, objects: Objects, plan: dict[str, Any], shape: tuple[int, int], backbone: str
    ) -> None:
        self.objects = objects
        self.location = objects.location
        self.shape = shape
        self._plan = plan
        self._backbone = backbone
        self._nodes: dict[str, Any] = {}
        self._subjects: list[int] = []
        self._sealed: set[str] = set()
        """What is complete, and read by others: nothing in it may change."""
        self.n_kept = 0
        """Chunks that were there already."""

    @property
    def blocks(self) -> list[slice]:
        """The features of each block."""
        n_features = self.shape[1]
        starts = range(0, n_features, BLOCK_FEATURES)
        return [slice(start, min(start + BLOCK_FEATURES, n_features)) for start in starts]

    @property
    def subjects(self) -> tuple[int, ...]:
        """The subjects that are written."""
        return tuple(sorted(self._subjects))

    def prepare(self, *, overwrite: bool) -> None:
        """Look at what is there, and clear what is ours and not wanted."""
        root = read_root(self.objects)
        work = get_at_most(self.objects, PLAN, _MOST_PLAN_BYTES)
        earlier = _parsed(work) if root is None else root.get("plan")
        is_ours = root is not None or (isinstance(earlier, dict) and "insilico" in earlier)
        if not is_ours and (work or not is_unused(self.objects)):
            raise StoreExists(
                f"{self.location} is no store of encoding models, and is not replaced"
            )
        if is_ours and earlier != self._plan:
            if not overwrite:
                raise StoreExists(
                    f"{self.location} is a model made of something else, or half of one;"
                    " overwrite=True would replace it"
                )
            self._discard()
        elif root is not None and overwrite:
            self._discard()
        elif root is not None:
            self._subjects = list(root["subjects"])
            self._nodes = _nodes_of(self.objects)
            self._sealed = {"mean", "scale", "components", *map(group_of, self._subjects)}
        self._write(PLAN, json.dumps(self._plan).encode())

    def put_block(
        self,
        block: slice,
        mean: NDArray[np.floating],
        scale: NDArray[np.floating],
        components: NDArray[np.floating],
    ) -> None:
        """Write a block of features: (feature,), (feature,) and (component, feature)."""
        width = min(BLOCK_FEATURES, self.shape[1])
        chunks = (width,), (width,), (self.shape[0], width)
        values = mean, scale, components
        for key, chunk, part in zip(_block_keys(block), chunks, values, strict=True):
            self._put(key, encode_chunk(part, chunk))

    def put_subject(self, subject: int, regression: Regression, brain: Brain | None) -> None:
        """Write what is of one subject; coefficients some voxels at a time."""
        group, (n_voxels, n_components) = group_of(subject), regression.coef.shape
        height = min(_BLOCK_VOXELS, n_voxels)
        for number, start in enumerate(range(0, n_voxels, height)):
            rows = slice(start, min(start + height, n_voxels))
            coef = encode_chunk(regression.coef[rows], (height, n_components))
            self._put(f"{group}/coef/c/{number}/0", coef)
            intercept = encode_chunk(regression.intercept[rows], (height,))
            self._put(f"{group}/intercept/c/{number}", intercept)
        nodes = Nodes(group, brain_attributes(brain))
        nodes.declare("coef", regression.coef, (height, n_components), ("voxel", "component"))
        nodes.declare("intercept", regression.intercept, (height,), ("voxel",))
        for name, (dims, values) in brain_arrays(brain).items():
            nodes.write(name, values, dims)
        self._take(nodes)
        self._subjects = [*{*self._subjects, subject}]

    def finish(self) -> None:
        """Write what says that it is a store of models, last."""
        n_components, n_features = self.shape
        width = min(BLOCK_FEATURES, n_features)
        nodes = Nodes("", {})
        for name, shape, chunk, dims in (
            ("mean", (n_features,), (width,), ("feature",)),
            ("scale", (n_features,), (width,), ("feature",)),
            ("components", self.shape, (n_components, width), ("component", "feature")),
        ):
            first = "/".join([name, "c", *("0" for _ in shape)])
            size = self.objects.size(first) or 0
            dtype = np.dtype(f"<f{(size - CRC_BYTES) // math.prod(chunk)}")
            nodes.declare(name, _Shaped(shape, dtype), chunk, dims)
        self._take(nodes)
        self._check_is_ours()
        self._write(ROOT, json.dumps(self._root()).encode())
        self.objects.delete(PLAN, WORK)

    def _root(self) -> dict[str, Any]:
        said = {
            "format_version": FORMAT_VERSION,
            "model_id": MODEL_ID,
            "backbone": self._backbone,
            "subjects": list(self.subjects),
            "plan": self._plan,
            "generator": generator(),
            "created": now(),
        }
        consolidated = {"kind": "inline", "must_understand": False, "metadata": self._nodes}
        return {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": {ATTRIBUTE: said},
            "consolidated_metadata": consolidated,
        }

    def _take(self, nodes: Nodes) -> None:
        """Write what was made in memory."""
        documents, objects = nodes.made()
        for path, document in documents.items():
            # Another version of zarr says the same in other words.
            earlier = self._nodes.setdefault(path, document)
            if any(earlier.get(field) != document.get(field) for field in _SAID_OF_ARRAYS):
                raise self._sealed_part(path)
        for key, data in objects.items():
            if not (key.endswith(f"/{ROOT}") and _part(key) in self._sealed):
                self._put(key, data)

    def _put(self, key: str, data: bytes) -> None:
        """Write an object, unless an earlier run has.

        Raises
        ------
        StoreExists
            When it would change what is complete: killed meanwhile, it would be of both.
        """
        size = self.objects.size(key)
        if size == len(data):
            # Only chunks end with a checksum.
            end = 0 if key.endswith(ROOT) else len(data) - CRC_BYTES
            if self.objects.get(key, end, len(data) - end) == data[end:]:
                self.n_kept += 1
                return
        if size is not None and _part(key) in self._sealed:
            raise self._sealed_part(key)
        self._write(key, data)

    def _sealed_part(self, key: str) -> StoreExists:
        return StoreExists(
            f"{self.location} has {_part(key)} already, made of something else; overwrite=True"
            " would replace the store"
        )

    def _write(self, key: str, data: bytes) -> None:
        try:
            self.objects.put(key, data)
        except OSError as error:
            advise(error, self.location)
            raise

    def _check_is_ours(self) -> None:
        """Raise if another process has begun, or finished, a store here: no lock is in a bucket."""
        if _parsed(get_at_most(self.objects, PLAN, _MOST_PLAN_BYTES)) != self._plan:
            raise StoreExists(
                f"{self.location}: another process has written to it meanwhile; run this again"
            )

    def _discard(self) -> None:
        """Delete a store of models, what makes it one first; what is not of it stays."""
        # Killed meanwhile, the next run knows that it is ours, and goes on.
        self._write(PLAN, json.dumps({"insilico": None, "discarding": self._plan}).encode())
        self.objects.delete(ROOT)
        ours = [key for key in self.objects.keys() if _OURS.fullmatch(key)]  # noqa: SIM118 - no mapping
        self.objects.delete(*(key for key in ours if key != PLAN))


def is_unused(objects: Objects) -> bool:
    """Whether nothing is there, but what a run that was killed at once has left."""
    return all(_UNFINISHED.fullmatch(key) for key in objects.keys())  # noqa: SIM118 - no mapping


def _part(key: str) -> str:
    """Return what an object is a part of: a subject, or an array of all."""
    return key.partition("/")[0]


def _block_keys(block: slice) -> tuple[str, str, str]:
    number = block.start // BLOCK_FEATURES
    return f"mean/c/{number}", f"scale/c/{number}", f"components/c/0/{number}"


def _parsed(plan: bytes | None) -> object:
    try:
        return None if plan is None else json.loads(plan)
    except (ValueError, RecursionError):
        return None


def _nodes_of(objects: Objects) -> dict[str, Any]:
    """Return the metadata of all groups and arrays of a complete store."""
    data = get_at_most(objects, ROOT, MOST_ROOT_BYTES) or b"{}"
    try:
        return dict(json.loads(data)["consolidated_metadata"]["metadata"])
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptWeights(
            f"{objects.location}: nothing can be added to it: it has no consolidated metadata"
        ) from error
