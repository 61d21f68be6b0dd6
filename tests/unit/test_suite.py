"""Which tests are collected where: those beside others' libraries only where these are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def _collect(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    """Collect in a process of its own, which cannot import `without`."""
    code = f"""
import sys, pytest
if {without!r}:
    sys.modules[{without!r}] = None
sys.exit(pytest.main(["--collect-only", "-q", "-p", "no:cacheprovider", *sys.argv[1:]]))
"""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("folder", ["consumers", "with_torch"])
def test_they_are_not_collected_by_accident(folder: str) -> None:
    folders = {path.parent.name for path in ROOT.glob("tests/*/test_*.py")}
    assert folder in folders
    ignored = [f"--ignore=tests/{name}" for name in folders - {folder}]
    done = _collect("tests", *ignored, without="nucleus")
    assert done.returncode == 5, done.stderr


@pytest.mark.parametrize(
    ("folder", "library", "run"),
    [
        ("consumers", "nucleus", "scripts/test tests/consumers"),
        ("with_torch", "torch", "scripts/test --torch"),
    ],
)
def test_without_one_of_them_they_fail_and_say_what_to_do(
    folder: str, library: str, run: str
) -> None:
    done = _collect(f"tests/{folder}", without=library)
    assert done.returncode == 4
    assert f"tests/{folder} needs " in done.stderr
    assert library in done.stderr
    assert run in done.stderr
