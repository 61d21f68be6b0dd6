"""BERG's own files of ``fmri-bmd-s3d``: opened where they are, and never unpickled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.backbones import Pixels
from maskcube.insilico.brain import MEASURES, MOST_REGIONS, Brain, Region, Volume
from maskcube.insilico.errors import CorruptWeights, ModelLoadError
from maskcube.insilico.findings import Findings, names_in, present, there
from maskcube.insilico.mapped import MappedArray
from maskcube.insilico.stand_ins import Record
from maskcube.insilico.weights import Components, Regression, subject_of

__all__ = ["MODEL_FOLDER", "BergFiles"]

MODEL_FOLDER = Path("encoding_models", "modality-fmri", "train_dataset-bmd", "model-s3d")
"""Where the model is in the folder that BERG calls ``berg_dir``."""

_WEIGHTS = "encoding_models_weights"
_PCA = "pca_weights.npy"
_SUBJECT = re.compile(r"weights_sub-([0-9]{2})\.npy")
_OLD_FEATURES = 5_337_088
_HEADER_BYTES = 348
_MOST_VOXELS = 2**26
_MOST_PLACES = 2**24
"""Of all regions together."""
_MOST_TOLD = 200


class BergFiles:
    """The weights in a folder of BERG's; every file is read when something in it is asked for.

    Parameters
    ----------
    folder : pathlib.Path
        The folder of the model, in which `open` has looked.
    subjects : tuple of int
        Whose weights there are, ascending.
    """

    def __init__(self, folder: Path, subjects: tuple[int, ...]) -> None:
        self._folder = folder
        self.subjects = subjects

    @classmethod
    def open(cls, berg_dir: str | Path) -> BergFiles:
        """Return the weights in BERG's folder.

        Parameters
        ----------
        berg_dir : str or pathlib.Path
            What BERG calls so: the folder that holds ``encoding_models``.

        Raises
        ------
        ModelLoadError
            When the model is not there, or its components, or the weights of any subject.
        """
        root = Path(berg_dir)
        folder = root / MODEL_FOLDER
        if not folder.is_dir():
            raise ModelLoadError(
                f"{root} has no {MODEL_FOLDER}: berg_dir is the folder that holds encoding_models;"
                f" {there(root)}"
            )
        present(folder / _WEIGHTS / _PCA)
        found = map(_SUBJECT.fullmatch, names_in(folder / _WEIGHTS))
        subjects = sorted(int(name[1]) for name in found if name)
        if not subjects:
            raise ModelLoadError(
                f"{folder / _WEIGHTS} has no weights_sub-XX.npy of a subject;"
                f" {there(folder / _WEIGHTS)}"
            )
        return cls(folder, tuple(subjects))

    @property
    def location(self) -> str:
        """The folder of the model, for messages."""
        return str(self._folder)

    @cached_property
    def backbone(self) -> str:
        """Name of what makes features of videos: S3D, or what makes as many as a small model has.

        Raises
        ------
        ModelLoadError
            When the components are not there, or unusable.
        """
        n_features = self._components.components.shape[1]
        return "pixels" if n_features == Pixels.n_features else "s3d"

    def components(self) -> Components:
        """Return what all subjects share, mapped: nothing of it is read yet.

        Raises
        ------
        CorruptWeights
            When the file is damaged, would run code, or its sizes do not fit together.
        ModelLoadError
            When the file is not there, or was made by the older recipe.
        """
        return self._components

    @cached_property
    def _components(self) -> Components:
        path = self._folder / _WEIGHTS / _PCA
        tree = Findings(path)
        mean = tree.array("scaler_param", "mean_", n_dims=1, kinds="f")
        scale = tree.array("scaler_param", "scale_", n_dims=1, kinds="f")
        components = tree.array("pca_param", "components_", n_dims=2, kinds="f")
        n_features = components.shape[1]
        tree.fits("scaler_param mean_ has length", mean, len(mean), components, n_features)
        tree.fits("scaler_param scale_ has length", scale, len(scale), components, n_features)
        for part in ("scaler_param", "pca_param"):
            tree.counts((part, "n_features_in_"), components, n_features)
        tree.check()
        if n_features == _OLD_FEATURES:
            raise ModelLoadError(
                f"{path} has components of {n_features:,} features: the older recipe made it, of"
                " 256 pixels and no crop, and today's makes 4,084,096 of 224. Get the current files"
            )
        return Components(
            MappedArray(mean, path, ("scaler_param", "mean_")),
            MappedArray(scale, path, ("scaler_param", "scale_")),
            MappedArray(components, path, ("pca_param", "components_")),
        )

    def regression(self, subject: int) -> Regression:
        """Return the regression of a subject, mapped: nothing of it is read yet.

        Raises
        ------
        InvalidParameterError
            When there are no weights of that subject.
        CorruptWeights
            When the file is damaged, would run code, or its sizes do not fit together, or to those
            of the components.
        ModelLoadError
            When the file is not there.
        """
        found = self._regression(subject)
        expected = self._components.components.shape[0]
        if found.coef.shape[1] != expected:
            raise CorruptWeights(
                f"{self._weights(subject)} has coefficients of {found.coef.shape[1]} components,"
                f" and {_PCA} beside it has {expected}: get both of the same release"
            )
        return found

    def _regression(self, subject: int) -> Regression:
        path = self._weights(subject)
        tree = Findings(path)
        coef = tree.array("coef_", n_dims=2, kinds="f")
        intercept = tree.array("intercept_", n_dims=1, kinds="f")
        tree.fits("intercept_ has length", intercept, len(intercept), coef, len(coef))
        tree.counts(("n_features_in_",), coef, coef.shape[1])
        tree.check()
        return Regression(
            MappedArray(coef, path, ("coef_",)), MappedArray(intercept, path, ("intercept_",))
        )

    def _weights(self, subject: int) -> Path:
        return self._folder / _WEIGHTS / f"weights_sub-{subject_of(self, subject):02}.npy"

    def brain(self, subject: int) -> Brain:
        """Return what is known of a subject's voxels, in memory.

        The images of the regions of interest, nearly all of the file, are not read. Files of the
        older layout do not say where the volume is: their affines are NaN, and so is every place in
        mm that is computed of them.

        Raises
        ------
        InvalidParameterError
            When there are no weights of that subject.
        CorruptWeights
            When the file is damaged, would run code, or does not fit to the coefficients.
        ModelLoadError
            When the file is not there.
        """
        n_voxels = self._regression(subject).coef.shape[0]
        tree = Findings(self._folder / "metadata" / f"metadata_sub-{int(subject):02}.npy")
        voxels, group = _volume(tree, "sub_mask"), _volume(tree, "group_mask")
        mask = voxels.mask
        tree.fits("fmri sub_mask has voxels", mask, np.count_nonzero(mask), None, n_voxels)
        tree.fits("fmri group_mask has shape", group.mask, group.mask.shape, mask, mask.shape)
        regions = dict(_regions(tree, mask))
        measures = dict(_measures(tree, n_voxels))
        brain = Brain(voxels, group, regions, measures)
        # Where regions lie was looked at when they were read.
        tree.faults += brain.faults_of_names
        tree.check()
        return brain


def _volume(tree: Findings, name: str) -> Volume:
    """Return a mask, and where it is if that is said."""
    mask = tree.array("fmri", name, n_dims=3, kinds="b")
    if mask.size > _MOST_VOXELS:
        tree.faults.append(f"fmri {name} has shape {mask.shape}")
        mask = mask[:0]
    # What numpy counts must be what it selects, be the bytes what they will.
    whole = np.array(mask).view(np.uint8) != 0 if mask.size else mask
    affine = np.full((4, 4), np.nan)
    if tree.get("fmri", f"{name}_affine", optional=True) is not None:
        found = tree.array("fmri", f"{name}_affine", n_dims=2, kinds="f")
        affine = found.astype(np.float64)
        is_invertible = affine.shape == (4, 4) and np.isfinite(affine).all()
        if found.size and not (is_invertible and np.linalg.det(affine)):
            tree.faults.append(
                f"fmri {name}_affine is no affine, but {found.tolist()}"[:_MOST_TOLD]
            )
    return Volume(whole, affine, _header(tree, f"{name}_header"))


def _header(tree: Findings, name: str) -> bytes | None:
    """Return the bytes of a NIfTI-1 header that nibabel has pickled."""
    found = tree.get("fmri", name, optional=True)
    if found is None:
        return None
    state = found.state if isinstance(found, Record) else None
    array = state.get("_structarr") if isinstance(state, dict) else None
    if not isinstance(array, np.ndarray) or array.nbytes != _HEADER_BYTES:
        tree.faults.append(f"fmri {name} is no header of NIfTI-1")
        return None
    return array.tobytes()


def _regions(tree: Findings, mask: NDArray[np.bool_]) -> Iterator[tuple[str, Region]]:
    """Yield the regions of interest; the images with them, of another mask, are left alone."""
    found = tree.get("fmri", "rois")
    if found is None:
        return
    if not isinstance(found, dict):
        tree.faults.append(f"fmri rois is a {type(found).__name__}, and no dictionary")
        return
    if len(found) > MOST_REGIONS:
        tree.faults.append(f"fmri rois are {len(found):,}, at most {MOST_REGIONS:,} can be")
        return
    left = _MOST_PLACES
    for key, value in found.items():
        name = f"fmri rois {key!r}"[:_MOST_TOLD]
        if not isinstance(key, str) or not isinstance(value, tuple) or len(value) < 2:  # noqa: PLR2004
            tree.faults.append(f"{name} is no region")
            continue
        indices = tree.checked(value[0], f"{name} [0]", n_dims=2, kinds="iu")
        flat = tree.checked(value[1], f"{name} [1]", n_dims=1, kinds="iu")
        tree.fits(f"{name} [1] has length", flat, len(flat), indices, len(indices))
        tree.fits(f"{name} [0] has columns", indices, indices.shape[1], None, 3)
        # A pickle says one array many times at no cost; here each is a copy.
        left -= len(indices) + len(flat)
        if left < 0:
            tree.faults.append(f"fmri rois have more than {_MOST_PLACES:,} places")
            return
        places = indices.astype(np.int64)
        if indices.shape[1] == mask.ndim and mask.size:
            outside = np.count_nonzero(((places < 0) | (places >= mask.shape)).any(axis=1))
            tree.fits(f"{name} [0] has places outside of the volume:", indices, outside, mask, 0)
        yield key, Region(places, flat.astype(np.int64))


def _measures(tree: Findings, n_voxels: int) -> Iterator[tuple[str, NDArray[np.floating]]]:
    for name in MEASURES:
        found = tree.array("encoding_models", name, n_dims=1, kinds="f")
        tree.fits(f"encoding_models {name} has length", found, len(found), None, n_voxels)
        if len(found) == n_voxels:
            yield name, found.astype(found.dtype.newbyteorder("="))
