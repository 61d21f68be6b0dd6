"""A store of encoding models: one Zarr group, with a group for each subject.

========================  ==================  ==============================================
array                     dims                meaning
========================  ==================  ==============================================
``mean``, ``scale``       feature             by which features are z-scored
``components``            component, feature  onto which they are projected then
``subject-01/coef``       voxel, component    from scores to responses
``subject-01/intercept``  voxel               ...
``subject-01/mask``       i, j, k             1 where the subject's voxels are, in C order
``subject-01/group_mask`` i, j, k             1 where all subjects have a voxel
``subject-01/region...``  ...                 names, and where the voxels of each lie
``subject-01/measures``   measure, voxel      noise ceilings and accuracies; ``measure`` has their
                                              names
========================  ==================  ==============================================

Chunks are 65,536 features and 1,024 voxels. A store that holds one region's coefficients for the
asking, and can be read block by block, needs no more of it than that. Any Zarr 3 reader opens it.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import MaskcubeError, StoreNotFound, listed
from maskcube.insilico.arrays import lazy_array
from maskcube.insilico.brain import Brain, Region, Volume
from maskcube.insilico.errors import CorruptWeights, ModelLoadError
from maskcube.insilico.weights import Components, LazyArray, Regression, subject_of
from maskcube.objects import Objects, StoreLike, get_at_most, open_objects
from maskcube.schema import ROOT

if TYPE_CHECKING:
    import zarr

__all__ = ["ATTRIBUTE", "FORMAT_VERSION", "MOST_ROOT_BYTES", "ModelStore", "group_of", "read_root"]

ATTRIBUTE = "maskcube_insilico"
FORMAT_VERSION = 1

MOST_ROOT_BYTES = 2**25
_MOST_FEATURES = 2**26
_MOST_VOXELS = 2**22
_MOST_COMPONENTS = 2**14
_MOST_COEFFICIENTS = 2**30
"""Of all voxels, which may all be asked for; pieces that are not there take no disk."""
_MOST_BRAIN_BYTES = 2**28
_BLOCKS_AHEAD = 4

_FLOAT = "f"


def group_of(subject: int) -> str:
    """Return the name of a subject's group."""
    return f"subject-{subject:02}"


def read_root(objects: Objects) -> dict[str, Any] | None:
    """Return what a store of models says of itself; None where there is none.

    Raises
    ------
    CorruptWeights
        When it is one, and not readable.
    """
    data = get_at_most(objects, ROOT, MOST_ROOT_BYTES)
    try:
        said = {} if data is None else json.loads(data)["attributes"][ATTRIBUTE]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not said:
        return None
    is_readable = isinstance(said, dict) and said.get("format_version") == FORMAT_VERSION
    subjects = said.get("subjects") if is_readable else None
    are_numbers = isinstance(subjects, list) and all(type(each) is int for each in subjects)
    if not (are_numbers and isinstance(said.get("backbone"), str)):
        raise CorruptWeights(
            f"{objects.location}: says of itself {said!r:.200}; this maskcube reads version"
            f" {FORMAT_VERSION} of encoding models"
        )
    return dict(said)


class ModelStore:
    """The models in a store; `Weights` that are read from anywhere a Zarr store may be.

    Parameters
    ----------
    objects : Objects
        Where it is.
    root : dict
        What it says of itself.
    """

    def __init__(self, objects: Objects, root: dict[str, Any]) -> None:
        import zarr

        self._root = root
        self.objects = objects
        self.location = objects.location
        self.backbone: str = root["backbone"]
        self.subjects: tuple[int, ...] = tuple(sorted(root["subjects"]))
        try:
            self._group = zarr.open_group(objects.zarr_store(), mode="r", zarr_format=3)
        except MaskcubeError:
            raise
        except Exception as error:  # zarr raises whatever it likes
            raise CorruptWeights(
                f"{self.location}: its metadata cannot be read: {error}"
            ) from error

    @classmethod
    def open(cls, store: StoreLike, storage_options: dict[str, Any] | None = None) -> ModelStore:
        """Open a store; reads its root metadata.

        Raises
        ------
        StoreNotFound
            When nothing is there.
        ModelLoadError
            When something else is there, or a model that is not complete.
        """
        objects = open_objects(store, storage_options)
        root = read_root(objects)
        if root is not None:
            return cls(objects, root)
        if next(objects.keys(), None) is None:
            raise StoreNotFound(
                f"there is no encoding model at {objects.location}, which is empty or not there:"
                " give BERG's folder, which holds encoding_models, or a store of convert or fit"
            )
        raise ModelLoadError(
            f"{objects.location} is neither BERG's folder nor a store of encoding models: give the"
            " folder that holds encoding_models; a store whose conversion was interrupted is"
            " finished by the same command"
        )

    def __reduce__(self) -> tuple[type[ModelStore], tuple[Objects, dict[str, Any]]]:
        return type(self), (self.objects, self._root)

    def components(self) -> Components:
        """Return mean, scale and components, nothing of which is read yet.

        Raises
        ------
        CorruptWeights
            When they are not there, or do not fit together.
        """
        components = self._floats("components", (_MOST_COMPONENTS, _MOST_FEATURES))
        n_features = components.shape[1:]
        return Components(
            self._floats("mean", (_MOST_FEATURES,), n_features),
            self._floats("scale", (_MOST_FEATURES,), n_features),
            components,
            1 if self.objects.has_cheap_ranges else _BLOCKS_AHEAD,
        )

    def regression(self, subject: int) -> Regression:
        """Return the coefficients of a subject, nothing of which is read yet.

        Raises
        ------
        InvalidParameterError
            When the subject is not in this store.
        CorruptWeights
            When they are not there, or do not fit to the components.
        """
        group = group_of(subject_of(self, subject))
        coef = self._floats(f"{group}/coef", (_MOST_VOXELS, _MOST_COMPONENTS))
        n_components = self.components().components.shape[0]
        if coef.shape[1] != n_components or coef.shape[0] * n_components > _MOST_COEFFICIENTS:
            raise CorruptWeights(
                f"{self.location}: {group}/coef is {coef.shape} for {n_components:,} components"
            )
        intercept = self._floats(f"{group}/intercept", (_MOST_VOXELS,), coef.shape[:1])
        return Regression(coef, intercept)

    def brain(self, subject: int) -> Brain | None:
        """Return what is known of a subject's voxels; None when that is nothing.

        Raises
        ------
        InvalidParameterError
            When the subject is not in this store.
        CorruptWeights
            When it cannot be read, or does not fit to the coefficients.
        """
        path = group_of(subject_of(self, subject))
        if f"{path}/mask" not in self._group:
            return None
        said: dict[str, Any] = dict(self._group[path].attrs)
        n_voxels = self.regression(subject).coef.shape[0]
        try:
            volumes = [
                _volume(
                    self._values(f"{path}/{name}mask"), said[f"{name}affine"], said[f"{name}header"]
                )
                for name in ("", "group_")
            ]
            regions = self._regions(path)
            names = [str(name) for name in self._values(f"{path}/measure").tolist()]
            measures = dict(zip(names, self._values(f"{path}/measures"), strict=True))
        except (KeyError, TypeError, ValueError, OverflowError, binascii.Error) as error:
            raise CorruptWeights(f"{self.location}: {path} cannot be read: {error}") from error
        brain = Brain(volumes[0], volumes[1], regions, measures)
        faults = brain.faults
        if faults:
            raise CorruptWeights(f"{self.location}: {path}: {listed(faults)}")
        if brain.n_voxels != n_voxels or {len(each) for each in measures.values()} - {n_voxels}:
            raise CorruptWeights(
                f"{self.location}: {path} has coefficients for {n_voxels:,} voxels, and a mask with"
                f" {brain.n_voxels:,}"
            )
        return brain

    def _regions(self, path: str) -> dict[str, Region]:
        names = [str(name) for name in self._values(f"{path}/region").tolist()]
        indices = self._values(f"{path}/region_indices").astype(np.int64)
        flat = self._values(f"{path}/region_flat")
        ends = np.cumsum(self._values(f"{path}/region_size"))
        # What follows the last one is nothing: the only part where there is no region.
        places, numbers = (np.split(values, ends)[:-1] for values in (indices, flat))
        parts = zip(names, places, numbers, strict=True)
        return {name: Region(place, number) for name, place, number in parts}

    def _array(self, path: str) -> zarr.Array[Any]:
        """Return an array of which no chunk can become larger than it should be."""
        from maskcube.guarded import guarded_array

        try:
            found = self._group[path].metadata.to_dict()
            return guarded_array(self._group.store, path, found)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            raise CorruptWeights(f"{self.location}: {path} cannot be read: {error}") from error

    def _floats(
        self, path: str, most: tuple[int, ...], shape: tuple[int, ...] | None = None
    ) -> LazyArray:
        array = self._array(path)
        fits = len(array.shape) == len(most) and all(
            0 < size <= limit for size, limit in zip(array.shape, most, strict=True)
        )
        if not fits or array.dtype.kind != _FLOAT or shape not in (None, array.shape):
            raise CorruptWeights(
                f"{self.location}: {path} is {array.shape} {array.dtype}, expected floats"
                f" {shape or f'of at most {most}'}"
            )
        return lazy_array(self.objects, array)

    def _values(self, path: str) -> NDArray[Any]:
        """Return a small array, whole."""
        array = self._array(path)
        if math.prod(array.shape) * 8 > _MOST_BRAIN_BYTES:
            raise CorruptWeights(f"{self.location}: {path} is {array.shape}, too large")
        try:
            return np.asarray(array[...])
        except MaskcubeError:
            raise
        except Exception as error:  # zarr and its codecs raise whatever they like
            raise CorruptWeights(f"{self.location}: {path} cannot be read: {error}") from error


def _volume(mask: NDArray[Any], affine: Any, header: str | None) -> Volume:  # noqa: ANN401 - of JSON
    matrix = np.array([[np.nan if each is None else each for each in row] for row in affine], float)
    if mask.ndim != matrix.ndim + 1 or matrix.shape != (4, 4):
        raise ValueError(f"a mask of {mask.shape} with an affine of {matrix.shape}")
    known = None if header is None else base64.b64decode(header, validate=True)
    return Volume(mask.astype(bool), matrix, known)
