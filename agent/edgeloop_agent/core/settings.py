"""The core's own limits; an operator may change them under `[limits]` in agent.toml."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CoreSettings:
    attempts_max: int = 3
    corrupt_fetches_max: int = 3
    start_timeout_s: float = 60.0
    """For a runner's process to be up, with its runtime: no version is to blame for that."""
    self_test_timeout_s: float = 20.0
    """For loading and the self-test, without the reading of the files."""
    self_test_read_bytes_per_s: float = 1_000_000.0
    """What each byte of the files to load adds to that: slow flash, and a digest over all."""
    runner_memory_max_bytes: int = 0
    """Of a runner whose manifest names no `requires.memory_bytes`; 0: no cap."""
    heartbeat_timeout_s: float = 15.0
    restart_backoff_s_max: float = 30.0
    stable_after_s: float = 60.0
    """A runner that has served this long starts a fresh row of restarts."""
    shadow_after_commit_s: float = 3600.0
    """How long the old version keeps answering in shadow after a commit, as evidence for gates."""

    siblings_wait_s_max: float = 21_600.0
    """How long a version that is staged waits for those of other slots to be downloaded."""

    signed_only: bool = False
    """Nothing goes on whose release is not known from verified metadata (ADR 0032)."""

    def load_timeout_s(self, artifact_bytes: int) -> float:
        """How long a runner that is up may take to load so much and tell how its self-test went."""
        return self.self_test_timeout_s + artifact_bytes / self.self_test_read_bytes_per_s

    def memory_cap_bytes(self, required_bytes: int) -> int:
        """The cap of a runner, by its manifest's requires.memory_bytes; 0: none."""
        return required_bytes or self.runner_memory_max_bytes
