"""The error root of the protocol package. An error's text says what, where and how to mend it."""


class ProtocolError(Exception):
    """Something that crossed a boundary does not keep the wire contract."""


class MessageError(ProtocolError):
    """A payload is oversized, is not JSON, or does not fit its message type."""


class TopicError(ProtocolError):
    """A topic or a device id is not of the form that docs/spec/wire.md gives."""


class ManifestError(ProtocolError):
    """A model manifest contradicts itself or lacks what the operation needs."""


class ConfigError(ProtocolError):
    """A configuration file or an EDGELOOP_ variable cannot be used; names the key and the mend."""
