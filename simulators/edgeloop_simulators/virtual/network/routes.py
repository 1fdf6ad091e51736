"""Who is subscribed to a topic, found without looking at everybody.

Invariants: filters of the two shapes that a fleet has by the hundred thousand (a topic; all topics
under one parent) are found by one dictionary look-up each; only others, such as the controller's,
are tried one by one. What is found depends on the order of subscribing alone.
"""

import re

from edgeloop_simulators.virtual.network.wire import Connection

_Found = dict[str, tuple[Connection, ...]]


def _pattern(topic_filter: str) -> re.Pattern[str]:
    """MQTT 3.1.1 §4.7."""
    pattern = re.escape(topic_filter).replace(r"\+", "[^/]*")
    if pattern == r"\#":
        return re.compile(".*")
    if pattern.endswith(r"/\#"):
        pattern = pattern.removesuffix(r"/\#") + "(/.*)?"
    return re.compile(pattern)


class Routes:
    def __init__(self) -> None:
        self._exact: _Found = {}
        self._under: _Found = {}
        self._other: _Found = {}
        self._patterns: dict[str, re.Pattern[str]] = {}

    def add(self, topic_filter: str, connection: Connection) -> None:
        table, key = self._place(topic_filter)
        table[key] = (*table.get(key, ()), connection)
        if table is self._other and key not in self._patterns:
            self._patterns[key] = _pattern(key)

    def remove(self, topic_filter: str, connection: Connection) -> None:
        table, key = self._place(topic_filter)
        left = tuple(other for other in table.get(key, ()) if other is not connection)
        if left:
            table[key] = left
        else:
            table.pop(key, None)

    def of(self, topic: str) -> dict[Connection, None]:
        """Each once."""
        found = dict.fromkeys(self._exact.get(topic, ()))
        found.update(dict.fromkeys(self._under.get(topic.rpartition("/")[0], ())))
        for key, connections in self._other.items():
            if self._patterns[key].fullmatch(topic):
                found.update(dict.fromkeys(connections))
        return found

    def _place(self, topic_filter: str) -> tuple[_Found, str]:
        parent, _, last = topic_filter.rpartition("/")
        if "#" in topic_filter or "+" in parent or topic_filter == "+":
            return self._other, topic_filter
        return (self._under, parent) if last == "+" else (self._exact, topic_filter)
