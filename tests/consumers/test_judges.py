"""The consumers that judge are those that are pinned, and none has spoiled another."""

from __future__ import annotations

import importlib
from importlib.metadata import distributions, version
from pathlib import Path

import pytest

PINS = Path(__file__).parents[2] / "constraints-consumers.txt"
JUDGES = {
    "clearml": "clearml",
    "datumaro": "datumaro",
    "faster-coco-eval": "faster_coco_eval",
    "lvis": "lvis",
    "ome-zarr": "ome_zarr",
    "scale-nucleus": "nucleus",
}


@pytest.mark.parametrize("name", JUDGES)
def test_a_judge_is_the_one_that_is_pinned(name: str) -> None:
    assert f"{name}=={version(name)}" in PINS.read_text().splitlines()
    assert importlib.import_module(JUDGES[name]).__name__ == JUDGES[name]


def test_only_one_build_of_opencv() -> None:
    """All builds write the same files; one with windows needs what a server does not have."""
    names = {distribution.name.lower() for distribution in distributions()}
    assert {name for name in names if name.startswith("opencv")} == {"opencv-python-headless"}
