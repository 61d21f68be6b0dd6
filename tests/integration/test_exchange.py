"""``maskcube export`` and ``maskcube import``, as processes of their own; what all formats do."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from memory import peak_of
from scenes import given_masks, rows_of_text

import maskcube
from maskcube import InvalidOption, StoreExists, formats
from maskcube.formats.output import REPORT
from maskcube.formats.png import encode

HOSTILE = ["../../x", "/etc/x", "a/b", "A.jpg", "a.jpg", "CON", "x" * 300, "名", "a\nb", "%2e"]
WRITERS = [
    "to_clearml",
    "to_clearml_alpha",
    "to_coco",
    "to_coco_results",
    "to_nucleus",
    "to_ome_zarr",
    "to_panoptic",
]
LOSSLESS: dict[str, tuple[str, dict[str, Any]]] = {
    "coco": ("coco", {}),
    "coco, polygons": ("coco", {"segmentation": "polygon"}),
    "lvis": ("coco", {"dialect": "lvis"}),
    "nucleus, polygons": ("nucleus", {"geometry": "polygon"}),
    "clearml, layers": ("clearml", {"overlap": "layers"}),
    "clearml, alpha": ("clearml_alpha", {}),
}


def run(*arguments: object, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskcube", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture(scope="module")
def few(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of three images and their masks, some of which overlap."""
    masks = maskcube.open_masks(store)
    names = list(dict.fromkeys(masks.image.values))[:3]
    place = tmp_path_factory.mktemp("few")
    formats.to_coco(masks.sel(image=names), place / "few.json", progress=False)
    formats.from_coco(place / "few.json", place / "few.zarr", progress=False)
    return place / "few.zarr"


@pytest.mark.parametrize("name", LOSSLESS)
def test_a_lossless_format_gives_the_store_back(name: str, store: Path, tmp_path: Path) -> None:
    kind, options = LOSSLESS[name]
    write, read = getattr(formats, f"to_{kind}"), getattr(formats, f"from_{kind}")
    masks = maskcube.open_masks(store)
    report = write(masks, tmp_path / "out", progress=False, **options)
    assert report.changed == []
    read(tmp_path / "out", tmp_path / "back.zarr", progress=False)
    found = maskcube.open_masks(tmp_path / "back.zarr")
    xr.testing.assert_identical(found.compute().drop_attrs(), masks.compute().drop_attrs())


@pytest.mark.parametrize("name", WRITERS)
class TestEveryExport:
    def test_nothing_is_left_of_one_that_failed(
        self, name: str, few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from maskcube.shards import ShardReader

        masks = maskcube.open_masks(few)
        last = len(masks) - 1
        read = ShardReader.read

        def fail(self: ShardReader, rows: Any, **options: Any) -> Any:
            if last in rows:
                raise maskcube.CorruptMask("a mask is damaged", [last])
            return read(self, rows, **options)

        monkeypatch.setattr(ShardReader, "read", fail)
        with pytest.raises(maskcube.CorruptMask):
            getattr(formats, name)(masks, tmp_path / "out", progress=False)
        assert list(tmp_path.iterdir()) == []

    def test_what_is_there_is_replaced_only_if_asked(
        self, name: str, few: Path, tmp_path: Path
    ) -> None:
        write, masks = getattr(formats, name), maskcube.open_masks(few)
        write(masks, tmp_path / "out", progress=False)
        with pytest.raises(StoreExists, match="overwrite=True"):
            write(masks, tmp_path / "out", progress=False)
        report = write(masks[:5], tmp_path / "out", overwrite=True, progress=False)
        assert report.n_masks == 5
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_nothing_selected(self, name: str, few: Path, tmp_path: Path) -> None:
        report = getattr(formats, name)(
            maskcube.open_masks(few)[:0], tmp_path / "out", progress=False
        )
        assert (report.n_masks, report.n_images) == (0, 0)
        assert (tmp_path / "out").exists()

    def test_the_report_tells_each_mask(self, name: str, few: Path, tmp_path: Path) -> None:
        masks = maskcube.open_masks(few)
        report = getattr(formats, name)(masks, tmp_path / "out", progress=False)
        assert report.location == str(tmp_path / "out")
        assert report.format == name.removeprefix("to_").replace("_", "-")
        told = {(mask.image, mask.noun, mask.instance): mask.area for mask in report.masks}
        labels = (masks.image.values, masks.noun.values, masks.instance.values)
        assert told == dict(zip(zip(*labels, strict=True), masks.area.values, strict=True))
        files = [p for p in (tmp_path / "out").rglob("*") if p.is_file()] or [tmp_path / "out"]
        assert report.n_files == len(files)

    def test_what_is_no_selection(self, name: str, few: Path, tmp_path: Path) -> None:
        with pytest.raises(InvalidOption, match="DataArray"):
            getattr(formats, name)(few, tmp_path / "out", progress=False)
        assert list(tmp_path.iterdir()) == []

    def test_hostile_names_stay_below_the_place(self, name: str, tmp_path: Path) -> None:
        names = HOSTILE
        pixels = np.zeros((len(names), 4, 5), np.uint8)
        pixels[:, 1, 1:3] = 1
        masks = given_masks(pixels, image=names, noun=names[::-1], score=0.5)
        place = tmp_path / "deep" / "out"
        report = getattr(formats, name)(masks, place, progress=False)
        assert report.n_masks == len(names)
        assert report.dropped == []
        assert {path.name for path in tmp_path.iterdir()} == {"deep"}
        assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}


@pytest.mark.parametrize("name", ["clearml", "clearml_alpha", "coco", "nucleus", "panoptic"])
def test_a_url_is_not_read(name: str, tmp_path: Path) -> None:
    for source in ("s3://bucket/a.json", "https://example.org/a.json"):
        with pytest.raises(
            InvalidOption, match=f"files and folders of this machine, not '{source}'"
        ):
            getattr(formats, f"from_{name}")(source, tmp_path / "store.zarr")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", sorted({kind for kind, _ in LOSSLESS.values()} | {"panoptic"}))
def test_hostile_names_come_back(name: str, tmp_path: Path) -> None:
    names = HOSTILE
    pixels = np.zeros((len(names), 4, 5), np.uint8)
    for row in range(len(names)):
        pixels[row].reshape(-1)[row : row + 3] = 1
    masks = given_masks(pixels, image=names, noun=names[::-1], score=0.5)
    getattr(formats, f"to_{name}")(masks, tmp_path / "out", progress=False)
    getattr(formats, f"from_{name}")(tmp_path / "out", tmp_path / "b.zarr", progress=False)
    found = maskcube.open_masks(tmp_path / "b.zarr")
    assert found.image.values.tolist() == names
    assert found.noun.values.tolist() == names[::-1]
    np.testing.assert_array_equal(found.values, pixels)


EXPORTS = ["coco", "coco-results", "nucleus", "clearml", "clearml-alpha", "panoptic", "ome-zarr"]
IMPORTS = ["coco", "nucleus", "clearml", "clearml-alpha", "panoptic"]


class TestCommands:
    @pytest.mark.parametrize("name", EXPORTS)
    def test_export(self, name: str, few: Path, tmp_path: Path) -> None:
        done = run("export", name, few, tmp_path / "out", "-q")
        assert done.stdout.startswith(f"{tmp_path / 'out'}: ")
        assert f" as {name}, " in done.stdout
        assert done.stderr == ""
        assert len(done.stdout.splitlines()) == 1

    @pytest.mark.parametrize("name", IMPORTS)
    def test_import(self, name: str, few: Path, tmp_path: Path) -> None:
        masks = maskcube.open_masks(few)
        write = getattr(formats, f"to_{name.replace('-', '_')}")
        lossless = {"clearml": {"overlap": "layers"}}.get(name, {})
        report = write(masks, tmp_path / "out", progress=False, **lossless)
        done = run("import", name, tmp_path / "out", tmp_path / "new.zarr", "--json")
        told = json.loads(done.stdout)
        assert told["n_masks"] == len(masks) - len(report.dropped)
        assert maskcube.verify(tmp_path / "new.zarr", progress=False).n_masks == told["n_masks"]

    def test_a_selection_and_its_report(self, few: Path, tmp_path: Path) -> None:
        masks = maskcube.open_masks(few)
        image, noun = masks.image.values[0], masks.noun.values[0]
        done = run(
            "export", "panoptic", few, tmp_path / "o", "--image", image, "--noun", noun, "--json"
        )
        told = json.loads(done.stdout)
        wanted = masks.sel(image=[image], noun=[noun])
        assert told["n_masks"] == len(told["masks"]) == len(wanted)
        assert {mask["noun"] for mask in told["masks"]} == {noun}
        assert told == json.loads((tmp_path / "o" / REPORT).read_text())

    def test_progress_goes_to_stderr(self, few: Path, tmp_path: Path) -> None:
        done = run("export", "coco", few, tmp_path / "o.json")
        assert "exporting" in done.stderr
        done = run("import", "coco", tmp_path / "o.json", tmp_path / "n.zarr")
        assert "converting" in done.stderr
        assert len(done.stdout.splitlines()) == 1

    def test_what_is_hidden_is_told_in_the_line(self, few: Path, tmp_path: Path) -> None:
        done = run("export", "nucleus", few, tmp_path / "o", "-q", "--overlap", "order")
        assert "masks are not shown as they are by overlap='order'" in done.stdout

    def test_refused(self, few: Path, tmp_path: Path) -> None:
        done = run("export", "coco", few, tmp_path / "o.json", "--noun", "hnd", code=1)
        assert "no mask has noun 'hnd'" in done.stderr
        (tmp_path / "o.json").write_text("[")
        done = run("export", "coco", few, tmp_path / "o.json", code=1)
        assert "--overwrite would replace it" in done.stderr
        done = run("import", "coco", tmp_path / "o.json", tmp_path / "n.zarr", code=1)
        assert "o.json" in done.stderr
        done = run("import", "coco", tmp_path / "gone.json", tmp_path / "n.zarr", code=1)
        assert "gone.json" in done.stderr
        done = run("export", "nucleus", few, tmp_path / "o", "--overlap", "error", code=1)
        assert "masks overlap" in done.stderr
        assert {path.name for path in tmp_path.iterdir()} == {"o.json"}

    @pytest.mark.parametrize(
        "arguments",
        [
            ["export", "yolo", "a", "b"],
            ["export", "coco", "a"],
            ["export", "nucleus", "a", "b", "--overlap", "layers"],
            ["export", "nucleus", "a", "b", "--kind", "all"],
            ["import", "coco", "a", "b", "--fit", "crop"],
            ["import", "ome-zarr", "a", "b"],
        ],
    )
    def test_wrong_usage(self, arguments: list[str]) -> None:
        assert "Usage" in run(*arguments, code=2).stderr

    def test_a_warning_is_its_text(self, few: Path, tmp_path: Path) -> None:
        run("export", "clearml", few, tmp_path / "o", "-q")
        done = run("import", "clearml", tmp_path / "o", tmp_path / "n.zarr", "-q")
        assert done.stderr.startswith("warning: ")
        assert "UserWarning" not in done.stderr

    def test_the_name_of_a_frame_of_others(self, tmp_path: Path) -> None:
        (tmp_path / "masks").mkdir()
        (tmp_path / "masks" / "m.png").write_bytes(encode(np.ones((2, 3), np.uint8)))
        mask = {"id": "00", "uri": "masks/m.png"}
        source = {"id": "default", "uri": "s3://b/street.jpg", "masks": [mask]}
        roi = {"sources": ["default"], "label": ["car"], "mask": {"id": "00", "value": [1, 1, 1]}}
        frame = {"id": "f1", "context_id": "video 7", "sources": [source], "rois": [roi]}
        (tmp_path / "frames.json").write_text(json.dumps([frame]))
        run("import", "clearml", tmp_path, tmp_path / "n.zarr", "-q", "--image-name", "uri")
        assert maskcube.open_masks(tmp_path / "n.zarr").image.values.tolist() == ["street.jpg"]

    def test_sizes(self, tmp_path: Path) -> None:
        masks = given_masks(rows_of_text("##. ..."), score=0.5)
        formats.to_coco(masks, tmp_path / "a.json", progress=False)
        run(
            "import", "coco", tmp_path / "a.json", tmp_path / "n.zarr", "--fit", "pad",
            "--shape", "4", "5",
        )  # fmt: skip
        assert maskcube.open_masks(tmp_path / "n.zarr").shape == (1, 4, 5)

    def test_help_lists_the_formats(self) -> None:
        assert all(name in run("export", "--help").stdout for name in EXPORTS)
        assert all(name in run("import", "--help").stdout for name in IMPORTS)


def test_the_public_names() -> None:
    assert formats.__all__ == sorted(formats.__all__)
    assert dir(formats) == formats.__all__
    for name in formats.__all__:
        assert getattr(formats, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'to_yolo'"):
        _ = formats.to_yolo


def test_importing_the_formats_imports_none_of_them() -> None:
    code = "import sys, maskcube.formats; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "PIL", "pycocotools", "xarray", "maskcube.formats.coco"} & set(loaded)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store of some 2,500 masks: 2.5 GB decoded."""
    place = tmp_path_factory.mktemp("many")
    maskcube.sample_dataset(place / "laion-fmri", n_images=200)
    maskcube.convert(place / "laion-fmri", place / "masks.zarr", progress=False)
    return place / "masks.zarr"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", [*LOSSLESS, "panoptic", "ome_zarr"])
def test_memory_does_not_grow_with_the_masks(name: str, many: Path, tmp_path: Path) -> None:
    kind, options = LOSSLESS.get(name, (name, {}))
    write = (
        "import maskcube; from maskcube import formats;"
        f"masks = maskcube.open_masks({str(many)!r}, chunks=None);"
        f"formats.to_{kind}(masks, {str(tmp_path / 'out')!r}, progress=False, **{options!r})"
    )
    assert peak_of(write) < 450 * 2**20
    if kind != "ome_zarr":
        out, new = str(tmp_path / "out"), str(tmp_path / "new.zarr")
        read = (
            f"from maskcube import formats; formats.from_{kind}({out!r}, {new!r}, progress=False)"
        )
        assert peak_of(read) < 450 * 2**20
