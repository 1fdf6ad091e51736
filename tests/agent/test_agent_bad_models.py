"""Every kind of bad version, offered to a real agent that runs a good one (DESIGN §4).

One agent tries one after the other, as a device would: its supervisor, its runners, onnxruntime
and the broker are real; controller and artifact server are scripted.
"""

import re

import pytest
from bad_models import KINDS, LEAKY, leaking

from edgeloop_protocol.lifecycle import SlotState

pytestmark = pytest.mark.e2e

ROLLBACK_S_MAX = 30.0


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_version_is_rolled_back_and_the_old_one_serves(bench, kind, make_package, wait_until):
    """EL-LIFE-4, EL-LIFE-6, EL-LIFE-7."""
    bad, controller, good = KINDS[kind](make_package), bench.controller, bench.good
    bench.server.publish(bad.package)
    bench.server.artifacts.update(bad.served)
    supervisor = bench.agent.process.pid
    controller.offer(bad.package, bad.probation)
    wait_until(
        lambda: controller.refused(bad.package), ROLLBACK_S_MAX, what=f"{kind} is rolled back"
    )
    refused = controller.slot.refused
    assert re.search(bad.says, f"{refused.cause}: {refused.detail}", re.DOTALL)
    wait_until(lambda: controller.runs(good), what="the old version serves again")
    assert controller.slot.state is SlotState.ROLLED_BACK
    before = answered(controller, good)
    wait_until(lambda: answered(controller, good) > before, what="it answers")
    assert bench.agent.process.poll() is None
    assert bench.agent.status()["pid"] == supervisor


def test_a_champion_that_leaks_is_restarted_and_the_device_lives_on(
    bench, make_package, wait_until
):
    """It passes a short probation, and grows beyond its limit after the commit."""
    controller = bench.controller
    package = leaking(make_package, "leaks-later")
    bench.server.publish(package)
    controller.offer(package, LEAKY.model_copy(update={"min_s": 0.3}))
    wait_until(lambda: controller.runs(package), what="it is committed")
    restarts = controller.slot.runner_restarts
    (runner,) = bench.agent.runner_pids()
    wait_until(lambda: controller.slot.runner_restarts > restarts, what="it is restarted")
    wait_until(lambda: controller.runs(package), what="it serves again")
    assert bench.agent.runner_pids() != [runner]
    assert controller.slot.refused is None
    wait_until(lambda: any(e.name == "runner_restarted" for e in controller.bodies("event")))
    events = [e for e in controller.bodies("event") if e.name == "runner_restarted"]
    assert "memory: the runner process has" in events[0].detail
    assert bench.agent.process.poll() is None
    controller.offer(bench.good)
    wait_until(lambda: controller.runs(bench.good))


def test_there_are_all_kinds_that_were_promised():
    assert len(KINDS) >= 23


def answered(controller, package):
    windows = [w for w in controller.bodies("window") if w.version == package.offer.ref]
    return sum(window.count for window in windows)
