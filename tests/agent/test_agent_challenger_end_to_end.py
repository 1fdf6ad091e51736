"""A challenger beside a real champion: what it sees, what it may take, how it ends."""

import os
import signal
from pathlib import Path

import numpy as np
import psutil
import pytest
from bad_models import KINDS

from edgeloop_protocol.lifecycle import ChallengeState
from edgeloop_protocol.messages import ShadowBudget

pytestmark = pytest.mark.e2e

RIVAL = [[1.0, -1.0], [-0.5, 0.5], [-1.0, 1.0]]
"""Weights that see one of three features the other way round."""


@pytest.fixture
def duel(agent, controller, artifact_server, make_package, wait_until):
    """A champion that serves, and what gives it a challenger."""
    with agent.config_path.open("a") as config:
        config.write("[limits]\nheartbeat_timeout_s = 4\nrestart_backoff_s_max = 1\n")
    champion = make_package("1")
    artifact_server.publish(champion)
    agent.start()
    wait_until(lambda: controller.hellos)
    controller.offer(champion)
    wait_until(lambda: controller.runs(champion), what="the champion is committed")
    return Duel(agent, controller, artifact_server, champion, wait_until)


class Duel:
    def __init__(self, agent, controller, server, champion, wait_until):
        self.agent, self.controller, self.server = agent, controller, server
        self.champion, self.wait_until = champion, wait_until
        (self.pid,) = agent.runner_pids()

    def challenge(self, package, **budget):
        self.server.publish(package)
        budget = ShadowBudget(cpu_fraction=1.0, **budget)
        self.controller.offer(self.champion, challenger=package, budget=budget)

    @property
    def state(self):
        slot = self.controller.slot
        return slot.challenger.state if slot and slot.challenger else None

    def comes_into_the_shadow(self):
        self.wait_until(lambda: self.state is ChallengeState.IN_SHADOW, what="in shadow")
        (pid,) = set(self.agent.runner_pids()) - {self.pid}
        return pid

    def champion_goes_on(self):
        """The very same process, still answering."""
        assert self.pid in self.agent.runner_pids()
        slot = self.controller.slot
        assert (slot.champion, slot.runner_restarts) == (self.champion.offer.ref, 0)
        answered = self.agent.answers_path.read_text().count("\n")
        self.wait_until(lambda: self.agent.answers_path.read_text().count("\n") > answered + 10)


def test_it_is_compared_example_by_example_and_touches_no_sink(duel, make_package):
    """EL-SHADOW-1, EL-SHADOW-4."""
    rival = make_package("2", weights=RIVAL)
    duel.challenge(rival)
    duel.comes_into_the_shadow()
    shadows = lambda: [s for s in duel.controller.bodies("shadow") if s.window.count]  # noqa: E731
    duel.wait_until(lambda: len(shadows()) >= 3)
    told = shadows()
    assert {s.champion for s in told} == {duel.champion.offer.ref}
    assert {s.window.version for s in told} == {rival.offer.ref}
    count, unlike = sum(s.window.count for s in told), sum(s.disagreements for s in told)
    assert unlike / count == pytest.approx(expected_disagreement(duel.champion, rival), abs=0.35)
    assert sum(s.skipped for s in told) == 0
    assert all(s.cpu_s > 0 and s.window.memory_bytes > 0 for s in told)
    duel.champion_goes_on()
    answers = duel.agent.answers_path.read_text()
    assert rival.manifest.digest() not in answers


def expected_disagreement(champion, rival):
    """Over the whole stream that the agent replays."""
    import onnxruntime

    values = np.random.default_rng(7).normal(size=(200, 3)).astype(np.float32)
    labels = []
    for package in (champion, rival):
        session = onnxruntime.InferenceSession(package.model)
        outputs = [session.run(None, {"x": row[None]})[0] for row in values]
        labels.append(np.concatenate(outputs).argmax(axis=1))
    share = float((labels[0] != labels[1]).mean())
    assert share > 0.05, "these two are to differ"
    return share


def test_its_process_has_no_network_and_the_lowest_priority(duel, make_package):
    """EL-SHADOW-2."""
    duel.challenge(make_package("2", weights=RIVAL))
    process = psutil.Process(duel.comes_into_the_shadow())
    assert process.nice() == 19
    assert not process.net_connections("inet")
    ours, champions, challengers = (
        Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", duel.pid, process.pid)
    )
    assert (challengers == ours) == (champions == ours), "as far as the kernel isolates a runner"


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("abort_on_real_inputs", "runner crashed"),
        ("hang_on_real_inputs", "runner hung"),
        ("memory_beyond_its_limit", "self-test failed"),
        ("golden_mismatch", "self-test failed"),
        ("not_a_model", "self-test failed"),
    ],
)
def test_a_bad_challenger_is_refused_and_the_champion_never_notices(
    duel, make_package, kind, cause
):
    """EL-SHADOW-2, EL-SHADOW-5."""
    bad = KINDS[kind](make_package)
    duel.challenge(bad.package)
    duel.wait_until(lambda: duel.state is ChallengeState.REFUSED, 60.0, what="refused")
    assert duel.controller.slot.challenger.cause == cause
    duel.wait_until(lambda: duel.agent.runner_pids() == [duel.pid])
    duel.champion_goes_on()


def test_nan_is_told_and_ends_nothing(duel, make_package):
    bad = KINDS["nan_on_real_inputs"](make_package)
    duel.challenge(bad.package)
    duel.comes_into_the_shadow()
    told = lambda: duel.controller.bodies("shadow")  # noqa: E731
    duel.wait_until(lambda: sum(s.window.nonfinite for s in told()) > 5)
    assert duel.state is ChallengeState.IN_SHADOW
    duel.champion_goes_on()


def test_beyond_its_processor_budget_examples_are_skipped(duel, make_package):
    """EL-SHADOW-3."""
    slow = KINDS["ten_times_slower"](make_package).package
    duel.server.publish(slow)
    budget = ShadowBudget(cpu_fraction=0.02)
    duel.controller.offer(duel.champion, challenger=slow, budget=budget)
    pid = duel.comes_into_the_shadow()
    told = lambda: duel.controller.bodies("shadow")  # noqa: E731
    duel.wait_until(lambda: sum(s.skipped for s in told()) > 40, 60.0, what="some are skipped")
    windows = told()
    assert sum(s.window.count for s in windows) > 0, "and some are not"
    spans = sum(s.window.ended_at - s.window.started_at for s in windows)
    assert sum(s.cpu_s for s in windows) < 0.02 * spans * 2 + 0.2
    assert psutil.pid_exists(pid)
    duel.champion_goes_on()


def test_champion_and_agent_killed_both_come_back(duel, make_package):
    duel.challenge(make_package("2", weights=RIVAL))
    duel.comes_into_the_shadow()
    os.kill(duel.pid, signal.SIGKILL)
    duel.wait_until(lambda: duel.controller.slot.runner_restarts == 1)
    duel.wait_until(lambda: duel.controller.runs(duel.champion))
    duel.wait_until(lambda: duel.state is ChallengeState.IN_SHADOW)
    duel.agent.kill()
    hellos = len(duel.controller.hellos)
    duel.agent.start()
    duel.wait_until(lambda: len(duel.controller.hellos) > hellos)
    duel.wait_until(lambda: duel.controller.runs(duel.champion))
    duel.wait_until(lambda: duel.state is ChallengeState.IN_SHADOW)


def test_it_makes_way_for_a_trial_and_may_become_the_champion(duel, make_package):
    rival = make_package("2", weights=RIVAL)
    duel.challenge(rival)
    duel.comes_into_the_shadow()
    fetched = len(duel.server.requests)
    duel.controller.offer(rival, challenger=rival)
    duel.wait_until(lambda: duel.controller.runs(rival), what="promoted")
    assert len(duel.server.requests) == fetched, "its files are there already"
    duel.wait_until(lambda: "already" in duel.controller.slot.challenger.waiting)
    duel.wait_until(lambda: len(duel.agent.runner_pids()) == 1)
