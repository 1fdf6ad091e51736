"""Splitting a byte stream into lines of bounded length.

Invariant: never holds more than `max_bytes` of an unfinished line; an overlong line is reported
once, as None, and skipped to its end, so that one bad line costs nothing but itself.
"""


class LineSplitter:
    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._rest = b""
        self._skipping = False

    def feed(self, chunk: bytes) -> list[bytes | None]:
        """The lines that `chunk` completes, without their newline; None for an overlong one."""
        lines: list[bytes | None] = []
        *complete, rest = (self._rest + chunk).split(b"\n")
        for line in complete:
            if self._skipping:
                self._skipping = False
            else:
                lines.append(line if len(line) <= self._max_bytes else None)
        if self._skipping:
            rest = b""
        elif len(rest) > self._max_bytes:
            lines.append(None)
            self._skipping, rest = True, b""
        self._rest = rest
        return lines
