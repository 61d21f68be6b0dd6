"""What BERG answers, by the steps of its pipeline: numpy, scikit-learn, and torchvision's network.

It reads BERG's folder as BERG does, all of it, and uses nothing of maskcube.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import TruncatedSVD
from sklearn.linear_model import LinearRegression
from sklearn.preprocessing import StandardScaler

__all__ = ["BergReference", "Features", "mean_colours", "region_rows", "s3d_features"]

MODEL_FOLDER = Path("encoding_models", "modality-fmri", "train_dataset-bmd", "model-s3d")
N_FRAMES = 14
BATCH = 10

Features = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""From the frames that are seen, (video, 14, 3, height, width), to features, (video, feature)."""


class BergReference:
    """The model of a subject.

    Parameters
    ----------
    root : Path
        What BERG calls ``berg_dir``.
    features : callable
        What makes features of videos.
    subject : int
        Number of the subject.
    voxels : numpy.ndarray, optional
        (voxel,) of 0 and 1: which voxels; all without it.
    """

    def __init__(
        self,
        root: Path,
        features: Features,
        subject: int = 1,
        voxels: NDArray[Any] | None = None,
    ) -> None:
        folder = root / MODEL_FOLDER / "encoding_models_weights"
        pca = _load(folder / "pca_weights.npy")
        self.scaler = _filled(StandardScaler(), pca["scaler_param"])
        n_components = len(pca["pca_param"]["components_"])
        self.pca = _filled(TruncatedSVD(n_components), pca["pca_param"])
        weights = _load(folder / f"weights_sub-{subject:02d}.npy")
        if voxels is not None:
            chosen = np.asarray(voxels) == 1
            weights["coef_"] = weights["coef_"][chosen]
            weights["intercept_"] = weights["intercept_"][chosen]
        self.regression = _filled(LinearRegression(), weights)
        self.features = features

    def encode(self, stimulus: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return responses: (video, frame, 3, height, width) to (video, voxel)."""
        seen = np.linspace(0, stimulus.shape[1] - 1, N_FRAMES, dtype=int)
        features = self.features(np.ascontiguousarray(stimulus[:, seen]))
        answers = []
        for start in range(0, len(features), BATCH):
            scaled = self.scaler.transform(features[start : start + BATCH])
            scores = self.pca.transform(scaled).astype(np.float32)
            answers.append(self.regression.predict(scores).astype(np.float32))
        return np.concatenate(answers)


def region_rows(root: Path, region: str, subject: int = 1) -> NDArray[np.intp]:
    """Return which rows of the coefficients are of a region, ascending: voxel after voxel."""
    fmri = _load(root / MODEL_FOLDER / "metadata" / f"metadata_sub-{subject:02d}.npy")["fmri"]
    row_of = {tuple(place): row for row, place in enumerate(np.argwhere(fmri["sub_mask"]).tolist())}
    places = map(tuple, fmri["rois"][region][0].tolist())
    return np.array(sorted(row_of[place] for place in places if place in row_of), np.intp)


def mean_colours(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the mean colours in an 8 x 8 grid: features that need no torch."""
    edges = [[side * k // 8 for k in range(9)] for side in frames.shape[-2:]]
    fields = [
        frames[..., top:bottom, left:right].mean((-2, -1), np.float64)
        for top, bottom in zip(edges[0], edges[0][1:], strict=False)
        for left, right in zip(edges[1], edges[1][1:], strict=False)
    ]
    return np.stack(fields, -1).reshape(len(frames), -1).astype(np.float32)


def s3d_features(state: dict[str, Any] | None = None) -> Features:
    """Return what makes features by torchvision: all videos made ready at once, then by tens."""
    import torch
    from torchvision_shim import network, preset, taps

    ready, answers_of = preset(), taps(network(state))

    def features(frames: NDArray[np.uint8]) -> NDArray[np.float32]:
        found = []
        with torch.no_grad():
            videos = ready(torch.from_numpy(frames))
            for start in range(0, len(videos), BATCH):
                answers = answers_of(videos[start : start + BATCH]).values()
                found.append(torch.cat([each.flatten(1) for each in answers], 1).numpy())
        return np.concatenate(found)

    return features


def _load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = np.load(path, allow_pickle=True).item()
    return loaded


def _filled(model: Any, attributes: dict[str, Any]) -> Any:
    for name, value in attributes.items():
        setattr(model, name, value)
    return model
