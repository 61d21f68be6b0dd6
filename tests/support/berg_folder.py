"""Weights of ``fmri-bmd-s3d`` as BERG has them on disk: the same files, pickles and keys."""

from __future__ import annotations

import pickle
import struct
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import nibabel
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

__all__ = [
    "MEASURES",
    "MODEL_FOLDER",
    "PARTLY_OUTSIDE",
    "REAL_SIZE",
    "REGIONS",
    "BergFolder",
    "write_berg_folder",
]

MODEL_FOLDER = Path("encoding_models", "modality-fmri", "train_dataset-bmd", "model-s3d")

_PAIRS = "V1v V1d V2v V2d V3v V3d V3ab hV4 FFA OFA EBA LOC PPA RSC STS TOS MT 7AL IPS0 IPS1-2-3 PFt"
REGIONS = [f"{side}{name}" for name in [*_PAIRS.split(), "BA2", "PFop"] for side in "lr"]
REGIONS.append("BMDgeneral")
"""The names of the 47 regions of interest; the first letter is the hemisphere."""

PARTLY_OUTSIDE = "rBA2"
"""A region of which a part, of every subject, lies outside of the subject's mask."""

_OF_A_SUBJECT = {"EBA", "OFA", "STS", "RSC", "FFA", "LOC", "PPA", "TOS"}
"""Regions that are elsewhere in each subject; the others are in the same place in all."""

MEASURES = [
    "noiseceiling_task_train_n_1",
    "noiseceiling_task_train_n_3",
    "noiseceiling_task_test_n_1",
    "noiseceiling_task_test_n_10",
    "correlation",
    "r2",
    "explained_variance",
]

REAL_SIZE: dict[str, Any] = {
    "n_features": 4_084_096,
    "n_components": 100,
    "volume": (62, 77, 61),
    "n_voxels": 108_219,
    "level": 0.3,
    "spread": 0.5,
}
"""What makes files as large as the real ones: 1.8 GB, and 0.3 GB a subject."""

_STREAMED_BYTES = 2**25


class BergFolder(NamedTuple):
    """A folder of weights, to be read as BERG reads it."""

    root: Path
    """What BERG calls ``berg_dir``."""

    @property
    def folder(self) -> Path:
        """The folder of the model."""
        return self.root / MODEL_FOLDER

    @property
    def pca(self) -> Path:
        return self.folder / "encoding_models_weights" / "pca_weights.npy"

    def weights(self, subject: int) -> Path:
        return self.folder / "encoding_models_weights" / f"weights_sub-{subject:02}.npy"

    def metadata(self, subject: int) -> Path:
        return self.folder / "metadata" / f"metadata_sub-{subject:02}.npy"

    @staticmethod
    def load(path: Path) -> dict[str, Any]:
        """Return all of a file, as numpy unpickles it."""
        return cast("dict[str, Any]", np.load(path, allow_pickle=True).item())


def write_berg_folder(
    root: Path,
    *,
    subjects: Sequence[int] = (1,),
    n_features: int = 2688,
    n_components: int = 20,
    volume: tuple[int, int, int] = (12, 14, 10),
    n_voxels: int = 500,
    dtype: str = "float32",
    order: str = "C",
    layout: str = "current",
    numpy: int = 2,
    level: float = 127.5,
    spread: float = 40.0,
    seed: int = 0,
) -> BergFolder:
    """Write weights in BERG's layout, of random numbers; ``**REAL_SIZE`` for the real sizes.

    Parameters
    ----------
    root : Path
        What BERG calls ``berg_dir``; made if need be.
    subjects : sequence of int
        Each further one has three voxels fewer, and a mask of its own.
    n_features : int
        Features of a video: 2,688 is what the backbone ``pixels`` makes.
    n_components, volume, n_voxels : int, tuple of int, int
        The sizes of the rest: (component,), (i, j, k), (voxel,).
    dtype, order : str
        Of the coefficients, intercepts, components and measures.
    layout : {'current', 'old'}
        The old one has no headers, no affines, and measures of float64.
    numpy : {1, 2}
        Which numpy wrote the files: 1 pickles by protocol 3, and calls its core ``numpy.core``.
    level, spread : float
        About the mean and the standard deviation of a feature. Ten in a thousand never vary: their
        scale is 1.
    seed : int
        Another one gives other numbers.
    """
    made = BergFolder(Path(root))
    for path in (made.pca, made.metadata(1), made.folder / "encoding_models_accuracy" / "any"):
        path.parent.mkdir(parents=True, exist_ok=True)
    components = _Streamed((n_components, n_features), np.dtype(dtype), seed)
    _write(made.pca, _pca(components, order, level, spread), numpy)
    brain = _Brain(volume, n_voxels, seed)
    for place, subject in enumerate(subjects):
        sub_mask = brain.mask(subject, n_voxels - 3 * place)
        chance = np.random.default_rng([seed, 1, subject])
        n_rows = n_voxels - 3 * place
        coef = 0.2 * chance.standard_normal((n_rows, n_components))
        weights = {
            "coef_": np.asarray(coef, dtype, order=cast("Any", order)),
            "intercept_": (0.05 * chance.standard_normal(n_rows)).astype(dtype),
            "n_features_in_": n_components,
        }
        _write(made.weights(subject), weights, numpy)
        metadata = {
            "fmri": brain.fmri(subject, sub_mask, layout),
            "encoding_models": _measures(n_rows, "float64" if layout == "old" else dtype, chance),
        }
        _write(made.metadata(subject), metadata, numpy)
        plot = made.folder / "encoding_models_accuracy" / f"encoding_accuracy_sub-{subject:02}.png"
        plot.write_bytes(b"\x89PNG\r\n\x1a\n")
    return made


def _pca(components: _Streamed, order: str, level: float, spread: float) -> dict[str, Any]:
    n_components, n_features = components.shape
    chance = np.random.default_rng([components.seed, 0])
    scale = spread * chance.uniform(0.5, 1.5, n_features)
    varies = chance.random(n_features) >= 0.01
    is_large = components.n_bytes > _STREAMED_BYTES and order == "C"
    values = np.linspace(2, 1, n_components, dtype=components.dtype)
    return {
        "scaler_param": {
            "scale_": np.where(varies, scale, 1.0),
            "mean_": level * chance.uniform(0.8, 1.2, n_features),
            "var_": np.where(varies, scale**2, 0.0),
            "n_features_in_": n_features,
            "n_samples_seen_": np.int64(1000),
        },
        "pca_param": {
            "components_": components if is_large else components.whole(order),
            "explained_variance_": values,
            "explained_variance_ratio_": values / n_features,
            "singular_values_": np.sqrt(values * 1000),
            "n_features_in_": n_features,
        },
    }


def _measures(n_rows: int, dtype: str, chance: np.random.Generator) -> dict[str, NDArray[Any]]:
    ceilings = np.sort(chance.uniform(0, 95, (4, n_rows)), axis=0)[[0, 2, 1, 3]]
    correlation = chance.uniform(0, 0.8, n_rows)
    correlation[::50] = 0.0
    correlation[7::100] = np.nan
    ceilings[3, ::70] = 1e-14
    r2 = correlation**2
    values = [*ceilings, correlation, r2, np.minimum(r2 / ceilings[3] * 100, 100)]
    return {name: row.astype(dtype) for name, row in zip(MEASURES, values, strict=True)}


class _Brain:
    """An ellipsoid of voxels 2.5 mm apart, the midline at x = 0."""

    def __init__(self, volume: tuple[int, int, int], n_voxels: int, seed: int) -> None:
        self.volume, self.n_voxels, self.seed = volume, n_voxels, seed
        self.affine = np.diag([2.5, 2.5, 2.5, 1.0])
        self.affine[:3, 3] = [-2.5 * (size // 2) for size in volume]
        grid = np.indices(volume, float).reshape(3, -1).T
        self.places: NDArray[np.float64] = grid @ self.affine[:3, :3] + self.affine[:3, 3]
        """(i * j * k, 3): x, y, z of each voxel of the volume, in mm."""
        self.depth = ((self.places / self.affine[:3, 3]) ** 2).sum(axis=1)
        noise = self._chance("group").uniform(0, 0.1, len(self.depth))
        n_group = int(0.8 * n_voxels)
        self.group = np.zeros(len(self.depth), bool)
        self.group[np.argsort(self.depth + noise)[:n_group]] = True

    def _chance(self, *names: str | int) -> np.random.Generator:
        return np.random.default_rng([self.seed, zlib.crc32(repr(names).encode())])

    def mask(self, subject: int, n_voxels: int) -> NDArray[np.bool_]:
        """Return a subject's own mask: the group's, and some voxels around it."""
        depth: NDArray[np.float64] = self.depth + self._chance(subject).uniform(
            0, 0.2, len(self.depth)
        )
        found = self.group.copy()
        around = np.argsort(np.where(self.group, np.inf, depth))
        found[around[: n_voxels - np.count_nonzero(self.group)]] = True
        return found.reshape(self.volume)

    def fmri(self, subject: int, sub_mask: NDArray[np.bool_], layout: str) -> dict[str, Any]:
        """Return the first part of a subject's metadata."""
        group_mask = self.group.reshape(self.volume)
        fmri: dict[str, Any] = {}
        for name, mask in (("group_mask", group_mask), ("sub_mask", sub_mask)):
            fmri[name] = mask
            if layout != "old":
                image = self._image(mask)
                fmri |= {f"{name}_header": image.header, f"{name}_affine": self.affine.copy()}
        fmri["rois"] = {name: self._region(name, subject, sub_mask) for name in REGIONS}
        return fmri

    def _image(self, mask: NDArray[np.bool_]) -> Any:
        image = nibabel.Nifti1Image(mask.astype(np.int64), self.affine, dtype="int64")
        image.get_fdata()  # and keeps it: the volume is pickled twice
        return image

    def _region(self, name: str, subject: int, sub_mask: NDArray[np.bool_]) -> tuple[Any, ...]:
        is_own = name[1:] in _OF_A_SUBJECT
        chance = self._chance(name, *([subject] if is_own else []))
        outside = name == PARTLY_OUTSIDE
        # Not of the subject's mask: as in the real ones, the count is the same for all.
        allowed = self.group.copy()
        if name != "BMDgeneral":
            allowed &= self.places[:, 0] < 0 if name[0] == "l" else self.places[:, 0] > 0
        inside = np.flatnonzero(allowed)
        size = max(4, self.n_voxels // 900) + REGIONS.index(name) % 5
        size = len(inside) // 7 if name == "BMDgeneral" else min(size, len(inside))
        centre = self.places[chance.choice(inside)]
        nearest = np.argsort(((self.places[inside] - centre) ** 2).sum(axis=1), kind="stable")
        flat = np.sort(inside[nearest[:size]])
        if outside:
            corner = np.flatnonzero(~sub_mask.ravel() & (self.places[:, 0] > 0))
            flat = np.sort(np.append(flat, corner[-max(2, size // 3) :]))
        if name == "lEBA":
            chance.shuffle(flat)
        indices = np.stack(np.unravel_index(flat, self.volume), axis=1).astype(np.int64)
        in_group = (np.cumsum(self.group) - 1)[flat].astype(np.int64)
        return indices, in_group, self._image(self.group.reshape(self.volume))


class _Streamed:
    """Components that are made while they are written, so that they need not be held."""

    def __init__(self, shape: tuple[int, int], dtype: np.dtype[Any], seed: int) -> None:
        self.shape, self.dtype, self.seed = shape, dtype, seed
        self.n_bytes = shape[0] * shape[1] * dtype.itemsize

    def rows(self) -> Iterator[NDArray[Any]]:
        """Yield the components one by one, of length about 1."""
        chance = np.random.default_rng([self.seed, 2])
        for _ in range(self.shape[0]):
            row = chance.standard_normal(self.shape[1], np.float32)
            yield (row / np.float32(np.sqrt(self.shape[1]))).astype(self.dtype)

    def whole(self, order: str) -> NDArray[Any]:
        """Return all of them."""
        return np.asarray(np.stack(list(self.rows())), order=cast("Any", order))

    def __reduce__(self) -> tuple[Any, ...]:
        make, arguments, state, *_ = cast("Any", np.empty((1, 1), self.dtype).__reduce__())
        return make, arguments, (state[0], self.shape, *state[2:4], _Payload(self))


class _Payload(NamedTuple):
    """The bytes of streamed components."""

    of: _Streamed


_PurePython: Any = vars(pickle)["_Pickler"]


class _Pickler(_PurePython):  # type: ignore[misc]
    """Writes as numpy does, and what is streamed as the bytes that it would have been."""

    dispatch: ClassVar = dict(_PurePython.dispatch)

    def save_payload(self, payload: _Payload) -> None:
        size = payload.of.n_bytes
        header = pickle.BINBYTES + struct.pack("<I", size)
        if size >= 2**32:
            header = pickle.BINBYTES8 + struct.pack("<Q", size)
        self._write_large_bytes(header, b"")
        for row in payload.of.rows():
            self._write_large_bytes(row.tobytes(), b"")
        self.memoize(payload)

    dispatch[_Payload] = save_payload


def _write(path: Path, tree: dict[str, Any], numpy: int) -> None:
    """Write what ``np.save`` writes of a dictionary."""
    whole = np.array(tree, dtype=object)
    streams = isinstance(tree.get("pca_param", {}).get("components_"), _Streamed)
    with path.open("wb") as file:
        if numpy == 2 and not streams:
            np.save(file, whole)
            return
        npy.write_array_header_1_0(file, npy.header_data_from_array_1_0(whole))
        if numpy == 1 and not streams:
            old = pickle.dumps(whole, protocol=3)
            file.write(old.replace(b"cnumpy._core.", b"cnumpy.core."))
        else:
            _Pickler(file, 4).dump(whole)
