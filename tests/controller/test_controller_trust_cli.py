"""`edgeloop trust`: keys, passphrases, what is asked before anything is signed. Its common course
is docs/trust.md, which test_docs_trust.py runs."""

import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from edgeloop_controller.cli.exit_codes import ExitCode
from edgeloop_controller.cli.main import app

KEY = ("--key", "edgeloop-trust/targets.pem")
REFUSED = ExitCode.REFUSED_INPUT


@pytest.fixture
def publisher(cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Trust is initialised, by keys in `edgeloop-trust`."""
    monkeypatch.chdir(tmp_path)
    cli.run("trust", "init", "--no-passphrase", "--yes")
    return cli


@pytest.fixture
def published(controller: Any, make_package: Any, tmp_path: Path) -> Any:
    package = make_package("1")
    controller.keep(package)
    (tmp_path / "model.onnx").write_bytes(package.model)
    return package


def _answering(url: str, answer: str, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--url", url, *arguments], input=answer)


def test_nothing_is_signed_without_a_yes(publisher: Any, published: Any, url: str) -> None:
    sign = ("trust", "sign", "tiny@1", *KEY)
    for answer in ("n\n", "\n", ""):
        said = _answering(url, answer, *sign)
        assert said.exit_code != 0
        assert published.manifest.artifact.digest in " ".join(said.output.split())
        assert "compare it with yours" in " ".join(said.output.split())
    assert publisher.json("trust", "status")["unsigned"] == ["tiny@1"]
    assert _answering(url, "y\n", *sign).exit_code == 0
    assert publisher.json("trust", "status")["unsigned"] == []


def test_a_file_that_is_another_is_not_signed(
    publisher: Any, published: Any, tmp_path: Path
) -> None:
    (tmp_path / "other.onnx").write_bytes(b"another")
    said = publisher.refused(
        REFUSED, "trust", "sign", "tiny@1", *KEY, "--artifact", "other.onnx", "--yes"
    )
    assert "other.onnx is not the artifact of tiny@1" in said


def test_terms_that_cannot_be_signed_are_refused(publisher: Any, published: Any) -> None:
    for option, value, said in (
        ("--selector", "site=", "expected a value"),
        ("--selector", "online", "a device cannot know online"),
        ("--slot", "left/right", "slots"),
        ("--back-to", "0", "0 is not signed"),
    ):
        found = publisher.refused(REFUSED, "trust", "sign", "tiny@1", *KEY, option, value, "--yes")
        assert said in found


def test_a_key_that_may_not_sign_is_named(publisher: Any, published: Any) -> None:
    root = ("--key", "edgeloop-trust/root.pem")
    assert "may sign none of targets" in publisher.refused(
        REFUSED, "trust", "sign", "tiny@1", *root, "--yes"
    )
    assert "No such file" in publisher.refused(
        REFUSED, "trust", "sign", "tiny@1", "--key", "none.pem", "--yes"
    )
    Path("junk.pem").write_text("junk")
    assert "opens no private key" in publisher.refused(
        REFUSED, "trust", "sign", "tiny@1", "--key", "junk.pem", "--yes"
    )


def test_a_locked_key_opens_by_its_passphrase_only(
    cli: Any, published: Any, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    typed = "one\none\ntwo\ntwo\n"
    assert _answering(url, typed, "trust", "init", "--yes").exit_code == 0
    assert b"ENCRYPTED" in Path("edgeloop-trust/targets.pem").read_bytes()
    sign = ("trust", "sign", "tiny@1", *KEY, "--yes")
    assert "its passphrase is another" in _answering(url, "one\n", *sign).output
    Path("right").write_text("two\n")
    assert _answering(url, "", *sign, "--passphrase-file", "right").exit_code == 0
    monkeypatch.setenv("EDGELOOP_TRUST_PASSPHRASE", "one")
    assert "its passphrase is another" in cli.refused(REFUSED, *sign)


def test_an_empty_passphrase_is_refused(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGELOOP_TRUST_PASSPHRASE", "")
    assert "--no-passphrase" in cli.refused(REFUSED, "trust", "init", "--yes")
    assert not list(Path("edgeloop-trust").glob("*.pem"))


def test_private_keys_are_their_owners_only_and_never_written_over(publisher: Any) -> None:
    for name in ("root.pem", "targets.pem"):
        assert stat.S_IMODE((Path("edgeloop-trust") / name).stat().st_mode) == 0o600
    publisher.run("trust", "new-key", "bob.pem", "--no-passphrase")
    before = Path("bob.pem").read_bytes()
    assert "never written over" in publisher.refused(
        REFUSED, "trust", "new-key", "bob.pem", "--no-passphrase"
    )
    assert Path("bob.pem").read_bytes() == before
    assert b"PRIVATE" not in Path("bob.pub").read_bytes()


def test_a_signer_is_found_by_its_uri(publisher: Any, published: Any) -> None:
    """The way of hardware keys, by the one driver that needs no hardware."""
    publisher.run("trust", "sign", "tiny@1", "--key", "file2:edgeloop-trust/targets.pem", "--yes")
    publisher.run("trust", "new-key", "bob.pem", "--no-passphrase")
    assert "no key that may sign is there" in publisher.refused(
        REFUSED, "trust", "renew", "targets", "--key", "file2:bob.pem", "--yes"
    )


def test_trust_is_initialised_once(publisher: Any) -> None:
    assert "initialised already" in publisher.refused(REFUSED, "trust", "init", "--yes")


def test_another_fleet_gets_a_directory_of_its_own(
    cli: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("edgeloop-trust").mkdir()
    Path("edgeloop-trust/root.json").write_text("{}")
    said = cli.refused(REFUSED, "trust", "init", "--yes", "--no-passphrase")
    assert "another fleet's root" in said
    assert cli.json("trust", "status")["initialised"] is False


def test_a_first_root_that_was_swapped_on_its_way_is_not_signed(
    cli: Any, controller: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cli.run("trust", "new-key", "bob.pem", "--no-passphrase")
    cli.run("trust", "new-key", "alice.pem", "--no-passphrase")
    both = ("--root-key", "alice.pem", "--root-key", "bob.pub", "--root-threshold", "2")
    cli.run("trust", "init", *both, "--no-passphrase", "--yes")
    assert cli.json("trust", "status")["initialised"] is False
    genuine = Path("edgeloop-trust/root.json").read_text()
    document = json.loads(genuine)
    document["signed"]["roles"]["root"]["threshold"] = 1
    Path("edgeloop-trust/root.json").write_text(json.dumps(document))
    sign = ("trust", "countersign", "--key", "bob.pem", "--yes")
    assert "the root that waits is not the one in" in cli.refused(REFUSED, *sign)
    Path("edgeloop-trust/root.json").write_text(genuine)
    assert "in force: root 1, targets 1" in cli.run(*sign).output
    assert "no proposal waits" in cli.refused(REFUSED, *sign)


def test_publishing_and_signing_are_one_document(
    publisher: Any, tiny_model: Any, tmp_path: Path
) -> None:
    (tmp_path / "m.onnx").write_bytes(tiny_model())
    document = publisher.json(
        "model",
        "publish",
        "m.onnx",
        "--name",
        "watch",
        "--version",
        "1",
        "--sign",
        "edgeloop-trust/targets.pem",
        "--yes",
    )
    assert document["created"] is True
    assert document["signature"]["accepted"] is True


def test_a_plan_says_what_is_not_signed(
    publisher: Any, published: Any, controller: Any, make_device: Any
) -> None:
    controller.takes(make_device("d0").hello())
    said = " ".join(publisher.run("rollout", "plan", "tiny@1", "--to", "all").output.split())
    assert "It cannot start yet: tiny@1 is not signed: edgeloop trust sign tiny@1" in said
    assert "tiny@1 is not signed" in publisher.refused(
        ExitCode.CONFLICT, "rollout", "start", "tiny@1", "--to", "all"
    )


def test_the_other_commands_pay_nothing_for_it() -> None:
    ask = (
        "import sys, edgeloop_controller.cli.main\n"
        "print({'tuf', 'cryptography'} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "set()"
