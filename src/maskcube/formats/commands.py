"""The commands ``maskcube export`` and ``maskcube import``, with one command for each format."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar

import click

from maskcube.formats.choices import FITS, OVERLAPS
from maskcube.options import as_json, images, nouns, print_report, quiet, reach, resumable, workers

if TYPE_CHECKING:
    from maskcube.formats.report import ExportReport
    from maskcube.report import ConversionReport

__all__ = ["exports", "imports"]

Writer = Callable[..., "ExportReport"]
Reader = Callable[..., "ConversionReport"]
_Command = TypeVar("_Command", bound=Callable[..., Any])

_RULES = tuple(rule for rule in OVERLAPS if rule != "layers")


@click.group("export")
def exports() -> None:
    """Write the masks of a store as the files of another tool.

    The last line says what of the masks is not shown as it is; --json says it of each.
    """


@click.group("import")
def imports() -> None:
    """Convert the masks of another tool to a store."""


def _exporting(chosen: Callable[..., Writer]) -> Callable[..., None]:
    """Return a command that gives a selection of a store to the writer that is chosen."""

    @wraps(chosen)
    def command(
        store: str,
        out: str,
        *,
        image: tuple[str, ...],
        noun: tuple[str, ...],
        storage_options: dict[str, Any] | None,
        quiet: bool,
        as_json: bool,
        **options: Any,
    ) -> None:
        from maskcube.reader import open_masks

        wanted = {"image": list(image), "noun": list(noun)}
        masks = open_masks(store, chunks=None, storage_options=storage_options)
        selected = masks.sel({name: labels for name, labels in wanted.items() if labels})
        report = chosen()(selected, out, progress=not (quiet or as_json), **options)
        print_report(report, as_json=as_json)

    given: Callable[..., None] = command
    for option in (
        as_json,
        quiet,
        reach,
        click.option("--overwrite", is_flag=True, help="Replace what an earlier export wrote."),
        nouns,
        images,
        click.argument("out"),
        click.argument("store"),
    ):
        given = option(given)
    return given


def _importing(chosen: Callable[..., Reader]) -> Callable[..., None]:
    """Return a command that gives a source and a store to the reader that is chosen."""

    @wraps(chosen)
    def command(source: str, store: str, *, quiet: bool, as_json: bool, **options: Any) -> None:
        with resumable(store):
            report = chosen()(source, store, progress=not (quiet or as_json), **options)
        if quiet or as_json:
            print_report(report, as_json=as_json)

    given: Callable[..., None] = command
    for option in (
        as_json,
        quiet,
        reach,
        click.option("--memory", default="1GiB", show_default=True, help="Most memory to take."),
        workers,
        click.option("--overwrite", is_flag=True, help="Replace a mask store that is at STORE."),
        click.option("--allow-duplicates", is_flag=True, help="Accept equal labels."),
        click.option("--shape", type=(int, int), help="Height and width of the store's masks."),
        click.option(
            "--fit",
            type=click.Choice(FITS),
            default="refuse",
            show_default=True,
            help="What to do with masks of another size.",
        ),
        click.argument("store"),
        click.argument("source"),
    ):
        given = option(given)
    return given


def _overlap(*rules: str) -> Callable[[_Command], _Command]:
    """Return the options of formats that show one object a pixel."""

    def give(command: _Command) -> _Command:
        share = click.option(
            "--min-visible",
            type=float,
            default=0.0,
            show_default=True,
            help="Leave out a mask of which a smaller share than this is seen.",
        )
        rule = click.option(
            "--overlap",
            type=click.Choice([*_RULES, *rules]),
            default="smallest",
            show_default=True,
            help="Which mask is seen where several are.",
        )
        return rule(share(command))

    return give


_stuff = click.option(
    "--stuff",
    multiple=True,
    metavar="NOUN",
    help="A noun that is no thing to count: one segment an image; may be repeated.",
)
_mask_uri = click.option(
    "--mask-uri", metavar="TEMPLATE", help="Where masks will be, as in s3://bucket/{file}."
)
_source_uri = click.option(
    "--source-uri", metavar="TEMPLATE", help="Where the images are, as in s3://bucket/{image}."
)
_masks = click.option(
    "--masks", metavar="FOLDER", help="Where the mask files are, if not beside SOURCE."
)
_image_name = click.option(
    "--image-name",
    "image",
    type=click.Choice(["context_id", "id", "uri"]),
    default="context_id",
    show_default=True,
    help="What of a frame is the name of its image.",
)


@exports.command("nucleus")
@_exporting
@click.option(
    "--kind",
    type=click.Choice(["panoptic", "instance", "semantic"]),
    default="panoptic",
    show_default=True,
    help="What a segment is.",
)
@_stuff
@_overlap()
@click.option(
    "--mask-url", metavar="TEMPLATE", help="Where maps will be, as in s3://bucket/{file}."
)
@click.option(
    "--geometry",
    type=click.Choice(["polygon", "box"]),
    help="These instead of maps; nothing is hidden.",
)
def _export_nucleus() -> Writer:
    """Write payloads and maps for Scale Nucleus. OUT is a folder."""
    from maskcube.formats.nucleus import to_nucleus

    return to_nucleus


@imports.command("nucleus")
@_importing
@_masks
@click.option(
    "--type",
    "types",
    type=click.Choice(["mask", "polygon", "box"]),
    multiple=True,
    default=("mask", "polygon"),
    show_default=True,
    help="Annotations to read; may be repeated.",
)
@click.option("--size", type=(int, int), help="Height and width where SOURCE says none.")
def _import_nucleus() -> Reader:
    """Read payloads or an export of Scale Nucleus. SOURCE is a folder or a file."""
    from maskcube.formats.nucleus_source import from_nucleus

    return from_nucleus


@exports.command("clearml")
@_exporting
@_overlap("layers")
@_mask_uri
@_source_uri
def _export_clearml() -> Writer:
    """Write pixel masks for ClearML, one colour a noun. OUT is a folder."""
    from maskcube.formats.clearml import to_clearml

    return to_clearml


@imports.command("clearml")
@_importing
@_masks
@_image_name
def _import_clearml() -> Reader:
    """Read pixel masks of ClearML. SOURCE is a folder or a JSON of frames."""
    from maskcube.formats.clearml import from_clearml

    return from_clearml


@exports.command("clearml-alpha")
@_exporting
@click.option(
    "--alpha",
    type=click.IntRange(1, 255),
    default=255,
    show_default=True,
    help="Opacity where the object is.",
)
@_mask_uri
@_source_uri
def _export_clearml_alpha() -> Writer:
    """Write alpha masks for ClearML, one an object. OUT is a folder."""
    from maskcube.formats.clearml_alpha import to_clearml_alpha

    return to_clearml_alpha


@imports.command("clearml-alpha")
@_importing
@_masks
@_image_name
@click.option("--threshold", type=click.IntRange(1, 255), help="Least opacity of an object.")
def _import_clearml_alpha() -> Reader:
    """Read alpha masks of ClearML. SOURCE is a folder or a JSON of frames."""
    from maskcube.formats.clearml_alpha import from_clearml_alpha

    return from_clearml_alpha


@exports.command("coco")
@_exporting
@click.option(
    "--segmentation",
    type=click.Choice(["rle", "polygon"]),
    default="rle",
    show_default=True,
    help="How masks are written.",
)
@click.option(
    "--dialect",
    type=click.Choice(["coco", "lvis"]),
    default="coco",
    show_default=True,
    help="Whose keys are written.",
)
def _export_coco() -> Writer:
    """Write COCO or LVIS instances. OUT is a JSON."""
    from maskcube.formats.coco import to_coco

    return to_coco


@exports.command("coco-results")
@_exporting
@click.option("--annotations", metavar="JSON", help="The instances file whose ids to use.")
@click.option("--score", type=float, help="That of masks without one, else left out.")
def _export_coco_results() -> Writer:
    """Write COCO results, with scores. OUT is a JSON."""
    from maskcube.formats.coco_results import to_coco_results

    return to_coco_results


@imports.command("coco")
@_importing
@click.option("--annotations", metavar="JSON", help="The instances file of a results file.")
@click.option(
    "--crowd",
    type=click.Choice(["keep", "skip"]),
    default="keep",
    show_default=True,
    help="What to do with annotations with iscrowd.",
)
@click.option(
    "--without-mask",
    type=click.Choice(["refuse", "skip"]),
    default="refuse",
    show_default=True,
    help="What to do with annotations without a segmentation.",
)
def _import_coco() -> Reader:
    """Read COCO or LVIS instances, or COCO results. SOURCE is a JSON."""
    from maskcube.formats.coco_source import from_coco

    return from_coco


@exports.command("panoptic")
@_exporting
@_stuff
@_overlap()
def _export_panoptic() -> Writer:
    """Write COCO panoptic maps and their JSON. OUT is a folder."""
    from maskcube.formats.panoptic import to_panoptic

    return to_panoptic


@imports.command("panoptic")
@_importing
@_masks
def _import_panoptic() -> Reader:
    """Read COCO panoptic maps. SOURCE is a folder or a JSON."""
    from maskcube.formats.panoptic import from_panoptic

    return from_panoptic


@exports.command("ome-zarr")
@_exporting
@_overlap("layers")
@click.option("--levels", type=click.IntRange(1), help="Sizes of each map, each half the last.")
def _export_ome_zarr() -> Writer:
    """Write OME-Zarr labels for viewers. OUT is a folder."""
    from maskcube.formats.ome import to_ome_zarr

    return to_ome_zarr
