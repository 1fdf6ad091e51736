"""The errors of the pure cores; a text says what, where and how to mend it."""


class CoreError(Exception):
    """A rule of the core was not kept by what was asked."""


class SelectorError(CoreError):
    """A selector does not parse; names the position."""


class WavesError(CoreError):
    """A list of waves does not parse or does not grow."""


class RolloutError(CoreError):
    """The rollout is not in a state in which this can be asked."""
