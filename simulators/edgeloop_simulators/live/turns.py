"""What thousands of devices want done when the loop comes to it, behind one callback of the loop.

Invariants: `soon` never acts at once; what is planned is done in its order, once, before the loop
looks at its sockets a second time; one that fails is told to the loop and holds up no other.
"""

import asyncio
from collections.abc import Callable


class Turns:
    """A handle of the loop for each costs more than much of what is to be done."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._planned: list[Callable[[], None]] = []

    def soon(self, act: Callable[[], None]) -> None:
        if not self._planned:
            self._loop.call_soon(self._run)
        self._planned.append(act)

    def _run(self) -> None:
        acts, self._planned = self._planned, []
        for act in acts:
            try:
                act()
            except Exception as error:
                self._loop.call_exception_handler(
                    {"message": f"{act!r} failed", "exception": error}
                )
