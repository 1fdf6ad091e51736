"""What the testbed asks of the controller: as a person would, over its HTTP API.

Invariant: a call fails with FleetError in words, never with an HTTP library's exception.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from edgeloop_simulators.errors import FleetError

TIMEOUT_S: Final = 60.0

Document = dict[str, Any]


class Console:
    """One HTTP client; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/v1", timeout=TIMEOUT_S, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def ready(self) -> bool:
        """Whether the controller answers and has its broker."""
        try:
            return bool(self._call("GET", "/health")["status"] == "ok")
        except FleetError:
            return False

    def publish(
        self, name: str, version: str, model: bytes, draft: Path | None, baseline: Path | None
    ) -> Document:
        files = {"model": ("model.onnx", model)}
        if draft is not None:
            files["manifest"] = ("model.toml", draft.read_bytes())
        if baseline is not None:
            files["baseline"] = ("baseline.parquet", baseline.read_bytes())
        return self._call("POST", f"/models/{name}/versions/{version}", files=files)

    def version(self, name: str, version: str) -> Document:
        return self._call("GET", f"/models/{name}/versions/{version}")

    def versions(self, name: str) -> list[Document]:
        """Every version of a model, the oldest first."""
        listed = self._call("GET", f"/models/{name}")["items"]
        return sorted(listed, key=lambda one: float(one["published_at"]))

    def artifact(self, digest: str) -> bytes:
        return self._send("GET", f"/artifacts/{digest}").content

    def devices(self) -> list[Document]:
        return list(self._call("GET", "/devices")["items"])

    def start_rollout(
        self, name: str, version: str, waves: Sequence[str], terms: Mapping[str, Any]
    ) -> Document:
        request = {"name": name, "version": version, "waves": list(waves), "terms": dict(terms)}
        return self._call("POST", "/rollouts", json=request)

    def rollout(self, rollout_id: int) -> Document:
        return self._call("GET", f"/rollouts/{rollout_id}")

    def rollouts(self) -> list[Document]:
        return list(self._call("GET", "/rollouts")["items"])

    def alarms(self) -> list[Document]:
        """Open and past drift alarms, the oldest first."""
        return sorted(self._call("GET", "/drift")["alarms"], key=lambda a: float(a["raised_at"]))

    def drift_scores(self) -> list[Document]:
        return list(self._call("GET", "/drift")["scores"])

    def training_runs(self) -> list[Document]:
        return list(self._call("GET", "/retraining/runs")["items"])

    def unlabelled_samples(self, after: int, limit: int) -> Sequence[Document]:
        query = {"unlabelled": True, "after": after, "limit": limit}
        return list(self._call("GET", "/samples", params=query)["items"])

    def give_labels(self, labels: Sequence[Document], annotator: str) -> None:
        self._call("POST", "/labels", json={"labels": list(labels), "annotator": annotator})

    def _call(self, method: str, path: str, **arguments: Any) -> Document:
        document = self._send(method, path, **arguments).json()
        return document if isinstance(document, dict) else {}

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            response = self._http.request(method, path, **arguments)
        except httpx.HTTPError as error:
            raise FleetError(f"{method} {path}: {error or type(error).__name__}") from error
        if response.is_error:
            raise FleetError(f"{method} {path}: {response.status_code}: {response.text[:500]}")
        return response
