"""The journal's one JSON document: a state, and the SHA-256 that proves it.

Invariant: what was changed on the medium, be it one bit, is refused and not believed. JSON with one
wrong digit is still JSON: a revision from nowhere would make the device deaf to all that follow.
"""

import hashlib
import re
from typing import Final

from pydantic import ValidationError

from edgeloop_agent.core.snapshot import DeviceSnapshot
from edgeloop_agent.errors import JournalDamagedError

_SEALED: Final = re.compile(rb'\{"sha256":"([0-9a-f]{64})",(.*)', re.DOTALL)


def encode_journal(snapshot: DeviceSnapshot) -> bytes:
    return seal(snapshot.model_dump_json().encode())


def decode_journal(document: bytes) -> DeviceSnapshot:
    """Raises JournalDamagedError."""
    found = _SEALED.fullmatch(document)
    if found is None:
        raise JournalDamagedError("it does not begin with its SHA-256")
    state = b"{" + found[2]
    if hashlib.sha256(state).hexdigest().encode() != found[1]:
        raise JournalDamagedError("its bytes are not those that its SHA-256 names")
    try:
        return DeviceSnapshot.model_validate_json(state)
    except (ValidationError, RecursionError) as error:
        raise JournalDamagedError(str(error).splitlines()[0]) from error


def seal(state: bytes) -> bytes:
    """`state` is a JSON object with at least one key."""
    return b'{"sha256":"%b",%b' % (hashlib.sha256(state).hexdigest().encode(), state[1:])
