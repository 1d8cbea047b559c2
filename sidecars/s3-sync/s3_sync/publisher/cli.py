"""
The command line of the publisher: reads arguments and settings, and prints the answer.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from s3_sync.publisher.airflow.check import Airflow, find_airflow, pattern
from s3_sync.publisher.gate import Refused
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.settings import CommandSettings, load_command_settings
from s3_sync.settings import PREFIX, Settings, read_trusted_keys
from s3_sync.signature import PublisherKeys, read_signer
from sidecar_runtime import logs
from sidecar_runtime.app import make_parser, warn_unknown
from sidecar_runtime.errors import EXIT_DONE, Problem, SettingsError, SidecarError
from sidecar_runtime.parsers import count, duration
from sidecar_runtime.printable import json_text, printable

AIRFLOW = "airflow"
# Airflow takes several seconds to start, and 100 files take about as long again.
AIRFLOW_TIMEOUT = "10m"
# Commands that update the pointer, and can therefore sign it.
SIGNING = ("publish", "promote", "rollback")
YEARS_SECONDS = 10 * 366 * 86400.0
COMMANDS = (
    "publish",
    "releases",
    "diff",
    "promote",
    "rollback",
    "prune-releases",
    "pin",
    "unpin",
)

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
        parser.add_argument(
            "--output", choices=("text", "json"), default="text", help="output format; default text"
        )
        if name in SIGNING:
            text = "Ed25519 private key to sign with; overrides S3_SYNC_SIGN_KEY"
            parser.add_argument("--sign-key", metavar="FILE", help=text)
        if name != "unpin":
            text = "refuse releases not signed with one of these; overrides S3_SYNC_TRUSTED_KEYS"
            parser.add_argument("--trusted-keys", metavar="PATH", help=text)
        return parser

    def add_url(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("url", nargs="?", metavar="URL", help=_URL)

    def add_dry_run(parser: argparse.ArgumentParser) -> None:
        text = "show what would be done, but change nothing"
        parser.add_argument("--dry-run", action="store_true", help=text)

    def add_repair(parser: argparse.ArgumentParser) -> None:
        text = "replace current.json in any case, even if it is not a pointer or pods refuse it"
        parser.add_argument("--repair", action="store_true", help=text)

    def add_gate(parser: argparse.ArgumentParser) -> None:
        choices = ("off", "syntax", "command", AIRFLOW)
        text = "overrides S3_SYNC_GATE; airflow: load the DAGs into a real Airflow"
        parser.add_argument("--gate", choices=choices, help=text)
        parser.add_argument(
            "--airflow-python",
            metavar="PATH",
            help="for --gate airflow: the Python of your Airflow; default: python on PATH",
        )
        parser.add_argument(
            "--gate-allow",
            action="append",
            default=[],
            type=_parsed(pattern),
            metavar="PATTERN",
            help="for --gate airflow: accept files that fail only because this is missing, such as "
            "package:pandas*, variable:*, connection:prd_db; repeatable",
        )
        parser.add_argument(
            "--gate-timeout",
            metavar="DURATION",
            help="overrides S3_SYNC_GATE_TIMEOUT; default: 1m, with --gate airflow 10m",
        )

    publish = add("publish", "make the content of a folder the current release")
    publish.add_argument("folder", metavar="DIR", help="the DAG folder to publish")
    add_url(publish)
    text = "leave out files that match this .gitignore pattern; repeatable"
    publish.add_argument("--exclude", action="append", default=[], metavar="PATTERN", help=text)
    add_gate(publish)
    add_repair(publish)
    text = "description of the release; default: the subject of the git commit"
    publish.add_argument("--message", help=text)
    add_dry_run(publish)

    releases = add("releases", "list the existing releases")
    add_url(releases)
    text = "list at most N releases; 0: all; default 20"
    releases.add_argument("--limit", type=_parsed(count), default=20, metavar="N", help=text)
    text = "also list the files and DAGs that each change of current.json changed"
    releases.add_argument("--changes", action="store_true", help=text)

    text = "list the files that differ between two releases, or between a folder and a release"
    diff = add("diff", text)
    for name in ("before", "after"):
        text = "a revision, `current`, `previous`, or a folder with a slash, such as ./dags"
        diff.add_argument(name, metavar=name.upper(), help=text)
    add_url(diff)

    promote = add("promote", "make a release from one prefix current in another")
    promote.add_argument("source", metavar="SOURCE", help="s3://BUCKET/PREFIX to copy it from")
    promote.add_argument("url", metavar="TARGET", help="s3://BUCKET/PREFIX to copy it to")
    promote.add_argument(
        "revision",
        nargs="?",
        metavar="REVISION",
        help=f"{_REVISION}; default: the current release of SOURCE",
    )
    for name, place in (("--source-profile", "SOURCE"), ("--profile", "TARGET")):
        text = f"the AWS profile for {place}; overrides AWS_PROFILE"
        promote.add_argument(name, default="", metavar="NAME", help=text)
    add_gate(promote)
    add_repair(promote)
    add_dry_run(promote)

    rollback = add("rollback", "make an earlier release current again")
    text = f"{_REVISION}; default: the previous release"
    rollback.add_argument("revision", nargs="?", metavar="REVISION", help=text)
    add_url(rollback)
    add_repair(rollback)
    add_dry_run(rollback)

    text = "remove old releases, but none that is in use, pinned or recent"
    prune = add("prune-releases", text)
    add_url(prune)
    text = "keep the N most recently used releases; default 20"
    prune.add_argument("--keep-count", type=_parsed(count), default=20, metavar="N", help=text)
    prune.add_argument(
        "--keep-for",
        type=_parsed(duration(at_most=YEARS_SECONDS)),
        default="30d",
        metavar="DURATION",
        help="keep releases that were current within this time; default 30d",
    )
    text = "keep this release; repeatable"
    prune.add_argument("--keep", action="append", default=[], metavar="REVISION", help=text)
    text = "keep the releases listed in this file, one per line; -: standard input"
    prune.add_argument("--keep-from", metavar="FILE", help=text)
    add_dry_run(prune)

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
    return rest


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """
    Run a command; return its exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # printing must not fail after success
    logs.configure("warning", "console", sys.stderr)
    is_json = arguments.output == "json"
    progress = Progress()
    try:
        settings = _settings(arguments, environ)
        from s3_sync.publisher import commands  # noqa: PLC0415 - boto3, not used by the daemon

        source = _source(arguments, environ) if arguments.command == "promote" else None
        airflow = _airflow(arguments, environ)
        trust = _trust(settings, arguments.command)
        report = commands.run(settings, arguments, environ, progress, trust, source, airflow)
    except SidecarError as raised:
        error = _by_options(raised, arguments) if isinstance(raised, SettingsError) else raised
        progress.clear()
        sys.stderr.write(f"s3-sync {arguments.command}: {printable(error.message)}\n")
        refused = error if isinstance(error, Refused) else None
        details = refused.details if refused else []
        sys.stderr.write("".join(f"    {printable(line)}\n" for line in details))
        if error.advice:
            sys.stderr.write(f"  {printable(error.advice)}\n")
        if is_json:
            facts = {"result": "failed", "reason": error.reason, "error": error.message}
            problems = {"problems": list(map(asdict, refused.broken))} if refused else {}
            sys.stdout.write(json_text(facts | {"advice": error.advice} | problems) + "\n")
        return error.exit_code
    progress.clear()
    lines = [json_text(report.facts)] if is_json else map(printable, report.lines)
    _answer("".join(f"{line}\n" for line in lines))
    return EXIT_DONE


def _answer(text: str) -> None:
    """
    Write the answer, or to standard error if standard output fails: the command has succeeded.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # discards what is still in its buffer
        if not isinstance(error, BrokenPipeError):  # its reader chose to stop
            sys.stderr.write(f"s3-sync: standard output: {error.strerror}; this was done:\n{text}")


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> CommandSettings:
    """
    Return the daemon's settings, overridden by the command line.

    Raises:
        SettingsError: A setting or an option is wrong.
    """
    of_release = {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": "snapshot"}
    given = {**environ, **of_release, **_place(arguments)}
    given.setdefault("DEST_PATH", "/nowhere")  # a publisher has no target
    if not given.get("AWS_BUCKET"):
        raise SettingsError(
            [Problem("AWS_BUCKET", "", "is missing: set it, or pass s3://BUCKET/PREFIX")]
        )
    gate = getattr(arguments, "gate", None)
    if gate is not None:
        given["S3_SYNC_GATE"] = "off" if gate == AIRFLOW else gate
        if gate != "command":
            given.pop("S3_SYNC_GATE_COMMAND", None)
    if getattr(arguments, "gate_timeout", None) is not None:
        given["S3_SYNC_GATE_TIMEOUT"] = arguments.gate_timeout
    elif gate == AIRFLOW:
        given.setdefault("S3_SYNC_GATE_TIMEOUT", AIRFLOW_TIMEOUT)
    for name in ("sign_key", "trusted_keys"):
        if (file := getattr(arguments, name, None)) is not None:
            if not file:  # a protected CI variable is empty in an unprotected job
                option = f"--{name.replace('_', '-')}"
                raise SettingsError([Problem(option, "", "is empty: name a file, or omit it")])
            given[f"S3_SYNC_{name.upper()}"] = file
    settings, unknown = load_command_settings(given)
    warn_unknown(unknown)
    return settings


def _by_options(error: SettingsError, arguments: argparse.Namespace) -> SettingsError:
    """
    Return an error that names the given options instead of the settings that they override.
    """
    given = {
        f"{PREFIX}{name.upper()}": f"--{name.replace('_', '-')}"
        for name, value in vars(arguments).items()
        if value is not None
    }
    problems = [one._replace(setting=given.get(one.setting, one.setting)) for one in error.problems]
    return SettingsError(problems)


def _trust(settings: CommandSettings, command: str) -> PublisherKeys:
    """
    Return the keys that a command trusts and signs with; by default it trusts its own key.

    Raises:
        SettingsError: A key cannot be read, or the trusted keys would refuse the result.
    """
    keys = read_trusted_keys(settings)
    if command not in SIGNING or settings.sign_key is None:
        if command in SIGNING and command != "promote" and settings.trusted_keys:
            problem = "requires --sign-key: pods with these keys refuse an unsigned release"
            raise SettingsError([Problem("S3_SYNC_TRUSTED_KEYS", settings.trusted_keys, problem)])
        return PublisherKeys(keys)
    try:
        signer = read_signer(settings.sign_key)
        if keys is not None and signer.key_id not in keys.by_id:
            raise ValueError(f"is key {signer.key_id}, which is not in S3_SYNC_TRUSTED_KEYS")
        if keys is None and command == "promote":
            raise ValueError("requires --trusted-keys: the release keeps its original signature")
    except ValueError as error:
        raise SettingsError([Problem("S3_SYNC_SIGN_KEY", settings.sign_key, str(error))]) from None
    return PublisherKeys(keys or signer.keys, signer)


def _source(arguments: argparse.Namespace, environ: Mapping[str, str]) -> CommandSettings:
    """
    Return the settings of the source of a promotion.
    """
    instead = {"url": arguments.source, "gate": "off", "gate_timeout": None}
    given = argparse.Namespace(**{**vars(arguments), **instead})
    return _settings(given, environ)


def _airflow(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Airflow | None:
    """
    Return the Airflow of ``--gate airflow``; None without that gate.

    Raises:
        SettingsError: Its Python does not exist, or an option requires ``--gate airflow``.
    """
    python: str | None = getattr(arguments, "airflow_python", None)
    allowed: list[str] = getattr(arguments, "gate_allow", [])
    if getattr(arguments, "gate", None) == AIRFLOW:
        return find_airflow(python, allowed, environ)
    given = {"--airflow-python": python, "--gate-allow": ", ".join(allowed)}
    only = f"requires --gate {AIRFLOW}"
    if wrong := [Problem(name, text, only) for name, text in given.items() if text]:
        raise SettingsError(wrong)
    return None


def _place(arguments: argparse.Namespace) -> dict[str, str]:
    """
    Return the settings that the URL argument overrides.
    """
    # `rollback s3://bucket/prefix [REVISION]`: the first of the two arguments may be omitted.
    if arguments.command == "rollback" and str(arguments.revision).lower().startswith("s3://"):
        arguments.revision, arguments.url = arguments.url, arguments.revision
    url: str | None = arguments.url
    if url is None:
        return {}
    if not url.lower().startswith("s3://"):
        raise SettingsError([Problem("URL", url, "is not s3://BUCKET/PREFIX")])
    parts = url[5:].split("/")
    # `s3://arn:…:accesspoint/NAME/PREFIX`: the ARN of an access point contains a slash.
    end = 2 if parts[0].endswith(":accesspoint") else 1
    return {"AWS_BUCKET": "/".join(parts[:end]), "KEY_PATH": "/".join(parts[end:])}


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
