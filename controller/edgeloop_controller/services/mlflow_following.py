"""Follows aliases of MLflow's registry: what one names is published and, if so configured, rolled
out.

Invariants: what the registry says counts, a webhook only says when to look; the event
`mlflow.alias_moved` is committed with the rollout that it tells of, and the newest of a follow is
what was last acted on, so a kill at any moment starts no rollout twice; a server that fails delays
nothing but its own job.
"""

import logging
import secrets
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy.orm import Session

from edgeloop_controller.core import mlflow_webhook
from edgeloop_controller.core.mlflow_follow import (
    Standing,
    after_failure,
    after_success,
    has_moved,
    is_due,
    news,
)
from edgeloop_controller.core.mlflow_versions import RegisteredVersion
from edgeloop_controller.errors import ControllerError, StartError
from edgeloop_controller.mlflow_config import FollowConfig, MlflowConfig
from edgeloop_controller.mlflow_registry import MlflowRegistry
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.mlflow_publishing import MlflowPublishing
from edgeloop_controller.services.rollouts import IfBusy, RolloutRequest, Rollouts, check_request
from edgeloop_controller.store import audit, events
from edgeloop_controller.store.engine import Database
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.limits import TEXT_MAX_CHARS
from edgeloop_protocol.manifest import Manifest

logger = logging.getLogger(__name__)

WORK_S: Final = 1.0
MOVED: Final = "mlflow.alias_moved"
FAILED: Final = "mlflow.failed"
ACTOR: Final = "mlflow"


@dataclass(frozen=True)
class Hint:
    """A webhook that was MLflow's: its delivery's id, and the address that it came from."""

    delivery: str
    address: str


@dataclass(frozen=True)
class FollowStatus:
    name: str
    config: FollowConfig
    standing: Standing
    handled: Mapping[str, Any]
    """The data of the newest `mlflow.alias_moved`; empty: there is none."""
    handled_at: float | None


class MlflowFollowing:
    """`work` is called by one thread, the others by any."""

    def __init__(
        self,
        config: MlflowConfig,
        registry: MlflowRegistry,
        publishing: MlflowPublishing,
        rollouts: Rollouts,
        database: Database,
        clock: Clock,
    ) -> None:
        self.config = config
        self._registry = registry
        self._publishing = publishing
        self._rollouts = rollouts
        self._database = database
        self._clock = clock
        self._failures = FailureLog(logger)
        self._lock = threading.Lock()
        self._hints: dict[str, Hint] = {}
        self._standings: dict[str, Standing] = {}

    def open(self) -> None:
        """Raises StartError for a follow whose rollout could never start."""
        for name, follow in self.config.follow.items():
            try:
                check_request(_request(follow, "model", "version"))
            except ControllerError as error:
                raise StartError(f"[mlflow.follow.{name}] {error}", error.hint) from error
            with self._database.reading() as session:
                last = events.latest(session, "mlflow.", 1, name)
            failing = last and last[0].kind == FAILED
            error_before = last[0].data.get("error", "") if failing else ""
            self._standings[name] = Standing(error=error_before)

    def close(self) -> None:
        self._registry.close()

    def take_hint(self, moved: mlflow_webhook.Moved, hint: Hint) -> list[str]:
        """The follows that will look at once."""
        names = [
            name
            for name, follow in self.config.follow.items()
            if (follow.model, follow.alias) == (moved.model, moved.alias)
        ]
        with self._lock:
            self._hints.update(dict.fromkeys(names, hint))
        return names

    def work(self) -> None:
        """Look at what is due. Never raises for what MLflow says or does."""
        for name, follow in self.config.follow.items():
            with self._lock:  # a webhook that comes while we look makes it due again
                hint = self._hints.pop(name, None)
            if hint is not None or is_due(self._standings[name], self._clock.wall()):
                try:
                    self._look(name, follow, hint)
                except Exception:
                    self._failures.failed(f"MLflow's follow {name}")
                    self._note_failure(name, "the controller failed; its log says why", say=False)
                else:
                    self._failures.worked(f"MLflow's follow {name}")

    def status(self) -> list[FollowStatus]:
        with self._database.reading() as session:
            found = {name: events.newest_of(session, MOVED, name) for name in self.config.follow}
        return [
            FollowStatus(
                name=name,
                config=follow,
                standing=self._standings[name],
                handled=moved.data if moved is not None else {},
                handled_at=moved.at if moved is not None else None,
            )
            for name, follow in self.config.follow.items()
            for moved in [found[name]]
        ]

    def _look(self, name: str, follow: FollowConfig, hint: Hint | None) -> None:
        try:
            deadline = self._registry.deadline()
            found = self._registry.look_up(follow.uri, deadline)
            handled = self._handled(name, follow)
            if has_moved(found.version, handled):
                self._act(name, follow, found, handled, hint, deadline)
        except ControllerError as error:
            text = f"{error} ({error.hint})" if error.hint else str(error)
            self._note_failure(name, text[:TEXT_MAX_CHARS])
            return
        now = self._clock.wall()
        self._note(name, after_success(found.version, now, self.config.poll_s))

    def _handled(self, name: str, follow: FollowConfig) -> str | None:
        """MLflow's number of what was last acted on; None as well where another alias was."""
        with self._database.reading() as session:
            moved = events.newest_of(session, MOVED, name)
        if moved is None or moved.data["uri"] != str(follow.uri):
            return None
        return str(moved.data["version"])

    def _act(
        self,
        name: str,
        follow: FollowConfig,
        found: RegisteredVersion,
        handled: str | None,
        hint: Hint | None,
        deadline: float,
    ) -> None:
        request = self._audited(name, follow, found, hint)
        with audit.opened(request):
            published = self._publishing.publish_found(found, follow.uri, follow.name, deadline)
        manifest = published.manifest
        data = {
            "uri": str(follow.uri),
            "version": found.version,
            "before": handled,
            "published": f"{manifest.name}@{manifest.version}",
            "run_id": found.run_id,
            "delivery": hint.delivery if hint is not None else None,
        }
        with audit.opened(self._audited(name, follow, found, hint, request.id)):
            rollout = self._roll_out(name, follow, manifest, data)
        begun = f", rollout {rollout}" if rollout is not None else ""
        logger.info(
            "%s moved to version %s: %s%s", follow.uri, found.version, data["published"], begun
        )

    def _roll_out(
        self, name: str, follow: FollowConfig, manifest: Manifest, data: dict[str, Any]
    ) -> int | None:
        def say_moved(session: Session, rollout_id: int | None) -> None:
            events.add(session, self._clock.wall(), MOVED, name, {**data, "rollout": rollout_id})

        if follow.rollout:
            request = _request(follow, manifest.name, manifest.version)
            return self._rollouts.start(request, also=say_moved)
        with self._database.writing() as session:
            say_moved(session, None)
        return None

    def _audited(
        self,
        name: str,
        follow: FollowConfig,
        found: RegisteredVersion,
        hint: Hint | None,
        request_id: str | None = None,
    ) -> audit.Request:
        return audit.Request(
            id=request_id or secrets.token_hex(8),
            at=self._clock.wall(),
            actor=ACTOR,
            authenticated=hint is not None,
            address=hint.address if hint is not None else "",
            forwarded_for="",
            method="FOLLOW",
            path=str(follow.uri),
            subject=f"mlflow:{name}",
            essence={
                "follow": name,
                "version": found.version,
                "run_id": found.run_id,
                "delivery": hint.delivery if hint is not None else None,
            },
        )

    def _note_failure(self, name: str, error: str, say: bool = True) -> None:
        before = self._standings[name]
        now = self._clock.wall()
        after = after_failure(before, error, now, self.config.poll_s)
        if say:
            self._note(name, after)
        else:
            self._standings[name] = after

    def _note(self, name: str, after: Standing) -> None:
        """What changed is said once: as an event, and in the log."""
        kind = news(self._standings[name], after)
        follow = self.config.follow[name]
        if kind is not None:
            data = {"uri": str(follow.uri), **({"error": after.error} if after.error else {})}
            with self._database.writing() as session:
                events.add(session, self._clock.wall(), f"mlflow.{kind}", name, data)
        if after.error and (kind is not None or after.failures == 1):
            logger.warning("mlflow follow %s (%s): %s", name, follow.uri, after.error)
        elif kind is not None:
            logger.info("mlflow follow %s (%s) works again", name, follow.uri)
        self._standings[name] = after


def _request(follow: FollowConfig, name: str, version: str) -> RolloutRequest:
    """Devices may be yet to come: a follow stands for longer than a look."""
    return RolloutRequest(
        name=name,
        version=version,
        selector=follow.selector,
        waves=follow.waves,
        terms=follow.terms,
        slot=follow.slot,
        allow_empty=True,
        if_busy=IfBusy(follow.if_busy),
    )
