"""The pictures of an image's masks for ClearML, and the frame that tells of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.formats.clearml_frames import MASKS, SOURCE, MaskFile, Places, new_frame, object_ids
from maskcube.formats.clearml_palette import Palette
from maskcube.formats.images import ImageMasks
from maskcube.formats.overlap import LabelMaps, label_maps
from maskcube.formats.png import encode

__all__ = ["Drawing", "Drawn", "draw"]


class Drawing(NamedTuple):
    """What holds for every image of an export."""

    folder: Path
    overlap: str
    min_visible: float
    places: Places
    mask_id: str
    palette: Palette


class Drawn(NamedTuple):
    """What was drawn of an image."""

    masks: ImageMasks
    frame: dict[str, Any]
    visible: NDArray[np.int64]
    dropped: list[bool]


def draw(drawing: Drawing, stems: Mapping[str, str], masks: ImageMasks) -> Drawn:
    """Write the PNGs of an image and return its frame."""
    nouns = [record.noun for record in masks.records]
    several = drawing.overlap == "layers"
    found = label_maps(
        masks,
        drawing.overlap,
        min_visible=drawing.min_visible,
        groups=None if several else nouns,
        apart=nouns if several else None,
    )
    files = _files(drawing, stems[masks.image], len(found.maps))
    numbers = drawing.palette.numbers(nouns)
    for file, label_map in zip(files, found.maps, strict=True):
        picture = encode(drawing.palette.paint(label_map, numbers))
        (drawing.folder / MASKS / file.file).write_bytes(picture)
    # Of maps that hide nothing an empty mask is not hidden.
    dropped = [not several and not n for n in found.visible.tolist()]
    rois = _rois(drawing, masks, files, found, dropped)
    frame = new_frame(masks.image, masks.shape, files, drawing.places, rois=rois)
    return Drawn(masks, frame, found.visible, dropped)


def _files(drawing: Drawing, stem: str, n_maps: int) -> list[MaskFile]:
    """Return the PNGs of an image."""
    digits = max(2, len(str(n_maps - 1)))
    numbers = [f"{number:0{digits}d}" for number in range(n_maps)]
    ids = [drawing.mask_id.format(number=number) for number in numbers]
    if drawing.overlap != "layers":
        return [MaskFile(ids[0], f"{stem}.png")]
    pairs = zip(ids, numbers, strict=True)
    return [MaskFile(mask_id, f"{stem}.{number}.png") for mask_id, number in pairs]


def _rois(
    drawing: Drawing,
    masks: ImageMasks,
    files: Sequence[MaskFile],
    found: LabelMaps,
    dropped: Sequence[bool],
) -> list[dict[str, Any]]:
    """Return a region of interest for each mask of which something is there."""
    numbers = drawing.palette.numbers(record.noun for record in masks.records)
    rois = []
    for position, roi_id in enumerate(object_ids(masks.records)):
        if dropped[position]:
            continue
        record, layer = masks.records[position], int(found.layer[position])
        area, visible = int(masks.areas[position]), int(found.visible[position])
        value = list(drawing.palette.colour(numbers[position]))
        rois.append(
            {
                "id": roi_id,
                "label": [record.noun],
                **({} if record.score is None else {"confidence": record.score}),
                "sources": [SOURCE],
                "mask": {"id": files[layer].id, "value": value},
                "meta": {**record.properties(), "area": area, "visible": visible},
            }
        )
    return rois
