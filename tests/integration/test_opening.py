"""What opening reads, and what is read only when it is used."""

from __future__ import annotations

import asyncio
import copy
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from reference import Source
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import LocalStore, WrapperStore

import maskcube
from maskcube.objects import Folder

LAZY = [
    "score",
    "box_x0",
    "box_y0",
    "box_x1",
    "box_y1",
    "localized",
    "mask_file",
    "mask_row",
    "area",
    "crc32c",
]
INDEX = ["zarr.json", "image/c/0", "noun/c/0", "instance/c/0"]


class Reads(list[str]):
    """Keys of the objects that were read, and how many bytes that were."""

    n_bytes = 0


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    seen = Reads()
    get = Folder.get

    def counted(self: Folder, key: str, start: int = 0, length: int | None = None) -> bytes | None:
        data = get(self, key, start, length)
        seen.append(key)
        seen.n_bytes += len(data or b"")
        return data

    monkeypatch.setattr(Folder, "get", counted)
    return seen


@pytest.mark.parametrize("chunks", [None, "auto"])
def test_opening_reads_what_the_index_needs(small_store: Path, reads: Reads, chunks: Any) -> None:
    masks = maskcube.open_masks(small_store, chunks=chunks)
    assert reads == INDEX
    assert reads.n_bytes == sum((small_store / key).stat().st_size for key in INDEX)
    assert "mask_file" in repr(masks)
    assert "nan" in xr.core.formatting_html.array_repr(masks)
    masks.sel(noun="hand", instance=[0, 1]).isel(mask=slice(3))
    assert masks.noun.values[0] == masks.xindexes["noun"].columns[1].array[0]  # type: ignore[attr-defined]
    assert reads == INDEX


class Counting(WrapperStore[LocalStore]):
    """A store that tells how many requests were under way at once."""

    under_way = most = n_requests = 0

    async def get(
        self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        self.n_requests += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.05)
        self.under_way -= 1
        return await super().get(key, prototype, byte_range)


def test_elsewhere_the_labels_are_asked_for_at_once(small_store: Path, small: Source) -> None:
    place = Counting(LocalStore(small_store, read_only=True))
    masks = maskcube.open_masks(place, chunks=None)
    # The root, and the labels of all masks in one object.
    assert (place.n_requests, place.most) == (2, 2)
    assert masks.noun.values.tolist() == small.by_row["noun"].tolist()


def test_a_lookup_reads_what_the_labels_need(small_store: Path, reads: Reads) -> None:
    segmentations = maskcube.Segmentations(small_store)
    image = segmentations.images()[0]
    segmentations.find(image, segmentations.nouns(image, localized_only=False)[0])
    assert reads == INDEX


@pytest.mark.parametrize("name", LAZY)
def test_a_coordinate_is_read_once(small_store: Path, reads: Reads, name: str) -> None:
    masks = maskcube.open_masks(small_store, chunks=None)
    assert not masks[name].variable._in_memory  # noqa: SLF001 - it is what the test is about
    del reads[:]
    one = masks.sel(noun="hand")[name].values
    again = masks.isel(mask=[3, 1, 4])[name].values
    assert masks[name].values[[3, 1, 4]].tolist() == again.tolist()
    assert len(one)
    assert reads == [f"{name}/c/0"]


def test_coordinates_are_those_of_the_source(small_store: Path, small: Source) -> None:
    masks = maskcube.open_masks(small_store, chunks=None)
    assert list(masks.coords) == ["image", "noun", "instance", *LAZY]
    for name in LAZY[:-2]:
        np.testing.assert_array_equal(masks[name], small.by_row[name])
    assert masks.mask_file.dtype == object
    assert masks.noun.dtype == np.dtypes.StringDType()


def _selected(masks: xr.DataArray) -> xr.DataArray:
    return masks[masks.score > 0.5]


USES: list[Callable[[xr.DataArray], xr.DataArray]] = [
    _selected,
    lambda masks: masks.isel(mask=slice(None, None, -1)).sel(instance=0),
    lambda masks: xr.concat([masks[:9], masks[100:]], "mask"),
    lambda masks: xr.align(masks[:20], masks[10:40], join="outer")[0],
    lambda masks: masks.where(masks.localized == 1, drop=True),
    lambda masks: masks.sortby("area"),
    lambda masks: masks.roll(mask=3, roll_coords=True),
    lambda masks: masks.isel(mask=xr.DataArray([3, 1], dims="point")),
    lambda masks: masks.assign_coords(score=masks.score * 2).set_xindex("score"),
    lambda masks: masks.swap_dims(mask="mask_row"),
    copy.deepcopy,
    lambda masks: pickle.loads(pickle.dumps(masks)),  # noqa: S301 - our own bytes
]


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("chunks", [None, "auto"])
def test_lazy_coordinates_are_as_those_in_memory(
    small_store: Path, use: Callable[[xr.DataArray], xr.DataArray], chunks: Any
) -> None:
    masks = maskcube.open_masks(small_store, chunks=chunks)
    xr.testing.assert_identical(use(masks), use(masks.copy().load()))


def test_a_change_stays_where_it_was_made(small_store: Path) -> None:
    masks = maskcube.open_masks(small_store, chunks=None)
    selected = masks[:5]
    selected.score[0] = 7
    assert float(selected.score[0]) == 7
    selected.area.values[1] = 8
    assert int(selected.area[1]) == 8
    assert float(masks.score[0]) != 7
    assert int(masks.area[1]) != 8
    with pytest.raises(ValueError, match="read-only"):
        masks.noun[0] = "hnad"
    with pytest.raises(ValueError, match="read-only"):
        masks.noun.values[0] = "hnad"


def test_a_pickle_holds_no_coordinates_that_were_not_asked_for(small_store: Path) -> None:
    masks = maskcube.open_masks(small_store, chunks=None)
    before = len(pickle.dumps(masks))
    _ = masks[:3].mask_file.values
    assert len(pickle.dumps(masks)) == before


def test_threads_share_a_coordinate(small_store: Path, small: Source) -> None:
    masks = maskcube.open_masks(small_store, chunks=None)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda row: masks.mask_file[row].item(), range(150)))
    assert found == small.by_row["mask_file"].tolist()


def test_records_are_the_rows_of_the_table(small_store: Path, small: Source) -> None:
    for place in (small_store, small.folder):
        segmentations = maskcube.Segmentations(place)
        table = segmentations.metadata.set_index("mask_row", drop=False)
        for row in (0, 7, 149, -1):
            record = segmentations.record(row)
            expected = table.loc[row % 150].to_dict()
            assert list(record) == list(expected)
            np.testing.assert_equal(record, expected)
            assert {type(value) for value in record.values()} <= {str, int, float}
            keys = (record["image_name"], record["noun"], record["instance_id"])
            assert segmentations.find(*keys) == row % 150
        with pytest.raises(maskcube.RowNotFound, match="mask_row=150 is outside"):
            segmentations.record(150)
        for strange in (None, 3, ["hand"], float("nan")):
            with pytest.raises(maskcube.LabelNotFound):
                segmentations.find(*keys[:1], strange)  # type: ignore[arg-type]
            assert not segmentations.has_image(strange)  # type: ignore[arg-type]
