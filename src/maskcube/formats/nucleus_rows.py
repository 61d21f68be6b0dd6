"""The annotations in whatever Nucleus, its client or we have written, one at a time.

There are payloads [1]_, one for each annotation, and rows of an export [2]_, one for each dataset
item, with its annotations in groups; both as JSON, or as the objects of Scale's client.

References
----------
.. [1] https://nucleus.scale.com/docs/segmentation-annotations
.. [2] https://dashboard.scale.com/nucleus/docs/api, Dataset.items_and_annotation_generator
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["BOX", "MASK", "POLYGON", "Annotation", "Row", "annotations_of", "rows_of"]

MASK, POLYGON, BOX = "mask", "polygon", "box"

_NAMES = {"segmentation": MASK, MASK: MASK, POLYGON: POLYGON, BOX: BOX}
_OTHERS = ("line", "keypoints", "cuboid", "category", "multicategory", "scene_category")
_GROUPS = (*_NAMES, *_OTHERS)
"""What annotations are, by the names of their types and of the groups that they come in."""

_LISTS = ("segmentations", "annotations", "predictions")
"""Where annotations stand in the body of a request."""

_MOST_LINE_BYTES = 2**26
_MOST_BYTES = 2**29
"""A line, or a document, that is longer is not read: Nucleus takes no more than half a gigabyte."""

_DEEPEST = 4
"""A page of an export has rows, a row has groups, a group has annotations."""


@dataclass(frozen=True)
class Row:
    """A row of a source: an annotation, or several."""

    place: str
    """Where it is, for messages."""
    load: Callable[[], Any]
    """Gives it; raises ValueError with a sentence when it is no JSON."""
    is_kept: bool
    """Whether it is in memory anyway; else it is read again each time."""


@dataclass(frozen=True)
class Annotation:
    """An annotation of a row, as it was found."""

    kind: str
    """What it is: MASK, POLYGON, BOX or another type's name."""
    image: Any
    """Reference of its dataset item; should be a text."""
    fields: Mapping[str, Any]
    """The payload."""
    size: tuple[Any, Any]
    """Height and width of the dataset item, should be integers; None where it does not say."""


def rows_of(source: Path | Iterable[Any]) -> Iterator[Row]:
    """Yield the rows of a file or of anything in memory.

    Parameters
    ----------
    source : pathlib.Path or iterable
        JSON lines; or a JSON document, with the suffix ``.json``; or rows, payloads and objects of
        the client, or one of them.

    Raises
    ------
    OSError
        When there is no such file, or it cannot be read.
    """
    if not isinstance(source, Path):
        yield from _rows_in_memory(source, "row")
    elif source.suffix.lower() == ".json":
        yield from _rows_of_document(source)
    else:
        yield from _rows_of_lines(source)


def _rows_in_memory(source: Any, what: str) -> Iterator[Row]:  # noqa: ANN401 - anything
    is_one = isinstance(source, Mapping) or hasattr(source, "to_payload")
    if isinstance(source, str | bytes) or not (is_one or isinstance(source, Iterable)):
        source = [source]
    for number, value in enumerate([source] if is_one else source, 1):
        yield Row(f"{what} {number:,}", lambda value=value: value, is_kept=True)  # type: ignore[misc]


def _rows_of_document(file: Path) -> Iterator[Row]:
    if (size := file.stat().st_size) > _MOST_BYTES:
        problem = (
            f"has {size:,} bytes, and is read as a whole: give JSON lines, as {file.stem}.jsonl"
        )
        yield Row(file.name, _refusal(problem), is_kept=False)
        return
    try:
        value = _parsed(file.read_bytes())
    except ValueError as error:
        yield Row(file.name, _refusal(str(error)), is_kept=False)
        return
    yield from _rows_in_memory(value, f"{file.name}, row")


def _refusal(problem: str) -> Callable[[], Any]:
    def refuse() -> Any:  # noqa: ANN401 - never returns
        raise ValueError(problem)

    return refuse


def _rows_of_lines(file: Path) -> Iterator[Row]:
    with file.open("rb") as lines:
        number = offset = 0
        while line := lines.readline(_MOST_LINE_BYTES + 1):
            number += 1
            place = f"{file.name}, line {number:,}"
            if len(line) > _MOST_LINE_BYTES:
                problem = f"is longer than {_MOST_LINE_BYTES:,} bytes; nothing after it was read"
                yield Row(place, _refusal(problem), is_kept=False)
                return
            if line.strip():
                yield Row(place, _Line(file, offset, len(line), line), is_kept=False)
            offset += len(line)


class _Line:
    """A line of a file; it is read again when it is asked for again.

    Parameters
    ----------
    file : pathlib.Path
        The file.
    offset, length : int
        Where it is, in bytes.
    line : bytes
        What was read of it, for the first time it is asked for.
    """

    def __init__(self, file: Path, offset: int, length: int, line: bytes) -> None:
        self._file, self._offset, self._length = file, offset, length
        self._line = line

    def __call__(self) -> Any:  # noqa: ANN401 - any JSON
        line, self._line = self._line, b""
        if not line:
            with self._file.open("rb") as lines:
                lines.seek(self._offset)
                line = lines.read(self._length)
        return _parsed(line)


def _parsed(text: bytes) -> Any:  # noqa: ANN401 - any JSON
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("is JSON in too many layers") from None
    except ValueError as error:
        raise ValueError(f"is no JSON: {error}") from None


def annotations_of(value: object) -> Iterator[Annotation]:
    """Yield the annotations of a row.

    Parameters
    ----------
    value : object
        A payload, a row of an export, a page of them, the body of a request, an answer of
        ``refloc``, or what the client makes of any.

    Raises
    ------
    ValueError
        With a sentence, when it is none of these.
    """
    yield from _found(value, None, (None, None), None, 0)


def _found(
    value: Any,  # noqa: ANN401 - anything
    image: Any,  # noqa: ANN401 - anything
    size: tuple[Any, Any],
    group: str | None,
    depth: int,
) -> Iterator[Annotation]:
    value = _plain(value)
    if depth > _DEEPEST or not isinstance(value, Mapping):
        raise ValueError(f"is {_told(value)}, where an annotation or a row of an export should be")
    if "item" in value:
        item = _item(value["item"])
        image, size = item.get("reference_id"), (item.get("height"), item.get("width"))
        inner = _inner(value)
    elif isinstance(value.get("data"), list):
        inner = [(each, None) for each in value["data"]]
    elif "mask_url" not in value and "geometry" not in value and _body(value) is not None:
        inner = [(each, None) for each in _body(value) or ()]
    else:
        yield Annotation(_kind(value, group), value.get("reference_id", image), value, size)
        return
    for each, name in inner:
        yield from _found(each, image, size, name, depth + 1)


def _plain(value: Any) -> Any:  # noqa: ANN401 - anything
    """Return what an object of the client stands for."""
    convert = getattr(value, "to_payload", None)
    return value if convert is None or isinstance(value, Mapping) else convert()


def _item(item: Any) -> Mapping[str, Any]:  # noqa: ANN401 - anything
    if isinstance(item, Mapping):
        return item
    if not hasattr(item, "reference_id"):
        raise ValueError(f"has the item {_told(item)}, which should be an object")
    return {key: getattr(item, key, None) for key in ("reference_id", "height", "width")}


def _inner(row: Mapping[str, Any]) -> list[tuple[Any, str | None]]:
    """Return the annotations of a row of an export, each with the name of its group."""
    groups: Any = row
    for key in ("annotations", "predictions"):
        if isinstance(row.get(key), list):
            return [(each, None) for each in row[key]]
        if isinstance(row.get(key), Mapping):
            groups = row[key]
    found = [(groups[name], name) for name in _GROUPS if groups.get(name) is not None]
    return [
        (each, name)
        for group, name in found
        for each in (group if isinstance(group, list) else [group])
    ]


def _body(value: Mapping[str, Any]) -> list[Any] | None:
    """Return the annotations in the body of a request, if it is one."""
    found = [value[name] for name in _LISTS if isinstance(value.get(name), list)]
    return [each for group in found for each in group] if found else None


def _kind(payload: Mapping[str, Any], group: str | None) -> str:
    """Return what an annotation is: by its type, or the group that it came in."""
    named = payload.get("type", group)
    if named is None and "mask_url" in payload:
        return MASK
    if not isinstance(named, str):
        raise ValueError(f"has the type {_told(named)}")  # noqa: TRY004 - a fault of data
    return _NAMES.get(named, named)


def _told(value: object, *, longest: int = 60) -> str:
    """Return a value for a message, and not all of a long one."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        return f"a {type(value).__name__}"
    return text if len(text) <= longest else f"{text[:longest]}..."
