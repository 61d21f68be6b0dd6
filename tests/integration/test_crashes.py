"""Killed at any moment: the old store or the new one, and the same command goes on."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from crashes import TARGET, Case, Place, fail_at_changes, signalled, strike_at_changes
from faults import BROKEN, Fault
from forks import EPOCH, Forks, Strike, attempt, crash, flushes
from reference import Source, write_source
from zarr.storage import MemoryStore

import maskcube

SHAPE = (6, 5)
OPERATIONS = ["convert", "overwrite", "append", "update"]
LONG = [pytest.mark.slow, pytest.mark.timeout(900)]  # also where others keep the machine busy
EVERY = pytest.param(True, id="every", marks=LONG)
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


@pytest.fixture(scope="module")
def later(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return masks of other images, to append: the last shard is filled, another one begins."""

    def rename(table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(image_name="later_" + table["image_name"])

    folder = tmp_path_factory.mktemp("later")
    return write_source(folder, n_masks=70, shape=SHAPE, seed=8, change=rename)


@pytest.fixture
def case_of(tiny: Source, other: Source, later: Source) -> Callable[[str, Place], Case]:
    """Return what makes the case of an operation by its name."""
    convert = partial(maskcube.convert, tiny.folder, progress=False)
    begin = partial(maskcube.convert, other.folder, progress=False)
    corrected = other.by_row.iloc[129]
    operations: dict[str, tuple[Callable[[Any], object], Callable[[Any], object] | None]] = {
        "convert": (convert, None),
        "overwrite": (partial(convert, overwrite=True), begin),
        "append": (partial(maskcube.append, later.folder, progress=False), begin),
        "update": (
            partial(
                maskcube.update,
                image=corrected["image_name"],
                noun=corrected["noun"],
                instance=int(corrected["instance_id"]),
                mask=1 - other.masks[129],
            ),
            begin,
        ),
    }

    def make(operation: str, whole: Place) -> Case:
        run, before = operations[operation]
        # Where nothing can be renamed there may be no store for a while.
        return Case(run, whole, before, always_open=isinstance(whole, Path))

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
        found.check(at_least=60 if every else 10)

    @pytest.mark.slow
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_killed_twice(self, case_of: Any, forks: Forks, tmp_path: Path, operation: str) -> None:
        case = case_of(operation, tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.KILL, every=False, again=1)
        found.check(at_least=10)

    @pytest.mark.slow
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_killed_with_a_file_half_written(
        self, case_of: Any, forks: Forks, tmp_path: Path, operation: str
    ) -> None:
        case = case_of(operation, tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.TEAR, every=True)
        found.check(at_least=10)

    @pytest.mark.slow
    @pytest.mark.timeout(900)
    def test_the_disk_is_gone(self, case_of: Any, forks: Forks, tmp_path: Path) -> None:
        """Nothing can be written any more, and nothing tidied either."""
        case = case_of("overwrite", tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.FAIL, every=True)
        found.check(at_least=60)

    @pytest.mark.slow
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_interrupted(self, case_of: Any, forks: Forks, tmp_path: Path, operation: str) -> None:
        case = case_of(operation, tmp_path / "whole" / TARGET)
        found = strike_at_changes(case, forks, tmp_path, Strike.INTERRUPT, every=False)
        found.check(at_least=10)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_everything_reaches_the_disk_before_the_commit(
    case_of: Any, forks: Forks, tmp_path: Path, operation: str
) -> None:
    """The order that a loss of power needs: files, the folders that name them, the commit."""
    case = case_of(operation, tmp_path / "whole" / TARGET)
    target = case.begin(tmp_path / "recorded" / TARGET)
    log = forks.run(partial(flushes, case.run, target)).result
    commit = max(
        at
        for at, (what, *paths) in enumerate(log)
        if what in {"os.rename", "maskcube.exchange"} and str(target) in paths[:2]
    )
    built = next(path for path in log[commit][1:] if path != str(target))
    before, after = log[:commit], log[commit:]
    n_files = 0
    for at, (what, *paths) in enumerate(before):
        if what == "os.rename" and ("open", paths[0]) in before[:at]:
            assert ("fsync", paths[0]) in before[:at], paths
            n_files += 1
        if what in {"os.rename", "os.link", "os.mkdir"}:
            folder = str(Path(paths[-1]).parent)
            if f"{folder}/".startswith(f"{built}/") and "_maskcube" not in paths[-1]:
                assert ("fsync", folder) in before[at:], paths
    assert n_files > 3
    assert ("fsync", str(target.parent)) in after


LOST = BROKEN._replace(kept=1.0)
"""A fault of which only the answer is one."""


class TestMemory:
    """Every put and every delete, where nothing can be renamed."""

    @pytest.mark.parametrize(
        ("operation", "fault"),
        [("convert", BROKEN), ("overwrite", LOST), ("append", BROKEN), ("update", LOST)],
    )
    def test_some_changes_fail(self, case_of: Any, operation: str, fault: Fault) -> None:
        case = case_of(operation, MemoryStore())
        fail_at_changes(case, fault, every=False).check(at_least=8)

    @pytest.mark.slow
    @pytest.mark.parametrize("fault", [BROKEN, LOST])
    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_any_change_fails(self, case_of: Any, operation: str, fault: Fault) -> None:
        case = case_of(operation, MemoryStore())
        fail_at_changes(case, fault, every=True).check(at_least=20)


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return 400 masks of noise, which take most of a second to encode."""
    folder = tmp_path_factory.mktemp("noise")
    return write_source(folder, n_masks=400, shape=(150, 150), chunks=(1, 150, 150))


@pytest.fixture(scope="module")
def long(noise: Source, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """Return the case of a conversion that takes long enough for a signal."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        run = partial(maskcube.convert, noise.folder, progress=False)
        return Case(run, tmp_path_factory.mktemp("whole") / "long" / TARGET)


class TestProcess:
    """Real commands, killed at random moments."""

    @pytest.mark.parametrize("n_kills", [3, pytest.param(20, marks=LONG)])
    def test_killed(
        self, noise: Source, long: Case, tmp_path: Path, rng: np.random.Generator, n_kills: int
    ) -> None:
        killed = 0
        for run in range(3 * n_kills):
            target = long.begin(tmp_path / str(run) / TARGET)
            delay = float(rng.uniform(0, long.seconds))
            ended = signalled(noise.folder, target, signal.SIGKILL, delay)
            killed += ended.code == -signal.SIGKILL
            long.check(target, f"killed {delay:.3f} s after its first shard")
            if killed == n_kills:
                break
        assert killed == n_kills, "too few kills came in time"

    def test_terminated(self, noise: Source, long: Case, tmp_path: Path) -> None:
        target = long.begin(tmp_path / "terminated" / TARGET)
        ended = signalled(noise.folder, target, signal.SIGTERM, 0)
        assert ended.code != 0, ended.stderr
        assert "Traceback" not in ended.stderr
        with pytest.raises(maskcube.IncompleteStore, match="run the same conversion again"):
            maskcube.open_masks(target)
        long.check(target, "terminated")

    def test_interrupted(self, noise: Source, long: Case, tmp_path: Path) -> None:
        for turn in range(5):
            target = long.begin(tmp_path / f"interrupted-{turn}" / TARGET)
            ended = signalled(noise.folder, target, signal.SIGINT, 0)
            # Python drops an interrupt that comes while a weak reference is called back.
            if "Exception ignored in" not in ended.stderr:
                break
        assert ended.code == 1, ended.stderr
        assert ended.stderr.startswith("Error: interrupted; run the same command again to resume")
        assert len(ended.stderr.splitlines()) == 1
        # Generous: a machine may be busy.
        assert ended.seconds < 10
        with pytest.raises(maskcube.IncompleteStore, match="run the same conversion again"):
            maskcube.open_masks(target)
        long.check(target, "interrupted")


def wait_until_stopped(process: int) -> None:
    deadline = time.monotonic() + 60
    while Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline
        time.sleep(0.002)


class TestTwo:
    """Two processes on one target."""

    @pytest.mark.parametrize("operation", OPERATIONS)
    def test_the_second_refuses(
        self, case_of: Any, forks: Forks, tmp_path: Path, operation: str
    ) -> None:
        """The first one is stopped at some change, the second one comes, the first one goes on."""
        case = case_of(operation, tmp_path / "whole" / TARGET)
        counted = case.begin(tmp_path / "counted" / TARGET)
        changes = forks.run(partial(crash, case.run, counted, 0, Strike.STOP)).result.changes
        # Whoever is stopped as it is about to move the store into place still has it.
        commit = max(
            at for at, paths in enumerate(changes, start=1) if TARGET in paths and len(paths) == 2
        )
        for at in (3, commit // 4, commit // 2, commit):
            target = case.begin(tmp_path / str(at) / TARGET)
            process = forks.start(partial(crash, case.run, target, at, Strike.STOP))
            try:
                wait_until_stopped(process)
                with pytest.raises(maskcube.StoreExists, match=f"process.*{process}"):
                    case.run(target)
            finally:
                os.kill(process, signal.SIGCONT)
                ended = forks.wait()
            assert ended.result.error is None
            case.check_finished(target, f"stopped at change {at}")

    def test_at_the_same_time(
        self, case_of: Any, forks: Forks, tmp_path: Path, rng: np.random.Generator
    ) -> None:
        case = case_of("convert", tmp_path / "whole" / TARGET)
        with Forks() as others:
            for turn in range(20):
                target = case.begin(tmp_path / str(turn) / TARGET)
                start = time.monotonic() + 0.03
                starts = (start, start + rng.uniform(0, 0.02) * (turn % 2))
                for each, begin in zip((forks, others), starts, strict=True):
                    each.start(partial(attempt, case.run, target, begin))
                told = [each.wait().result for each in (forks, others)]
                assert told.count(None) == 1, told
                assert any(error and error.startswith("StoreExists: ") for error in told), told
                case.check_finished(target, f"turn {turn}: {told}")
