"""The error root of training; a text says what, where and how to mend it."""


class TrainingError(Exception):
    """A training run cannot be prepared or its result cannot be judged."""
