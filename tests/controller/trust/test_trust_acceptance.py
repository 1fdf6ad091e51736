"""What the controller accepts of people, and what it never does."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from trust_bench import NOW, Publisher, new_key
from tuf.api.metadata import DelegatedRole, Delegations, Metadata

from edgeloop_controller.trust.acceptance import judge
from edgeloop_controller.trust.editing import Draft
from edgeloop_controller.trust.metadata import ROOT, TARGETS, all_releases
from edgeloop_controller.trust.signing import documents, sign
from edgeloop_protocol.errors import TrustError


@pytest.fixture
def publisher() -> Publisher:
    return Publisher().initialised()


def test_a_first_root_and_targets_are_accepted(publisher: Publisher) -> None:
    assert publisher.standing is not None
    assert (publisher.standing.root.version, publisher.standing.targets.version) == (1, 1)


def test_releases_are_signed_one_after_another(publisher: Publisher) -> None:
    publisher.signs("1.0", 1)
    standing = publisher.signs("1.1", 2, slots=("left",))
    found = all_releases(standing.roles.values())
    assert [(v, r.release, r.rollback_floor) for (_, v), r in found.items()] == [
        ("1.0", 1, 1),
        ("1.1", 2, 1),
    ]
    assert standing.targets.version == 3


@pytest.mark.parametrize("selector", ["model.watch<2", "site=a, !slot.left", "slot.left=watch@1"])
def test_no_release_is_for_devices_by_what_they_run(publisher: Publisher, selector: str) -> None:
    """The device that judges it answers no such question, and would never install it."""
    with pytest.raises(TrustError, match="which no device answers"):
        publisher.signs("1.0", 1, selector=selector)
    publisher.signs("1.0", 1, selector="site=a, arch in (aarch64, x86_64)")


def test_a_rollback_is_allowed_by_signing_lower_floors(publisher: Publisher) -> None:
    for number, version in enumerate(("1.0", "1.1", "1.2", "1.3"), start=1):
        publisher.signs(version, number)
    draft = publisher.draft()
    assert [r.version for r in draft.allow_rollback("watch", "1.0")] == ["1.2", "1.3"]
    found = all_releases(publisher.accepts(draft, *publisher.targets).roles.values())
    assert {version: one.rollback_floor for (_, version), one in found.items()} == {
        "1.0": 1,
        "1.1": 1,
        "1.2": 1,
        "1.3": 1,
    }


def test_the_root_grows_by_both_thresholds(publisher: Publisher) -> None:
    bob, carol = new_key(), new_key()
    draft = publisher.draft()
    draft.add_key(ROOT, bob.public_key)
    draft.add_key(ROOT, carol.public_key, threshold=2)
    draft.settle()
    assert list(draft.changed) == [ROOT]
    with pytest.raises(TrustError, match=r"no signature on it is of a key of root 1"):
        publisher.judged(draft.changed, bob, carol)
    draft.changed[ROOT].signatures.clear()
    judged = publisher.judged(draft.changed, *publisher.root)
    assert [(c.by, c.lacks) for c in judged.counts] == [("root 1", 0), ("root 2", 1)]
    publisher.accepts(draft, bob)


def test_a_targets_key_that_goes_takes_what_it_signed_along(publisher: Publisher) -> None:
    publisher.signs("1.0", 1)
    (old,), new = publisher.targets, new_key()
    draft = publisher.draft()
    draft.add_key(TARGETS, new.public_key)
    draft.revoke_key(TARGETS, old.public_key.keyid)
    with pytest.raises(TrustError, match="targets as it stands is not signed by the keys"):
        publisher.judged(draft.changed, *publisher.root)
    draft.changed[ROOT].signatures.clear()
    draft.settle()
    assert list(draft.changed) == [ROOT, TARGETS]
    publisher.accepts(draft, *publisher.root, new)
    publisher.targets = [new]
    publisher.signs("1.1", 2)


def test_a_model_may_have_keys_of_its_own(publisher: Publisher) -> None:
    team = new_key()
    draft = publisher.draft()
    draft.add_key("watch", team.public_key)
    publisher.accepts(draft, *publisher.targets)
    draft, release = publisher.draft(), publisher.release("1.0", 1)
    draft.put(release, publisher.sizes(release))
    assert list(draft.changed) == ["watch"]
    standing = publisher.accepts(draft, team)
    assert standing.roles["watch"].version == 1
    draft, release = publisher.draft(), publisher.release("1.0", 1, model="other")
    draft.put(release, publisher.sizes(release))
    draft.changed["watch"] = draft.changed.pop(TARGETS)
    draft.changed["watch"].signed.version, draft.changed["watch"].signed.delegations = 2, None
    with pytest.raises(TrustError, match="watch: it signs another model"):
        publisher.judged(draft.changed, team)


def _put(publisher: Publisher, version: str, number: int, **terms: Any) -> Draft:
    draft, release = publisher.draft(), publisher.release(version, number, **terms)
    draft.put(release, publisher.sizes(release))
    return draft


def _jump(publisher: Publisher) -> Draft:
    draft = _put(publisher, "1.1", 2)
    draft.changed[TARGETS].signed.version += 1
    return draft


def _expired(publisher: Publisher) -> Draft:
    draft = _put(publisher, "1.1", 2)
    draft.changed[TARGETS].signed.expires = NOW
    return draft


def _half(publisher: Publisher) -> Draft:
    draft = _put(publisher, "1.1", 2)
    del draft.changed[TARGETS].signed.targets["watch/1.1/manifest"]
    return draft


def _unpublished(publisher: Publisher) -> Draft:
    draft = _put(publisher, "1.1", 2)
    del publisher.published["watch", "1.1"]
    return draft


def _published_otherwise(publisher: Publisher) -> Draft:
    draft = _put(publisher, "1.1", 2)
    key = "watch", "1.1"
    publisher.published[key] = replace(publisher.published[key], runtime="tflite")
    return draft


def _other_bytes(publisher: Publisher) -> Draft:
    draft = publisher.draft()
    release = publisher.release("1.0", 1).model_copy(update={"artifact_sha256": "f" * 64})
    draft.put(release, (1, 1))
    return draft


def _delegates_widely(publisher: Publisher) -> Draft:
    draft, key = publisher.draft(), new_key().public_key
    draft.renew(TARGETS)
    role = DelegatedRole("watch", [key.keyid], 1, terminating=True, paths=["*/*/*"])
    draft.changed[TARGETS].signed.delegations = Delegations({key.keyid: key}, {"watch": role})
    return draft


def _delegates_to_an_online_key(publisher: Publisher) -> Draft:
    draft = publisher.draft()
    draft.add_key("watch", publisher.online["timestamp"].public_key)
    return draft


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (_jump, "version 4 does not follow 2"),
        (_expired, "targets: it expired"),
        (_half, "watch@1.1 has no target manifest"),
        (_unpublished, "watch@1.1 is signed, and not published here"),
        (_published_otherwise, "runtime onnx is signed, tflite is published"),
        (_other_bytes, "versions are immutable"),
        (lambda p: _put(p, "1.1", 1), "1 of watch is 1.0 and 1.1: a counter is used once"),
        (_delegates_widely, r"must have the path watch/\*/\* only"),
        (_delegates_to_an_online_key, "watch: a key that the controller holds online"),
    ],
)
def test_targets_that_break_a_rule_are_refused(
    publisher: Publisher, make: Callable[[Publisher], Draft], said: str
) -> None:
    publisher.signs("1.0", 1)
    draft = make(publisher)
    with pytest.raises(TrustError, match=said):
        publisher.judged(draft.changed, *publisher.targets)


def test_a_counter_never_falls(publisher: Publisher) -> None:
    publisher.signs("1.0", 5)
    with pytest.raises(TrustError, match="signed as release 4; 5 was used already"):
        publisher.judged(_put(publisher, "1.1", 4).changed, *publisher.targets)
    with pytest.raises(TrustError, match="must be above 5"):
        publisher.judged(_put(publisher, "1.0", 4).changed, *publisher.targets)


def _root_of(publisher: Publisher) -> Any:
    draft = publisher.draft()
    draft.renew(ROOT)
    return draft.changed[ROOT]


def _with_online_targets(publisher: Publisher, root: Metadata[Any]) -> None:
    root.signed.add_key(publisher.online["snapshot"].public_key, TARGETS)


def _with_a_strange_timestamp(publisher: Publisher, root: Metadata[Any]) -> None:
    root.signed.add_key(new_key().public_key, "timestamp")


def _with_one_key_twice(publisher: Publisher, root: Metadata[Any]) -> None:
    key = publisher.root[0].public_key
    twin = type(key)("0" * 64, key.keytype, key.scheme, dict(key.keyval))
    root.signed.add_key(twin, ROOT)
    root.signed.roles[ROOT].threshold = 2


def _with_a_threshold_too_high(publisher: Publisher, root: Metadata[Any]) -> None:
    root.signed.roles[TARGETS].threshold = 2


def _without_consistent_snapshots(publisher: Publisher, root: Metadata[Any]) -> None:
    root.signed.consistent_snapshot = False


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_with_online_targets, "targets: a key that the controller holds online"),
        (_with_a_strange_timestamp, "which this controller does not hold"),
        (_with_one_key_twice, "root: one key stands there twice"),
        (_with_a_threshold_too_high, "2 signatures are asked for, of 1 keys"),
        (_without_consistent_snapshots, "consistent_snapshot must be true"),
    ],
)
def test_a_root_that_breaks_a_rule_is_refused(
    publisher: Publisher, spoil: Callable[[Publisher, Metadata[Any]], None], said: str
) -> None:
    root = _root_of(publisher)
    spoil(publisher, root)
    with pytest.raises(TrustError, match=said):
        publisher.judged({ROOT: root}, *publisher.root)


def test_the_online_keys_sign_nothing_that_installs(publisher: Publisher) -> None:
    draft = _put(publisher, "1.0", 1)
    thieves = list(publisher.online.values())
    with pytest.raises(TrustError, match="may sign none of targets"):
        sign(draft.changed, publisher.standing, thieves)
    for thief in thieves:
        draft.changed[TARGETS].sign(thief, append=True)
    with pytest.raises(TrustError, match="no signature on it is of a key of root 1"):
        judge(documents(draft.changed), publisher.standing, publisher.around)


def test_a_damaged_signature_counts_for_nothing(publisher: Publisher) -> None:
    draft = _put(publisher, "1.0", 1)
    sign(draft.changed, publisher.standing, publisher.targets)
    draft.changed[TARGETS].signed.expires += timedelta(days=1)
    with pytest.raises(TrustError, match="no signature on it"):
        judge(documents(draft.changed), publisher.standing, publisher.around)


def test_a_delegation_is_never_taken_back(publisher: Publisher) -> None:
    team = new_key()
    draft = publisher.draft()
    draft.add_key("watch", team.public_key)
    publisher.accepts(draft, *publisher.targets)
    publisher.accepts(_put(publisher, "1.0", 1), team)
    draft = publisher.draft()
    draft.renew(TARGETS)
    draft.changed[TARGETS].signed.delegations = None
    with pytest.raises(TrustError, match="the delegation to watch is gone"):
        publisher.judged(draft.changed, *publisher.targets)


def test_a_models_key_is_rotated_with_what_it_had_signed(publisher: Publisher) -> None:
    old, new = new_key(), new_key()
    draft = publisher.draft()
    draft.add_key("watch", old.public_key)
    publisher.accepts(draft, *publisher.targets)
    publisher.accepts(_put(publisher, "1.0", 1), old)
    draft = publisher.draft()
    draft.add_key("watch", new.public_key)
    draft.revoke_key("watch", old.public_key.keyid)
    draft.settle()
    assert list(draft.changed) == [TARGETS, "watch"]
    publisher.accepts(draft, *publisher.targets, new)
    with pytest.raises(TrustError, match="may sign none of watch"):
        publisher.judged(_put(publisher, "1.1", 2).changed, old)


def test_a_last_key_is_not_taken_away(publisher: Publisher) -> None:
    with pytest.raises(TrustError, match="and would have 0 keys"):
        publisher.draft().revoke_key(TARGETS, publisher.targets[0].public_key.keyid)
