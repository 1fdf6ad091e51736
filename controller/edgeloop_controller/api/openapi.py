"""Writes the API's OpenAPI description: `python -m edgeloop_controller.api.openapi FILE`.

Invariant: docs/spec/openapi.json is what this writes; a test compares them.
"""

import json
import sys
from pathlib import Path

from edgeloop_controller.api.app import describe_app
from edgeloop_controller.config import LimitsConfig


def openapi_text() -> str:
    return json.dumps(describe_app(LimitsConfig()).openapi(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m edgeloop_controller.api.openapi FILE")
    Path(sys.argv[1]).write_text(openapi_text(), encoding="utf-8")
