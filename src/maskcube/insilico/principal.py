"""Principal components of more features than fit into memory: the second pass over these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskcube.insilico.columns import Columns
from maskcube.insilico.errors import InvalidParameterError
from maskcube.insilico.gram import Gram, Singular, block_width, pieces
from maskcube.insilico.weights import Components

__all__ = ["PrincipalComponents", "Writable", "principal_components", "project", "scores_of"]

_Floats = NDArray[np.float64]


class Writable(Protocol):
    """An array that is written, and read, by slices."""

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - as numpy
    def __setitem__(self, key: Any, value: Any, /) -> None: ...  # noqa: ANN401 - as numpy


@dataclass(frozen=True)
class PrincipalComponents:
    """Features, z-scored and projected, as scikit-learn names what comes of them."""

    weights: Components
    """The means (feature,), scales (feature,) and components (component, feature) float32. The
    largest entry of each component is positive, as by scikit-learn's ``svd_flip`` with
    ``u_based_decision=False``."""
    scores: _Floats
    """(video, component) float64: the features, projected."""
    singular_values: _Floats
    """(component,) float64, descending."""
    explained_variance: _Floats
    """(component,) float64: variance of the scores (ddof 0)."""
    explained_variance_ratio: _Floats
    """(component,) float64: the same as a share of the variance of all z-scored features."""


def principal_components(
    features: ArrayLike,
    n_components: int = 100,
    *,
    memory: str | int = "1GiB",
) -> PrincipalComponents:
    """Return the principal components of features that need not fit into memory.

    Equal to scikit-learn's ``TruncatedSVD`` after its ``StandardScaler``, but for rounding: the
    features are not centred again after they are z-scored. They are read twice, by blocks; the
    components are in memory. `maskcube.insilico.fitting.fit` keeps these in a file too.

    Parameters
    ----------
    features : numpy.ndarray, zarr.Array, dask.array.Array or xarray.DataArray
        (video, feature), finite numbers. Best in chunks of all videos and some thousand features.
    n_components : int
        How many to keep: fewer than videos, as centring takes one.
    memory : str or int
        Most memory that the process may take, apart from the components.

    Raises
    ------
    InvalidParameterError
        When the features are no finite numbers (video, feature), or have fewer components.
    InvalidOption
        When `memory` is too little.

    Examples
    --------
    >>> features = np.random.default_rng(0).normal(size=(20, 500))
    >>> found = principal_components(features, 5)
    >>> found.scores.shape, found.weights.components.shape
    ((20, 5), (5, 500))
    """
    columns = Columns(features, "features", ("video, feature",))
    most = min(len(columns) - 1, columns.width)
    if not 1 <= n_components <= most:
        raise InvalidParameterError(
            f"n_components={n_components!r}: {len(columns):,} videos of {columns.width:,} features"
            f" have 1 to {most:,}"
        )
    width = block_width(memory, columns, n_components)
    components = np.empty((n_components, columns.width), np.float32)
    with TemporaryDirectory() as folder:
        near = columns.within(width, Path(folder) / "features")
        gram = Gram.of(near, width)
        return project(gram, gram.singular(n_components), near, components, width)


def scores_of(
    components: Components,
    features: Columns,
    width: int,
    advance: Callable[[int], object] = lambda _: None,
) -> _Floats:
    """Return features projected on components, (video, component) float64; reads each once.

    Parameters
    ----------
    components : Components
        Means, scales and components.
    features : Columns
        (video, feature).
    width : int
        Most features to read at a time.
    advance : callable
        Called with the number of features after each block.
    """
    scores = np.zeros((len(features), components.components.shape[0]))
    for columns, block in features.blocks(width):
        mean, scale = (np.asarray(part[columns], np.float64) for part in components[:2])
        onto = np.asarray(components.components[:, columns])
        for start, piece in pieces(block):
            at = slice(start, start + piece.shape[1])
            scores += ((piece - mean[at]) / scale[at]) @ onto[:, at].T.astype(np.float64)
        advance(block.shape[1])
    return scores


def project(
    gram: Gram,
    singular: Singular,
    features: Columns,
    out: Writable,
    width: int,
    *,
    advance: Callable[[int], object] = lambda _: None,
) -> PrincipalComponents:
    """Read all features a second time, and write the components.

    Parameters
    ----------
    gram : Gram
        Of these features.
    singular : Singular
        Its largest singular values.
    features : Columns
        (video, feature).
    out : numpy.ndarray or Scratch
        (component, feature) float32 to write to. Their signs are known when all is read, and are
        in what is returned.
    width : int
        Most features to read at a time.
    advance : callable
        Called with the number of features after each block.
    """
    vectors, values = singular
    towards = np.ascontiguousarray((vectors / values).T)
    peaks = np.zeros(len(values))
    for columns, block in features.blocks(width):
        found = np.empty((len(values), block.shape[1]), np.float32)
        for start, piece in pieces(block):
            inside = slice(start, start + piece.shape[1])
            at = slice(columns.start + inside.start, columns.start + inside.stop)
            part = towards @ ((piece - gram.mean[at]) / gram.scale[at])
            found[:, inside] = part
            highest = part[np.arange(len(part)), np.abs(part).argmax(axis=1)]
            peaks = np.where(np.abs(highest) > np.abs(peaks), highest, peaks)
        out[:, columns] = found
        advance(block.shape[1])
    signs = np.where(peaks < 0, -1.0, 1.0)
    own = vectors * values * signs
    return PrincipalComponents(
        weights=Components(gram.mean, gram.scale, _Signed(out, signs, features.width)),
        scores=own,
        singular_values=values,
        explained_variance=own.var(axis=0),
        explained_variance_ratio=own.var(axis=0) / (np.trace(gram.products) / len(own)),
    )


class _Signed:
    """Components as they are, of signs that were known later."""

    def __init__(self, array: Writable, signs: _Floats, width: int) -> None:
        self._array = array
        self._signs = signs.astype(np.float32)
        self.shape = len(signs), width
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, key: Any, /) -> NDArray[np.float32]:  # noqa: ANN401 - as numpy
        found: NDArray[np.float32] = np.asarray(self._array[key])
        signs = self._signs[key[0] if isinstance(key, tuple) else key]
        return found * signs.reshape(signs.shape + (1,) * (found.ndim - signs.ndim))
