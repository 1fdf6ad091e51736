"""What the documents promise can be found where they say."""

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgeloop_agent.config import AgentConfig
from edgeloop_agent.exit_codes import ExitCode as AgentExitCode
from edgeloop_controller.cli.exit_codes import MEANINGS
from edgeloop_controller.config import ControllerConfig
from edgeloop_controller.core.retraining import Policy
from edgeloop_protocol.manifest import ManifestDraft

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page
    for page in ROOT.rglob("*.md")
    if not {".venv", "node_modules", "demo-out"} & set(page.relative_to(ROOT).parts)
)
LINK = re.compile(r"\[[^\]]+\]\(([^)#]+)(?:#[^)]*)?\)")
ROW = re.compile(r"^\| (\d+) \|", re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page}: {target}"


def test_exit_code_tables_are_complete() -> None:
    controller = ROW.findall((ROOT / "controller/README.md").read_text(encoding="utf-8"))
    assert controller == [str(int(code)) for code in MEANINGS]
    agent = ROW.findall((ROOT / "agent/README.md").read_text(encoding="utf-8"))
    assert agent == [str(int(code)) for code in AgentExitCode]


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"`?make ([a-z]+)", (ROOT / "README.md").read_text(encoding="utf-8")))
    made = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"demo", "test", "check", "bench"} <= targets <= made


@pytest.mark.parametrize(
    ("page", "begins_with", "kind"),
    [
        ("controller/README.md", "data_dir", ControllerConfig),
        ("controller/README.md", "description", ManifestDraft),
        ("controller/README.md", "# policies/", Policy),
        ("agent/README.md", "device_id", AgentConfig),
    ],
)
def test_configurations_shown_are_valid(page: str, begins_with: str, kind: type[BaseModel]) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), re.DOTALL)
    (shown,) = [block for block in blocks if block.startswith(begins_with)]
    kind.model_validate(tomllib.loads(shown))
