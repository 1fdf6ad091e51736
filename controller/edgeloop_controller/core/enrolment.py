"""Who gets a certificate: tokens, the approval queue, renewals. Pure: facts and `now`, a decision.

Invariants: no token takes over a device id that is enrolled or revoked, except one made for it; a
token is spent on one key; a revoked device gets nothing but by a token made for it; a request
without a token never gets a certificate without a person's decision.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from edgeloop_protocol.enrolment import renewal_at

TOKENS_OPEN_MAX: Final = 10_000
PENDING_MAX: Final = 1_000
PENDING_PER_ADDRESS_MAX: Final = 16
PENDING_KEPT_S: Final = 7 * 86_400.0
"""An undecided request that is not asked again for as long is forgotten."""
ASK_AGAIN_S: Final = 30.0
BACKDATED_S: Final = 300.0
"""Certificates begin so long before they are made: a device's clock may be a little behind."""


class DeviceKey(NamedTuple):
    """A key that a device may connect by; `fingerprint`: its SHA-256."""

    device_id: str
    fingerprint: str


def key_uri(fingerprint: str) -> str:
    """How a client's certificate names its key: for NATS, which knows no revocation list."""
    return f"urn:edgeloop:key:{fingerprint}"


Decided = Literal["pending", "approved", "rejected"]


@dataclass(frozen=True)
class Token:
    expires_at: float
    device_id: str | None
    labels: Mapping[str, str]
    spent_on_key: str | None


@dataclass(frozen=True)
class Identity:
    """What is known of a device id that was enrolled before."""

    key: str
    revoked: bool


@dataclass(frozen=True)
class Asked:
    """`key` is the SHA-256 of the public key in the request's CSR, which its private key signed."""

    device_id: str
    key: str


@dataclass(frozen=True)
class Queue:
    """The approval queue as the asking device finds it; `decided`: about this id and key."""

    open: bool
    decided: Decided | None
    pending: int
    pending_from_address: int


@dataclass(frozen=True)
class Issue:
    labels: Mapping[str, str]


@dataclass(frozen=True)
class Pend:
    """Queue it, or keep it there."""


@dataclass(frozen=True)
class Refuse:
    """`kind`: what an API makes a status of."""

    kind: Literal["unknown", "taken", "full"]
    why: str
    mend: str


Decision = Issue | Pend | Refuse

_MAKE_ANOTHER: Final = "make another with `edgeloop device enroll`"


def by_token(token: Token | None, asked: Asked, known: Identity | None, now: float) -> Decision:
    """A device showed a token; None: there is none of that hash."""
    if token is None:
        return Refuse("unknown", "the token is not one of this controller's", _MAKE_ANOTHER)
    if token.device_id is not None and token.device_id != asked.device_id:
        mend = "use it there, or " + _MAKE_ANOTHER
        return Refuse("unknown", "the token is for another device", mend)
    if token.expires_at <= now:
        return Refuse("unknown", "the token has expired", _MAKE_ANOTHER)
    if token.spent_on_key is not None and token.spent_on_key != asked.key:
        return Refuse("unknown", "the token was used already, with another key", _MAKE_ANOTHER)
    if known is None:
        return Issue(token.labels)
    if token.spent_on_key is not None and not _is_same(known, asked):
        return Refuse("unknown", "the device was revoked or has a newer key since", _MAKE_ANOTHER)
    if token.device_id is None and not _is_same(known, asked):
        return _taken(asked.device_id, known)
    return Issue(token.labels)


def by_asking(asked: Asked, known: Identity | None, queue: Queue) -> Decision:
    """A device showed no token."""
    if queue.decided == "approved" and (known is None or _is_same(known, asked)):
        return Issue({})
    if known is not None:
        return _taken(asked.device_id, known)
    if queue.decided == "rejected":
        mend = f"`edgeloop device enroll --device {asked.device_id}` makes a token that lets it in"
        return Refuse("unknown", "an operator has rejected this device", mend)
    if not queue.open:
        mend = "get a token: `edgeloop device enroll`; or set [enrolment] approval_queue = true"
        return Refuse("unknown", "this controller enrols by token only", mend)
    if queue.decided is None:
        if queue.pending >= PENDING_MAX:
            mend = "`edgeloop device enrolments` shows them; approve or reject some"
            return Refuse("full", f"{queue.pending} devices wait for approval already", mend)
        if queue.pending_from_address >= PENDING_PER_ADDRESS_MAX:
            mend = "approve or reject them first, or enrol by tokens"
            return Refuse("full", "too many devices of this address wait for approval", mend)
    return Pend()


@dataclass(frozen=True)
class Shown:
    """The certificate that a device renews, as the controller has it in its books."""

    key: str
    begins: float
    ends: float
    revoked: bool


def by_renewal(
    shown: Shown | None,
    known: Identity | None,
    asked: Asked,
    key_is_to_change: bool,
    renew_after_expiry_s: float,
    now: float,
) -> Issue | Refuse:
    """`shown` signed the request with its key. Refuse "taken": come again with a new key."""
    enrol = f"`edgeloop device enroll --device {asked.device_id}` makes a token that lets it in"
    if shown is None or known is None:
        return Refuse("unknown", "the certificate is not one of this controller's", enrol)
    if known.revoked or shown.revoked:
        return Refuse("unknown", "the certificate is revoked", enrol)
    if now >= shown.ends + renew_after_expiry_s:
        return Refuse("unknown", "the certificate ran out too long ago", enrol)
    is_older = asked.key == shown.key != known.key
    if is_older or (key_is_to_change and asked.key == known.key):
        return Refuse("taken", "the device is to make a new key", "ask again with one")
    return Issue({})


def lifetime(now: float, lifetime_s: float, authority_ends: float) -> tuple[float, float]:
    """(not before, not after): never longer than its authority's."""
    return now - BACKDATED_S, min(now + lifetime_s, authority_ends)


def is_renewal_due(begins: float, ends: float, now: float) -> bool:
    return now >= renewal_at(begins, ends)


def _is_same(known: Identity, asked: Asked) -> bool:
    return known.key == asked.key and not known.revoked


def _taken(device_id: str, known: Identity) -> Refuse:
    state = "is revoked" if known.revoked else "is enrolled already, with another key"
    mend = f"`edgeloop device enroll --device {device_id}` makes a token that takes its place"
    return Refuse("taken", f"device {device_id} {state}", mend)
