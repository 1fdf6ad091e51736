"""What verified metadata lists against what a device knows of itself: accept, refuse, or wait."""

import pytest
from device_bench import INVENTORY, Bench
from trust_repository import release_of

from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core import trust
from edgeloop_agent.core.journal_document import decode_journal, encode_journal
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.snapshot import CommittedRelease
from edgeloop_protocol.device_facts import Labelled
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.messages import Challenger, Desired, ShadowBudget, SlotDesired
from edgeloop_protocol.signed_release import target_name

DEVICE = Labelled("dev1", {"site": "lab"}, online=True, inventory=INVENTORY)


def targets_of(package, release):
    manifest = package.manifest
    contents = {"manifest": manifest.canonical(), "artifact": package.model}
    return {
        target_name(manifest.name, manifest.version, part): trust.Target(
            len(content), {"sha256": release.sha256_of(part)}, release.custom()
        )
        for part, content in contents.items()
    }


def judge(package, listed, highest=None, slot="main", device=DEVICE):
    return trust.judge(package.offer, slot, listed, device, highest)


def committed(package, release):
    return CommittedRelease(model="tiny", version=package.manifest.version, release=release)


@pytest.fixture(scope="module")
def versions(make_package):
    return [make_package(str(number)) for number in range(4)]


def test_what_is_listed_for_this_device_is_accepted(versions):
    release = release_of(versions[0], 1, slots=("main",), selector="site=lab, arch=x86_64")
    assert judge(versions[0], targets_of(versions[0], release)) == trust.Accepted(release)


def test_what_is_not_listed_waits(versions):
    listed = targets_of(versions[0], release_of(versions[0], 1))
    assert "tiny@1 is not in the verified" in judge(versions[1], listed).why
    del listed[target_name("tiny", "0", "artifact")]
    assert isinstance(judge(versions[0], listed), trust.WaitFor)


@pytest.mark.parametrize(
    ("terms", "detail"),
    [
        ({"slots": ("other",)}, "for the slots other, not for main"),
        ({"runtime": "tflite"}, "for the runtime tflite; here are onnx"),
        ({"selector": "site=field"}, "for devices with site=field"),
        ({"selector": "device!=dev1"}, "for devices with device!=dev1"),
    ],
)
def test_what_is_for_somebody_else_is_refused(versions, terms, detail):
    verdict = judge(versions[0], targets_of(versions[0], release_of(versions[0], 1, **terms)))
    assert verdict.cause == "not signed for this device"
    assert detail in verdict.detail


@pytest.mark.parametrize(
    "field", ["manifest_digest", "manifest_size_bytes", "artifact_digest", "artifact_size_bytes"]
)
def test_an_offer_that_says_otherwise_is_refused(versions, field):
    offer = versions[0].offer
    other = "f" * 64 if "digest" in field else 1
    listed = targets_of(versions[0], release_of(versions[0], 1))
    verdict = trust.judge(
        offer.model_copy(update={field: other}), "main", listed, DEVICE, highest=None
    )
    assert verdict.cause == "not what was signed"
    assert str(other) in verdict.detail


def test_targets_that_contradict_each_other_or_themselves_are_refused(versions):
    one, two = (targets_of(versions[0], release_of(versions[0], n)) for n in (1, 2))
    mixed = {**one, target_name("tiny", "0", "artifact"): two[target_name("tiny", "0", "artifact")]}
    assert judge(versions[0], mixed).cause == "not signed as a release"
    for custom in (None, {}, {"edgeloop": "x"}, {"edgeloop": {"model": "tiny"}}):
        name = target_name("tiny", "0", "manifest")
        without = {**one, name: trust.Target(1, {"sha256": "0" * 64}, custom)}
        assert judge(versions[0], without).cause == "not signed as a release"


@pytest.mark.parametrize(
    ("offered", "floor_of_highest", "is_accepted"),
    [(3, 2, True), (2, 2, True), (1, 2, False), (2, 3, False), (1, 1, True)],
)
def test_the_counter_lets_back_to_the_floor_of_the_highest(
    versions, offered, floor_of_highest, is_accepted
):
    listed = targets_of(versions[3], release_of(versions[3], 3, rollback_floor=floor_of_highest))
    listed |= targets_of(versions[offered], release_of(versions[offered], offered)) | listed
    verdict = judge(versions[offered], listed, committed(versions[3], 3))
    assert isinstance(verdict, trust.Accepted) == is_accepted
    if not is_accepted:
        assert "edgeloop trust allow-rollback tiny" in verdict.detail


def test_a_highest_that_is_listed_no_more_lets_nothing_back(versions):
    listed = targets_of(versions[1], release_of(versions[1], 1))
    assert judge(versions[1], listed, committed(versions[3], 3)).cause.startswith("older")
    spoilt = {target_name("tiny", "3", "manifest"): trust.Target(1, {}, None)}
    assert judge(versions[1], listed | spoilt, committed(versions[3], 3)).cause.startswith("older")
    later = spoilt | targets_of(versions[2], release_of(versions[2], 4))
    assert isinstance(judge(versions[2], later, committed(versions[3], 3)), trust.Accepted)


def test_so_many_models_are_remembered(versions):
    releases = ()
    for number in range(trust.RELEASES_MAX + 3):
        offer = versions[0].offer.model_copy(update={"name": f"model{number}"})
        releases = trust.with_commit(releases, offer, 1)
    assert len(releases) == trust.RELEASES_MAX
    assert trust.highest_of(releases, "model2") is None


# in the lifecycle


@pytest.fixture
def bench():
    return Bench(settings=CoreSettings(signed_only=True))


def manifest(bench, package, release):
    digest = package.manifest.digest()
    event = ev.ManifestFetched("main", digest, package.manifest, INVENTORY, False, release)
    return bench.say(event)


def commit(bench, package, release):
    bench.manifest = lambda it: manifest(bench, it, release)
    bench.commit(package)


def test_nothing_is_admitted_without_a_release_where_it_must_have_one(bench, versions):
    bench.offer(versions[0])
    manifest(bench, versions[0], 0)
    assert bench.slot.refused.cause == "not verified"
    assert not bench.has(do.FetchArtifact)


def test_the_highest_is_in_the_write_that_commits_and_never_goes_down(bench, versions):
    commit(bench, versions[1], 2)
    (highest,) = bench.durable.releases
    assert bench.durable.state is SlotState.COMMITTED
    assert highest == committed(versions[1], 2)
    bench.offer(versions[0])
    assert bench.only(do.FetchManifest).highest == highest
    commit(bench, versions[0], 1)
    assert bench.durable.releases == (highest,)
    commit(bench, versions[2], 3)
    assert bench.durable.releases == (committed(versions[2], 3),)
    assert decode_journal(encode_journal(bench.journal)) == bench.journal


def test_what_is_rolled_back_in_probation_was_never_committed(bench, versions):
    bench.manifest = lambda it: manifest(bench, it, 1)
    runner = bench.to_probation(versions[0])
    bench.say(ev.RunnerExited("main", runner, "exit status 1"))
    assert bench.slot.refused is not None
    assert bench.durable.releases == ()


def test_what_was_fetched_without_trust_is_not_tried_with_it(versions):
    bench = Bench()
    bench.offer(versions[0])
    bench.manifest(versions[0])
    assert bench.durable.state is SlotState.DOWNLOADING
    bench = Bench(bench.journal, CoreSettings(signed_only=True))
    bench.artifact(versions[0])
    assert bench.slot.refused.cause == "not verified"
    assert not bench.has(do.StartRunner)


def test_a_hint_changes_nothing_of_what_was_verified(bench, versions):
    bench.offer(versions[0])
    manifest(bench, versions[0], 1)
    evil = versions[0].offer.model_copy(update={"artifact_digest": "e" * 64})
    slots = (SlotDesired(slot="main", offer=evil),)
    bench.say(ev.DesiredReceived(Desired(revision=9, slots=slots)))
    assert bench.durable.candidate.offer == versions[0].offer


def test_metadata_that_says_otherwise_refuses_and_bars(bench, versions):
    bench.offer(versions[0])
    problem = ev.FetchProblem.UNTRUSTED
    digest = versions[0].manifest.digest()
    bench.say(ev.FetchFailed("main", digest, problem, "for others", cause="not for this device"))
    assert (bench.slot.refused.cause, bench.slot.refused.detail) == (
        "not for this device",
        "for others",
    )
    assert bench.durable.barred_digest == digest


def test_a_champion_is_mended_without_asking_for_leave(bench, versions):
    commit(bench, versions[0], 1)
    runner = bench.only(do.StartRunner).runner if bench.has(do.StartRunner) else 1
    bench.say(ev.RunnerExited("main", runner, "exit status 1"))
    while not bench.has(do.StartRunner):
        bench.wait()
    runner = bench.only(do.StartRunner).runner
    bench.say(ev.RunnerSelfTested("main", runner, False, "torn"))
    assert bench.only(do.FetchManifest).is_installed


def test_a_challenger_goes_the_same_way(bench, versions):
    commit(bench, versions[1], 2)
    challenger = Challenger(offer=versions[2].offer, budget=ShadowBudget())
    slots = (SlotDesired(slot="main", offer=versions[1].offer, challenger=challenger),)
    bench.revision += 1
    bench.say(ev.DesiredReceived(Desired(revision=bench.revision, slots=slots)))
    asked = bench.only(do.FetchManifest)
    assert (asked.offer, asked.highest) == (versions[2].offer, committed(versions[1], 2))
    manifest(bench, versions[2], 0)
    assert bench.slot.challenger.state is ChallengeState.REFUSED
    assert bench.slot.challenger.cause == "not verified"
