"""A JSON file of COCO: what it says of its images and categories, by their ids.

The ids of COCO are integers; those of other tools are anything, also 0 or text.
"""

from __future__ import annotations

import json
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from maskcube.errors import SourceError, SourceNotFound, listed
from maskcube.formats.coco_mask import Size, packed, size_of
from maskcube.formats.files import source_path
from maskcube.formats.record import text_of

__all__ = [
    "CocoLabels",
    "Faults",
    "Id",
    "coco_labels",
    "id_of",
    "labels_in",
    "list_in",
    "read_json",
    "repeated",
    "shown",
]

_MOST_BYTES = 2**31
"""Of a file: four times COCO's largest."""

Id = int | str


class Faults:
    """What is wrong, each kind once, with the ids of those that have it."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], list[object]] = {}

    def add(self, of: str, which: object, what: object) -> None:
        """Note that one of them has it."""
        self._found.setdefault((of, str(what)), []).append(which)

    def told(self) -> list[str]:
        """Return a sentence for each kind."""
        return [f"{of} {listed(which)} {what}" for (of, what), which in self._found.items()]


class _Image(NamedTuple):
    name: str
    size: Size | None


class CocoLabels(NamedTuple):
    """What a file says of its images and categories, by their ids."""

    images: dict[Id, _Image]
    categories: dict[Id, str]


def coco_labels(source: str | Path) -> CocoLabels:
    """Return the images and categories of a file of COCO.

    Raises
    ------
    SourceError
        When it has none, or two with the same name.
    SourceNotFound
        When there is no such file.
    """
    path, faults = source_path(source), Faults()
    labels = labels_in(read_json(path), path, faults)
    names = [image.name for image in labels.images.values()]
    for of, found in (("images", names), ("categories", list(labels.categories.values()))):
        for name in repeated(found):
            faults.add(of, name, "are there twice")
    if faults.told():
        raise SourceError(str(path), faults.told())
    return labels


def read_json(path: Path) -> Any:  # noqa: ANN401 - whatever a JSON holds
    """Return what is in a JSON file; numbers of masks are packed while it is read.

    Raises
    ------
    SourceNotFound
        When there is none.
    SourceError
        When it is no JSON, or too large.
    """
    if not path.is_file():
        raise SourceNotFound(
            str(path), ["is a folder: give the JSON" if path.is_dir() else "there is no such file"]
        )
    if path.stat().st_size > _MOST_BYTES:
        raise SourceError(str(path), [f"is larger than {_MOST_BYTES // 2**30} GiB"])
    try:
        text = path.read_text("utf-8-sig")
        return json.loads(text, object_hook=packed)
    except RecursionError:
        raise SourceError(str(path), ["is no JSON of COCO: it is nested too deep"]) from None
    except ValueError as error:
        raise SourceError(str(path), [f"is no JSON: {error}"]) from None
    except OSError as error:
        raise SourceError(str(path), [f"cannot be read: {error.strerror or error}"]) from None


def labels_in(document: object, path: Path, faults: Faults) -> CocoLabels:
    """Return the images and categories of a file; what is wrong with one goes to `faults`.

    Raises
    ------
    SourceError
        When it has none.
    """
    if not isinstance(document, dict):
        raise SourceError(str(path), ["is no file of COCO: it must be an object with images"])
    images: dict[Id, _Image] = {}
    for key, image in _by_id(list_in(document, "images", path), "image", faults):
        try:
            size = size_of(image.get("height"), image.get("width"))
            images[key] = _Image(text_of("file_name", _file_name(image)), size)
        except ValueError as error:
            faults.add("image", key, f"is wrong: {error}")
    categories: dict[Id, str] = {}
    for key, category in _by_id(list_in(document, "categories", path), "category", faults):
        try:
            categories[key] = text_of("name", category.get("name"))
        except ValueError as error:
            faults.add("category", key, f"is wrong: {error}")
    return CocoLabels(images, categories)


def _by_id(entries: list[Any], of: str, faults: Faults) -> Iterator[tuple[Id, dict[str, Any]]]:
    seen = set()
    for position, entry in enumerate(entries):
        try:
            key = id_of(entry, "id") if isinstance(entry, dict) else None
        except ValueError:
            key = None
        if key is None:
            faults.add(of, position, "has no id")
        elif key in seen:
            faults.add(of, key, "is there twice")
        else:
            seen.add(key)
            yield key, entry


def list_in(document: Mapping[str, Any], name: str, path: Path) -> list[Any]:
    """Return a list that a file must have; raises `SourceError` where it has none."""
    found = document.get(name)
    if not isinstance(found, list):
        raise SourceError(str(path), [f"is no file of COCO: it has no list of {name}"])
    return found


def id_of(entry: Mapping[str, Any], name: str, known: Mapping[Id, object] | None = None) -> Id:
    """Return an id, one of `known`; raises `ValueError`, with half a sentence, where it is none."""
    value = entry.get(name)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) not in (int, str) or (known is not None and value not in known):
        raise ValueError(f"has {name} {shown(value)}, which is none of the file's")
    found: Id = value  # type: ignore[assignment]
    return found


def _file_name(image: Mapping[str, Any]) -> object:
    name, url = image.get("file_name"), image.get("coco_url")
    if name or not isinstance(url, str):
        return name
    # As LVIS names its images: the folder tells one split of COCO from the other.
    try:
        parts = PurePosixPath(urlsplit(url).path).parts
    except ValueError:
        return None
    return "/".join(part for part in parts[-2:] if part != "/")


def repeated(names: Iterable[str]) -> dict[str, int]:
    """Return the names that are there more than once, and how often."""
    return {name: times for name, times in Counter(names).items() if times > 1}


def shown(value: object) -> str:
    """Return a value for a message: a short text, whatever it is."""
    if value is None or isinstance(value, str | int | float):
        return reprlib.repr(value)
    return f"a {type(value).__name__}"
