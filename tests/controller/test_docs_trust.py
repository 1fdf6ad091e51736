"""docs/trust.md, as it stands: each command is run in its order, each output is looked for."""

import re
import shlex
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeloop_controller.cli.main import app

PAGE = Path(__file__).parents[2] / "docs/trust.md"
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@dataclass
class People:
    """Alice and Bob, each in a directory of their own, with `stick` between them."""

    home: Path
    url: str
    monkeypatch: pytest.MonkeyPatch
    ran: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        (self.home / "between").mkdir(parents=True)
        for name in ("alice", "bob"):
            (self.home / name).mkdir()
            (self.home / name / "stick").symlink_to(self.home / "between")

    def run(self, who: str, command: str, fails: bool) -> str:
        self.monkeypatch.chdir(self.home / who)
        program, *arguments = shlex.split(command)
        self.ran.append(program)
        if program == "cp":
            shutil.copy(*arguments)
            return ""
        if program == "mkdir":
            Path(arguments[-1]).mkdir()
            return ""
        assert program == "edgeloop", command
        if arguments[:2] != ["trust", "new-key"]:
            arguments = ["--url", self.url, *arguments]
        result = CliRunner().invoke(app, arguments, input="y\n")
        assert (result.exit_code != 0) is fails, f"{command}\n{result.output}"
        return str(result.output)


@pytest.fixture
def people(
    url: str,
    controller: Any,
    make_device: Any,
    tiny_model: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> People:
    controller.takes(make_device("w1").hello())
    monkeypatch.setenv("EDGELOOP_TRUST_PASSPHRASE", "correct horse")
    people = People(tmp_path / "people", url, monkeypatch)
    for number, name in enumerate(("model", "model-2", "model-3", "model-4")):
        (people.home / "alice" / f"{name}.onnx").write_bytes(tiny_model(number))
    return people


def test_the_runbook(people: People) -> None:
    said = ""
    for language, info, text in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if language == "sh":
            who = "bob" if "bob" in info else "alice"
            outputs = [people.run(who, line, "fails" in info) for line in text.splitlines()]
            said = " ".join("\n".join(outputs).split())
        elif language == "text":
            for line in text.splitlines():
                assert re.search(_pattern(line), said), f"{line!r} is not in {said}"
        else:
            assert language == "toml"
    assert people.ran.count("edgeloop") > 40


def _pattern(line: str) -> str:
    """`.*` in the page stands for what differs each time."""
    return ".*".join(re.escape(part) for part in " ".join(line.split()).split(".*"))
