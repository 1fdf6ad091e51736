"""Selectors of rollouts, challengers and lists of devices: the protocol's grammar, our error.

Invariant: what parses here and what it means is `edgeloop_protocol.selector`, nothing else.
"""

from edgeloop_controller.errors import SelectorError
from edgeloop_protocol import errors as protocol_errors
from edgeloop_protocol import selector as grammar
from edgeloop_protocol.selector import EVERYTHING, Selector, Term

__all__ = ["EVERYTHING", "Selector", "Term", "parse"]


def parse(text: str) -> Selector:
    """Raises SelectorError with the position (from 1) and what would be right there."""
    try:
        return grammar.parse(text)
    except protocol_errors.SelectorError as error:
        raise SelectorError(str(error), error.hint) from None
