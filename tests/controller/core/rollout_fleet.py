"""A fleet as the rollout engine sees it, for tests: devices that do what a test says."""

from dataclasses import replace

from edgeloop_controller.core.rollout import (
    ComparedWindow,
    DeviceView,
    Evidence,
    LabelledPair,
    MemberPhase,
    Note,
    OfferTo,
    RolloutSpec,
    RolloutState,
    RolloutTerms,
    ShadowOff,
    ShadowOn,
    ShadowSeen,
    Step,
    WithdrawFrom,
    initial_state,
    step,
)
from edgeloop_controller.core.schedule import UtcOffset, utc_everywhere
from edgeloop_controller.core.waves import parse_waves
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.manifest import Artifact, Feature, Manifest, Requirements, TensorSpec
from edgeloop_protocol.messages import Inventory, Refusal, RuntimeInfo, SlotReported, VersionRef

OLD = VersionRef(name="gait", version="1", manifest_digest="1" * 64)
TARGET_MANIFEST = Manifest(
    name="gait",
    version="2",
    artifact=Artifact(digest="a" * 64, size_bytes=10, opset=17),
    inputs=(TensorSpec(name="x", dtype="float32", shape=(None, 1)),),
    outputs=(TensorSpec(name="p", dtype="float32", shape=(None, 2)),),
    scores_output="p",
    features=(Feature(name="f", sensor="f"),),
    labels=("a", "b"),
    requires=Requirements(architectures=("x86_64",)),
)
TARGET = TARGET_MANIFEST.ref()
TERMS = RolloutTerms(soak_s=10, deadline_s=100, min_compared=50)
FIT = Inventory(
    agent_version="1",
    architecture="x86_64",
    python="3.11",
    runtimes=(RuntimeInfo(name="onnx", version="1.20", max_opset=21),),
    memory_bytes=1,
    disk_free_bytes=1,
    cpu_count=1,
)
UNFIT = FIT.model_copy(update={"architecture": "armv7l"})
NOTHING = Evidence()
OWN_CHALLENGER = 70
"""The id of the challenger that the rollout gives."""


class Fleet:
    """Devices as the controller sees them; offers change assignments as the services do."""

    def __init__(self, count: int, *, waves: str = "1,25%,100%", old: VersionRef | None = OLD):
        self.spec = RolloutSpec(
            7, TARGET, TARGET_MANIFEST, "main", "all", parse_waves(waves), TERMS
        )
        self.state: RolloutState = initial_state()
        self.views: dict[str, DeviceView] = {}
        self.evidence: list[ComparedWindow] = []
        self.pairs: list[LabelledPair] = []
        self.shadowed: list[ShadowSeen] = []
        self.now = 0.0
        self.utc_offset: UtcOffset = utc_everywhere
        for n in range(count):
            self.add(f"d{n}", old=old)

    def add(self, name: str, *, old: VersionRef | None = OLD, **changes: object) -> None:
        slot = SlotReported(
            slot="main", state=SlotState.COMMITTED if old else SlotState.IDLE, champion=old
        )
        view = DeviceView(
            name, {}, True, FIT, {"main": slot}, True, old.manifest_digest if old else None, None
        )
        self.views[name] = replace(view, **changes)  # type: ignore[arg-type]

    def change(self, name: str, **changes: object) -> None:
        self.views[name] = replace(self.views[name], **changes)  # type: ignore[arg-type]

    def turn(self, after_s: float = 1.0) -> Step:
        self.now += after_s
        result = step(
            self.spec,
            self.state,
            list(self.views.values()),
            Evidence(self.evidence, self.pairs, shadow=self.shadowed),
            self.now,
            self.utc_offset,
        )
        self.apply(result)
        return result

    def apply(self, result: Step) -> None:
        self.state = result.state
        for effect in result.effects:
            if isinstance(effect, OfferTo):
                self.change(effect.device_id, assigned_digest=TARGET.manifest_digest)
            elif isinstance(effect, WithdrawFrom):
                self.change(effect.device_id, assigned_digest=effect.before_digest)
            elif isinstance(effect, ShadowOn):
                self.change(effect.device_id, challenger_id=OWN_CHALLENGER)
            elif isinstance(effect, ShadowOff):
                self.change(effect.device_id, challenger_id=None)

    def commit(self, *names: str, compared: int = 50, disagreements: int = 5) -> None:
        for name in names:
            if self.state.members[name].before_digest is not None:
                self.evidence.append(ComparedWindow(name, OLD, compared, disagreements))
            slot = SlotReported(slot="main", state=SlotState.COMMITTED, champion=TARGET)
            self.change(name, slots={"main": slot})

    def refuse(self, name: str, cause: str) -> None:
        slot = SlotReported(
            slot="main",
            state=SlotState.ROLLED_BACK,
            champion=OLD,
            refused=Refusal(version=TARGET, cause=cause),
        )
        self.change(name, slots={"main": slot})

    def names(self, phase: MemberPhase) -> list[str]:
        return [m.device_id for m in self.state.members.values() if m.phase is phase]

    def to_wave(self, wave: int) -> None:
        """Commit everything until the wave is open."""
        while self.state.wave < wave:
            self.turn(11)
            self.commit(*self.names(MemberPhase.OFFERED))


def offered(result: Step) -> list[str]:
    return [e.device_id for e in result.effects if isinstance(e, OfferTo)]


def withdrawn(result: Step) -> dict[str, str | None]:
    return {e.device_id: e.before_digest for e in result.effects if isinstance(e, WithdrawFrom)}


def notes(result: Step) -> list[str]:
    return [e.kind for e in result.effects if isinstance(e, Note)]
