"""One fit: the arrays as they are read, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.insilico.columns import Columns, spare_bytes
from maskcube.insilico.errors import InvalidParameterError
from maskcube.insilico.fit_inputs import Inputs, refuse
from maskcube.insilico.footage import Footage
from maskcube.insilico.gram import Gram, Singular, block_width
from maskcube.insilico.measured import Fitted, Measured, fit_voxels
from maskcube.insilico.principal import PrincipalComponents, project, scores_of
from maskcube.insilico.scratch import Scratch
from maskcube.insilico.weights import Components

__all__ = ["FitRun"]


class FitRun:
    """One fit: the arrays as they are read, and how much of each at a time.

    Parameters
    ----------
    given : Inputs
        What is given.
    folder : pathlib.Path
        For copies and components, as long as the run lasts.
    memory : str or int
        Most memory that the process may take.
    show : bool
        Whether to show progress.
    """

    def __init__(self, given: Inputs, folder: Path, memory: str | int, *, show: bool) -> None:
        self._given = given
        self._folder = folder
        self._show = show
        self._voxels = _voxel_width(given, memory)
        features, test = given.features, given.test_features
        self.features = self._seen(features)
        self._test = None if test is None else self._seen(test)
        self._width = block_width(memory, self.features, given.n_components, self._test)
        self.features = self._near(self.features, self._width)
        self._responses = self._near(given.responses, self._voxels)
        if self._test is not None:
            self._test = self._near(self._test, self._width)
        if given.test_responses is not None:
            self._test_responses = self._near(given.test_responses, self._voxels)

    def gram(self) -> Gram:
        """Read everything once, and return what the features' components follow from.

        Raises
        ------
        InvalidParameterError
            When there are values that no model can be fitted to: names all.
        """
        faults = self._faults(self._responses, self._voxels, np.isinf, "infinite")
        if self._test is not None:
            faults += self._faults(self._test_responses, self._voxels, np.isinf, "infinite")
            faults += self._faults(self._test, self._width, _is_unusable, "NaN or infinite")
        with self._bar("Reading features", self.features.width, "features") as bar:
            try:
                found = Gram.of(self.features, self._width, bar.update)
            except InvalidParameterError as error:
                faults.append(str(error))
        refuse(faults)
        return found

    def components(self, gram: Gram, singular: Singular) -> PrincipalComponents:
        """Read the features a second time, and return their components, in a file."""
        n_components, n_features = len(singular.values), self.features.width
        place = self._folder / "components"
        out = Scratch(place, (n_components, n_features), np.float32)
        with self._bar("Projecting", n_features, "features") as bar:
            return project(gram, singular, self.features, out, self._width, advance=bar.update)

    def scores(self, components: Components, features: Columns) -> NDArray[np.float64]:
        """Return the scores of some features: (video, component)."""
        with self._bar(f"Projecting {features.name}", features.width, "features") as bar:
            return scores_of(components, features, self._width, bar.update)

    def voxels(self, components: Components, scores: NDArray[np.float64]) -> Fitted:
        """Return the regression of each voxel, and its measures."""
        train, test = Measured(self._responses, scores, "train"), None
        if self._test is not None:
            test = Measured(self._test_responses, self.scores(components, self._test), "test")
        with self._bar("Fitting", self._responses.width, "voxels") as bar:
            return fit_voxels(train, test, self._voxels, bar.update)

    def _seen(self, features: Columns | Footage) -> Columns:
        """Return features, made of videos where these are given."""
        if isinstance(features, Columns) or self._given.backbone is None:
            return features  # type: ignore[return-value]
        with self._bar("Encoding", len(features), "videos") as bar:
            place = self._folder / features.name
            return features.features(self._given.backbone, place, bar.update)

    def _near(self, columns: Columns, width: int) -> Columns:
        """Return what can be read some columns at a time, copied if need be."""
        return columns.within(width, self._folder / columns.name)

    def _faults(
        self,
        columns: Columns,
        width: int,
        is_bad: Callable[[NDArray[Any]], NDArray[np.bool_]],
        what: str,
    ) -> list[str]:
        """Return what of an array cannot be used."""
        n_bad = sum(int(is_bad(block).sum()) for _, block in columns.blocks(width))
        return [f"{columns.name}: {n_bad:,} values are {what}"] if n_bad else []

    def _bar(self, doing: str, total: int, unit: str) -> Any:  # noqa: ANN401 - tqdm is generic
        from tqdm import tqdm

        return tqdm(total=total, desc=doing, unit=f" {unit}", disable=not self._show)


def _is_unusable(values: NDArray[Any]) -> NDArray[np.bool_]:
    is_usable: NDArray[np.bool_] = np.isfinite(values)
    return ~is_usable


def _voxel_width(given: Inputs, memory: str | int) -> int:
    """Return how many voxels to read at a time."""
    n_values = n_bytes = 0
    for columns in (given.responses, given.test_responses):
        if columns is not None:
            n_bytes += 2 * columns.column_bytes
            n_values += columns.column_bytes // columns.dtype.itemsize
    coefficients = 4 * given.responses.width * (given.n_components + 8)
    return max(1, spare_bytes(memory, coefficients) // (n_bytes + 4 * 8 * n_values))
