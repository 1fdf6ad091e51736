"""Verifies the audit log's chain as the API gives it, on the caller's machine. Raises ApiError.

Invariants: nothing that the controller says of the chain is believed; memory is bounded by a page.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from edgeloop.client import Client
from edgeloop.documents.audit import chain_of

PAGE: Final = 1000


@dataclass(frozen=True)
class ChainFound:
    verified: int
    unchained: int
    """Entries from before there was a chain."""
    head: str
    """`ID:HASH` of the last entry; empty: there is none."""
    problem: str
    """Empty: the chain is whole."""


def verify(client: Client, head: tuple[int, str] | None) -> ChainFound:
    """`head`: an entry's number and link, known from before."""
    link, last, verified, unchained, held = "", 0, 0, 0, head is None
    for entry in _entries(client):
        if entry["chain"] is None and not link:
            unchained += 1
            continue
        number = entry["id"]
        if entry["chain"] != chain_of(link, entry):
            words = f"entry {number} does not follow from the entry before it: one of them was "
            return ChainFound(verified, unchained, "", words + "changed, or entries were taken out")
        link, last, verified = entry["chain"], number, verified + 1
        held = held or (number, link) == head
    if not held and head is not None:
        return ChainFound(
            verified, unchained, "", f"the head {head[0]}:{head[1]} is not in the chain any more"
        )
    return ChainFound(verified, unchained, f"{last}:{link}" if link else "", "")


def _entries(client: Client) -> Iterator[Mapping[str, Any]]:
    after: int | None = 0
    while after is not None:
        page = client.get("/audit", after=after, limit=PAGE)
        yield from page["items"]
        after = page["next"]
