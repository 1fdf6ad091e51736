"""`edgeloop-agent doctor`: looks at each thing that an agent needs, and says how to mend it.

Invariants: writes a file of its own, which it removes, and what the inventory remembers of the
runtimes, as an agent does, and nothing else; can be used beside an agent that runs, and when none
does; a check that fails by surprise is a finding like any other; what is not fine says its mend.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.shell import doctor_links, doctor_machine, doctor_trust
from edgeloop_agent.shell.finding import Finding, Verdict, failed, fine
from edgeloop_protocol.clock import Clock
from edgeloop_protocol.config import load_config
from edgeloop_protocol.errors import ConfigError

Check = Callable[[AgentConfig], Iterable[Finding]]


def examine(config_path: Path, clock: Clock) -> list[Finding]:
    """In the order in which one would mend them."""
    try:
        config = load_config(AgentConfig, config_path)
    except ConfigError as error:
        return [failed("config", str(error), f"change {config_path} as it says")]
    findings = [fine("config", f"{config_path} can be used; device {config.device_id}")]
    checks: dict[str, Check] = {
        "permissions": lambda it: doctor_machine.permissions(config_path, it),
        "state_dir": doctor_machine.state_dir,
        "disk": doctor_machine.disk,
        "clock": lambda it: doctor_machine.clock(it, clock),
        "runtimes": doctor_machine.runtimes,
        "slots": doctor_machine.slots,
        "broker": lambda it: doctor_links.broker(it, clock),
        "controller": lambda it: doctor_links.controller(it, clock),
        doctor_trust.NAME: lambda it: doctor_trust.trust(it, clock),
    }
    for name, check in checks.items():
        try:
            findings += check(config)
        except Exception as error:  # a doctor that dies says nothing of the rest
            findings.append(failed(name, f"cannot be looked at: {error!r}", "report this"))
    return findings


def worst(findings: Iterable[Finding]) -> Verdict:
    return max((finding.verdict for finding in findings), default=Verdict.FINE)


def as_document(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {"name": it.name, "verdict": it.verdict.name.lower(), "words": it.words, "mend": it.mend}
        for it in findings
    ]


def as_words(findings: Iterable[Finding]) -> str:
    lines = []
    for it in findings:
        lines.append(f"{it.verdict.name.lower():<8} {it.name}: {it.words}")
        if it.mend:
            lines.append(f"{'':<8} mend: {it.mend}")
    return "\n".join(lines)
