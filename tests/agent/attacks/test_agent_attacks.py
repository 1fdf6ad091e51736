"""Attacks on what a device installs: each meets the line of defence that it names, and succeeds
when that line alone is taken away. The broker, the controller and the mirror are the attacker's."""

import hashlib
import io
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from types import SimpleNamespace

import pytest
from attacks.victim import Victim
from securesystemslib.signer import CryptoSigner
from trust_repository import LATER, NOW, TOP, Repository, release_of
from tuf.api.metadata import DelegatedRole, Metadata, MetaFile

from edgeloop_agent.core import admission, device, rate_watch, trust
from edgeloop_agent.errors import FetchUnreachableError, MetadataError
from edgeloop_agent.shell import http_source, part_file
from edgeloop_agent.shell.paced_reads import PacedReads
from edgeloop_agent.trust import client, metadata_source, trusted_set
from edgeloop_agent.trust.trusted_set import TrustedSet

Attack = Callable[["Scene"], bool]
"""Whether it succeeded."""


@dataclass
class Scene:
    """Signed are versions 1 and 2 of `tiny`, as releases 1 and 2; `evil` is signed by nobody."""

    repository: Repository
    victim: Victim
    good: list
    evil: object


@pytest.fixture(scope="module")
def packages(make_package):
    weights = [[9.0, -9.0], [9.0, -9.0], [9.0, -9.0]]
    newer = make_package("2", weights=[[2.0, -2.0], [0.5, 0.5], [-1.0, 1.0]])
    return [make_package("1"), newer, make_package("1", weights=weights)]


@pytest.fixture
def scene(packages):
    return lambda: a_scene(packages)


def a_scene(packages):
    repository = Repository()
    *good, evil = packages
    for number, package in enumerate(good, start=1):
        repository.release(package, number)
    return Scene(repository, Victim(repository), list(good), evil)


@pytest.fixture
def meets(scene, monkeypatch):
    """The attack fails, in words, and succeeds without the line."""

    def meets(attack, words, *line):
        fails = scene()
        assert not attack(fails)
        assert words in fails.victim.words
        assert not {fails.evil.manifest.artifact.digest} & fails.victim.fetched
        with monkeypatch.context() as patch:
            patch.setattr(*line)
            assert attack(scene()), "the line is not what stops it"

    return meets


def test_without_an_attack_versions_are_installed(scene):
    calm = scene()
    assert all(calm.victim.installs(package) for package in calm.good)
    assert calm.victim.installs(calm.good[0]), "the newer one lets back the one before it"


def forged(scene, *roles, listing, keys):
    """What the repository would serve had it listed so, its `roles` signed by `keys`."""
    repository, files = scene.repository, dict(scene.repository.files)
    number = repository.targets.version
    listing(repository)
    for role in TOP:
        repository.signed[role].version += 1
    repository.snapshot.meta["targets.json"] = MetaFile(number + 1)
    repository.timestamp.snapshot_meta = MetaFile(repository.snapshot.version)
    for role in TOP:
        by = keys if role in roles else repository.keys[role]
        files[repository.file(role)] = repository.document(role, by)
    return files


def list_evil(scene):
    def listing(repository):
        release = release_of(scene.evil, 3)
        manifest = scene.evil.manifest
        contents = {"manifest": manifest.canonical(), "artifact": scene.evil.model}
        for part, content in contents.items():
            repository.add(f"tiny/1/{part}", content, custom=release.custom())

    return listing


def believes(*roles):
    """TrustedSet._verified without the signatures of these roles."""
    verified = TrustedSet._verified

    def unverified(kind, document, delegator, role):
        if role in roles:
            return Metadata.from_bytes(document).signed
        return verified(kind, document, delegator, role)

    return (TrustedSet, "_verified", staticmethod(unverified))


def test_arbitrary_software_offered_by_the_broker(meets, packages):
    """Line: only what is listed is installed (core.trust.judge)."""
    unlisted = replace(
        packages[-1], manifest=packages[-1].manifest.model_copy(update={"version": "9"})
    )
    release = release_of(unlisted, 9)

    def attack(scene):
        scene.evil = unlisted
        return scene.victim.installs(unlisted)

    meets(attack, "not signed: tiny@9", trust, "judge", lambda *_: trust.Accepted(release))


def test_arbitrary_software_under_a_signed_name(meets, packages):
    """Line: digests and lengths are the signed ones (core.trust)."""
    meets(
        lambda scene: scene.victim.installs(scene.evil),
        "not what was signed",
        trust,
        "_contradiction",
        lambda *_: "",
    )


def test_arbitrary_software_in_forged_metadata(meets):
    """Line: targets are signed by a threshold of the offline keys."""

    def attack(scene):
        keys = [CryptoSigner.generate_ed25519()]
        files = forged(scene, "targets", listing=list_evil(scene), keys=keys)
        scene.victim.sees(files)
        return scene.victim.installs(scene.evil)

    meets(attack, "targets was signed by 0/1 keys", *believes("targets"))


def test_rollback_to_an_older_release(meets):
    """Line: the counter, against the highest release that was committed here."""

    def attack(scene):
        scene.repository.release(scene.good[1], 2, rollback_floor=2)
        scene.victim.sees()
        assert scene.victim.installs(scene.good[1])
        return scene.victim.installs(scene.good[0])

    meets(attack, "older than a rollback may go", trust, "may_install", lambda *_: True)


def test_rollback_of_metadata(meets):
    """Line: versions that were seen are never gone below. What was signed is taken back here: the
    floor of release 2 was 1, and is 2 now."""

    def attack(scene):
        old = dict(scene.repository.files)
        scene.repository.release(scene.good[1], 2, rollback_floor=2)
        scene.victim.sees()
        assert scene.victim.installs(scene.good[1])
        scene.victim.sees(old)
        return scene.victim.installs(scene.good[0])

    meets(attack, "timestamp: version", trusted_set, "_require_no_less", lambda *_: None)


def withdrawn(scene):
    """Release 2 had to be taken back: it is listed no more."""
    old = dict(scene.repository.files)
    for part in ("manifest", "artifact"):
        del scene.repository.targets.targets[f"tiny/2/{part}"]
    scene.repository.publish(*TOP)
    return old


def test_freeze(meets):
    """Line: what has expired is not believed. A mirror that is held back still lists release 2."""

    def attack(scene):
        scene.victim.sees(withdrawn(scene))
        scene.victim.trust.now = LATER + timedelta(hours=1)
        return scene.victim.installs(scene.good[1])

    meets(attack, "it expired on", TrustedSet, "_require_current", lambda *_: None)


def test_mix_and_match(meets):
    """Line: a role is of the version that the snapshot lists. Old targets under a new snapshot."""

    def attack(scene):
        old = withdrawn(scene)
        number = scene.repository.targets.version
        files = dict(scene.repository.files)
        files[f"{number}.targets.json"] = old[f"{number - 1}.targets.json"]
        scene.victim.sees(files)
        return scene.victim.installs(scene.good[1])

    meets(attack, "in place of", trusted_set, "_require_same", lambda *_: None)


def test_manifest_and_artifact_of_two_releases(scene, monkeypatch):
    """Lines: a target says of itself what it is, and the manifest names its artifact too."""

    def attack(scene):
        targets = scene.repository.targets.targets
        targets["tiny/1/artifact"] = targets["tiny/2/artifact"]
        scene.repository.publish(*TOP)
        scene.victim.sees()
        old, new = (package.offer for package in scene.good)
        mixed = old.model_copy(
            update={
                "artifact_digest": new.artifact_digest,
                "artifact_size_bytes": new.artifact_size_bytes,
            }
        )
        artifacts = scene.good[0].artifacts | scene.good[1].artifacts
        return scene.victim.installs(SimpleNamespace(offer=mixed, artifacts=artifacts))

    first = scene()
    assert not attack(first)
    assert "not signed as a release" in first.victim.words
    release_of_one = trust._release
    monkeypatch.setattr(
        trust, "_release", lambda listed, _: release_of_one(listed, "tiny/1/manifest")
    )
    second = scene()
    assert not attack(second)
    assert "manifest contradicts the offer" in second.victim.words
    monkeypatch.setattr(admission, "check_offer", lambda *_: admission.ADMITTED)
    assert attack(scene())


@pytest.mark.parametrize("selector", ["site=lab", "device=dev2", "arch=armv7l"])
def test_wrong_recipient(meets, selector):
    """Line: selector, slot and runtime, over what the device knows of itself."""

    def attack(scene):
        scene.repository.release(scene.good[1], 3, selector=selector)
        scene.victim.sees()
        return scene.victim.installs(scene.good[1])

    meets(attack, "not signed for this device", trust, "_stranger", lambda *_: "")


def test_replay_of_an_old_desired_state(scene):
    """Line: the revision only grows, and is journalled."""

    def attack(scene):
        victim = scene.victim
        assert victim.installs(scene.good[0])
        assert victim.installs(scene.good[1])
        return victim.installs(scene.good[0], revision=1)

    assert not attack(scene())
    desire = device.Device._desire

    def forgetful(self, desired):
        self._revision = 0
        return desire(self, desired)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device.Device, "_desire", forgetful)
        assert attack(scene())


def test_key_compromise_timestamp(meets):
    """Line: the snapshot is signed by another key. The thief lists targets that were withdrawn."""

    def attack(scene):
        repository, old = scene.repository, withdrawn(scene)
        thief, number = repository.keys["timestamp"], repository.targets.version
        repository.snapshot.meta["targets.json"] = MetaFile(number - 1)
        repository.snapshot.version += 1
        repository.timestamp.version += 1
        repository.timestamp.snapshot_meta = MetaFile(repository.snapshot.version)
        for role in ("snapshot", "timestamp"):
            old[repository.file(role)] = repository.document(role, thief)
        scene.victim.sees(old)
        return scene.victim.installs(scene.good[1])

    meets(attack, "snapshot was signed by 0/1 keys", *believes("snapshot"))


def test_key_compromise_snapshot_and_timestamp(meets):
    """Line: targets are signed offline: both online keys together list nothing new."""

    def attack(scene):
        keys = [*scene.repository.keys["snapshot"], *scene.repository.keys["timestamp"]]
        files = forged(scene, "targets", listing=list_evil(scene), keys=keys)
        scene.victim.sees(files)
        return scene.victim.installs(scene.evil)

    meets(attack, "targets was signed by 0/1 keys", *believes("targets"))


def test_key_compromise_of_a_delegate_for_another_model(meets):
    """Line: a delegate lists what is below its own paths."""

    def attack(scene):
        repository = scene.repository
        for part in ("manifest", "artifact"):
            del repository.targets.targets[f"tiny/1/{part}"]
        repository.delegate("other", "other/*/*")
        release = release_of(scene.evil, 3)
        manifest = scene.evil.manifest
        contents = {"manifest": manifest.canonical(), "artifact": scene.evil.model}
        for part, content in contents.items():
            repository.add(f"tiny/1/{part}", content, "other", release.custom())
        repository.publish("other", *TOP)
        scene.victim.sees()
        return scene.victim.installs(scene.evil)

    meets(attack, "not signed: tiny@1", DelegatedRole, "is_delegated_path", lambda *_: True)


def test_key_compromise_of_a_delegate_after_its_key_was_revoked(meets):
    """Line: a role is verified against what its delegator says now."""

    def attack(scene):
        repository = scene.repository
        for part in ("manifest", "artifact"):
            del repository.targets.targets[f"tiny/1/{part}"]
        repository.delegate("tiny", "tiny/*/*")
        role = repository.targets.delegations.roles["tiny"]
        repository.targets.revoke_key(role.keyids[0], "tiny")
        repository.targets.add_key(CryptoSigner.generate_ed25519().public_key, "tiny")
        release = release_of(scene.evil, 3)
        manifest = scene.evil.manifest
        contents = {"manifest": manifest.canonical(), "artifact": scene.evil.model}
        for part, content in contents.items():
            repository.add(f"tiny/1/{part}", content, "tiny", release.custom())
        repository.publish("tiny", *TOP)
        scene.victim.sees()
        return scene.victim.installs(scene.evil)

    meets(attack, "tiny was signed by 0/1 keys", *believes("tiny"))


# what would never end


def endless(monkeypatch, read):
    def chunks(*_):
        for _ in range(1000):
            read.append(64 * 1024)
            yield bytes(64 * 1024)

    monkeypatch.setattr(metadata_source, "get_chunks", chunks)


def test_endless_metadata(monkeypatch):
    """Line: a document is cut off at what it may have."""
    read = []
    endless(monkeypatch, read)
    source = metadata_source.HttpMetadata("http://mirror")
    with pytest.raises(MetadataError, match="longer than the 16384 bytes it may have"):
        source.fetch("timestamp.json", client.TIMESTAMP_MAX_BYTES)
    assert sum(read) <= 2 * 64 * 1024
    assert len(source.fetch("timestamp.json", 2**40)) == 1000 * 64 * 1024


def test_an_endless_artifact(scene, monkeypatch):
    """Line: no byte beyond the signed length is written."""

    def attack(scene):
        good = scene.good[0]
        scene.victim.artifacts.artifacts |= good.artifacts
        padded = good.model + bytes(10_000_000)
        served = {
            good.manifest.digest(): good.manifest.canonical(),
            good.offer.artifact_digest: padded,
        }
        offered = SimpleNamespace(offer=good.offer, artifacts=served)
        scene.victim.installs(offered)
        return scene.victim.words

    assert "longer than" in attack(scene())
    appended = []

    def unbounded(self, write, have, wanted):
        with self._source.open(wanted.digest, have) as chunks:
            for chunk in chunks:
                appended.append(len(chunk))
                have += write(chunk)
        return have

    monkeypatch.setattr(part_file.PartFiles, "_append", unbounded)
    attack(scene())
    assert sum(appended) > 10_000_000


def test_slow_retrieval(monkeypatch):
    """Line: a body brings so many bytes a minute, or is given up."""
    clock = itertools.count(0, 20)  # each look takes 20 s, of which half are a read's
    monkeypatch.setattr(http_source.time, "monotonic", lambda: float(next(clock)))

    def drip():
        response = SimpleNamespace(read1=io.BytesIO(bytes(500)).read1, length=0)
        one = SimpleNamespace(read1=lambda _: response.read1(1), length=0)
        read = 0
        pace = PacedReads()
        monkeypatch.setattr(pace, "next_read_bytes", lambda: 1)
        for chunk in http_source._body(one, "http://mirror/x", pace):
            read += len(chunk)
        return read

    with pytest.raises(FetchUnreachableError, match="slower than 256 bytes/s"):
        drip()
    monkeypatch.setattr(rate_watch.RateWatch, "is_too_slow", lambda *_: False)
    assert drip() == 500


def test_a_wrong_clock_waits_and_the_champion_runs_on(scene):
    """A device whose clock ran ahead believes nothing, says so, and goes on with what it runs."""
    calm = scene()
    assert calm.victim.installs(calm.good[0])
    calm.victim.trust.now = NOW + timedelta(days=3650)
    assert not calm.victim.installs(calm.good[1])
    slot = calm.victim.bench.slot
    assert "which stands at 2036" in slot.waiting
    assert slot.champion == calm.good[0].offer.ref
    assert slot.refused is None
    calm.victim.trust.now = NOW
    assert hashlib.sha256(calm.good[0].model).hexdigest() in calm.victim.fetched
