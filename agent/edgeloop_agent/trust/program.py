"""`edgeloop-agent tuf`: the device's TUF client alone, as the public conformance suite drives one.

    edgeloop-agent tuf --metadata-dir D init ROOT.json
    edgeloop-agent tuf --metadata-dir D --metadata-url U refresh
    edgeloop-agent tuf --metadata-dir D --metadata-url U download \\
        --target-name T [--target-name T2 …] --target-base-url B --target-dir O

Exit code 0, or 1 with one line on stderr.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final
from urllib.parse import quote

from tuf.api.exceptions import LengthOrHashMismatchError
from tuf.api.metadata import TargetFile

from edgeloop_agent.errors import AgentError, MetadataError
from edgeloop_agent.shell.durable_files import ASIDE_SUFFIX, write_all
from edgeloop_agent.shell.os_disk import OsDisk
from edgeloop_agent.trust.client import TufClient
from edgeloop_agent.trust.metadata_source import HttpMetadata
from edgeloop_agent.trust.metadata_store import MetadataStore

PATH_SAFE: Final = "/"


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except (AgentError, OSError) as error:
        print(f"edgeloop-agent tuf: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgeloop-agent tuf", description=__doc__)
    parser.add_argument("--metadata-dir", type=Path, required=True)
    parser.add_argument("--metadata-url")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init").add_argument("root", type=Path)
    commands.add_parser("refresh")
    download = commands.add_parser("download")
    # Options of a download may stand before the command too, as the suite writes them.
    for where, default in ((parser, None), (download, argparse.SUPPRESS)):
        where.add_argument("--target-name", action="append", default=default)
        where.add_argument("--target-base-url", default=default)
        where.add_argument("--target-dir", type=Path, default=default)
    return parser


def _init(options: argparse.Namespace) -> None:
    MetadataStore(OsDisk(options.metadata_dir)).begin(options.root.read_bytes())


def _refreshed(options: argparse.Namespace) -> TufClient:
    if options.metadata_url is None:
        raise MetadataError("name the repository's address: --metadata-url URL")
    store = MetadataStore(OsDisk(options.metadata_dir))
    client = TufClient(store, HttpMetadata(options.metadata_url), datetime.now(UTC))
    client.refresh()
    return client


def _refresh(options: argparse.Namespace) -> None:
    _refreshed(options)


def _download(options: argparse.Namespace) -> None:
    if not (options.target_name and options.target_base_url and options.target_dir):
        raise MetadataError("name --target-name, --target-base-url and --target-dir")
    client, disk = _refreshed(options), OsDisk(options.target_dir)
    for name in options.target_name:
        target = client.find(name)
        if target is None:
            raise MetadataError(f"{name}: no role lists it")
        _bring(target, disk, HttpMetadata(options.target_base_url), client.root.consistent_snapshot)


def _bring(
    target: TargetFile, disk: OsDisk, source: HttpMetadata, is_consistent: bool | None
) -> None:
    """Under its quoted name; not again if it is there."""
    name = quote(target.path, safe="")
    with suppress(OSError, LengthOrHashMismatchError), disk.path(name).open("rb") as there:
        target.verify_length_and_hashes(there)
        return
    aside = name + ASIDE_SUFFIX
    try:
        with disk.open(aside) as file:
            for chunk in _chunks(target, source, is_consistent):
                write_all(file.write, chunk)
            file.sync()
        with disk.path(aside).open("rb") as came:
            target.verify_length_and_hashes(came)
    except LengthOrHashMismatchError as error:
        raise MetadataError(f"{target.path}: {error}") from error
    else:
        disk.rename(aside, name)
        disk.sync_directory("")
    finally:
        disk.remove(aside)


def _chunks(
    target: TargetFile, source: HttpMetadata, is_consistent: bool | None
) -> Iterator[bytes]:
    directory, slash, name = target.path.rpartition("/")
    prefix = f"{next(iter(target.hashes.values()))}." if is_consistent else ""
    path = quote(f"{directory}{slash}{prefix}{name}", safe=PATH_SAFE)
    return source.chunks(path, target.length)


_COMMANDS: Final = {"init": _init, "refresh": _refresh, "download": _download}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
