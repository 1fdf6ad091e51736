"""What the controller signs by itself, and that python-tuf's own client follows it."""

from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from trust_bench import NOW, Publisher, new_key
from tuf.ngclient._internal.trusted_metadata_set import TrustedMetadataSet
from tuf.ngclient.config import EnvelopeType

from edgeloop_controller.trust.metadata import TARGETS, is_file_name, role_and_version
from edgeloop_controller.trust.renewal import Lives, Online, renewed
from edgeloop_protocol.errors import TrustError

LIVES = Lives(snapshot=timedelta(days=7), timestamp=timedelta(days=1))


def _renewed(publisher: Publisher, online: Online | None, now: datetime = NOW) -> Online:
    assert publisher.standing is not None
    signers = {signer.public_key.keyid: signer for signer in publisher.online.values()}
    return renewed(publisher.standing, online, signers, now, LIVES)


def _versions(online: Online) -> tuple[int, int]:
    return online.snapshot.version, online.timestamp.version


def test_what_is_current_is_signed_when_it_is_due_and_not_before() -> None:
    publisher = Publisher().initialised()
    online = _renewed(publisher, None)
    assert _versions(online) == (1, 1)
    assert _renewed(publisher, online, NOW + timedelta(hours=11)) is online
    assert _renewed(publisher, online, NOW - timedelta(days=365 * 50)) is online
    online = _renewed(publisher, online, NOW + timedelta(hours=12))
    assert _versions(online) == (1, 2)
    online = _renewed(publisher, online, NOW + timedelta(days=4))
    assert _versions(online) == (2, 3)
    publisher.signs("1.0", 1)
    assert _versions(_renewed(publisher, online, NOW + timedelta(days=4))) == (3, 4)


def test_new_online_keys_sign_at_once() -> None:
    publisher = Publisher().initialised()
    online = _renewed(publisher, None)
    publisher.online["timestamp"] = new_key()
    draft = publisher.draft()
    draft.replace_online({"timestamp": publisher.online["timestamp"].public_key})
    publisher.accepts(draft, *publisher.root)
    assert _versions(_renewed(publisher, online)) == (1, 2)


def test_a_lost_online_key_is_said_with_its_mend() -> None:
    publisher = Publisher().initialised()
    del publisher.online["snapshot"]
    with pytest.raises(TrustError, match="snapshot cannot be renewed") as caught:
        _renewed(publisher, None)
    assert "rotate online" in caught.value.hint


def _follows(publisher: Publisher, bootstrap: bytes, online: Online, roots: list[bytes]) -> None:
    """As python-tuf's client does; it raises where the real one would."""
    standing = publisher.standing
    assert standing is not None
    trusted = TrustedMetadataSet(bootstrap, EnvelopeType.METADATA)
    trusted.reference_time = NOW
    for root in roots:
        trusted.update_root(root)
    trusted.update_timestamp(online.timestamp.content)
    trusted.update_snapshot(online.snapshot.content)
    for role, document in standing.roles.items():
        delegator = "root" if role == TARGETS else TARGETS
        trusted.update_delegated_targets(document.content, role, delegator)


def test_a_client_of_the_specification_follows_over_several_roots() -> None:
    publisher = Publisher().initialised()
    assert publisher.standing is not None
    bootstrap, roots, online = publisher.standing.root.content, [], _renewed(publisher, None)
    team = new_key()
    draft = publisher.draft()
    draft.add_key("watch", team.public_key)
    publisher.accepts(draft, *publisher.targets)
    draft, release = publisher.draft(), publisher.release("1.0", 1)
    draft.put(release, publisher.sizes(release))
    publisher.accepts(draft, team)
    for _ in range(3):
        (old,), new = publisher.root, new_key()
        draft = publisher.draft()
        draft.add_key("root", new.public_key)
        draft.revoke_key("root", old.public_key.keyid)
        draft.settle()
        roots.append(publisher.accepts(draft, old, new).root.content)
        publisher.root = [new]
    online = _renewed(publisher, online)
    _follows(publisher, bootstrap, online, roots)
    listed: Mapping[str, object] = online.snapshot.signed.meta
    assert set(listed) == {"targets.json", "watch.json"}


@pytest.mark.parametrize(
    ("name", "means"),
    [
        ("timestamp.json", ("timestamp", 0)),
        ("1.root.json", ("root", 1)),
        ("12.watch.v2.json", ("watch.v2", 12)),
        ("2.1.root.json", ("1.root", 2)),
    ],
)
def test_names_of_metadata(name: str, means: tuple[str, int]) -> None:
    assert role_and_version(name) == means


@pytest.mark.parametrize(
    "name",
    [
        "",
        "root.json",
        "0.root.json",
        "01.root.json",
        "1.root.json\n",
        "1..json",
        "1...json",
        "1../../etc/passwd.json",
        "1.a/b.json",
        "1.a\\b.json",
        "1.root.json.tmp",
        "٣.root.json",
        "1." + "a" * 65 + ".json",
        "99999999999.root.json",
    ],
)
def test_everything_else_is_no_name(name: str) -> None:
    assert not is_file_name(name)
    with pytest.raises(TrustError, match="no name of metadata"):
        role_and_version(name)
