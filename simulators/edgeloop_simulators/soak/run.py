"""One soak: the agent started, swapped from version to version, and weighed after each.

Invariants: two slots, one that keeps its version and one that is offered the next of three each
time, so that each swap downloads, self-tests, proves and commits; a weight is taken when the new
version is committed, its predecessor's process gone, and a window of its answers told.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import psutil
import pyarrow as pa

from edgeloop.toml_text import toml_text
from edgeloop_controller.packaging.package import package
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.manifest import ManifestDraft
from edgeloop_protocol.messages import Offer
from edgeloop_simulators.bench.model import FEATURES, LABELS, mlp
from edgeloop_simulators.errors import SimulatorError
from edgeloop_simulators.fleet import Process, program
from edgeloop_simulators.soak.middle import DEVICE, Middle
from edgeloop_simulators.soak.verdict import Weight
from edgeloop_simulators.weighing import stored_in, weigh

STEADY: Final = "steady"
SWAPPED: Final = "swapped"
SLOTS: Final = (STEADY, SWAPPED)
LOGS: Final = 1 + len(SLOTS)
"""The agent's own, and one a slot."""
VERSIONS: Final = 4
"""One that stays and three that take turns: a device keeps two, so the third is fetched again."""
ROWS: Final = 500
SWAP_S: Final = 2.0
"""What a swap takes at least, by which the rate of inferences is chosen."""
STEADY_SHARE: Final = 0.8
WINDOW_S: Final = 0.5
TIMEOUT_S: Final = 120.0
STOP_TIMEOUT_S: Final = 15.0


@dataclass(frozen=True, slots=True)
class Shelf:
    contents: Mapping[str, bytes]
    offers: tuple[Offer, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    swaps: int
    inferences: int

    def rate_hz(self, share: float) -> float:
        return share * self.inferences / (self.swaps * SWAP_S)


class Soak:
    """Iterate over `weights` to its end; then `inferences`, `lost` and `restarts` say the rest."""

    def __init__(self, agent: Process, middle: Middle, state_dir: Path, shelf: Shelf) -> None:
        self._agent, self._middle, self._state_dir, self._shelf = agent, middle, state_dir, shelf
        self._steady_pid = 0

    @property
    def inferences(self) -> int:
        return self._middle.answered.total()

    @property
    def lost(self) -> int:
        """Telemetry records."""
        return self._middle.lost

    @property
    def restarts(self) -> int:
        return sum(slot.runner_restarts for slot in self._middle.slots.values())

    def weights(self, terms: Terms) -> Iterator[Weight]:
        steady, *offers = self._shelf.offers
        self._install({STEADY: steady})
        (self._steady_pid,) = self._runners()
        for swap, offer in enumerate(itertools.islice(itertools.cycle(offers), terms.swaps), 1):
            windows = self._middle.windows[SWAPPED, offer.version]
            self._install({STEADY: steady, SWAPPED: offer})
            self._wait(
                lambda version=offer.version, before=windows: (
                    self._middle.windows[SWAPPED, version] > before
                ),
                f"{offer} answers",
            )
            quota = terms.inferences * swap // terms.swaps
            self._wait(lambda quota=quota: self.inferences >= quota, "its share of answers")
            self._wait(lambda: len(self._runners()) == len(SLOTS), "the old runner has gone")
            yield self._weight(swap)

    def _install(self, offers: Mapping[str, Offer]) -> None:
        self._middle.want(offers)
        self._wait(
            lambda: all(self._runs(slot, offer) for slot, offer in offers.items()),
            ", ".join(f"{slot} runs {offer}" for slot, offer in offers.items()),
        )

    def _runs(self, slot: str, offer: Offer) -> bool:
        said = self._middle.slots.get(slot)
        if said is None:
            return False
        if said.refused is not None:
            raise SimulatorError(f"{slot} refused {offer}: {said.refused}")
        committed = said.state is SlotState.COMMITTED and said.candidate is None
        return said.champion == offer.ref and committed and said.runner_alive

    def _wait(self, condition: Any, what: str) -> None:
        self._middle.wait(condition, self._agent.check, TIMEOUT_S, what)

    def _runners(self) -> list[int]:
        return [child.pid for child in psutil.Process(self._agent.popen.pid).children()]

    def _weight(self, swap: int) -> Weight:
        runners = self._runners()
        if self._steady_pid not in runners:
            raise SimulatorError("the steady slot's runner ended")
        (newest,) = (pid for pid in runners if pid != self._steady_pid)
        return Weight(
            swap=swap,
            answered=self.inferences,
            supervisor=weigh(self._agent.popen.pid),
            steady=weigh(self._steady_pid),
            swapped=weigh(newest),
            runners=len(runners),
            stored=stored_in(self._state_dir),
        )


@contextmanager
def soaking(
    directory: Path, terms: Terms, command: tuple[str, ...] | None = None
) -> Iterator[Soak]:
    """`command`: of the agent, by default this environment's."""
    shelf = _shelf()
    stream = directory / "stream.npy"
    np.save(stream, _examples(0))
    at = directory / "device"
    at.mkdir()
    middle = Middle(shelf.contents, directory)
    try:
        config = at / "agent.toml"
        state_dir = at / "state"
        config.write_text(
            toml_text(_configuration(middle, state_dir, stream, terms)), encoding="utf-8"
        )
        program_of = command or (program("edgeloop-agent"),)
        agent = Process("agent", [*program_of, "run", "--config", str(config)], at)
        try:
            yield Soak(agent, middle, state_dir, shelf)
        finally:
            agent.popen.terminate()
            agent.end(time.monotonic() + STOP_TIMEOUT_S)
    finally:
        middle.close()


def _configuration(middle: Middle, state_dir: Path, stream: Path, terms: Terms) -> dict[str, Any]:
    source = {"kind": "replay", "path": str(stream)}
    rates = {STEADY: terms.rate_hz(STEADY_SHARE), SWAPPED: terms.rate_hz(1 - STEADY_SHARE)}
    return {
        "device_id": DEVICE,
        "state_dir": str(state_dir),
        "controller_url": middle.url,
        "broker": {"port": middle.broker_port},
        "telemetry": {"window_s": WINDOW_S},
        "slots": {slot: {"source": {**source, "rate_hz": rates[slot]}} for slot in SLOTS},
    }


def _examples(seed: int) -> Any:
    return np.random.default_rng(seed).normal(size=(ROWS, FEATURES)).astype(np.float32)


def _shelf() -> Shelf:
    """Versions of the benchmarks' model, packaged as a controller does it."""
    names = tuple(f"f{number}" for number in range(FEATURES))
    examples = _examples(1)
    table = pa.table({name: examples[:, number] for number, name in enumerate(names)})
    contents: dict[str, bytes] = {}
    offers = []
    for number in range(1, VERSIONS + 1):
        artifact = mlp(np.random.default_rng(number))
        draft = ManifestDraft(features=names, labels=LABELS)
        manifest = package(artifact, "soak", str(number), draft, table)
        document, ref = manifest.canonical(), manifest.ref()
        contents |= {ref.manifest_digest: document, manifest.artifact.digest: artifact}
        offers.append(
            Offer(
                **ref.model_dump(),
                manifest_size_bytes=len(document),
                artifact_digest=manifest.artifact.digest,
                artifact_size_bytes=manifest.artifact.size_bytes,
            )
        )
    return Shelf(contents, tuple(offers))
