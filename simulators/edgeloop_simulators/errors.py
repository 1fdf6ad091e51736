"""The error root of the testbed. An error's text says what, where and how to mend it."""


class SimulatorError(Exception):
    """The testbed cannot do what was asked."""


class ScenarioError(SimulatorError):
    """A scenario file cannot be used: names the key, the file and the mend."""


class DatasetError(SimulatorError):
    """The recordings are absent, are not what they should be, or do not fit the scenario."""


class FleetError(SimulatorError):
    """A controller or an agent did not start, or ended by itself."""


class FirstVersionError(SimulatorError):
    """A training script gave no first version; in the script's own words."""


class RecordError(SimulatorError):
    """A directory holds no run that can be summarised."""


class StoryError(SimulatorError):
    """A step of the story did not come to what it waits for within its deadline."""


class CaseError(SimulatorError):
    """What shall be replayed cannot be: names what and why."""
