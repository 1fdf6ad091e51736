"""A person at work on signed metadata: their directory, their keys, the controller.

Invariants: what is uploaded was shown and confirmed; a passphrase comes from a prompt, a file or
EDGELOOP_TRUST_PASSPHRASE, and stands in no argument.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import typer
from securesystemslib.signer import Key, Signer
from tuf.api.metadata import Metadata

from edgeloop.client import Client
from edgeloop_controller.cli import output
from edgeloop_controller.cli.connection import connected
from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.cli.trust_options import Manner
from edgeloop_controller.trust import keys as key_files
from edgeloop_controller.trust.differences import sentences
from edgeloop_controller.trust.editing import Draft, Expiries
from edgeloop_controller.trust.fetching import fetch_standing
from edgeloop_controller.trust.home import Home
from edgeloop_controller.trust.key_rules import delegated_roles
from edgeloop_controller.trust.metadata import ROOT, TARGETS, Standing
from edgeloop_controller.trust.signing import sign
from edgeloop_protocol.errors import ProtocolError, TrustError

VARIABLE: Final = "EDGELOOP_TRUST_PASSPHRASE"


Outcome = dict[str, Any]
"""ProposalOutcomeDocument, as the API gives it."""


class Session:
    def __init__(self, client: Client, manner: Manner) -> None:
        self.client = client
        self.manner = manner
        self.home = Home(manner.home)
        self._said: dict[str, str] = {}
        self.now = datetime.now(UTC).replace(microsecond=0)

    @property
    def lives(self) -> Expiries:
        if self.manner.days is None:
            return Expiries()
        life = timedelta(days=self.manner.days)
        return Expiries(life, life)

    def draft(self) -> Draft:
        """On top of what stands, verified. Raises TrustError."""
        return Draft(fetch_standing(self.client, self.home), self.now, self.lives)

    def ask(self, what: str, is_new: bool = False) -> str:
        """A passphrase or a PIN, once. Raises TrustError for a file that cannot be read."""
        if self.manner.passphrase_file is not None:
            try:
                lines = self.manner.passphrase_file.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise TrustError(f"{self.manner.passphrase_file}: {error}") from error
            return lines[0] if lines else ""
        if VARIABLE in os.environ:
            return os.environ[VARIABLE]
        if what not in self._said:
            self._said[what] = typer.prompt(
                f"passphrase of {what}", hide_input=True, confirmation_prompt=is_new, err=True
            )
        return self._said[what]

    def public(self, reference: str) -> Key:
        return key_files.read_public(Path(reference), self.ask)

    def signers(self, references: Sequence[str], among: Mapping[str, Key]) -> list[Signer]:
        """`among`: the keys that a URI may turn out to be. Raises TrustError."""
        return [
            key_files.open_uri(reference, among.values(), self.ask)
            if key_files.is_uri(reference)
            else key_files.read_private(Path(reference), self.ask)
            for reference in dict.fromkeys(references)
        ]

    def propose(
        self,
        changed: Mapping[str, Metadata[Any]],
        standing: Standing | None,
        references: Sequence[str],
        notes: Sequence[str] = (),
    ) -> Outcome:
        """Show, ask, sign with these keys, upload. Raises TrustError."""
        self.confirm([*sentences(changed, standing), *notes])
        sign(changed, standing, self.signers(references, keys_of(changed, standing)))
        return self.upload(changed, standing)

    def confirm(self, lines: Sequence[str]) -> None:
        """Raises typer.Abort for a no."""
        for line in lines:
            output.aside(line, " " * 4)
        if not self.manner.yes:
            typer.confirm("sign this?", abort=True, err=True)

    def upload(self, changed: Mapping[str, Metadata[Any]], standing: Standing | None) -> Outcome:
        documents = {role: metadata.to_dict() for role, metadata in changed.items()}
        outcome: Outcome = self.client.post("/trust/metadata", {"documents": documents})
        if outcome["accepted"] and standing is not None:
            fetch_standing(self.client, self.home)  # what came of it, and the newest root
        if not self.manner.quiet:
            _tell(changed, outcome)
        return outcome


@contextmanager
def at_work(manner: Manner) -> Iterator[Session]:
    """Ends the command, with words, for what cannot be."""
    with connected() as client:
        try:
            yield Session(client, manner)
        except ProtocolError as error:
            output.fail(str(error), getattr(error, "hint", ""), ExitCode.REFUSED_INPUT)
        except OSError as error:
            output.fail(str(error), "", ExitCode.FAILED)


def keys_of(changed: Mapping[str, Metadata[Any]], standing: Standing | None) -> dict[str, Key]:
    """All keys of people that stand somewhere, before or after, by id."""
    roots = [standing.root.signed] if standing else []
    targets = [standing.targets.signed] if standing else []
    roots += [changed[ROOT].signed] if ROOT in changed else []
    targets += [changed[TARGETS].signed] if TARGETS in changed else []
    found = {
        k: root.keys[k] for root in roots for r in (ROOT, TARGETS) for k in root.roles[r].keyids
    }
    for signed in targets:
        for delegated in delegated_roles(signed).values():
            found |= {keyid: signed.get_key(keyid) for keyid in delegated.keyids}
    return found


def _tell(changed: Mapping[str, Metadata[Any]], outcome: Outcome) -> None:
    if outcome["accepted"]:
        listed = ", ".join(f"{role} {one.signed.version}" for role, one in changed.items())
        output.say(f"in force: {listed}")
        return
    for count in outcome["signatures"]:
        given, asked = len(count["signed_by"]), count["threshold"]
        if given < asked:
            output.say(f"{count['role']} has {given} of {asked} signatures of {count['by']}")
    output.say("it waits: who holds another key runs `edgeloop trust countersign --key …`")
