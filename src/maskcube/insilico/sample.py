"""A small encoding model with everything that a real one has, to try things with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.backbones import Pixels
from maskcube.insilico.brain import MEASURES, Brain, Region, Volume
from maskcube.insilico.catalog import REGIONS
from maskcube.insilico.draft import new_model
from maskcube.insilico.errors import InvalidParameterError
from maskcube.insilico.weights import Regression

__all__ = ["sample_model"]

_SHAPE = (12, 14, 10)
_VOXEL_MM = 2.5
_N_COMPONENTS = 20


def sample_model(store: str | Path, *, n_subjects: int = 1, overwrite: bool = False) -> str:
    """Write a store of small, made-up models: 20 components, a brain of some 800 voxels.

    Its backbone sees an 8 x 8 grid of colours, and needs no torch. The numbers mean nothing.

    Parameters
    ----------
    store : path
        Where to write it.
    n_subjects : int, default 1
        How many subjects.
    overwrite : bool
        Replace a store of models.

    Returns
    -------
    str
        `store`.

    Raises
    ------
    StoreExists
        When something is there.
    InvalidParameterError
        When `n_subjects` is no number of at least 1.

    Examples
    --------
    >>> from maskcube.insilico import BERG
    >>> BERG(sample_model("models.zarr", n_subjects=2))
    BERG('...models.zarr', subjects: [1, 2])
    """
    if type(n_subjects) is not int or n_subjects < 1:
        raise InvalidParameterError(f"n_subjects={n_subjects!r}: give a number of at least 1")
    n_features = Pixels.n_features
    plan = {"sample": 1, "n_subjects": n_subjects}
    shape = (_N_COMPONENTS, n_features)
    with new_model(store, plan, shape=shape, backbone="pixels", overwrite=overwrite) as draft:
        random = np.random.default_rng(7)
        components = (random.standard_normal(shape) / np.sqrt(n_features)).astype("f4")
        mean = np.full(n_features, 110, "f4")
        draft.put_block(draft.blocks[0], mean, np.full(n_features, 60, "f4"), components)
        for subject in range(1, n_subjects + 1):
            brain = _brain(subject)
            coef = random.standard_normal((brain.n_voxels, _N_COMPONENTS)).astype("f4")
            intercept = random.standard_normal(brain.n_voxels).astype("f4") / 10
            draft.put_subject(subject, Regression(coef, intercept), brain)
    return str(store)


def _brain(subject: int) -> Brain:
    """Return an ellipsoid of voxels, with regions behind each other in each half."""
    random = np.random.default_rng(subject)
    centre = (np.array(_SHAPE) - 1) / 2
    distance = np.linalg.norm((np.indices(_SHAPE).T - centre) / (centre + 0.3), axis=-1).T
    mask = distance + random.normal(0, 0.02, _SHAPE) < 1
    affine = np.diag([_VOXEL_MM, _VOXEL_MM, _VOXEL_MM, 1.0])
    affine[:3, 3] = -_VOXEL_MM * centre
    voxels, group = Volume(mask, affine), Volume(distance < 1, affine)
    brain = Brain(voxels, group)
    measures = {
        name: random.uniform(0, 80 if name.startswith("noise") else 0.8, brain.n_voxels).astype(
            "f4"
        )
        for name in MEASURES
    }
    return Brain(voxels, group, _regions(brain), measures)


def _regions(brain: Brain) -> dict[str, Region]:
    """Return for each region some voxels of its half of the brain; V1 lies furthest back."""
    numbers = np.cumsum(brain.group.mask.ravel()).reshape(_SHAPE) - 1
    found: dict[str, NDArray[np.int64]] = {"BMDgeneral": brain.indices}
    middle = _SHAPE[0] / 2
    for side, inside in (
        ("l", brain.indices[:, 0] < middle),
        ("r", brain.indices[:, 0] >= middle),
    ):
        names = [name for name in REGIONS if name.startswith(side)]
        half = brain.indices[inside]
        order = np.argsort(half[:, 1], kind="stable")
        parts = np.array_split(half[order], len(names))
        found |= dict(zip(names, parts, strict=True))
    return {name: Region(found[name], numbers[tuple(found[name].T)]) for name in REGIONS}
