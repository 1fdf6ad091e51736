"""What the doctor says of one thing: a verdict, in words, and the mend."""

from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """Ordered: the greatest is the worst."""

    FINE = 0
    WARNING = 1
    FAILED = 2


@dataclass(frozen=True, slots=True)
class Finding:
    name: str
    verdict: Verdict
    words: str
    mend: str = ""


def fine(name: str, words: str) -> Finding:
    return Finding(name, Verdict.FINE, words)


def warning(name: str, words: str, mend: str) -> Finding:
    return Finding(name, Verdict.WARNING, words, mend)


def failed(name: str, words: str, mend: str) -> Finding:
    return Finding(name, Verdict.FAILED, words, mend)
