"""The device's TUF client against a repository in memory: what it believes, asks for and keeps."""

import json
from datetime import timedelta
from urllib.parse import unquote

import pytest
from securesystemslib.signer import CryptoSigner
from trust_repository import LATER, NOW, TOP, Mirror, Repository
from tuf.api.metadata import DelegatedRole, Metadata, Targets

from edgeloop_agent.errors import MetadataError, MetadataExpiredError
from edgeloop_agent.trust import client as workflow
from edgeloop_agent.trust.client import TufClient
from edgeloop_agent.trust.metadata_store import MetadataStore
from edgeloop_simulators.twins.disk import MemoryDisk
from edgeloop_simulators.virtual.kernel.streams import Streams

FIRST = ["2.root.json", "timestamp.json", "1.snapshot.json", "1.targets.json"]


class Rig:
    """A device's store and its mirror; each `refresh` is another process."""

    def __init__(self):
        self.repository = Repository()
        self.mirror = Mirror(self.repository.files)
        self.disk = MemoryDisk()
        self.store = MetadataStore(self.disk)
        self.store.begin(self.repository.files["1.root.json"])
        self.now = NOW

    def refresh(self):
        self.mirror.asked.clear()
        client = TufClient(self.store, self.mirror, self.now)
        client.refresh()
        return client

    def find(self, *paths):
        client = self.refresh()
        return [client.find(path) for path in paths]

    def fails(self, words):
        before = self.kept()
        with pytest.raises(MetadataError, match=words):
            self.refresh()
        return before

    def kept(self):
        """Role → version."""
        roles = [
            name.removesuffix(".json") for name in self.disk.list("") if name.endswith(".json")
        ]
        return {
            role: Metadata.from_bytes(self.store.load(unquote(role))).signed.version
            for role in roles
        }


@pytest.fixture
def rig():
    return Rig()


def test_the_first_refresh_asks_for_each_role_once_and_keeps_the_bytes_as_they_came(rig):
    rig.repository.files["timestamp.json"] += b" "
    rig.refresh()
    assert rig.mirror.asked == FIRST
    assert rig.kept() == dict.fromkeys(("root", *TOP), 1)
    assert rig.store.load("timestamp") == rig.repository.files["timestamp.json"]


def test_a_refresh_without_news_asks_for_two_documents(rig):
    rig.refresh()
    rig.refresh()
    assert rig.mirror.asked == FIRST[:2]


@pytest.mark.parametrize(
    ("role", "reached"),
    [
        ("root", {"root": 1}),
        ("timestamp", {"root": 2}),
        ("snapshot", {"root": 2, "timestamp": 2}),
        ("targets", {"root": 2, "timestamp": 2, "snapshot": 2}),
    ],
)
def test_what_is_not_signed_by_its_role_ends_the_refresh_there(rig, role, reached):
    rig.repository.keys[role] = [CryptoSigner.generate_ed25519()]
    rig.repository.publish("root", *TOP)
    rig.fails(role)
    assert rig.kept() == reached


@pytest.mark.parametrize("role", ["snapshot", "targets", "root"])
def test_a_version_that_is_not_the_one_listed_is_not_taken(rig, role):
    repository = rig.repository
    repository.publish("root", *TOP)
    repository.signed[role].version += 1
    repository.files[f"2.{role}.json"] = repository.document(role)
    rig.fails("version 3 in place of 2")


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_hashes_and_lengths_that_are_listed_are_held(rig, role):
    by = {"snapshot": "timestamp", "targets": "snapshot"}[role]
    listed = rig.repository.timestamp.snapshot_meta
    if role == "targets":
        listed = rig.repository.snapshot.meta["targets.json"]
    listed.length, listed.hashes = 10_000, {"sha256": "0" * 64}
    rig.repository.publish(*dict.fromkeys((by, "timestamp")))
    rig.fails(role)
    assert role not in rig.kept()


def test_another_timestamp_of_the_same_version_changes_nothing(rig):
    rig.refresh()
    kept = rig.store.load("timestamp")
    rig.repository.timestamp.snapshot_meta.version = 100
    rig.repository.files["timestamp.json"] = rig.repository.document("timestamp")
    rig.refresh()
    assert rig.store.load("timestamp") == kept


def test_nothing_older_than_what_was_seen_is_taken(rig):
    old = dict(rig.repository.files)
    rig.repository.publish(*TOP)
    rig.refresh()
    rig.mirror.files = old
    rig.fails("timestamp: version 1 is older than 2")


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_a_newer_document_may_list_nothing_older(rig, role):
    rig.repository.publish(*TOP)
    rig.refresh()
    rig.repository.signed[role].version = 0  # the next is 1 again
    rig.repository.publish(*TOP[TOP.index(role) :])
    before = rig.fails("older than 2")
    assert rig.kept()["targets"] == before["targets"]


def test_a_snapshot_may_drop_no_role(rig):
    rig.repository.delegate("a", "a/*")
    rig.repository.publish("a", *TOP)
    rig.refresh()
    del rig.repository.snapshot.meta["a.json"]
    rig.repository.publish("snapshot", "timestamp")
    rig.fails(r"snapshot: it lists a\.json no more")


@pytest.mark.parametrize("role", ["timestamp", "snapshot"])
def test_new_keys_recover_from_versions_that_an_attacker_raised(rig, role):
    repository = rig.repository
    repository.signed[role].version = 1000
    repository.publish(*TOP[TOP.index(role) :])
    rig.refresh()
    for rotated in {role, "timestamp"}:
        repository.rotate(rotated)
    repository.signed[role].version = 0
    repository.publish(*TOP)
    rig.refresh()
    assert rig.kept()[role] == 1


ROTATIONS = {
    "by both keys": ("both", True),
    "without the old key": ("new", False),
    "without the new key": ("old", False),
}


@pytest.mark.parametrize(("by", "is_taken"), ROTATIONS.values(), ids=ROTATIONS.keys())
def test_a_root_is_signed_by_the_old_keys_and_by_its_own(rig, by, is_taken):
    repository = rig.repository
    old = list(repository.keys["root"])
    if by == "both":
        repository.rotate("root")
    elif by == "old":
        repository.rotate("root", signed_by=old)
    else:
        repository.keys["root"] = []
        repository.rotate("root")
        repository.files["2.root.json"] = repository.document("root")
    if is_taken:
        rig.refresh()
    else:
        rig.fails("root")
    assert rig.kept()["root"] == 1 + is_taken


def test_a_threshold_counts_keys_and_not_signatures(rig):
    rig.repository.rotate("timestamp", keys=2, threshold=2)
    rig.repository.publish("timestamp")
    rig.refresh()
    rig.repository.keys["timestamp"].pop()
    rig.repository.publish("timestamp")
    rig.fails("timestamp")
    document = json.loads(rig.repository.files["timestamp.json"])
    document["signatures"] *= 2
    rig.repository.files["timestamp.json"] = json.dumps(document).encode()
    rig.fails("timestamp")


def test_many_rotations_are_followed_and_each_is_kept(rig, monkeypatch):
    for _ in range(6):
        rig.repository.rotate("root")
    monkeypatch.setattr(workflow, "ROOT_ROTATIONS_MAX", 4)
    rig.refresh()
    assert rig.kept()["root"] == 5
    rig.refresh()
    assert rig.kept()["root"] == 7


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_what_has_expired_is_said_with_the_clock_and_not_kept(rig, role):
    rig.refresh()
    rig.repository.signed[role].expires = NOW - timedelta(minutes=1)
    rig.repository.publish(*TOP[TOP.index(role) :])
    with pytest.raises(MetadataExpiredError, match=r"2026-11-30 23:59 .*stands at 2026-12-01"):
        rig.refresh()
    assert rig.kept()[role] == 1


def test_an_expired_root_is_kept_and_nothing_else_goes_on(rig):
    rig.refresh()
    rig.repository.root.expires = NOW - timedelta(days=1)
    rig.repository.publish("root", *TOP)
    rig.fails("root: it expired")
    assert rig.kept() == {"root": 2, **dict.fromkeys(TOP, 1)}


def test_what_is_kept_and_has_expired_gives_way_to_what_is_new(rig):
    rig.refresh()
    rig.now = LATER + timedelta(days=1)
    for role in ("root", *TOP):
        rig.repository.signed[role].expires = LATER + timedelta(days=9)
    rig.repository.publish("root", *TOP)
    rig.refresh()
    assert set(rig.kept().values()) == {2}


@pytest.mark.parametrize("lost", ["2.snapshot.json", "2.targets.json", "timestamp.json"])
def test_a_document_that_is_missing_ends_the_refresh(rig, lost):
    rig.refresh()
    rig.repository.publish(*TOP)
    del rig.repository.files[lost]
    rig.fails(f"no {lost}")


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b"\xff", b"{}", b"[" * 16_000, b'{"signed": {"_type": "x"}}'],
    ids=lambda document: str(document[:12]),
)
def test_what_is_no_metadata_is_an_error_in_words(rig, document):
    rig.repository.files["timestamp.json"] = document
    rig.fails("timestamp: not a metadata document")


def test_a_document_of_another_type_is_not_taken_though_it_is_signed(rig):
    repository = rig.repository
    repository.keys["snapshot"] += repository.keys["timestamp"]
    for key in repository.keys["timestamp"]:
        repository.root.add_key(key.public_key, "snapshot")
    repository.publish("root", "snapshot")
    repository.files["timestamp.json"] = repository.document("snapshot")
    rig.fails("timestamp: a document of type snapshot")


def test_unknown_fields_are_part_of_what_is_signed(rig):
    rig.repository.targets.unrecognized_fields["later"] = {"a": 1}
    rig.repository.publish(*TOP)
    rig.refresh()
    changed = json.loads(rig.repository.files["2.targets.json"])
    changed["signed"]["later"]["a"] = 2
    rig.repository.files["2.targets.json"] = json.dumps(changed).encode()
    fresh = Rig()
    fresh.repository, fresh.mirror = rig.repository, rig.mirror
    fresh.store.begin(rig.repository.files["1.root.json"])
    fresh.fails("targets")


# delegations


def test_delegations_are_searched_by_depth_in_the_delegators_order(rig):
    repository = rig.repository
    for by, role in (("targets", "a"), ("targets", "b"), ("a", "c"), ("a", "d"), ("d", "b")):
        repository.delegate(role, "*", by=by)
    repository.publish("a", "b", "c", "d", *TOP)
    assert rig.find("missing") == [None]
    assert rig.mirror.asked[-4:] == ["1.a.json", "1.c.json", "1.d.json", "1.b.json"]


def test_a_terminating_delegation_ends_the_search_behind_it(rig):
    rig.repository.delegate("a", "x/*", terminating=True)
    rig.repository.delegate("b", "*", "*/*")
    rig.repository.publish("a", "b", *TOP)
    assert rig.find("x/1") == [None]
    assert "1.b.json" not in rig.mirror.asked


def test_a_role_lists_only_what_it_was_given(rig):
    rig.repository.delegate("a", "a/*/*")
    for path in ("a/1/artifact", "b/1/artifact", "a/1"):
        rig.repository.add(path, b"content", role="a")
    rig.repository.publish("a", *TOP)
    found = rig.find("a/1/artifact", "b/1/artifact", "a/1")
    assert [target is not None for target in found] == [True, False, False]


def diamond(rig):
    """`release` is reached over `a` and over `b`, with another key by each; signed by a's alone."""
    repository = rig.repository
    for parent in ("a", "b"):
        repository.delegate(parent, f"{parent}/*")
        repository.delegate("release", f"{parent}/*", by=parent)
        repository.add(f"{parent}/x", b"content", role="release")
    keys = repository.keys["release"]
    repository.keys["release"] = keys[:1]
    repository.publish("release", "a", "b", *TOP)
    return keys


def test_a_cached_role_is_verified_against_its_current_delegator(rig):
    """The suite's test that clients fail which remember a role by its name."""
    diamond(rig)
    client = rig.refresh()
    assert client.find("a/x") is not None
    for again in (client, rig.refresh()):
        with pytest.raises(MetadataError, match="release was signed by 0/1 keys"):
            again.find("b/x")
        assert again.find("a/x") is not None


def test_a_role_that_both_delegators_signed_for_is_found_over_both(rig):
    rig.repository.keys["release"] = diamond(rig)
    rig.repository.publish("release", *TOP)
    assert None not in rig.find("a/x", "b/x")


def test_a_role_whose_keys_were_taken_away_lists_nothing_any_more(rig):
    repository = rig.repository
    repository.delegate("a", "a/*")
    repository.add("a/1", b"content", role="a")
    repository.publish("a", *TOP)
    assert rig.find("a/1") != [None]
    role = repository.targets.delegations.roles["a"]
    repository.targets.revoke_key(role.keyids[0], "a")
    repository.targets.add_key(CryptoSigner.generate_ed25519().public_key, "a")
    repository.publish(*TOP)
    with pytest.raises(MetadataError, match="a was signed by 0/1 keys"):
        rig.find("a/1")


def test_an_expired_role_lists_nothing(rig):
    rig.repository.delegate("a", "a/*")
    rig.repository.signed["a"].expires = NOW - timedelta(days=1)
    rig.repository.add("a/1", b"content", role="a")
    rig.repository.publish("a", *TOP)
    with pytest.raises(MetadataExpiredError, match="a: it expired"):
        rig.find("a/1")
    assert "a" not in rig.kept()


def test_a_role_that_the_snapshot_does_not_list_is_not_asked_for(rig):
    rig.repository.delegate("a", "a/*")
    rig.repository.publish("targets", "snapshot", "timestamp")
    with pytest.raises(MetadataError, match="a: the snapshot does not list it"):
        rig.find("a/1")
    assert "1.a.json" not in rig.mirror.asked


def test_a_search_visits_so_many_roles_and_no_more(rig):
    parent = "targets"
    for number in range(50):
        rig.repository.delegate(f"r{number}", "*", by=parent)
        parent = f"r{number}"
    rig.repository.publish(*(f"r{number}" for number in range(50)), *TOP)
    assert rig.find("missing") == [None]
    assert sum(name.startswith("1.r") for name in rig.mirror.asked) == workflow.DELEGATIONS_MAX


@pytest.mark.parametrize("role", ["?", "#", "/a", "../a", "..", "."])
def test_a_roles_name_is_no_path(rig, role):
    targets = rig.repository.targets
    rig.repository.delegate(role, "*")
    assert isinstance(targets.delegations.roles[role], DelegatedRole)
    assert isinstance(rig.repository.signed[role], Targets)
    rig.repository.publish(role, *TOP)
    assert rig.find("missing") == [None]
    assert len(rig.kept()) == 5


# what is kept


@pytest.mark.parametrize("damage", [b"", b"{}", b"\x00" * 4096])
def test_a_spoilt_root_gives_way_to_the_bootstrap(rig, damage):
    rig.repository.rotate("root")
    rig.refresh()
    with rig.disk.open("root.json") as file:
        file.write(damage)
    rig.refresh()
    assert rig.kept()["root"] == 2


def test_another_bootstrap_begins_the_store_anew(rig):
    rig.refresh()
    other = Repository()
    rig.store.begin(other.files["1.root.json"])
    rig.mirror.files = other.files
    rig.refresh()
    assert rig.mirror.asked == FIRST
    assert rig.store.load("targets") == other.files["1.targets.json"]


def test_spoilt_documents_are_fetched_again(rig):
    rig.refresh()
    for role in TOP:
        with rig.disk.open(f"{role}.json") as file:
            file.write(b"\x00")
    rig.refresh()
    assert rig.mirror.asked == FIRST


class Killed(BaseException):
    pass


def test_a_refresh_that_a_power_cut_ends_anywhere_goes_on_and_never_back(rig):
    """Kills at each operation of the disk, and what luck leaves of what was not synced."""
    luck = Streams(7).stream("cuts")
    old = dict(rig.repository.files)
    rig.repository.rotate("root")
    rig.repository.publish(*TOP)
    for place in range(1000):
        cut = Rig()
        cut.mirror.files = old
        cut.store.begin(old["1.root.json"])
        cut.refresh()
        cut.mirror.files = rig.repository.files
        left = iter(range(place))

        def before(operation, path, left=left):
            if operation not in ("read",) and next(left, None) is None:
                raise Killed

        cut.disk.before = before
        try:
            cut.refresh()
        except Killed:
            cut.disk.before = None
            cut.disk.power_cut(luck)
        else:
            break
        cut.store.begin(old["1.root.json"])
        assert all(version >= 1 for version in cut.kept().values())
        cut.refresh()
        assert set(cut.kept().values()) == {2}
    assert place > 15
