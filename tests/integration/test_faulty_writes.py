"""Disks that are full, read-only or lie: one clear error, and the same command goes on."""

from __future__ import annotations

import errno
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from crashes import TARGET, Case, command, fail_at_changes
from faults import BROKEN, Fault
from forks import EPOCH
from reference import Source, write_source
from zarr.storage import MemoryStore

import maskcube

Run = Callable[[Any], object]


@pytest.fixture(autouse=True, scope="module")
def _same_bytes() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", EPOCH)
        yield


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return 200 masks whose store takes about 500 kB of a disk."""
    return write_source(tmp_path_factory.mktemp("noise"), n_masks=200, shape=(60, 60))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Return 70 masks: a shard and a bit."""
    return write_source(tmp_path_factory.mktemp("tiny"), n_masks=70, shape=(6, 5))


@pytest.fixture(scope="module")
def convert(noise: Source) -> Run:
    return partial(maskcube.convert, noise.folder, progress=False)


@pytest.fixture(scope="module")
def case(convert: Run, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(convert, tmp_path_factory.mktemp("whole") / "disk" / TARGET)


class Disk:
    """A small disk in memory; making one takes the rights of root."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.target = folder / TARGET

    def mount(self, options: str) -> None:
        """Mount it, or mount it again with other options."""
        program = shutil.which("mount")
        assert program is not None, "this test needs the program mount"
        done = subprocess.run(
            [program, "-t", "tmpfs", "-o", options, "tmpfs", str(self.folder)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"this test needs the right to mount: {done.stderr}"

    def unmount(self) -> None:
        program = shutil.which("umount")
        assert program is not None
        subprocess.run([program, str(self.folder)], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    disk.mount("size=16m")
    try:
        yield disk
    finally:
        disk.unmount()


# Slow only in that they need root, which CI is and who runs the tests may not be.
NEEDS_ROOT = pytest.mark.slow


@NEEDS_ROOT
class TestFullDisk:
    @pytest.mark.parametrize("size", ["8k", "60k", "250k", "330k", "400k", "450k"])
    def test_a_new_store(self, convert: Run, case: Case, disk: Disk, size: str) -> None:
        disk.mount(f"remount,size={size}")
        with pytest.raises(OSError, match="No space left on device") as caught:
            convert(disk.target)
        assert caught.value.errno == errno.ENOSPC
        assert not disk.target.exists()
        disk.mount("remount,size=4m")
        case.check(disk.target, f"a disk of {size}")

    @pytest.mark.parametrize("room", ["40k", "330k"])
    def test_the_old_store_stays(
        self, noise: Source, tmp_path: Path, disk: Disk, room: str
    ) -> None:
        other = write_source(tmp_path / "other", n_masks=70, shape=(60, 60), seed=2)
        case = Case(
            partial(maskcube.convert, noise.folder, progress=False, overwrite=True),
            tmp_path / "whole" / TARGET,
            partial(maskcube.convert, other.folder, progress=False),
        )
        case.begin(disk.target)
        used = shutil.disk_usage(disk.folder).used
        disk.mount(f"remount,size={used + int(room[:-1]) * 1024}")
        with pytest.raises(OSError, match="No space left on device"):
            case.run(disk.target)
        assert case.found(disk.target) == case.old
        disk.mount("remount,size=4m")
        case.check(disk.target, f"room of {room}")

    @pytest.mark.parametrize("n_inodes", [2, 3, 12, 60])
    def test_no_more_files(self, convert: Run, case: Case, disk: Disk, n_inodes: int) -> None:
        disk.mount(f"remount,nr_inodes={n_inodes}")
        with pytest.raises(OSError, match="No space left on device"):
            convert(disk.target)
        assert not disk.target.exists()
        disk.mount("remount,nr_inodes=1000")
        case.check(disk.target, f"room for {n_inodes} files and folders")

    def test_what_the_command_says(self, noise: Source, case: Case, disk: Disk) -> None:
        disk.mount("remount,size=200k")
        line = command(noise.folder, disk.target)
        done = subprocess.run(line, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1
        for said in ("No space left on device", str(disk.target), "run the same"):
            assert said in done.stderr
        disk.mount("remount,size=4m")
        assert subprocess.run(line, check=False).returncode == 0
        case.check_finished(disk.target, "the same command")


@NEEDS_ROOT
def test_a_read_only_disk(convert: Run, noise: Source, case: Case, disk: Disk) -> None:
    disk.mount("remount,ro")
    with pytest.raises(OSError, match="Read-only file system"):
        convert(disk.target)
    line = command(noise.folder, disk.target)
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Read-only file system" in done.stderr
    assert str(disk.folder) in done.stderr
    disk.mount("remount,rw")
    case.check(disk.target, "a read-only disk")


SHORT = Fault(None, 0.5)
TORN = BROKEN._replace(kept=0.5)


class TestFaultyStore:
    """Every n-th put or delete of a store in memory, or of any other place without a rename."""

    def case(self, source: Source, fault: Fault) -> Case:
        run = partial(maskcube.convert, source.folder, progress=False)
        return Case(run, MemoryStore(), breaks=fault.kept is not None)

    @pytest.mark.parametrize("fault", [SHORT, TORN], ids=["nothing said", "an error"])
    def test_a_put_is_cut_short(self, tiny: Source, fault: Fault) -> None:
        fail_at_changes(self.case(tiny, fault), fault, every=False).check(at_least=8)

    @pytest.mark.slow
    @pytest.mark.parametrize("fault", [SHORT, Fault(None, 0.0), TORN, Fault(errno.ENOSPC)], ids=str)
    def test_any_put_fails(self, tiny: Source, fault: Fault) -> None:
        fail_at_changes(self.case(tiny, fault), fault, every=True).check(at_least=40)
