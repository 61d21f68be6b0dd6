"""What is in one of BERG's files, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed
from maskcube.insilico.errors import CorruptWeights, ModelLoadError
from maskcube.insilico.pickles import read_npy

__all__ = ["Findings", "names_in", "present", "there"]

_LISTED = 12


class Findings:
    """What is in a file, by its keys; what is wrong with it is gathered, and told at once.

    Parameters
    ----------
    path : pathlib.Path
        A file for `read_npy`.
    """

    def __init__(self, path: Path) -> None:
        present(path)
        self.path = path
        self.faults: list[str] = []
        self._tree = read_npy(path)
        self._absent: list[NDArray[Any]] = []
        """What was given for arrays that are not there."""

    def get(self, *keys: str, optional: bool = False) -> Any:  # noqa: ANN401 - whatever is there
        """Return what is at the end of some keys; None, noted as a fault, if nothing is."""
        found = self._tree
        for key in keys:
            found = found.get(key) if isinstance(found, dict) else None
        if found is None and not optional:
            self.faults.append(f"{' '.join(keys)} is missing")
        return found

    def array(self, *keys: str, n_dims: int, kinds: str) -> NDArray[Any]:
        """Return an array; an empty one, noted as a fault, if there is none such."""
        found = self.get(*keys)
        if found is None:
            return self._nothing(n_dims)
        array = self.checked(found, " ".join(keys), n_dims=n_dims, kinds=kinds)
        if not array.size and self._is_there(array):
            self.faults.append(f"{' '.join(keys)} has shape {array.shape}")
        return array

    def checked(self, found: object, name: str, *, n_dims: int, kinds: str) -> NDArray[Any]:
        """Return an array of so many dimensions; an empty one, noted as a fault, if it is not."""
        if not isinstance(found, np.ndarray):
            self.faults.append(f"{name} is a {type(found).__name__}, and no array")
        elif found.ndim != n_dims or found.dtype.kind not in kinds:
            self.faults.append(f"{name} has shape {found.shape} and type {found.dtype}")
        else:
            return found
        return self._nothing(n_dims)

    def _nothing(self, n_dims: int) -> NDArray[Any]:
        self._absent.append(np.empty((0,) * n_dims))
        return self._absent[-1]

    def _is_there(self, array: NDArray[Any] | None) -> bool:
        return all(array is not absent for absent in self._absent)

    def fits(
        self,
        what: str,
        array: NDArray[Any],
        found: object,
        other: NDArray[Any] | None,
        expected: object,
    ) -> None:
        """Note a fault if a size of an array is not that of another one, if both are there."""
        if found != expected and self._is_there(array) and self._is_there(other):
            self.faults.append(f"{what} {found}, where {expected} is right")

    def counts(self, keys: Sequence[str], array: NDArray[Any], expected: int) -> None:
        """Note a fault if a number, which may be missing, is not a size of an array."""
        found = self.get(*keys, optional=True)
        if found is not None and not isinstance(found, int | np.integer):
            self.faults.append(f"{' '.join(keys)} is a {type(found).__name__}, and no number")
        elif found is not None:
            self.fits(f"{' '.join(keys)} is", array, int(found), None, expected)

    def check(self) -> None:
        """Raise if there are faults.

        Raises
        ------
        CorruptWeights
            Which names them.
        """
        if self.faults:
            more = len(self.faults) - _LISTED
            told = "; ".join(self.faults[:_LISTED]) + (f"; and {more} more" if more > 0 else "")
            raise CorruptWeights(
                f"{self.path} is no such file of fmri-bmd-s3d: {told}. Get it again, and the other"
                " files of the same release"
            )


def present(path: Path) -> None:
    """Raise if a file is not there.

    Raises
    ------
    ModelLoadError
        Which says where it was sought, and what is there.
    """
    if not path.is_file():
        raise ModelLoadError(f"{path.parent} has no {path.name}; {there(path.parent)}")


def there(folder: Path) -> str:
    """Say what is in a folder, which need not be there."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    return f"it has {listed(names_in(folder)) or 'nothing'}"


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder; none if it is not there."""
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
