"""The house of the design: who may import whom, what is public, how large a room may be."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import maskcube
from maskcube import insilico

PACKAGE = Path(maskcube.__file__).parent
MODULES = sorted(
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if path.stem not in {"__init__", "__main__"}
)

FLOORS = [
    ["errors", "progress", "provenance", "options"],
    ["layout", "threads", "disk"],
    ["codes", "codec", "encoded", "texts", "boundaries", "metadata"],
    [
        "manifest",
        "filters",
        "chunks",
        "inspection",
        "guarded",
        "plain",
        "folder",
        "dialects",
        "access",
        "answers",
        "bucket",
        "session",
        "paths",
        "objects",
        "remote",
        "spool",
        "ranges",
        "hdf5",
        "slabs",
    ],
    ["files", "schema", "root", "packed", "source"],
    ["edition", "store", "summary"],
    ["direct", "transaction", "stage"],
    ["entry", "journal", "writer", "cluster"],
    [
        "labels",
        "catalog",
        "coordinates",
        "index",
        "ragged",
        "shards",
        "foreign",
        "readers",
        "dasked",
        "virtual",
    ],
    ["commit", "report", "conversion"],
    ["base", "growth", "correction", "parts", "integrity", "repair"],
    ["reader", "backing"],
    ["scan", "virtualization"],
    ["painting", "captions", "sheet"],
    ["scenes"],
    ["sample", "plot"],
    ["backend", "comparison", "verification", "segmentations"],
    ["demo"],
    [
        "formats.choices",
        "formats.record",
        "formats.images",
        "formats.overlap",
        "formats.names",
        "formats.output",
        "formats.report",
        "formats.png",
        "formats.files",
        "formats.fit",
        "formats.findings",
        "formats.collection",
        "formats.intake",
        "formats.rings",
        "formats.nucleus_rows",
        "formats.nucleus_files",
        "formats.nucleus_urls",
        "formats.nucleus_shapes",
        "formats.nucleus_segments",
        "formats.nucleus_findings",
        "formats.nucleus_maps",
        "formats.nucleus_outlines",
        "formats.nucleus",
        "formats.nucleus_source",
        "formats.nucleus_sdk",
        "formats.panoptic_source",
        "formats.panoptic",
        "formats.ome",
        "formats.clearml_palette",
        "formats.clearml_frames",
        "formats.clearml_values",
        "formats.clearml_source",
        "formats.clearml_drawing",
        "formats.clearml_regions",
        "formats.clearml",
        "formats.clearml_alpha",
        "formats.clearml_sdk",
        "formats.rle",
        "formats.coco_mask",
        "formats.coco_file",
        "formats.coco_source",
        "formats.coco_lines",
        "formats.coco",
        "formats.coco_results",
    ],
    ["formats.commands"],
    [
        "insilico.errors",
        "insilico.brain",
        "insilico.weights",
        "insilico.videos",
        "insilico.s3d",
        "insilico.features",
        "insilico.backbones",
        "insilico.pickled_types",
        "insilico.stand_ins",
        "insilico.opcodes",
        "insilico.pickles",
        "insilico.mapped",
        "insilico.findings",
        "insilico.berg_files",
        "insilico.catalog",
        "insilico.metadata",
        "insilico.arrays",
        "insilico.projection",
        "insilico.voxels",
        "insilico.model",
        "insilico.nodes",
        "insilico.model_store",
        "insilico.draft",
        "insilico.conversion",
        "insilico.berg",
        "insilico.responses",
        "insilico.nifti",
        "insilico.sample",
        "insilico.scratch",
        "insilico.columns",
        "insilico.accuracy",
        "insilico.gram",
        "insilico.principal",
        "insilico.regression",
        "insilico.measured",
        "insilico.footage",
        "insilico.fit_inputs",
        "insilico.fit_report",
        "insilico.fit_run",
        "insilico.fitting",
    ],
    [
        "insilico.stills",
        "insilico.pictures",
        "insilico.encoder",
        "insilico.experiment",
        "insilico.effect_rows",
        "insilico.effects_arrays",
        "insilico.effects_store",
        "insilico.effects",
    ],
    ["insilico.commands"],
    ["cli"],
]
"""Lower floors first. A module imports from lower floors, or from earlier on its own."""


def _path(module: str) -> Path:
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def _imports(module: str) -> set[str]:
    """Names of the maskcube modules that a module imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(_path(module).read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("maskcube"):
            found.add(node.module.removeprefix("maskcube").removeprefix("."))
    return found - {""}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_from_below(module: str) -> None:
    order = [name for floor in FLOORS for name in floor]
    assert module in order, "a new module needs a floor"
    assert _imports(module) <= set(order[: order.index(module)])


def test_every_floor_is_inhabited() -> None:
    assert sorted(name for floor in FLOORS for name in floor) == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_no_relative_imports(module: str) -> None:
    tree = ast.parse(_path(module).read_text())
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_is_small_and_says_what_it_is(module: str) -> None:
    text = _path(module).read_text()
    assert len(text.splitlines()) <= 350
    assert ast.get_docstring(ast.parse(text))


def test_public_names_are_sorted_and_complete() -> None:
    assert maskcube.__all__ == sorted(maskcube.__all__)
    assert dir(maskcube) == maskcube.__all__
    errors = {
        name for name in importlib.import_module("maskcube.errors").__all__ if name[0].isupper()
    }
    assert errors <= set(maskcube.__all__)
    for name in maskcube.__all__:
        assert getattr(maskcube, name).__name__ == name


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'open_mask'"):
        _ = maskcube.open_mask


@pytest.mark.parametrize("name", maskcube.__all__)
def test_a_public_name_survives_the_import_of_its_module(name: str) -> None:
    """A module of the same name as a function would take its place in the package."""
    assert not isinstance(getattr(maskcube, name), ModuleType)
    assert name not in MODULES


def test_public_names_of_insilico_are_sorted_and_hide_no_module() -> None:
    assert insilico.__all__ == sorted(insilico.__all__)
    assert dir(insilico) == insilico.__all__
    errors = importlib.import_module("maskcube.insilico.errors").__all__
    assert set(errors) <= set(insilico.__all__)
    for name in insilico.__all__:
        assert getattr(insilico, name).__name__ == name
        assert f"insilico.{name}" not in MODULES


def _public_members(module: str) -> list[tuple[str, object]]:
    loaded = importlib.import_module(f"maskcube.{module}")
    found = [(name, getattr(loaded, name)) for name in loaded.__all__]
    for name, value in list(found):
        if inspect.isclass(value):
            found += [
                (f"{name}.{key}", member)
                for key, member in vars(value).items()
                if not key.startswith("_")
                and (inspect.isfunction(member) or isinstance(member, property))
            ]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_every_public_function_and_class_is_documented(module: str) -> None:
    documented = (type, type(inspect.cleandoc), property)
    bare = [
        name
        for name, value in _public_members(module)
        if isinstance(value, documented) and not inspect.getdoc(value)
    ]
    assert not bare


def _loaded_by(code: str) -> set[str]:
    listing = f"import sys\n{code}\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, check=True
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


HEAVY = {"dask", "distributed", "h5py", "matplotlib", "numpy", "pandas", "torch", "xarray", "zarr"}


def test_importing_maskcube_imports_nothing_heavy() -> None:
    assert not _loaded_by("import maskcube") & HEAVY


def test_help_imports_nothing_heavy() -> None:
    code = """
from maskcube.cli import main
main(["--help"], standalone_mode=False)
"""
    assert not _loaded_by(code) & HEAVY


OPENING = """
import sys
import maskcube
from maskcube.cli import main

image = "shared_12rep_LAION_cluster_1003_i0.jpg"
"""


@pytest.mark.parametrize(
    "use",
    [
        'main(["get", "masks.zarr", image, "hand"], standalone_mode=False)',
        'maskcube.Segmentations("masks.zarr").get(image, "hand")',
        'maskcube.Segmentations("masks.zarr").nouns(image)',
        'maskcube.Segmentations("masks.zarr")[3]',
        'maskcube.info("masks.zarr")',
    ],
)
def test_one_mask_of_a_store_needs_numpy_only(
    use: str, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    assert _loaded_by(OPENING + use) & HEAVY == {"numpy"}


def test_opening_without_chunks_needs_no_dask_and_no_zarr(
    store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(store.parent)
    loaded = _loaded_by('import maskcube\nmaskcube.open_masks("masks.zarr", chunks=None)')
    assert loaded & HEAVY == {"numpy", "pandas", "xarray"}
