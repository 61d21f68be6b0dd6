"""Makes an encoding model of videos, or their features, and the responses to these."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from maskcube.errors import StoreExists
from maskcube.insilico.backbones import Backbone
from maskcube.insilico.brain import Brain
from maskcube.insilico.draft import is_unused, new_model
from maskcube.insilico.fit_inputs import Inputs
from maskcube.insilico.fit_report import FitReport
from maskcube.insilico.fit_run import FitRun
from maskcube.insilico.gram import Gram
from maskcube.insilico.model_store import ModelStore, read_root
from maskcube.objects import PLAN, StoreLike, open_objects

__all__ = ["fit"]


def fit(
    features: ArrayLike,
    responses: ArrayLike,
    store: StoreLike,
    *,
    n_components: int = 100,
    test_features: ArrayLike | None = None,
    test_responses: ArrayLike | None = None,
    subject: int = 1,
    brain: Brain | None = None,
    backbone: str | Path | Backbone = "s3d",
    device: str = "auto",
    memory: str | int = "1GiB",
    overwrite: bool = False,
    progress: bool = True,
    storage_options: dict[str, Any] | None = None,
) -> FitReport:
    """Make an encoding model of videos and the responses to them, as BERG's was made [1]_.

    Features are z-scored, projected on their principal components, and each voxel's response, the
    mean over repeats, is regressed on the scores, with an intercept. The numbers are those of
    scikit-learn's ``StandardScaler``, ``TruncatedSVD`` and ``LinearRegression``, but neither
    features nor responses need fit into memory: see `maskcube.insilico.gram`. `BERG` opens the
    store.

    What would be read again and again, because it is videos, or because of its chunks, is copied to
    the temporary folder first; components are kept there until all are known. A killed run leaves
    its folder there, ``maskcube-fit-...``.

    A run that was killed while it wrote is resumed by the same call. With the same features, too,
    another subject is added to a store that is complete.

    Parameters
    ----------
    features : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        Features, (video, feature) numbers, best in chunks of all videos and some thousand features.
        Or videos, (video, frame, 3, height, width) of integers in 0..255, square, at least 14
        frames, of which `backbone` makes features.
    responses : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, voxel) or (video, repeat, voxel), in any unit, best z-scored in each session. A
        video's mean over repeats that is NaN counts as 0; the report says how many these are.
    store : path, URL or zarr Store
        Where the model goes.
    n_components : int
        Principal components to keep: fewer than videos.
    test_features : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray, optional
        Features of other videos, or these: see `features`.
    test_responses : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray, optional
        Responses to these, of the same voxels: see `responses`. NaN stays what it is.
    subject : int
        Whose responses these are, 1 or more.
    brain : Brain, optional
        Where the voxels are: one for each True voxel of its mask, in C order. Its measures are
        replaced by those found here. Without it there are rows, and no regions.
    backbone : str, path or callable
        What makes features of videos: "s3d", the path of its weights, "pixels", or a callable, see
        `maskcube.insilico.backbones.Backbone`. Of features, what has made them.
    device : str
        Where S3D runs: see `BERG.get_encoding_model`.
    memory : str or int
        Most memory that the process may take, in bytes or as a text like ``"1GiB"``, apart from
        what the backbone takes.
    overwrite : bool
        Replace a store of models that is there, all its subjects with it.
    progress : bool
        Show progress bars on stderr.
    storage_options : dict, optional
        For a store at a URL: how to reach it.

    Returns
    -------
    FitReport
        With the measures of each voxel, which the store has too if there is a `brain`: noise
        ceilings of one repeat and of the mean of all in percent, where there are repeats;
        correlation, its square, and explained variance as a share of what the ceiling allows,
        where there are tests. Their names, and rules, are BERG's: see `MEASURES`.

    Raises
    ------
    InvalidParameterError
        When something given does not fit: says everything that does not.
    StimulusError
        When a video has values outside of 0..255.
    ModelLoadError
        When the file of S3D's weights is not there.
    InvalidOption
        When `memory` is no number of bytes, or too little.
    StoreExists
        When something else is at that place, or the subject is in the store.
    ResourceError
        When the temporary folder has no room.

    References
    ----------
    .. [1] https://github.com/gifale95/BERG

    Examples
    --------
    >>> import numpy as np
    >>> from maskcube.insilico import BERG
    >>> random = np.random.default_rng(0)
    >>> videos = random.integers(0, 256, (30, 14, 3, 16, 16))
    >>> responses = random.normal(size=(30, 3, 7))
    >>> report = fit(
    ...     videos, responses, "fitted.zarr", n_components=5, backbone="pixels", progress=False
    ... )
    >>> report.n_voxels, report.n_features, sorted(report.measures)
    (7, 2688, ['noiseceiling_task_train_n_1', 'noiseceiling_task_train_n_3'])
    >>> model = BERG("fitted.zarr").get_encoding_model("fmri-bmd-s3d", subject=1)
    >>> model.encode(videos).shape
    (30, 7)
    """
    started = time.monotonic()
    given = Inputs.checked(
        {
            "features": features,
            "responses": responses,
            "test_features": test_features,
            "test_responses": test_responses,
        },
        n_components=n_components,
        subject=subject,
        brain=brain,
        backbone=backbone,
        device=device,
    )
    if not overwrite:
        _refuse_taken(store, storage_options, given.subject)
    with TemporaryDirectory(prefix="maskcube-fit-") as folder:
        run = FitRun(given, Path(folder), memory, show=progress)
        gram = run.gram()
        singular = gram.singular(given.n_components)
        with new_model(
            store,
            _plan(given, gram),
            shape=(given.n_components, run.features.width),
            backbone=given.backbone_name,
            overwrite=overwrite,
            storage_options=storage_options,
        ) as draft:
            is_added = bool(draft.subjects)
            if is_added:
                # What others are fitted to stays as it is, to the last bit.
                components = ModelStore.open(store, storage_options).components()
                scores = run.scores(components, run.features)
            else:
                found = run.components(gram, singular)
                components, scores = found.weights, found.scores
                for block in draft.blocks:
                    draft.put_block(block, *(part[..., block] for part in components[:3]))
            fitted = run.voxels(components, scores)
            known = None if brain is None else replace(brain, measures=fitted.measures)
            draft.put_subject(given.subject, fitted.regression, known)
    kept = scores.var(axis=0).sum() / (np.trace(gram.products) / len(scores))
    return FitReport(
        **_counts(given),
        location=draft.location,
        n_features=len(gram.mean),
        n_constant=gram.n_constant,
        explained_variance_ratio=float(kept),
        n_missing=fitted.n_missing,
        n_voxels_missing=fitted.n_voxels_missing,
        n_kept=0 if is_added else draft.n_kept,
        seconds=time.monotonic() - started,
        measures=fitted.measures,
    )


def _plan(given: Inputs, gram: Gram) -> dict[str, Any]:
    """Return what the components are made of, which all subjects of a store share."""
    return {
        "features": gram.digest,
        "n_videos": len(given.responses),
        "n_components": given.n_components,
    }


def _refuse_taken(store: StoreLike, storage_options: dict[str, Any] | None, subject: int) -> None:
    """Raise before anything is computed if it could not be written."""
    objects = open_objects(store, storage_options, read_only=False)
    root = read_root(objects)
    if root is not None and subject in root["subjects"]:
        raise StoreExists(
            f"{objects.location} has a model of subject {subject}; overwrite=True would replace the"
            f" store, with all of {root['subjects']}"
        )
    is_begun = root is not None or objects.size(PLAN) is not None
    if not is_begun and not is_unused(objects):
        raise StoreExists(f"{objects.location} is no store of encoding models, and is not replaced")


def _counts(given: Inputs) -> dict[str, int]:
    """Return what of the report is known from the arguments."""
    n_videos, *repeats, n_voxels = given.responses.shape
    return {
        "subject": given.subject,
        "n_videos": n_videos,
        "n_repeats": repeats[0] if repeats else 1,
        "n_test": 0 if given.test_responses is None else len(given.test_responses),
        "n_components": given.n_components,
        "n_voxels": n_voxels,
    }
