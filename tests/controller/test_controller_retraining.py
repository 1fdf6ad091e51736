"""Retraining: from a policy file to a published candidate and its rollout, and every bad ending."""

import hashlib
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select
from trust_bench import FleetPublisher

from edgeloop_controller.api.app import create_app
from edgeloop_controller.core.retraining import RunStatus
from edgeloop_controller.errors import ConflictError, NotFoundError
from edgeloop_controller.services.candidate import next_version
from edgeloop_controller.services.inbox import Inbound
from edgeloop_controller.services.labelling import GivenLabel
from edgeloop_controller.services.lineage import trace
from edgeloop_controller.store import versions
from edgeloop_controller.store.engine import Database
from edgeloop_controller.store.tables import (
    DriftAlarm,
    Event,
    Rollout,
    Sample,
    TrainingRun,
    Version,
)
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import Record, SlotReported, TelemetryBatch, encode
from edgeloop_protocol.messages import Sample as SampleMessage
from edgeloop_protocol.topics import Up, up_topic

COPY = """
import argparse, json, pathlib, shutil
parser = argparse.ArgumentParser()
parser.add_argument("--input")
parser.add_argument("--output")
arguments = parser.parse_args()
given = json.loads(pathlib.Path(arguments.input).read_text())
print("training on", given["rows"], "rows")
shutil.copy(given["inputs"]["model"], pathlib.Path(arguments.output) / "model.onnx")
"""
TRUTH = 1


@pytest.fixture
def shop(
    controller: Any, tmp_path: Path, make_device: Any, tiny_model: Any, answers: Any
) -> "Shop":
    return Shop(controller, tmp_path, make_device, tiny_model, answers)


class Shop:
    """A fleet of two devices on version 1, 200 labelled samples, and a policy."""

    def __init__(
        self, controller: Any, directory: Path, make_device: Any, tiny_model: Any, answers: Any
    ) -> None:
        self.controller = controller
        self.directory = directory
        self.tiny_model = tiny_model
        self.parent = controller.publish("1", baseline=True)
        self.devices = [make_device(f"d{n}") for n in range(2)]
        for device in self.devices:
            device.slots = (
                SlotReported(slot="main", state=SlotState.COMMITTED, champion=self.parent),
            )
            controller.takes(device.hello())
        self.label(answers)
        self.write_policy()

    def label(self, answers: Any) -> None:
        features = np.random.default_rng(5).normal(size=(200, 3)).astype(np.float32)
        truth = answers(TRUTH, features)
        for number, device in enumerate(self.devices):
            rows = range(number * 100, number * 100 + 100)
            records = tuple(
                Record(
                    sequence=row % 100 + 1,
                    body=SampleMessage(
                        slot="main",
                        version=self.parent,
                        taken_at=float(row),
                        reference=f"r{row}",
                        features=tuple(float(x) for x in features[row]),
                        prediction=0,
                        confidence=0.5,
                    ),
                )
                for row in rows
            )
            batch = TelemetryBatch(epoch=device.epoch, base=1, records=records)
            self.controller.takes(Inbound(up_topic(device.id, Up.TELEMETRY), encode(batch)))
        with self.controller.parts.services.database.reading() as session:
            ids = {s.reference: s.id for s in session.scalars(select(Sample))}
        given = [GivenLabel(ids[f"r{row}"], ("still", "walk")[truth[row]]) for row in range(200)]
        self.controller.parts.services.labelling.put(given, "ann")

    def write_policy(
        self, script: str = COPY, model_seed: int = TRUTH, extra: str = "", rollout: str = ""
    ) -> None:
        script_file = self.directory / "train.py"
        script_file.write_text(script)
        model = self.directory / "candidate.onnx"
        model.write_bytes(self.tiny_model(model_seed))
        (self.directory / "policies" / "again.toml").write_text(
            f'name = "again"\nmodel = "tiny"\non = ["labels"]\nscript = "{script_file}"\n'
            f'min_labels = 100\ntimeout_s = 30\n{extra}\n[inputs]\nmodel = "{model}"\n{rollout}\n'
        )

    def run(self) -> TrainingRun:
        """Ask for one by the policy's own trigger, and work it off."""
        services = self.controller.parts.services
        services.retraining.look()
        self.controller.parts.training_runs.work()
        with services.database.reading() as session:
            run: TrainingRun = session.scalars(
                select(TrainingRun).order_by(TrainingRun.id.desc())
            ).first()
            return run


def test_a_better_candidate_is_published_and_rolled_out(shop: Shop, database: Database) -> None:
    run = shop.run()
    assert (run.status, run.error) == (RunStatus.SUCCEEDED, "")
    assert run.trigger == "labels"
    services = shop.controller.parts.services
    with database.reading() as session:
        version = session.scalars(select(Version).where(Version.version == "2")).one()
        rollout = session.scalars(select(Rollout)).one()
        chain = trace(session, services.registry, "tiny", "2")
    assert version.training_run_id == run.id == rollout.training_run_id
    assert run.candidate_digest == version.manifest_digest == rollout.manifest_digest
    manifest = services.registry.manifest(version.manifest_digest)
    assert manifest.lineage.parent == shop.parent
    assert manifest.evaluation is not None
    assert manifest.evaluation.accuracy > 0.95 > (manifest.evaluation.against_accuracy or 1)
    assert manifest.baseline is not None
    assert manifest.labels == ("still", "walk")
    assert [link.kind for link in chain] == ["version", "training_run", "data_window", "version"]
    assert "200 labelled samples of 2 devices" in chain[2].text
    assert "training on" in (Path(run.directory) / "log.txt").read_text()


def test_how_it_was_made_is_stated(shop: Shop) -> None:
    """By in-toto's Statement v1 and SLSA's provenance v1, of what the files' bytes are."""
    run = shop.run()
    app = create_app(shop.controller.parts.services)
    with TestClient(app, base_url="http://localhost/v1") as api:
        statement = api.get(f"/retraining/runs/{run.id}/provenance").json()
        assert api.get("/retraining/runs/99/provenance").status_code == 404
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    manifest = shop.controller.parts.services.registry.manifest(run.candidate_digest or "")
    assert statement["subject"] == [
        {"name": "tiny@2/artifact", "digest": {"sha256": manifest.artifact.digest}},
        {"name": "tiny@2/manifest", "digest": {"sha256": run.candidate_digest}},
    ]
    build = statement["predicate"]["buildDefinition"]
    taken = {one["name"]: one["digest"]["sha256"] for one in build["resolvedDependencies"]}
    directory = Path(run.directory)
    for name, path in {
        "script": shop.directory / "train.py",
        "input.json": directory / "input.json",
        "train.parquet": directory / "train.parquet",
    }.items():
        assert taken[name] == hashlib.sha256(path.read_bytes()).hexdigest(), name
    assert taken["tiny@1/manifest"] == shop.parent.manifest_digest
    details = statement["predicate"]["runDetails"]["metadata"]
    assert details["invocationId"] == f"run/{run.id}"
    assert details["startedOn"] <= details["finishedOn"]
    assert str(shop.directory) not in str(statement)


def test_a_changed_world_is_answered_and_can_be_traced_back(shop: Shop, database: Database) -> None:
    alarm = _fault(shop, "*", cleared_at=None)
    alarm.scope, alarm.cause, alarm.sensor, alarm.raised_at = "fleet", "world_changed", None, 1.0
    with database.writing() as session:
        session.add(alarm)
    policy = shop.directory / "policies" / "again.toml"
    policy.write_text(policy.read_text().replace('["labels"]', '["drift"]'))
    run = shop.run()
    assert (run.status, run.trigger, run.drift_alarm_id) == ("succeeded", "drift", alarm.id)
    assert set(run.result["subsets"]) == {"since_drift"}
    with database.reading() as session:
        chain = trace(session, shop.controller.parts.services.registry, "tiny", "2")
    assert [link.kind for link in chain] == [
        "version",
        "training_run",
        "data_window",
        "drift_alarm",
        "devices",
        "version",
    ]
    assert "world_changed" in chain[3].text


def test_one_run_answers_the_labels(shop: Shop, database: Database) -> None:
    shop.run()
    shop.run()
    with database.reading() as session:
        assert len(session.scalars(select(TrainingRun)).all()) == 1
    with pytest.raises(NotFoundError, match="no retraining policy"):
        shop.controller.parts.services.retraining.request("none")


def test_a_policy_without_waves_publishes_only(shop: Shop, database: Database) -> None:
    shop.write_policy(rollout="[rollout]\nwaves = []")
    assert shop.run().status == RunStatus.SUCCEEDED
    with database.reading() as session:
        assert session.scalars(select(Version).where(Version.version == "2")).one()
        assert session.scalars(select(Rollout)).all() == []


def test_a_worse_candidate_is_rejected(shop: Shop, database: Database) -> None:
    shop.write_policy(model_seed=0, extra="[acceptance]\nmin_accuracy_gain = 0.2")
    run = shop.run()
    assert run.status == RunStatus.REJECTED
    assert run.error
    assert run.result["evaluation"]["examples"] >= 30
    with database.reading() as session:
        assert [v.version for v in session.scalars(select(Version))] == ["1"]


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("raise SystemExit('no data today')", "no data today"),
        ("import time\nprint('thinking', flush=True)\ntime.sleep(600)", ""),
        ("print('done')", "model.onnx"),
        (
            "import sys, pathlib\npathlib.Path(sys.argv[4], 'model.onnx').write_text('no model')",
            "",
        ),
    ],
    ids=["fails", "hangs", "writes no model", "writes garbage"],
)
def test_a_script_that_ends_badly_publishes_nothing(
    shop: Shop, database: Database, script: str, says: str
) -> None:
    shop.write_policy(script)
    policy = shop.directory / "policies" / "again.toml"
    policy.write_text(policy.read_text().replace("timeout_s = 30", "timeout_s = 2"))
    run = shop.run()
    assert run.status == RunStatus.FAILED
    assert says in run.error
    assert run.error
    with database.reading() as session:
        assert [v.version for v in session.scalars(select(Version))] == ["1"]
        ended = session.scalars(select(Event).where(Event.kind == "training.ended")).one()
        assert ended.data["error"] == run.error


def test_too_few_labels_fail_with_words(shop: Shop, database: Database) -> None:
    with database.writing() as session:
        session.add(_fault(shop, "d0", cleared_at=None))
        session.add(_fault(shop, "d1", cleared_at=None))
    run = shop.run()
    assert run.status == RunStatus.FAILED
    assert "label more" in run.error


def test_a_broken_sensors_samples_are_left_out(shop: Shop, database: Database) -> None:
    with database.writing() as session:
        session.add(_fault(shop, "d0", cleared_at=None))
    shop.write_policy(extra="[acceptance]\nmin_examples = 10")
    run = shop.run()
    assert (run.status, run.error) == (RunStatus.SUCCEEDED, "")
    assert run.result["data"]["devices"] == ["d1"]
    assert run.result["data"]["untrusted_devices"] == ["d0"]
    assert run.result["data"]["left_out"] == 100


def _fault(shop: Shop, device_id: str, cleared_at: float | None) -> DriftAlarm:
    return DriftAlarm(
        slot="main",
        manifest_digest=shop.parent.manifest_digest,
        scope="device",
        key=device_id,
        cause="sensor_fault",
        sensor="gyroscope",
        score=9.0,
        threshold=1.0,
        raised_at=1.0,
        cleared_at=cleared_at,
        evidence={},
    )


WAIT_AT_FIRST = """
import pathlib, time
seen = pathlib.Path(__file__).with_name("seen")
if not seen.exists():
    seen.touch()
    pathlib.Path("output", "model.onnx").write_bytes(b"half a model")
    time.sleep(600)
"""


def _row(database: Database, number: int) -> TrainingRun:
    with database.reading() as session:
        run = session.get(TrainingRun, number)
        assert run is not None
        return run


def test_a_run_that_a_stop_interrupted_goes_on(
    shop: Shop, database: Database, wait_until: Any
) -> None:
    """A clean stop in the middle of the script; then the controller is there again."""
    shop.write_policy(WAIT_AT_FIRST + COPY)
    training = shop.controller.parts.training_runs
    number = shop.controller.parts.services.retraining.request("again")
    working = threading.Thread(target=training.work)
    working.start()
    wait_until((shop.directory / "seen").exists)
    training.cancel()
    working.join(20)
    run = _row(database, number)
    assert (run.status, run.ended_at, run.attempts) == ("pending", None, 1)
    training.work()  # it is stopping, and starts nothing
    assert _row(database, number).status == "pending"
    training._cancelled.clear()
    training.take_up_interrupted()
    training.work()
    run = _row(database, number)
    assert (run.status, run.error, run.attempts) == ("succeeded", "", 2)


def test_a_run_that_kills_interrupt_is_tried_a_bounded_number_of_times(
    shop: Shop, database: Database
) -> None:
    services, training = shop.controller.parts.services, shop.controller.parts.training_runs
    number = services.retraining.request("again")
    with pytest.raises(ConflictError, match="is pending"):
        services.retraining.request("again")
    for attempt in (1, 2, 3):
        assert _row(database, number).status == "pending"
        assert training._take_pending() is not None  # and then kill -9
        training.take_up_interrupted()
        assert _row(database, number).attempts == attempt
    run = _row(database, number)
    assert (run.status, run.error) == ("failed", "the controller stopped while it ran, 3 times")
    with database.reading() as session:
        kinds = session.scalars(select(Event.kind).where(Event.subject == "again")).all()
    assert kinds.count("training.interrupted") == 2
    assert kinds.count("training.ended") == 1
    assert services.retraining.request("again") == number + 1


def test_a_kill_after_the_publication_loses_neither_version_nor_rollout(
    shop: Shop, database: Database
) -> None:
    run = shop.run()
    with database.writing() as session:
        row = session.get(TrainingRun, run.id)
        assert row is not None
        row.status, row.candidate_digest = RunStatus.RUNNING.value, None
        session.delete(session.scalars(select(Rollout)).one())
    shop.controller.parts.training_runs.take_up_interrupted()
    shop.controller.parts.training_runs.work()
    with database.reading() as session:
        row = session.get(TrainingRun, run.id)
        assert row is not None
        assert (row.status, row.candidate_digest) == ("succeeded", run.candidate_digest)
        assert session.scalars(select(Rollout)).one().training_run_id == run.id


def test_a_candidates_rollout_waits_for_the_devices(shop: Shop, database: Database) -> None:
    from edgeloop_controller.core.rollout import RolloutTerms
    from edgeloop_controller.services.rollouts import RolloutRequest

    rollouts = shop.controller.parts.services.rollouts
    first = rollouts.start(RolloutRequest("tiny", "1", "all", ("100%",), RolloutTerms()))
    run = shop.run()
    assert run.status == RunStatus.SUCCEEDED
    assert "rollout_waits" in run.result
    rollouts.abort(first, "make way")
    shop.controller.parts.training_runs.work()
    with database.reading() as session:
        started = session.scalars(select(Rollout).where(Rollout.id != first)).one()
        assert started.training_run_id == run.id


def test_a_candidate_waits_for_its_signature(shop: Shop, database: Database) -> None:
    publisher = FleetPublisher(shop.controller).initialised()
    run = shop.run()
    candidate = run.result["version"]["version"]
    said = f"tiny@{candidate} is not signed: edgeloop trust sign tiny@{candidate} --key FILE"
    assert run.result["rollout_waits"] == said
    (status,) = shop.controller.parts.services.retraining.status()
    assert status.says == f"the rollout of its candidate waits: {said}"
    training = shop.controller.parts.training_runs
    training.work()
    with database.reading() as session:
        told = session.scalars(select(Event).where(Event.kind == "training.rollout_waits")).all()
        version = versions.require(session, "tiny", candidate)
        assert session.scalars(select(Rollout)).all() == []
    assert [event.data["why"] for event in told] == [said]
    publisher.signs(version, 1)
    training.work()
    with database.reading() as session:
        assert session.scalars(select(Rollout)).one().training_run_id == run.id


def test_a_superseded_candidate_blocks_nothing(shop: Shop, database: Database) -> None:
    from edgeloop_controller.core.rollout import RolloutTerms
    from edgeloop_controller.services.rollouts import RolloutRequest

    services = shop.controller.parts.services
    first = services.rollouts.start(RolloutRequest("tiny", "1", "all", ("100%",), RolloutTerms()))
    run = shop.run()
    assert "rollout_waits" in run.result
    (status,) = services.retraining.status()
    assert status.says.startswith("the rollout of its candidate waits: rollout 1 is not over")
    shop.controller.publish("7", seed=7)  # by a person
    services.rollouts.abort(first, "make way")
    shop.controller.parts.training_runs.work()
    result = _row(database, run.id).result
    assert result["rollout_refused"] == "superseded by tiny@7"
    assert "rollout_waits" not in result
    (status,) = services.retraining.status()
    assert status.says != "a run is under way"


def test_a_bad_policy_is_said_once_and_hides_no_other(shop: Shop, database: Database) -> None:
    policies = shop.directory / "policies"
    (policies / "bad.toml").write_text('name = "bad"\nmodle = "tiny"')
    (policies / "worse.toml").write_text("name = ")
    (policies / "lost.toml").write_text('name = "lost"\nmodel = "tiny"\nscript = "/no/such.py"')
    shutil.copy(policies / "again.toml", policies / "zcopy.toml")
    retraining = shop.controller.parts.services.retraining
    retraining.look()
    retraining.look()
    assert list(retraining.policies().found) == ["again"]
    with database.reading() as session:
        refused = session.scalars(select(Event).where(Event.kind == "policy.refused")).all()
    assert sorted(e.subject for e in refused) == ["bad", "lost", "worse", "zcopy"]
    errors = " ".join(e.data["error"] for e in refused)
    for part in ("modle: unknown key", "is not TOML", "/no/such.py", "another file has a policy"):
        assert part in errors
    (status,) = retraining.status()
    assert status.champion is not None
    assert status.champion.version == "1"


@pytest.mark.parametrize(
    ("versions", "expected"),
    [(["1"], "2"), (["1", "2", "9"], "10"), (["1.4.2"], "1.4.3"), (["spring"], "spring.1")],
)
def test_the_next_version(
    controller: Any, database: Database, versions: list[str], expected: str
) -> None:
    for seed, version in enumerate(versions):
        controller.publish(version, seed=seed)
    with database.reading() as session:
        assert next_version(session, "tiny") == expected
