"""The scripted story: each step does something to the world and waits for what shall follow.

Invariants: a step says in words how it went; a deadline that passes ends the story with
StoryError, and what was seen until then stays recorded.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pyarrow.parquet as pq

from edgeloop_simulators import scenario as plan
from edgeloop_simulators.bad_models import permuted_labels, yields_nan
from edgeloop_simulators.errors import FirstVersionError, FleetError, StoryError
from edgeloop_simulators.first_version import train_first, write_inputs
from edgeloop_simulators.sensors import Fault
from edgeloop_simulators.summary import RECOVERED_WITHIN
from edgeloop_simulators.truth import RECENT_S
from edgeloop_simulators.world import FIRST_OUTPUT, SLOT, World

POLICY: Final = "when-the-world-moves"


def play(world: World) -> None:
    """Raises StoryError at the first step that does not come to its end in time."""
    scenario, truth = world.bed.scenario, world.bed.truth
    truth.mark("run.started", scenario.title, phases=[scenario.before, scenario.after])
    for index, step in enumerate(scenario.steps):
        world.listener.step_started(index)
        try:
            outcome = perform(world, step)
        except (StoryError, FleetError, FirstVersionError) as error:
            world.listener.step_ended(index, str(error), failed=True)
            truth.mark("step.failed", str(error), step=step.do)
            raise StoryError(f"step {index + 1} ({step.do}): {error}") from error
        world.listener.step_ended(index, outcome, failed=False)


def perform(world: World, step: plan.Step) -> str:
    """Do one step; returns how it went. Raises StoryError, FleetError or FirstVersionError."""
    match step:
        case plan.BreakSensor():
            return _break_sensor(world, step)
        case plan.ChangeWorld():
            return _change_world(world, step)
        case plan.PublishBad():
            return _publish_bad(world, step)
        case plan.Observe():
            return _observe(world, step)
        case plan.Plain():
            plain: dict[str, Callable[[World, float], str]] = {
                "publish_first": _publish_first,
                "start_devices": _start_devices,
                "roll_out_first": _roll_out_first,
                "retrain": _retrain,
                "recover": _recover,
            }
            return plain[step.do](world, step.deadline_s)


def _publish_first(world: World, deadline_s: float) -> str:
    bed = world.bed
    inputs = write_inputs(bed.dataset, bed.directory)
    bed.fleet.start_controller(_policy(world, inputs), bed.console.ready, deadline_s)
    world.listener.tick()
    trained = train_first(
        bed.dataset,
        bed.loaded.resolve(bed.scenario.training.script),
        bed.scenario.training.model,
        inputs,
        bed.directory / FIRST_OUTPUT,
        slot=SLOT,
        timeout_s=deadline_s,
    )
    output = world.output_of("first")
    published = bed.console.publish(
        bed.scenario.training.model,
        "1",
        trained.model,
        output / "model.toml",
        output / "baseline.parquet",
    )
    world.published("first", published, _base_references(world), "v1, trained on base data")
    return f"{bed.scenario.training.model}@1, trained on {len(bed.dataset.base)} windows"


def _base_references(world: World) -> set[str]:
    """What every training gets, whatever a script makes of it."""
    dataset = world.bed.dataset
    return {window.reference for window in (*dataset.base, *dataset.baseline)}


def _policy(world: World, inputs: dict[str, str]) -> dict[str, Any]:
    training = world.bed.scenario.training
    return {
        "name": POLICY,
        "model": training.model,
        "slot": SLOT,
        "on": ["drift"],
        "script": str(world.bed.loaded.resolve(training.script)),
        "timeout_s": training.timeout_s,
        "inputs": inputs,
    } | training.policy


def _start_devices(world: World, deadline_s: float) -> str:
    bed = world.bed
    bed.sensors.start()
    for device_id in bed.device_ids:
        bed.fleet.start_agent(device_id, bed.sensors.path(device_id), bed.labels_of(device_id))
        world.listener.tick()

    def online() -> bool:
        return sum(bool(d["online"]) for d in bed.console.devices()) == len(bed.device_ids)

    world.wait(online, deadline_s, "not every device said hello")
    bed.truth.mark("devices.started", f"{len(bed.device_ids)} devices are online")
    return f"{len(bed.device_ids)} agents, each a supervisor with its runner"


def _roll_out_first(world: World, deadline_s: float) -> str:
    bed = world.bed
    rollout = world.start_rollout("1")
    world.wait(
        lambda: world.settled(int(rollout["id"])) == "done" and world.all_run("first"),
        deadline_s,
        "the rollout of the first version did not end on every device",
    )
    bed.annotator.start()
    bed.truth.mark("rollout.ended", "every device runs v1")
    return f"in waves {', '.join(bed.scenario.rollout.waves)}"


def _observe(world: World, step: plan.Observe) -> str:
    truth, digest = world.bed.truth, world.champion()
    begun = {device: truth.answered_by(device, digest) for device in world.bed.device_ids}

    def seen() -> bool:
        return all(truth.answered_by(d, digest) - n >= step.examples for d, n in begun.items())

    world.wait(seen, step.deadline_s, f"a device has not answered {step.examples} examples")
    return f"{step.examples} examples a device{world.accuracy_text()}"


def _break_sensor(world: World, step: plan.BreakSensor) -> str:
    bed = world.bed
    if step.device >= len(bed.device_ids):
        raise StoryError(f"there is no device {step.device}: {len(bed.device_ids)} devices")
    unknown = set(step.channels) - set(bed.dataset.channels)
    if unknown:
        raise StoryError(f"no channel {sorted(unknown)}: {', '.join(bed.dataset.channels)}")
    device = bed.device_ids[step.device]
    columns = tuple(bed.dataset.channels.index(name) for name in step.channels)
    bed.truth.mark(
        "sensor.broken",
        f"{step.sensor} of {device} breaks ({step.kind})",
        device=device,
        sensor=step.sensor,
        fault=step.kind,
    )
    bed.sensors.break_sensor(device, Fault(columns, step.kind, step.value))
    alarm = world.wait(
        lambda: world.alarm("sensor_fault", device),
        step.deadline_s,
        f"no sensor_fault alarm for {device}",
    )
    return f"{alarm['sensor']} of {device} named, score {alarm['score']:.1f}"


def _change_world(world: World, step: plan.ChangeWorld) -> str:
    bed = world.bed
    world.pause(step.settle_s)
    before = bed.truth.rolling_accuracy()
    world.accuracy_before = before[0] if before else None
    moved = bed.device_ids[: round(step.share * len(bed.device_ids))]
    bed.truth.mark(
        "world.changed",
        f"{bed.scenario.before} → {bed.scenario.after} on {len(moved)} devices",
        devices=list(moved),
    )
    bed.sensors.change_world(moved)
    alarm = world.wait(
        lambda: world.alarm("world_changed", "*"),
        step.deadline_s,
        "no world_changed alarm for the fleet",
    )
    score = f"score {alarm['score']:.1f} over {alarm['threshold']:.1f}"
    return f"world_changed raised, {score}{world.accuracy_text()}"


def _retrain(world: World, deadline_s: float) -> str:
    run = world.wait(world.ended_run, deadline_s, "no training run ended")
    if run["status"] != "succeeded":
        raise StoryError(f"training run {run['id']} {run['status']}: {run['error']}")
    model = world.bed.scenario.training.model
    version = world.bed.console.version(model, str(run["candidate"]["version"]))
    given = pq.read_table(Path(run["directory"]) / "train.parquet", columns=["reference"])
    trained_on = _base_references(world) | set(given.column("reference").to_pylist())
    world.published("retrained", version, trained_on, f"v{version['version']}, retrained")
    evaluation = version["manifest"]["evaluation"]
    return (
        f"{model}@{version['version']}: {evaluation['accuracy']:.2f} on "
        f"{evaluation['examples']} held-back labels, v1 {evaluation['against_accuracy']:.2f}"
    )


def _recover(world: World, deadline_s: float) -> str:
    wanted = (world.accuracy_before or 0.0) - RECOVERED_WITHIN
    digest = world.bed.published["retrained"]

    def recovered() -> bool:
        rollouts = [r for r in world.bed.console.rollouts() if r["manifest_digest"] == digest]
        if any(r["status"] in ("halted", "aborted") for r in rollouts):
            raise StoryError(f"the rollout was stopped: {rollouts[0]['verdict']}")
        rolling = world.bed.truth.rolling_accuracy()
        done = any(r["status"] == "done" for r in rollouts) and world.all_run("retrained")
        return done and rolling is not None and rolling[0] >= wanted

    world.wait(recovered, deadline_s, f"accuracy has not come back to {wanted:.2f}")
    world.pause(RECENT_S)
    world.bed.truth.mark("rollout.ended", "every device runs v2")
    return f"every device runs v2{world.accuracy_text()}"


def _publish_bad(world: World, step: plan.PublishBad) -> str:
    bed, model = world.bed, world.bed.scenario.training.model
    good_is = "retrained" if "retrained" in bed.published else "first"
    good = bed.published[good_is]
    versions = bed.console.versions(model)
    number = str(max(int(one["version"]) for one in versions) + 1)
    name = next(str(one["version"]) for one in versions if one["manifest_digest"] == good)
    scores = str(bed.console.version(model, name)["manifest"]["scores_output"])
    spoil = permuted_labels if step.kind == "permuted" else yields_nan
    output = world.output_of(good_is)
    spoilt = bed.directory / f"{step.kind}.onnx"
    spoilt.write_bytes(spoil((output / "model.onnx").read_bytes(), scores))
    published = bed.console.publish(model, number, spoilt, output / "model.toml", None)
    trained_on = bed.truth.trained_references(good)
    world.published(step.kind, published, trained_on, f"v{number}, {step.kind}: a bad version")
    rollout = world.start_rollout(number)
    status = world.wait(
        lambda: world.settled(int(rollout["id"])), step.deadline_s, "its rollout goes on"
    )
    verdict = bed.console.rollout(int(rollout["id"]))["verdict"]
    if status != "halted":
        raise StoryError(f"v{number} was not stopped: its rollout is {status}")
    bed.truth.mark("bad.stopped", f"v{number} stopped at its canary", verdict=verdict)
    world.wait(lambda: world.all_run(good_is), step.deadline_s, "a device is not back")
    return str(verdict)
