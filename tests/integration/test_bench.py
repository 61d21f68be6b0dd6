"""The benchmark runs, and every peer that is installed gives our answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def figures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return what one repetition on six images writes as JSON."""
    work = tmp_path_factory.mktemp("bench")
    written = work / "figures.json"
    options = ["--images", "6", "--repetitions", "1", "--work", str(work), "--json", str(written)]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n### ") == 10
    found: dict[str, Any] = json.loads(written.read_text())
    return found


def test_figures_say_where_they_are_from(figures: dict[str, Any]) -> None:
    assert figures["cache"] == "warm"
    assert figures["data"]["n_masks"] > 64
    assert {"date", "n_cores", "memory_bytes", "processor", "python", "versions"} <= set(
        figures["machine"]
    )


def test_every_section_is_there(figures: dict[str, Any]) -> None:
    names = [section["name"] for section in figures["sections"]]
    asked = ["open", "cold", "get", "sel", "image", "noun", "scan"]
    assert names == [*asked, "convert-row", "convert-auto", "size"]


def test_every_answer_is_ours(figures: dict[str, Any]) -> None:
    for section in figures["sections"]:
        assert section["rows"][0]["kind"] == "ours"
        assert section["rows"][0]["ratio"] == 1
        for row in section["rows"]:
            assert row["agrees"] in {True, None}, (section["name"], row)
            assert row["status"] == "ok" or row["status"].startswith("not "), row
            if section["name"] != "size" and row["kind"] == "ours":
                assert row["agrees"]
                assert row["median_s"] > 0
