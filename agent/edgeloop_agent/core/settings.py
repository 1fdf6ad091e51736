"""The core's own limits; an operator may change them under `[limits]` in agent.toml."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoreSettings:
    attempts_max: int = 3
    corrupt_fetches_max: int = 3
    self_test_timeout_s: float = 60.0
    heartbeat_timeout_s: float = 15.0
    restart_backoff_s_max: float = 30.0
    stable_after_s: float = 60.0
    """A runner that has served this long starts a fresh row of restarts."""
    shadow_after_commit_s: float = 3600.0
    """How long the old version keeps answering in shadow after a commit, as evidence for gates."""
