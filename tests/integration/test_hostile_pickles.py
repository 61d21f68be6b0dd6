"""Weights that would run code, or take all memory: refused, and nothing of them is run."""

from __future__ import annotations

import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from berg_folder import BergFolder, write_berg_folder
from crafted import crafted, npy_of, write_npy
from memory import peak_of

from fuzz.mutation import mutated
from maskcube.insilico.berg_files import BergFiles
from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.pickles import read_npy

CRAFTED = {each.name: each for each in crafted("touch canary")}
FIRING = [name for name, each in CRAFTED.items() if each.fires]

IMPORTS_BYTES = 2**26
"""More than an interpreter that has imported numpy."""


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return what the command of a crafted file makes."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "canary"


def test_names_are_different() -> None:
    assert len(CRAFTED) == len(list(crafted("true"))) > 150


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_file_is_refused(name: str, tmp_path: Path, canary: Path) -> None:
    made = CRAFTED[name]
    path = tmp_path / "weights.npy"
    path.write_bytes(npy_of(made.pickled))
    with pytest.raises(CorruptWeights) as raised:
        read_npy(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert made.told in str(raised.value)
    assert len(str(raised.value)) < 1000
    assert not canary.exists()


@pytest.mark.parametrize("name", FIRING)
def test_numpy_runs_what_is_refused_here(name: str, tmp_path: Path, canary: Path) -> None:
    """Else the canary would prove nothing."""
    path = tmp_path / "weights.npy"
    path.write_bytes(npy_of(CRAFTED[name].pickled))
    code = f"import numpy, time\ntry:\n    numpy.load({str(path)!r}, allow_pickle=True)\n"
    code += "except AttributeError:\n    pass\ntime.sleep(0.05)"
    subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert canary.exists()


AUDITED = """
import sys, warnings
from pathlib import Path
from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.pickles import read_npy

def read(path):
    try:
        read_npy(path)
    except CorruptWeights:
        return 1
    return 0

paths = sorted(Path(sys.argv[1]).iterdir())
read(paths[0])
events = set()
sys.addaudithook(lambda event, arguments: events.add(event))
refused = sum(read(path) for path in paths)
print(refused, *sorted(events), sep="\\n")
"""


def test_nothing_is_imported_or_called(tmp_path: Path, canary: Path) -> None:
    for number, made in enumerate(CRAFTED.values()):
        path = tmp_path / "crafted" / f"{number:03}"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(npy_of(made.pickled))
    command = [sys.executable, "-c", AUDITED, str(tmp_path / "crafted")]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    refused, *events = done.stdout.split()
    assert int(refused) == len(CRAFTED)
    # The header is compiled to a tree of constants; nothing is executed.
    allowed = {"builtins.id", "compile", "mmap.__new__", "open"}
    assert set(events) <= allowed
    assert not canary.exists()


READ: list[tuple[str, Callable[[BergFiles], object]]] = [
    ("pca", lambda files: files.components()),
    ("pca", lambda files: files.backbone),
    ("pca", lambda files: files.regression(1)),
    ("weights", lambda files: files.regression(1)),
    ("weights", lambda files: files.brain(1)),
    ("metadata", lambda files: files.brain(1)),
]


@pytest.mark.parametrize(("name", "read"), READ)
def test_a_crafted_file_in_the_folder_is_refused(
    name: str, read: Callable[[BergFiles], object], tmp_path: Path, canary: Path
) -> None:
    made = write_berg_folder(tmp_path)
    path = {"pca": made.pca, "weights": made.weights(1), "metadata": made.metadata(1)}[name]
    path.write_bytes(npy_of(CRAFTED["system by protocol 4"].pickled))
    files = BergFiles.open(tmp_path)
    with pytest.raises(CorruptWeights, match=r"posix\.system|nt\.system") as raised:
        read(files)
    assert str(path) in str(raised.value)
    assert not canary.exists()


def _tree(folder: Path) -> dict[str, object]:
    """Return a tree with all that the files of BERG have, of a few kilobytes."""
    made = write_berg_folder(folder, n_features=40, n_components=3, n_voxels=60, volume=(6, 6, 5))
    metadata = BergFolder.load(made.metadata(1))
    regions = {name: metadata["fmri"]["rois"][name] for name in ("lV1v", "rBA2")}
    metadata["fmri"]["rois"] = regions
    return {"a": BergFolder.load(made.pca), "b": BergFolder.load(made.weights(1)), "c": metadata}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_file_cut_off_anywhere_is_refused(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.npy"
    data = write_npy(path, _tree(tmp_path / "berg"), protocol)
    assert read_npy(path).keys() == {"a", "b", "c"}
    for size in {*range(140), *np.linspace(140, len(data) - 1, 300, dtype=int).tolist()}:
        path.write_bytes(data[:size])
        with pytest.raises(CorruptWeights):
            read_npy(path)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_bytes_changed_at_random_are_read_or_refused(protocol: int, tmp_path: Path) -> None:
    path = tmp_path / "weights.npy"
    seeds = [write_npy(path, _tree(tmp_path / "berg"), protocol)]
    chance = random.Random(protocol)  # noqa: S311 - no secret
    n_refused = 0
    for _ in range(500):
        path.write_bytes(mutated(seeds, chance))
        try:
            read_npy(path)
        except CorruptWeights:
            n_refused += 1
    assert n_refused > 50


def test_a_bomb_takes_no_memory(tmp_path: Path) -> None:
    for number, made in enumerate(CRAFTED.values()):
        (tmp_path / f"{number}.npy").write_bytes(npy_of(made.pickled))
    code = f"""
from pathlib import Path
from maskcube.insilico.errors import CorruptWeights
from maskcube.insilico.pickles import read_npy
for path in Path({str(tmp_path)!r}).iterdir():
    try:
        read_npy(path)
    except CorruptWeights:
        pass
"""
    assert peak_of(code) < IMPORTS_BYTES + 2**27


def test_a_place_far_off_in_the_memo_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "weights.npy"
    data = write_npy(path, {"a": 1}, 2)
    path.write_bytes(data[:-1] + b"r\xff\xff\xff\xff.")
    code = f"from maskcube.insilico.pickles import read_npy\nread_npy({str(path)!r})"
    assert peak_of(code) < IMPORTS_BYTES
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_npy(path) == {"a": 1}
