"""Options that are one of a few words, or a size; checked alike wherever they are given."""

from __future__ import annotations

from collections.abc import Collection

from maskcube.errors import InvalidOption, listed

__all__ = ["FITS", "OVERLAPS", "check_choice", "check_size"]

OVERLAPS = ("smallest", "score", "order", "error", "layers")
"""What is on top where masks overlap: see `maskcube.formats.overlap.label_maps`."""

FITS = ("refuse", "pad", "resize")
"""What is done with masks of another size: see `maskcube.formats.fit.fitted`."""

_SIDES = 2


def check_choice(name: str, value: object, choices: Collection[object]) -> None:
    """Raise `InvalidOption` unless an option is one of these."""
    if value not in choices:
        raise InvalidOption(f"{name}={value!r}: give one of {listed(choices)}")


def check_size(name: str, size: Collection[object] | None) -> None:
    """Raise `InvalidOption` unless an option is a height and a width in pixels, or None."""
    sides = () if size is None else tuple(size)
    are_sides = all(type(side) is int and side > 0 for side in sides)
    if size is not None and not (len(sides) == _SIDES and are_sides):
        raise InvalidOption(f"{name}={size!r}: give height and width in pixels")
