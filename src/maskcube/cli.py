"""The command line: thin, every command is a public function.

Results go to stdout, progress to stderr. Exit code 0: done; 1: refused or failed, with one clear
message; 2: wrong usage.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from maskcube.errors import InvalidOption, MaskcubeError
from maskcube.formats.commands import exports, imports
from maskcube.insilico.commands import insilico
from maskcube.options import (
    as_json,
    images,
    metadata,
    nouns,
    print_report,
    quiet,
    reach,
    reach_source,
    resumable,
    workers,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.figure import Figure

__all__ = ["main"]


class _Messages(click.Group):
    """Shows our own errors, and those of the system, as a message without traceback."""

    def invoke(self, context: click.Context) -> Any:  # noqa: ANN401 - as in click
        # What a user reads is a warning's text, not the line of code that gave it.
        warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"
        try:
            return super().invoke(context)
        except (MaskcubeError, OSError) as error:
            raise click.ClickException(_as_options(str(error))) from error


@click.group(cls=_Messages, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="maskcube")
def main() -> None:
    """Object masks of LAION-fMRI: HDF5 and CSV to a chunked Zarr store, and out of it."""


def reading(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the arguments and options of what reads a source into a store."""
    for option in (
        as_json,
        quiet,
        click.option("--memory", default="1GiB", show_default=True, help="Most memory to take."),
        workers,
        click.option("--sha256", metavar="HEX", help="Refuse an HDF5 that has another SHA-256."),
        click.option("--allow-duplicates", is_flag=True, help="Accept equal labels."),
        click.option("--normalize", is_flag=True, help="Take every pixel but 0 as 1."),
        metadata,
        reach_source,
        reach,
        click.argument("store"),
        click.argument("source"),
    ):
        command = option(command)
    return command


@main.command()
@reading
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a mask store that is at STORE; at a URL it is deleted first.",
)
def convert(source: str, store: str, *, quiet: bool, as_json: bool, **options: Any) -> None:
    """Convert SOURCE, a data folder or an HDF5, to the store STORE.

    An interrupted conversion is resumed by the same command.
    """
    from maskcube.conversion import convert as run

    with resumable(store):
        report = run(source, store, progress=not (quiet or as_json), **options)
    if quiet or as_json:
        print_report(report, as_json=as_json)


@main.command()
@reading
def append(source: str, store: str, *, quiet: bool, as_json: bool, **options: Any) -> None:
    """Append the masks of SOURCE, a data folder or an HDF5, to the store STORE.

    Readers find the old store until the new one is complete. An interrupted run is resumed by the
    same command.
    """
    from maskcube.growth import append as run

    with resumable(store):
        report = run(source, store, progress=not (quiet or as_json), **options)
    if quiet or as_json:
        print_report(report, as_json=as_json)


@main.command()
@click.argument("store")
@click.argument("image")
@click.argument("noun")
@click.argument("mask", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option("--instance", type=int, required=True, help="Which one; 0 scored highest.")
@reach
@as_json
def update(
    store: str, image: str, noun: str, mask: Path, *, instance: int, as_json: bool, **options: Any
) -> None:
    """Replace a mask of STORE by MASK, whose old pixels are not kept.

    MASK is a .npy of (y, x), 1 where the object is and 0 elsewhere, or a .png, white on black.
    """
    from maskcube.correction import update as run

    with resumable(store):
        report = run(store, image, noun, instance, _load(mask), **options)
    print_report(report, as_json=as_json)


@main.command()
@click.argument("store")
@reach
@as_json
def info(store: str, *, as_json: bool, **options: Any) -> None:
    """Print what STORE says of itself."""
    from maskcube.summary import info as run

    print_report(run(store, **options), as_json=as_json)


@main.command()
@click.argument("store")
@click.option(
    "--source",
    multiple=True,
    help="Compare every pixel and field with this data folder or HDF5; may be repeated.",
)
@click.option("--metadata", multiple=True, metavar="CSV", help="Its CSV, if not beside the HDF5.")
@click.option("--repair", is_flag=True, help="First make what is damaged again, if it can be.")
@workers
@reach_source
@reach
@quiet
@as_json
def verify(store: str, *, quiet: bool, as_json: bool, **options: Any) -> None:
    """Check that no mask of STORE is damaged or lost."""
    from maskcube.verification import verify as run

    print_report(run(store, progress=not (quiet or as_json), **options), as_json=as_json)


@main.command()
@click.argument("store")
@click.argument("image")
@click.argument("noun", required=False)
@click.option("--instance", default=0, show_default=True, help="Which one; 0 scored highest.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Save it as .png or .npy.")
@reach
@as_json
def get(
    store: str,
    image: str,
    noun: str | None,
    instance: int,
    output: Path | None,
    *,
    as_json: bool,
    **options: Any,
) -> None:
    """Get the mask of IMAGE and NOUN from STORE; without NOUN list what the image shows."""
    from maskcube.segmentations import Segmentations

    with Segmentations(store, **options) as segmentations:
        if noun is None and output is not None:
            raise InvalidOption("--output saves one mask: give its noun")
        if noun is None and segmentations.has_image(image):
            found = segmentations.for_image(image)[["noun", "instance_id", "score", "localized"]]
            records = [_plain(record) for record in found.to_dict("records")]
            click.echo(json.dumps(records) if as_json else found.to_string(index=False))
            return
        row = segmentations.find(image, noun or "", instance)
        mask, record = segmentations[row], _plain(segmentations.record(row))
    if output is not None:
        _save(mask, output)
    record["area"] = int(mask.sum())
    lines = [f"{name}: {value}" for name, value in record.items()]
    click.echo(json.dumps(record) if as_json else "\n".join(lines))


@main.command()
@click.argument("store")
@click.argument("output", type=click.Path(path_type=Path))
@images
@nouns
@click.option("--sheet", is_flag=True, help="A contact sheet instead of one overlay.")
@reach
def plot(
    store: str,
    output: Path,
    image: tuple[str, ...],
    noun: tuple[str, ...],
    *,
    sheet: bool,
    **options: Any,
) -> None:
    """Draw masks of STORE to the picture OUTPUT (.png, .pdf, .svg)."""
    from maskcube.plot import contact_sheet, overlay
    from maskcube.reader import open_masks

    wanted = {"image": list(image), "noun": list(noun)}
    opened = open_masks(store, chunks=None, **options)
    masks = opened.sel({key: ask for key, ask in wanted.items() if ask})
    if not sheet and len(image) != 1:
        raise InvalidOption("an overlay shows one image: give one --image, or --sheet")
    figure = contact_sheet(masks) if sheet else cast("Figure", overlay(masks).figure)
    figure.savefig(output)
    click.echo(output)


@main.command()
@click.argument("folder", type=click.Path(path_type=Path), default="maskcube-demo")
def demo(folder: Path) -> None:
    """Make a small dataset in FOLDER, convert it, open it, select from it and draw it."""
    from maskcube.demo import demo as run

    run(folder)


main.add_command(exports)
main.add_command(imports)
main.add_command(insilico)


_VALUED = r"\b(fit|geometry|overlap|without_mask)='(\w+)'"
"""Keywords of the formats whose values are words."""


def _as_options(message: str) -> str:
    """Name Python's keywords as the options of the command line.

    Examples
    --------
    >>> _as_options("masks.zarr exists; overwrite=True would replace it")
    'masks.zarr exists; --overwrite would replace it'
    >>> _as_options("masks have several sizes; fit='pad' adds background")
    'masks have several sizes; --fit pad adds background'
    """
    keywords = r"\b(overwrite|normalize|allow_duplicates|repair)=True"
    message = re.sub(keywords, lambda found: f"--{found[1].replace('_', '-')}", message)
    message = re.sub(_VALUED, lambda found: f"--{found[1].replace('_', '-')} {found[2]}", message)
    message = re.sub(r"storage_options=\{'(\w+)': '...'\}", r"--storage-option \1=...", message)
    message = re.sub(r"types=\['(\w+)'\]", r"--type \1", message)
    message = message.replace("annotations=...", "--annotations ...")
    message = re.sub(r"size=\(height, width\)", "--size HEIGHT WIDTH", message)
    return message.replace("anon=False", "--storage-option anon=false")


def _plain(record: dict[Any, Any]) -> dict[str, Any]:
    """Return a row as JSON has it: Python's own numbers, and null for NaN."""
    plain = {
        name: value.tolist() if hasattr(value, "tolist") else value
        for name, value in record.items()
    }
    return {name: None if value != value else value for name, value in plain.items()}  # noqa: PLR0124 - NaN


def _load(path: Path) -> np.ndarray[Any, Any]:
    """Return what is in a saved array or a picture; white becomes 1, black stays 0."""
    import numpy as np

    from maskcube.formats.png import decode, greys

    if path.suffix not in (".npy", ".png"):
        raise InvalidOption(f"{path}: the name must end in .npy or .png")
    try:
        if path.suffix == ".npy":
            saved: np.ndarray[Any, Any] = np.load(path, allow_pickle=False)
            return saved
        grey = greys(decode(path.read_bytes()))
    except (ValueError, OSError, EOFError) as error:
        raise InvalidOption(f"{path} cannot be read as a mask: {error}") from error
    return np.where(grey == 255, np.uint8(1), grey)  # noqa: PLR2004 - white


def _save(mask: np.ndarray[Any, Any], output: Path) -> None:
    """Save a mask as an array, or as a picture with the object in white."""
    import numpy as np

    from maskcube.formats.png import encode
    from maskcube.paths import refuse_url

    refuse_url(output)
    if output.suffix == ".npy":
        np.save(output, mask)
    elif output.suffix == ".png":
        output.write_bytes(encode(mask * np.uint8(255)))
    else:
        raise InvalidOption(f"--output {output}: the name must end in .png or .npy")
