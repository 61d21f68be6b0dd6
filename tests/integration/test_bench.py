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
QUICK = {"get": ["get", "sel"], "scan": ["scan"], "size": ["size"]}
SLOW = {
    "open": ["open", "cold"],
    "select": ["image", "noun"],
    "convert": ["convert-row", "convert-auto", "convert-all"],
    "cloud": [
        "cloud-open",
        "cloud-cold",
        "cloud-beside",
        "cloud-apart",
        "cloud-image",
        "cloud-noun",
        "cloud-columns",
        "cloud-scan",
        "cloud-convert",
    ],
}


@pytest.mark.parametrize("sections", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)])
def test_every_peer_gives_our_answer(sections: dict[str, list[str]], tmp_path: Path) -> None:
    figures = _figures(sections, tmp_path)
    assert figures["cache"] == "warm"
    assert figures["data"]["n_masks"] > 64
    assert {"date", "n_cores", "memory_bytes", "processor", "python", "versions"} <= set(
        figures["machine"]
    )
    found = [contest["name"] for contest in figures["contests"]]
    assert found == [name for names in sections.values() for name in names]
    for contest in figures["contests"]:
        assert (contest["rows"][0]["kind"], contest["rows"][0]["ratio"]) == ("ours", 1)
        for row in contest["rows"]:
            _check(row, timed=contest["name"] != "size")


def _check(row: dict[str, Any], *, timed: bool) -> None:
    if row["status"] != "ok":
        assert row["kind"] == "peer"
        assert row["status"].startswith(("not installed", "not possible: it reads no texts")), row
    elif timed:
        assert row["agrees"] is True or row["kind"] == "floor", row
        assert row["agrees"] is not False, row
        assert row["median_s"] > 0
        assert row["ratio"] > 0


def _figures(sections: dict[str, list[str]], work: Path) -> dict[str, Any]:
    """Return what one repetition on six images writes as JSON."""
    written = work / "figures.json"
    options = ["--images=6", "--repetitions=1", "--peer-masks=70", f"--work={work / 'work'}"]
    asked = [f"--sections={','.join(sections)}", f"--json={written}"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options, *asked],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS / 'support'}"},
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads(written.read_text())
    assert done.stdout.count("\n### ") == len(figures["contests"])
    return figures
