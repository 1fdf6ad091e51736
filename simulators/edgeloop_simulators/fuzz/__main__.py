"""`python -m edgeloop_simulators.fuzz [TARGET …] [--runs N] [--found DIR]`: each in a process
of its own, which ends at the first finding and writes its input below DIR.

`--one TARGET` is that process: atheris instruments what it imports, so nothing is imported before.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

RUNS: Final = 10_000_000
SECONDS_A_RUN_MAX: Final = 10
RSS_MAX_MB: Final = 2048
PACKAGES: Final = ["edgeloop_protocol", "edgeloop_controller", "edgeloop_agent"]


def main() -> int:
    arguments = _parser().parse_args()
    if arguments.one:
        _fuzz(arguments.one, arguments.runs, arguments.found)
        return 0
    from edgeloop_simulators.fuzz.targets import TARGETS

    unknown = set(arguments.targets) - TARGETS.keys()
    if unknown:
        sys.exit(f"no target {', '.join(sorted(unknown))}; there are: {', '.join(TARGETS)}")
    failed = []
    for name in arguments.targets or TARGETS:
        print(f"{name}: {arguments.runs:,} runs", flush=True)
        command = [sys.executable, "-m", "edgeloop_simulators.fuzz", "--one", name]
        command += ["--runs", str(arguments.runs), "--found", str(arguments.found)]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"findings in: {', '.join(failed)}" if failed else "no finding")
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgeloop_simulators.fuzz")
    parser.add_argument("targets", nargs="*", help="by default all")
    parser.add_argument("--runs", type=int, default=RUNS, help="of each target")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    return parser


def _fuzz(name: str, runs: int, found: Path) -> None:
    import atheris  # type: ignore[import-not-found,import-untyped,unused-ignore]

    with atheris.instrument_imports(include=PACKAGES):
        from edgeloop_simulators.fuzz.targets import INPUT_MAX_BYTES, TARGETS

    target = TARGETS[name]
    found.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        for number, seed in enumerate(target.seeds):
            (Path(corpus) / f"seed-{number}").write_bytes(seed)
        options = [
            f"-runs={runs}",
            f"-timeout={SECONDS_A_RUN_MAX}",
            f"-rss_limit_mb={RSS_MAX_MB}",
            f"-max_len={INPUT_MAX_BYTES}",
            f"-artifact_prefix={found}/{name}-",
            "-verbosity=0",
            "-print_final_stats=0",
        ]
        atheris.Setup([sys.argv[0], *options, corpus], target.takes)
        atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
