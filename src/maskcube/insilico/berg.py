"""BERG: the encoding models in a folder or a store, by the calls of the toolkit of that name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed
from maskcube.insilico.backbones import Backbone, backbone_of
from maskcube.insilico.berg_files import MODEL_FOLDER, BergFiles
from maskcube.insilico.catalog import CATALOG, MODEL_ID, check_model_id, description, hint
from maskcube.insilico.errors import InvalidParameterError, ValidationError
from maskcube.insilico.metadata import metadata_of
from maskcube.insilico.model import EncodingModel, Stimulus, check_model
from maskcube.insilico.model_store import ModelStore
from maskcube.insilico.weights import Weights, subject_of
from maskcube.layout import memory_bytes
from maskcube.objects import StoreLike
from maskcube.paths import folder_path

__all__ = ["BERG", "open_weights"]


class BERG:
    """The encoding models in BERG's folder, or in a store that `convert` or `fit` has made.

    It takes BERG's calls, reads BERG's files without running what is in them, and nothing that is
    not asked for: of a region's voxels the coefficients, of the components a block at a time.

    Parameters
    ----------
    berg_dir : path, URL or zarr Store
        BERG's folder, which has ``encoding_models`` in it, or a store.
    storage_options : dict, optional
        How to reach a store at a URL.

    Raises
    ------
    StoreNotFound, ModelLoadError
        When there are no models.

    Examples
    --------
    >>> from maskcube.insilico import BERG, sample_model
    >>> berg = BERG(sample_model("models.zarr"))
    >>> model = berg.get_encoding_model("fmri-bmd-s3d", subject=1, selection={"roi": "lV1v"})
    >>> import numpy as np
    >>> videos = np.random.default_rng(0).integers(0, 256, (2, 90, 3, 32, 32))
    >>> berg.encode(model, videos, show_progress=False).shape == (2, model.n_voxels)
    True
    """

    def __init__(
        self, berg_dir: StoreLike, *, storage_options: dict[str, Any] | None = None
    ) -> None:
        self.berg_dir = berg_dir
        self._weights = open_weights(berg_dir, storage_options)

    def list_models(self) -> list[str]:
        """Return the names of all models."""
        return [MODEL_ID]

    def get_model_catalog(self, *, print_format: bool = False) -> dict[str, list[str]] | None:
        """Return the training datasets by modality, or print them and return None."""
        if not print_format:
            return {modality: list(datasets) for modality, datasets in CATALOG.items()}
        for modality, datasets in CATALOG.items():
            print(f"{modality}:", *(f"  {each}" for each in datasets), sep="\n")  # noqa: T201 - asked for
        return None

    def get_model_variants(self, model_id: str) -> list[str]:
        """Return the variants of a model: there are none."""
        check_model_id(model_id)
        return []

    def describe(self, model_id: str) -> dict[str, Any]:
        """Print and return what is said of a model: input, output, parameters.

        Raises
        ------
        ModelNotFoundError
            When there is none of that name.
        """
        check_model_id(model_id)
        told = description()
        shown = {name: value for name, value in told.items() if name != "parameters"}
        print(*_lines(shown), sep="\n")  # noqa: T201 - as BERG does
        return told

    def get_encoding_model(
        self,
        model_id: str,
        *,
        subject: int | np.integer | None = None,
        selection: Mapping[str, Any] | None = None,
        device: str = "auto",
        backbone: str | Path | Backbone | None = None,
        cache: bool = False,
        memory: str | int = "1GiB",
    ) -> EncodingModel:
        """Return the model of a subject, with the coefficients of the voxels that are chosen.

        Parameters
        ----------
        model_id : str
            "fmri-bmd-s3d".
        subject : int
            Number of the subject, 1 to 10.
        selection : dict, optional
            ``{"roi": "lV1v"}``, the voxels of a region, or ``{"voxels": chosen}``, (voxel,) of 0
            and 1 or bool, one for each voxel of the subject. All voxels without it.
        device : str
            Where S3D runs: "cpu", "cuda", or "auto", which is "cuda" where there is one.
        backbone : path or callable, optional
            The file of S3D's weights, ``s3d-d76dad2f.pth``; without it, where torch keeps such
            files. Or what makes features of videos instead: (video, 14, 3, height, width) uint8 to
            (video, feature) float32. Features and scores can be encoded without one.
        cache : bool
            Keep the components in memory, 1.6 GB, once they were read.
        memory : str or int
            What the features of videos may take: that of 64 by default. Components are read once
            for as many.

        Raises
        ------
        ModelNotFoundError
            When there is no such model.
        InvalidParameterError
            When there is no such subject, region, voxel or device.
        InvalidOption
            When `memory` is no number of bytes.
        ModelLoadError
            When files are missing, or not what they should be (`CorruptWeights`). Of S3D's file
            only whether it is there; it is read with the first videos.
        """
        check_model_id(model_id)
        number = subject_of(self._weights, subject)
        rows = _rows(self._weights, number, selection)
        made = _backbone(self._weights.backbone, backbone, device)
        room = memory_bytes(memory)
        if room < 1:
            raise InvalidParameterError(f"memory={memory!r} is no room: say for example '1GiB'")
        return EncodingModel(self._weights, number, rows, made, cache=cache, memory=room)

    def encode(
        self,
        model: EncodingModel,
        stimulus: Stimulus,
        return_metadata: bool = False,  # noqa: FBT001, FBT002 - as BERG
        show_progress: bool = True,  # noqa: FBT001, FBT002 - as BERG
    ) -> NDArray[np.float32] | tuple[NDArray[np.float32], dict[str, Any]]:
        """Return the responses to videos: (video, voxel) float32, z-scored.

        Parameters
        ----------
        model : EncodingModel
            What `get_encoding_model` gives.
        stimulus : array
            (video, frame, 3, height, width) of integers in 0..255, square, at least 14 frames; or
            float features or component scores: see `EncodingModel.encode`.
        return_metadata : bool
            Return the model's metadata too, of all voxels of the subject.
        show_progress : bool
            Show a progress bar on stderr.

        Raises
        ------
        InvalidParameterError
            When `model` is none.
        StimulusError
            When these are no such videos.
        ModelLoadError, InvalidParameterError, ResourceError, MissingDependency
            As `EncodingModel.encode`.
        """
        check_model(model)
        responses = model.encode(stimulus, show_progress=show_progress)
        return (responses, model.get_metadata()) if return_metadata else responses

    def get_model_metadata(
        self, model_id: str, *, subject: int | np.integer | None = None
    ) -> dict[str, Any]:
        """Return what is known of a subject's voxels, as BERG has it: see `metadata_of`.

        Raises
        ------
        ModelNotFoundError
            When there is no such model.
        InvalidParameterError
            When there is no such subject.
        ModelLoadError
            When its file is missing, or not what it should be.
        """
        check_model_id(model_id)
        return metadata_of(self._weights.brain(subject_of(self._weights, subject)))

    def __repr__(self) -> str:
        return f"BERG({self._weights.location!r}, subjects: {list(self._weights.subjects)})"


def open_weights(berg_dir: StoreLike, storage_options: dict[str, Any] | None = None) -> Weights:
    """Open BERG's folder or a store of models, whichever it is; reads no weights.

    Raises
    ------
    StoreNotFound, ModelLoadError
        When it is neither.
    """
    folder = folder_path(berg_dir)
    if folder is not None and (folder / MODEL_FOLDER.parts[0]).is_dir():
        return BergFiles.open(folder)
    return ModelStore.open(berg_dir, storage_options)


def _rows(
    weights: Weights, subject: int, selection: Mapping[str, Any] | None
) -> NDArray[np.intp] | None:
    """Return the rows of the voxels that are chosen; None for all."""
    if selection is None:
        return None
    if not isinstance(selection, Mapping):
        raise InvalidParameterError(
            f"selection={selection!r} is a {type(selection).__name__}; give a dict such as"
            ' {"roi": "lV1v"}'
        )
    strange = [key for key in selection if key not in ("roi", "voxels")]
    if strange:
        near = hint(strange[0], ("roi", "voxels"))
        raise InvalidParameterError(f"selection has {listed(strange)}{near}")
    region, chosen = selection.get("roi"), selection.get("voxels")
    if region is not None:
        return _rows_of_region(weights, subject, region)
    if chosen is None:
        return None
    return _rows_of_voxels(chosen, weights.regression(subject).coef.shape[0], subject)


def _rows_of_region(weights: Weights, subject: int, region: object) -> NDArray[np.intp]:
    brain = weights.brain(subject)
    if brain is None or not brain.regions:
        raise ValidationError(f"{weights.location} knows no regions of subject {subject}")
    if not isinstance(region, str):
        raise ValidationError(f'roi={region!r}: give one name, such as "lV1v"')
    if region not in brain.regions:
        raise ValidationError(f"there is no roi {region!r}{hint(region, brain.regions)}")
    rows = brain.rows(region)
    if not len(rows):
        raise ValidationError(f"roi {region!r} has no voxel that the model answers for")
    return rows


def _rows_of_voxels(chosen: object, n_voxels: int, subject: int) -> NDArray[np.intp]:
    try:
        values = np.asarray(chosen)
    except ValueError as error:
        raise ValidationError(f"voxels cannot be read as an array: {error}") from error
    if values.shape != (n_voxels,):
        raise ValidationError(
            f"voxels is {values.shape}; subject {subject} has {n_voxels:,}: give ({n_voxels},), 1"
            " for each that is wanted and 0 for the others"
        )
    is_number = values.dtype.kind in "biuf"
    strange = values[(values != 0) & (values != 1)] if is_number else values
    if len(strange):
        found = listed(strange.tolist())
        raise ValidationError(f"voxels has {found}: give 0 and 1, or bool")
    rows = np.flatnonzero(values)
    if not len(rows):
        raise ValidationError("voxels chooses none: it is 0 everywhere")
    return rows


def _backbone(
    name: str, given: str | Path | Backbone | None, device: str
) -> Callable[[], Backbone]:
    """Return what makes the backbone when it is needed; a device is checked at once."""
    if callable(given):
        return partial(_given, given)
    return backbone_of(name, device, given)


def _given(backbone: Backbone) -> Backbone:
    return backbone


def _lines(told: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Return nested values as indented lines."""
    lines = []
    for name, value in told.items():
        start = f"{'  ' * depth}{name}:"
        if isinstance(value, Mapping):
            lines += [start, *_lines(value, depth + 1)]
        else:
            lines.append(f"{start} {value}")
    return lines
