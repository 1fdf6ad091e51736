"""One case told as a timeline, and stopped where somebody wants to look around in it.

Invariants: looking changes nothing: a replay's hash is that of the play; what a filter hides has
happened all the same.
"""

import code
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from edgeloop_simulators.errors import CaseError
from edgeloop_simulators.virtual.kernel.seen import Seen
from edgeloop_simulators.virtual.kernel.trace import readable
from edgeloop_simulators.virtual.seeds.case import Case
from edgeloop_simulators.virtual.seeds.case_play import Played, play
from edgeloop_simulators.virtual.world.world import World

QUIET: Final = ("message.delivered",)
"""What came as it should; by far the most of what there is to see."""
LAW_PREFIX: Final = "EL-INV-"
VIOLATION: Final = "violation"

BANNER: Final = """
Stopped at {at_s:.2f} s: {why}.

  world        the World: world.spec, world.faults, world.artifacts, world.operator
  devices      device id → DeviceHost: .device is the agent's core, None while it is down
               (.snapshot(), .reported()); .power.disk, .runners, .outbox, .clock
  controller   the ControllerHost: .record.query("SELECT * FROM devices"), .record.rollouts(),
               .parts, None while it is down (.parts.services)
  network      the Network: .broker.sessions, .broker.retained, .queue_sizes()
  loop         the EventLoop: .now_s; loop.step(world.spec.duration_s) runs the next event

exit() or end of input ends it.
"""


@dataclass(frozen=True)
class Shown:
    """What of a timeline is shown; an empty `parts` or `whats` is all of them. `whats` match from
    the beginning of a dotted name: `slot` is `slot.state` too."""

    parts: tuple[str, ...] = ()
    whats: tuple[str, ...] = ()
    from_s: float = 0.0
    until_s: float = float("inf")
    messages: bool = False

    def __call__(self, seen: Seen) -> bool:
        if not self.from_s <= seen.at_s <= self.until_s:
            return False
        if self.parts and seen.part not in self.parts:
            return False
        if self.whats:
            return any(_is_under(seen.what, what) for what in self.whats)
        return self.messages or seen.what not in QUIET


@dataclass(frozen=True)
class StopAt:
    """The first event to stop at: a dotted `what`, of `part` or of any, or from `at_s` on. Without
    either it is the first breach of a law, at which a world ends by itself."""

    what: str = ""
    part: str = ""
    at_s: float = float("inf")

    def __call__(self, seen: Seen) -> bool:
        if not self.what:
            return seen.at_s >= self.at_s
        return (not self.part or self.part == seen.part) and _is_under(seen.what, self.what)


def stop_at(text: str) -> StopAt:
    """`slot.state`, `device-1:slot.state`, `EL-INV-3`, `violation` or `61.5`. Raises CaseError."""
    if text == VIOLATION or text.startswith(LAW_PREFIX):
        return StopAt()
    if (at_s := seconds(text)) is not None:
        return StopAt(at_s=at_s)
    part, _, what = text.rpartition(":")
    if not what:
        raise CaseError(
            f"{text!r} is no event: give a dotted name of the timeline (slot.state), one of a part "
            f"(device-1:slot.state), an invariant ({LAW_PREFIX}1), {VIOLATION!r}, "
            "or a second"
        )
    return StopAt(what=what, part=part)


def seconds(text: str) -> float | None:
    """None: it is no number."""
    try:
        return float(text)
    except ValueError:
        return None


def replay(
    case: Case,
    shown: Shown,
    say: Callable[[str], None],
    stop: StopAt | None = None,
    shell: bool = False,
) -> Played:
    """Play `case` and say what happens, line by line; with `shell` a Python shell opens where it
    stopped. Raises CaseError."""
    for line in _heading(case):
        say(line)
    last: list[Seen] = []

    def tell(seen: Seen) -> None:
        last[:] = [seen]
        if shown(seen):
            say(readable(seen))

    def look(world: World) -> None:
        open_shell(world, _why(world, stop, last[0] if last else None))

    played = play(case, (tell,), stop, look if shell else None)
    for line in _ending(played):
        say(line)
    return played


def open_shell(world: World, why: str) -> None:
    """On the standard input and output."""
    scope: dict[str, Any] = {
        "world": world,
        "devices": world.hosts,
        "controller": world.controller,
        "network": world.network,
        "loop": world.loop,
    }
    code.interact(BANNER.format(at_s=world.loop.now_s, why=why), local=scope, exitmsg="")


def _why(world: World, stop: StopAt | None, last: Seen | None) -> str:
    violations = world.violations()
    if violations:
        return str(violations[0])
    if stop is not None and last is not None and stop(last):
        return readable(last).strip()
    return "the world has ended" + (", and the event never came" if stop is not None else "")


def _heading(case: Case) -> list[str]:
    drawn = case.drawn()
    spec = drawn.spec
    lines = [f"seed {case.seed}: broker {spec.broker}, {len(spec.models)} versions"]
    lines += [
        f"  {device.id}: site {device.site}, {device.kind.architecture}, speed "
        f"{device.kind.cpu_speed:g}, link {device.kind.link.bytes_per_s:g} B/s with a latency of "
        f"{device.kind.link.latency_s:g} s and a loss of {device.kind.link.loss:g}"
        for device in spec.devices
    ]
    lines += [f"  fault {number}: {fault}" for number, fault in enumerate(drawn.faults)]
    lines += [
        f"  step {number} at {step.at_s:.1f} s: {_words(step)}"
        for number, step in zip(case.steps, spec.script, strict=True)
    ]
    return [*lines, ""]


def _words(step: object) -> str:
    fields = {name: value for name, value in vars(step).items() if name not in ("at_s", "terms")}
    return f"{type(step).__name__} " + ", ".join(f"{n}={v}" for n, v in fields.items())


def _ending(played: Played) -> list[str]:
    lines = [
        "",
        f"ended at {played.virtual_s:.1f} s after {played.events} events",
        f"trace hash {played.trace_hash}",
    ]
    if not played.violations:
        return [*lines, "no law was broken"]
    return [*lines, *map(str, played.violations)]


def _is_under(what: str, name: str) -> bool:
    return what == name or what.startswith(f"{name}.")
