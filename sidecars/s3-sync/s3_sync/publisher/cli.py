"""
The command line for publishers: arguments, settings, and how the answer is printed.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from s3_sync.publisher.airflow.check import Airflow, find_airflow, pattern
from s3_sync.publisher.gate import Refused
from s3_sync.publisher.progress import Progress
from s3_sync.settings import PREFIX, Settings, load_settings, read_trusted_keys
from s3_sync.signature import Trust, read_signer
from sidecar_runtime import logs
from sidecar_runtime.command import make_parser
from sidecar_runtime.entry import end_on_signals
from sidecar_runtime.errors import EXIT_DONE, Problem, SettingsError, SidecarError
from sidecar_runtime.parsers import count, duration
from sidecar_runtime.printable import printable
from sidecar_runtime.process import warn_unknown

AIRFLOW = "airflow"
# Airflow itself takes some seconds to start, and 100 files as many again.
AIRFLOW_TIMEOUT = "10m"
# What swings the pointer, and so can sign it.
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
_REVISION = "or its first 12 digits, as `s3-sync releases` shows them"


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line of ``s3-sync``; with what is wrong or asked of it the process ends.
    """
    purpose = "Keeps a folder equal to an S3 prefix; without a command, until stopped."
    example = "AWS_BUCKET=my-bucket KEY_PATH=dags DEST_PATH=/opt/airflow/dags s3-sync"
    also = (
        "AWS_REGION, AWS_PROFILE, AWS_ROLE_ARN and all else by which the AWS SDK finds region, "
        "credentials, proxy and certificates"
    )
    parser = make_parser("s3-sync", purpose, Settings, PREFIX, example, also)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    text = "try settings, credentials, permissions and the target"
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
            "--output", choices=("text", "json"), default="text", help="for people or programs"
        )
        if name in SIGNING:
            text = "sign with this Ed25519 key, instead of S3_SYNC_SIGN_KEY"
            parser.add_argument("--sign-key", metavar="FILE", help=text)
        if name != "unpin":
            text = "public keys of which one must have signed; instead of S3_SYNC_TRUSTED_KEYS"
            parser.add_argument("--trusted-keys", metavar="PATH", help=text)
        return parser

    def add_url(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("url", nargs="?", metavar="URL", help=_URL)

    def add_dry_run(parser: argparse.ArgumentParser) -> None:
        text = "tell what would be done, and do nothing"
        parser.add_argument("--dry-run", action="store_true", help=text)

    def add_repair(parser: argparse.ArgumentParser) -> None:
        text = (
            "replace current.json in any case, also where it is no pointer, or one that pods refuse"
        )
        parser.add_argument("--repair", action="store_true", help=text)

    def add_gate(parser: argparse.ArgumentParser) -> None:
        choices = ("off", "syntax", "command", AIRFLOW)
        text = "instead of S3_SYNC_GATE; airflow: a real Airflow loads it"
        parser.add_argument("--gate", choices=choices, help=text)
        parser.add_argument(
            "--airflow-python",
            metavar="PATH",
            help="for --gate airflow: the Python that has Airflow; default: python on PATH",
        )
        parser.add_argument(
            "--gate-allow",
            action="append",
            default=[],
            type=_parsed(pattern),
            metavar="PATTERN",
            help="for --gate airflow: what may be missing there, such as package:pandas*, "
            "variable:*, connection:prd_db",
        )
        parser.add_argument(
            "--gate-timeout",
            metavar="DURATION",
            help="instead of S3_SYNC_GATE_TIMEOUT; default: 1m, of --gate airflow 10m",
        )

    publish = add("publish", "make the content of a folder the current release")
    publish.add_argument("folder", metavar="DIR", help="the folder of DAGs")
    add_url(publish)
    publish.add_argument(
        "--exclude", action="append", default=[], metavar="PATTERN", help="as in .gitignore"
    )
    add_gate(publish)
    add_repair(publish)
    publish.add_argument("--message", help="instead of the subject of the git commit")
    add_dry_run(publish)

    releases = add("releases", "list the releases that are there")
    add_url(releases)
    releases.add_argument(
        "--limit", type=_parsed(count), default=20, metavar="N", help="0: all; default 20"
    )
    text = "for each turn of the history: what it changed against the one before"
    releases.add_argument("--changes", action="store_true", help=text)

    diff = add("diff", "list the files that differ between two releases, or a folder and one")
    for name in ("before", "after"):
        text = "a revision, `current`, `previous`, or a folder with a slash, such as ./dags"
        diff.add_argument(name, metavar=name.upper(), help=text)
    add_url(diff)

    promote = add("promote", "make a release of one place current in another")
    promote.add_argument("source", metavar="SOURCE", help="s3://BUCKET/PREFIX to take it from")
    promote.add_argument("url", metavar="TARGET", help="s3://BUCKET/PREFIX to bring it to")
    promote.add_argument(
        "revision",
        nargs="?",
        metavar="REVISION",
        help=f"{_REVISION}; default: what is current there",
    )
    for name, place in (("--source-profile", "SOURCE"), ("--profile", "TARGET")):
        text = f"the AWS profile for {place}, instead of AWS_PROFILE"
        promote.add_argument(name, default="", metavar="NAME", help=text)
    add_gate(promote)
    add_repair(promote)
    add_dry_run(promote)

    rollback = add("rollback", "make an earlier release current again")
    rollback.add_argument(
        "revision", nargs="?", metavar="REVISION", help=f"{_REVISION}; default: the one before"
    )
    add_url(rollback)
    add_repair(rollback)
    add_dry_run(rollback)

    prune = add("prune-releases", "remove old releases; never one in use, pinned or young")
    add_url(prune)
    prune.add_argument(
        "--keep-count", type=_parsed(count), default=20, metavar="N", help="newest; default 20"
    )
    prune.add_argument(
        "--keep-for",
        type=_parsed(duration(at_most=YEARS_SECONDS)),
        default="30d",
        metavar="DURATION",
        help="those that were current within that time stay; default 30d",
    )
    prune.add_argument(
        "--keep", action="append", default=[], metavar="REVISION", help="this one stays, too"
    )
    prune.add_argument(
        "--keep-from",
        metavar="FILE",
        help="those that it names, one a line, stay, too; -: standard input",
    )
    add_dry_run(prune)

    for name, text in (
        ("pin", "keep a release from being pruned, until it is unpinned"),
        ("unpin", "let a pinned release be pruned again"),
    ):
        parser = add(name, text)
        parser.add_argument("revision", metavar="REVISION", help=_REVISION)
        add_url(parser)


def _place_rest(arguments: argparse.Namespace, rest: list[str]) -> list[str]:
    """
    Take what argparse leaves over where an option comes before an argument; return what is left.

    It takes an optional argument for absent as soon as an option follows (bpo-14191).
    """
    for name in ("revision", "url"):
        is_open = getattr(arguments, name, "") is None
        if is_open and rest and not rest[0].startswith("-"):
            setattr(arguments, name, rest.pop(0))
    return rest


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """
    Run one of the commands; return the exit code.
    """
    end_on_signals()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what is done must not end as a bug
    logs.configure("warning", "console", sys.stderr)
    is_json = arguments.output == "json"
    progress = Progress()
    try:
        settings = _settings(arguments, environ)
        from s3_sync.publisher import commands  # noqa: PLC0415 - boto3, which the daemon lacks

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
            sys.stdout.write(json.dumps(facts | {"advice": error.advice} | problems) + "\n")
        return error.exit_code
    progress.clear()
    lines = [json.dumps(report.facts)] if is_json else map(printable, report.lines)
    _answer("".join(f"{line}\n" for line in lines))
    return EXIT_DONE


def _answer(text: str) -> None:
    """
    Write the answer; to standard error where the output is full: what is done is done.
    """
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())  # for what is still in its buffer
        if not isinstance(error, BrokenPipeError):  # whoever read it has seen enough
            sys.stderr.write(f"s3-sync: standard output: {error.strerror}; this was done:\n{text}")


def _settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """
    Return the daemon's settings, with what the command line says instead.

    Raises:
        SettingsError: They are wrong.
    """
    given = {**environ, "S3_SYNC_SOURCE": "release", **_place(arguments)}
    given.setdefault("DEST_PATH", "/nowhere")  # a publisher has no target
    if not given.get("AWS_BUCKET"):
        raise SettingsError(
            [Problem("AWS_BUCKET", "", "is missing: set it, or give s3://BUCKET/PREFIX")]
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
            if not file:  # a protected variable of the CI, in an unprotected job
                option = f"--{name.replace('_', '-')}"
                raise SettingsError([Problem(option, "", "is empty: name a file, or leave it out")])
            given[f"S3_SYNC_{name.upper()}"] = file
    settings, unknown = load_settings(given)
    warn_unknown(unknown)
    return settings


def _by_options(error: SettingsError, arguments: argparse.Namespace) -> SettingsError:
    """
    Return an error that names the options that were given, not the settings they stand for.
    """
    given = {
        f"{PREFIX}{name.upper()}": f"--{name.replace('_', '-')}"
        for name, value in vars(arguments).items()
        if value is not None
    }
    problems = [one._replace(setting=given.get(one.setting, one.setting)) for one in error.problems]
    return SettingsError(problems, error.unknown)


def _trust(settings: Settings, command: str) -> Trust:
    """
    Return what a command trusts and signs with; it trusts its own key where no others are given.

    Raises:
        SettingsError: There is no such key, or nobody would trust what it signs.
    """
    keys = read_trusted_keys(settings)
    if command not in SIGNING or settings.sign_key is None:
        if command in SIGNING and command != "promote" and settings.trusted_keys:
            problem = "needs --sign-key here: what is not signed would be refused by these keys"
            raise SettingsError([Problem("S3_SYNC_TRUSTED_KEYS", settings.trusted_keys, problem)])
        return Trust(keys)
    try:
        signer = read_signer(settings.sign_key)
        if keys is not None and signer.key_id not in keys.by_id:
            raise ValueError(f"is key {signer.key_id}, which is not in S3_SYNC_TRUSTED_KEYS")
        if keys is None and command == "promote":
            raise ValueError("needs --trusted-keys here: the release keeps its first signature")
    except ValueError as error:
        raise SettingsError([Problem("S3_SYNC_SIGN_KEY", settings.sign_key, str(error))]) from None
    return Trust(keys or signer.keys, signer)


def _source(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """
    Return the settings of the place that is promoted from.
    """
    instead = {"url": arguments.source, "gate": "off", "gate_timeout": None}
    given = argparse.Namespace(**{**vars(arguments), **instead})
    return _settings(given, environ)


def _airflow(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Airflow | None:
    """
    Return the Airflow that is to judge; None where there is none.

    Raises:
        SettingsError: There is no such program, or it is named and not asked.
    """
    python: str | None = getattr(arguments, "airflow_python", None)
    allowed: list[str] = getattr(arguments, "gate_allow", [])
    if getattr(arguments, "gate", None) == AIRFLOW:
        return find_airflow(python, allowed, environ)
    given = {"--airflow-python": python, "--gate-allow": ", ".join(allowed)}
    only = f"needs --gate {AIRFLOW}"
    if wrong := [Problem(name, text, only) for name, text in given.items() if text]:
        raise SettingsError(wrong)
    return None


def _place(arguments: argparse.Namespace) -> dict[str, str]:
    """
    Return the settings that a URL stands for.
    """
    # `rollback s3://bucket/prefix [REVISION]`: of two arguments the first may be left out.
    if arguments.command == "rollback" and str(arguments.revision).lower().startswith("s3://"):
        arguments.revision, arguments.url = arguments.url, arguments.revision
    url: str | None = arguments.url
    if url is None:
        return {}
    if not url.lower().startswith("s3://"):
        raise SettingsError([Problem("URL", url, "is not s3://BUCKET/PREFIX")])
    parts = url[5:].split("/")
    # `s3://arn:…:accesspoint/NAME/PREFIX`: the ARN of an access point has a slash of its own.
    end = 2 if parts[0].endswith(":accesspoint") else 1
    return {"AWS_BUCKET": "/".join(parts[:end]), "KEY_PATH": "/".join(parts[end:])}


def _parsed(parse: Any) -> Any:
    """
    Return a parser of settings as one of arguments.
    """

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from error

    return parse_argument
