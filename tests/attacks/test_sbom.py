"""The bills of materials: valid, complete by our own requirements, and the same twice."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def bills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The command validates each by CycloneDX's schema, or fails."""
    directory = tmp_path_factory.mktemp("sbom")
    command = [sys.executable, str(ROOT / "tools" / "sbom.py"), str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    return {path.name: path.read_text() for path in directory.iterdir()}


def test_each_distribution_has_its_bill(bills: dict[str, str]) -> None:
    agent = json.loads(bills["edgeloop-agent.cdx.json"])
    names = {component["name"] for component in agent["components"]}
    assert {"edgeloop-protocol", "pydantic", "paho-mqtt", "onnxruntime"} <= names
    assert not names & {"fastapi", "sqlalchemy", "edgeloop-controller", "pytest"}
    pinned = next(c for c in agent["components"] if c["name"] == "pydantic")
    assert pinned["purl"].startswith("pkg:pypi/pydantic@")
    assert pinned["hashes"]
    assert len(bills) == 5
    controller = json.loads(bills["edgeloop-controller.cdx.json"])
    assert "sqlalchemy" in {component["name"] for component in controller["components"]}


def test_they_name_no_address(bills: dict[str, str]) -> None:
    """Where packages were fetched from is nobody's business."""
    for text in bills.values():
        assert "://" not in text.replace("http://cyclonedx.org", "")
