"""Which tests are collected where: those of consumers are never skipped, and never by accident."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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


def test_consumers_are_not_collected_by_accident() -> None:
    folders = {path.parent.name for path in ROOT.glob("tests/*/test_*.py")}
    assert "consumers" in folders
    ignored = [f"--ignore=tests/{name}" for name in folders - {"consumers"}]
    done = _collect("tests", *ignored, without="nucleus")
    assert done.returncode == 5, done.stderr


def test_without_one_of_them_they_fail_and_say_what_to_do() -> None:
    done = _collect("tests/consumers", without="nucleus")
    assert done.returncode == 4
    assert "tests/consumers needs " in done.stderr
    assert "nucleus" in done.stderr
    assert "scripts/test tests/consumers" in done.stderr
