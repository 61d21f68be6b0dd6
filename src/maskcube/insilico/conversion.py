"""BERG's files to a store, a block at a time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maskcube.codec import checksum
from maskcube.insilico.berg_files import BergFiles
from maskcube.insilico.draft import Draft, new_model
from maskcube.insilico.weights import Components, subject_of
from maskcube.objects import StoreLike

__all__ = ["ModelReport", "convert"]

_SAMPLED = 1024
"""Features at both ends that are looked at."""


@dataclass(frozen=True, kw_only=True)
class ModelReport:
    """What a store of models holds, and what it took to write it."""

    location: str
    """Where the store is."""
    subjects: tuple[int, ...]
    """The subjects in it."""
    n_features: int
    n_components: int
    n_voxels: dict[int, int]
    """Voxels of each subject that was written."""
    n_kept: int
    """Pieces that were there already."""
    seconds: float
    """Wall time."""

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        kept = f", {self.n_kept} pieces of it from an earlier run" if self.n_kept else ""
        voxels = ", ".join(f"subject {each}: {n:,} voxels" for each, n in self.n_voxels.items())
        return (
            f"{self.location}: {self.n_components:,} components of {self.n_features:,} features,"
            f" {voxels}; {self.seconds:.1f} s{kept}"
        )


def convert(
    berg_dir: str | Path,
    store: StoreLike,
    *,
    subject: int | Sequence[int] | None = None,
    overwrite: bool = False,
    storage_options: dict[str, Any] | None = None,
    progress: bool = True,
) -> ModelReport:
    """Convert BERG's files to a store, of which each part can be read alone.

    BERG's files are pickles, which can run code when they are loaded: they are read without that.
    Components go into chunks of 65,536 features, coefficients into chunks of 1,024 voxels, both as
    they are; the masks of 47 regions, 220 MB of copies of one mask, become lists of voxels. Takes
    the memory of one chunk. The store is one when all is written; a killed run goes on by the same
    call. Subjects can be added: what is there stays.

    Parameters
    ----------
    berg_dir : path
        BERG's folder, which has ``encoding_models`` in it.
    store : path, URL or zarr Store
        Where to write.
    subject : int or sequence of int, optional
        Which subjects; all that there are without it.
    overwrite : bool
        Replace a store of other models; it is deleted first.
    storage_options : dict, optional
        How to reach a URL.
    progress : bool
        Show a progress bar on stderr.

    Returns
    -------
    ModelReport
        What is in the store.

    Raises
    ------
    ModelLoadError
        When files are missing, or not what they should be (`CorruptWeights`).
    InvalidParameterError
        When there is no such subject.
    StoreExists
        When something else is at `store`.
    """
    started = time.monotonic()
    files = BergFiles.open(berg_dir)
    subjects = _chosen(files, subject)
    # What is wrong with any of them is told before anything is written.
    parts = {each: (files.regression(each), files.brain(each)) for each in subjects}
    components = files.components()
    shape = components.components.shape
    with new_model(
        store,
        _identity(components),
        shape=(shape[0], shape[1]),
        backbone=files.backbone,
        overwrite=overwrite,
        storage_options=storage_options,
    ) as draft:
        _write_components(draft, components, progress=progress)
        for each, (regression, brain) in parts.items():
            draft.put_subject(each, regression, brain)
    return ModelReport(
        location=draft.location,
        subjects=draft.subjects,
        n_features=shape[1],
        n_components=shape[0],
        n_voxels={each: regression.coef.shape[0] for each, (regression, _) in parts.items()},
        n_kept=draft.n_kept,
        seconds=time.monotonic() - started,
    )


def _chosen(files: BergFiles, subject: int | Sequence[int] | None) -> tuple[int, ...]:
    if subject is None:
        return files.subjects
    asked = tuple(subject) if isinstance(subject, list | tuple | range) else (subject,)
    return tuple(subject_of(files, each) for each in asked or (None,))


def _identity(components: Components) -> dict[str, Any]:
    """Return what tells components from others, without reading all of them."""
    ends = components.components[:, :_SAMPLED], components.components[:, -_SAMPLED:]
    parts = {"mean": components.mean[:], "scale": components.scale[:], "ends": np.hstack(ends)}
    return {"from": "berg", **{name: checksum(part.tobytes()) for name, part in parts.items()}}


def _write_components(draft: Draft, components: Components, *, progress: bool) -> None:
    from tqdm import tqdm

    for block in tqdm(draft.blocks, "Converting", unit=" blocks", disable=not progress):
        draft.put_block(
            block,
            components.mean[block],
            components.scale[block],
            components.components[:, block],
        )
