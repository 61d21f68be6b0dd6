"""Responses to objects as a dask array that knows its masks, conditions and voxels.

An ordinary dask array computes whole chunks of what is selected from it, and a chunk is as many
stimuli as an image has objects. Here a selection becomes the stimuli that it needs, and no others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from dask.array import Array
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from numpy.typing import NDArray

from maskcube.insilico.experiment import Experiment
from maskcube.insilico.stills import CONDITIONS, INTACT

__all__ = ["EffectRows", "Selection"]

_Indices = NDArray[np.intp] | int
"""An integer where somebody has selected one, and the dimension is gone."""


class Selection(NamedTuple):
    """Which masks, conditions and voxels."""

    rows: _Indices
    conditions: _Indices
    voxels: _Indices

    @classmethod
    def whole(cls, experiment: Experiment) -> Self:
        """Return everything."""
        sizes = len(experiment.masks), len(CONDITIONS), experiment.encoder.n_voxels
        return cls(*map(np.arange, sizes))

    @property
    def axes(self) -> list[int]:
        """The dimensions that are left."""
        return [axis for axis, indices in enumerate(self) if np.ndim(indices)]

    def take(self, key: Sequence[Any]) -> Self:
        """Return what is left when each dimension is indexed by its own key.

        Two lists mean masks and voxels, as in xarray, and not pairs, which dask refuses anyway.
        """
        left = list(self)
        for axis, index in zip(self.axes, key, strict=False):
            found = np.asarray(self[axis])[index]
            left[axis] = found if np.ndim(found) else int(found)
        return type(self)(*left)


class _LikeArray(type):
    """Makes a class equal to dask's own.

    xarray takes arrays of two classes in one dataset for those of two libraries, and refuses.
    """

    def __eq__(cls, other: object) -> bool:
        return other is Array or other is cls

    def __hash__(cls) -> int:
        return hash(Array)


class EffectRows(Array, metaclass=_LikeArray):
    """Responses as a dask array, (mask, condition, voxel) float32.

    Indexing with integers, slices, lists or booleans gives the same of what is left; whatever else
    is done to it gives an ordinary dask array.

    Parameters
    ----------
    experiment : Experiment
        Answers.
    selection : Selection
        Which responses.
    """

    experiment: Experiment
    selection: Selection
    _made_as: str

    def __new__(cls, experiment: Experiment, selection: Selection) -> Self:
        """Return the array; builds the tasks and encodes nothing."""
        name = f"response-{tokenize(experiment, *selection)}"
        parts, graph = _tasks(name, experiment, selection)
        sizes = [tuple(parts), *((np.size(indices),) for indices in selection[1:])]
        chunks = tuple(sizes[axis] for axis in selection.axes)
        layers = HighLevelGraph.from_collections(name, graph)
        self: Self = super().__new__(cls, layers, name, chunks, dtype=np.float32)  # type: ignore[no-untyped-call]
        self.experiment, self.selection = experiment, selection
        self._made_as = name
        return self

    @property
    def is_untouched(self) -> bool:
        """Whether this still is what the model answers: assigning to it makes it something else."""
        return bool(self.name == self._made_as)

    def __getitem__(self, index: Any) -> Array:  # noqa: ANN401 - as in dask
        key = index if isinstance(index, tuple) else (index,)
        if self.is_untouched and len(key) <= self.ndim:
            plain = [_plain(each) for each in key]
            if all(each is not None for each in plain):
                return type(self)(self.experiment, self.selection.take(plain))
        indexed: Array = super().__getitem__(index)  # type: ignore[no-untyped-call]
        return indexed

    def copy(self) -> Array:
        """Return the same array, which still knows what it is of."""
        if self.is_untouched:
            return type(self)(self.experiment, self.selection)
        copied: Array = super().copy()  # type: ignore[no-untyped-call]
        return copied

    def __reduce__(self) -> tuple[Callable[..., Array], tuple[Any, ...]]:
        if not self.is_untouched:
            reduced: tuple[Callable[..., Array], tuple[Any, ...]] = super().__reduce__()  # type: ignore[no-untyped-call]
            return reduced
        return type(self), (self.experiment, self.selection)


@dataclass(frozen=True)
class _Task:
    """What is computed together."""

    rows: NDArray[np.intp]
    conditions: list[int]
    gone: tuple[int, ...]
    known: list[int]
    """Images whose responses another task gives."""


def _tasks(
    name: str, experiment: Experiment, selection: Selection
) -> tuple[list[int], dict[Any, Any]]:
    """Return how many masks are in each task, and the graph."""
    rows, conditions, voxels = map(np.atleast_1d, selection)
    wanted = conditions.tolist()
    parts = [rows[part] for part in experiment.parts(rows, wanted)] or [rows]
    images = [dict.fromkeys(experiment.masks.codes[part].tolist()) for part in parts]
    n_tasks = Counter(image for each in images for image in each)
    # Only of neighbours can one task do all.
    shared = {image for image, count in n_tasks.items() if count > 1 and INTACT in wanted}
    of_experiment, of_voxels, of_image = (f"{what}-{name}" for what in ("asked", "voxels", "image"))
    graph: dict[Any, Any] = {of_experiment: experiment, of_voxels: _compact(voxels, experiment)}
    for image in shared:
        graph[of_image, image] = (_intact, of_experiment, image)
    gone = tuple(axis for axis in range(len(selection)) if axis not in selection.axes)
    for number, (part, mine) in enumerate(zip(parts, images, strict=True)):
        place = tuple(number if axis == 0 else 0 for axis in selection.axes)
        known = [image for image in mine if image in shared]
        task = _Task(part, wanted, gone, known)
        answers = [(of_image, image) for image in known]
        graph[name, *place] = (_answers, of_experiment, task, of_voxels, answers)
    return [len(part) for part in parts], graph


def _compact(voxels: NDArray[np.intp], experiment: Experiment) -> NDArray[np.intp] | None:
    """Return voxels for a graph; None for all of them."""
    n_voxels = experiment.encoder.n_voxels
    is_all = len(voxels) == n_voxels and np.array_equal(voxels, np.arange(n_voxels))
    return None if is_all else voxels


def _intact(experiment: Experiment, image: int) -> NDArray[np.float32]:
    return experiment.intact(image)


def _answers(
    experiment: Experiment,
    task: _Task,
    voxels: NDArray[np.intp] | None,
    answers: list[NDArray[np.float32]],
) -> NDArray[np.float32]:
    """Return the responses of a task, without the dimensions that are gone."""
    n_voxels = experiment.encoder.n_voxels if voxels is None else len(voxels)
    found = np.empty((len(task.rows), len(task.conditions), n_voxels), np.float32)
    known = dict(zip(task.known, answers, strict=True))
    for position, each in experiment.responses(task.rows, task.conditions, known):
        found[position] = each if voxels is None else each[:, voxels]
    return found.squeeze(task.gone)


def _plain(key: object) -> object:
    """Return what indexes one dimension, or None if it is anything else."""
    if isinstance(key, bool):
        return None
    if isinstance(key, slice | int | np.integer):
        return key
    if isinstance(key, list):
        key = np.asarray(key) if key else np.empty(0, np.intp)
    is_row = isinstance(key, np.ndarray) and key.ndim == 1 and key.dtype.kind in "iub"
    return key if is_row else None
