"""What an export has written, and what of each mask can be seen in it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from maskcube.errors import listed
from maskcube.formats.images import ImageMasks
from maskcube.formats.output import REPORT
from maskcube.paths import folder_path

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ExportReport", "ExportedMask", "Tally"]

_LISTED = 3


class ExportedMask(NamedTuple):
    """What of a mask an export shows."""

    mask_row: int | None
    image: str
    noun: str
    instance: int | None
    area: int
    """Pixels of the mask."""
    visible: int
    """Pixels of it that the export shows."""
    dropped: bool
    """Whether the export has nothing of it."""

    def __str__(self) -> str:
        return f"{self.noun} {self.instance} of {self.image}"


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What an export has written, and what of each mask can be seen in it."""

    format: str
    location: str
    """The file or folder that was written."""
    overlap: str | None
    """The rule for overlapping masks; None in a format where nothing hides anything."""
    n_images: int
    n_files: int
    size_bytes: int
    """Size of all files."""
    seconds: float
    """Wall time."""
    masks: tuple[ExportedMask, ...] = field(repr=False)
    """One for each mask, in the order of the images."""

    @property
    def n_masks(self) -> int:
        """How many masks were to be exported."""
        return len(self.masks)

    @property
    def changed(self) -> list[ExportedMask]:
        """The masks that the export does not show as they are, the dropped ones among them."""
        return [mask for mask in self.masks if mask.dropped or mask.visible != mask.area]

    @property
    def dropped(self) -> list[ExportedMask]:
        """The masks of which the export has nothing."""
        return [mask for mask in self.masks if mask.dropped]

    def to_dataframe(self) -> pd.DataFrame:
        """Return the masks as a table."""
        import pandas as pd

        return pd.DataFrame(self.masks, columns=ExportedMask._fields)

    def to_json(self) -> dict[str, Any]:
        """Return the same as plain JSON types."""
        return {
            "format": self.format,
            "location": self.location,
            "overlap": self.overlap,
            "n_images": self.n_images,
            "n_masks": self.n_masks,
            "n_changed": len(self.changed),
            "n_dropped": len(self.dropped),
            "area": sum(mask.area for mask in self.masks),
            "visible": sum(mask.visible for mask in self.masks),
            "n_files": self.n_files,
            "size_bytes": self.size_bytes,
            "seconds": self.seconds,
            "masks": [mask._asdict() for mask in self.masks],
        }

    def __str__(self) -> str:
        files = "1 file" if self.n_files == 1 else f"{self.n_files:,} files"
        return (
            f"{self.location}: {self.n_masks:,} masks of {self.n_images:,} images as"
            f" {self.format}, {self.size_bytes / 1e6:,.1f} MB in {files}; {self._loss()};"
            f" {self.seconds:.1f} s"
        )

    def _loss(self) -> str:
        rule = f" by overlap={self.overlap!r}" if self.overlap else ""
        if not self.changed:
            return f"every pixel of every mask is there{rule}"
        area = sum(mask.area for mask in self.masks)
        differing = sum(abs(mask.area - mask.visible) for mask in self.masks)
        told = (
            f"{len(self.changed):,} masks are not shown as they are{rule}, {differing:,} of"
            f" {area:,} pixels ({differing / max(area, 1):.2%})"
        )
        if self.dropped:
            named = listed(map(str, self.dropped), limit=_LISTED)
            told += f"; {len(self.dropped):,} left out: {named}"
        return told


class Tally:
    """Counts what an export shows while it is written.

    Parameters
    ----------
    format : str
        The format's name.
    location : str
        Where the export will be.
    overlap : str, optional
        The rule for overlapping masks; None where nothing hides anything.
    """

    def __init__(self, format: str, location: str | Path, overlap: str | None = None) -> None:  # noqa: A002 - the report's word
        self._started = time.monotonic()
        self._format = format
        self._location = str(folder_path(location) or location)
        self._overlap = overlap
        self._masks: list[ExportedMask] = []
        self._n_images = 0

    def add(
        self,
        masks: ImageMasks,
        visible: NDArray[np.integer[Any]] | None = None,
        dropped: Sequence[bool] | None = None,
    ) -> None:
        """Count the masks of an image.

        Parameters
        ----------
        masks : ImageMasks
            The masks.
        visible : numpy.ndarray, optional
            (mask,): pixels of each that the export shows; all by default.
        dropped : sequence of bool, optional
            Whether the export has nothing of a mask; by default where no pixel is shown by a format
            that shows pixels in maps, and never where nothing hides anything.
        """
        areas = masks.areas.tolist()
        shown = areas if visible is None else visible.tolist()
        gone = [self._overlap is not None and not n for n in shown] if dropped is None else dropped
        self._n_images += 1
        for record, area, n_shown, is_gone in zip(masks.records, areas, shown, gone, strict=True):
            self._masks.append(
                ExportedMask(
                    record.mask_row,
                    record.image,
                    record.noun,
                    record.instance,
                    area,
                    n_shown,
                    bool(is_gone),
                )
            )

    def report(self, written: Path) -> ExportReport:
        """Return the report; in a folder it is saved too.

        Parameters
        ----------
        written : pathlib.Path
            The file, or the folder as it is filled.
        """
        files = [written] if written.is_file() else [p for p in written.rglob("*") if p.is_file()]
        report = ExportReport(
            format=self._format,
            location=self._location,
            overlap=self._overlap,
            n_images=self._n_images,
            n_files=len(files),
            size_bytes=sum(path.stat().st_size for path in files),
            seconds=time.monotonic() - self._started,
            masks=tuple(self._masks),
        )
        if written.is_dir():
            (written / REPORT).write_text(json.dumps(report.to_json(), indent=1))
        return report
