"""The index map of an image, and the segments that say what its values are.

What a segment is depends on the kind of the map, as the vendor's page has it [1]_: an instance, or
everything of a class.

References
----------
.. [1] https://nucleus.scale.com/docs/segmentation-annotations
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import InvalidOption
from maskcube.formats.images import ImageMasks
from maskcube.formats.overlap import label_maps

__all__ = ["BACKGROUND", "KINDS", "MOST_SEGMENTS", "Palette", "SegmentMap"]

KINDS = ("panoptic", "instance", "semantic")
BACKGROUND = "background"
MOST_SEGMENTS = 255
"""Values of a byte, without that of the background."""


@dataclass(frozen=True)
class SegmentMap:
    """The map of an image."""

    pixels: NDArray[np.uint8]
    """(y, x): the index of a segment, 0 where there is none."""
    segments: list[dict[str, Any]]
    """``Segment`` of Nucleus, by index."""
    visible: NDArray[np.int64]
    """(mask,): pixels of each mask that are in a segment."""


@dataclass(frozen=True, kw_only=True)
class Palette:
    """How masks become segments.

    Parameters
    ----------
    kind : str
        One of KINDS.
    overlap : str
        What is on top where masks overlap.
    min_visible : float
        Masks of which less can be seen are left out.
    stuff : collection of str
        Nouns that have one segment, or none.
    classes : sequence of str
        All nouns, for classes that have the same index in every image; empty if there are too many.
    background : bool
        Whether 0 has a segment too.
    """

    kind: str
    overlap: str
    min_visible: float
    stuff: Collection[str]
    classes: Sequence[str]
    background: bool

    def map_of(self, masks: ImageMasks) -> SegmentMap:
        """Return the map of an image.

        Raises
        ------
        InvalidOption
            When masks overlap and may not, or when there are too many segments.
        """
        groups = self._groups(masks)
        drawn = label_maps(masks, self.overlap, min_visible=self.min_visible, groups=groups)
        if self.kind == "instance":
            is_stuff = np.array([record.noun in self.stuff for record in masks.records], np.bool_)
            visible = np.where(is_stuff, 0, drawn.visible)
        else:
            visible = drawn.visible.copy()
        indices, members = self._indices(masks, groups or range(len(masks)), visible)
        self._check_number(masks.image, len(members))
        values = np.zeros(len(masks) + 1, np.uint8)
        values[1:] = indices
        segments = [{"label": BACKGROUND, "index": 0}] if self.background else []
        segments += [self._segment(masks, index, members[index], visible) for index in members]
        return SegmentMap(values[drawn.maps[0]], segments, visible)

    def _groups(self, masks: ImageMasks) -> list[str | int] | None:
        """Return of each mask what it is one segment with; None when each is one of its own."""
        groups: list[str | int] = [
            record.noun if self._is_class(record.noun) else row
            for row, record in enumerate(masks.records)
        ]
        return groups if any(isinstance(group, str) for group in groups) else None

    def _is_class(self, noun: str) -> bool:
        """Whether all masks of a noun are one segment."""
        return self.kind == "semantic" or noun in self.stuff

    def _indices(
        self, masks: ImageMasks, groups: Sequence[str | int], visible: NDArray[np.int64]
    ) -> tuple[list[int], dict[int, list[int]]]:
        """Return the index of each mask, 0 for those left out, and the masks of each index."""
        of_class = {noun: index for index, noun in enumerate(self.classes, 1)}
        of_group: dict[str | int, int] = {}
        indices = [0] * len(masks)
        members: dict[int, list[int]] = {}
        for row, record in enumerate(masks.records):
            if not visible[row]:
                continue
            index = of_class.get(record.noun) or of_group.setdefault(groups[row], len(of_group) + 1)
            # One that is too large is an error soon.
            indices[row] = min(index, MOST_SEGMENTS)
            members.setdefault(index, []).append(row)
        return indices, dict(sorted(members.items()))

    def _check_number(self, image: str, n_segments: int) -> None:
        if n_segments <= MOST_SEGMENTS:
            return
        others = (
            "" if self.kind == "semantic" else "kind='semantic' has one segment for each noun; "
        )
        raise InvalidOption(
            f"image {image!r} has {n_segments:,} segments, and a mask of Nucleus can tell"
            f" {MOST_SEGMENTS} apart: {others}masks[masks.score > ...] has fewer;"
            " geometry='polygon' and geometry='box' have no limit"
        )

    def _segment(
        self, masks: ImageMasks, index: int, rows: list[int], visible: NDArray[np.int64]
    ) -> dict[str, Any]:
        record = masks.records[rows[0]]
        if self._is_class(record.noun):
            metadata: dict[str, Any] = {"n_masks": len(rows)}
        else:
            area = int(masks.areas[rows[0]])
            metadata = {
                **record.properties(),
                "area": area,
                "visible_fraction": int(visible[rows[0]]) / area,
            }
        return {"label": record.noun, "index": index, "metadata": metadata}
