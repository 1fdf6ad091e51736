"""The device's core, driven by hand: what it wants done after each event, and in which order."""

from types import SimpleNamespace

import pytest
from device_bench import GOOD, TERMS, Bench

from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_agent.core.snapshot import Candidate, DeviceSnapshot, SlotSnapshot
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.manifest import Requirements
from edgeloop_protocol.messages import (
    Desired,
    Patch,
    SlotDesired,
)


@pytest.fixture
def bench():
    return Bench()


@pytest.fixture
def packages(make_package):
    return [make_package(str(number)) for number in range(4)]


def test_the_whole_way_to_a_commit(bench, packages):
    """EL-LIFE-2."""
    bench.offer(packages[1])
    assert bench.only(do.FetchManifest).offer == packages[1].offer
    assert bench.slot.state is SlotState.IDLE
    bench.manifest(packages[1])
    assert bench.only(do.FetchArtifact).offer == packages[1].offer
    assert bench.slot.state is SlotState.DOWNLOADING
    bench.artifact(packages[1])
    start = bench.only(do.StartRunner)
    assert (start.version, start.shadow) == (packages[1].offer.ref, None)
    assert bench.durable.candidate.attempts == 1, "journalled before the try"
    bench.say(ev.RunnerSelfTested("main", start.runner, True, ""))
    assert bench.only(do.Go).runner == start.runner
    bench.say(ev.RunnerServing("main", start.runner))
    assert bench.slot.champion is None, "success is reported only after probation"
    bench.now += 2
    bench.say(ev.RunnerProgressed("main", start.runner, GOOD))
    assert bench.slot.champion == packages[1].offer.ref
    assert bench.only(do.SendReported).slots[0].state is SlotState.COMMITTED
    assert bench.durable.champion == packages[1].offer


def test_the_second_version_gets_the_source_after_the_first_and_has_it_in_shadow(bench, packages):
    first = bench.commit(packages[1])
    second = bench.to_self_test(packages[2])
    assert bench.only(do.StartRunner).shadow == packages[1].offer.ref
    assert not bench.has(do.StopRunner), "the old one goes on answering during the self-test"
    bench.say(ev.RunnerSelfTested("main", second, True, ""))
    assert bench.only(do.StopRunner).runner == first
    bench.say(ev.RunnerExited("main", first, ""))
    assert bench.only(do.Go).runner == second
    bench.say(ev.RunnerServing("main", second))
    bench.now += 2
    bench.say(ev.RunnerProgressed("main", second, GOOD))
    assert (bench.slot.champion, bench.slot.previous) == (
        packages[2].offer.ref,
        packages[1].offer.ref,
    )
    while not bench.has(do.DropShadow):
        bench.say(ev.RunnerProgressed("main", second, GOOD))
        bench.now += 10
        bench.say(ev.Tick())
        assert bench.now < 100 + 2 * CoreSettings().shadow_after_commit_s


def test_what_is_reported_is_made_anew_only_when_it_changed(bench, packages):
    runner = bench.commit(packages[0])
    before = bench.device.reported()[0]
    bench.say(ev.RunnerProgressed("main", runner, ev.Progress(examples=9)))
    assert bench.device.reported()[0] is before
    bench.say(ev.RunnerProgressed("main", runner, ev.Progress(source_problem="unplugged")))
    assert bench.device.reported()[0] == before.model_copy(update={"waiting": "unplugged"})


def test_duplicates_and_older_revisions_change_nothing_and_are_answered(bench, packages):
    """EL-STATE-1, EL-STATE-5."""
    bench.offer(packages[1])
    whole_state = (do.SendReported(1, bench.device.reported()),)
    for revision in (1, 0):
        again = ev.DesiredReceived(Desired(revision=revision, slots=()))
        assert bench.say(again) == whole_state
    assert bench.device.stale_desired == 2
    assert bench.slot.candidate == packages[1].offer.ref


@pytest.mark.parametrize(
    ("happening", "cause"),
    [
        (lambda r: ev.RunnerExited("main", r, "killed by SIGSEGV"), "runner crashed"),
        (lambda r: ev.RunnerProgressed("main", r, ev.Progress(nonfinite=1)), "nan or inf"),
        (lambda r: ev.RunnerProgressed("main", r, ev.Progress(errors=10)), "errors"),
    ],
)
def test_a_failed_probation_brings_the_old_version_back(bench, packages, happening, cause):
    bench.commit(packages[1])
    runner = bench.to_probation(packages[2])
    bench.say(happening(runner))
    assert bench.slot.state is SlotState.ROLLED_BACK
    assert bench.slot.refused.cause == cause
    assert bench.slot.refused.version == packages[2].offer.ref
    restarted = bench.only(do.StartRunner)
    assert restarted.version == packages[1].offer.ref
    if bench.has(do.StopRunner):
        bench.say(ev.RunnerSelfTested("main", restarted.runner, True, ""))
        assert not bench.has(do.Go)
        bench.say(ev.RunnerExited("main", runner, ""))
    else:
        bench.say(ev.RunnerSelfTested("main", restarted.runner, True, ""))
    assert bench.only(do.Go).runner == restarted.runner


def test_a_runner_above_the_manifests_memory_is_rolled_back(bench, make_package):
    package = make_package("big", requires=Requirements(memory_bytes=1000))
    runner = bench.to_probation(package)
    assert bench.durable.candidate.memory_max_bytes == 1000, "also after a restart"
    bench.say(ev.RunnerProgressed("main", runner, ev.Progress(memory_bytes=1001)))
    assert bench.slot.refused.cause == "memory"


def test_a_rolled_back_digest_is_refused_until_another_is_offered(bench, packages):
    """EL-LIFE-3."""
    bench.commit(packages[1])
    runner = bench.to_probation(packages[2])
    bench.say(ev.RunnerExited("main", runner, "killed by SIGKILL"))
    bench.offer(packages[2])
    assert not bench.has(do.FetchManifest)
    bench.offer(packages[1])
    assert bench.slot.refused.version == packages[2].offer.ref, "still to be read"
    bench.offer(packages[2])
    assert bench.has(do.FetchManifest)


def test_what_was_taken_back_and_is_offered_again_is_tried_again(bench, packages):
    """EL-LIFE-3: a halted rollout takes its offer back; the next one is a decision of its own."""
    runner = bench.to_probation(packages[1])
    bench.say(ev.RunnerExited("main", runner, "killed by SIGKILL"))
    bench.offer(packages[1])
    assert not bench.has(do.FetchManifest)
    bench.offer(None)
    bench.offer(packages[1])
    assert bench.has(do.FetchManifest)


def test_a_hung_candidate_is_killed_and_rolled_back(bench, packages):
    runner = bench.to_probation(packages[1])
    bench.wait()
    stop = bench.only(do.StopRunner)
    assert (stop.runner, stop.kill) == (runner, True)
    assert bench.slot.refused.cause == "runner hung"


def test_a_source_that_cannot_be_opened_is_waited_for_and_is_not_the_versions_fault(
    bench, packages
):
    runner = bench.to_self_test(packages[1])
    bench.say(ev.RunnerSelfTested("main", runner, True, ""))
    for _ in range(200):
        bench.now += 10
        bench.say(ev.Tick())
        away = ev.Progress(source_problem="cannot play x.csv")
        bench.say(ev.RunnerProgressed("main", runner, away))
        assert (bench.slot.state, bench.slot.refused) == (SlotState.ACTIVATING, None)
        assert bench.slot.waiting == "cannot play x.csv"
    bench.say(ev.RunnerProgressed("main", runner, ev.Progress()))
    bench.say(ev.RunnerServing("main", runner))
    assert (bench.slot.state, bench.slot.waiting) == (SlotState.PROBATION, "")


def test_probation_without_proof_ends(bench, packages):
    runner = bench.to_probation(packages[1])
    while bench.slot.state is SlotState.PROBATION:
        bench.now += 5
        bench.say(ev.RunnerProgressed("main", runner, ev.Progress(examples=1)))
        bench.say(ev.Tick())
    assert bench.slot.refused.cause == "not proven in time"


@pytest.mark.parametrize("steps", range(5))
@pytest.mark.parametrize("to", ["none", "old"])
def test_a_withdrawal_at_any_step_brings_the_old_version_back(bench, packages, steps, to):
    first = bench.commit(packages[1])
    bench.offer(packages[2])
    if steps > 0:
        bench.manifest(packages[2])
    if steps > 1:
        bench.artifact(packages[2])
        second = bench.only(do.StartRunner).runner
    if steps > 2:
        bench.say(ev.RunnerSelfTested("main", second, True, ""))
        bench.say(ev.RunnerExited("main", first, ""))
    if steps > 3:
        bench.say(ev.RunnerServing("main", second))
    bench.offer(packages[1] if to == "old" else None)
    assert bench.slot.refused.cause == "withdrawn"
    assert bench.slot.champion == packages[1].offer.ref
    assert bench.slot.candidate is None
    bench.offer(packages[2])
    assert bench.has(do.FetchManifest), "a withdrawn version may come again"


def test_waiting_has_no_last_try(bench, packages):
    bench.offer(packages[1])
    digest = packages[1].manifest.digest()
    for _ in range(50):
        bench.say(ev.FetchFailed("main", digest, ev.FetchProblem.WAIT, "disk: 0 bytes free"))
        assert bench.slot.waiting == "disk: 0 bytes free"
        bench.wait()
        assert bench.has(do.FetchManifest)
    bench.manifest(packages[1])
    assert bench.slot.waiting == ""
    assert bench.slot.state is SlotState.DOWNLOADING


def test_corrupt_fetches_are_counted_durably_and_bounded(bench, packages):
    bench.offer(packages[1])
    bench.manifest(packages[1])
    digest = packages[1].manifest.digest()
    corrupt = ev.FetchFailed("main", digest, ev.FetchProblem.CORRUPT, "wrong bytes")
    bench.say(corrupt)
    assert bench.durable.candidate.corrupt_fetches == 1
    bench.wait()
    bench.say(corrupt)
    bench.wait()
    bench.say(corrupt)
    assert bench.slot.refused.cause == "digest mismatch"


def test_an_unusable_manifest_is_refused_at_once(bench, packages):
    bench.offer(packages[1])
    digest = packages[1].manifest.digest()
    bench.say(ev.FetchFailed("main", digest, ev.FetchProblem.UNUSABLE, "labels: missing"))
    assert bench.slot.refused.cause == "unusable manifest"


def test_a_self_test_that_crashes_is_tried_a_bounded_number_of_times(bench, packages):
    bench.to_self_test(packages[1])
    for attempt in (1, 2, 3):
        assert bench.durable.candidate.attempts == attempt
        runner = bench.only(do.StartRunner).runner
        bench.say(ev.RunnerExited("main", runner, "killed by SIGSEGV"))
        if attempt < 3:
            assert bench.slot.state is SlotState.STAGED
            bench.wait()
    assert bench.slot.refused.cause == "self-test crashed"


def test_a_self_test_that_hangs_is_rolled_back_at_once(bench, packages):
    bench.commit(packages[1])
    began = bench.now
    runner = bench.to_self_test(packages[2])
    bench.say(ev.RunnerLoading("main", runner))
    while bench.slot.state is SlotState.SELF_TEST:
        bench.wait()
        assert bench.now <= began + 30
    stops = [effect for effect in bench.performed if isinstance(effect, do.StopRunner)]
    assert [(stop.runner, stop.kill) for stop in stops if stop.kill][-1:] == [(runner, True)]
    assert bench.slot.refused.cause == "self-test hung"
    assert bench.slot.attempts == 0


def test_what_takes_long_to_read_may_take_long_to_load(bench, make_package):
    """By the size of all that is loaded: the candidate's and, in shadow, the champion's."""
    settings = CoreSettings()
    old, new = make_package("1", model=b"o" * 3_000_000), make_package("2", model=b"n" * 5_000_000)
    assert settings.load_timeout_s(0) == 20
    bench.commit(old)
    runner = bench.to_self_test(new)
    bench.now += 5
    began = bench.now
    bench.say(ev.RunnerLoading("main", runner))
    deadline = bench.device._slots["main"].runners.runners[runner].deadline
    assert deadline == began + 28


def test_a_runner_that_is_not_even_up_is_tried_again(bench, packages):
    """The device was slow: the version has not been looked at yet."""
    bench.to_self_test(packages[1])
    bench.wait()
    assert (bench.slot.state, bench.slot.refused) == (SlotState.STAGED, None)
    assert "not up after 60 s" in bench.slot.waiting
    bench.wait()
    assert bench.slot.attempts == 2


def test_words_of_a_crash_do_not_make_it_a_hang(bench, packages):
    bench.to_probation(packages[1])
    runner = 1
    bench.say(ev.RunnerExited("main", runner, "killed by SIGSEGV: the cat hung up"))
    assert bench.slot.refused.cause == "runner crashed"


@pytest.mark.parametrize(
    ("required", "default", "cap"), [(1000, 0, 1000), (1000, 500, 1000), (0, 700, 700), (0, 0, 0)]
)
def test_a_champion_above_its_cap_is_restarted_and_counted(make_package, required, default, cap):
    bench = Bench(settings=CoreSettings(runner_memory_max_bytes=default))
    package = make_package("leaks", requires=Requirements(memory_bytes=required))
    runner = bench.commit(package)
    bench.say(ev.RunnerProgressed("main", runner, ev.Progress(examples=20, memory_bytes=cap)))
    assert not bench.has(do.StopRunner)
    grown = ev.Progress(examples=30, memory_bytes=cap + 1)
    bench.say(ev.RunnerProgressed("main", runner, grown))
    if not cap:
        assert not bench.has(do.StopRunner)
        return
    stop = bench.only(do.StopRunner)
    assert (stop.runner, stop.kill) == (runner, False), "what was read is answered first"
    told = bench.only(do.AppendEvent)
    assert told.name == "runner_restarted"
    assert f"memory: the runner process has {cap + 1} bytes resident; its limit is {cap}" in (
        told.detail
    )
    assert bench.slot.runner_restarts == 1
    assert (bench.slot.state, bench.slot.refused) == (SlotState.COMMITTED, None)
    bench.say(ev.RunnerExited("main", runner, "exit status 0"))
    bench.wait()
    again = bench.only(do.StartRunner)
    assert (again.version, again.memory_max_bytes) == (package.offer.ref, cap)
    assert bench.slot.runner_restarts == 1, "counted once"


def test_the_champions_cap_survives_a_restart(make_package):
    first = Bench()
    first.commit(make_package("leaks", requires=Requirements(memory_bytes=1000)))
    second = Bench(snapshot=first.journal)
    starts = [effect for effect in second.at_start if isinstance(effect, do.StartRunner)]
    assert [start.memory_max_bytes for start in starts] == [1000]


def test_a_failed_self_test_is_not_tried_again(bench, packages):
    runner = bench.to_self_test(packages[1])
    bench.say(ev.RunnerSelfTested("main", runner, False, "golden input 0: off by 1"))
    assert bench.slot.refused.cause == "self-test failed"


def test_a_crashed_champion_is_restarted_even_while_a_download_runs(bench, packages):
    first = bench.commit(packages[1])
    bench.offer(packages[2])
    bench.manifest(packages[2])
    bench.say(ev.RunnerExited("main", first, "killed by SIGKILL"))
    assert not bench.has(do.StartRunner), "after a backoff"
    bench.wait()
    assert bench.only(do.StartRunner).version == packages[1].offer.ref
    assert bench.slot.runner_restarts == 1
    assert bench.slot.state is SlotState.DOWNLOADING


def test_a_champion_that_keeps_crashing_is_restarted_ever_later_and_for_ever(bench, packages):
    bench.commit(packages[1])
    waits = []
    for _ in range(30):
        number = bench.device._slots["main"].runners.last_number
        bench.say(ev.RunnerExited("main", number, "exit status 1"))
        began = bench.now
        bench.wait()
        waits.append(bench.now - began)
        assert bench.has(do.StartRunner)
    assert waits[0] < waits[3] <= waits[-1] <= CoreSettings().restart_backoff_s_max


def damage(bench):
    """The champion's runner finds its files damaged, and ends."""
    number = bench.device._slots["main"].runners.last_number
    bench.say(ev.RunnerExited("main", number, "killed by SIGKILL"))
    bench.wait()
    number = bench.only(do.StartRunner).runner
    bench.say(ev.RunnerSelfTested("main", number, False, "the model on disk is not the version's"))
    return number


def test_a_champion_that_cannot_load_its_files_is_fetched_again(bench, packages):
    bench.commit(packages[1])
    number = damage(bench)
    assert bench.only(do.FetchManifest).offer == packages[1].offer
    bench.say(ev.RunnerExited("main", number, "exit status 1"))
    bench.manifest(packages[1])
    assert bench.only(do.FetchArtifact).offer == packages[1].offer
    bench.say(ev.ArtifactFetched("main", packages[1].manifest.digest()))
    bench.wait()
    assert bench.only(do.StartRunner).version == packages[1].offer.ref
    assert bench.slot.state is SlotState.COMMITTED


def test_a_repair_that_fails_is_tried_again_for_ever_and_bars_nothing(bench, packages):
    bench.commit(packages[1])
    damage(bench)
    digest = packages[1].manifest.digest()
    for problem in (ev.FetchProblem.WAIT, *3 * [ev.FetchProblem.CORRUPT]):
        bench.say(ev.FetchFailed("main", digest, problem, "no link"))
        assert bench.slot.waiting == "the champion's files: no link"
        while not bench.has(do.FetchManifest):
            bench.wait()
    assert bench.slot.refused is None
    assert bench.slot.champion == packages[1].offer.ref


def test_a_new_champion_ends_the_repair_of_the_old(bench, packages):
    bench.commit(packages[1])
    damage(bench)
    bench.say(ev.FetchFailed("main", packages[1].manifest.digest(), ev.FetchProblem.WAIT, "away"))
    bench.commit(packages[2])
    assert bench.slot.waiting == ""
    bench.manifest(packages[1])
    assert not bench.has(do.FetchArtifact), "a stale answer"


def test_a_full_disk_holds_back_a_switch_and_the_old_version_answers_on(bench, packages):
    """EL-LIFE-1."""
    bench.commit(packages[1])
    second = bench.to_self_test(packages[2])
    bench.disk_is_full = True
    bench.say(ev.RunnerSelfTested("main", second, True, ""))
    assert not bench.has(do.StopRunner), "the old one keeps the source"
    assert bench.slot.waiting == "journal: no space"
    assert bench.has(do.SendReported)
    bench.mend_disk()
    assert bench.only(do.StopRunner).kill is False
    assert bench.slot.waiting == ""


def test_a_full_disk_holds_back_neither_a_rollback_nor_the_champions_restart(bench, packages):
    bench.commit(packages[1])
    runner = bench.to_probation(packages[2])
    bench.disk_is_full = True
    bench.say(ev.RunnerExited("main", runner, "killed by SIGKILL"))
    restarted = bench.only(do.StartRunner)
    assert restarted.version == packages[1].offer.ref
    bench.say(ev.RunnerSelfTested("main", restarted.runner, True, ""))
    assert bench.only(do.Go).runner == restarted.runner
    bench.say(ev.RunnerExited("main", restarted.runner, "killed by SIGKILL"))
    bench.wait()
    assert bench.only(do.StartRunner).version == packages[1].offer.ref
    bench.offer(packages[3])
    assert not bench.has(do.FetchManifest), "but nothing new is begun"
    bench.mend_disk()
    assert bench.only(do.FetchManifest).offer == packages[3].offer


def test_a_full_disk_removes_no_version_that_the_journal_still_names(bench, packages):
    bench.commit(packages[1])
    bench.to_probation(packages[3])
    bench.disk_is_full = True
    bench.offer(packages[1])
    assert bench.slot.refused.cause == "withdrawn"
    assert not bench.has(do.CollectGarbage)
    bench.mend_disk()
    assert packages[3].manifest.digest() not in bench.only(do.CollectGarbage).keep_manifests


def test_a_long_full_disk_begins_nothing_and_counts_nothing(bench, packages):
    bench.to_self_test(packages[1])
    first = bench.only(do.StartRunner).runner
    bench.disk_is_full = True
    bench.say(ev.RunnerExited("main", first, "killed by SIGSEGV"))
    for _ in range(100):
        bench.now += 60
        bench.say(ev.Tick())
        assert not bench.has(do.StartRunner)
    assert bench.slot.refused is None
    bench.mend_disk()
    assert bench.only(do.StartRunner).version == packages[1].offer.ref
    assert bench.durable.candidate.attempts == 2


@pytest.mark.parametrize("state", ["self_test", "activating", "probation", "staged"])
def test_an_interrupted_try_is_counted_and_begins_anew(packages, state):
    """EL-LIFE-5."""
    snapshot = in_state(packages, state, attempts=1)
    bench = Bench(snapshot)
    assert bench.durable.candidate.attempts == 2
    versions = {e.version for e in bench.device._slots["main"].runners.runners.values()}
    assert versions == {packages[1].offer.ref, packages[2].offer.ref}


@pytest.mark.parametrize("state", ["self_test", "activating", "probation", "staged"])
def test_too_many_interrupted_tries_roll_back_to_the_old_version(packages, state):
    bench = Bench(in_state(packages, state, attempts=3))
    assert bench.slot.refused.cause == "attempts exhausted"
    assert bench.slot.champion == packages[1].offer.ref
    versions = {e.version for e in bench.device._slots["main"].runners.runners.values()}
    assert versions == {packages[1].offer.ref}


@pytest.mark.parametrize(
    ("state", "fetch"),
    [
        ("committed", do.FetchManifest),
        ("verified", do.FetchArtifact),
        ("downloading", do.FetchArtifact),
    ],
)
def test_an_interrupted_fetch_goes_on(packages, state, fetch):
    bench = Bench(in_state(packages, state))
    assert any(isinstance(effect, fetch) for effect in bench.at_start)


def in_state(packages, state, attempts=0):
    candidate = Candidate(offer=packages[2].offer, probation=TERMS, attempts=attempts)
    slot = SlotSnapshot(
        slot="main",
        state=SlotState(state),
        champion=packages[1].offer,
        candidate=candidate,
    )
    return DeviceSnapshot(revision=7, slots=(slot,))


def test_a_patch_is_kept_as_long_as_its_candidate(bench, packages):
    patch = Patch(
        format="tensors.1",
        base_manifest_digest=packages[1].offer.manifest_digest,
        base_artifact_digest=packages[1].offer.artifact_digest,
        digest="f" * 64,
        size_bytes=1,
    )
    bench.commit(packages[1])
    offer = packages[2].offer.model_copy(update={"patch": patch})
    bench.offer(SimpleNamespace(offer=offer, manifest=packages[2].manifest))
    assert patch.digest in bench.only(do.CollectGarbage).keep_artifacts
    bench.offer(packages[3])
    assert patch.digest not in bench.only(do.CollectGarbage).keep_artifacts


def test_garbage_is_what_is_neither_champion_previous_nor_candidate(bench, packages):
    """EL-LIFE-6."""
    bench.commit(packages[1])
    bench.to_probation(packages[2])
    bench.offer(packages[3])
    kept = bench.only(do.CollectGarbage).keep_manifests
    assert kept == {packages[1].manifest.digest(), packages[3].manifest.digest()}
    assert bench.slot.refused is None
    assert bench.slot.candidate == packages[3].offer.ref


def test_a_slot_that_is_not_configured_is_kept_and_said(packages):
    bench = Bench()
    slots = (SlotDesired(slot="other", offer=packages[1].offer),)
    bench.say(ev.DesiredReceived(Desired(revision=1, slots=slots)))
    assert bench.only(do.AppendEvent).name == "unknown_slot"


def test_a_desired_state_that_changes_nothing_is_answered_too(bench, packages):
    bench.commit(packages[1])
    bench.offer(packages[1])
    assert bench.only(do.SendReported).revision == 2
    assert bench.only(do.SendReported).slots[0].champion == packages[1].offer.ref


def test_every_connect_says_hello_and_nothing_is_said_twice(bench, packages):
    bench.offer(packages[1])
    bench.say(ev.BrokerDisconnected())
    bench.manifest(packages[1])
    assert not bench.has(do.SendReported)
    bench.say(ev.BrokerConnected())
    assert bench.only(do.SendHello).slots[0].state is SlotState.DOWNLOADING
    assert bench.say(ev.Tick()) == ()


def test_a_champion_that_crashed_before_the_switch_leaves_no_deadline_behind(bench, packages):
    first = bench.commit(packages[1])
    second = bench.to_self_test(packages[2])
    bench.say(ev.RunnerExited("main", first, "killed by SIGKILL"))
    bench.say(ev.RunnerSelfTested("main", second, True, ""))
    assert bench.only(do.Go).runner == second
    bench.now += 5
    bench.say(ev.Tick())
    assert bench.device.next_deadline() > bench.now
    assert not bench.has(do.StartRunner)


def test_a_runner_is_restarted_on_request_and_counts_as_no_loss(bench, packages):
    runner = bench.commit(packages[0])
    bench.say(ev.RestartRunnerAsked("main", "r1"))
    assert bench.only(do.AnswerRequest).done
    assert bench.only(do.StopRunner) == do.StopRunner("main", runner, kill=False)
    anew = bench.only(do.StartRunner).runner
    assert not bench.has(do.Go), "the source is not free yet"
    bench.say(ev.RunnerSelfTested("main", anew, True, ""))
    bench.say(ev.RunnerExited("main", runner, "exit status 0"))
    assert bench.only(do.Go).runner == anew
    bench.say(ev.RunnerServing("main", anew))
    assert (bench.slot.runner_restarts, bench.slot.runner_alive) == (0, True)


def test_a_runner_that_waits_to_be_restarted_starts_at_once_on_request(bench, packages):
    runner = bench.commit(packages[0])
    bench.say(ev.RunnerExited("main", runner, "killed by SIGKILL"))
    assert not bench.has(do.StartRunner)
    bench.say(ev.RestartRunnerAsked("main", "r1"))
    assert bench.only(do.StartRunner).version == packages[0].offer.ref


def test_a_request_never_disturbs_a_trial_and_is_answered_where_nothing_runs(bench, packages):
    bench.say(ev.RestartRunnerAsked("main", "r1"))
    assert bench.only(do.AnswerRequest) == do.AnswerRequest("r1", False, "nothing runs here yet")
    bench.say(ev.RestartRunnerAsked("other", "r2"))
    assert "no slot other here, only main" in bench.only(do.AnswerRequest).detail
    bench.to_probation(packages[0])
    bench.say(ev.RestartRunnerAsked("main", "r3"))
    assert "its probation decides" in bench.only(do.AnswerRequest).detail
    assert not bench.has(do.StopRunner)
    assert bench.slot.state is SlotState.PROBATION


# ---- capture now --------------------------------------------------------------------------------


def test_whoever_has_the_source_is_asked_for_examples(bench, packages):
    def ask(slot="main"):
        bench.say(ev.CaptureAsked(slot, "1" * 16, 5))
        return bench.only(do.AnswerRequest)

    nothing = ask()
    assert (nothing.done, bench.has(do.CaptureExamples)) == (False, False)
    assert "no runner answers here now" in nothing.detail
    runner = bench.to_probation(packages[0])
    answer = ask()
    assert answer.done
    assert answer.detail == "5 examples will come: the next that tiny@0 answers"
    assert bench.only(do.CaptureExamples) == do.CaptureExamples("main", runner, 5)
    elsewhere = ask("aux")
    assert (elsewhere.done, elsewhere.detail) == (False, "no slot aux here, only main")
    bench.now += 1.5
    bench.say(ev.RunnerProgressed("main", runner, GOOD))
    assert ask().done, "the champion's too"
    bench.say(ev.RestartRunnerAsked("main", "2" * 16))
    assert not ask().done, "one that is stopping hears nothing any more"
    bench.say(ev.RunnerExited("main", runner, "exit status 0"))
    assert not ask().done
