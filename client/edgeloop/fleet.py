"""The front: one object for a controller and its fleet.

    from edgeloop import Fleet

    with Fleet("http://127.0.0.1:8080") as fleet:
        fleet.publish(model, name="exercise", version="2", example=train)
        fleet.rollout("exercise", "2", "site=north").follow()

Invariants: what a method gives is a document of `edgeloop.documents`, a handle, or a DataFrame;
every refusal is an EdgeloopError with a hint.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import httpx

from edgeloop import reading
from edgeloop.client import DEFAULT_URL, Client, quoted
from edgeloop.documents import fleet as documents
from edgeloop.documents import loop, rollouts
from edgeloop.documents.base import Items, Page
from edgeloop.documents.why import WhyDocument
from edgeloop.publishing import publish
from edgeloop.rollout import IfBusy, Rollout, RolloutRequest

if TYPE_CHECKING:
    import pandas as pd

LABELS_A_REQUEST: Final = 1000


class Fleet:
    """`url`, `actor` and `token` are by default those of EDGELOOP_URL, EDGELOOP_ACTOR and
    EDGELOOP_TOKEN (or of the file EDGELOOP_TOKEN_FILE).

    `token` proves who asks; `actor` is a name beside it, for the audit log, that nobody checks.
    """

    def __init__(
        self,
        url: str | None = None,
        actor: str | None = None,
        transport: httpx.BaseTransport | None = None,
        token: str | None = None,
    ) -> None:
        self.client: Final = Client(
            url or os.environ.get("EDGELOOP_URL") or DEFAULT_URL,
            transport,
            actor or os.environ.get("EDGELOOP_ACTOR"),
            token,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self.client.close()

    def __repr__(self) -> str:
        return f"Fleet({self.client.url!r})"

    # Devices

    def health(self) -> documents.Health:
        """The controller, its broker, and how many devices it knows."""
        return self.client.read(documents.Health, "/health")

    def devices(self, selector: str = "all") -> list[documents.DeviceSummary]:
        """Those that the selector means now, by id: `site=lab, !quarantine, model.watch<2.1`."""
        listed = Items[documents.DeviceSummary]
        return self.client.read(listed, "/devices", selector=selector).items

    def device(self, device_id: str) -> documents.DeviceDetail:
        return self.client.read(documents.DeviceDetail, f"/devices/{quoted(device_id)}")

    def why(self, device_id: str) -> WhyDocument:
        """Why a device runs what it runs, and what a person can do."""
        return self.client.read(WhyDocument, f"/devices/{quoted(device_id)}/why")

    def label_device(self, device_id: str, **labels: str | None) -> documents.DeviceDetail:
        """Labels set here win over the agent's own; None takes one set here away."""
        path = f"/devices/{quoted(device_id)}/labels"
        return self.client.send(documents.DeviceDetail, "PATCH", path, {"labels": labels})

    def quarantine(self, device_id: str, reason: str) -> documents.DeviceDetail:
        """Roll nothing out to it; it runs on. An empty reason lets it out."""
        path = f"/devices/{quoted(device_id)}/quarantine"
        return self.client.send(documents.DeviceDetail, "PUT", path, {"reason": reason})

    # Models

    def models(self) -> list[documents.ModelSummary]:
        return self.client.read(Items[documents.ModelSummary], "/models").items

    def versions(self, name: str) -> list[documents.VersionSummary]:
        """Of a model, the oldest first."""
        return self.client.read(documents.ModelDetail, f"/models/{quoted(name)}").items

    def version(self, name: str, version: str) -> documents.VersionDetail:
        """One version with its manifest."""
        path = f"/models/{quoted(name)}/versions/{quoted(version)}"
        return self.client.read(documents.VersionDetail, path)

    def lineage(self, name: str, version: str) -> loop.LineageDocument:
        """Where a version comes from: runs, data, drift and devices, read backwards."""
        path = f"/models/{quoted(name)}/versions/{quoted(version)}/lineage"
        return self.client.read(loop.LineageDocument, path)

    def publish(
        self,
        model: Any,
        *,
        name: str,
        version: str,
        example: Any = None,
        y: Any = None,
        groups: Any = None,
        labels: Sequence[str] | None = None,
        manifest: Mapping[str, Any] | Path | None = None,
        baseline: Path | None = None,
    ) -> documents.PublishedVersion:
        """Publish `model`; publishing the same again changes nothing.

        `model`: the path of an ONNX or TFLite file, an ONNX ModelProto or its bytes, a fitted
        scikit-learn classifier or pipeline, or a torch.nn.Module. `example`: rows of what it was
        trained on, a DataFrame or an array of shape (n, features): it names the features, and from
        20 rows on it is the baseline that drift is measured from; `y` their labels and `groups` who
        or what they came from make its thresholds better. `labels`: what the scores stand for, in
        their order. `manifest`: keys of model.toml, or its path; they go over what the object says.
        `baseline`: a Parquet file instead of `example`.
        """
        about = {"y": y, "groups": groups, "labels": labels, "manifest": manifest}
        return publish(self.client, model, name, version, example, baseline=baseline, **about)

    # Rollouts

    def rollout(
        self,
        name: str,
        version: str,
        selector: str = "all",
        *,
        waves: Sequence[str] | None = None,
        slot: str = "main",
        terms: Mapping[str, Any] | None = None,
        if_busy: IfBusy = "refuse",
        allow_empty: bool = False,
    ) -> Rollout:
        """Start one. `waves`: devices or shares, cumulative: `["1", "25%", "100%"]`; `terms`: what
        a wave must show, as in the API's RolloutTerms: `{"soak_s": 60, "max_latency_ratio": 2}`.
        What is left out is the controller's default."""
        asked = RolloutRequest(name, version, selector, waves, slot, terms, if_busy, allow_empty)
        return Rollout.start(self.client, asked)

    def plan(
        self,
        name: str,
        version: str,
        selector: str = "all",
        *,
        waves: Sequence[str] | None = None,
        slot: str = "main",
        terms: Mapping[str, Any] | None = None,
    ) -> rollouts.RolloutPlanDocument:
        """What such a rollout would do now: who gets it when, who cannot and why, bytes."""
        body = RolloutRequest(name, version, selector, waves, slot, terms).body()
        return self.client.send(rollouts.RolloutPlanDocument, "POST", "/rollouts/plan", body)

    def get_rollout(self, rollout_id: int) -> Rollout:
        """One that there is."""
        return Rollout.read(self.client, rollout_id)

    def rollouts(self, limit: int = 100) -> list[rollouts.RolloutSummary]:
        """The newest first."""
        return self.client.read(Items[rollouts.RolloutSummary], "/rollouts", limit=limit).items

    # What was seen

    def telemetry(
        self,
        device: str | None = None,
        *,
        slot: str | None = None,
        version: str | None = None,
        since: reading.When | None = None,
        until: reading.When | None = None,
        rows_max: int = reading.ROWS_MAX,
    ) -> "pd.DataFrame":
        """Telemetry windows, a row each, in the order in which they came.

        `version` is NAME@VERSION; `since` and `until` are times of receipt: a datetime, seconds
        since 1970, or a timedelta before now.
        """
        wanted = {
            "device_id": device,
            "slot": slot,
            "version": version,
            "since": reading.seconds(since),
            "until": reading.seconds(until),
        }
        return reading.telemetry(self.client, wanted, rows_max)

    def samples(
        self,
        device: str | None = None,
        *,
        unlabelled: bool = False,
        rows_max: int = reading.ROWS_MAX,
    ) -> "pd.DataFrame":
        """Sampled examples with their features by name, predictions and labels, a row each."""
        wanted = {"device_id": device, "unlabelled": unlabelled}
        return reading.samples(self.client, wanted, rows_max)

    def label_samples(self, labels: Mapping[int, str], annotator: str) -> int:
        """Give labels by sample id; how many were stored. The last label of a sample counts."""
        given = [{"sample_id": int(i), "label": str(label)} for i, label in labels.items()]
        stored = 0
        for first in range(0, len(given), LABELS_A_REQUEST):
            body = {"annotator": annotator, "labels": given[first : first + LABELS_A_REQUEST]}
            stored += self.client.send(loop.LabelsStored, "POST", "/labels", body).stored
        return stored

    def drift(self, by: Literal["scope", "feature"] = "scope") -> "pd.DataFrame":
        """Scores of the controller's last look: a row for each scope, or for each of its features
        (population stability index and Kolmogorov-Smirnov distance)."""
        return reading.drift(self.drift_document(), by)

    def alarms(self) -> "pd.DataFrame":
        """Drift alarms, open and past ones, the newest first."""
        return reading.alarms(self.drift_document())

    def drift_document(self) -> loop.DriftDocument:
        return self.client.read(loop.DriftDocument, "/drift")

    def events(
        self,
        kind: str | None = None,
        *,
        subject: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[documents.EventDocument]:
        """Oldest first; without `after` the newest. `kind`: `rollout.halted`, or `rollout.*`."""
        listed = Page[documents.EventDocument]
        query = {"kind": kind, "subject": subject, "after": after, "limit": limit}
        return self.client.read(listed, "/events", **query).items

    # Retraining

    def retrain(self, policy: str) -> loop.RunDocument:
        """Ask for a run of a policy now."""
        path = f"/retraining/policies/{quoted(policy)}/runs"
        return self.client.send(loop.RunDocument, "POST", path)

    def policies(self) -> loop.PoliciesDocument:
        """Every policy, what it waits for, and the files that cannot be used."""
        return self.client.read(loop.PoliciesDocument, "/retraining/policies")

    def training_runs(self, limit: int = 100) -> list[loop.RunDocument]:
        """The newest first."""
        return self.client.read(Items[loop.RunDocument], "/retraining/runs", limit=limit).items

    def training_run(self, run_id: int) -> loop.RunDocument:
        return self.client.read(loop.RunDocument, f"/retraining/runs/{run_id}")

    def training_log(self, run_id: int) -> str:
        """What the script printed; the last MiB of it."""
        return self.client.get_text(f"/retraining/runs/{run_id}/log")
