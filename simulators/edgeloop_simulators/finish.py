"""The end of a run: let the outboxes drain, and keep what they say of themselves.

Invariant: what an agent appended is read after the agent has ended, so it is final.
"""

import json
import logging
import sqlite3
import time
from contextlib import closing
from dataclasses import asdict
from typing import Final

from edgeloop_simulators.record import OutboxEpoch
from edgeloop_simulators.testbed import Testbed

log = logging.getLogger(__name__)

DRAIN_DEADLINE_S: Final = 12.0
POLL_S: Final = 0.3
