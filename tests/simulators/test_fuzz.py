"""Fuzzing: a smoke run of each target, and what was ever found, which stays a case."""

import subprocess
import sys
from pathlib import Path

import pytest

from edgeloop_simulators.fuzz.targets import TARGETS

RUNS = 1000
FOUND = Path(__file__).parent / "fuzz_found"
CASES = sorted(path for path in FOUND.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.name}")
def test_what_was_found_once_is_mended(path: Path) -> None:
    TARGETS[path.parent.name].takes(path.read_bytes())


def test_every_case_is_of_a_target() -> None:
    assert {path.parent.name for path in CASES} <= TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_are_taken(name: str) -> None:
    for seed in (*TARGETS[name].seeds, b"", b"\x00", b"\xff" * 100):
        TARGETS[name].takes(seed)


def test_a_smoke_run(tmp_path: Path) -> None:
    found = fuzz(tmp_path, *TARGETS)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "no finding" in found.stdout
    assert list((tmp_path / "found").glob("*")) == []


def test_an_unknown_target_is_named(tmp_path: Path) -> None:
    assert "there are: selector" in fuzz(tmp_path, "nonsense").stderr


def fuzz(tmp_path: Path, *targets: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "edgeloop_simulators.fuzz", *targets]
    command += ["--runs", str(RUNS), "--found", str(tmp_path / "found")]
    return subprocess.run(command, capture_output=True, text=True, check=False)
