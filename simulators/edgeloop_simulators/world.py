"""The scripted story: each step does something to the world and waits for what shall follow.

Invariants: works by the public interfaces alone (the HTTP API, the sensors, the annotator); every
wait has a condition and a deadline; a deadline that passes ends the story with StoryError, and
what was seen until then stays recorded.
"""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import Event
from typing import Any, Final, Protocol, TypeVar

from edgeloop_controller.training.dataset import write_training_input
from edgeloop_controller.training.executor import Ending, LocalExecutor, TrainingJob
from edgeloop_simulators import scenario as plan
from edgeloop_simulators.bad_models import permuted_labels, yields_nan
from edgeloop_simulators.datasets.windows import write_windows
from edgeloop_simulators.errors import FleetError, StoryError
from edgeloop_simulators.sensors import Fault
from edgeloop_simulators.summary import RECOVERED_WITHIN
from edgeloop_simulators.testbed import Testbed
from edgeloop_simulators.truth import RECENT_S

POLL_S: Final = 0.3
SLOT: Final = "main"
POLICY: Final = "when-the-world-moves"
TRAINING_MEMORY_MAX_BYTES: Final = 4 * 1024**3

T = TypeVar("T")


class Listener(Protocol):
    """Who shows the story as it goes."""

    def step_started(self, index: int) -> None: ...
    def step_ended(self, index: int, outcome: str, failed: bool) -> None: ...
    def tick(self) -> None: ...


class World:
    """Plays a scenario's steps on a testbed."""

    def __init__(self, bed: Testbed, listener: Listener) -> None:
        self._bed, self._listener = bed, listener
        self._accuracy_before: float | None = None

    def play(self) -> None:
        """Raises StoryError at the first step that does not come to its end in time."""
        scenario = self._bed.scenario
        self._bed.truth.mark(
            "run.started", scenario.title, phases=[scenario.before, scenario.after]
        )
        for index, step in enumerate(self._bed.scenario.steps):
            self._listener.step_started(index)
            try:
                outcome = self._perform(step)
            except (StoryError, FleetError) as error:
                self._listener.step_ended(index, str(error), failed=True)
                self._bed.truth.mark("step.failed", str(error), step=step.do)
                raise StoryError(f"step {index + 1} ({step.do}): {error}") from error
            self._listener.step_ended(index, outcome, failed=False)

    def _perform(self, step: plan.Step) -> str:
        match step:
            case plan.BreakSensor():
                return self._break_sensor(step)
            case plan.ChangeWorld():
                return self._change_world(step)
            case plan.PublishBad():
                return self._publish_bad(step)
            case plan.Observe():
                return self._observe(step)
            case plan.Plain():
                plain: dict[str, Callable[[float], str]] = {
                    "publish_first": self._publish_first,
                    "start_devices": self._start_devices,
                    "roll_out_first": self._roll_out_first,
                    "retrain": self._retrain,
                    "recover": self._recover,
                }
                return plain[step.do](step.deadline_s)

    # ---- the steps ------------------------------------------------------------------------

    def _publish_first(self, deadline_s: float) -> str:
        bed = self._bed
        base, baseline = bed.directory / "base.parquet", bed.directory / "baseline.parquet"
        write_windows(bed.dataset, bed.dataset.base, base)
        write_windows(bed.dataset, bed.dataset.baseline, baseline)
        inputs = {"base": str(base), "baseline": str(baseline)}
        bed.fleet.start_controller(self._policy(inputs), bed.console.ready, deadline_s)
        self._listener.tick()
        directory = bed.directory / "training-of-the-first"
        output = self._train_first(directory, inputs, deadline_s)
        published = bed.console.publish(
            bed.scenario.training.model,
            "1",
            (output / "model.onnx").read_bytes(),
            output / "model.toml",
            output / "baseline.parquet",
        )
        trained_on = json.loads((output / "trained_on.json").read_text(encoding="utf-8"))
        self._published("first", published, trained_on, "v1, trained on base data")
        return f"{bed.scenario.training.model}@1, trained on {len(bed.dataset.base)} windows"

    def _train_first(self, directory: Path, inputs: dict[str, str], timeout_s: float) -> Path:
        """By the same script and contract as every later version."""
        bed = self._bed
        write_training_input(
            directory,
            (),
            bed.dataset.feature_names,
            bed.dataset.labels,
            run_id=None,
            policy="the first version",
            model=bed.scenario.training.model,
            slot=SLOT,
            parent=None,
            inputs=inputs,
        )
        script = bed.loaded.resolve(bed.scenario.training.script)
        job = TrainingJob(script, directory, timeout_s, TRAINING_MEMORY_MAX_BYTES)
        outcome = LocalExecutor().run(job, Event())
        if outcome.ending is not Ending.SUCCEEDED:
            raise StoryError(f"{script}: {outcome.message}")
        return directory / "output"

    def _policy(self, inputs: dict[str, str]) -> dict[str, Any]:
        training = self._bed.scenario.training
        return {
            "name": POLICY,
            "model": training.model,
            "slot": SLOT,
            "on": ["drift"],
            "script": str(self._bed.loaded.resolve(training.script)),
            "timeout_s": training.timeout_s,
            "inputs": inputs,
        } | training.policy

    def _start_devices(self, deadline_s: float) -> str:
        bed = self._bed
        bed.sensors.start()
        for device_id in bed.device_ids:
            bed.fleet.start_agent(device_id, bed.sensors.path(device_id), bed.labels_of(device_id))
            self._listener.tick()

        def online() -> bool:
            return sum(bool(d["online"]) for d in bed.console.devices()) == len(bed.device_ids)

        self._wait(online, deadline_s, "not every device said hello")
        bed.truth.mark("devices.started", f"{len(bed.device_ids)} devices are online")
        return f"{len(bed.device_ids)} agents, each a supervisor with its runner"

    def _roll_out_first(self, deadline_s: float) -> str:
        bed = self._bed
        rollout = self._start_rollout("1")
        self._wait(
            lambda: self._settled(int(rollout["id"])) == "done" and self._all_run("first"),
            deadline_s,
            "the rollout of the first version did not end on every device",
        )
        bed.annotator.start()
        bed.truth.mark("rollout.ended", "every device runs v1")
        return f"in waves {', '.join(bed.scenario.rollout.waves)}"

    def _observe(self, step: plan.Observe) -> str:
        digest = self._champion()

        def seen() -> bool:
            answered = [self._bed.truth.answered_by(d, digest) for d in self._bed.device_ids]
            return min(answered) >= step.examples

        self._wait(seen, step.deadline_s, f"a device has not answered {step.examples} examples")
        return f"{step.examples} examples a device{self._accuracy_text()}"

    def _break_sensor(self, step: plan.BreakSensor) -> str:
        bed = self._bed
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
        alarm = self._wait(
            lambda: self._alarm("sensor_fault", device),
            step.deadline_s,
            f"no sensor_fault alarm for {device}",
        )
        return f"{alarm['sensor']} of {device} named, score {alarm['score']:.1f}"

    def _change_world(self, step: plan.ChangeWorld) -> str:
        bed = self._bed
        self._pause(step.settle_s)
        before = bed.truth.rolling_accuracy()
        self._accuracy_before = before[0] if before else None
        moved = bed.device_ids[: round(step.share * len(bed.device_ids))]
        bed.truth.mark(
            "world.changed",
            f"{bed.scenario.before} → {bed.scenario.after} on {len(moved)} devices",
            devices=list(moved),
        )
        bed.sensors.change_world(moved)
        alarm = self._wait(
            lambda: self._alarm("world_changed", "*"),
            step.deadline_s,
            "no world_changed alarm for the fleet",
        )
        score = f"score {alarm['score']:.1f} over {alarm['threshold']:.1f}"
        return f"world_changed raised, {score}{self._accuracy_text()}"

    def _retrain(self, deadline_s: float) -> str:
        run = self._wait(self._ended_run, deadline_s, "no training run ended")
        if run["status"] != "succeeded":
            raise StoryError(f"training run {run['id']} {run['status']}: {run['error']}")
        model = self._bed.scenario.training.model
        digest = str(run["candidate_digest"])
        summary = next(
            v for v in self._bed.console.versions(model) if v["manifest_digest"] == digest
        )
        version = self._bed.console.version(model, str(summary["version"]))
        output = Path(run["directory"]) / "output" / "trained_on.json"
        trained_on = json.loads(output.read_text(encoding="utf-8"))
        self._published("retrained", version, trained_on, f"v{version['version']}, retrained")
        evaluation = version["manifest"]["evaluation"]
        return (
            f"{model}@{version['version']}: {evaluation['accuracy']:.2f} on "
            f"{evaluation['examples']} held-back labels, v1 {evaluation['against_accuracy']:.2f}"
        )

    def _ended_run(self) -> dict[str, Any] | None:
        ended = ("succeeded", "rejected", "failed")
        return next((r for r in self._bed.console.training_runs() if r["status"] in ended), None)

    def _recover(self, deadline_s: float) -> str:
        wanted = (self._accuracy_before or 0.0) - RECOVERED_WITHIN
        digest = self._bed.published["retrained"]

        def recovered() -> bool:
            rollouts = [r for r in self._bed.console.rollouts() if r["manifest_digest"] == digest]
            if any(r["status"] in ("halted", "aborted") for r in rollouts):
                raise StoryError(f"the rollout was stopped: {rollouts[0]['verdict']}")
            rolling = self._bed.truth.rolling_accuracy()
            done = any(r["status"] == "done" for r in rollouts) and self._all_run("retrained")
            return done and rolling is not None and rolling[0] >= wanted

        self._wait(recovered, deadline_s, f"accuracy has not come back to {wanted:.2f}")
        self._pause(RECENT_S)
        self._bed.truth.mark("rollout.ended", "every device runs v2")
        return f"every device runs v2{self._accuracy_text()}"

    def _publish_bad(self, step: plan.PublishBad) -> str:
        bed, model = self._bed, self._bed.scenario.training.model
        good_is = "retrained" if "retrained" in bed.published else "first"
        good = next(
            v for v in bed.console.versions(model) if v["manifest_digest"] == bed.published[good_is]
        )
        number = str(max(int(v["version"]) for v in bed.console.versions(model)) + 1)
        scores = bed.console.version(model, str(good["version"]))["manifest"]["scores_output"]
        spoil = permuted_labels if step.kind == "permuted" else yields_nan
        content = spoil(bed.console.artifact(str(good["artifact_digest"])), str(scores))
        draft = self._output_of(good_is) / "model.toml"
        published = bed.console.publish(model, number, content, draft, None)
        trained_on = bed.truth.trained_references(bed.published[good_is])
        self._published(step.kind, published, trained_on, f"v{number}, {step.kind}: a bad version")
        rollout = self._start_rollout(number)
        status = self._wait(
            lambda: self._settled(int(rollout["id"])), step.deadline_s, "its rollout goes on"
        )
        verdict = bed.console.rollout(int(rollout["id"]))["verdict"]
        if status != "halted":
            raise StoryError(f"v{number} was not stopped: its rollout is {status}")
        bed.truth.mark("bad.stopped", f"v{number} stopped at its canary", verdict=verdict)
        self._wait(lambda: self._all_run(good_is), step.deadline_s, "a device is not back")
        return str(verdict)

    # ---- what is asked and waited for ------------------------------------------------------

    def _wait(self, condition: Callable[[], T | None], deadline_s: float, otherwise: str) -> T:
        """The first true value of `condition`. Raises StoryError at the deadline."""
        deadline = time.monotonic() + deadline_s
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise StoryError(f"{otherwise} within {deadline_s:.0f} s")
            self._pause(POLL_S)
        return value

    def _pause(self, duration_s: float) -> None:
        """Let the world go on for a while, watching that every process is there."""
        until = time.monotonic() + duration_s
        while (left := until - time.monotonic()) > 0:
            self._bed.fleet.check()
            self._listener.tick()
            time.sleep(min(POLL_S, left))

    def _published(
        self, what: str, version: dict[str, Any], trained_on: Iterable[str], text: str
    ) -> None:
        digest = str(version["manifest_digest"])
        self._bed.published[what] = digest
        self._bed.truth.trained_on(digest, trained_on)
        at = float(version["published_at"])
        self._bed.truth.mark(
            "version.published",
            text,
            at,
            manifest_digest=digest,
            version=version["version"],
            **{"is": what},
        )

    def _start_rollout(self, version: str) -> dict[str, Any]:
        terms, model = self._bed.scenario.rollout, self._bed.scenario.training.model
        return self._bed.console.start_rollout(model, version, terms.waves, terms.terms)

    def _settled(self, rollout_id: int) -> str | None:
        """The status of a rollout that has ended."""
        status = str(self._bed.console.rollout(rollout_id)["status"])
        return status if status in ("done", "halted", "aborted") else None

    def _all_run(self, what: str) -> bool:
        """Whether every device's champion is this version, with nothing under way."""
        digest = self._bed.published[what]
        slots = [s for d in self._bed.console.devices() for s in d["slots"] if s["slot"] == SLOT]
        return len(slots) == len(self._bed.device_ids) and all(
            slot["champion"] is not None
            and slot["champion"]["manifest_digest"] == digest
            and slot["candidate"] is None
            for slot in slots
        )

    def _champion(self) -> str:
        published = self._bed.published
        return published.get("retrained", published["first"])

    def _output_of(self, what: str) -> Path:
        """Where the training script wrote the version."""
        if what == "first":
            return self._bed.directory / "training-of-the-first" / "output"
        run = self._ended_run()
        assert run is not None
        return Path(run["directory"]) / "output"

    def _alarm(self, cause: str, key: str) -> dict[str, Any] | None:
        found = [a for a in self._bed.console.alarms() if a["cause"] == cause and a["key"] == key]
        return found[-1] if found else None

    def _accuracy_text(self) -> str:
        rolling = self._bed.truth.rolling_accuracy()
        return f", accuracy now {rolling[0]:.2f}" if rolling else ""
