"""
The commands of ``s3-sync``: reads arguments, settings and keys, and prints the answer.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from s3_sync.publisher import catalog, folder, gate, publish, releases
from s3_sync.publisher.store import Store
from s3_sync.settings import (
    PREFIX,
    Settings,
    key_file,
    load_settings,
    read_trusted_keys,
    without_key,
)
from s3_sync.signature import read_signer
from sidecar_runtime import logs
from sidecar_runtime.app import make_parser, warn_unknown
from sidecar_runtime.errors import (
    EXIT_DONE,
    Problem,
    SettingsError,
    SidecarError,
    json_text,
    printable,
)
from sidecar_runtime.parsers import count, duration

AIRFLOW = "airflow"
# Airflow takes several seconds to start, and 100 files take about as long again.
AIRFLOW_TIMEOUT = "10m"
# Commands that update the pointer, and can therefore sign it.
SIGNING = ("publish", "promote", "rollback")
SIGN_KEY = f"{PREFIX}SIGN_KEY"
YEARS_SECONDS = 10 * 366 * 86400.0

_GATE = "--gate --airflow-python --gate-allow"
_WRITE = "--sign-key --trusted-keys --force --dry-run"
# Each command: what it does, and its arguments; `?` marks one that may be omitted.
COMMANDS = {
    "publish": (
        "make the content of a folder the current release",
        f"folder url? --exclude --message {_GATE} {_WRITE}",
    ),
    "promote": (
        "make a release from one prefix current in another",
        f"source target revision? --source-profile --profile {_GATE} {_WRITE}",
    ),
    "rollback": ("make an earlier release current again", f"revision? url? {_WRITE}"),
    "releases": ("list the existing releases", "url? --limit --trusted-keys"),
    "diff": (
        "list the files that differ between two releases, or between a folder and a release",
        "before after url? --trusted-keys",
    ),
    "prune-releases": (
        "remove old releases, but none that is in use, pinned or recent",
        "url? --keep-count --keep-for --keep --keep-from --trusted-keys --dry-run",
    ),
    "pin": ("protect a release from pruning until it is unpinned", "revision url?"),
    "unpin": ("allow a pinned release to be pruned again", "revision url?"),
}


def _parsed(parse: Any) -> Any:
    """
    Wrap a parser of settings for use with argparse.
    """

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except (ValueError, re.error) as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from error

    return parse_argument


_LIST: dict[str, Any] = {"action": "append", "default": []}
_SWITCH: dict[str, Any] = {"action": "store_true"}
_COUNT: dict[str, Any] = {"type": _parsed(count), "default": 20}
# How argparse reads an argument, if it is more than a text.
HOW: dict[str, dict[str, Any]] = {
    "--exclude": _LIST,
    "--gate": {"choices": ("off", "syntax", "command", AIRFLOW)},
    "--gate-allow": {**_LIST, "type": _parsed(re.compile)},
    "--force": _SWITCH,
    "--dry-run": _SWITCH,
    "--source-profile": {"default": ""},
    "--profile": {"default": ""},
    "--limit": _COUNT,
    "--keep-count": _COUNT,
    "--keep-for": {"type": _parsed(duration(at_most=YEARS_SECONDS)), "default": "30d"},
    "--keep": _LIST,
    "--output": {"choices": ("text", "json"), "default": "text"},
}
_HELP = """\
folder the DAG folder to publish
url s3://BUCKET/PREFIX of the releases; default: AWS_BUCKET and KEY_PATH
source s3://BUCKET/PREFIX to copy the release from
target s3://BUCKET/PREFIX to copy it to
revision the revision, or its first 12 digits; default: the previous or the current release
before a revision, `current`, `previous`, s3://BUCKET/PREFIX, or a folder such as ./dags
after the same
--exclude leave out files that match this .gitignore pattern; repeatable
--message description of the release; default: the subject of the git commit
--gate overrides S3_SYNC_GATE; airflow: load the DAGs into a real Airflow
--airflow-python for --gate airflow: the Python of your Airflow; default: python on PATH
--gate-allow for --gate airflow: accept errors that match this regular expression; repeatable
--sign-key Ed25519 private key to sign with; overrides S3_SYNC_SIGN_KEY
--trusted-keys refuse pointers not signed with one of these; overrides S3_SYNC_TRUSTED_KEYS
--force replace what is damaged or not trusted, and write everything again
--dry-run show what would be done, but change nothing
--source-profile the AWS profile for SOURCE; overrides AWS_PROFILE
--profile the AWS profile for TARGET; overrides AWS_PROFILE
--limit list at most N releases; 0: all; default 20
--keep-count keep the N most recently used releases; default 20
--keep-for keep releases that were current within this time, at least a day; default 30d
--keep keep this release; repeatable
--keep-from keep the releases listed in this file, one per line; -: standard input
--output output format; default text
"""


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
    meaning = dict(line.split(maxsplit=1) for line in _HELP.splitlines())
    for name, (text, names) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        for word in (*names.split(), "--output"):
            argument = word.rstrip("?")
            how = HOW.get(argument, {})
            if not argument.startswith("-"):
                how = {"metavar": argument.upper(), "nargs": "?" if word != argument else None}
            command.add_argument(argument, help=meaning[argument], **how)
    if words[0] not in COMMANDS:
        return parser.parse_args(words)
    # Else an optional argument would be absent once an option follows it (bpo-14191).
    given = argparse.Namespace(command=words[0])
    arguments = commands.choices[words[0]].parse_intermixed_args(words[1:], given)
    # `rollback s3://bucket/prefix [REVISION]`: the first of the two arguments may be omitted.
    if words[0] == "rollback" and releases.is_url(str(arguments.revision)):
        arguments.revision, arguments.url = arguments.url, arguments.revision
    return arguments


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """
    Run a command; return its exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # printing must not fail after success
    logs.configure("warning", "console", sys.stderr)
    is_json = arguments.output == "json"
    try:
        report = _run(arguments, environ)
    except SidecarError as error:
        facts: dict[str, object] = {"result": "failed", "reason": error.reason}
        facts |= {"error": error.message, "advice": error.advice}
        lines = [f"s3-sync {arguments.command}: {error.message}"]
        if isinstance(error, gate.Refused):
            lines += [f"    {line}" for line in error.details]
            facts["problems"] = list(map(asdict, error.findings))
        lines += [f"  {error.advice}"] if error.advice else []
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))
        _answer(f"{json_text(facts)}\n" if is_json else "")
        return error.exit_code
    lines = [json_text(report.facts)] if is_json else list(map(printable, report.lines))
    _answer("".join(f"{line}\n" for line in lines))
    return EXIT_DONE


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> releases.Report:
    """
    Run a command; return its answer.

    Raises:
        SidecarError: The command failed; the current release has not changed.
    """
    words = vars(arguments)
    url: str | None = words.get("target") or words.get("url")
    if arguments.command == "diff":  # of two URLs needs no place of its own
        url = url or next(filter(releases.is_url, (arguments.before, arguments.after)), None)
    settings = _settings(words, environ, url)
    airflow = _airflow(words, environ)
    trust = _trust(settings, words, environ)
    store = Store(settings, words.get("profile", ""))
    order = publish.Order(
        store,
        trust,
        partial(gate.judge, settings, airflow),
        folder.find_publisher(environ),
        words.get("dry_run", False),
        words.get("force", False),
    )
    match arguments.command:
        case "publish":
            rules = folder.make_rules(arguments.folder, arguments.exclude)
            origin = folder.find_origin(arguments.folder, environ)
            origin = origin._replace(message=arguments.message or origin.message)
            return publish.publish(order, arguments.folder, rules, origin)
        case "promote":
            there = _settings(words, environ, arguments.source)
            source = Store(there, arguments.source_profile)
            # Without a key to sign with, the trusted keys are those of the source alone.
            order = order._replace(trust=trust if trust.signer else catalog.Trust())
            given = catalog.Trust(read_trusted_keys(settings))
            return publish.promote(order, source, given, arguments.revision)
        case "rollback":
            return publish.roll_back(order, arguments.revision)
        case "releases":
            return releases.releases(store, trust, arguments.limit)
        case "diff":
            texts = (arguments.before, arguments.after)
            urls = [text if releases.is_url(text) else url for text in texts]
            stores = [Store(_settings(words, environ, one)) for one in urls]
            return releases.diff(stores, trust, texts)
        case "prune-releases":
            pinned = [settings.revision] if settings.revision else []
            names, unmatched = releases.read_names(
                store, arguments.keep_from, [*arguments.keep, *pinned]
            )
            keep = releases.Keep(names, arguments.keep_count, arguments.keep_for, unmatched)
            return releases.prune(store, trust, keep, is_dry=order.is_dry)
        case "pin":
            return releases.pin(store, arguments.revision)
        case _:
            return releases.unpin(store, arguments.revision)


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


def _settings(words: Mapping[str, Any], environ: Mapping[str, str], url: str | None) -> Settings:
    """
    Return the daemon's settings, overridden by the command line.

    Raises:
        SettingsError: A setting or an option is wrong.
    """
    of_release = {f"{PREFIX}SOURCE": "release", f"{PREFIX}LAYOUT": "snapshot"}
    given = {**environ, **of_release, **_place(url)}
    given.pop(SIGN_KEY, None)
    given.setdefault("DEST_PATH", "/nowhere")  # a publisher has no target
    if not given.get("AWS_BUCKET"):
        problem = "is missing: set it, or pass s3://BUCKET/PREFIX"
        raise SettingsError([Problem("AWS_BUCKET", "", problem)])
    kind = words.get("gate")
    if kind is not None:
        given[f"{PREFIX}GATE"] = "off" if kind == AIRFLOW else kind
        if kind != "command":
            given.pop(f"{PREFIX}GATE_COMMAND", None)
    if kind == AIRFLOW:
        given.setdefault(f"{PREFIX}GATE_TIMEOUT", AIRFLOW_TIMEOUT)
    if (path := words.get("trusted_keys")) is not None:
        given[f"{PREFIX}TRUSTED_KEYS"] = _named("--trusted-keys", path)
    settings, unknown = load_settings(given)
    warn_unknown(unknown)
    return settings


def _place(url: str | None) -> dict[str, str]:
    """
    Return the settings that a URL overrides.
    """
    if url is None:
        return {}
    if not releases.is_url(url):
        raise SettingsError([Problem("URL", url, "is not s3://BUCKET/PREFIX")])
    parts = url[5:].split("/")
    # `s3://arn:…:accesspoint/NAME/PREFIX`: the ARN of an access point contains a slash.
    end = 2 if parts[0].endswith(":accesspoint") else 1
    return {"AWS_BUCKET": "/".join(parts[:end]), "KEY_PATH": "/".join(parts[end:])}


def _named(option: str, path: str) -> str:
    if not path:  # a protected CI variable is empty in an unprotected job
        raise SettingsError([Problem(option, "", "is empty: name a file, or omit it")])
    return path


def _trust(
    settings: Settings, words: Mapping[str, Any], environ: Mapping[str, str]
) -> catalog.Trust:
    """
    Return the keys that a command trusts and signs with; by default it trusts its own key.

    Raises:
        SettingsError: A key cannot be read, or the trusted keys would refuse the result.
    """
    keys, command, path = read_trusted_keys(settings), words["command"], words.get("sign_key")
    if path is not None:
        path = _named("--sign-key", path)
    elif command in SIGNING:
        path = environ.get(SIGN_KEY)
    if not path:
        if command in ("publish", "rollback") and keys is not None:
            problem = "requires --sign-key: pods with these keys refuse an unsigned release"
            name = f"{PREFIX}TRUSTED_KEYS"
            raise SettingsError([Problem(name, str(settings.trusted_keys), problem)])
        return catalog.Trust(keys)
    try:
        signer = read_signer(key_file(path))
        if keys is not None and signer.key_id not in keys.by_id:
            raise ValueError(f"is key {signer.key_id}, which is not in {PREFIX}TRUSTED_KEYS")
    except ValueError as error:
        raise SettingsError([Problem(SIGN_KEY, without_key(path), str(error))]) from None
    return catalog.Trust(keys or signer.keys, signer)


def _airflow(words: Mapping[str, Any], environ: Mapping[str, str]) -> gate.Airflow | None:
    """
    Return the Airflow for ``--gate airflow``; None without that gate.

    Raises:
        SettingsError: Its Python does not exist, or an option requires ``--gate airflow``.
    """
    python, allowed = words.get("airflow_python"), words.get("gate_allow", [])
    patterns = [one.pattern for one in allowed]
    if words.get("gate") == AIRFLOW:
        return gate.find_airflow(python, patterns, environ)
    if python or patterns:
        given = " ".join([python or "", *patterns])
        problem = f"require --gate {AIRFLOW}"
        raise SettingsError([Problem("--airflow-python, --gate-allow", given, problem)])
    return None
