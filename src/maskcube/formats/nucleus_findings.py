"""What annotations of Nucleus say of a mask, what is wrong with them, and what a store drops."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

from maskcube.formats.findings import Findings
from maskcube.formats.nucleus_rows import Annotation
from maskcube.formats.record import Record

__all__ = ["NucleusFindings", "metadata_of", "record_of"]

_OWN_KEYS = frozenset(
    (
        *("instance", "score", "box_x0", "box_y0", "box_x1", "box_y1", "localized", "mask_file"),
        *("mask_row", "area", "visible_fraction", "n_masks", "mask", "part", "n_parts"),
        *("image_height", "image_width", "box_of"),
    )
)
"""What a store keeps of the metadata, or what can be counted again."""


class NucleusFindings(Findings):
    """What is found in annotations of Nucleus.

    Attributes
    ----------
    files : list of callable
        What gives the bytes of each map.
    """

    def __init__(self) -> None:
        super().__init__()
        self.files: list[Callable[[], bytes]] = []
        self._identity = hashlib.sha256()

    def lose_metadata(self, metadata: Mapping[str, Any], example: str) -> None:
        """Note which metadata a store has no place for."""
        for key in metadata:
            if key not in _OWN_KEYS:
                self.lose(f"metadata {str(key)[:60]!r} is not kept", example)

    def identify(self, *parts: object) -> None:
        """Note what tells these masks from others, beside their records."""
        self._identity.update(repr(parts).encode("utf-8", "backslashreplace"))

    @property
    def identity(self) -> bytes:
        """All of that."""
        return bytes(self._identity.digest())


def record_of(annotation: Annotation, fields: Mapping[str, Any]) -> Record:
    """Return what an annotation, or a segment of it, says of its mask.

    Raises
    ------
    ValueError
        With a sentence, when it says no noun or no image, or something that cannot be.
    """
    image, noun, metadata = annotation.image, fields.get("label"), metadata_of(fields)
    if not isinstance(image, str) or not image:
        raise ValueError("has no reference_id that is a text")
    if not isinstance(noun, str) or not noun:
        raise ValueError("has no label that is a text")
    if "confidence" in fields and "score" not in metadata:
        metadata = {**metadata, "score": fields["confidence"]}
    return Record.of(image, noun, metadata)


def metadata_of(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the metadata of an annotation, or a segment.

    Raises
    ------
    ValueError
        With a sentence, when these are no mapping.
    """
    metadata = fields.get("metadata")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise ValueError("has metadata that are no object")
    return metadata or {}
