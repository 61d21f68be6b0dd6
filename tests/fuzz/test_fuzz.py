"""A little of ``scripts/fuzz``: the same targets, and the loop that runs them."""

from __future__ import annotations

import os
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fuzz import __main__ as loop
from fuzz.mutation import mutated
from fuzz.targets import TARGETS

TESTS = Path(__file__).parents[1]
PATH = os.pathsep.join([str(TESTS), str(TESTS / "support"), os.environ.get("PYTHONPATH", "")])


@pytest.mark.parametrize("name", TARGETS)
def test_good_bytes_are_no_fault(name: str) -> None:
    for seed in TARGETS[name].seeds():
        TARGETS[name].check(seed)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=60)
@given(data=st.binary(max_size=300))
def test_any_bytes(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=150)
@given(number=st.integers(0, 2**32))
def test_good_bytes_with_a_few_changes(name: str, number: int) -> None:
    TARGETS[name].check(mutated(TARGETS[name].seeds(), random.Random(number)))  # noqa: S311


def test_the_loop_says_what_it_has_done(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", PATH)
    asked = ["0.02", "--target", "texts", "--unguided", "--kept", str(tmp_path)]
    assert loop.main(asked) == 0
    found = capsys.readouterr().out
    assert re.search(r"texts +[1-9][\d,]* +\d+\.\d\d s +\d+ MiB  none\n", found)
    assert found.endswith("0 of 1 targets\n")


FAULTS = {
    "raise KeyError(7)": "KeyError: 7: see ",
    "while True: pass": "more than 1 s: see ",
    "import ctypes; ctypes.string_at(0)": "a crash, signal 11: see ",
    "bytearray(2**30 + 2**28)": "more than 1 GiB: see ",
}
"""What a target might do, and what is said of it."""


@pytest.mark.parametrize("code", FAULTS)
def test_the_loop_finds_faults(
    code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        f"def check(data):\n    {code}\n\n"
        "from fuzz import targets\n"
        "targets.TARGETS['texts'] = targets.Target(check, lambda: [b'a'])\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), PATH]))
    asked = ["0.02", "--target", "texts", "--unguided"]
    asked += ["--longest", "1" if "while" in code else "60"]
    asked += ["--kept", str(tmp_path / "kept")]
    assert loop.main(asked) == 1
    found = capsys.readouterr().out
    assert FAULTS[code] in found
    assert found.endswith("1 of 1 targets\n")
    assert (tmp_path / "kept" / "texts").is_file()
