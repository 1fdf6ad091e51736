"""Who gets a certificate: every row of the tables in ADR 0033."""

import pytest

from edgeloop_controller.core import enrolment as core
from edgeloop_controller.core.enrolment import Asked, Identity, Issue, Pend, Queue, Refuse, Token

NOW = 1000.0
ASKED = Asked("dev1", "key")


def token(**changes: object) -> Token:
    facts = {
        "expires_at": NOW + 1,
        "device_id": None,
        "labels": {"site": "lab"},
        "spent_on_key": None,
    }
    return Token(**(facts | changes))  # type: ignore[arg-type]


def same(revoked: bool = False) -> Identity:
    return Identity("key", revoked)


OTHER = Identity("other", revoked=False)


@pytest.mark.parametrize(
    ("shown", "known", "kind"),
    [
        (token(), None, "issue"),
        (None, None, "unknown"),
        (token(expires_at=NOW), None, "unknown"),
        (token(device_id="dev2"), None, "unknown"),
        (token(spent_on_key="other"), None, "unknown"),
        # A lost answer is asked for again.
        (token(spent_on_key="key"), same(), "issue"),
        # No token takes over a device, except one made for it.
        (token(), same(), "issue"),
        (token(), OTHER, "taken"),
        (token(), same(revoked=True), "taken"),
        (token(device_id="dev1"), OTHER, "issue"),
        (token(device_id="dev1"), same(revoked=True), "issue"),
        # And not twice: it was revoked, or got a newer key, after the token was spent.
        (token(device_id="dev1", spent_on_key="key"), same(revoked=True), "unknown"),
        (token(device_id="dev1", spent_on_key="key"), OTHER, "unknown"),
    ],
)
def test_by_token(shown: Token | None, known: Identity | None, kind: str) -> None:
    decision = core.by_token(shown, ASKED, known, NOW)
    if kind == "issue":
        assert decision == Issue({"site": "lab"})
    else:
        assert isinstance(decision, Refuse)
        assert decision.kind == kind


@pytest.mark.parametrize(
    ("queue", "known", "kind"),
    [
        (Queue(True, None, 0, 0), None, "pend"),
        (Queue(True, "pending", 9999, 9999), None, "pend"),
        (Queue(True, "approved", 0, 0), None, "issue"),
        (Queue(True, "approved", 0, 0), same(), "issue"),
        (Queue(True, "approved", 0, 0), same(revoked=True), "taken"),
        (Queue(True, "approved", 0, 0), OTHER, "taken"),
        (Queue(True, "rejected", 0, 0), None, "unknown"),
        (Queue(True, None, 0, 0), OTHER, "taken"),
        (Queue(True, None, 0, 0), same(), "taken"),
        (Queue(False, None, 0, 0), None, "unknown"),
        (Queue(True, None, core.PENDING_MAX, 0), None, "full"),
        (Queue(True, None, 50, core.PENDING_PER_ADDRESS_MAX), None, "full"),
    ],
)
def test_by_asking(queue: Queue, known: Identity | None, kind: str) -> None:
    decision = core.by_asking(ASKED, known, queue)
    found = {Issue: "issue", Pend: "pend"}.get(type(decision)) or decision.kind  # type: ignore[union-attr]
    assert found == kind


@pytest.mark.parametrize(
    ("shown", "known", "key", "change", "kind"),
    [
        (("key", False), same(), "key", False, "issue"),
        (("key", False), same(), "new", True, "issue"),
        (("key", False), same(), "key", True, "taken"),
        (None, same(), "key", False, "unknown"),
        (("key", False), None, "key", False, "unknown"),
        (("key", True), same(), "key", False, "unknown"),
        (("key", False), same(revoked=True), "key", False, "unknown"),
        # Who holds an older key than the newest one cannot hold on to it.
        (("key", False), OTHER, "key", False, "taken"),
        (("key", False), OTHER, "other", False, "issue"),
    ],
)
def test_by_renewal(
    shown: tuple[str, bool] | None, known: Identity | None, key: str, change: bool, kind: str
) -> None:
    row = shown and core.Shown(shown[0], 0.0, NOW - 1, shown[1])
    decision = core.by_renewal(row, known, Asked("dev1", key), change, 2.0, NOW)
    found = "issue" if isinstance(decision, Issue) else decision.kind
    assert found == kind


def test_a_certificate_that_ran_out_is_renewed_for_a_while() -> None:
    shown = core.Shown("key", 0.0, NOW - 100, revoked=False)
    renew = (shown, same(), ASKED, False)
    assert isinstance(core.by_renewal(*renew, 101.0, NOW), Issue)
    assert isinstance(core.by_renewal(*renew, 100.0, NOW), Refuse)


def test_renewal_is_due_at_two_thirds_and_no_certificate_outlives_its_authority() -> None:
    assert not core.is_renewal_due(0.0, 300.0, 199.9)
    assert core.is_renewal_due(0.0, 300.0, 200.0)
    assert core.lifetime(NOW, 60.0, NOW + 30) == (NOW - core.BACKDATED_S, NOW + 30)
