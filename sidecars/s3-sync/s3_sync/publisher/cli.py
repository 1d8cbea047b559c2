"""
The command line of ``s3-sync``: its commands and their options.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any

from s3_sync.settings import PREFIX, Settings
from sidecar_runtime.app import make_parser
from sidecar_runtime.parsers import count, duration

AIRFLOW = "airflow"
# Commands that update the pointer, and can therefore sign it.
SIGNING = ("publish", "promote", "rollback")
SIGN_KEY = f"{PREFIX}SIGN_KEY"
YEARS_SECONDS = 10 * 366 * 86400.0
COMMANDS = (*SIGNING, "releases", "diff", "prune-releases", "pin", "unpin")

_URL = "s3://BUCKET/PREFIX of the releases; default: AWS_BUCKET and KEY_PATH"
_REVISION = "the revision, or its first 12 digits as shown by `s3-sync releases`"


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line of ``s3-sync``; ``--help``, ``--version`` and errors end the process.
    """
    purpose = "Keep a folder equal to an S3 prefix. Without a command, run until stopped."
    example = "AWS_BUCKET=my-bucket KEY_PATH=dags DEST_PATH=/opt/airflow/dags s3-sync"
    also = (
        "AWS_REGION, AWS_PROFILE, AWS_ROLE_ARN and all other variables from which the AWS SDK "
        "takes region, credentials, proxy and certificates"
    )
    parser = make_parser("s3-sync", purpose, Settings, PREFIX, example, also)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    text = "check settings, credentials, permissions, the target and a running daemon"
    commands.add_parser("check", help=text, description=text)
    _add_commands(commands)
    arguments, rest = parser.parse_known_args(words)
    if rest := _place_rest(arguments, rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _add_commands(commands: Any) -> None:
    def add(name: str, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
        text = "output format; default text"
        parser.add_argument("--output", choices=("text", "json"), default="text", help=text)
        if name in SIGNING:
            text = f"Ed25519 private key to sign with; overrides {SIGN_KEY}"
            parser.add_argument("--sign-key", metavar="FILE", help=text)
            text = "replace what is damaged or not trusted, and write everything again"
            parser.add_argument("--force", action="store_true", help=text)
        if name in (*SIGNING, "prune-releases"):
            text = "show what would be done, but change nothing"
            parser.add_argument("--dry-run", action="store_true", help=text)
        if name not in ("pin", "unpin"):
            text = "refuse pointers not signed with one of these; overrides S3_SYNC_TRUSTED_KEYS"
            parser.add_argument("--trusted-keys", metavar="PATH", help=text)
        return parser

    def add_url(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("url", nargs="?", metavar="URL", help=_URL)

    def add_gate(parser: argparse.ArgumentParser) -> None:
        text = "overrides S3_SYNC_GATE; airflow: load the DAGs into a real Airflow"
        parser.add_argument("--gate", choices=("off", "syntax", "command", AIRFLOW), help=text)
        text = "for --gate airflow: the Python of your Airflow; default: python on PATH"
        parser.add_argument("--airflow-python", metavar="PATH", help=text)
        text = (
            "for --gate airflow: accept errors that match this regular expression, such as "
            '"No module named \'pandas"; repeatable'
        )
        parser.add_argument(
            "--gate-allow",
            action="append",
            default=[],
            type=_parsed(_pattern),
            metavar="PATTERN",
            help=text,
        )

    publish = add("publish", "make the content of a folder the current release")
    publish.add_argument("folder", metavar="DIR", help="the DAG folder to publish")
    add_url(publish)
    text = "leave out files that match this .gitignore pattern; repeatable"
    publish.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help=text)
    text = "description of the release; default: the subject of the git commit"
    publish.add_argument("--message", help=text)
    add_gate(publish)

    promote = add("promote", "make a release from one prefix current in another")
    promote.add_argument("source", metavar="SOURCE", help="s3://BUCKET/PREFIX to copy it from")
    promote.add_argument("url", metavar="TARGET", help="s3://BUCKET/PREFIX to copy it to")
    text = f"{_REVISION}; default: the current release of SOURCE"
    promote.add_argument("revision", nargs="?", metavar="REVISION", help=text)
    for name, place in (("--source-profile", "SOURCE"), ("--profile", "TARGET")):
        text = f"the AWS profile for {place}; overrides AWS_PROFILE"
        promote.add_argument(name, default="", metavar="NAME", help=text)
    add_gate(promote)

    rollback = add("rollback", "make an earlier release current again")
    text = f"{_REVISION}; default: the previous release"
    rollback.add_argument("revision", nargs="?", metavar="REVISION", help=text)
    add_url(rollback)

    releases = add("releases", "list the existing releases")
    add_url(releases)
    text = "list at most N releases; 0: all; default 20"
    releases.add_argument("--limit", type=_parsed(count), default=20, metavar="N", help=text)

    text = "list the files that differ between two releases, or between a folder and a release"
    diff = add("diff", text)
    for name in ("before", "after"):
        text = "a revision, `current`, `previous`, s3://BUCKET/PREFIX, or a folder such as ./dags"
        diff.add_argument(name, metavar=name.upper(), help=text)
    add_url(diff)

    prune = add("prune-releases", "remove old releases, but none that is in use, pinned or recent")
    add_url(prune)
    text = "keep the N most recently used releases; default 20"
    prune.add_argument("--keep-count", type=_parsed(count), default=20, metavar="N", help=text)
    prune.add_argument(
        "--keep-for",
        type=_parsed(duration(at_most=YEARS_SECONDS)),
        default="30d",
        metavar="DURATION",
        help="keep releases that were current within this time; default 30d, at least a day",
    )
    text = "keep this release; repeatable"
    prune.add_argument("--keep", action="append", default=[], metavar="REVISION", help=text)
    text = "keep the releases listed in this file, one per line; -: standard input"
    prune.add_argument("--keep-from", metavar="FILE", help=text)

    for name, text in (
        ("pin", "protect a release from pruning until it is unpinned"),
        ("unpin", "allow a pinned release to be pruned again"),
    ):
        parser = add(name, text)
        parser.add_argument("revision", metavar="REVISION", help=_REVISION)
        add_url(parser)


def _place_rest(arguments: argparse.Namespace, rest: list[str]) -> list[str]:
    """
    Assign the arguments that argparse left over; return those that still have no place.

    argparse treats an optional argument as absent once an option follows it (bpo-14191).
    """
    for name in ("revision", "url"):
        is_open = getattr(arguments, name, "") is None
        if is_open and rest and not rest[0].startswith("-"):
            setattr(arguments, name, rest.pop(0))
    # `rollback s3://bucket/prefix [REVISION]`: the first of the two arguments may be omitted.
    if arguments.command == "rollback" and str(arguments.revision).lower().startswith("s3://"):
        arguments.revision, arguments.url = arguments.url, arguments.revision
    return rest


def _pattern(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None


def _parsed(parse: Any) -> Any:
    """
    Wrap a parser of settings for use with argparse.
    """

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from error

    return parse_argument
