"""What a JSON of COCO says of the masks of an image, and how it is written without holding it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.images import ImageMasks
from maskcube.formats.report import Tally
from maskcube.formats.rle import Rle

__all__ = ["ImageLines", "counted", "tallied"]


class ImageLines(NamedTuple):
    """What is written of the masks of an image."""

    masks: ImageMasks
    lines: Sequence[str]
    """One JSON for each mask that is written."""
    visible: NDArray[np.int64]
    """(mask,): pixels of each mask that are told."""
    dropped: Sequence[bool]
    """Which masks are not written."""


def counted(_: NDArray[np.uint8], rle: Rle) -> tuple[dict[str, Any], int]:
    """Return a mask's segmentation as compressed runs, and how many of its pixels are in it."""
    return {"size": list(rle.shape), "counts": rle.text()}, rle.area


def tallied(images: Iterable[ImageLines], tally: Tally) -> Iterator[str]:
    """Yield the lines of all images, and count them."""
    for image in images:
        tally.add(image.masks, image.visible, image.dropped)
        yield from image.lines
