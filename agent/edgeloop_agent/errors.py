"""The error root of the agent. An error's text says what, where and how to mend it."""


class AgentError(Exception):
    """Something that the agent cannot go on with, or that its caller must handle."""


class LifecycleError(AgentError):
    """A signal that the transition table rejects in the slot's state: a bug, never an input."""


class JournalDamagedError(AgentError):
    """The journal's bytes are not what was saved: nothing of it is believed."""


class StateDirInUseError(AgentError):
    """Another agent holds the lock of this state directory."""


class NotRunningError(AgentError):
    """No agent runs on this state directory, so there is no status to show."""


class DataSetError(AgentError):
    """A replay file cannot be played: its form, its size or its numbers."""


class ModelLoadError(AgentError):
    """The runtime refused a model, or the files in the store are not what the manifest names."""


class PluginError(AgentError):
    """A runtime, source or sink that is named is not installed, or does not import."""


class RecordTooLargeError(AgentError):
    """A record that no message could carry; the outbox refuses it."""


class OutboxUnavailableError(AgentError):
    """The outbox's disk does not take or give anything now; what it holds stays."""


class RunnerLineError(AgentError):
    """A line between supervisor and runner is too long, or is not a known message."""


class FetchError(AgentError):
    """Root of what can go wrong while an artifact is fetched."""


class FetchUnreachableError(FetchError):
    """The controller's HTTP does not answer, or not with these bytes: wait and try again."""


class FetchMissingError(FetchUnreachableError):
    """The controller's HTTP answers that it does not have these bytes."""


class FetchNoSpaceError(FetchError):
    """The disk cannot hold the artifact now: wait and try again."""


class FetchCorruptError(FetchError):
    """All bytes came, and they are not those that the digest names."""


class EnrolmentError(AgentError):
    """The device gets no certificate, or not this one: its text says why, and who can mend it."""


class NotReachedError(EnrolmentError):
    """The controller did not answer, or not now: try again."""


class NewKeyWantedError(EnrolmentError):
    """The controller wants another key of this device, or has given its id to another one."""


class PatchFailedError(AgentError):
    """A patch did not become the artifact; its text says why."""


class TrustUnavailableError(AgentError):
    """There is no metadata to be believed now; new installs wait. Its text says why."""


class MetadataError(AgentError):
    """TUF metadata that is not to be believed, or not to be had: what it is about, and why."""


class MetadataExpiredError(MetadataError):
    """Metadata that has expired, by this device's clock."""


class MetadataMissingError(MetadataError):
    """The server answers that it has no such document."""
