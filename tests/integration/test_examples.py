"""What the documentation shows is what happens: docstrings, the README, the pages of docs."""

from __future__ import annotations

import doctest
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from pages import blocks, script

import maskcube
from maskcube.insilico import sample_model

PACKAGE = Path(maskcube.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in {"__init__", "__main__"}
)


@pytest.fixture
def place(dataset: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a folder as the examples expect it: ``laion-fmri``, its store, and ``later``."""
    shutil.copytree(dataset, tmp_path / "laion-fmri")
    shutil.copytree(store, tmp_path / "masks.zarr")
    maskcube.sample_dataset(tmp_path / "later", n_images=2, first_image=24)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _examples(name: str) -> list[doctest.DocTest]:
    module = importlib.import_module(name)
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", ["maskcube", *(f"maskcube.{module}" for module in MODULES)])
@pytest.mark.usefixtures("place")
def test_docstring_examples(name: str) -> None:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    runner = doctest.DocTestRunner(optionflags=flags)
    for test in _examples(name):
        runner.run(test, clear_globs=False)
    assert runner.summarize(verbose=False).failed == 0


def test_there_are_examples() -> None:
    shown = {
        name
        for module in MODULES
        for test in _examples(f"maskcube.{module}")
        for name in [test.name]
    }
    verbs = ["conversion.convert", "growth.append", "reader.open_masks", "scan.runs"]
    assert {f"maskcube.{verb}" for verb in verbs} <= shown


def test_the_python_of_the_readme_runs(place: Path) -> None:
    """All blocks one after the other, as a reader would type them, warnings as errors."""
    _run("README.md", place)


def test_the_python_of_the_page_on_versions_runs(place: Path) -> None:
    _run("docs/versioned-and-virtual.md", place)


def test_the_python_of_the_page_on_formats_runs(place: Path) -> None:
    _run("docs/formats.md", place)


def test_the_python_of_the_page_on_in_silico_fmri_runs(place: Path) -> None:
    _run("docs/insilico.md", place)


def _run(page: str, place: Path) -> None:
    code = "\n".join(blocks(page, "python"))
    assert "maskcube" in code
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr


def test_the_shell_of_the_readme_runs(place: Path) -> None:
    commands = [line for block in blocks("README.md", "console") for line in block.splitlines()]
    ours = [line.removeprefix("$ ") for line in commands if line.startswith("$ maskcube ")]
    assert len(ours) >= 4
    (place / "masks.zarr").rename(place / "made-before.zarr")
    sample_model(place / "models.zarr")
    for line in dict.fromkeys(ours):
        command = line.replace("maskcube", f"{sys.executable} -m maskcube", 1)
        done = subprocess.run(
            ["/bin/sh", "-c", command], capture_output=True, text=True, check=False, cwd=place
        )
        assert done.returncode == 0, (line, done.stderr)


def test_the_local_cluster_of_its_page_runs(place: Path) -> None:
    """As a script, because its processes import that; warnings as errors."""
    opening, work, same = (
        "\n".join(blocks("docs/cluster.md", "python", section=section))
        for section in ("This machine", "The work", "What must be the same")
    )
    assert "LocalCluster(" in opening
    assert "client=client" in work
    assert "client.run(" in same
    path = place / "on_a_cluster.py"
    path.write_text(script(opening, work, same, "client.close()", "cluster.close()"))
    done = subprocess.run(
        [sys.executable, "-W", "error", path],
        capture_output=True,
        text=True,
        check=False,
        cwd=place,
    )
    assert done.returncode == 0, done.stderr
    assert maskcube.verify(place / "again.zarr", place / "laion-fmri").n_masks > 0
