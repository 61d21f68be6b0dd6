"""What of an image is shown: all of it, one object alone, or all but that object."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption

__all__ = ["CONDITIONS", "INTACT", "Stills", "as_videos", "fill_of"]

CONDITIONS = ("intact", "kept", "removed")
"""The whole image; the object alone, all else filled; the image, the object filled."""

INTACT = 0
"""The condition that is the same for all objects of an image."""

_KEPT = 1

_BRIGHTEST = 255
_CHANNELS = 3


class Stills:
    """An image, with and without its objects.

    Parameters
    ----------
    image : numpy.ndarray
        (y, x, 3) uint8, red, green and blue.
    fill : tuple of int
        Red, green and blue of what is not shown.
    """

    def __init__(self, image: NDArray[np.uint8], fill: tuple[int, int, int]) -> None:
        # Videos have their channels first.
        self.intact = np.ascontiguousarray(image.transpose(2, 0, 1))
        self._fill = np.array(fill, np.uint8)[:, None, None]

    def of(self, condition: int, mask: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the still of an object, (3, y, x) uint8.

        Parameters
        ----------
        condition : int
            Which one of `CONDITIONS`.
        mask : numpy.ndarray
            (y, x), 1 where the object is.
        """
        if condition == INTACT:
            return self.intact
        shown = mask != 0 if condition == _KEPT else mask == 0
        return np.where(shown, self.intact, self._fill)


def as_videos(stills: Sequence[NDArray[np.uint8]], n_frames: int) -> NDArray[np.uint8]:
    """Return stills as videos in which nothing moves: (video, frame, 3, y, x) uint8.

    Read-only: all frames of a video are the same memory, with a stride of 0.

    Examples
    --------
    >>> videos = as_videos([np.zeros((3, 2, 2), np.uint8)], n_frames=90)
    >>> videos.shape, videos.strides[1]
    ((1, 90, 3, 2, 2), 0)
    """
    stacked = np.stack(stills)[:, None]
    shape = (len(stacked), n_frames, *stacked.shape[2:])
    return np.broadcast_to(stacked, shape)


def fill_of(fill: object) -> tuple[int, int, int]:
    """Return red, green and blue of what is not shown: one number for a grey, or three.

    Raises
    ------
    InvalidOption
        When these are no numbers from 0 to 255.

    Examples
    --------
    >>> fill_of(128)
    (128, 128, 128)
    """
    given: list[Any] = list(fill) if isinstance(fill, Sequence | np.ndarray) else [fill] * _CHANNELS
    try:
        found = [operator.index(each) for each in given if not isinstance(each, bool)]
    except TypeError:
        found = []
    if len(found) != _CHANNELS or not all(0 <= each <= _BRIGHTEST for each in found):
        raise InvalidOption(f"fill={fill!r}: give a grey from 0 to 255, or red, green and blue")
    return found[0], found[1], found[2]
