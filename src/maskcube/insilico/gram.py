"""Principal components of more features than fit into memory, by the products of the videos.

What scikit-learn's ``StandardScaler`` and ``TruncatedSVD`` give, in two passes over blocks of
features. The z-scored features Z are (video, feature), few by very many: their left singular vectors
U and values S are those of the small matrix Z Z' = U S² U', a sum over blocks, and the components
are (U / S)' Z, block by block (the method of snapshots [1]_).

.. [1] Sirovich (1987), https://doi.org/10.1090/qam/910462
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from maskcube.errors import listed
from maskcube.insilico.columns import Columns, spare_bytes
from maskcube.insilico.errors import InvalidParameterError
from maskcube.insilico.weights import Components

__all__ = ["Gram", "PrincipalComponents", "Singular", "block_width", "principal_components"]

_Floats = NDArray[np.float64]

_PIECE = 2048
"""Features to multiply at a time: as float64 they are small beside a block as it is read."""

_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: multiples of it are spread over all 64 bits."""


class Writable(Protocol):
    """An array that is written, and read, by slices."""

    def __getitem__(self, key: Any, /) -> Any: ...  # noqa: ANN401 - as numpy
    def __setitem__(self, key: Any, value: Any, /) -> None: ...  # noqa: ANN401 - as numpy


class Singular(NamedTuple):
    """The largest singular values of the z-scored features, descending, and their vectors."""

    vectors: _Floats
    """(video, component) float64: the left ones, of one sign or the other."""
    values: _Floats
    """(component,) float64."""


@dataclass(frozen=True)
class Gram:
    """What one pass over the features gives: their means and scales, the products of the videos."""

    mean: _Floats
    """(feature,) float64."""
    scale: _Floats
    """(feature,) float64: standard deviations (ddof 0), 1 where a feature is constant."""
    products: _Floats
    """(video, video) float64: Z Z' of the z-scored features Z."""
    n_constant: int
    """Features that are constant as far as float64 can tell."""
    digest: str
    """What identifies the features, whatever blocks they were read by: hexadecimal digits."""

    @classmethod
    def of(
        cls, features: Columns, width: int, advance: Callable[[int], object] = lambda _: None
    ) -> Gram:
        """Read all features once.

        Parameters
        ----------
        features : Columns
            (video, feature).
        width : int
            Most features to read at a time.
        advance : callable
            Called with the number of features after each block.

        Raises
        ------
        InvalidParameterError
            When a feature is NaN or infinite, or so large that its square is: says which.
        """
        mean, scale = np.empty(features.width), np.empty(features.width)
        products = np.zeros((len(features), len(features)))
        sums, weights = np.empty(features.width, np.uint64), _weights(len(features))
        bad: list[int] = []
        n_constant = 0
        for columns, block in features.blocks(width):
            for start, piece in _pieces(block):
                at = slice(columns.start + start, columns.start + start + piece.shape[1])
                sums[at] = weights @ piece.view(np.uint64)
                centred, mean[at], variance = _centred(piece)
                bad += (at.start + np.flatnonzero(~np.isfinite(variance))).tolist()
                if bad:
                    continue
                constant = _is_constant(variance, mean[at], len(features))
                n_constant += int(constant.sum())
                scale[at] = np.where(constant, 1, np.sqrt(variance))
                centred /= scale[at]
                products += centred @ centred.T
            advance(block.shape[1])
        if bad:
            raise InvalidParameterError(
                f"{features.name}: {len(bad):,} of {features.width:,} features are not finite, or"
                f" too large, in some video: {listed(bad)}"
            )
        return cls(mean, scale, products, n_constant, hashlib.sha256(sums).hexdigest())

    def singular(self, n_components: int) -> Singular:
        """Return the largest singular values and their left vectors.

        Raises
        ------
        InvalidParameterError
            When fewer than asked for are not 0.
        """
        squares, vectors = np.linalg.eigh(self.products)
        largest = max(float(squares[-1]), 0.0)
        # What rounding makes of an eigenvalue of 0: it has no component, only noise.
        smallest = largest * len(squares) * np.finfo(np.float64).eps
        rank = int((squares > smallest).sum())
        if rank < n_components:
            raise InvalidParameterError(
                f"n_components={n_components!r}: these features of {len(squares):,} videos have"
                f" {rank:,} components: give more videos, or at most n_components={rank}"
            )
        order = slice(None, -n_components - 1, -1)
        return Singular(vectors[:, order], np.sqrt(squares[order]))


@dataclass(frozen=True)
class PrincipalComponents:
    """Features, z-scored and projected, as scikit-learn names what comes of it."""

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
    faults = component_faults(n_components, columns)
    if faults:
        raise InvalidParameterError("; ".join(faults))
    width = block_width(memory, columns)
    components = np.empty((n_components, columns.width), np.float32)
    with TemporaryDirectory() as folder:
        near = columns.within(width, Path(folder) / "features.npy", width * columns.column_bytes)
        gram = Gram.of(near, width)
        return project(gram, gram.singular(n_components), near, components, width)


def component_faults(n_components: object, features: Columns) -> list[str]:
    """Return what can be said against a number of components before features are read."""
    if isinstance(n_components, bool) or not isinstance(n_components, int | np.integer):
        return [f"n_components={n_components!r} is no whole number"]
    most = min(len(features) - 1, features.width)
    if most < 1:
        return [f"{features.name} {features.shape} have no component: give at least 2 videos"]
    if not 1 <= n_components <= most:
        return [
            f"n_components={n_components!r}: {len(features):,} videos of {features.width:,}"
            f" features have 1 to {most:,}"
        ]
    return []


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
        for start, piece in _pieces(block):
            at = slice(start, start + piece.shape[1])
            scores += ((piece - mean[at]) / scale[at]) @ onto[:, at].T.astype(np.float64)
        advance(block.shape[1])
    return scores


def block_width(memory: str | int, features: Columns, others: Columns | None = None) -> int:
    """Return how many features to read at a time.

    Raises
    ------
    InvalidOption
        When `memory` is too little.
    """
    every = [features] if others is None else [features, others]
    n_videos = sum(map(len, every))
    # The products, a term of their sum, and what their decomposition takes; a piece, thrice.
    needed = 6 * 8 * len(features) ** 2 + 3 * 8 * n_videos * _PIECE + 4 * 8 * features.width
    # Read, and put together of chunks.
    feature_bytes = 2 * sum(columns.column_bytes for columns in every)
    return max(1, spare_bytes(memory, needed) // max(1, feature_bytes))


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
        for start, piece in _pieces(block):
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


def _pieces(block: NDArray[Any]) -> Iterator[tuple[int, _Floats]]:
    """Yield pieces of a block as float64, each with where it begins."""
    for start in range(0, block.shape[1], _PIECE):
        yield start, block[:, start : start + _PIECE].astype(np.float64, order="C")


def _weights(n_videos: int) -> NDArray[np.uint64]:
    """Return an odd number for each video: sums of bits by these tell videos apart."""
    return np.arange(1, n_videos + 1, dtype=np.uint64) * np.uint64(_GOLDEN) | np.uint64(1)


def _centred(piece: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """Return features less their means, the means, and the variances (ddof 0), by two passes."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = piece.mean(axis=0)
        piece -= mean
        left = piece.sum(axis=0)
        variance = (np.einsum("ij,ij->j", piece, piece) - left**2 / len(piece)) / len(piece)
    return piece, mean, variance


def _is_constant(variance: _Floats, mean: _Floats, n_videos: int) -> NDArray[np.bool_]:
    """Return which features vary by no more than rounding, as scikit-learn decides it.

    By the bound on the error of a variance computed in two passes: Chan, Golub and LeVeque
    (1983), https://doi.org/10.1080/00031305.1983.10483115.
    """
    eps = np.finfo(np.float64).eps
    return variance <= n_videos * eps * variance + (n_videos * mean * eps) ** 2
