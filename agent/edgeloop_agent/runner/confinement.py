"""What a runner gives up before it touches a model: network, writing, memory, the fast lane.

Invariants: best effort, and every effort told: what was done and what could not be is said in
words, never an exception; done while the process has one thread, before a runtime is imported,
because namespaces and Landlock hold for a thread and what it starts; nothing here can be undone by
the process itself.
"""

import os
import resource
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from edgeloop_agent.config import RunnerConfig, SlotConfig
from edgeloop_agent.runner import namespaces
from edgeloop_agent.runner.memory import address_space_bytes, resident_bytes
from edgeloop_protocol import landlock
from edgeloop_protocol.limits import MIB

ADDRESS_SPACE_HEADROOM_BYTES: Final = 256 * MIB
"""Above what is resident: threads' stacks (8 MiB each) and their heaps (64 MiB each, most of it
never touched). Measured for onnxruntime 1.32: at most 65 MiB, by an arena that doubles."""
NICE_MAX: Final = 19
OOM_SCORE: Final = 500
"""When the device's memory ends, the kernel takes the runner and not the supervisor."""
_DEV_NULL: Final = Path("/dev/null")


@dataclass(slots=True)
class Confinement:
    done: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


def confine(slot: SlotConfig, models: Path) -> Confinement:
    """All but the memory's limit, which is set once the runtime is imported. `models`: all
    versions' folder."""
    return _confine(slot.runner, models, _needs_network(slot), _writable(slot))


def confine_challenger(terms: RunnerConfig, models: Path) -> Confinement:
    """As `confine`, of a runner with neither source nor sink: no network and no file to write, and
    it makes way for everybody."""
    terms = terms.model_copy(update={"network": "none", "nice": NICE_MAX})
    return _confine(terms, models, "", ())


def _confine(
    terms: RunnerConfig, models: Path, needs: str, writable: tuple[Path, ...]
) -> Confinement:
    told = Confinement()
    open_network = terms.network == "host" or (terms.network == "auto" and bool(needs))
    if open_network:
        why = f"the {needs} needs it" if needs else 'the configuration says network = "host"'
        told.lacking.append(f"network: open, because {why}")
    _give_way(told, terms)  # first: it writes to /proc
    _isolate(told, models, open_network, writable)
    return told


def limit_memory(told: Confinement, memory_max_bytes: int) -> None:
    """Bound the address space: what is there now, what may still become resident, and headroom."""
    if not memory_max_bytes:
        told.lacking.append(
            "memory: no limit, because neither the manifest's requires.memory_bytes nor "
            "limits.runner_memory_max_bytes names one"
        )
        return
    room = max(0, memory_max_bytes - resident_bytes()) + ADDRESS_SPACE_HEADROOM_BYTES
    bound = address_space_bytes() + room
    try:
        resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
    except (OSError, ValueError) as error:
        told.lacking.append(f"memory: no limit: {error}")
    else:
        told.done.append(f"memory: {bound} bytes of address space")


def _needs_network(slot: SlotConfig) -> str:
    """Which part of the slot does, in words; one that does not say so is taken to."""
    for what, kind in (("source", slot.source), ("sink", slot.sink)):
        if getattr(kind, "needs_network", True):
            return f'{what} "{kind.kind}"'
    return ""


def _isolate(
    told: Confinement, models: Path, open_network: bool, writable: tuple[Path, ...]
) -> None:
    no_network, read_only = [], []
    problems = []
    try:
        namespaces.enter(network=open_network)
        if not open_network:
            no_network.append("network namespace")
        namespaces.make_read_only(models)
        read_only.append("mount namespace")
    except OSError as error:
        problems.append(f"namespaces: {error}")
    try:
        abi = landlock.restrict((*writable, _DEV_NULL), tcp=open_network)
        if landlock.holds_tcp(abi) and not open_network:
            no_network.append("Landlock, TCP")
        covering = [path for path in writable if models.is_relative_to(path)]
        if not covering:
            read_only.append("Landlock")
        elif not read_only:
            problems.append(f"Landlock: the sink writes to {covering[0]}, which holds the models")
        told.done.append(f"writes only to {', '.join(map(str, writable)) or 'nothing'}: Landlock")
    except OSError as error:
        problems.append(f"Landlock: {error}")
    _tell(told, "no network", no_network, problems, wanted=not open_network)
    _tell(told, "model folder read-only", read_only, problems, wanted=True)


def _tell(told: Confinement, what: str, by: list[str], problems: list[str], wanted: bool) -> None:
    if by:
        told.done.append(f"{what}: {', '.join(by)}")
    elif wanted:
        told.lacking.append(f"{what}: not so: {'; '.join(problems)}")


def _writable(slot: SlotConfig) -> tuple[Path, ...]:
    """The folder of the sink's file, which is renamed when it is full, and what is configured."""
    sink_path = getattr(slot.sink, "path", None)
    of_sink = (sink_path.parent,) if isinstance(sink_path, Path) else ()
    return tuple(dict.fromkeys((*of_sink, *slot.runner.writable)))


def _give_way(told: Confinement, terms: RunnerConfig) -> None:
    for what, wanted, act in (
        (f"nice {terms.nice}", terms.nice, lambda: os.nice(terms.nice)),
        (
            f"CPUs {', '.join(map(str, terms.cpus))}",
            terms.cpus,
            lambda: os.sched_setaffinity(0, terms.cpus),
        ),
        ("no core dumps", True, lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
        ("first to go when memory ends", True, _offer_to_the_kernel),
    ):
        if not wanted:
            continue
        try:
            act()
        except (OSError, ValueError) as error:
            told.lacking.append(f"{what}: not so: {error}")
        else:
            told.done.append(what)


def _offer_to_the_kernel() -> None:
    Path("/proc/self/oom_score_adj").write_text(str(OOM_SCORE))
