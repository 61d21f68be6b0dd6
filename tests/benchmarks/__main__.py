"""Compare maskcube with its peers; ``scripts/bench`` calls this in an environment of its own."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import (
    cloud,
    conversion,
    lookup,
    machine,
    opening,
    rehearsal,
    report,
    scan,
    selection,
    sizes,
)
from benchmarks.contest import Contest, Record, run
from benchmarks.readers import hdf5_masks
from benchmarks.workload import Workload

_CONTESTS: dict[str, Callable[[Workload], list[Contest]]] = {
    "open": opening.contests,
    "get": lookup.contests,
    "select": selection.contests,
}
_SECTIONS = [*_CONTESTS, "scan", "convert", "size", "cloud", "scaling"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print tables, and write the figures as JSON when asked."""
    asked = _parser().parse_args(arguments)
    # Peers warn of what is not stable or fast in them; the tables say what it costs.
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as temporary:
        work = asked.work or Path(temporary)
        _say(f"preparing the data in {work}")
        workload = Workload.prepare(work, asked.source, asked.images)
        figures: Record = {"machine": machine.describe(), "data": _data(workload, asked.source)}
        _print(report.heading(figures))
        records = []
        for record in _measured(workload, asked):
            records.append(record)
            _print(report.table(record))
    if asked.json:
        figures |= {"repetitions": asked.repetitions, "cache": "warm", "contests": records}
        asked.json.write_text(json.dumps(figures, indent=1) + "\n")


def _measured(workload: Workload, asked: argparse.Namespace) -> Iterator[Record]:
    for section in asked.sections:
        _say(f"measuring {section}")
        for record in _records(section, workload, asked):
            yield {"section": section, **record}


def _records(section: str, workload: Workload, asked: argparse.Namespace) -> Iterator[Record]:
    if section == "size":
        yield sizes.measure(workload)
    elif section == "cloud":
        yield from cloud.measure(workload, asked.repetitions)
    elif section == "scaling":
        yield from rehearsal.measure(workload)
    elif section == "convert":
        yield from conversion.measure(
            workload, asked.repetitions, asked.peer_masks, asked.rechunker
        )
    elif section == "scan":
        for contest in scan.contests(workload, asked.scan_masks):
            yield run(contest, asked.repetitions)
    else:
        for contest in _CONTESTS[section](workload):
            yield run(contest, asked.repetitions)


def _data(workload: Workload, sources: Sequence[Path]) -> Record:
    n_masks, height, width = hdf5_masks(workload.row).shape
    return {
        "source": "given" if sources else "sample",
        "n_masks": n_masks,
        "n_images": workload.table["image_name"].nunique(),
        "height": height,
        "width": width,
        "hdf5_chunks": {
            "row": hdf5_masks(workload.row).chunks,
            "auto": hdf5_masks(workload.auto).chunks,
        },
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    add = parser.add_argument
    add("--images", type=int, default=100, help="images of the sample dataset (default 100)")
    add("--source", type=Path, action="append", default=[], metavar="DIR",
        help="a dataset's folder instead of the sample; may be repeated, once for each layout of "
        "the HDF5, the other layout is made when it is not given")  # fmt: skip
    add("--work", type=Path, metavar="DIR",
        help="keep what is made here, for one dataset; a temporary folder by default")  # fmt: skip
    add("--sections", type=_sections, default=_SECTIONS, metavar="LIST",
        help=f"of {','.join(_SECTIONS)} (default all)")  # fmt: skip
    add("--repetitions", type=int, default=5, help="of each peer (default 5)")
    add("--peer-masks", type=int, default=2400, metavar="N",
        help="convert the first N masks with each peer (default 2400)")  # fmt: skip
    add("--scan-masks", type=int, metavar="N", help="count the first N masks only (default all)")
    add("--rechunker", metavar="PYTHON", help="interpreter that has rechunker, and so zarr 2")
    add("--json", type=Path, metavar="FILE", help="write all figures here")
    return parser


def _sections(given: str) -> list[str]:
    wanted = given.split(",")
    unknown = sorted(set(wanted) - set(_SECTIONS))
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown} are none of {_SECTIONS}")
    return [section for section in _SECTIONS if section in wanted]


def _say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


def _print(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    main()
