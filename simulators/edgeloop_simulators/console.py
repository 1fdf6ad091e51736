"""What the testbed asks of the controller: as a person would, by the client of its HTTP API.

Invariant: a call fails with FleetError in words, never with another exception of the client's.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from edgeloop.client import Client
from edgeloop.errors import ApiError
from edgeloop_simulators.errors import FleetError

Document = dict[str, Any]


class Console(AbstractContextManager["Console"]):
    """One HTTP client; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self._client = Client(url)

    def __enter__(self) -> Self:
        self._client.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.__exit__(kind, error, trace)

    def ready(self) -> bool:
        """Whether the controller answers and has its broker."""
        try:
            return bool(self._get("/health")["status"] == "ok")
        except FleetError:
            return False

    def publish(
        self, name: str, version: str, model: Path, draft: Path | None, baseline: Path | None
    ) -> Document:
        try:
            return dict(self._client.publish(model, name, version, draft, baseline))
        except ApiError as error:
            raise _words(error, f"publishing {name}@{version}") from error

    def version(self, name: str, version: str) -> Document:
        return self._get(f"/models/{name}/versions/{version}")

    def versions(self, name: str) -> list[Document]:
        """Every version of a model, the oldest first."""
        listed = self._get(f"/models/{name}")["items"]
        return sorted(listed, key=lambda one: float(one["published_at"]))

    def devices(self) -> list[Document]:
        return list(self._get("/devices")["items"])

    def start_rollout(
        self, name: str, version: str, waves: Sequence[str], terms: Mapping[str, Any]
    ) -> Document:
        request = {"name": name, "version": version, "waves": list(waves), "terms": dict(terms)}
        return self._post("/rollouts", request)

    def rollout(self, rollout_id: int) -> Document:
        return self._get(f"/rollouts/{rollout_id}")

    def rollouts(self) -> list[Document]:
        return list(self._get("/rollouts")["items"])

    def alarms(self) -> list[Document]:
        """Open and past drift alarms, the oldest first."""
        return sorted(self._get("/drift")["alarms"], key=lambda a: float(a["raised_at"]))

    def drift_scores(self) -> list[Document]:
        """What each scope of each version showed at the controller's last look."""
        return list(self._get("/drift")["scores"])

    def training_runs(self) -> list[Document]:
        return list(self._get("/retraining/runs")["items"])

    def unlabelled_samples(self, after: int, limit: int) -> Sequence[Document]:
        return list(self._get("/samples", unlabelled=True, after=after, limit=limit)["items"])

    def give_labels(self, labels: Sequence[Document], annotator: str) -> None:
        self._post("/labels", {"labels": list(labels), "annotator": annotator})

    def _get(self, path: str, **query: Any) -> Document:
        try:
            return dict(self._client.get(path, **query))
        except ApiError as error:
            raise _words(error, f"GET {path}") from error

    def _post(self, path: str, body: Document) -> Document:
        try:
            return dict(self._client.post(path, body))
        except ApiError as error:
            raise _words(error, f"POST {path}") from error


def _words(error: ApiError, doing: str) -> FleetError:
    return FleetError(f"{doing}: {error.message}" + (f" ({error.hint})" if error.hint else ""))
