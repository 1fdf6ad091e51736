"""Signed models at the controller: what is served, what waits, what is never offered."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from trust_bench import FleetPublisher, new_key
from tuf.ngclient import Updater

from edgeloop_controller.api.app import create_app
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.core.rollout import RolloutTerms
from edgeloop_controller.errors import ArtifactError, ConflictError, NotFoundError, StartError
from edgeloop_controller.services.challengers import ChallengerRequest
from edgeloop_controller.services.rollouts import IfBusy, RolloutRequest
from edgeloop_controller.services.trust import Trust
from edgeloop_controller.store import events
from edgeloop_controller.trust.editing import Holders
from edgeloop_controller.trust.metadata import ROOT, TARGETS
from edgeloop_controller.trust_store import LocalTrustStore
from edgeloop_protocol.errors import TrustError
from edgeloop_protocol.lifecycle import SlotState
from edgeloop_protocol.messages import ShadowBudget, SlotReported

DAY_S = 86_400.0
ONE_BY_ONE = RolloutTerms(probation={"compare": False})


@pytest.fixture
def publisher(controller: Any) -> FleetPublisher:
    return FleetPublisher(controller).initialised()


@pytest.fixture
def api(controller: Any) -> TestClient:
    return TestClient(create_app(controller.parts.services), base_url="http://localhost")


def _kinds(controller: Any, prefix: str = "trust.") -> list[tuple[str, str]]:
    with controller.parts.services.database.reading() as session:
        found = events.latest(session, prefix, 100)
    return [(event.kind.removeprefix(prefix), event.subject) for event in found]


def _again(controller: Any) -> Trust:
    """As after a restart."""
    services = controller.parts.services
    store = LocalTrustStore(services.config.trust_dir)
    return Trust(store, services.database, services.registry, services.clock, services.config.trust)


def _request(version: str, **changes: Any) -> RolloutRequest:
    terms = {"selector": "all", "waves": ("1", "100%"), "terms": ONE_BY_ONE, **changes}
    return RolloutRequest("tiny", version, **terms)


# ---- what is served -----------------------------------------------------------------------------


def test_a_client_of_tuf_finds_what_is_signed(
    publisher: FleetPublisher, controller: Any, url: str, make_package: Any, tmp_path: Path
) -> None:
    """python-tuf's own, over HTTP, from the first root on and over two later ones."""
    import time

    controller.clock.jump_wall(time.time())
    bootstrap = publisher.trust.standing.root.content
    for _ in range(2):
        draft = publisher.draft()
        draft.add_key(ROOT, new_key().public_key)
        publisher.proposes(draft.changed, publisher.root)
    version = controller.keep(make_package("1"))
    publisher.signs(version, 1, slots=("main",))
    publisher.trust.renew()
    updater = Updater(
        str(tmp_path), f"{url}/v1/trust/metadata/", str(tmp_path), f"{url}/v1/", bootstrap=bootstrap
    )
    updater.refresh()
    target = updater.get_targetinfo("tiny/1/manifest")
    assert target is not None
    assert target.hashes["sha256"] == version.manifest_digest
    assert target.custom["edgeloop"]["slots"] == ["main"]
    assert updater.get_targetinfo("tiny/2/manifest") is None


@pytest.mark.parametrize(
    "name",
    [
        "9.root.json",
        "root.json",
        "..%2f..%2fkeys%2fx.pem",
        "..%2fwaiting.json",
        "%2e%2e%2fwaiting.json",
        "1.root.json%00",
        "1.root.json%0a",
        "1.%2e%2e.json",
        "commit.json",
    ],
)
def test_nothing_else_is_served(publisher: FleetPublisher, api: TestClient, name: str) -> None:
    assert publisher.trust.is_on
    answer = api.get(f"/v1/trust/metadata/{name}")
    assert answer.status_code == 404, answer.text
    assert "PRIVATE" not in answer.text


def test_versioned_files_may_be_kept_and_the_timestamp_not(
    publisher: FleetPublisher, api: TestClient
) -> None:
    assert publisher.trust.is_on
    assert "immutable" in api.get("/v1/trust/metadata/1.root.json").headers["cache-control"]
    assert api.get("/v1/trust/metadata/timestamp.json").headers["cache-control"] == "no-cache"


def test_before_it_begins_nothing_is_served_and_everything_offered(
    controller: Any, api: TestClient, make_package: Any, make_device: Any
) -> None:
    assert api.get("/v1/trust").json()["initialised"] is False
    assert api.get("/v1/trust/metadata/timestamp.json").status_code == 404
    controller.keep(make_package("1"))
    controller.takes(make_device("d0").hello())
    assert controller.parts.services.rollouts.start(_request("1"))
    assert not controller.parts.services.config.trust_dir.exists()


def test_a_restart_finds_what_stood(
    publisher: FleetPublisher, controller: Any, make_package: Any
) -> None:
    publisher.signs(controller.keep(make_package("1")), 1)
    draft = publisher.draft()
    draft.add_key(ROOT, new_key().public_key, threshold=2)
    assert not publisher.proposes(draft.changed, publisher.root).accepted
    again, before = _again(controller), publisher.trust
    assert again.in_force == before.in_force
    assert [w.counts for w in again.waiting()] == [w.counts for w in before.waiting()]


def test_online_keys_are_their_owners_only(publisher: FleetPublisher, controller: Any) -> None:
    assert publisher.trust.is_on
    directory = controller.parts.services.config.trust_dir
    keys = sorted((directory / "keys").iterdir())
    assert len(keys) == 2
    assert all(stat.S_IMODE(key.stat().st_mode) == 0o600 for key in keys)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.mark.parametrize("file", ["metadata/2.targets.json", "metadata/1.root.json"])
def test_a_damaged_file_stops_the_start(
    publisher: FleetPublisher, controller: Any, make_package: Any, file: str
) -> None:
    publisher.signs(controller.keep(make_package("1")), 1)
    path = controller.parts.services.config.trust_dir / file
    document = json.loads(path.read_bytes())
    document["signed"]["expires"] = "2099-01-01T00:00:00Z"
    path.write_text(json.dumps(document))
    with pytest.raises(StartError, match="cannot be trusted") as caught:
        _again(controller)
    assert "backup" in caught.value.hint


def test_old_files_go_and_roots_stay(publisher: FleetPublisher, controller: Any) -> None:
    for _ in range(6):
        for role, key in ((TARGETS, publisher.targets), (ROOT, publisher.root)):
            draft = publisher.draft()
            draft.renew(role)
            publisher.proposes(draft.changed, key)
    names = {
        path.name for path in (controller.parts.services.config.trust_dir / "metadata").iterdir()
    }
    assert {f"{n}.root.json" for n in range(1, 8)} <= names
    assert {name for name in names if "targets" in name} == {
        f"{n}.targets.json" for n in range(4, 8)
    }


# ---- proposals ----------------------------------------------------------------------------------


def test_two_people_sign_from_two_places(controller: Any, make_package: Any) -> None:
    bob = new_key()
    alice = FleetPublisher(controller)
    holders = Holders([alice.root.public_key, bob.public_key], 2)
    changed = alice.first(holders)
    outcome = alice.proposes(changed, alice.root, alice.targets)
    assert [(c.role, c.lacks) for c in outcome.counts] == [("root", 1), ("targets", 0)]
    assert not alice.trust.is_on
    (waits,) = alice.trust.waiting()
    theirs = {role: one.metadata for role, one in waits.proposal.documents.items()}
    assert alice.proposes(theirs, bob).accepted
    assert alice.trust.is_on
    assert alice.trust.waiting() == []
    assert ("initialised", "root") in _kinds(controller)


def test_what_was_accepted_may_be_sent_again(
    publisher: FleetPublisher, controller: Any, make_package: Any
) -> None:
    """The answer was lost: the client cannot know."""
    draft = publisher.signed(controller.keep(make_package("1")), 1)
    assert publisher.proposes(draft.changed, publisher.targets).accepted
    documents = {role: one.to_dict() for role, one in draft.changed.items()}
    assert publisher.trust.propose(documents).accepted
    assert publisher.trust.standing.targets.version == 2


def test_only_one_proposal_of_a_role_waits(publisher: FleetPublisher) -> None:
    draft, other = publisher.draft(), publisher.draft()
    draft.add_key(ROOT, new_key().public_key, threshold=2)
    other.add_key(ROOT, new_key().public_key, threshold=2)
    assert not publisher.proposes(draft.changed, publisher.root).accepted
    with pytest.raises(ConflictError, match="another proposal of root waits") as caught:
        publisher.proposes(other.changed, publisher.root)
    assert "trust discard root" in caught.value.hint
    publisher.trust.discard(ROOT)
    assert not publisher.proposes(other.changed, publisher.root).accepted
    with pytest.raises(NotFoundError):
        publisher.trust.discard("door")


def test_who_has_no_key_fills_nothing(publisher: FleetPublisher, api: TestClient) -> None:
    draft = publisher.draft()
    draft.renew(TARGETS)
    draft.changed[TARGETS].sign(new_key())
    documents = {role: one.to_dict() for role, one in draft.changed.items()}
    answer = api.post("/v1/trust/metadata", json={"documents": documents})
    assert answer.status_code == 422
    assert "no signature on it is of a key of root 1" in answer.json()["error"]["message"]
    assert publisher.trust.waiting() == []


def test_a_worthless_signature_harms_no_good_one(publisher: FleetPublisher) -> None:
    bob, mallory = new_key(), new_key()
    draft = publisher.draft()
    draft.add_key(ROOT, bob.public_key, threshold=2)
    publisher.proposes(draft.changed, publisher.root)
    (waits,) = publisher.trust.waiting()
    theirs = waits.proposal.documents[ROOT].metadata
    forged = {keyid: mallory.sign(b"other") for keyid in theirs.signatures}
    for keyid, signature in forged.items():
        signature.keyid = keyid
    document = {**theirs.to_dict(), "signatures": [one.to_dict() for one in forged.values()]}
    publisher.trust.propose({ROOT: document})
    (waits,) = publisher.trust.waiting()
    assert [count.lacks for count in waits.counts] == [0, 1]
    assert list(waits.proposal.documents[ROOT].metadata.signatures) == [
        publisher.root.public_key.keyid
    ]


def test_only_signatures_that_count_are_served(publisher: FleetPublisher) -> None:
    draft = publisher.draft()
    draft.renew(TARGETS)
    draft.changed[TARGETS].sign(new_key())
    assert publisher.proposes(draft.changed, publisher.targets).accepted
    served = json.loads(publisher.trust.metadata("2.targets.json"))
    assert [one["keyid"] for one in served["signatures"]] == [publisher.targets.public_key.keyid]


def test_what_is_overtaken_waits_no_more(publisher: FleetPublisher, controller: Any) -> None:
    bob = new_key()
    draft = publisher.draft()
    draft.add_key(TARGETS, bob.public_key, threshold=2)
    draft.settle()
    assert publisher.proposes(draft.changed, publisher.root, publisher.targets, bob).accepted
    draft = publisher.draft()
    draft.renew(TARGETS)
    assert not publisher.proposes(draft.changed, bob).accepted
    draft = publisher.draft()
    draft.revoke_key(TARGETS, bob.public_key.keyid, threshold=1)
    draft.settle()
    assert list(draft.changed) == [ROOT]
    assert publisher.proposes(draft.changed, publisher.root).accepted
    assert publisher.trust.waiting() == []
    assert _kinds(controller)[-1] == ("discarded", "targets")


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({}, "no TUF metadata"),
        ({"signed": {"_type": "root"}, "signatures": []}, "no TUF metadata"),
        ({"signed": [], "signatures": {}}, "no TUF metadata"),
    ],
)
def test_what_is_no_metadata_is_refused_in_words(
    publisher: FleetPublisher, api: TestClient, document: Any, said: str
) -> None:
    assert publisher.trust.is_on
    for role in (ROOT, TARGETS, "snapshot", "../x"):
        answer = api.post("/v1/trust/metadata", json={"documents": {role: document}})
        assert answer.status_code == 422
        assert said in answer.json()["error"]["message"]


def test_metadata_above_what_devices_take_is_refused(
    publisher: FleetPublisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgeloop_controller.trust.metadata.TARGETS_MAX_BYTES", 100)
    draft = publisher.draft()
    draft.renew(TARGETS)
    with pytest.raises(TrustError, match="devices take 100"):
        publisher.proposes(draft.changed, publisher.targets)


def test_a_full_disk_is_said_and_nothing_half_done_stays(
    publisher: FleetPublisher, controller: Any, make_package: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    draft = publisher.signed(controller.keep(make_package("1")), 1)
    other = publisher.draft()
    other.renew(TARGETS)
    calls = []

    def full(*arguments: Any) -> None:
        calls.append(arguments)
        if len(calls) > 3:
            raise OSError(28, "No space left on device")
        write(*arguments)

    write = LocalTrustStore._write
    monkeypatch.setattr(LocalTrustStore, "_write", full)
    with pytest.raises(ArtifactError, match="No space left"):
        publisher.proposes(draft.changed, publisher.targets)
    monkeypatch.undo()
    # It was decided before the disk was full: another second version comes too late.
    with pytest.raises(TrustError, match="version 2 does not follow 2"):
        publisher.proposes(other.changed, publisher.targets)
    documents = {role: one.to_dict() for role, one in draft.changed.items()}
    assert publisher.trust.propose(documents).accepted
    assert _again(controller).in_force == publisher.trust.in_force


# ---- by itself ----------------------------------------------------------------------------------


def test_what_is_current_is_renewed_and_what_people_signed_is_warned_of_once(
    publisher: FleetPublisher, controller: Any
) -> None:
    for days in (0.25, 0.25, 0.5, 1, 6, 60, 15, 6, 6):
        controller.clock.advance(days * DAY_S)
        publisher.trust.renew()
        publisher.trust.renew()
        assert publisher.trust.in_force.online.timestamp.expires > publisher.trust.now()
    online = publisher.trust.in_force.online
    assert (online.snapshot.version, online.timestamp.version) == (6, 9)
    warned = [kind for kind in _kinds(controller) if kind[0].startswith("expire")]
    assert warned == [("expires_soon", "targets"), ("expired", "targets")]
    _again(controller).renew()
    assert [k for k in _kinds(controller) if k[0].startswith("expire")] == warned


# ---- offering -----------------------------------------------------------------------------------


def test_nothing_unsigned_is_begun(
    publisher: FleetPublisher, controller: Any, make_package: Any, make_device: Any
) -> None:
    services = controller.parts.services
    controller.takes(make_device("d0").hello())
    first, second = (controller.keep(make_package(name)) for name in ("1", "2"))
    said = "tiny@1 is not signed: edgeloop trust sign tiny@1 --key FILE"
    with pytest.raises(ConflictError, match=said):
        services.rollouts.start(_request("1"))
    with pytest.raises(ConflictError, match=said):
        services.challengers.start(ChallengerRequest("tiny", "1", "all", "main", ShadowBudget()))
    assert services.planning.plan(_request("1")).unsigned == said
    publisher.signs(first, 1, slots=("left",))
    with pytest.raises(ConflictError, match="signed for slot left only"):
        services.rollouts.start(_request("1"))
    publisher.signs(first, 1)
    rollout = services.rollouts.start(_request("1"))
    assert services.planning.plan(_request("1", if_busy=IfBusy.QUEUE)).unsigned == ""
    with pytest.raises(ConflictError, match="tiny@2 is not signed"):
        services.rollouts.roll_back(rollout, ("tiny", "2"), "back")
    publisher.signs(second, 2)
    services.rollouts.roll_back(rollout, ("tiny", "2"), "back")


def test_what_expired_is_not_begun(
    publisher: FleetPublisher, controller: Any, make_package: Any, make_device: Any
) -> None:
    controller.takes(make_device("d0").hello())
    publisher.signs(controller.keep(make_package("1")), 1)
    controller.clock.advance(91 * DAY_S)
    with pytest.raises(ConflictError, match=r"signatures of targets expired .*trust renew targets"):
        controller.parts.services.rollouts.start(_request("1"))


def test_what_runs_already_offers_no_further_and_goes_on_when_it_is_signed(
    controller: Any, make_package: Any, make_device: Any, cli: Any
) -> None:
    devices = [make_device(f"d{n}") for n in range(3)]
    controller.takes(*(device.hello() for device in devices))
    version = controller.keep(make_package("1"))
    rollouts, reconciler = controller.parts.services.rollouts, controller.parts.reconciler
    rollout = rollouts.start(_request("1"))
    publisher = FleetPublisher(controller).initialised()
    reconciler.tick()
    assert controller.broker.said == []
    document = cli.json("rollout", "show", str(rollout))
    assert document["verdict"] == (
        "wave 1 of 2 waits: tiny@1 is not signed: edgeloop trust sign tiny@1 --key FILE"
    )
    why = [e for slot in cli.json("why", "d0")["slots"] for e in slot["explanations"]]
    (told,) = [one for one in why if one["situation"] == "rollout_unsigned"]
    assert (told["concern"], told["cause"]) == ("person", "tiny@1 is not signed")
    assert "edgeloop trust sign tiny@1" in told["remedy"]
    publisher.signs(version, 1)
    reconciler.tick()
    assert len(controller.broker.said) == 1
    (offered,) = [device for device in devices if controller.broker.desired(device.id)]
    controller.takes(offered.obeys(controller.broker.desired(offered.id)[-1]))
    draft = publisher.draft()
    draft.withdraw("tiny", "1")
    assert publisher.proposes(draft.changed, publisher.targets).accepted
    for _ in range(3):
        reconciler.tick()
        controller.clock.advance(60)
    assert cli.json("rollout", "show", str(rollout))["status"] == "running"
    assert not [d for d in devices if d is not offered and controller.broker.desired(d.id)]


def test_a_challenger_that_was_there_before_gets_no_further_device(
    controller: Any, make_package: Any, make_device: Any
) -> None:
    champion, version = (controller.keep(make_package(name)) for name in ("1", "2"))
    services, reconciler = controller.parts.services, controller.parts.reconciler

    def joins(name: str) -> Any:
        device = make_device(name)
        device.slots = (SlotReported(slot="main", state=SlotState.COMMITTED, champion=champion),)
        controller.takes(device.hello())
        reconciler.tick()
        desired = controller.broker.desired(name)
        return desired[-1].slots[0].challenger if desired and desired[-1].slots else None

    assert joins("d0") is None
    services.challengers.start(ChallengerRequest("tiny", "2", "all", "main", ShadowBudget()))
    reconciler.tick()
    publisher = FleetPublisher(controller).initialised()
    assert joins("d1") is None
    reconciler.tick()
    assert controller.broker.desired("d0")[-1].slots[0].challenger is not None
    publisher.signs(version, 1)
    reconciler.tick()
    assert controller.broker.desired("d1")[-1].slots[0].challenger is not None


def test_the_status_names_what_is_not_signed(
    publisher: FleetPublisher, controller: Any, make_package: Any, api: TestClient
) -> None:
    first = controller.keep(make_package("1"))
    controller.clock.advance(1)
    controller.keep(make_package("2"))
    assert api.get("/v1/trust").json()["unsigned"] == ["tiny@2", "tiny@1"]
    publisher.signs(first, 1)
    document = api.get("/v1/trust").json()
    assert document["unsigned"] == ["tiny@2"]
    targets = next(one for one in document["roles"] if one["role"] == "targets")
    assert (targets["version"], targets["releases"], targets["state"]) == (2, 1, "valid")


def test_in_memory_it_is_the_same(config: ControllerConfig, controller: Any) -> None:
    """What virtual worlds have."""
    from edgeloop_controller.trust_store import MemoryTrustStore

    services = controller.parts.services
    trust = Trust(
        MemoryTrustStore(), services.database, services.registry, services.clock, config.trust
    )
    assert not trust.is_on
