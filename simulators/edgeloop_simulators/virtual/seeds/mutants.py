"""Bugs of the kind that people make, each planted in the real agent or controller by a few words.

They prove that the virtual world bites: each must be found by a law within 1,000 seeds
(`edgeloop-sim mutants`), and the tests look that `seed` still finds it. One that is not found shows
a law or a fault that is missing; the mutant is never made easier.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from edgeloop_simulators.errors import CaseError
from edgeloop_simulators.virtual.seeds.mutation import Edit, Mutant, plant

_AGENT: Final = "edgeloop_agent."
_CONTROLLER: Final = "edgeloop_controller."


def _one(says: str, seed: int, function: str, old: str, new: str) -> Mutant:
    return Mutant(says, (Edit(function, old, new),), seed)


MUTANTS: Final[dict[str, Mutant]] = {
    # ---- the device's disk ----------------------------------------------------------------------
    "file-not-synced": _one(
        "the journal and manifests are renamed without an fsync of the file",
        0,
        _AGENT + "shell.durable_files:write_durably",
        "file.sync()",
        "pass",
    ),
    "directory-not-synced": _one(
        "a rename is not made durable by an fsync of its directory",
        0,
        _AGENT + "shell.durable_files:write_durably",
        "disk.sync_directory(directory_of(path))",
        "pass",
    ),
    "rename-before-sync": _one(
        "the file is synced only after it got its final name",
        5,
        _AGENT + "shell.durable_files:write_durably",
        "        file.sync()\n    disk.rename(aside, path)",
        "        disk.rename(aside, path)\n        file.sync()",
    ),
    "artifact-not-synced": _one(
        "a downloaded model is renamed without an fsync of the file",
        1,
        _AGENT + "shell.part_file:PartFiles._fill",
        "file.sync()",
        "pass",
    ),
    "journal-not-retried": _one(
        "a journal that could not be written is never written again",
        0,
        _AGENT + "shell.supervisor:Supervisor.turn",
        "if self._unsaved is not None and",
        "if False and",
    ),
    "champion-collected": _one(
        "garbage collection removes the champion",
        1,
        _AGENT + "core.device:Device._garbage",
        "(slot.champion, slot.previous)",
        "(slot.previous,)",
    ),
    # ---- downloads ------------------------------------------------------------------------------
    "artifact-unchecked": _one(
        "the digest of a downloaded model is not looked at",
        58,
        _AGENT + "shell.part_file:PartFiles._is_filled_right",
        "if digest != wanted.digest:\n        self._disk.remove(wanted.part)\n"
        "    return digest == wanted.digest",
        "return True",
    ),
    "manifest-unchecked": _one(
        "the digest of a downloaded manifest is not looked at",
        86,
        _AGENT + "shell.download:Downloader.manifest",
        "hashlib.sha256(document).hexdigest() != offer.manifest_digest",
        "False",
    ),
    "size-is-enough": _one(
        "a model on disk is taken for right by its size",
        6,
        _AGENT + "shell.download:Downloader.artifact",
        "self._disk.digest(model_path(offer.manifest_digest)) == offer.artifact_digest",
        "self.has_artifact(offer)",
    ),
    "link-blamed-on-version": _one(
        "a broken download counts as a corrupt one, and bars a good version",
        1,
        _AGENT + "shell.fetch:perform",
        "except FetchError as error:\n        return _failed(fetch, FetchProblem.WAIT",
        "except FetchError as error:\n        return _failed(fetch, FetchProblem.CORRUPT",
    ),
    "fetch-not-retried": _one(
        "a fetch that failed because of the link is not tried again",
        7,
        _AGENT + "core.slot:Slot._fetched",
        "self._waiting.wait(outcome.why, now, outcome.for_room)",
        "self._waiting.why = outcome.why",
    ),
    # ---- the life of a version ------------------------------------------------------------------
    "older-revision-accepted": _one(
        "a desired state is taken whatever its revision",
        32,
        _AGENT + "core.device:Device._desire",
        "desired.revision <= self._revision",
        "desired.revision == self._revision",
    ),
    "attempt-not-counted": _one(
        "a try is not counted",
        0,
        _AGENT + "core.slot:Slot._try",
        "candidate.attempts + 1",
        "candidate.attempts",
    ),
    "try-before-journal": _one(
        "a candidate's runner is started before its try is journalled",
        7,
        _AGENT + "core.wanted:wanted",
        "states <= TRYING and _try_of(durable) == _try_of(journalled)",
        "durable.state in TRYING",
    ),
    "committed-before-probation": _one(
        "a version is committed at the first word of its runner",
        0,
        _AGENT + "core.probation:judge",
        "if enough and elapsed_s >= terms.min_s and progress.examples >= terms.min_examples:",
        "if True:",
    ),
    "probation-too-short": _one(
        "probation ends with its examples, however short it was",
        4,
        _AGENT + "core.probation:judge",
        "elapsed_s >= terms.min_s and",
        "",
    ),
    "nan-tolerated": _one(
        "NaN in the answers does not end a probation",
        0,
        _AGENT + "core.probation:judge",
        "if progress.nonfinite:",
        "if progress.nonfinite > progress.examples:",
    ),
    "interrupted-try-left": _one(
        "after a boot a try that was interrupted is left where it was",
        7,
        _AGENT + "core.slot:Slot.recover",
        "self._move(Signal.INTERRUPTED)",
        "return",
    ),
    "challenger-beside-a-trial": _one(
        "a challenger goes on while a version is being tried beside it",
        17,
        _AGENT + "core.challenge:ChallengerTrack._wanted",
        "slot.state not in TRYING and",
        "",
    ),
    "challenger-try-not-counted": _one(
        "a challenger's try is not counted",
        6,
        _AGENT + "core.challenge:ChallengerTrack._count_try",
        "durable.attempts + 1",
        "durable.attempts",
    ),
    "challenger-left-behind": _one(
        "a challenger whose champion restarted waits for ever",
        96,
        _AGENT + "core.challenge:ChallengerTrack.settle",
        "self._interrupted()",
        "pass",
    ),
    "champion-not-restarted": _one(
        "a champion whose runner died is not started again",
        2,
        _AGENT + "core.runners:RunnerSet._may_start",
        "self._restart_at is None or now >= self._restart_at",
        "self._restart_at is None",
    ),
    # ---- telemetry ------------------------------------------------------------------------------
    "outbox-emptied-at-send": _one(
        "records leave the outbox when they are sent, not when they are acknowledged",
        1,
        _AGENT + "shell.telemetry:Telemetry.pump",
        "self.drain.sent(batch.epoch, through, now)",
        "self.drain.sent(batch.epoch, through, now)\n"
        "        self.acknowledged(Ack(epoch=batch.epoch, through=through))",
    ),
    "ack-of-any-epoch": _one(
        "an acknowledgement of another boot empties this boot's outbox",
        1,
        _AGENT + "shell.outbox:SqliteOutbox.acknowledge",
        '"SELECT id, appended FROM epochs WHERE epoch = ?", (epoch,)',
        '"SELECT id, appended FROM epochs WHERE epoch = ?", (self.epoch,)',
    ),
    "outbox-unbounded": _one(
        "the outbox grows beyond its limit",
        202,
        _AGENT + "shell.outbox:SqliteOutbox._drop_down_to",
        "if room < 0",
        "if False",
    ),
    "batch-not-sent-again": _one(
        "a batch whose acknowledgement was lost is not sent again on this connection",
        1,
        _AGENT + "core.drain:Drain.sent",
        "self._send_at = now + min(timeout_s, ACK_TIMEOUT_S_MAX)",
        "self._send_at = None",
    ),
    "acknowledged-before-commit": _one(
        "telemetry is acknowledged before it is committed",
        0,
        _CONTROLLER + "services.ingest:Ingest._commit",
        "        insert_rows(session, rows)\n",
        "        for (device_id, epoch), through in outcome.acks.items():\n"
        "            ack = Ack(epoch=epoch, through=through)\n"
        "            self._outbound.publish(down_topic(device_id, Down.ACK), encode(ack))\n"
        "        insert_rows(session, rows)\n",
    ),
    "cursor-not-moved": _one(
        "rows are stored and their cursor stays",
        0,
        _CONTROLLER + "store.telemetry:take_batch",
        "cursor.through = new[-1].sequence",
        "pass",
    ),
    # ---- what the controller knows and says -----------------------------------------------------
    "older-report-accepted": _one(
        "a report that arrives late replaces a newer one",
        147,
        _CONTROLLER + "services.device_state:Devices.take_reported",
        "reported.epoch != device.epoch or reported.sequence <= device.state_sequence",
        "reported.epoch != device.epoch",
    ),
    "revision-not-raised": _one(
        "another desired state is said under the same revision",
        0,
        _CONTROLLER + "services.desired:next_revision",
        "max(device.desired_revision, device.revision_seen) + 1",
        "max(device.desired_revision, device.revision_seen, 1)",
    ),
    "revision-forgotten": _one(
        "a revision is not counted on from the last one",
        135,
        _CONTROLLER + "services.desired:next_revision",
        "max(device.desired_revision, device.revision_seen) + 1",
        "device.revision_seen + 1",
    ),
    "never-said-again": _one(
        "a desired state that was lost is not said again",
        8,
        _CONTROLLER + "services.desired:DesiredPublisher.say_again",
        "for device_id in due:",
        "for device_id in ():",
    ),
    # ---- rollouts -------------------------------------------------------------------------------
    "one-too-many": _one(
        "a wave offers to one device more than its bound",
        0,
        _CONTROLLER + "core.rollout_turn:Turn._places",
        "- len(exposed)",
        "- len(exposed) + 1",
    ),
    "failed-ones-forgotten": _one(
        "devices that failed give their places in the wave to others",
        233,
        _CONTROLLER + "core.rollout_turn:Turn._places",
        "for phase in EXPOSED",
        "for phase in EXPOSED[:2]",
    ),
    "offers-while-paused": _one(
        "a paused rollout goes on offering",
        11,
        _CONTROLLER + "core.rollout:step",
        "elif state.status is RolloutStatus.RUNNING:",
        "else:",
    ),
    "halted-not-withdrawn": _one(
        "a halted rollout leaves its version where it was offered",
        0,
        _CONTROLLER + "core.rollout_turn:Turn.halt",
        "self._withdraw(member, sentence)",
        "self._put(member, MemberPhase.WITHDRAWN, sentence)",
    ),
    "old-answer-counts": _one(
        "what a device said before it saw the offer counts as its answer",
        129,
        _CONTROLLER + "core.rollout_turn:Turn._settle",
        "or not view.has_seen_offer",
        "",
    ),
    "not-compared": _one(
        "a rollout is judged without what its devices compared",
        45,
        _CONTROLLER + "services.evidence:EvidenceLog.of_members",
        "if before.get(key[0]) == key[1]",
        "if before.get(key[0]) == key[0]",
    ),
    "failures-tolerated": _one(
        "a rollout goes on however many devices rolled it back",
        0,
        _CONTROLLER + "core.gates:_judge_failures",
        "halted=len(failed) > allowed",
        "halted=False",
    ),
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """By its name; an empty one plants nothing. Raises CaseError."""
    if not name:
        yield
        return
    if name not in MUTANTS:
        raise CaseError(f"no mutant {name!r}: there are {', '.join(MUTANTS)}")
    with plant(MUTANTS[name]):
        yield
