"""What a virtual world's controller judges by, written down as it goes by: the evidence of each
rollout's gates, and the scores of each look for drift.

Invariants: reads what the controller keeps in memory, calls nothing that decides, touches no
database and says nothing to the world, so that a world goes the same way with and without it; keeps
what changed, not what stayed.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from edgeloop_controller.composition import Parts
from edgeloop_controller.core.drift import Finding, Scope, thresholds_of
from edgeloop_controller.core.rollout import RolloutTerms, Verdict
from edgeloop_controller.services.drift_watch import Look, Watched
from edgeloop_protocol.manifest import DriftThresholds, Manifest


class GatePoint(NamedTuple):
    """What the gates said; from `at_s` on, until the next."""

    at_s: float
    verdicts: tuple[Verdict, ...]


class Highest(NamedTuple):
    """`of`: whose it is."""

    value: float
    of: str


class DriftPoint(NamedTuple):
    """One look at one version; None: not judged. The label is judged as the fleet is; a sensor's
    value is its excess over the other sensors of its device."""

    at_s: float
    fleet: float | None
    fleet_ks: float | None
    predictions_psi: float | None
    confidence_psi: float | None
    label: Highest | None
    device: Highest | None
    sensor: Highest | None


class DriftTrack:
    """The looks at one version on one slot. `left_s`: when it was looked at no more, for no device
    ran it, or the controller died."""

    def __init__(self, slot: str, manifest: Manifest) -> None:
        self.slot = slot
        self.version = str(manifest.ref())
        self.thresholds: DriftThresholds = thresholds_of(manifest)
        self.calibrated = bool(manifest.baseline and manifest.baseline.thresholds)
        self.points: list[DriftPoint] = []
        self.left_s: list[float] = []


class EvidenceRecord:
    """Told of the controller each time that it has done something."""

    def __init__(self) -> None:
        self.terms: dict[int, RolloutTerms] = {}
        """By rollout."""
        self.gates: dict[int, list[GatePoint]] = defaultdict(list)
        self.drift: dict[Watched, DriftTrack] = {}
        self.versions: dict[str, str] = {}
        """Manifest digest → `name@version`, of versions that were compared with."""
        self._looks: dict[Watched, Look] = {}

    def see(self, at_s: float, parts: Parts) -> None:
        self._see_gates(at_s, parts)
        self._see_drift(at_s, parts)

    def controller_died(self, at_s: float) -> None:
        self._leave(at_s, list(self._looks))

    def _see_gates(self, at_s: float, parts: Parts) -> None:
        for judged in parts.reconciler.judged():
            points = self.gates[judged.spec.id]
            if points and (
                points[-1].verdicts is judged.verdicts or points[-1].verdicts == judged.verdicts
            ):
                continue
            points.append(GatePoint(at_s, judged.verdicts))
            self.terms[judged.spec.id] = judged.spec.terms
            for verdict in judged.verdicts:
                digest = verdict.evidence.get("shadow_digest")
                if digest is not None and digest not in self.versions:
                    self.versions[digest] = str(parts.services.registry.manifest(digest).ref())

    def _see_drift(self, at_s: float, parts: Parts) -> None:
        looks = {look.watched: look for look in parts.services.drift_watch.looks()}
        self._leave(at_s, [watched for watched in self._looks if watched not in looks])
        for watched, look in looks.items():
            if self._looks.get(watched) is look:
                continue
            self._looks[watched] = look
            track = self.drift.get(watched)
            if track is None:
                manifest = parts.services.registry.manifest(watched.manifest_digest)
                track = self.drift[watched] = DriftTrack(watched.slot, manifest)
            track.points.append(_point(at_s, look.findings))

    def _leave(self, at_s: float, gone: Iterable[Watched]) -> None:
        for watched in gone:
            del self._looks[watched]
            self.drift[watched].left_s.append(at_s)


def _point(at_s: float, findings: Iterable[Finding]) -> DriftPoint:
    scopes: Mapping[Scope, list[Finding]] = {scope: [] for scope in Scope}
    for finding in findings:
        scopes[finding.scope].append(finding)
    fleet = next((finding.score for finding in scopes[Scope.FLEET]), None)
    devices = scopes[Scope.DEVICE]
    return DriftPoint(
        at_s,
        fleet.value if fleet else None,
        fleet.ks if fleet else None,
        fleet.predictions_psi if fleet else None,
        fleet.confidence_psi if fleet else None,
        _highest((f.score.value, f.key) for f in scopes[Scope.LABEL]),
        _highest((f.score.value, f.key) for f in devices),
        _highest(
            (excess, f"{f.key}: {sensor}")
            for f in devices
            for sensor, excess in f.score.sensors.items()
        ),
    )


def _highest(scores: Iterable[tuple[float, str]]) -> Highest | None:
    """The first of equals."""
    highest = max(scores, key=lambda one: one[0], default=None)
    return Highest(*highest) if highest else None
