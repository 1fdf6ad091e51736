"""`python -m edgeloop_agent.runner --fd N`; started by the supervisor, not by people."""

import sys

from edgeloop_agent.runner.main import main

sys.exit(main(sys.argv[1:]))
