"""The command line as a shell sees it: output, errors and exit codes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from reference import Source, write_source
from servers import SeaweedFS

import maskcube

IMAGE = "shared_12rep_LAION_cluster_1003_i0.jpg"


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "maskcube", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def succeed(*arguments: object) -> str:
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fail(*arguments: object, code: int = 1) -> str:
    done = run(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.stderr


class TestConvert:
    def test_the_report_goes_to_stdout_and_progress_to_stderr(
        self, small: Source, tmp_path: Path
    ) -> None:
        done = run("convert", small.folder, tmp_path / "masks.zarr")
        assert done.returncode == 0
        assert "150 masks of 16 images and 9 nouns in 3 shards" in done.stdout
        assert "150/150" in done.stderr
        assert "masks/s" in done.stderr

    def test_json(self, small: Source, tmp_path: Path) -> None:
        done = run("convert", small.folder, tmp_path / "masks.zarr", "--json")
        assert json.loads(done.stdout)["n_masks"] == 150
        assert done.stderr == ""

    def test_quiet(self, small: Source, tmp_path: Path) -> None:
        done = run("convert", small.folder, tmp_path / "masks.zarr", "--quiet")
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith(f"{tmp_path / 'masks.zarr'}: 150 masks")

    def test_refused(self, tmp_path: Path) -> None:
        source = write_source(tmp_path / "data", n_masks=10)
        source.csv.write_text(source.csv.read_text() + "1,2,3\n")
        target = tmp_path / "masks.zarr"
        assert "as (line, fields): (20, 3)" in fail("convert", source.folder, target)
        assert "no HDF5 of masks" in fail("convert", tmp_path / "none", target)
        source = write_source(tmp_path / "good", n_masks=10)
        assert "is too little" in fail("convert", source.folder, target, "--memory", "1MB")

    def test_messages_speak_of_options(self, small: Source, small_store: Path) -> None:
        assert "; --overwrite would replace it" in fail("convert", small.folder, small_store)

    def test_wrong_usage(self) -> None:
        assert "Usage:" in fail("convert", code=2)
        assert "No such option" in fail("convert", "a", "b", "--fast", code=2)
        assert "No such command" in fail("transform", code=2)

    def test_interrupted_and_run_again(self, tmp_path: Path) -> None:
        """Ctrl-C: one line that says how to go on, and the same command does."""
        # Noise, which takes some seconds to encode: time enough to interrupt it.
        dataset = write_source(tmp_path / "data", n_masks=800, shape=(300, 300)).folder
        target = tmp_path / "masks.zarr"
        arguments = ["-m", "maskcube", "convert", str(dataset), str(target), "--workers", "1"]
        with subprocess.Popen(
            [sys.executable, *arguments],
            stderr=subprocess.PIPE,
            text=True,
            # What is started in the background ignores it, and so does whatever that starts.
            preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - no threads
        ) as process:
            first = tmp_path / "masks.zarr.partial" / "_maskcube" / "shards" / "0.json"
            deadline = time.monotonic() + 60
            while not first.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.005)
            asked = time.monotonic()
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=60)
        assert process.returncode == 1, error
        assert time.monotonic() - asked < 10
        assert "Error: interrupted; run the same command again to resume" in error
        assert "Traceback" not in error
        assert "800 masks of" in succeed("convert", dataset, target)


class TestInfo:
    def test_text_and_json(self, store: Path) -> None:
        text = succeed("info", store)
        assert "306 masks of 1000 x 1000 pixels: 24 images, 67 nouns" in text
        assert "task-images_desc-segmentations.h5" in text
        record = json.loads(succeed("info", store, "--json"))
        assert (record["n_masks"], record["format_version"]) == (306, 1)
        assert record == maskcube.info(store).to_json()

    def test_nothing_there(self, tmp_path: Path) -> None:
        assert fail("info", tmp_path / "x.zarr").startswith("Error: no mask store at")


class TestVerify:
    def test_against_checksums_and_source(self, small_store: Path, small: Source) -> None:
        assert "all 150 masks in 3 shards" in succeed("verify", small_store, "-q")
        text = succeed("verify", small_store, "--source", small.folder)
        assert f"equal to {small.hdf5}" in text
        record = json.loads(succeed("verify", small_store, "--json"))
        assert (record["n_masks"], record["source"]) == (150, None)

    def test_damage(self, small_store: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(small_store, tmp_path / "masks.zarr")
        (copy / "masks/c/2/0/0").unlink()
        error = fail("verify", copy, "-q")
        assert "shard 2 is missing" in error
        assert "mask 128 (image" in error


class TestGet:
    def test_what_an_image_shows(self, store: Path) -> None:
        lines = succeed("get", store, IMAGE).splitlines()
        assert lines[0].split() == ["noun", "instance_id", "score", "localized"]
        assert len(lines) == 15
        records = json.loads(succeed("get", store, IMAGE, "--json"))
        assert records[0]["noun"] == "fingers"

    def test_one_mask(self, store: Path, tmp_path: Path) -> None:
        expected = maskcube.Segmentations(store).get(IMAGE, "hand", 1)
        for name in ("mask.npy", "mask.png"):
            text = succeed("get", store, IMAGE, "hand", "--instance", 1, "-o", tmp_path / name)
            assert f"area: {expected.sum()}" in text
        np.testing.assert_array_equal(np.load(tmp_path / "mask.npy"), expected)
        from PIL import Image

        with Image.open(tmp_path / "mask.png") as picture:
            np.testing.assert_array_equal(np.asarray(picture), expected * 255)
        record = json.loads(succeed("get", store, IMAGE, "sheet music", "--json"))
        assert record["noun"] == "sheet music"

    def test_errors(self, store: Path, tmp_path: Path) -> None:
        assert "has no mask of 'hnad'; it has 'fingers', 'hand'" in fail(
            "get", store, IMAGE, "hnad"
        )
        assert "no mask has image 'x.jpg'" in fail("get", store, "x.jpg")
        assert ".png or .npy" in fail("get", store, IMAGE, "hand", "-o", tmp_path / "mask.tiff")


class TestPlot:
    @pytest.mark.parametrize(
        "options", [["--image", IMAGE], ["--noun", "hand", "--sheet"]], ids=str
    )
    def test_a_picture(self, store: Path, tmp_path: Path, options: list[str]) -> None:
        succeed("plot", store, tmp_path / "picture.png", *options)
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")

    def test_an_overlay_needs_one_image(self, store: Path, tmp_path: Path) -> None:
        assert "give one --image, or --sheet" in fail("plot", store, tmp_path / "p.png")


def test_demo(tmp_path: Path) -> None:
    text = succeed("demo", tmp_path)
    assert "masks.sel(" in text
    for name in ("overlay.png", "contact_sheet.png", "sample.zarr/zarr.json"):
        assert (tmp_path / name).is_file()
    succeed("demo", tmp_path)


def test_version_and_help() -> None:
    assert "0.1.0" in succeed("--version")
    for command in ("convert", "info", "verify", "get", "plot", "demo"):
        assert command in succeed("--help")
        assert "Usage:" in succeed(command, "--help")


class TestBuckets:
    def test_a_life(self, seaweed: SeaweedFS, small: Source) -> None:
        url = seaweed.url(seaweed.new_bucket(), "masks.zarr")
        reach = [
            word
            for name, value in seaweed.options.items()
            for word in ("--storage-option", f"{name}={value}")
        ]
        assert "150 masks" in succeed("convert", small.folder, url, "--quiet", *reach)
        assert json.loads(succeed("info", url, "--json", *reach))["n_masks"] == 150
        assert "equal to" in succeed("verify", url, "--source", small.folder, "--quiet", *reach)
        image, noun = small.table[["image_name", "noun"]].to_numpy()[0]
        assert "area: " in succeed("get", url, image, noun, *reach)
        told = fail("info", f"{url}/no", *reach)
        assert "no mask store at" in told
        assert "secret" not in told

    def test_what_is_no_pair(self) -> None:
        told = fail("info", "s3://bucket/z", "--storage-option", "my-secret", code=2)
        assert "KEY=VALUE" in told
        assert "my-secret" not in told

    def test_nobody(self, seaweed: SeaweedFS) -> None:
        url = seaweed.url(seaweed.new_bucket(), "masks.zarr")
        told = fail("info", url, "--storage-option", f"endpoint_url={seaweed.endpoint}")
        assert "--storage-option anon=false" in told
