"""The names of the states of versions on a slot (DESIGN §4); the agent owns the transitions."""

from enum import StrEnum


class SlotState(StrEnum):
    IDLE = "idle"
    VERIFIED = "verified"
    DOWNLOADING = "downloading"
    STAGED = "staged"
    SELF_TEST = "self_test"
    ACTIVATING = "activating"
    PROBATION = "probation"
    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"


RESTING = frozenset({SlotState.IDLE, SlotState.COMMITTED, SlotState.ROLLED_BACK})
"""States in which nothing is in progress."""


class ChallengeState(StrEnum):
    """Of a challenger, which runs in shadow beside the champion."""

    WANTED = "wanted"
    DOWNLOADING = "downloading"
    STAGED = "staged"
    IN_SHADOW = "in_shadow"
    REFUSED = "refused"
