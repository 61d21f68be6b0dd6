"""Killed at any moment: the old store or the new one, and the same command goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crashes import (
    BROKEN,
    EPOCH,
    TARGET,
    Case,
    Fault,
    Forks,
    Place,
    Strike,
    fail_at_changes,
    strike_at_changes,
)
from reference import Source, write_source
from zarr.storage import MemoryStore

import maskcube

SHAPE = (6, 5)
OPERATIONS = ["convert", "overwrite"]
EVERY = pytest.param(True, id="every", marks=pytest.mark.slow)
SOME = pytest.param(False, id="some")


@pytest.fixture(autouse=True)
def _same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", EPOCH)
    # No kill loses what the system has already been given: the disk need not be waited for.
    monkeypatch.setattr("os.fsync", lambda _: None)


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    with Forks() as forks:
        yield forks


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return 70 masks: a shard and a bit."""
    return write_source(tmp_path_factory.mktemp("tiny"), n_masks=70, shape=SHAPE)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return other masks, for the store that is there before."""
    return write_source(tmp_path_factory.mktemp("other"), n_masks=130, shape=SHAPE, seed=7)


@pytest.fixture
def case_of(tiny: Source, other: Source) -> Callable[[str, Place], Case]:
    """Return what makes the case of an operation by its name."""
    convert = partial(maskcube.convert, tiny.folder, progress=False)
    begin = partial(maskcube.convert, other.folder, progress=False)
    operations: dict[str, tuple[Callable[[Any], object], Callable[[Any], object] | None]] = {
        "convert": (convert, None),
        "overwrite": (partial(convert, overwrite=True), begin),
    }

    def make(operation: str, whole: Place) -> Case:
        run, before = operations[operation]
        # Where nothing can be renamed, what is to be replaced is deleted first.
        replaced = operation == "overwrite" and isinstance(whole, MemoryStore)
        return Case(run, whole, before, always_open=not replaced)

    return make


class TestFolder:
    """Every change to the disk: a file opened, a folder made, something renamed or deleted."""

    @pytest.mark.parametrize("every", [SOME, EVERY])
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_killed(
        self, case_of: Any, forks: Forks, tmp_path: Path, operation: str, *, every: bool
    ) -> None:
        case = case_of(operation, tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.KILL, every=every)
        found.check(at_least=100 if every else 15)

    @pytest.mark.slow
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_killed_with_a_file_half_written(
        self, case_of: Any, forks: Forks, tmp_path: Path, operation: str
    ) -> None:
        case = case_of(operation, tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.TEAR, every=True)
        found.check(at_least=35)

    @pytest.mark.parametrize("every", [SOME, EVERY])
    def test_the_disk_is_gone(
        self, case_of: Any, forks: Forks, tmp_path: Path, *, every: bool
    ) -> None:
        """Nothing can be written any more, and nothing tidied either."""
        case = case_of("overwrite", tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.FAIL, every=every)
        found.check(at_least=100 if every else 15)

    @pytest.mark.slow
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_interrupted(self, case_of: Any, forks: Forks, tmp_path: Path, operation: str) -> None:
        case = case_of(operation, tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.INTERRUPT, every=True)
        found.check(at_least=100)


LOST = BROKEN._replace(kept=1.0)
"""A fault of which only the answer is one."""


class TestMemory:
    """Every put and every delete, where nothing can be renamed."""

    @pytest.mark.parametrize(("operation", "fault"), [("convert", BROKEN), ("overwrite", LOST)])
    def test_some_changes_fail(self, case_of: Any, operation: str, fault: Fault) -> None:
        case = case_of(operation, MemoryStore())
        fail_at_changes(case, fault, every=False).check(at_least=10)

    @pytest.mark.slow
    @pytest.mark.parametrize("fault", [BROKEN, LOST])
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_any_change_fails(self, case_of: Any, operation: str, fault: Fault) -> None:
        case = case_of(operation, MemoryStore())
        fail_at_changes(case, fault, every=True).check(at_least=40)
