"""The programs: `python -m edgeloop_agent.enrolment.main enroll|renew …`.

Invariants: no argument is a secret (a token comes from a file or from stdin); what goes wrong is
one line on stderr; `renew` is a child of the supervisor and ends with it, whose end of stdin then
closes.
"""

import argparse
import os
import sys
import threading
import time
from pathlib import Path
from typing import Final

from edgeloop_agent.config import CERTIFICATE_NAME, AgentConfig
from edgeloop_agent.enrolment.exchange import Controller, authority_by_fingerprint
from edgeloop_agent.enrolment.identity_files import IdentityFiles
from edgeloop_agent.enrolment.steps import ask_to_be_enrolled, renew
from edgeloop_agent.errors import AgentError, EnrolmentError, NotReachedError
from edgeloop_agent.exit_codes import ExitCode
from edgeloop_protocol.config import load_config
from edgeloop_protocol.enrolment import TOKEN_MAX_CHARS
from edgeloop_protocol.errors import ConfigError
from edgeloop_protocol.tls_config import TlsConfig

STDIN: Final = "-"


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        config = load_config(AgentConfig, options.config)
        return _renew(config) if options.command == "renew" else _enroll(config, options)
    except ConfigError as error:
        return _fail(error, ExitCode.USAGE)
    except (AgentError, OSError) as error:
        return _fail(error, ExitCode.FAILED)
    except KeyboardInterrupt:
        return ExitCode.FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeloop-agent")
    commands = parser.add_subparsers(dest="command", required=True)
    # Without abbreviations: `--token SECRET` must not be taken for a file's name, and shown.
    add_options(commands.add_parser("enroll", allow_abbrev=False))
    commands.add_parser("renew").add_argument("--config", type=Path, required=True)
    return parser


def add_options(enroll: argparse.ArgumentParser) -> None:
    enroll.add_argument("--config", type=Path, required=True, help="agent.toml")
    enroll.add_argument("--controller", help="its URL; default: controller_url of agent.toml")
    enroll.add_argument("--token-file", help="a file with the token, or - for stdin")
    trust = enroll.add_mutually_exclusive_group()
    trust.add_argument("--ca-file", type=Path, help="PEM, of the controller's authority")
    trust.add_argument("--ca-fingerprint", help="SHA-256 of the controller's authority")
    enroll.add_argument("--again", action="store_true", help="though the device is enrolled")
    enroll.add_argument(
        "--wait", action="store_true", help="without a token: until a person has approved"
    )


def _enroll(config: AgentConfig, options: argparse.Namespace) -> int:
    files = IdentityFiles(config.identity_dir)
    if files.is_enrolled() and not options.again:
        raise EnrolmentError(
            f"this device is enrolled: {files.directory / CERTIFICATE_NAME} is there. It renews by "
            "itself; --again asks for a new key and certificate"
        )
    url = options.controller or config.controller_url
    token = _token(options.token_file)
    tls, authority_pem = _trust(config, options, files, url)
    controller = Controller(url, tls)
    fingerprint = files.next_key().fingerprint
    while True:
        wait_s = ask_to_be_enrolled(files, controller, config.device_id, token, authority_pem)
        if wait_s is None:
            break
        print(
            f"device {config.device_id} waits for approval; its key is {fingerprint}: compare it "
            "with `edgeloop device enrolments`, then `edgeloop device approve`",
            flush=True,
        )
        if not options.wait:
            return ExitCode.WAITS_FOR_APPROVAL
        time.sleep(wait_s)
    print(
        f"device {config.device_id} is enrolled; its key and certificate are in {files.directory}"
    )
    if config.identity is None:
        print(f"add a table [identity] to {options.config}, so that the agent uses them")
    return ExitCode.OK


def _renew(config: AgentConfig) -> int:
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    files = IdentityFiles(config.identity_dir)
    controller = Controller(config.controller_url, without_certificate(config.http_tls))
    changed = renew(files, controller, config.device_id)
    print("renewed with a new key" if changed else "renewed")
    return ExitCode.OK


def without_certificate(tls: TlsConfig | None) -> TlsConfig | None:
    """A renewal is proved by the key: a certificate that has run out would end the handshake."""
    if tls is None:
        return None
    return tls.model_copy(update={"certificate_path": None, "key_path": None})


def _token(named: str | None) -> str | None:
    """Raises EnrolmentError for a file that others can read."""
    if named is None:
        return None
    if named == STDIN:
        token = sys.stdin.read(TOKEN_MAX_CHARS + 2).strip()
    else:
        path = Path(named)
        if path.stat().st_mode & 0o077:
            raise EnrolmentError(f"others than its owner can read {path}: chmod 600 {path}")
        token = path.read_text(encoding="ascii", errors="replace").strip()
    if not 0 < len(token) <= TOKEN_MAX_CHARS:
        raise EnrolmentError("the token is empty or too long: `edgeloop device enroll` makes one")
    return token


def _trust(
    config: AgentConfig, options: argparse.Namespace, files: IdentityFiles, url: str
) -> tuple[TlsConfig | None, str | None]:
    """Whom to trust for enrolling, and from then on besides the controller's own authority."""
    if options.ca_file is not None:
        pem = options.ca_file.read_text(encoding="ascii", errors="replace")
        return TlsConfig(ca_path=options.ca_file), pem
    if options.ca_fingerprint is not None:
        pem = authority_by_fingerprint(url, options.ca_fingerprint)
        return TlsConfig(ca_path=files.keep_authority(pem)), pem
    if config.controller_tls is not None:
        return TlsConfig(ca_path=config.controller_tls.ca_path), None
    if not url.startswith("https://"):
        return None, None
    if files.authority_path.exists():
        return TlsConfig(ca_path=files.authority_path), None
    raise EnrolmentError(
        "say which authority the controller's certificate is of: --ca-file, or --ca-fingerprint "
        "with what `edgeloop device authority` shows, or a table [controller_tls] (empty: the "
        "system's authorities)"
    )


def _end_with_the_supervisor() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)


def _fail(error: Exception, code: ExitCode) -> int:
    again = " (it can be tried again)" if isinstance(error, NotReachedError) else ""
    print(f"edgeloop-agent: {error}{again}", file=sys.stderr, flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
