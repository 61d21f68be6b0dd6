"""What exports share: masks by image, places to write to, records, pictures, reports."""

from __future__ import annotations

import errno
import io
import json
import math
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scenes import given_masks, images_of, rows_of_text

import maskcube
from maskcube import InvalidOption, StoreExists
from maskcube.formats import png
from maskcube.formats.files import MaskFiles
from maskcube.formats.images import MaskImages
from maskcube.formats.output import REPORT, new_file, new_folder, to_json
from maskcube.formats.record import Record
from maskcube.formats.report import Tally


class TestImages:
    def test_those_of_a_store(self, store: Path) -> None:
        masks = maskcube.open_masks(store)
        images = MaskImages(masks)
        assert images.names == list(dict.fromkeys(masks.image.values))
        assert images.nouns == sorted(set(masks.noun.values))
        assert images.shape == (1000, 1000)
        seen = 0
        for found in images.map(lambda each: each, progress=False):
            expected = masks[masks.image == found.image]
            assert [record.noun for record in found.records] == expected.noun.values.tolist()
            assert found.areas.tolist() == expected.area.values.tolist()
            np.testing.assert_array_equal(list(found.each()), expected.values)
            np.testing.assert_array_equal(list(found.each([1, 0])), expected.values[[1, 0]])
            seen += len(found)
        assert seen == images.n_masks == len(masks)

    def test_a_part_of_each_mask_has_its_own_area(self, store: Path) -> None:
        masks = maskcube.open_masks(store).isel(y=slice(300, 500), x=slice(0, 900))
        images = MaskImages(masks)
        assert images.shape == (200, 900)
        name = images.names[0]
        expected = masks[masks.image == name].values
        assert images[name].areas.tolist() == expected.sum(axis=(1, 2)).tolist()

    def test_nothing_selected(self, store: Path) -> None:
        images = MaskImages(maskcube.open_masks(store)[:0])
        assert images.names == []
        assert list(images.map(len, progress=False)) == []

    def test_many_masks_of_an_image_are_never_held_together(self) -> None:
        images = images_of(np.zeros((1_000, 4, 4), np.uint8))
        sizes: list[int] = []

        def read(rows: Any) -> Any:
            sizes.append(len(rows))
            return np.zeros((len(rows), 4, 4), np.uint8)

        images.read = read  # type: ignore[method-assign]
        assert len(list(images["a.jpg"].each())) == 1_000
        assert max(sizes) == 32

    def test_dropped_coordinates_have_defaults(self) -> None:
        masks = given_masks(rows_of_text("#", ".")).drop_vars(["score", "mask_row", "localized"])
        records = MaskImages(masks).records
        assert [record.mask_row for record in records] == [0, 1]
        assert {(record.score, record.localized) for record in records} == {(None, 1)}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("score", math.inf),
            ("box_x0", -math.inf),
            ("score", "best"),
            ("instance", 1.5),
            ("mask_row", "first"),
            ("noun", "\ud800"),
            ("image", "a\0"),
        ],
    )
    def test_coordinates_that_no_store_has(self, name: str, value: object) -> None:
        masks = given_masks(rows_of_text("#", "."))
        masks = masks.assign_coords({name: ("mask", np.array([value] * 2, object))})
        with pytest.raises(InvalidOption, match=name):
            MaskImages(masks)

    def test_coordinates_of_another_type(self) -> None:
        columns: dict[str, list[Any]] = {
            "mask_row": ["3", math.nan],
            "instance": [1.0, None],
            "score": [None, 0.5],
        }
        masks = given_masks(rows_of_text("#", "."))
        given = {name: ("mask", np.array(values, object)) for name, values in columns.items()}
        first, second = MaskImages(masks.assign_coords(given)).records
        assert (first.mask_row, first.instance, first.score) == (3, 1, None)
        assert (second.mask_row, second.instance, second.score) == (None, None, 0.5)

    def test_masks_without_pixels(self) -> None:
        with pytest.raises(InvalidOption, match="there are none"):
            MaskImages(given_masks(np.zeros((2, 0, 3), np.uint8)))

    @pytest.mark.parametrize("lost", ["image", "noun"])
    def test_labels_are_needed(self, lost: str) -> None:
        with pytest.raises(InvalidOption, match=f"no coordinate '{lost}'"):
            MaskImages(given_masks(rows_of_text("#")).drop_vars(lost))

    def test_what_is_no_mask(self, store: Path) -> None:
        masks = maskcube.open_masks(store)[:2]
        with pytest.raises(InvalidOption, match="float64"):
            MaskImages(masks * 0.5)
        with pytest.raises(InvalidOption, match="not \\('y', 'x'\\)"):
            MaskImages(masks[0])
        with pytest.raises(InvalidOption, match="other than 0 and 1"):
            list(MaskImages(masks * np.uint8(3)).map(lambda m: list(m.each()), progress=False))

    def test_what_fails_is_raised_and_the_rest_is_not_begun(self) -> None:
        images = images_of(np.zeros((50, 1, 1), np.uint8), image=[f"{n}" for n in range(50)])
        begun: list[str] = []

        def fail(masks: Any) -> None:
            begun.append(masks.image)
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            list(images.map(fail, progress=False))
        assert len(begun) < 50


class TestRecords:
    RECORD = Record(
        image="a.jpg",
        noun="hand",
        instance=2,
        score=0.5,
        box=(1.0, None, 3.5, 4.0),
        localized=0,
        mask_file="x.png",
        mask_row=7,
    )

    def test_properties_give_the_record_back(self) -> None:
        properties = json.loads(to_json(self.RECORD.properties()))
        assert "box_y0" not in properties
        assert Record.of("a.jpg", "hand", properties) == self.RECORD

    def test_foreign_spellings(self) -> None:
        found = Record.of("a", "b", {"instance": "3", "score": 1, "mask_row": 4.0, "else": []})
        assert (found.instance, found.score, found.mask_row) == (3, 1.0, 4)
        assert Record.of("a", "b", {"score": math.nan}).score is None

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("instance", "three"),
            ("instance", 1.5),
            ("instance", 2**63),
            ("instance", "9" * 5_000),
            ("instance", True),
            ("instance", [1]),
            ("score", "high"),
            ("score", math.inf),
            ("score", 10**400),
            ("box_x0", {}),
            ("localized", 2),
            ("localized", "yes"),
            ("mask_file", 5),
            ("mask_file", "a\0b"),
            ("mask_row", math.nan),
        ],
    )
    def test_what_is_wrong_is_said(self, name: str, value: object) -> None:
        with pytest.raises(ValueError, match=f"^{name} must be .*, found "):
            Record.of("a", "b", {name: value})

    @pytest.mark.parametrize("noun", [None, "", 3, "a\0", "\ud800", ["hand"]])
    def test_a_noun_is_a_text(self, noun: object) -> None:
        with pytest.raises(ValueError, match=r"^noun must be a text"):
            Record.of("a", noun, {})


class TestPlaces:
    def test_a_folder_appears_when_it_is_whole(self, tmp_path: Path) -> None:
        with new_folder(tmp_path / "deep" / "out") as folder:
            (folder / "a").write_text("a")
            assert not (tmp_path / "deep" / "out").exists()
        assert {path.name for path in (tmp_path / "deep").iterdir()} == {"out"}
        assert {path.name for path in (tmp_path / "deep" / "out").iterdir()} == {"a", REPORT}

    def test_a_file_appears_when_it_is_whole(self, tmp_path: Path) -> None:
        with new_file(tmp_path / "out.json") as file:
            file.write("é")
            assert not (tmp_path / "out.json").exists()
        assert (tmp_path / "out.json").read_bytes() == "é".encode()
        assert [path.name for path in tmp_path.iterdir()] == ["out.json"]

    @pytest.mark.parametrize("make", [new_folder, new_file])
    def test_nothing_is_left_of_what_failed(self, make: Any, tmp_path: Path) -> None:
        with pytest.raises(ZeroDivisionError), make(tmp_path / "out"):
            _ = 1 / 0
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("make", [new_folder, new_file])
    def test_what_is_there_stays(self, make: Any, tmp_path: Path) -> None:
        out = tmp_path / "out"
        with make(out):
            pass
        before = out.stat().st_ino
        with pytest.raises(StoreExists, match="overwrite=True"), make(out):
            pytest.fail("it was there")
        with pytest.raises(ZeroDivisionError), make(out, overwrite=True):
            _ = 1 / 0
        assert out.stat().st_ino == before
        with make(out, overwrite=True):
            pass
        assert out.stat().st_ino != before
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    def test_only_an_export_is_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.tex").write_text("all of it")
        with (
            pytest.raises(StoreExists, match="no folder of an export"),
            new_folder(tmp_path / "out", overwrite=True),
        ):
            pytest.fail("it is not ours")
        (tmp_path / "file").write_text("x")
        with pytest.raises(StoreExists), new_folder(tmp_path / "file", overwrite=True):
            pytest.fail("it is not ours")
        with (
            pytest.raises(StoreExists, match="no file of an export"),
            new_file(tmp_path / "out", overwrite=True),
        ):
            pytest.fail("it is not ours")
        assert (tmp_path / "out" / "thesis.tex").read_text() == "all of it"

    @pytest.mark.parametrize(
        "text", ["import maskcube", '{"info": {"description": "COCO 2017"}}', " ", "\n["]
    )
    def test_no_other_file_is_replaced(self, text: str, tmp_path: Path) -> None:
        out = tmp_path / "analysis"
        out.write_text(text)
        for overwrite in (True, False):
            with (
                pytest.raises(StoreExists, match="is no file of an export, and is not replaced"),
                new_file(out, overwrite=overwrite),
            ):
                pytest.fail("it is not ours")
        assert out.read_text() == text

    def test_a_folder_of_that_name_with_partial_is_not_deleted(self, tmp_path: Path) -> None:
        (tmp_path / "out.partial").mkdir()
        (tmp_path / "out.partial" / "mine").write_text("x")
        with pytest.raises(StoreExists, match="is in the way"), new_folder(tmp_path / "out"):
            pytest.fail("it is not ours")
        assert (tmp_path / "out.partial" / "mine").exists()

    def test_a_link_is_not_followed(self, tmp_path: Path) -> None:
        (tmp_path / "victim").mkdir()
        (tmp_path / "victim" / REPORT).write_text("{}")
        (tmp_path / "out.partial").symlink_to(tmp_path / "victim")
        with pytest.raises(StoreExists), new_folder(tmp_path / "out"):
            pytest.fail("it leads elsewhere")
        with pytest.raises(StoreExists), new_file(tmp_path / "out"):
            pytest.fail("it leads elsewhere")
        assert (tmp_path / "victim" / REPORT).exists()

    @pytest.mark.parametrize("make", [new_folder, new_file])
    @pytest.mark.parametrize("overwrite", [False, True])
    def test_only_what_an_export_makes_is_replaced(
        self, make: Any, tmp_path: Path, *, overwrite: bool
    ) -> None:
        os.mkfifo(tmp_path / "pipe")
        (tmp_path / "nowhere").symlink_to(tmp_path / "not there")
        (tmp_path / "file.txt").write_text("mine")
        (tmp_path / "link").symlink_to(tmp_path / "file.txt")
        (tmp_path / "loop").symlink_to("loop")
        for name in ("pipe", "nowhere", "link", "loop"):
            with pytest.raises(StoreExists), make(tmp_path / name, overwrite=overwrite):
                pytest.fail("it is taken")
        assert sorted(p.name for p in tmp_path.iterdir()) == [
            "file.txt",
            "link",
            "loop",
            "nowhere",
            "pipe",
        ]
        assert (tmp_path / "file.txt").read_text() == "mine"

    @pytest.mark.parametrize("make", [new_folder, new_file])
    @pytest.mark.parametrize("path", ["zarr.json", "masks/new", "new", "masks/deep/new"])
    def test_nothing_goes_into_a_store(
        self, make: Any, path: str, store: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "link").symlink_to(store)
        for place in (store, tmp_path / "link"):
            with (
                pytest.raises(InvalidOption, match="Zarr group"),
                make(place / path, overwrite=True),
            ):
                pytest.fail("it is a store")

    @pytest.mark.parametrize("make", [new_folder, new_file])
    def test_a_place_has_a_name(self, make: Any) -> None:
        with pytest.raises(InvalidOption, match="no name"), make("/"):
            pytest.fail("it has none")

    def test_what_was_killed_before_it_wrote_or_while_it_was_cleared(self, tmp_path: Path) -> None:
        partial = tmp_path / "new.partial"
        partial.mkdir()
        with new_folder(tmp_path / "new"):
            pass
        (tmp_path / "other.partial" / "masks").mkdir(parents=True)
        (tmp_path / "other.partial" / REPORT).write_text("")
        kept = []

        def killed(folder: Path, **_: Any) -> None:
            kept.append((tmp_path / "other.partial" / REPORT).exists())
            raise KeyboardInterrupt(folder)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("maskcube.formats.output.shutil.rmtree", killed)
            with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "other"):
                pytest.fail("it is not clear")
        assert kept == [True]
        with new_folder(tmp_path / "other"):
            pass
        assert sorted(p.name for p in tmp_path.iterdir()) == ["new", "other"]

    @pytest.mark.parametrize("make", [new_folder, new_file])
    def test_one_process_writes_at_a_time(self, make: Any, tmp_path: Path) -> None:
        place = tmp_path / "out"
        with make(place), pytest.raises(StoreExists, match="another process"), make(place):
            pytest.fail("somebody is there")

    def test_what_a_killed_export_left_is_cleared(self, tmp_path: Path) -> None:
        script = (
            "import sys, time; from maskcube.formats.output import new_folder\n"
            f"with new_folder({str(tmp_path / 'out')!r}) as folder:\n"
            "    (folder / 'a').write_text('a'); print('begun', flush=True); time.sleep(60)"
        )
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"begun\n"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert not (tmp_path / "out").exists()
        with new_folder(tmp_path / "out") as folder:
            assert not (folder / "a").exists()
        assert [path.name for path in tmp_path.iterdir()] == ["out"]

    @pytest.mark.parametrize("make", [new_folder, new_file])
    def test_a_full_disk(self, make: Any, tmp_path: Path) -> None:
        with (
            pytest.raises(
                OSError, match=r"No space left on device: .*out is not written"
            ) as caught,
            make(tmp_path / "out"),
        ):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        assert caught.value.errno == errno.ENOSPC
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("make", [new_folder, new_file])
    @pytest.mark.parametrize("path", ["s3://bucket/out", "gs://b/o", "https://h/x", "a\0b"])
    def test_a_place_is_on_this_machine(self, make: Any, path: str) -> None:
        with pytest.raises(InvalidOption), make(path):
            pytest.fail("it is elsewhere")


class TestPictures:
    @given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (3,)]))
    def test_there_and_back(self, height: int, width: int, channels: tuple[int, ...]) -> None:
        rng = np.random.default_rng(height * width)
        pixels = rng.integers(0, 256, (height, width, *channels), np.uint8)
        data = png.encode(pixels)
        assert png.size_of(data) == (height, width)
        np.testing.assert_array_equal(png.decode(data), pixels)

    def saved(self, image: Image.Image, tmp_path: Path) -> Any:
        image.save(tmp_path / "a.png")
        return png.decode((tmp_path / "a.png").read_bytes())

    def test_a_palette_gives_indices(self, tmp_path: Path) -> None:
        indices = np.arange(6, dtype=np.uint8).reshape(2, 3)
        image = Image.fromarray(indices).convert("P")
        image.putpalette([200, 10, 10] * 256)
        image.putdata(indices.reshape(-1).tolist())
        assert self.saved(image, tmp_path).tolist() == indices.tolist()

    def test_bits(self, tmp_path: Path) -> None:
        image = Image.fromarray(np.array([[True, False, True]]))
        assert self.saved(image, tmp_path).tolist() == [[1, 0, 1]]

    def test_wide_greys(self, tmp_path: Path) -> None:
        wide = np.array([[0, 300, 65535]], np.uint16)
        assert self.saved(Image.fromarray(wide), tmp_path).tolist() == wide.tolist()

    def test_faux_greys(self) -> None:
        grey = np.array([[1, 2], [3, 4]], np.uint8)
        assert png.greys(np.stack([grey] * 3, axis=-1)).tolist() == grey.tolist()
        with pytest.raises(ValueError, match="has colours"):
            png.greys(np.array([[[1, 2, 3]]], np.uint8))

    def test_colours(self) -> None:
        pixels = np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8)
        assert png.colours(pixels).tolist() == [[1 + 2 * 256 + 3 * 65536, 2**24 - 1]]
        assert png.colours(np.array([[2]], np.uint8)).tolist() == [[2 + 2 * 256 + 2 * 65536]]

    @pytest.mark.parametrize(
        "data", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n", b"\x89PNG\r\n\x1a\n" * 99]
    )
    def test_what_is_none(self, data: bytes) -> None:
        for ask in (png.decode, png.size_of):
            with pytest.raises(ValueError, match=r"^is no PNG|^is damaged"):
                ask(data)

    def test_a_cut_one(self) -> None:
        data = png.encode(np.random.default_rng(0).integers(0, 256, (50, 50), np.uint8))
        with pytest.raises(ValueError, match=r"^is damaged"):
            png.decode(data[: len(data) // 2])

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
    def test_a_cut_one_of_any_kind(self, mode: str) -> None:
        file = io.BytesIO()
        Image.new(mode, (50, 50)).save(file, "PNG")
        data = file.getvalue()
        assert png.decode(data).shape[:2] == (50, 50)
        for end in (data.index(b"IDAT") + 6, data.index(b"IEND") - 9):
            with pytest.raises(ValueError, match=r"^is damaged"):
                png.decode(data[:end] + b"\0" * 40)

    @pytest.mark.parametrize(
        "kind", [b"iCCP", b"gAMA", b"cHRM", b"tRNS", b"zTXt", b"acTL", b"fcTL"]
    )
    @pytest.mark.parametrize("size", [0, 1, 5])
    def test_an_odd_chunk_behind_the_pixels(self, kind: bytes, size: int) -> None:
        good = png.encode(np.zeros((2, 2), np.uint8))
        body = kind + b"\0" * size
        odd = size.to_bytes(4, "big") + body + zlib.crc32(body).to_bytes(4, "big")
        try:
            assert png.decode(good[:-12] + odd + good[-12:]).shape == (2, 2)
        except ValueError as error:
            assert str(error).startswith(("is damaged", "is no PNG"))  # noqa: PT017 - either will do

    @pytest.mark.parametrize("side", [9_000, 10_000])
    def test_a_large_one_is_refused_without_a_warning(self, side: int) -> None:
        small = png.encode(np.zeros((2, 2), np.uint8))
        body = b"IHDR" + side.to_bytes(4, "big") * 2 + small[24:29]
        data = small[:12] + body + zlib.crc32(body).to_bytes(4, "big") + small[33:]
        for ask in (png.decode, png.size_of):
            with pytest.raises(ValueError, match="too many"):
                ask(data)

    def test_an_endless_one(self) -> None:
        """100,000 x 100,000 pixels in a header; nothing is decoded."""
        header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
        data = b"\x89PNG\r\n\x1a\n" + (13).to_bytes(4, "big") + header
        data += zlib.crc32(header).to_bytes(4, "big")
        with pytest.raises(ValueError, match=r"is no PNG|too many"):
            png.decode(data)


class TestMaskFiles:
    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "secret.png").write_bytes(b"secret")
        folder = tmp_path / "masks"
        (folder / "deep").mkdir(parents=True)
        (folder / "a.png").write_bytes(b"a")
        (folder / "deep" / "b.png").write_bytes(b"b")
        (folder / "a b%.png").write_bytes(b"c")
        (folder / "link.png").symlink_to(tmp_path / "secret.png")
        return folder

    @pytest.mark.parametrize(
        ("name", "found"),
        [
            ("a.png", b"a"),
            ("deep/b.png", b"b"),
            ("deep\\b.png", b"b"),
            ("elsewhere/a.png", b"a"),
            ("/data/masks/a.png", b"a"),
            ("s3://bucket/deep/b.png", b"b"),
            ("s3://bucket/train/deep/b.png", b"b"),
            ("x/../deep/b.png", b"b"),
            ("https://h/x/a.png?signature=x", b"a"),
            ("https://h/a%20b%25.png", b"c"),
            ("../a.png", b"a"),
        ],
    )
    def test_found(self, folder: Path, name: str, found: bytes) -> None:
        assert MaskFiles(folder).read(name) == found

    @pytest.mark.parametrize(
        "name",
        [
            "../secret.png",
            "/secret.png",
            "link.png",
            "",
            "..",
            "/",
            "a\0",
            "http://[",
            "deep",
            "x" * 999,
        ],
    )
    def test_not_below_the_folder(self, folder: Path, name: str) -> None:
        with pytest.raises(ValueError, match=r"^is not in"):
            MaskFiles(folder).read(name)

    def test_asked_of_the_caller(self, folder: Path) -> None:
        asked: dict[str, bytes | str | Path] = {
            "s3://x": b"data",
            "y": folder / "a.png",
            "z": str(folder / "deep" / "b.png"),
        }
        files = MaskFiles(asked.__getitem__)
        assert [files.read(name) for name in asked] == [b"data", b"a", b"b"]

    @pytest.mark.parametrize("given", [None, 5, [], io.BytesIO(b"a")])
    def test_what_a_caller_gives_may_be_no_file(self, given: Any) -> None:
        with pytest.raises(ValueError, match=r"^was not given: TypeError"):
            MaskFiles(lambda _: given).read("a.png")

    def test_a_caller_may_fail_as_it_likes(self) -> None:
        class TooManyRequestsError(Exception):
            pass

        def ask(name: str) -> bytes:
            raise TooManyRequestsError(name)

        with pytest.raises(ValueError, match=r"^was not given: TooManyRequestsError: a\.png$"):
            MaskFiles(ask).read("a.png")

    def test_two_names_are_never_one_file(self, folder: Path) -> None:
        files = MaskFiles(folder.parent, inside="masks")
        assert files.read("masks/a.png") == b"a"
        with pytest.raises(ValueError, match=r"as 'masks/a\.png' is"):
            files.read("s3://bucket/a.png")
        assert files.read("deep/b.png") == b"b"

    def test_a_pipe_is_not_waited_for(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.png")
        with pytest.raises(ValueError, match=r"^is no file$"):
            MaskFiles(lambda _: tmp_path / "pipe.png").read("a.png")

    def test_other_bytes_than_before(self, folder: Path) -> None:
        files = MaskFiles(folder)
        assert files.read("a.png") == files.read("a.png")
        (folder / "a.png").write_bytes(b"other")
        with pytest.raises(ValueError, match=r"^has other bytes than when it was first read"):
            files.read("a.png")
        answers = iter([b"one", b"two"])
        asked = MaskFiles(lambda _: next(answers))
        asked.read("x")
        with pytest.raises(ValueError, match=r"^has other bytes"):
            asked.read("x")


class TestReports:
    def report(self, tmp_path: Path, overlap: str | None = "smallest") -> Any:
        masks = images_of(rows_of_text("##", "#.", ".."), noun=["hand", "ring", "air"])["a.jpg"]
        tally = Tally("test", tmp_path / "out", overlap)
        with new_folder(tmp_path / "out") as folder:
            tally.add(masks, np.array([1, 1, 0]) if overlap else None)
            return tally.report(folder)

    def test_each_mask(self, tmp_path: Path) -> None:
        report = self.report(tmp_path)
        assert [mask.noun for mask in report.changed] == ["hand", "air"]
        assert [mask.noun for mask in report.dropped] == ["air"]
        assert report.to_dataframe().visible.tolist() == [1, 1, 0]
        assert "2 masks are not shown as they are by overlap='smallest', 1 of 3 pixels" in str(
            report
        )
        assert "1 left out: 'air 0 of a.jpg'" in str(report)
        assert "\n" not in str(report)

    def test_it_is_saved(self, tmp_path: Path) -> None:
        report = self.report(tmp_path)
        saved = json.loads((tmp_path / "out" / REPORT).read_text())
        assert saved == report.to_json()
        assert saved["n_dropped"] == 1
        assert saved["masks"][0]["visible"] == 1

    def test_nothing_hidden(self, tmp_path: Path) -> None:
        report = self.report(tmp_path, None)
        assert report.changed == []
        assert "every pixel of every mask is there" in str(report)


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        to_json({"score": math.nan})
    with pytest.raises(TypeError):
        to_json({"n": np.uint8(3)})
