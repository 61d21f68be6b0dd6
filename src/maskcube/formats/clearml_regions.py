"""Masks out of the pixels of ClearML's pictures: one for each region or label."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.clearml_palette import EVERY_MASK
from maskcube.formats.clearml_source import PixelFile, ReadBytes, Region, pixel_files
from maskcube.formats.clearml_values import Labelled, Picture, Value
from maskcube.formats.collection import Item, KeptMaps
from maskcube.formats.findings import Findings
from maskcube.formats.record import Record
from maskcube.threads import spread

__all__ = ["read_masks"]

_TOGETHER = 64
"""Pictures that are looked at side by side."""

_MOST_TOLD = 8
"""Values without a label of a picture, each of which is told."""

_KEPT = 16
"""Decoded pictures to keep: the masks of an image may be in many."""


class _Seen(NamedTuple):
    """What a picture has."""

    size: tuple[int, int]
    values: NDArray[np.uint32]


class _Job(NamedTuple):
    """A picture, and what its values stand for."""

    file: PixelFile
    labelled: tuple[Labelled, ...]
    """What the dataset version says."""
    background: str | None

    @property
    def wanted(self) -> frozenset[Value]:
        """Every value that stands for something."""
        regions = {region.value for region in self.file.regions}
        return frozenset(regions | {each.value for each in self.labelled})


def read_masks(
    frames: Iterable[object],
    read: ReadBytes,
    labels: Mapping[str, Sequence[Labelled]],
    findings: Findings,
    *,
    image: str,
    background: str | None,
) -> tuple[list[Item], list[Callable[[], bytes]]]:
    """Return the masks of frames and what gives the bytes of their pictures.

    Parameters
    ----------
    frames : iterable
        Frames, as JSON has them.
    read : callable
        Gives the bytes of a picture for its URI.
    labels : mapping
        What the dataset version says of values.
    findings : Findings
        Gets faults, and what is lost.
    image, background
        As for `read_clearml`.
    """
    kept = KeptMaps(_KEPT)
    jobs = []
    for file in pixel_files(frames, image, findings):
        labelled = tuple(labels.get(file.id, labels.get(EVERY_MASK, ())))
        if file.regions or labelled:
            jobs.append(_Job(file, labelled, background))
        else:
            told = "masks without a label are left out; see labels= or from_clearml_alpha"
            findings.lose(told, file.where)
    items: list[Item] = []
    for start in range(0, len(jobs), _TOGETHER):
        some = jobs[start : start + _TOGETHER]
        for job, seen in zip(some, spread(partial(_look, read), some), strict=True):
            if isinstance(seen, _Seen):
                items += _masks_of(job, seen, partial(_decoded, kept, read, job), findings)
            else:
                findings.faults.append(seen)
    return items, [partial(read, job.file.uri) for job in jobs]


def _look(read: ReadBytes, job: _Job) -> _Seen | str:
    """Return what a picture has, or what is wrong with it."""
    try:
        picture = Picture.of(read(job.file.uri), job.wanted)
    except (ValueError, OSError, LookupError, TypeError) as error:
        return f"{job.file.where}: {job.file.uri!r:.200} {error}"
    height, width = picture.pixels.shape
    return _Seen((height, width), picture.values())


def _decoded(kept: KeptMaps, read: ReadBytes, job: _Job) -> Picture:
    """Return a picture, of those that are kept if it is one of them."""
    key = job.file.uri, job.wanted
    return Picture(kept.get(key, lambda: Picture.of(read(job.file.uri), job.wanted).pixels))


def _masks_of(
    job: _Job, seen: _Seen, decoded: Callable[[], Picture], findings: Findings
) -> list[Item]:
    """Return the masks of a picture, and note the values that stand for nothing."""
    items = []
    job.file.check_size(seen.size, findings)
    named = np.zeros(len(seen.values), np.bool_)
    for (value, noun), regions in _by_value(job, findings).items():
        try:
            record = _record(job.file.image, noun, regions)
        except ValueError as error:
            findings.faults.append(f"{job.file.where}, {noun!r:.80}: {error}")
            continue
        if len(regions) > 1:
            told = "regions of one noun that share a value in a mask come in as one mask"
            findings.lose(told, f"{job.file.where} {value}")
        items.append(Item(record, seen.size, partial(_mask, decoded, (value,))))
    for region in job.file.regions:
        named |= region.value.among(seen.values)
    for noun, values in _classes(job, seen.values[~named]).items():
        record = Record(image=job.file.image, noun=noun)
        items.append(Item(record, seen.size, partial(_mask, decoded, values)))
    for labelled in job.labelled:
        named |= labelled.value.among(seen.values)
    unnamed = seen.values[~named & (seen.values > 0)]
    # A photograph has a million of them.
    for number in unnamed[:_MOST_TOLD].tolist():
        value = Value(number, 0xFFFFFF)
        findings.lose(f"pixels of value {value}, which has no label, are left out", job.file.where)
    if len(unnamed) > _MOST_TOLD:
        told = "pixels of many more values, which have no label, are left out"
        findings.lose(told, job.file.where)
    return items


def _mask(decoded: Callable[[], Picture], values: Sequence[Value]) -> NDArray[np.uint8]:
    return decoded().where(values)


def _by_value(job: _Job, findings: Findings) -> dict[tuple[Value, str], list[Region]]:
    """Return the regions of a picture by value and noun: what pixels can tell apart."""
    found: dict[tuple[Value, str], list[Region]] = {}
    for region in job.file.regions:
        if not region.labels:
            findings.lose("regions without a label are left out", job.file.where)
        if _is_background(job, region.value, region.labels):
            continue
        for noun in region.labels:
            found.setdefault((region.value, noun), []).append(region)
    return found


def _classes(job: _Job, values: NDArray[np.uint32]) -> dict[str, tuple[Value, ...]]:
    """Return the values of each label of the version that is in a picture."""
    found: dict[str, tuple[Value, ...]] = {}
    for value, labels in job.labelled:
        if not value.among(values).any() or _is_background(job, value, labels):
            continue
        for label in labels:
            found[label] = (*found.get(label, ()), value)
    return found


def _is_background(job: _Job, value: Value, labels: Sequence[str]) -> bool:
    return not value.number and list(labels) == [job.background]


def _record(image: str, noun: str, regions: Sequence[Region]) -> Record:
    """Return the record of a mask; of several regions that of the first instance."""
    records = [Record.of(image, noun, {**each.meta, "score": each.score}) for each in regions]
    first = min(records, key=lambda each: -1 if each.instance is None else each.instance)
    if len(records) == 1:
        return first
    # A box of one is not that of all.
    return replace(first, box=(None, None, None, None))
