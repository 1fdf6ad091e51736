"""`edgeloop trust init`, and what changes who may sign."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from securesystemslib.signer import Key

from edgeloop_controller.cli import output
from edgeloop_controller.cli.trust_options import Manner
from edgeloop_controller.cli.trust_session import Outcome, Session, at_work
from edgeloop_controller.trust import keys as key_files
from edgeloop_controller.trust.editing import Draft, Holders, first
from edgeloop_controller.trust.metadata import ROOT, TARGETS, document_of
from edgeloop_controller.trust.signing import may_sign
from edgeloop_protocol.errors import TrustError

ONLINE_ROLE: Final = "online"
"""What `rotate` calls the controller's own two roles."""


@dataclass(frozen=True)
class Asked:
    """Holders of a role in a first root: their keys, by reference."""

    references: Sequence[str]
    threshold: int


def init(root: Asked, targets: Asked, manner: Manner, passphrase: bool) -> Outcome:
    with at_work(manner) as session:
        if session.client.get("/trust")["initialised"]:
            raise TrustError(
                "trust is initialised already", "`edgeloop trust status`; `rotate` changes its keys"
            )
        if session.home.root_path.exists():
            raise TrustError(
                f"{session.home.root_path} exists: it is another fleet's root",
                "give this fleet a directory of its own by --home",
            )
        holders = {
            role: _holders(session, role, asked, passphrase)
            for role, asked in ((ROOT, root), (TARGETS, targets))
        }
        online = _online_keys(session)
        changed = first(
            _keys(session, holders[ROOT]),
            _keys(session, holders[TARGETS]),
            online,
            session.now,
            session.lives,
        )
        references = [*holders[ROOT].references, *holders[TARGETS].references, *manner.keys]
        outcome = session.propose(changed, None, _private(references))
        session.home.keep_root(document_of(ROOT, changed[ROOT]))
        if outcome["accepted"]:
            session.home.keep_seen({ROOT: 1, TARGETS: 1})
        if not manner.quiet:
            output.say(f"the root for devices and for other people: {session.home.root_path}")
        return outcome


def new_key(path: Path, manner: Manner, passphrase: bool) -> None:
    with at_work(manner) as session:
        _make(session, path, passphrase)


def add_key(role: str, public: str, threshold: int | None, manner: Manner) -> Outcome:
    with at_work(manner) as session:
        draft = session.draft()
        draft.add_key(role, session.public(public), threshold)
        return _propose(session, draft, manner.keys)


def revoke_key(role: str, key: str, threshold: int | None, manner: Manner) -> Outcome:
    with at_work(manner) as session:
        draft = session.draft()
        draft.revoke_key(role, _keyid(session, draft, role, key), threshold)
        return _propose(session, draft, manner.keys)


def rotate(role: str, new: str | None, old: str | None, manner: Manner) -> Outcome:
    """Of `online` the controller makes the new keys itself."""
    with at_work(manner) as session:
        draft = session.draft()
        if role == ONLINE_ROLE:
            draft.replace_online(_online_keys(session))
            return _propose(session, draft, manner.keys)
        if new is None:
            raise TrustError(f"which key {role} gets is not said", "give --new FILE")
        gone = _old_keyid(session, draft, role, old)
        draft.add_key(role, session.public(new))
        draft.revoke_key(role, gone)
        draft.settle()
        helping = [r for r in (new, old) if r is not None and _may_help(session, draft, r)]
        return _propose(session, draft, [*manner.keys, *helping])


def renew(roles: Sequence[str], manner: Manner) -> Outcome:
    with at_work(manner) as session:
        draft = session.draft()
        for role in roles:
            draft.renew(role)
        return _propose(session, draft, manner.keys)


def _propose(session: Session, draft: Draft, references: Sequence[str]) -> Outcome:
    draft.settle()
    return session.propose(draft.changed, draft.standing, references)


# ---- keys ---------------------------------------------------------------------------------------


def _holders(session: Session, role: str, asked: Asked, passphrase: bool) -> Asked:
    """Where nobody is named, a key in the person's own directory, made if it is not there."""
    if asked.references:
        return asked
    path = session.home.directory / f"{role}{key_files.PRIVATE_SUFFIX}"
    if not path.exists():
        _make(session, path, passphrase)
    return Asked((str(path),), asked.threshold)


def _make(session: Session, path: Path, passphrase: bool) -> None:
    chosen = _new_passphrase(session, path) if passphrase else ""
    key = key_files.make_key(path, chosen)
    if not session.manner.quiet:
        output.say(f"{path}: key {key.keyid[:12]}; {key_files.public_path(path)} is for others")


def _new_passphrase(session: Session, path: Path) -> str:
    chosen = session.ask(f"the key {path}", is_new=True)
    if not chosen:
        raise TrustError(
            "an empty passphrase locks nothing",
            "give one, or --no-passphrase for a key in a place that only you can read",
        )
    return chosen


def _keys(session: Session, asked: Asked) -> Holders:
    return Holders([session.public(one) for one in asked.references], asked.threshold)


def _online_keys(session: Session) -> dict[str, Key]:
    made: Mapping[str, Any] = session.client.post("/trust/keys")
    return {role: Key.from_dict(one["keyid"], dict(one["key"])) for role, one in made.items()}


def _private(references: Sequence[str]) -> list[str]:
    """Those that can sign."""
    return [one for one in references if key_files.is_uri(one) or key_files.is_private(Path(one))]


def _keyid(session: Session, draft: Draft, role: str, key: str) -> str:
    """By a key's file, or by the beginning of its id."""
    if Path(key).exists():
        return session.public(key).keyid
    known = draft.keyids(role)
    found = [keyid for keyid in known if keyid.startswith(key.lower())] if len(key) >= 4 else []
    if len(found) != 1:
        raise TrustError(
            f"{key} is no key of {role}: neither a file nor the beginning of one id",
            f"it has {', '.join(keyid[:12] for keyid in known)}",
        )
    return found[0]


def _old_keyid(session: Session, draft: Draft, role: str, old: str | None) -> str:
    if old is not None:
        return _keyid(session, draft, role, old)
    known = draft.keyids(role)
    if len(known) != 1:
        raise TrustError(f"{role} has {len(known)} keys", "say by --old which one goes")
    return known[0]


def _may_help(session: Session, draft: Draft, reference: str) -> bool:
    """Whether it is a private key that may sign something of the draft."""
    path = Path(reference)
    if not path.exists() or not key_files.is_private(path):
        return False
    keyid = session.public(reference).keyid
    return any(keyid in may_sign(role, draft.changed, draft.standing) for role in draft.changed)
