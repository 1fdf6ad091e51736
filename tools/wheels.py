"""What of the agent installs from wheels alone, where: resolved by pip for other machines.

    python tools/wheels.py             the table of agent/README.md
    python tools/wheels.py --check     compares it with the table that stands there

Asks the configured index, installs nothing. Exit code 3: there is no index to ask.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
README: Final = ROOT / "agent" / "README.md"
PYTHONS: Final = ("3.11", "3.13")
NO_INDEX: Final = 3
EXTRAS: Final = ("onnx", "tflite", "deltas")
WHOLES: Final = (("onnx",), ("tflite",), ("onnx", "deltas"))
BESIDE: Final = ("pydantic-core", "tflite-runtime")
"""What pydantic is compiled as, and the runtime that is left where no other is to be had."""
TIMEOUT_S: Final = 120


@dataclass(frozen=True)
class Machine:
    name: str
    tags: tuple[str, ...]


MACHINES: Final = (
    Machine(
        "x86_64", tuple(f"manylinux_2_{n}_x86_64" for n in (34, 31, 28, 27, 26, 24, 17, 12, 5))
    ),
    Machine("aarch64", tuple(f"manylinux_2_{n}_aarch64" for n in (34, 31, 28, 27, 26, 24, 17))),
    Machine("armv7", tuple(f"manylinux_2_{n}_armv7l" for n in (36, 35, 34, 31, 28, 17))),
)
COMPAT: Final = {
    "x86_64": ("manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "linux_x86_64"),
    "aarch64": ("manylinux2014_aarch64", "linux_aarch64"),
    "armv7": ("manylinux2014_armv7l", "linux_armv7l"),
}


def requirements(*extras: str) -> list[str]:
    """What `edgeloop-agent[extras]` asks for besides our own two distributions, the protocol's part
    of it included."""
    agent, protocol = (
        tomllib.loads((ROOT / part / "pyproject.toml").read_text())["project"]
        for part in ("agent", "protocol")
    )
    asked = [*agent["dependencies"], *protocol["dependencies"]]
    for extra in extras:
        asked += agent["optional-dependencies"][extra]
    for extra in ("mqtt", "numpy", *extras):
        asked += protocol["optional-dependencies"].get(extra, ())
    named = {name_of(it): it for it in reversed(asked) if not it.startswith("edgeloop-")}
    return list(reversed(named.values()))


def name_of(requirement: str) -> str:
    return re.split(r"[\[<>=!~; ]", requirement)[0]


def resolve(machine: Machine, python: str, *asked: str, alone: bool = True) -> dict[str, str]:
    """Name → version of the wheels that pip would take there, `alone` without what they need; empty
    when some have none. Raises TimeoutExpired when the index hangs."""
    with tempfile.TemporaryDirectory() as nowhere:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--disable-pip-version-check", "--only-binary=:all:"]
        command += ["--python-version", python, "--implementation", "cp", "--target", nowhere]
        command += ["--report", "-", *(["--no-deps"] if alone else [])]
        for tag in (*machine.tags, *COMPAT[machine.name]):
            command += ["--platform", tag]
        done = subprocess.run([*command, *asked], capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode:
        return {}
    installed = json.loads(done.stdout)["install"]
    return {it["metadata"]["name"]: it["metadata"]["version"] for it in installed}


def table() -> str:
    places = [(machine, python) for machine in MACHINES for python in PYTHONS]
    rows = [["", *(f"{m.name}, {p}" for m, p in places)], ["---"] * (len(places) + 1)]
    for asked in (*requirements(*EXTRAS), *BESIDE):
        rows.append([name_of(asked), *(_cell(resolve(*place, asked)) for place in places)])
    for extras in WHOLES:
        whole = (_cell(resolve(*place, *requirements(*extras), alone=False)) for place in places)
        rows.append([f"**edgeloop-agent[{','.join(extras)}]**", *whole])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(found: dict[str, str]) -> str:
    return "yes" if found else "**none**"


def has_index() -> bool:
    return bool(resolve(MACHINES[0], PYTHONS[0], "pip"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    if not has_index():
        print("no package index answers: nothing can be resolved", file=sys.stderr)
        return NO_INDEX
    made = table()
    if not options.check:
        print(made)
        return 0
    missing = [row for row in made.splitlines() if row not in README.read_text()]
    print("\n".join(missing) or "as the README says")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
