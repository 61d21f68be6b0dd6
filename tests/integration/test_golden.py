"""Stores written by earlier versions stay readable for ever."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from reference import read_table

import maskcube
from maskcube.codec import checksum
from maskcube.manifest import FORMAT_VERSION

DATA = Path(__file__).parents[1] / "data"
AREAS = {1: 19_078}
"""Pixels in all masks together, by format version."""


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_a_golden_store_is_readable(version: int) -> None:
    path = DATA / f"format-{version}.zarr"
    table = read_table(path.with_suffix(".csv"))
    masks = maskcube.open_masks(path)
    assert maskcube.info(path).format_version == version
    assert maskcube.verify(path).n_masks == len(table)
    assert masks.shape == (len(table), 48, 40)
    assert masks.image.values.tolist() == table["image_name"].tolist()
    assert masks.noun.values.tolist() == table["noun"].tolist()
    np.testing.assert_array_equal(masks.score, table["score"])
    assert int(masks.sum()) == AREAS[version]
    fingers = masks.sel(image="shared_12rep_LAION_cluster_1003_i0.jpg", noun="fingers", instance=0)
    assert checksum(fingers.values) == int(fingers.crc32c)


def test_every_format_version_has_a_golden_store() -> None:
    found = {path.name for path in DATA.glob("format-*.zarr")}
    assert found == {f"format-{version}.zarr" for version in range(1, FORMAT_VERSION + 1)}
