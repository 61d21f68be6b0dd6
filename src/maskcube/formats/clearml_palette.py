"""Which value the pixels of a noun have in ClearML's masks: one mapping for a dataset version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption, listed

__all__ = ["BACKGROUND", "EVERY_MASK", "Colour", "MaskLabels", "Palette"]

Colour = tuple[int, int, int]
"""Red, green and blue of a pixel, each 0 to 255."""

MaskLabels = dict[Colour, list[str]]
"""What ``DatasetVersion.set_masks_labels`` takes."""

BACKGROUND = "background"
"""What pixels of no object are called, unless there is a noun of that name."""

EVERY_MASK = "_all_"
"""Key of the labels that hold for every mask of a version."""

_MOST_GREYS = 255
_MOST_COLOURS = 2**24 - 1


@dataclass(frozen=True)
class Palette:
    """The value of each noun, the same in every mask of a dataset version.

    Noun k has the value k + 1: as a grey, (v, v, v), where 255 are enough for all nouns, else as
    the colour R + 256 G + 65536 B.

    Parameters
    ----------
    nouns : tuple of str
        Distinct, in the order of their values.
    background : str or None
        Label of the value 0; None for none.
    """

    nouns: tuple[str, ...]
    background: str | None = BACKGROUND

    @classmethod
    def of(
        cls,
        found: Sequence[str],
        wanted: Iterable[str] | None = None,
        *,
        background: str | None = BACKGROUND,
    ) -> Palette:
        """Return a palette for the nouns that are found.

        Parameters
        ----------
        found : sequence of str
            Nouns that need a value.
        wanted : iterable of str, optional
            Nouns that get the first values in this order, found or not.
        background : str or None
            Label of the value 0.

        Raises
        ------
        InvalidOption
            When `wanted` is no list of nouns, `background` no label, or there are more nouns than
            colours.
        """
        if background is not None:
            _checked([background])
        first = [] if wanted is None else _checked(wanted)
        nouns = tuple(dict.fromkeys([*first, *found]))
        if len(nouns) > _MOST_COLOURS:
            raise InvalidOption(f"{len(nouns):,} nouns: there are {_MOST_COLOURS:,} colours")
        # Two values of one name would be one class to whoever reads the labels.
        return cls(nouns, None if background in nouns else background)

    @property
    def is_grey(self) -> bool:
        """Whether the values are greys."""
        return len(self.nouns) <= _MOST_GREYS

    def numbers(self, nouns: Iterable[str]) -> list[int]:
        """Return the number of each noun, from 1 on."""
        number_of = {noun: number for number, noun in enumerate(self.nouns, 1)}
        return [number_of[noun] for noun in nouns]

    def colour(self, number: int) -> Colour:
        """Return the colour of the pixels of a number."""
        if self.is_grey:
            return number, number, number
        return number & 255, number >> 8 & 255, number >> 16

    def paint(
        self, label_map: NDArray[np.unsignedinteger[Any]], numbers: Sequence[int]
    ) -> NDArray[np.uint8]:
        """Return the picture of a map.

        Parameters
        ----------
        label_map : numpy.ndarray
            (y, x), 0 where no mask is, k + 1 where the mask at position k is.
        numbers : sequence of int
            The number of each mask's noun.

        Returns
        -------
        numpy.ndarray
            (y, x) uint8 of greys, or (y, x, 3) uint8 of red, green and blue.
        """
        colours = np.array([self.colour(number) for number in (0, *numbers)], np.uint8)
        return np.take(colours[:, 0] if self.is_grey else colours, label_map, axis=0)

    def labels(self) -> MaskLabels:
        """Return the labels of each colour, for ``set_masks_labels``."""
        known = {} if self.background is None else {self.colour(0): [self.background]}
        return known | {self.colour(k): [noun] for k, noun in enumerate(self.nouns, 1)}

    def metadata(self) -> dict[str, Any]:
        """Return the metadata of a dataset version, for ``HyperDataset.set_metadata``.

        Nouns are values in it, not keys: they may hold a dot or a dollar.
        """
        entries = [
            {"value": list(colour), "labels": labels} for colour, labels in self.labels().items()
        ]
        return {"mask_labels": {EVERY_MASK: entries}}

    def legend(self) -> dict[str, list[int]]:
        """Return the colour of each label, as ClearML's own example keeps it beside masks."""
        return {label: list(value) for value, found in self.labels().items() for label in found}


def _checked(nouns: Iterable[object]) -> list[str]:
    given = [nouns] if isinstance(nouns, str) else list(nouns)
    wrong = [noun for noun in given if not isinstance(noun, str) or not noun]
    if wrong:
        raise InvalidOption(f"nouns and background must be texts, found {listed(wrong)}")
    return [str(noun) for noun in given]
