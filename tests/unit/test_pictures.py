"""Where images come from: arrays, functions, folders; and what is refused."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from maskcube.errors import InvalidOption, MissingDependency
from maskcube.insilico.errors import StimulusError
from maskcube.insilico.pictures import Pictures

SIZE = (6, 4)


@pytest.fixture
def pixels(rng: np.random.Generator) -> Any:
    return rng.integers(0, 256, (*SIZE, 3), np.uint8)


class Lazy(Mapping[str, Any]):
    """Images that are read one by one; what was read is counted."""

    def __init__(self, images: dict[str, Any]) -> None:
        self.images, self.read = images, 0

    def __getitem__(self, name: str) -> Any:
        self.read += 1
        return self.images[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.images)

    def __len__(self) -> int:
        return len(self.images)


def test_arrays_by_name(pixels: Any) -> None:
    pictures = Pictures({"a": pixels}, SIZE)
    pictures.check(["a"])
    np.testing.assert_array_equal(pictures["a"], pixels)


def test_a_lazy_mapping_is_read_when_it_is_asked(pixels: Any) -> None:
    images = Lazy({"a": pixels, "b": pixels[1:]})
    pictures = Pictures(images, SIZE)
    pictures.check(["a", "b"])
    assert images.read == 0
    np.testing.assert_array_equal(pictures["a"], pixels)
    assert images.read == 1
    with pytest.raises(StimulusError, match=r"image 'b' is \(5, 4, 3\), where its masks want \(6"):
        pictures["b"]


def test_an_hdf5(pixels: Any, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["a"] = pixels
        pictures = Pictures(file, SIZE)
        pictures.check(["a"])
        np.testing.assert_array_equal(pictures["a"], pixels)


def test_a_function(pixels: Any) -> None:
    asked: list[str] = []

    def read(name: str) -> Any:
        asked.append(name)
        return pixels

    pictures = Pictures(read, SIZE)
    pictures.check(["a", "../b"])
    assert not asked
    np.testing.assert_array_equal(pictures["../b"], pixels)
    assert asked == ["../b"]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".webp"])
def test_a_folder(pixels: Any, tmp_path: Path, suffix: str) -> None:
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}", lossless=True)
    pictures = Pictures(str(tmp_path), SIZE)
    pictures.check([f"a{suffix}"])
    np.testing.assert_array_equal(pictures[f"a{suffix}"], pixels)


def test_a_jpeg_is_as_pillow_reads_it(pixels: Any, tmp_path: Path) -> None:
    Image.fromarray(pixels).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        np.testing.assert_array_equal(Pictures(tmp_path, SIZE)["a.jpg"], np.array(image))


def test_greys_and_palettes_become_colours(pixels: Any, tmp_path: Path) -> None:
    grey = Image.fromarray(pixels[..., 0])
    grey.save(tmp_path / "grey.png")
    grey.convert("1").save(tmp_path / "bits.png")
    Image.fromarray(pixels).quantize(24).save(tmp_path / "palette.png")
    pictures = Pictures(tmp_path, SIZE)
    pictures.check(["grey.png", "bits.png", "palette.png"])
    np.testing.assert_array_equal(pictures["grey.png"], np.repeat(pixels[..., :1], 3, -1))
    assert {*np.unique(pictures["bits.png"]).tolist()} <= {0, 255}
    np.testing.assert_array_equal(pictures["palette.png"], pixels)


def test_an_opaque_alpha_goes_and_another_is_refused(pixels: Any, tmp_path: Path) -> None:
    opaque = np.dstack([pixels, np.full(SIZE, 255, np.uint8)])
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    opaque[2, 2, 3] = 254
    Image.fromarray(opaque).save(tmp_path / "clear.png")
    Image.fromarray(pixels).quantize(24).save(tmp_path / "keyed.png", transparency=0)
    pictures = Pictures(tmp_path, SIZE)
    np.testing.assert_array_equal(pictures["opaque.png"], pixels)
    for name in ("clear.png", "keyed.png"):
        with pytest.raises(StimulusError, match=f"{name}' has transparent pixels: save it on"):
            pictures[name]


def _spoilt(folder: Path, pixels: Any, fault: str) -> str:
    """Write an image with a fault and return its name."""
    image, path = Image.fromarray(pixels), folder / f"{fault}.png"
    if fault == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(path, exif=exif)
    elif fault == "deep":
        Image.fromarray(pixels[..., 0].astype(np.uint16)).save(path)
    elif fault == "inks":
        path = path.with_suffix(".jpg")
        image.convert("CMYK").save(path)
    elif fault == "moving":
        image.save(path, save_all=True, append_images=[Image.fromarray(255 - pixels)])
    elif fault == "cut":
        image.save(path)
        path.write_bytes(path.read_bytes()[:-40])
    elif fault == "drawing":
        path = path.with_suffix(".eps")
        image.save(path)
    elif fault == "empty":
        path.write_bytes(b"")
    elif fault == "pipe":
        os.mkfifo(path)
    return path.name


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("turned", "EXIF orientation 6"),
        ("deep", "mode I;16, which is no colours of 8 bits"),
        ("inks", "mode CMYK"),
        ("moving", "has several frames"),
        ("cut", "is damaged"),
        ("drawing", "in no format of 'JPEG', 'PNG'"),
        ("empty", "in no format of"),
        ("pipe", "is not there"),
        ("absent", "is not there: no file"),
    ],
)
def test_a_file_with_a_fault(pixels: Any, tmp_path: Path, fault: str, told: str) -> None:
    name = _spoilt(tmp_path, pixels, fault)
    with pytest.raises(StimulusError, match=told) as caught:
        Pictures(tmp_path, SIZE)[name]
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_a_bomb_is_not_decoded(tmp_path: Path, side: int) -> None:
    """A picture of gigabytes is refused by its header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">2I5B", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(2**16))
    pieces = (chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(pieces))
    pictures = Pictures(tmp_path, SIZE)
    for ask in (lambda: pictures.check(["a.png"]), lambda: pictures["a.png"]):
        with pytest.raises(StimulusError, match=r"image 'a.png' (has more|is) "):
            ask()


@pytest.mark.parametrize(
    "name",
    [
        "../secret.png",
        "/etc/passwd",
        "a/../../secret.png",
        "a\\..\\secret.png",
        "..",
        ".",
        "",
        "C:a",
        "a\0.png",
        "sub/a.png",
    ],
)
def test_a_name_from_data_is_no_path(pixels: Any, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for place in (tmp_path / "secret.png", folder / "sub" / "a.png"):
        Image.fromarray(pixels).save(place)
    pictures = Pictures(folder, SIZE)
    for ask in (lambda: pictures.check([name]), lambda: pictures[name]):
        with pytest.raises(StimulusError, match="has a name that is no name of a file"):
            ask()


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (np.zeros((*SIZE, 3)), "has dtype float64, where uint8"),
        (np.zeros((*SIZE, 3), np.int64), "has dtype int64"),
        (np.zeros((*SIZE, 3), bool), "has dtype bool"),
        (np.zeros(SIZE, np.uint8), r"is \(6, 4\)"),
        (np.zeros((*SIZE, 4), np.uint8), r"is \(6, 4, 4\)"),
        (np.zeros((3, *SIZE), np.uint8), r"is \(3, 6, 4\)"),
        (np.zeros((12, 8, 3), np.uint8), r"is \(12, 8, 3\).*resize it"),
        (None, "has dtype object"),
    ],
)
def test_an_array_with_a_fault(image: Any, told: str) -> None:
    for images in ({"a": image}, lambda _: image):
        with pytest.raises(StimulusError, match=f"image 'a' {told}"):
            Pictures(images, SIZE)["a"]


def test_all_faults_are_told_at_once(pixels: Any, tmp_path: Path) -> None:
    images = {"a": pixels, "b": pixels[1:], "c": pixels.astype(float)}
    with pytest.raises(StimulusError) as caught:
        Pictures(images, SIZE).check(["a", "b", "c", "d"])
    told = str(caught.value)
    assert told.startswith("3 images cannot be shown:")
    assert all(f"image {name!r}" in told for name in "bcd")
    with pytest.raises(StimulusError, match=r"100 images .*(?s:.*)\(100 in all\)") as caught:
        Pictures(tmp_path, SIZE).check([f"{number}.png" for number in range(100)])
    assert len(str(caught.value).splitlines()) == 34


@pytest.mark.parametrize(
    "images", [3, None, [np.zeros((*SIZE, 3), np.uint8)], "nowhere", "s3://a/b"]
)
def test_no_images_at_all(images: Any) -> None:
    with pytest.raises(InvalidOption, match="images"):
        Pictures(images, SIZE)


def test_a_folder_needs_pillow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingDependency, match=r"pip install \"maskcube\[formats\]\""):
        Pictures(tmp_path, SIZE)
