"""A training script that wants the controller's secrets. Line of defence: Landlock hides them."""

import json
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

from edgeloop_controller.training.executor import LocalExecutor, TrainingJob
from edgeloop_protocol import landlock

pytestmark = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock")

SECRET = "s3cr3t-of-the-controller"

SCRIPT = """
    import argparse, json, os, pathlib, sys
    parser = argparse.ArgumentParser()
    parser.add_argument("--input"); parser.add_argument("--output")
    output = pathlib.Path(parser.parse_args().output)
    here = pathlib.Path(__file__).parent
    stolen = {}
    def steal(what, how):
        try:
            stolen[what] = how()
        except OSError as error:
            stolen[what] = type(error).__name__
    secrets = ("data/edgeloop.sqlite", "data/ca/key.pem", "conf/controller.toml", "hook.secret")
    for name in ("another-way/data/edgeloop.sqlite", *secrets):
        steal(name, lambda: (here.parent / name).read_text())
    steal("list", lambda: os.listdir(here.parent / "data"))
    steal("link", lambda: (output / "link").symlink_to(here.parent / "data/ca/key.pem")
        or (output / "link").read_text())
    steal("overwrite", lambda: (here.parent / "data/edgeloop.sqlite").write_text("mine"))
    steal("plant", lambda: (here.parent / "data/planted").write_text("mine"))
    victim = int((here / "victim").read_text())
    steal("memory", lambda: open(f"/proc/{victim}/mem", "rb").close())
    steal("victim environ", lambda: pathlib.Path(f"/proc/{victim}/environ").read_text())
    steal("signal", lambda: os.kill(victim, 0))
    steal("input", lambda: (here.parent / "outside/input.csv").read_text())
    steal("helper", lambda: (here / "helper.py").read_text())
    (output / "model.onnx").write_bytes(b"m")
    print(json.dumps(stolen))
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    for name in (
        "data/edgeloop.sqlite",
        "data/ca/key.pem",
        "conf/controller.toml",
        "hook.secret",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(SECRET)
    (tmp_path / "data/runs/1").mkdir(parents=True)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/input.csv").write_text("1,2")
    (tmp_path / "scripts").mkdir()
    (tmp_path / "another-way").symlink_to(tmp_path)
    (tmp_path / "scripts/train.py").write_text(textwrap.dedent(SCRIPT))
    (tmp_path / "scripts/helper.py").write_text("X = 1")
    return tmp_path


def attack(site: Path, hidden: tuple[Path, ...]) -> tuple[dict[str, object], str]:
    """What the script got, and its log."""
    job = TrainingJob(
        site / "scripts/train.py",
        site / "data/runs/1",
        60,
        2**31,
        inputs=(site / "outside/input.csv",),
    )
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, env={"SECRET": SECRET}
    ) as victim:
        (site / "scripts/victim").write_text(str(victim.pid))
        outcome = LocalExecutor(hidden).run(job, threading.Event())
        victim.kill()
    log = (site / "data/runs/1/log.txt").read_text()
    assert outcome.model is not None, outcome.message
    return json.loads(log.splitlines()[-1]), log


def secrets_of(site: Path) -> tuple[Path, ...]:
    return (site / "data", site / "conf/controller.toml", site / "hook.secret", site / "outside")


def test_it_finds_nothing_and_still_trains(site: Path) -> None:
    stolen, log = attack(site, secrets_of(site))
    assert SECRET not in log
    assert stolen.pop("input") == "1,2"
    assert stolen.pop("helper") == "X = 1"
    assert set(map(str, stolen.values())) == {"PermissionError"}, stolen
    assert (site / "data/edgeloop.sqlite").read_text() == SECRET
    assert not (site / "data/planted").exists()


def test_without_the_line_it_has_them_all(site: Path) -> None:
    stolen, _ = attack(site, ())
    assert stolen["data/ca/key.pem"] == SECRET
    assert stolen["conf/controller.toml"] == SECRET
    assert SECRET in str(stolen["victim environ"])
    assert (site / "data/edgeloop.sqlite").read_text() == "mine"


def test_a_configuration_beside_the_script_stays_hidden(site: Path) -> None:
    beside = site / "scripts/controller.toml"
    beside.write_text(SECRET)
    script = site / "scripts/train.py"
    script.write_text(script.read_text().replace("conf/controller.toml", "scripts/controller.toml"))
    stolen, _ = attack(site, (*secrets_of(site), beside))
    assert stolen["scripts/controller.toml"] == "PermissionError"
    assert stolen["helper"] == "X = 1"


def test_a_script_in_the_data_directory_is_seen_alone(site: Path) -> None:
    inside = site / "data/train.py"
    inside.write_text((site / "scripts/train.py").read_text())
    (site / "data/victim").write_text(str(os.getpid()))
    job = TrainingJob(inside, site / "data/runs/1", 60, 2**31)
    LocalExecutor((site / "data",)).run(job, threading.Event())
    log = (site / "data/runs/1/log.txt").read_text()
    assert SECRET not in log
    assert "PermissionError" in log
