"""Signed models: takes what people sign, serves it, and keeps it current (ADR 0031).

Invariants: what is served was accepted by `trust.acceptance`; files are committed before anything
else is said; `is_on` once there is a root, for ever. Called by any thread.
"""

import json
import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from tuf.api.metadata import Key

from edgeloop_controller.config import TrustConfig
from edgeloop_controller.errors import ArtifactError, ConflictError, NotFoundError
from edgeloop_controller.services.failure_log import FailureLog
from edgeloop_controller.services.online_keys import OnlineKeys
from edgeloop_controller.services.published_facts import published_facts
from edgeloop_controller.services.registry import Registry
from edgeloop_controller.services.trust_expiry import ExpiryWatch
from edgeloop_controller.services.trust_files import (
    METADATA,
    WAITING,
    InForce,
    Proposal,
    changes_of,
    read_in_force,
    read_waiting,
    waiting_text,
)
from edgeloop_controller.store import events
from edgeloop_controller.store.engine import Database
from edgeloop_controller.trust.acceptance import Around, Count, Judged, judge
from edgeloop_controller.trust.metadata import (
    ROOT,
    TIMESTAMP,
    Document,
    Standing,
    at,
    read_document,
    role_and_version,
)
from edgeloop_controller.trust.renewal import Lives, renewed
from edgeloop_controller.trust.signing import joined, with_counting_signatures
from edgeloop_controller.trust_store import TrustStore
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.errors import TrustError

logger = logging.getLogger(__name__)

INITIALISED: Final = "trust.initialised"
CHANGED: Final = "trust.changed"
WAITS: Final = "trust.waiting"
DISCARDED: Final = "trust.discarded"


@dataclass(frozen=True)
class Waiting:
    """A proposal as it stands now. `problem`: why it can be accepted no more; empty: it can."""

    proposal: Proposal
    counts: tuple[Count, ...]
    problem: str


@dataclass(frozen=True)
class Outcome:
    """`counts`: of the signatures that were given; `accepted`: it is in force."""

    accepted: bool
    counts: tuple[Count, ...]


class Trust:
    def __init__(
        self,
        store: TrustStore,
        database: Database,
        registry: Registry,
        clock: Clock,
        config: TrustConfig,
    ) -> None:
        """Raises StartError for a directory that cannot be trusted."""
        self._store = store
        self._database = database
        self._published = published_facts(database, registry)
        self._clock = clock
        self.config = config
        self._lives = Lives(
            timedelta(seconds=config.snapshot_s), timedelta(seconds=config.timestamp_s)
        )
        self._keys = OnlineKeys(store)
        self._lock = threading.RLock()
        self._failures = FailureLog(logger)
        self._expiry = ExpiryWatch(database, clock, config.warn_s)
        self._must_recover = False
        self._load()

    def _load(self) -> None:
        self._keys.load()
        self.in_force = read_in_force(self._store)
        self._waiting = read_waiting(self._store)

    @property
    def is_on(self) -> bool:
        return self.in_force is not None

    @property
    def standing(self) -> Standing | None:
        return self.in_force.standing if self.in_force else None

    def now(self) -> datetime:
        return at(self._clock.wall())

    def metadata(self, name: str) -> bytes:
        """A file as devices ask for it. Raises NotFoundError."""
        try:
            role, _ = role_and_version(name)
        except TrustError as error:
            raise NotFoundError(str(error)) from error
        in_force = self.in_force
        if in_force is None:
            raise NotFoundError("nothing is signed here", hint="`edgeloop trust init` begins it")
        if role == TIMESTAMP:
            return in_force.online.timestamp.content
        return self._store.read(METADATA + name)

    # ---- people ---------------------------------------------------------------------------------

    def make_keys(self) -> dict[str, Key]:
        """New keys for the online roles, to be put into a root; public parts. Raises
        ArtifactError."""
        with self._lock:
            self._recover()
            roots = [p.documents[ROOT].signed for p in self._waiting if ROOT in p.documents]
            if self.standing is not None:
                roots.append(self.standing.root.signed)
            try:
                return self._keys.make(roots)
            except OSError as error:
                raise self._unkept(error) from error

    def propose(self, offered: Mapping[str, Any]) -> Outcome:
        """Role → metadata, as JSON documents. Raises TrustError, ConflictError, ArtifactError."""
        documents = {r: read_document(r, json.dumps(one).encode()) for r, one in offered.items()}
        if not documents:
            raise TrustError("a proposal of nothing")
        with self._lock:
            self._recover()
            if self._stands_already(documents):
                return Outcome(True, ())
            merged, others = self._merged(documents)
            judged = judge(merged, self.standing, self._around())
            counting = with_counting_signatures(merged, judged)
            if judged.lacking:
                self._hold(Proposal(self._clock.wall(), counting), others, judged)
            else:
                self._accept(counting, others)
            return Outcome(not judged.lacking, judged.counts)

    def waiting(self) -> list[Waiting]:
        with self._lock:
            return [self._look_at(one, self.standing) for one in self._waiting]

    def discard(self, role: str) -> None:
        """The proposal that changes this role waits no more. Raises NotFoundError."""
        with self._lock:
            self._recover()
            left = tuple(one for one in self._waiting if role not in one.documents)
            if left == self._waiting:
                raise NotFoundError(f"no proposal of {role} waits")
            self._commit({WAITING: waiting_text(left)})
            self._waiting = left
            self._say(DISCARDED, role, {"roles": [role], "why": "discarded by hand"})

    # ---- by itself ------------------------------------------------------------------------------

    def renew(self) -> None:
        """Sign what is due, and warn of what people must. Never raises for what it finds."""
        with self._lock:
            in_force = self.in_force
            if in_force is None:
                return
            try:
                self._recover()
                self._keep_current(in_force)
            except (TrustError, ArtifactError):
                self._failures.failed("renewing signed metadata")
            else:
                self._failures.worked("renewing signed metadata")
            self._expiry.warn(in_force.standing, self.now())

    def _keep_current(self, in_force: InForce) -> None:
        online = renewed(
            in_force.standing, in_force.online, self._keys.signers, self.now(), self._lives
        )
        if online is not in_force.online:
            after = InForce(in_force.standing, online)
            self._commit(changes_of(in_force, after, self._store.names()))
            self.in_force = after

    # ---- proposals ------------------------------------------------------------------------------

    def _stands_already(self, documents: Mapping[str, Document[Any]]) -> bool:
        """A second try of what was accepted, its answer lost."""
        standing = self.standing
        if standing is None:
            return False
        stands: dict[str, Document[Any]] = {ROOT: standing.root, **standing.roles}
        return all(
            role in stands and stands[role].says_the_same_as(document)
            for role, document in documents.items()
        )

    def _merged(
        self, documents: Mapping[str, Document[Any]]
    ) -> tuple[dict[str, Document[Any]], tuple[Proposal, ...]]:
        """With the signatures that wait already, and the proposals that are others."""
        touched = [p for p in self._waiting if p.documents.keys() & documents.keys()]
        others = tuple(p for p in self._waiting if p not in touched)
        if not touched:
            return dict(documents), others
        waits = touched[0].documents
        same = len(touched) == 1 and waits.keys() == documents.keys()
        if not same or not all(waits[r].says_the_same_as(documents[r]) for r in waits):
            role = next(iter(waits.keys() & documents.keys()))
            raise ConflictError(
                f"another proposal of {role} waits for signatures",
                hint=f"sign it: `edgeloop trust countersign`, or take it away: "
                f"`edgeloop trust discard {role}`",
            )
        return {role: joined(waits[role], documents[role]) for role in waits}, others

    def _hold(self, proposal: Proposal, others: tuple[Proposal, ...], judged: Judged) -> None:
        waiting = (*others, proposal)
        self._commit({WAITING: waiting_text(waiting)})
        self._waiting = waiting
        for count in judged.lacking:
            data = {"signatures": len(count.signed), "threshold": count.threshold, "by": count.by}
            self._say(WAITS, count.role, data)

    def _accept(self, documents: Mapping[str, Document[Any]], others: tuple[Proposal, ...]) -> None:
        before, around = self.in_force, self._around()
        standing = judge(documents, self.standing, around).standing
        online = before.online if before else None
        now_online = renewed(standing, online, self._keys.signers, around.now, self._lives)
        after = InForce(standing, now_online)
        left = tuple(one for one in others if not self._look_at(one, standing).problem)
        changes = changes_of(before, after, self._store.names())
        self._commit({**changes, WAITING: waiting_text(left)})
        self.in_force, self._waiting = after, left
        for role, document in documents.items():
            kind = INITIALISED if before is None else CHANGED
            self._say(kind, role, {"version": document.version})
        for one in others:
            if one not in left:
                roles = list(one.documents)
                self._say(DISCARDED, roles[0], {"roles": roles, "why": "overtaken"})

    def _look_at(self, proposal: Proposal, standing: Standing | None) -> Waiting:
        try:
            judged = judge(proposal.documents, standing, self._around())
        except TrustError as error:
            return Waiting(proposal, (), str(error))
        return Waiting(proposal, judged.counts, "")

    def _around(self) -> Around:
        return Around(self.now(), self._keys.signers.keys(), self._published)

    # ---- files and words ------------------------------------------------------------------------

    def _commit(self, changes: Mapping[str, str | None]) -> None:
        try:
            self._store.commit(changes)
        except OSError as error:
            raise self._unkept(error) from error

    def _unkept(self, error: OSError) -> ArtifactError:
        self._must_recover = True
        return ArtifactError(
            f"signed metadata cannot be kept: {error}",
            hint="free disk space or mend the permissions of <data_dir>/trust, then try again",
        )

    def _recover(self) -> None:
        """What a full disk cut short is completed first: files and memory say the same again."""
        if self._must_recover:
            try:
                self._store.recover()
            except OSError as error:
                raise self._unkept(error) from error
            self._load()
            self._must_recover = False

    def _say(self, kind: str, role: str, data: dict[str, Any]) -> None:
        logger.info("%s: %s %s", kind, role, data)
        with self._database.writing() as session:
            events.add(session, self._clock.wall(), kind, role, data)
