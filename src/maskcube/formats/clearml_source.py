"""Frames of ClearML as they are read: of a file, of the SDK, of either of its documentations."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from maskcube.errors import InvalidOption, SourceError, SourceNotFound
from maskcube.formats.clearml_frames import FRAMES, IMAGE_NAME, LABELS, LEGEND, MASKS
from maskcube.formats.clearml_values import Value, labels_of, value_of
from maskcube.formats.files import MaskFiles, Resolver, read_file, source_path
from maskcube.formats.findings import Findings
from maskcube.formats.record import text_of

__all__ = [
    "IMAGES",
    "FrameSource",
    "PixelFile",
    "ReadBytes",
    "Region",
    "mask_reader",
    "pixel_files",
]

IMAGES = ("context_id", "id", "uri")
"""What of a frame may be taken as the name of its image."""

ReadBytes = Callable[[str], bytes]
"""Gives the bytes of a mask for its URI."""


class Region(NamedTuple):
    """What a frame says of the pixels of one value."""

    labels: tuple[str, ...]
    value: Value
    score: object
    meta: Mapping[str, Any]


class PixelFile(NamedTuple):
    """A mask of an image, and what its frame says of it."""

    image: str
    where: str
    """Which it is, for messages."""
    id: str
    uri: str
    regions: list[Region]
    about: Mapping[str, Any]
    """What an export of alpha-channel masks says of the image."""
    image_size: tuple[object, object]
    """Height and width of the image, as its frame says."""

    def check_size(self, size: tuple[int, int], findings: Findings) -> None:
        """Note when a picture is not as large as its image."""
        if all(type(side) is int for side in self.image_size) and self.image_size != size:
            findings.lose("masks are not as large as their images", f"{self.where} {size}")


class FrameSource:
    """Frames, and the labels beside them.

    Parameters
    ----------
    source : path, mapping or iterable
        A folder with ``frames.json``; a JSON file of frames, a list or one on each line, or of a
        request that has them; a frame; or frames and entries of ClearML's SDK.

    Raises
    ------
    SourceNotFound
        When nothing is there.
    SourceError
        When it is no JSON.
    """

    def __init__(self, source: object) -> None:
        self.folder: Path | None = None
        self.labels: object = None
        if isinstance(source, str | os.PathLike):
            self._open(source_path(source))
            return
        if not isinstance(source, Iterable):
            raise InvalidOption(f"source={source!r}: give a folder, a JSON file, or frames")
        entries = [source] if isinstance(source, Mapping) else list(source)
        self.frames = [
            each.to_api_object() if hasattr(each, "to_api_object") else each for each in entries
        ]
        self.location = "frames of ClearML"
        self.main: Path | bytes = json.dumps(self.frames, default=repr).encode()
        self._unwrap()

    def _open(self, path: Path) -> None:
        if path.is_dir():
            path /= FRAMES
        if not path.is_file():
            raise SourceNotFound(str(path), ["there is no such file of frames"])
        self.location, self.main, self.folder = str(path), path, path.parent
        found = _json(path, several=True)
        self.frames = found if isinstance(found, list) else [found]
        self._unwrap()
        for name in (LABELS, LEGEND):
            if self.labels is None and (path.parent / name).is_file():
                self.labels = _json(path.parent / name)

    def _unwrap(self) -> None:
        """Take the frames out of a request that has them."""
        if len(self.frames) == 1 and isinstance(self.frames[0], Mapping):
            inner = self.frames[0].get("frames")
            self.frames = inner if isinstance(inner, list) else self.frames


def _json(path: Path, *, several: bool = False) -> Any:  # noqa: ANN401 - whatever is there
    """Return what a JSON file has; of several lines of JSON a list."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except ValueError as error:
        raise SourceError(str(path), [str(error)]) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        lines = [line for line in text.splitlines() if line.strip()]
        if several and len(lines) > 1 and str(error).startswith("Extra data"):
            return [_line(path, number, line) for number, line in enumerate(lines, 1)]
        raise SourceError(str(path), [f"is no JSON: {error}"]) from None


def _line(path: Path, number: int, line: str) -> Any:  # noqa: ANN401 - whatever is there
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise SourceError(str(path), [f"line {number} is no JSON: {error}"]) from None


def mask_reader(source: FrameSource, masks: str | os.PathLike[str] | Resolver | None) -> ReadBytes:
    """Return what gives the bytes of a mask for its URI.

    Raises
    ------
    InvalidOption
        When nobody says where masks are.
    """
    if masks is not None:
        return MaskFiles(masks).read
    if source.folder is None:
        raise InvalidOption(
            "masks=None: frames that are no file say not where masks are; give their folder, or a"
            " function from URI to path or bytes"
        )
    return MaskFiles(source.folder, inside=MASKS).read


def pixel_files(frames: Iterable[object], image: str, findings: Findings) -> Iterator[PixelFile]:
    """Yield the masks of frames, with their regions; what is wrong goes to `findings`.

    Parameters
    ----------
    frames : iterable
        Frames, as JSON has them.
    image : str
        What is taken as the name of an image, of `IMAGES`, unless a frame of ours says it.
    findings : Findings
        Gets faults, and what is lost.
    """
    for number, frame in enumerate(frames):
        where = f"frame {number}"
        try:
            yield from _of_frame(frame, where, image, findings)
        except ValueError as error:
            findings.faults.append(f"{where}: {error}")


def _of_frame(frame: object, where: str, image: str, findings: Findings) -> Iterator[PixelFile]:
    about = _mapping(frame, "a frame")
    sources = [_mapping(each, "a source") for each in _items(about, "sources")]
    several = sum(bool(_items(source, "masks")) for source in sources) > 1
    found: dict[str, list[PixelFile]] = {}
    for source in sources:
        source_id = str(source.get("id"))
        if source_id in found:
            raise ValueError(f"has two sources {source_id!r}")
        name = _image_name(about, source, image)
        name = f"{name}/{source_id}" if several else name
        told = f"{where} ({name!r})"
        found[source_id] = list(_of_source(about, source, name, told))
    for number, roi in enumerate(_items(about, "rois")):
        try:
            _assign(_mapping(roi, "it"), found, findings)
        except ValueError as error:
            findings.faults.append(f"{where}, region {number}: {error}")
    for files in found.values():
        yield from files


def _of_source(
    frame: Mapping[str, Any], source: Mapping[str, Any], name: str, where: str
) -> Iterator[PixelFile]:
    ids: set[str] = set()
    for entry in _items(source, "masks"):
        mask = _mapping(entry, "a mask")
        # The page of 2023 says that it is an integer.
        mask_id = mask.get("id")
        if isinstance(mask_id, bool) or not isinstance(mask_id, str | int) or mask_id == "":
            raise ValueError(f"id of a mask must be a text, found {mask_id!r:.80}")
        if str(mask_id) in ids:
            raise ValueError(f"has two masks {mask_id!r}")
        ids.add(str(mask_id))
        uri = text_of("uri of a mask", mask.get("uri"))
        told = f"{where}, mask {str(mask_id)!r:.80}"
        about, size = (
            _about(frame, str(source.get("id"))),
            (source.get("height"), source.get("width")),
        )
        yield PixelFile(name, told, str(mask_id), uri, [], about, size)


def _about(frame: Mapping[str, Any], source_id: str) -> Mapping[str, Any]:
    """Return what an export of ours says of an image; the SDK keeps it under the source's name."""
    meta = frame.get("meta")
    places = [frame.get("meta_blob"), meta.get(source_id) if isinstance(meta, Mapping) else None]
    return next((each for each in places if isinstance(each, Mapping) and "objects" in each), {})


def _image_name(frame: Mapping[str, Any], source: Mapping[str, Any], image: str) -> str:
    """Return the name of an image; of URLs the last part."""
    meta = frame.get("meta")
    if isinstance(meta, Mapping) and isinstance(meta.get(IMAGE_NAME), str):
        return text_of("name of an image", meta[IMAGE_NAME])
    asked = source.get("uri") if image == "uri" else frame.get(image)
    given = next((each for each in (asked, source.get("uri"), frame.get("id")) if each), None)
    name = text_of("name of an image", given)
    if "://" not in name:
        return name
    try:
        return PurePosixPath(urlsplit(name).path).name or name
    except ValueError:
        return name


def _assign(
    roi: Mapping[str, Any], found: Mapping[str, list[PixelFile]], findings: Findings
) -> None:
    """Give a region to the mask that it speaks of."""
    if roi.get("mask") is None:
        findings.lose("regions without a mask (polygons, boxes) are left out", _place(roi))
        return
    mask = _mapping(roi["mask"], "mask")
    labels = labels_of(roi.get("label", roi.get("labels")))
    named = [str(each) for each in _items(roi, "sources")]
    files = [file for source in named or found for file in found.get(source, [])]
    file, labels = _spoken_of(files, str(mask.get("id")), labels, findings)
    meta = roi.get("meta")
    meta = {} if meta is None else _mapping(meta, "meta")
    score = meta["score"] if "score" in meta else roi.get("confidence")
    file.regions.append(Region(labels, value_of(mask.get("value")), score, meta))


def _spoken_of(
    files: list[PixelFile], mask_id: str, labels: tuple[str, ...], findings: Findings
) -> tuple[PixelFile, tuple[str, ...]]:
    """Return the mask of a region, and its labels."""
    by_id = {file.id: file for file in files}
    if mask_id in by_id:
        return by_id[mask_id], labels
    if labels and labels[0] in by_id:
        # Two examples on the page of 2023: the mask is named as label, the label as mask.
        return by_id[labels[0]], (mask_id, *labels[1:])
    if len(files) == 1:
        told = f"regions of the mask {mask_id!r:.80}, which is not there, are read in the only one"
        findings.lose(told, files[0].where)
        return files[0], labels
    raise ValueError(
        f"mask.id is {mask_id!r:.80}, which is none of its masks: {list(by_id)!r:.200}"
    )


def _place(roi: Mapping[str, Any]) -> str:
    return repr(roi.get("label", roi.get("labels")))[:80]


def _mapping(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be an object, found {value!r:.80}")  # noqa: TRY004 - one kind of fault
    return value


def _items(holder: Mapping[str, Any], key: str) -> list[Any]:
    value = holder.get(key)
    if value is None:
        return []
    if not isinstance(value, list | tuple):
        raise ValueError(f"{key} must be a list, found {value!r:.80}")  # noqa: TRY004 - one kind of fault
    return list(value)
