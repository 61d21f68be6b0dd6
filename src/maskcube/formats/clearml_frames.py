"""The frames that ClearML keeps of images and their masks, as they are written.

A frame is what ``SaveFramesRequest`` of ClearML's API takes. The file ``frames.json`` is a list of
them, one on each line.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from string import Formatter
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import quote

from maskcube.errors import InvalidOption, listed
from maskcube.formats.output import to_json
from maskcube.formats.record import Record

__all__ = [
    "FRAMES",
    "IMAGE_NAME",
    "LABELS",
    "LEGEND",
    "MASKS",
    "SOURCE",
    "FrameWriter",
    "MaskFile",
    "Places",
    "check_template",
    "masks_source",
    "new_frame",
    "object_ids",
]

FRAMES = "frames.json"
LABELS = "mask_labels.json"
LEGEND = "_mask_legend.json"

MASKS = "masks"
"""Folder of the PNGs."""

SOURCE = "default"
"""Id of the only source of a frame, the image."""

IMAGE_NAME = "image_name"
"""Key of a frame's ``meta`` that has the name of the image, exactly as spelt."""

_PNG = "image/png"
_CONTENT_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": _PNG,
    ".webp": "image/webp",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".tiff": "image/tiff",
    ".gif": "image/gif",
}


class MaskFile(NamedTuple):
    """A PNG of an image."""

    id: str
    file: str
    """Its name in the folder of PNGs."""


class Places(NamedTuple):
    """What images and masks are called where ClearML will find them."""

    mask_uri: str | None
    """Of ``{file}``, the name of a PNG in the folder ``masks``, ``{image}`` and ``{id}``, both
    percent-encoded; None for the path in the folder of the export."""
    source_uri: str | None
    """Of ``{image}``; None for the name of the image."""

    def check(self, *, several: bool) -> None:
        """Raise `InvalidOption` unless each image and each mask gets a name of its own.

        Parameters
        ----------
        several : bool
            Whether an image may have several masks.
        """
        if self.source_uri is not None:
            check_template("source_uri", self.source_uri, {"image"}, [{"image"}])
        if self.mask_uri is not None:
            enough = [{"file"}, {"image", "id"} if several else {"image"}]
            check_template("mask_uri", self.mask_uri, {"file", "image", "id"}, enough)

    def of_mask(self, image: str, mask: MaskFile) -> str:
        """Return the URI of a mask."""
        if self.mask_uri is None:
            return f"{MASKS}/{mask.file}"
        return self.mask_uri.format(
            image=quote(image, safe=""), file=mask.file, id=quote(mask.id, safe="")
        )

    def of_image(self, image: str) -> str:
        """Return the URI of an image."""
        if self.source_uri is None:
            return image
        return self.source_uri.format(image=quote(image, safe=""))


def check_template(
    name: str, template: str, known: Collection[str], enough: Iterable[Collection[str]] = ()
) -> None:
    """Raise `InvalidOption` unless a template has fields that are known, and enough of them.

    Parameters
    ----------
    name : str
        The option's name.
    template : str
        A text with fields in braces.
    known : collection of str
        Fields that it may have.
    enough : iterable of collection of str
        Sets of fields, of which it must have one.
    """
    try:
        parts = list(Formatter().parse(template))
    except (ValueError, TypeError):
        raise InvalidOption(f"{name}={template!r} is no template: write {{ and }} twice") from None
    fields = {field for _, field, _, _ in parts if field is not None}
    if not fields <= set(known) or any(form or how for _, _, form, how in parts):
        raise InvalidOption(f"{name}={template!r}: the fields are {_braced(known)}")
    wanted = [set(each) for each in enough]
    if wanted and not any(each <= fields for each in wanted):
        choices = " or ".join(_braced(each) for each in wanted)
        raise InvalidOption(f"{name}={template!r} names several files alike: it needs {choices}")


def _braced(fields: Collection[str]) -> str:
    return " and ".join(f"{{{field}}}" for field in sorted(fields))


def new_frame(
    image: str,
    shape: tuple[int, int],
    masks: Sequence[MaskFile],
    places: Places,
    **more: object,
) -> dict[str, Any]:
    """Return the frame of an image.

    Parameters
    ----------
    image : str
        Its name.
    shape : (int, int)
        Height and width in pixels.
    masks : sequence of MaskFile
        Its PNGs.
    places : Places
        What they are called.
    **more
        Other keys of the frame.
    """
    height, width = shape
    size = {"timestamp": 0, "width": width, "height": height}
    kind = _CONTENT_TYPES.get(PurePosixPath(image).suffix.lower())
    source = {
        "id": SOURCE,
        "uri": places.of_image(image),
        **({"content_type": kind} if kind else {}),
        **size,
        "masks": [
            {"id": mask.id, "uri": places.of_mask(image, mask), "content_type": _PNG, **size}
            for mask in masks
        ],
    }
    about = {"id": image, "context_id": image, "timestamp": 0, "meta": {IMAGE_NAME: image}}
    return {**about, "sources": [source], **more}


def object_ids(records: Iterable[Record]) -> list[str]:
    """Return ``<noun>-<instance>`` for each mask of an image, and no id twice.

    Examples
    --------
    >>> hand = Record(image="a.jpg", noun="hand", instance=1)
    >>> odd = Record(image="a.jpg", noun="hand-1")
    >>> object_ids([hand, odd, hand])
    ['hand-1', 'hand-1 (2)', 'hand-1 (3)']
    """
    given: dict[str, None] = {}
    # Of many that are alike none is looked for among all of them again.
    counts: dict[str, int] = {}
    for record in records:
        plain = record.noun if record.instance is None else f"{record.noun}-{record.instance}"
        wanted, count = plain, counts.get(plain, 1)
        while wanted in given:
            count += 1
            wanted = f"{plain} ({count})"
        counts[plain] = count
        given[wanted] = None
    return list(given)


class FrameWriter:
    """A list of frames in a file, one frame a line, written one after the other.

    Parameters
    ----------
    path : pathlib.Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._between = "[\n"
        self._uris: set[str] = set()

    def __enter__(self) -> Self:
        self._file = self._path.open("w", encoding="utf-8", newline="\n")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._file:
            self._file.write("\n]\n" if self._between.startswith(",") else "[]\n")

    def write(self, frame: Mapping[str, Any]) -> None:
        """Append a frame; raises `InvalidOption` if a mask of it has the URI of another one."""
        for source in frame["sources"]:
            for mask in source["masks"]:
                if mask["uri"] in self._uris:
                    raise InvalidOption(f"mask_uri gives two masks the URI {mask['uri']!r}")
                self._uris.add(mask["uri"])
        self._file.write(f"{self._between}{to_json(frame)}")
        self._between = ",\n"


def masks_source(frame: Mapping[str, Any], *, numbered: bool = False) -> Any:  # noqa: ANN401 - two forms
    """Return the masks of a frame as ``SingleFrame.masks_source`` takes them.

    Parameters
    ----------
    frame : mapping
        A frame, of ``frames.json``.
    numbered : bool
        Return a list, whose masks ClearML numbers ``"00"``, ``"01"``, ...; refused where these are
        not their ids.

    Returns
    -------
    dict of str to str, or list of str
        The URI of each mask, by its id.

    Raises
    ------
    InvalidOption
        When a list would give masks other ids.

    Examples
    --------
    >>> frame = {"sources": [{"masks": [{"id": "00", "uri": "s3://b/a.png"}]}]}
    >>> masks_source(frame), masks_source(frame, numbered=True)
    ({'00': 's3://b/a.png'}, ['s3://b/a.png'])
    """
    found = {mask["id"]: mask["uri"] for source in frame["sources"] for mask in source["masks"]}
    if not numbered:
        return found
    numbers = [f"{number:02d}" for number in range(len(found))]
    if list(found) != numbers:
        raise InvalidOption(
            f"a list would give the masks {listed(found)} the ids {listed(numbers)}: take the dict"
        )
    return list(found.values())
