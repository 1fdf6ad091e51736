"""Logs what fails at every tick once, and then seldom, so that a log does not fill with it."""

import logging
from typing import Final

SAID_AGAIN_EVERY: Final = 100


class FailureLog:
    """One logger's; `key` names what fails. Call `failed` inside the except clause."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._times: dict[str, int] = {}

    def failed(self, key: str) -> None:
        """With the traceback of the exception in hand, the first time and each 100th."""
        times = self._times[key] = self._times.get(key, 0) + 1
        if times % SAID_AGAIN_EVERY == 1:
            again = "" if times == 1 else f" ({times} times in a row)"
            self._logger.exception("%s failed, and is tried again%s", key, again)

    def worked(self, key: str) -> None:
        if self._times.pop(key, None):
            self._logger.info("%s works again", key)
