"""Doctor: can this device verify what its publisher signs?

Invariant: what is looked up goes into a directory of its own, which is removed: the agent's store
has one writer.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.errors import TrustUnavailableError
from edgeloop_agent.shell.finding import Finding, failed, fine, warning
from edgeloop_agent.shell.trust_process import TrustProcess
from edgeloop_protocol.clock import Clock

NAME: Final = "trust"


def trust(config: AgentConfig, clock: Clock) -> Iterator[Finding]:
    if config.trust is None:
        yield fine(NAME, config.trust_in_words)
        return
    if config.trust.root is None:
        yield warning(NAME, config.trust_in_words, "name the publisher's root.json: [trust] root")
        return
    with tempfile.TemporaryDirectory(prefix="edgeloop-doctor-") as directory:
        url, tls = config.trust_metadata_url, config.http_tls
        process = TrustProcess(Path(directory), config.trust.root, url, clock, tls=tls)
        try:
            process.look_up([])
        except TrustUnavailableError as error:
            yield failed(
                NAME,
                f"new versions wait, what runs runs on: {error}",
                "correct [trust], the clock or the link, or sign anew: `edgeloop trust status`",
            )
            return
    yield fine(NAME, f"{config.trust_in_words}: metadata is verified and current")
