"""`edgeloop diff`, `apply` and `export` against a real HTTP server."""

from pathlib import Path
from typing import Any

from edgeloop_controller.cli.exit_codes import ExitCode

FILES = """
[devices."watch-3"]
labels = { site = "lab" }
quarantine = "screen broken"
[rollouts.first]
version = "tiny@1"
selector = "all"
waves = ["1", "100%"]
terms = { soak_s = 5, schedule = { starts_at = 2030-01-01T00:00:00Z } }
[policies.again]
model = "tiny"
script = "tiny/train.py"
min_labels = 40
rollout.waves = ["1"]
"""


def test_files_become_the_fleet_and_the_fleet_becomes_files(
    cli: Any, controller: Any, make_device: Any, tmp_path: Path
) -> None:
    controller.publish("1")
    (tmp_path / "scripts" / "tiny").mkdir()
    (tmp_path / "scripts" / "tiny" / "train.py").write_text("")
    controller.takes(make_device("watch-3").hello())
    wanted = tmp_path / "wanted"
    wanted.mkdir()
    (wanted / "fleet.toml").write_text(FILES)
    said = cli.run("diff", "-f", str(wanted), code=ExitCode.DIFFERENT).stdout
    assert "device watch-3: label site=lab" in said
    assert "start tiny@1" in said
    cli.run("apply", "-f", str(wanted), "--dry-run", code=ExitCode.DIFFERENT)
    assert cli.json("rollout", "list")["items"] == []
    assert len(cli.json("apply", "-f", str(wanted))["changes"]) == 4
    assert cli.json("apply", "-f", str(wanted)) == {"changes": []}
    assert cli.json("device", "show", "watch-3")["quarantine"] == "screen broken"
    assert cli.json("rollout", "show", "1")["terms"]["soak_s"] == 5
    (policy,) = cli.json("retrain", "policies")["items"]
    assert (policy["name"], policy["origin"], policy["terms"]["min_labels"]) == ("again", "api", 40)

    exported = tmp_path / "exported"
    cli.run("export", str(exported))
    assert "no difference" in cli.table("diff", "-f", str(exported), "--prune")
    assert "is there" in cli.refused(ExitCode.CONFLICT, "export", str(exported))

    cli.run("rollout", "abort", "1")
    assert "not started again" in cli.run("apply", "-f", str(wanted), code=ExitCode.CONFLICT).stdout
    assert len(cli.json("rollout", "list")["items"]) == 1
    cli.refused(ExitCode.USAGE, "diff", "-f", str(wanted), "--restart", "none")
    cli.run("apply", "-f", str(wanted), "--restart", "first")
    assert len(cli.json("rollout", "list")["items"]) == 2

    (wanted / "fleet.toml").write_text('[devices.d]\nlabel = { a = "b" }\n')
    text = cli.refused(ExitCode.REFUSED_INPUT, "diff", "-f", str(wanted))
    assert "fleet.toml: devices.d.label: unknown key" in text
