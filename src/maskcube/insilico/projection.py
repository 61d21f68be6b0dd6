"""From features to scores: z-scored and projected block by block, never all components at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.errors import CorruptWeights, StimulusError
from maskcube.insilico.weights import Components

__all__ = ["BLOCK_FEATURES", "Projection"]

BLOCK_FEATURES = 65_536
"""Features of a block: 26 MB of components, small beside 1.6 GB, large beside a request."""

_Block = tuple[slice, NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


class Projection:
    """Projects features on a model's components, as scikit-learn's scaler and truncated SVD do.

    Parameters
    ----------
    components : Components
        Where mean, scale and components are read from.
    cache : bool
        Keep them once read; those of a store on a disk as pages of its files, which the system may
        take back.
    """

    def __init__(self, components: Components, *, cache: bool = False) -> None:
        self.n_components, self.n_features = components.components.shape
        self._source = components
        self._cache = cache
        self._kept: list[_Block] = []

    def scores(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return scores, (n, component) float32, of features, (n, feature); one pass over all.

        Raises
        ------
        CorruptWeights
            When a piece is missing or damaged, or has values with which nothing can be computed.
        StimulusError
            When a feature is not finite.
        """
        sums = np.zeros((len(features), self.n_components))
        with np.errstate(all="ignore"):
            for at, mean, scale, components in self._blocks():
                scored = (features[:, at] - mean) / scale
                # Each block in float32, as BLAS is fast in, and their sum in float64.
                sums += scored @ components.T
        if not np.isfinite(sums).all():
            if not np.isfinite(features).all():
                raise StimulusError("the backbone makes features that are not finite")
            raise CorruptWeights(
                "mean, scale or components have values that are not finite, or scales of 0: no"
                " score can be computed with them"
            )
        return sums.astype(np.float32)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_kept": []}

    def clear(self) -> None:
        """Forget what was kept."""
        self._kept = []

    def _blocks(self) -> Iterator[_Block]:
        if self._kept:
            yield from self._kept
            return
        kept = []
        for block in self._read():
            if self._cache:
                kept.append(block)
            yield block
        self._kept = kept

    def _read(self) -> Iterator[_Block]:
        """Yield block after block, the next ones being read meanwhile."""
        ahead = self._source.ahead
        coming: deque[Future[_Block]] = deque()
        with ThreadPoolExecutor(ahead, "maskcube-components") as reader:
            for start in range(0, self.n_features, BLOCK_FEATURES):
                coming.append(reader.submit(self._block, start))
                if len(coming) > ahead:
                    yield coming.popleft().result()
            while coming:
                yield coming.popleft().result()

    def _block(self, start: int) -> _Block:
        at = slice(start, min(start + BLOCK_FEATURES, self.n_features))
        mean, scale, components, _ = self._source
        return at, _floats(mean[at]), _floats(scale[at]), _floats(components[:, at])


def _floats(values: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return values as BLAS wants them, aligned float32; what a file maps so is not copied."""
    return np.require(values, np.float32, ["A", "E"])
