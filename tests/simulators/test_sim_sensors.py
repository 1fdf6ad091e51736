"""Sensors with a runner's stand-in at the other end of the socket."""

import json
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeloop_simulators.datasets.windows import Portion, Window
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.sensors import Fault, SensorBank
from edgeloop_simulators.truth import Truth


def windows(name: str, start: int) -> tuple[Window, ...]:
    return tuple(
        Window(f"r0:{i}-{i + 1}", name, "g", np.array([i, 1.0], dtype=np.float32))
        for i in range(start, start + 10)
    )


PORTIONS = [
    Portion("d0", "g", windows("sit", 0), windows("stand", 10)),
    Portion("d1", "g", windows("sit", 20), windows("stand", 30)),
]


@pytest.fixture
def truth(tmp_path: Path) -> Iterator[Truth]:
    made = Truth(tmp_path)
    yield made
    made.close()


@pytest.fixture
def bank(truth: Truth) -> Iterator[SensorBank]:
    with tempfile.TemporaryDirectory(prefix="el-") as directory:
        made = SensorBank(
            PORTIONS, truth, Path(directory), examples_per_s=400, block_windows=3, seed=1
        )
        made.start()
        yield made
        made.stop()


class Runner:
    """Connects as a runner does."""

    def __init__(self, bank: SensorBank, device: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(str(bank.path(device)))
        self._lines = self._socket.makefile("rb")

    def read(self) -> dict:
        return json.loads(self._lines.readline())

    def read_until(self, wanted: Callable[[dict], bool]) -> dict:
        for _ in range(2000):
            example = self.read()
            if wanted(example):
                return example
        pytest.fail("not seen in 2000 examples")

    def read_until_quiet(self) -> None:
        self._socket.settimeout(0.3)
        for _ in range(10_000):
            try:
                self.read()
            except TimeoutError:
                return
        pytest.fail("it goes on")

    def answer(self, reference: str, label: str, digest: str = "d") -> None:
        document = {"reference": reference, "label": label, "confidence": 0.5}
        document |= {"version": "1", "manifest_digest": digest, "at": 0}
        self._socket.sendall(json.dumps(document).encode() + b"\n")

    def say(self, line: bytes) -> None:
        self._socket.sendall(line)

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def first_row(example: dict) -> int:
    return int(example["reference"][3:].split("-")[0])


def test_each_device_is_played_its_own_windows(bank: SensorBank) -> None:
    for device, rows in (("d0", range(10)), ("d1", range(20, 30))):
        runner = Runner(bank, device)
        seen = {first_row(runner.read()) for _ in range(60)}
        assert seen == set(rows)
        runner.close()


def test_answers_are_kept_with_the_true_label(
    bank: SensorBank, truth: Truth, tmp_path: Path, wait_until: Callable[..., None]
) -> None:
    runner = Runner(bank, "d0")
    example = runner.read()
    runner.answer("r9:0-1", "sit")  # never played: it has no truth
    runner.say(b"no json\n[]\n")
    runner.answer(example["reference"], "stand")
    wait_until(lambda: truth.answered_by("d0", "d") == 1)
    truth.close()
    (line,) = (tmp_path / "answers.jsonl").read_text().splitlines()
    answer = json.loads(line)
    assert (answer["truth"], answer["label"], answer["phase"]) == ("sit", "stand", "before")
    assert answer["reference"] == example["reference"]


def test_the_world_changes_for_those_who_move(bank: SensorBank, truth: Truth) -> None:
    moved, stayed = Runner(bank, "d0"), Runner(bank, "d1")
    bank.change_world(["d0"])
    example = moved.read_until(lambda e: first_row(e) >= 10)
    assert truth.label_of("d0", example["reference"]) == "stand"
    for _ in range(40):
        assert 20 <= first_row(stayed.read()) < 30


def test_a_broken_sensor_changes_its_channel_alone(bank: SensorBank, truth: Truth) -> None:
    runner = Runner(bank, "d0")
    assert runner.read()["values"][1] == 1.0
    bank.break_sensor("d0", Fault(columns=(1,), kind="stuck", value=7.0))
    example = runner.read_until(lambda e: e["values"][1] == 7.0)
    assert example["values"][0] == first_row(example)


@pytest.mark.parametrize(("kind", "value", "expected"), [("stuck", 2, 2), ("gain", 3, 12)])
def test_faults(kind: str, value: float, expected: float) -> None:
    values = np.full((5, 2), 4, dtype=np.float32)
    broken = Fault((0,), kind, value).apply(values, np.random.default_rng(0))
    assert broken[:, 0].tolist() == [expected] * 5
    assert broken[:, 1].tolist() == values[:, 0].tolist() == [4] * 5


def test_noise_spreads() -> None:
    values = np.zeros((1000, 2), dtype=np.float32)
    broken = Fault((0,), "noise", 2.0).apply(values, np.random.default_rng(0))
    assert 1.8 < broken[:, 0].std() < 2.2


def test_the_newest_connection_is_the_one_that_is_played_to(bank: SensorBank) -> None:
    old = Runner(bank, "d0")
    old.read()
    new = Runner(bank, "d0")
    for _ in range(20):
        new.read()
    old.read_until_quiet()
    new.read()


def test_after_silence_nothing_is_played_but_answers_are_taken(
    bank: SensorBank, truth: Truth, wait_until: Callable[..., None]
) -> None:
    runner = Runner(bank, "d0")
    example = runner.read()
    bank.silence()
    runner.read_until_quiet()
    runner.answer(example["reference"], "sit")
    wait_until(lambda: truth.answered_by("d0", "d") == 1)


def test_a_socket_path_that_is_too_long_says_so(truth: Truth) -> None:
    bank = SensorBank(
        PORTIONS, truth, Path("/tmp/" + "x" * 120), examples_per_s=1, block_windows=1, seed=0
    )
    with pytest.raises(SimulatorError, match="set TMPDIR to a shorter one"):
        bank.path("d0")
