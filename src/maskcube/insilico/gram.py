"""The products of the videos' features, of more features than fit into memory.

What scikit-learn's ``StandardScaler`` and ``TruncatedSVD`` give, in two passes over blocks of
features, of which this is the first. The z-scored features Z are (video, feature), few by many:
their left singular vectors U and values S are those of the small matrix Z Z' = U S² U', a sum over
blocks, and the components are (U / S)' Z, block by block (the method of snapshots [1]_).

.. [1] Sirovich (1987), https://doi.org/10.1090/qam/910462
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed
from maskcube.insilico.columns import Columns, spare_bytes
from maskcube.insilico.errors import InvalidParameterError

__all__ = ["Gram", "Singular", "block_width", "pieces"]

_Floats = NDArray[np.float64]

_PIECE = 2048
"""Features to multiply at a time: as float64 they are small beside a block as it is read."""

_GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: multiples of it are spread over all 64 bits."""


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
            for start, piece in pieces(block):
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
        return cls(mean, scale, products, n_constant, hashlib.sha256(sums.tobytes()).hexdigest())

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


def block_width(
    memory: str | int, features: Columns, n_components: int, others: Columns | None = None
) -> int:
    """Return how many features to read at a time.

    Raises
    ------
    InvalidOption
        When `memory` is too little.
    """
    n_videos = max(len(features), 0 if others is None else len(others))
    # The products, a term of their sum, and what their decomposition takes; a piece, thrice; means,
    # scales and sums.
    needed = 6 * 8 * len(features) ** 2 + 3 * 8 * n_videos * _PIECE + 4 * 8 * features.width
    column_bytes = max(each.column_bytes for each in (features, others) if each is not None)
    # Read, and put together of chunks; components, and where they are written.
    feature_bytes = 2 * column_bytes + 3 * 4 * n_components
    return max(1, spare_bytes(memory, needed) // feature_bytes)


def pieces(block: NDArray[Any]) -> Iterator[tuple[int, _Floats]]:
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
