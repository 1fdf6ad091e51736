"""`python -m edgeloop_agent.runner --fd N`; started by the supervisor, not by people.

What a runner does without to be small is decided here, before anything else is imported: pydantic
(`edgeloop_protocol.trusting`, 12 MB) and OpenSSL's hashes (3.7 MB; Python's own read a model of
16 MB in 0.13 s in place of 0.01 s).
"""

import sys


def start() -> int:
    sys.modules["_hashlib"] = None  # type: ignore[assignment]  # hashlib then takes Python's own
    import hashlib  # noqa: F401

    import edgeloop_protocol.trusting  # noqa: F401

    del sys.modules["_hashlib"]  # a plug-in may want it after all
    from edgeloop_agent.runner.main import main

    return main(sys.argv[1:])


sys.exit(start())
