"""The core's challenger: when it runs, what ends it, and that it is in nobody's way."""

import pytest
from device_bench import GOOD, INVENTORY, TERMS, Bench

from edgeloop_agent.core import effects as do
from edgeloop_agent.core import events as ev
from edgeloop_agent.core.settings import CoreSettings
from edgeloop_protocol.lifecycle import ChallengeState, SlotState
from edgeloop_protocol.manifest import Requirements
from edgeloop_protocol.messages import Challenger, Desired, ShadowBudget, SlotDesired


class Duel(Bench):
    """A device that runs `champion`, and a hand on what challenges it."""

    def __init__(self, champion, settings=None):
        super().__init__(settings=settings)
        self.champion = champion
        self.serving = self.commit(champion)

    def desire(self, offered=None, challenger=None, budget=None):
        self.revision += 1
        challenging = None
        if challenger is not None:
            challenging = Challenger(offer=challenger.offer, budget=budget or ShadowBudget())
        slot = SlotDesired(
            slot="main",
            offer=(offered or self.champion).offer,
            probation=TERMS,
            challenger=challenging,
        )
        return self.say(ev.DesiredReceived(Desired(revision=self.revision, slots=(slot,))))

    def to_staged(self, challenger, budget=None):
        self.desire(challenger=challenger, budget=budget)
        assert self.only(do.FetchManifest).offer == challenger.offer
        self.manifest(challenger)
        assert self.only(do.FetchArtifact).offer == challenger.offer
        return self.artifact(challenger)

    def to_shadow(self, challenger, budget=None):
        """Returns the challenger's runner, being fed."""
        self.to_staged(challenger, budget)
        return self.feed()

    def feed(self):
        runner = self.only(do.StartRunner).runner
        self.say(ev.RunnerSelfTested("main", runner, True, ""))
        assert self.only(do.Mirror) == do.Mirror("main", self.serving, runner)
        self.say(ev.RunnerServing("main", runner))
        assert self.challenger.state is ChallengeState.IN_SHADOW
        return runner

    def trial_ends_well(self):
        """The candidate, whose runner was started last, is committed."""
        candidate = self.device._slots["main"].runners.last_number
        self.say(ev.RunnerSelfTested("main", candidate, True, ""))
        self.exits(self.serving, "exit status 0")
        self.say(ev.RunnerServing("main", candidate))
        self.now += 1.5
        self.say(ev.RunnerProgressed("main", candidate, GOOD))
        self.serving = candidate

    def exits(self, runner, detail="killed by SIGSEGV"):
        return self.say(ev.RunnerExited("main", runner, detail))

    @property
    def challenger(self):
        return self.slot.challenger


@pytest.fixture
def packages(make_package):
    return [make_package(str(number)) for number in range(4)]


@pytest.fixture
def duel(packages):
    return Duel(packages[0])


def test_a_challenger_comes_into_the_shadow_and_the_champion_goes_on(duel, packages):
    """EL-SHADOW-1."""
    runner = duel.to_shadow(packages[1])
    assert duel.slot.champion == packages[0].offer.ref
    assert duel.slot.state is SlotState.COMMITTED
    assert duel.slot.candidate is None
    assert duel.challenger.version == packages[1].offer.ref
    assert duel.durable.challenge.state is ChallengeState.IN_SHADOW, "and journalled"
    assert runner != duel.serving
    assert not duel.has(do.StopRunner)


def test_no_word_of_a_challengers_is_taken_for_the_champions(duel, packages):
    """EL-SHADOW-2."""
    runner = duel.to_shadow(packages[1])
    bad = ev.Progress(examples=1, nonfinite=99, errors=99, latency_p95_us=1e9)
    duel.say(ev.RunnerProgressed("main", runner, bad))
    assert duel.challenger.state is ChallengeState.IN_SHADOW, "it is there to show that"
    assert duel.slot.refused is None
    assert not duel.has(do.StopRunner)


def test_its_end_restarts_no_champion_and_is_no_restart(duel, packages):
    """EL-SHADOW-2."""
    runner = duel.to_shadow(packages[1])
    duel.exits(runner)
    assert not duel.has(do.StartRunner), "it waits before it is tried again"
    assert duel.slot.runner_alive
    assert duel.slot.runner_restarts == 0
    assert "SIGSEGV" in duel.challenger.waiting
    duel.wait()
    assert duel.only(do.StartRunner).version == packages[1].offer.ref


def test_one_that_crashes_again_and_again_is_refused_until_another_is_wanted(duel, packages):
    """EL-SHADOW-5."""
    runner = duel.to_shadow(packages[1])
    for tries in range(1, CoreSettings().attempts_max):
        assert duel.durable.challenge.attempts == tries
        duel.exits(runner)
        duel.wait()
        runner = duel.feed()
    duel.exits(runner)
    assert duel.challenger.state is ChallengeState.REFUSED
    assert duel.challenger.cause == "runner crashed"
    assert "3 times" in duel.challenger.detail
    assert packages[1].offer.manifest_digest not in duel.only(do.CollectGarbage).keep_manifests
    duel.desire(challenger=packages[1])
    assert not duel.has(do.FetchManifest)
    duel.desire()
    assert duel.challenger is None
    duel.desire(challenger=packages[1])
    assert duel.has(do.FetchManifest), "to want it again is a new decision"


def test_reboots_are_counted_and_time_in_the_shadow_forgives_them(duel, packages):
    runner = duel.to_shadow(packages[1])
    duel.now += CoreSettings().stable_after_s
    duel.say(ev.RunnerProgressed("main", runner, GOOD))
    assert duel.durable.challenge.attempts == 0
    for tries in (1, 2, 3):
        again = Duel.__new__(Duel)
        Bench.__init__(again, snapshot=duel.journal)
        serving = again.only_of(again.at_start, do.StartRunner).runner
        again.say(ev.RunnerSelfTested("main", serving, True, ""))
        again.say(ev.RunnerServing("main", serving))
        assert again.durable.challenge.attempts == tries
        duel = again
    Bench.__init__(again, snapshot=duel.journal)
    serving = again.only_of(again.at_start, do.StartRunner).runner
    again.say(ev.RunnerSelfTested("main", serving, True, ""))
    again.say(ev.RunnerServing("main", serving))
    assert again.challenger.cause == "attempts exhausted"


def test_a_hang_in_its_self_test_is_a_lost_try(duel, packages):
    duel.to_staged(packages[1])
    runner = duel.only(do.StartRunner).runner
    duel.say(ev.RunnerLoading("main", runner))
    duel.now += 1000
    duel.say(ev.RunnerProgressed("main", duel.serving, GOOD))
    duel.say(ev.Tick())
    stop = duel.only(do.StopRunner)
    assert (stop.runner, stop.kill) == (runner, True)
    assert "hung" in duel.challenger.waiting


def test_a_failed_self_test_refuses_it(duel, packages):
    """EL-SHADOW-5."""
    duel.to_staged(packages[1])
    runner = duel.only(do.StartRunner).runner
    duel.say(ev.RunnerSelfTested("main", runner, False, "off by 3"))
    assert duel.challenger.state is ChallengeState.REFUSED
    assert (duel.challenger.cause, duel.challenger.detail) == ("self-test failed", "off by 3")
    assert duel.only(do.StopRunner).runner == runner
    assert not duel.has(do.Mirror)


def test_nothing_runs_beside_a_trial_and_it_comes_back_afterwards(duel, packages):
    """EL-SHADOW-2."""
    runner = duel.to_shadow(packages[1])
    duel.desire(offered=packages[2], challenger=packages[1])
    duel.manifest(packages[2])
    duel.artifact(packages[2])
    assert [e.runner for e in duel.performed if isinstance(e, do.StopRunner)] == [runner]
    assert duel.challenger.waiting == "a new version is being tried here"
    duel.exits(runner, "exit status 0")
    assert duel.durable.challenge.state is ChallengeState.STAGED
    duel.trial_ends_well()
    assert duel.slot.champion == packages[2].offer.ref
    duel.feed()


def test_the_champions_restart_ends_and_brings_back_its_shadow(duel, packages):
    runner = duel.to_shadow(packages[1])
    duel.exits(duel.serving)
    assert duel.only(do.StopRunner).runner == runner
    duel.exits(runner, "exit status 0")
    duel.wait()
    duel.serving = duel.only(do.StartRunner).runner
    assert duel.challenger.waiting == "the champion does not serve"
    duel.say(ev.RunnerSelfTested("main", duel.serving, True, ""))
    duel.say(ev.RunnerServing("main", duel.serving))
    duel.feed()


def test_the_smallest_cap_of_its_memory_counts_and_beyond_it_is_refused(make_package):
    """EL-SHADOW-3."""
    hungry = make_package("hungry", requires=Requirements(memory_bytes=5000))
    duel = Duel(make_package("0"), CoreSettings(runner_memory_max_bytes=9000))
    duel.to_staged(hungry, ShadowBudget(memory_bytes=3000))
    assert duel.only(do.StartRunner).memory_max_bytes == 3000
    runner = duel.feed()
    duel.say(ev.RunnerProgressed("main", runner, ev.Progress(memory_bytes=3000)))
    assert duel.challenger.state is ChallengeState.IN_SHADOW
    duel.say(ev.RunnerProgressed("main", runner, ev.Progress(memory_bytes=3001)))
    assert (duel.challenger.state, duel.challenger.cause) == (ChallengeState.REFUSED, "memory")
    assert duel.only(do.StopRunner).runner == runner


def test_another_budget_begins_it_anew(duel, packages):
    runner = duel.to_shadow(packages[1])
    duel.desire(challenger=packages[1], budget=ShadowBudget(cpu_fraction=0.5))
    assert duel.only(do.StopRunner).runner == runner
    duel.exits(runner, "exit status 0")
    assert duel.only(do.StartRunner).budget.cpu_fraction == 0.5


def test_no_try_before_it_is_counted_on_disk(duel, packages):
    """EL-SHADOW-5."""
    duel.desire(challenger=packages[1])
    duel.manifest(packages[1])
    duel.disk_is_full = True
    duel.artifact(packages[1])
    assert not duel.has(do.StartRunner)
    duel.mend_disk()
    assert duel.has(do.StartRunner)
    assert duel.durable.challenge.attempts == 1


def test_it_becomes_the_champion_and_its_files_are_kept(duel, packages):
    runner = duel.to_shadow(packages[1])
    duel.desire(offered=packages[1], challenger=packages[1])
    duel.manifest(packages[1])
    duel.artifact(packages[1])
    assert duel.only(do.StopRunner).runner == runner
    duel.exits(runner, "exit status 0")
    duel.trial_ends_well()
    assert duel.slot.champion == packages[1].offer.ref
    assert duel.challenger.waiting == "it is the champion already"
    assert not duel.has(do.StartRunner)


def test_what_may_mend_itself_is_waited_for(duel, packages):
    duel.desire(challenger=packages[1])
    digest = packages[1].manifest.digest()
    small = INVENTORY.model_copy(update={"disk_free_bytes": 0})
    duel.say(ev.ManifestFetched("main", digest, packages[1].manifest, small, False))
    assert "disk" in duel.challenger.waiting
    duel.wait()
    assert duel.has(do.FetchManifest)
    duel.say(ev.FetchFailed("main", digest, ev.FetchProblem.WAIT, "no route to host"))
    assert duel.challenger.waiting == "no route to host"
    assert duel.slot.waiting == "", "the champion waits for nothing"


def test_damaged_downloads_are_counted(duel, packages):
    duel.desire(challenger=packages[1])
    duel.manifest(packages[1])
    for _ in range(CoreSettings().corrupt_fetches_max):
        digest = packages[1].manifest.digest()
        duel.say(ev.FetchFailed("main", digest, ev.FetchProblem.CORRUPT, "3 bytes differ"))
        if duel.challenger.state is ChallengeState.DOWNLOADING:
            duel.wait()
    assert duel.challenger.cause == "digest mismatch"


def test_withdrawn_it_leaves_nothing(duel, packages):
    runner = duel.to_shadow(packages[1])
    duel.desire()
    assert duel.only(do.StopRunner).runner == runner
    assert duel.challenger is None
    assert duel.durable.challenge is None
    assert packages[1].offer.manifest_digest not in duel.only(do.CollectGarbage).keep_manifests
    duel.exits(runner, "exit status 0")
    assert not duel.has(do.StartRunner)
