"""The commands ``maskcube insilico ...``: convert an encoding model, look at it, encode videos."""

from __future__ import annotations

import json
import os
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from maskcube.errors import InvalidOption, missing
from maskcube.insilico.catalog import MODEL_ID
from maskcube.options import as_json, print_report, quiet, reach, resumable

if TYPE_CHECKING:
    import numpy as np
    import xarray as xr

__all__ = ["insilico"]

_SUFFIXES = (".zarr", ".npy", ".nii.gz", ".nii")


@click.group()
def insilico() -> None:
    """Encode videos to in-silico fMRI by BERG's fmri-bmd-s3d."""


@insilico.command()
@click.argument("berg_dir", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("store")
@click.option("--subject", type=int, multiple=True, help="Only this subject; may be repeated.")
@click.option("--overwrite", is_flag=True, help="Replace a store of other models.")
@reach
@quiet
@as_json
def convert(
    berg_dir: Path,
    store: str,
    *,
    subject: tuple[int, ...],
    quiet: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Convert the models in BERG_DIR, BERG's folder, to the store STORE.

    Nothing in BERG's files is run. An interrupted conversion is resumed by the same command.
    """
    from maskcube.insilico.conversion import convert as run

    with resumable(store, in_place=True):
        report = run(
            berg_dir, store, subject=subject or None, progress=not (quiet or as_json), **options
        )
    print_report(report, as_json=as_json)


@insilico.command()
@click.argument("models")
@reach
@as_json
def info(models: str, *, storage_options: dict[str, Any] | None, as_json: bool) -> None:
    """Print what MODELS, a store or BERG's folder, holds: subjects, voxels, regions."""
    from maskcube.insilico.berg import open_weights

    weights = open_weights(models, storage_options)
    n_components, n_features = weights.components().components.shape
    said: dict[str, Any] = {
        "model": MODEL_ID,
        "backbone": weights.backbone,
        "n_features": n_features,
        "n_components": n_components,
        "subjects": {},
    }
    for subject in weights.subjects:
        brain = weights.brain(subject)
        regions = {} if brain is None else {name: len(brain.rows(name)) for name in brain.regions}
        n_voxels = weights.regression(subject).coef.shape[0]
        said["subjects"][str(subject)] = {"n_voxels": n_voxels, "regions": regions}
    if as_json:
        click.echo(json.dumps(said))
        return
    click.echo(f"{MODEL_ID}: {n_components:,} components of {n_features:,} features")
    for subject, found in said["subjects"].items():
        click.echo(f"subject {subject}: {found['n_voxels']:,} voxels")
        names = ", ".join(f"{name} {count:,}" for name, count in found["regions"].items())
        click.echo(f"  voxels by region: {names or 'none are known'}")


@insilico.command()
@click.argument("models")
@click.argument("videos", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--subject", type=int, required=True, help="Whose brain answers.")
@click.option("--roi", help="Only the voxels of this region.")
@click.option(
    "--backbone", type=click.Path(path_type=Path), help="S3D's weights, s3d-d76dad2f.pth."
)
@click.option("--device", default="auto", show_default=True, help="cpu, cuda, or auto.")
@reach
@quiet
def encode(
    models: str,
    videos: Path,
    output: Path,
    *,
    subject: int,
    roi: str | None,
    backbone: Path | None,
    device: str,
    storage_options: dict[str, Any] | None,
    quiet: bool,
) -> None:
    """Encode VIDEOS by the models in MODELS, a store or BERG's folder, to OUTPUT.

    VIDEOS is a .npy of (video, frame, 3, height, width), 0 to 255, or of features or component
    scores; it is read video by video. OUTPUT is .zarr, with all that is known of the voxels, .npy,
    or .nii.gz, an image of the brain.
    """
    from maskcube.insilico.berg import BERG
    from maskcube.insilico.responses import encode as run

    _check_output(output)
    berg = BERG(models, storage_options=storage_options)
    model = berg.get_encoding_model(
        MODEL_ID,
        subject=subject,
        selection=None if roi is None else {"roi": roi},
        device=device,
        backbone=backbone,
    )
    responses = run(model, _mapped(videos), progress=not quiet)
    _save(responses, output)
    click.echo(f"{output}: {responses.shape[0]:,} stimuli, {responses.shape[1]:,} voxels")


def _mapped(path: Path) -> np.ndarray[Any, Any]:
    """Return what is in a .npy, of which nothing is read yet."""
    import numpy as np

    if not path.is_file():
        # A pipe would be waited for.
        raise InvalidOption(f"{path} is no file")
    try:
        found = np.lib.format.open_memmap(path, mode="r")
    except OSError:
        raise
    except Exception as error:  # numpy's parser of headers raises whatever it likes
        # numpy's words advise to unpickle it.
        raise InvalidOption(
            f"{path} cannot be read as a .npy of numbers, as np.save writes it of an array that"
            " holds no Python objects"
        ) from error
    # A memory map is one of numpy's arrays; its own class adds nothing.
    return found.view(np.ndarray)


def _check_output(output: Path) -> None:
    from maskcube.paths import refuse_url

    refuse_url(output)
    if not output.name.endswith(_SUFFIXES) or output.name in _SUFFIXES:
        raise InvalidOption(f"{output}: the name must end in {', '.join(_SUFFIXES)}")
    if not output.absolute().parent.is_dir():
        raise InvalidOption(f"{output}: there is no folder {output.parent}: make it first")
    if output.name.endswith((".nii.gz", ".nii")) and find_spec("nibabel") is None:
        raise missing("nibabel", "berg", output.name)
    # A link that leads nowhere would be followed.
    if os.path.lexists(output):
        raise InvalidOption(f"{output} exists: delete it, or choose another name")


def _save(responses: xr.DataArray, output: Path) -> None:
    import numpy as np

    from maskcube.insilico.nifti import to_nifti

    if output.suffix == ".npy":
        np.save(output, responses.to_numpy())
    elif output.suffix == ".zarr":
        with warnings.catch_warnings():
            # zarr says so at each write; plain https could not be read without.
            warnings.filterwarnings("ignore", message="Consolidated metadata")
            responses.to_zarr(output, zarr_format=3)
    else:
        to_nifti(responses).to_filename(output)
