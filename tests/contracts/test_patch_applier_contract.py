"""The PatchApplier port's contract, on the child process and on the twin."""

import subprocess
from types import SimpleNamespace

import hdiffpatch
import numpy as np
import pytest

from edgeloop_agent.errors import PatchFailedError
from edgeloop_agent.ports import PatchJob
from edgeloop_agent.shell import patch_process
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.shell.patch_process import PatchProcess
from edgeloop_controller.packaging.tensor_delta import make_tensor_patch
from edgeloop_protocol.patch_formats import HDIFF, TENSORS
from edgeloop_protocol.tensor_patch import HEADER, MAGIC, SEGMENT, Kind
from edgeloop_simulators.twins.disk import MemoryDisk
from edgeloop_simulators.twins.patch_applier import MemoryPatchApplier

BASE = np.random.default_rng(0).normal(size=50_000).astype(np.float32)
OLD, NEW = BASE.tobytes(), (BASE + np.float32(1e-4)).tobytes() + b"and more"
NEW_BYTES = len(NEW)
MAKE = {TENSORS: make_tensor_patch, HDIFF: lambda old, new: hdiffpatch.diff(old, new, "zstd")}


@pytest.fixture(params=["process", "memory"])
def rig(request, tmp_path):
    disk = OsDisk(tmp_path) if request.param == "process" else MemoryDisk()
    applier = PatchProcess(disk) if request.param == "process" else MemoryPatchApplier(disk)

    def put(path, content):
        with disk.open(path) as file:
            file.write(content)

    def apply(patch, result_bytes=NEW_BYTES, patch_format=TENSORS):
        put("base", OLD)
        put("patch", patch)
        applier.apply(PatchJob(patch_format, "base", "patch", "result", result_bytes))
        return disk.read("result")

    return SimpleNamespace(disk=disk, applier=applier, apply=apply)


def test_it_says_what_it_can_apply(rig):
    assert set(rig.applier.formats) == {TENSORS, HDIFF}


@pytest.mark.parametrize("patch_format", [TENSORS, HDIFF])
def test_a_patch_gives_the_new_file(rig, patch_format):
    assert rig.apply(MAKE[patch_format](OLD, NEW), patch_format=patch_format) == NEW


@pytest.mark.parametrize("patch_format", [TENSORS, HDIFF])
def test_a_patch_that_gives_another_size_fails(rig, patch_format):
    patch = MAKE[patch_format](OLD, NEW)
    for result_bytes in (len(NEW) - 1, len(NEW) + 1):
        with pytest.raises(PatchFailedError):
            rig.apply(patch, result_bytes, patch_format)


@pytest.mark.parametrize("patch_format", [TENSORS, HDIFF])
@pytest.mark.parametrize("spoil", [lambda p: b"", lambda p: p[: len(p) // 2], lambda p: b"x" * 99])
def test_what_is_no_patch_fails_with_words(rig, patch_format, spoil):
    with pytest.raises(PatchFailedError) as failed:
        rig.apply(spoil(MAKE[patch_format](OLD, NEW)), patch_format=patch_format)
    assert str(failed.value)


def test_an_unknown_format_fails(rig):
    with pytest.raises(PatchFailedError, match=r"unknown format 'other\.7'"):
        rig.apply(b"", patch_format="other.7")


def test_a_missing_base_fails(rig):
    with pytest.raises(PatchFailedError):
        rig.applier.apply(PatchJob(TENSORS, "nowhere", "nothing", "result", 10))


def test_a_segment_that_claims_a_huge_result_fails(rig):
    huge = SEGMENT.pack(Kind.PLANES, 4, 1 << 40, 0, 0)
    patch = HEADER.pack(MAGIC, len(OLD), 1 << 40, 1) + huge
    with pytest.raises(PatchFailedError, match="at once; the limit"):
        rig.apply(patch, 1 << 40)


# What may befall the child alone.


@pytest.fixture
def process(tmp_path):
    for name in ("base", "patch"):
        (tmp_path / name).write_bytes(b"")
    return PatchProcess(OsDisk(tmp_path), timeout_s=10.0)


JOB = PatchJob(TENSORS, "base", "patch", "result", 10)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import os; os.abort()", "SIGABRT"),
        ("import time; time.sleep(60)", "not applied within 0.5 s"),
        ("import sys; sys.exit(3)", "code 3"),
        ("import sys; sys.exit('x' * 10_000_000)", "not applied within 0.5 s"),
    ],
)
def test_a_child_that_crashes_hangs_or_floods_is_a_failed_patch(process, monkeypatch, code, why):
    real = subprocess.Popen

    def other_program(command, **options):
        return real([command[0], "-c", code], **options)

    monkeypatch.setattr(patch_process.subprocess, "Popen", other_program)
    process._timeout_s = 0.5 if "within" in why else 10.0
    with pytest.raises(PatchFailedError, match=why):
        process.apply(JOB)


def test_a_child_that_cannot_be_started_is_a_failed_patch(process, monkeypatch):
    monkeypatch.setattr(patch_process.sys, "executable", "/nowhere/python")
    with pytest.raises(PatchFailedError, match="does not start"):
        process.apply(JOB)


def test_a_bomb_is_stopped_by_its_memory_limit(process, tmp_path):
    """hdiff.1 allocates what it is told: the limit is what the offer allows."""
    (tmp_path / "base").write_bytes(b"a" * 1000)
    (tmp_path / "patch").write_bytes(hdiffpatch.diff(b"a" * 1000, bytes(600_000_000), "zstd"))
    with pytest.raises(PatchFailedError):
        process.apply(PatchJob(HDIFF, "base", "patch", "result", 1000))
