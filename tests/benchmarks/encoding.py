"""Encoding at real size: BERG's pipeline, maskcube from BERG's files, and from a store of them.

Needs torch: ``python -m benchmarks.encoding`` in the environment of ``scripts/test --torch``, with
``tests`` and ``tests/support`` on the path. Weights and videos are random. Every peer has a process
of its own, which imports what that one needs only, before anything is measured; memory is what the
kernel says it has taken at most.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from memory import peak_bytes

__all__ = ["PEERS", "measure", "prepare", "table"]

MODEL, REGION, SUBJECT = "fmri-bmd-s3d", "lV1v", 1
COUNTS = (3, 10)
"""Videos that are encoded together."""

Record = dict[str, Any]
Encode = Callable[[Any], Any]


def _berg() -> Callable[[Path], Encode]:
    import torch
    from berg_reference import BergReference, s3d_features
    from torchvision_shim import preset

    preset()

    def load(work: Path) -> Encode:
        # As 0 and 1 for each voxel: BERG's selection of a region has never worked.
        voxels = np.load(work / "voxels.npy")
        state = torch.load(work / "s3d.pth", weights_only=True)
        return BergReference(work / "berg", s3d_features(state), SUBJECT, voxels).encode

    return load


def _maskcube(place: str, *, cache: bool = False) -> Callable[[Path], Encode]:
    from maskcube.insilico import BERG

    for needed in ("torch", "zarr"):
        import_module(needed)

    def load(work: Path) -> Encode:
        model = BERG(work / place).get_encoding_model(
            MODEL,
            subject=SUBJECT,
            selection={"roi": REGION},
            backbone=work / "s3d.pth",
            cache=cache,
        )
        # The network is part of what is loaded, as it is by BERG.
        assert model.backbone.n_features > 0
        return model.encode

    return load


PEERS: dict[str, Callable[[], Callable[[Path], Encode]]] = {
    "BERG's pipeline": _berg,
    "maskcube, BERG's files": partial(_maskcube, "berg"),
    "maskcube, a store": partial(_maskcube, "store.zarr"),
    "maskcube, a store, `cache=True`": partial(_maskcube, "store.zarr", cache=True),
}
"""What imports a peer, and gives what loads it."""


def prepare(work: Path) -> None:
    """Write weights as large as the real ones, a store of them, and S3D's, unless they are."""
    import torch
    from berg_folder import REAL_SIZE, write_berg_folder
    from berg_reference import region_rows
    from torchvision_shim import random_state

    from maskcube.insilico import convert

    if (work / "done").exists():
        return
    write_berg_folder(work / "berg", **REAL_SIZE)
    convert(work / "berg", work / "store.zarr", overwrite=True, progress=False)
    voxels = np.zeros(REAL_SIZE["n_voxels"], np.uint8)
    voxels[region_rows(work / "berg", REGION)] = 1
    np.save(work / "voxels.npy", voxels)
    torch.save(random_state(), work / "s3d.pth")
    (work / "done").touch()


def measure(work: Path, repetitions: int = 3) -> list[Record]:
    """Return the figures of each peer: medians of repetitions that take turns.

    The answers of all are compared with those of the first.
    """
    runs: dict[str, list[Record]] = {peer: [] for peer in PEERS}
    # What pytest finds by its settings, another process finds by this.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    for _ in range(repetitions):
        for peer in PEERS:
            command = [sys.executable, "-m", "benchmarks.encoding", "--peer", peer]
            command += ["--work", str(work)]
            done = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, env=environment
            )
            runs[peer].append(json.loads(done.stdout.splitlines()[-1]))
    expected = np.array(runs[next(iter(PEERS))][0]["answers"])
    return [
        {
            "peer": peer,
            **{
                figure: statistics.median(run[figure] for run in each)
                for figure in each[0]
                if figure != "answers"
            },
            "off": float(np.abs(np.array(each[0]["answers"]) - expected).max() / expected.std()),
        }
        for peer, each in runs.items()
    ]


def table(records: Sequence[Record]) -> str:
    """Return the figures as a table of GitHub's Markdown."""
    head = ["", "load", "memory", *(f"{n} videos" for n in COUNTS), "memory", "differs by"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for record in records:
        times = [f"{record[f'encode_{n}_s']:.2f} s" for n in COUNTS]
        loaded, most = (f"{record[key] / 2**20:,.0f} MiB" for key in ("load_bytes", "encode_bytes"))
        off = f"{record['off']:.1e} std"
        lines.append([record["peer"], f"{record['load_s']:.2f} s", loaded, *times, most, off])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _figures(peer: str, work: Path) -> Record:
    """Return what a peer took, in this process."""
    load = PEERS[peer]()
    before, start = peak_bytes(), time.perf_counter()
    encode = load(work)
    found: Record = {
        "load_s": time.perf_counter() - start,
        "before_bytes": before,
        "load_bytes": peak_bytes(),
    }
    rng = np.random.default_rng(0)
    videos = rng.integers(0, 256, (max(COUNTS), 90, 3, 256, 256), np.uint8)
    for n_videos in COUNTS:
        start = time.perf_counter()
        answers = encode(videos[:n_videos])
        found[f"encode_{n_videos}_s"] = time.perf_counter() - start
    return {**found, "encode_bytes": peak_bytes(), "answers": answers.tolist()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.encoding", description=__doc__)
    parser.add_argument("--work", type=Path, help="keep what is made here: 4 GB")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--peer", choices=PEERS, help="measure one, in this process")
    asked = parser.parse_args(arguments)
    if asked.peer:
        print(json.dumps(_figures(asked.peer, asked.work)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        prepare(work)
        print(table(measure(work, asked.repetitions)))


if __name__ == "__main__":
    main()
