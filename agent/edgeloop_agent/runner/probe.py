"""`python -m edgeloop_agent.runner.probe NAME`: what one runtime is, as one JSON document.

Run by the supervisor, which imports no runtime itself. Exit code MISSING: what it wraps is not
installed, which is no fault; any other failure is told on stderr.
"""

import sys
from typing import Final

from edgeloop_agent import plugins
from edgeloop_agent.errors import PluginError
from edgeloop_agent.runner.runtimes import Runtime

MISSING: Final = 3


def main(name: str) -> int:
    try:
        runtime: Runtime = plugins.load(plugins.RUNTIMES, name)()
    except PluginError as error:
        if isinstance(error.__cause__, ModuleNotFoundError):
            return MISSING
        raise
    print(runtime.probe().model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
