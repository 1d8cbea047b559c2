"""
The commands of ``s3-sync``: reads arguments, settings and keys, and prints the answer.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

from s3_sync.names import RESERVED
from s3_sync.publisher import catalog, folder, gate, publish, releases, wait
from s3_sync.publisher.airflow_api import Api
from s3_sync.publisher.bucket import Boto3Store
from s3_sync.publisher.releases import Report, show, write
from s3_sync.release import read_trusted_keys
from s3_sync.release.signature import Keys, Signer, read_signer
from s3_sync.settings import (
    PREFIX,
    Settings,
    key_file,
    load_settings,
    without_key,
)
from sidecar_runtime import logs
from sidecar_runtime.app import warn_unknown
from sidecar_runtime.errors import (
    EXIT_DONE,
    Problem,
    SettingsError,
    SidecarError,
    json_text,
)
from sidecar_runtime.parsers import YEAR_SECONDS, count, duration
from sidecar_runtime.usage import make_parser

Environ = Mapping[str, str]

AIRFLOW = "airflow"
# `s3://arn:…:accesspoint/NAME/PREFIX`: the ARN of an access point contains a slash.
_URL = re.compile(
    r"s3://([^/]*:accesspoint/[^/]*|[^/]*)/?(.*)", re.IGNORECASE | re.DOTALL
)
SIGN_KEY = "S3_SYNC_SIGN_KEY"

_GATE = "--gate --airflow-python --gate-allow"
_WRITE = "--sign-key --trusted-keys --force --dry-run --wait --bundle --timeout"
# Each command: what it does, and its arguments; `?` marks one that may be omitted, and
# its default.
COMMANDS = {
    "publish": (
        "make the content of a folder the current release",
        f"folder url? --exclude --message {_GATE} {_WRITE}",
    ),
    "promote": (
        "make a release from one prefix current in another",
        f"source target revision?current --source-profile --profile {_GATE} {_WRITE}",
    ),
    "rollback": (
        "make an earlier release current again",
        f"revision?previous url? {_WRITE}",
    ),
    "check-publisher": (
        "try a store and a role: publish twice and roll back, aside from all releases",
        "url?",
    ),
    "wait": (
        "wait until Airflow runs the current release, or the files of a folder as URL",
        "url? --bundle --timeout --trusted-keys",
    ),
    "releases": ("list the existing releases", "url? --limit --trusted-keys"),
    "diff": (
        "list the files that differ between two releases; of a folder: publish --dry-run",
        "before after url? --trusted-keys",
    ),
    "prune-releases": (
        "remove old releases, but none that is in use, pinned or recent",
        "url? --keep-count --keep-for --keep-from --trusted-keys --dry-run",
    ),
    "pin": ("protect a release from pruning until it is unpinned", "revision url?"),
    "unpin": ("allow a pinned release to be pruned again", "revision url?"),
}


def _file(path: str) -> str:
    if not path:  # a protected CI variable is empty in an unprotected job
        raise ValueError("is empty: name a file, or omit it")
    return path


def _program(path: str) -> str:
    found = shutil.which(path)
    if found is None:
        raise ValueError(
            "is not an executable program; pass the Python of your Airflow"
        )
    # It runs in another folder, where a relative path would name another file.
    return os.path.abspath(found)


def _parsed(parse: Any) -> Any:
    """
    Wrap a parser of settings for use with argparse.
    """

    def parse_argument(text: str) -> Any:
        try:
            return parse(text)
        except (OSError, ValueError, re.error) as error:
            raise argparse.ArgumentTypeError(f"{text!r} {error}") from error

    return parse_argument


_LIST = {"action": "append", "default": []}
_SWITCH = {"action": "store_true"}
_COUNT = {"type": _parsed(count), "default": 20}
# How argparse reads an argument, if it is more than a text.
HOW: dict[str, Any] = {
    "--exclude": _LIST,
    "--gate": {"choices": ("off", "syntax", "command", AIRFLOW)},
    "--airflow-python": {"type": _parsed(_program)},
    "--gate-allow": {**_LIST, "type": _parsed(re.compile)},
    "--sign-key": {"type": _parsed(_file)},
    "--trusted-keys": {"type": _parsed(_file)},
    "--force": _SWITCH,
    "--dry-run": _SWITCH,
    "--wait": _SWITCH,
    "--bundle": {"default": "dags"},
    "--timeout": {"type": _parsed(duration()), "default": "10m"},
    "--limit": _COUNT,
    "--keep-count": _COUNT,
    "--keep-for": {
        "type": _parsed(duration(at_most=10 * YEAR_SECONDS)),
        "default": "30d",
    },
    "--keep-from": {"type": _parsed(releases.read_names), "default": ()},
    "--output": {"choices": ("text", "json"), "default": "text"},
}
_LINES = """\
folder the DAG folder to publish
url s3://BUCKET/PREFIX of the releases; default: AWS_BUCKET and KEY_PATH
source s3://BUCKET/PREFIX to copy the release from
target s3://BUCKET/PREFIX to copy it to
revision a revision, its first 12 digits, `current` or `previous`
before a revision, or s3://BUCKET/PREFIX, whose current release is meant
after the same
--exclude leave out files that match this .gitignore pattern; repeatable
--message description of the release; default: that of the CI, if it has one
--gate overrides S3_SYNC_GATE; airflow: load the DAGs into a real Airflow
--airflow-python for --gate airflow: the Python of your Airflow; default: python on PATH
--gate-allow for --gate airflow: accept errors that match this regular expression; repeatable
--sign-key Ed25519 private key to sign with; overrides S3_SYNC_SIGN_KEY
--trusted-keys refuse pointers not signed with one of these; overrides S3_SYNC_TRUSTED_KEYS
--force replace what is damaged or not trusted, or end signing; write everything again
--dry-run show what would be done, but change nothing
--wait then wait until Airflow runs it, as `s3-sync wait` does
--bundle name of the bundle in Airflow; default dags (of the chart itself: dags-folder)
--timeout how long to wait for Airflow; default 10m
--source-profile the AWS profile for SOURCE; overrides AWS_PROFILE
--profile the AWS profile for TARGET; overrides AWS_PROFILE
--limit list at most N releases; 0: all; default 20
--keep-count keep the N most recently used releases; default 20
--keep-for keep releases that were current within this time, at least a day; default 30d
--keep-from keep the releases listed in this file, one per line; -: standard input
--output output format; default text
"""
HELP = dict(line.split(maxsplit=1) for line in _LINES.splitlines())


def read_arguments(words: Sequence[str]) -> Namespace:
    """
    Read the command line of ``s3-sync``; ``--help``, ``--version`` and errors end the
    process.
    """
    parser = make_parser(
        "s3-sync",
        "Keep a folder equal to an S3 prefix. Without a command, run until stopped.",
        Settings,
        PREFIX,
        "AWS_BUCKET=my-bucket KEY_PATH=dags DEST_PATH=/opt/airflow/dags s3-sync",
        also="AWS_REGION, AWS_PROFILE, AWS_ROLE_ARN and all other variables from which the AWS "
        "SDK takes region, credentials, proxy and certificates",
    )
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands"
    )
    text = "check settings, credentials, permissions, the target and a running daemon"
    commands.add_parser("check", help=text, description=text)
    for name, (text, names) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        # What a command does not take is None.
        command.set_defaults(**{one.strip("-").replace("-", "_"): None for one in HELP})
        for word in (*names.split(), "--output"):
            argument, is_optional, default = word.partition("?")
            how = HOW.get(argument, {})
            if not argument.startswith("-"):
                how = {
                    "metavar": argument.upper(),
                    "default": default or None,
                    "nargs": is_optional or None,
                }
            command.add_argument(argument, help=HELP[argument], **how)
    if words[0] not in COMMANDS:
        return parser.parse_args(words)
    # Else an optional argument would be absent once an option follows it (bpo-14191).
    command = commands.choices[words[0]]
    arguments = command.parse_intermixed_args(words[1:], Namespace(command=words[0]))
    # `rollback s3://bucket/prefix [REVISION]`: the first of the two arguments may be
    # omitted.
    if words[0] == "rollback" and _URL.match(arguments.revision):
        url = arguments.revision
        arguments.revision = arguments.url or "previous"
        arguments.url = url
    if arguments.gate != AIRFLOW and (arguments.airflow_python or arguments.gate_allow):
        command.error("--airflow-python and --gate-allow require --gate airflow")
    return arguments


def run(arguments: Namespace, environ: Environ) -> int:
    """
    Run a command; return its exit code.
    """
    logs.configure("warning", sys.stderr, for_people=True)
    try:
        report = _run(arguments, environ)
    except SidecarError as error:
        report = Report([], {}, error)
    lines, facts, failure = report
    if failure:
        findings = getattr(failure, "findings", ())
        said = [f"s3-sync {arguments.command}: {failure.message}"]
        for finding in findings:
            said += [f"    {line}" for line in str(finding).splitlines()]
        said.append(f"  {failure.advice}")
        write(sys.stderr, *filter(str.strip, said))
        facts |= {
            "result": "failed",
            "problems": [one._asdict() for one in findings],
            **failure.log_fields(),
        }
    shown = [json_text(facts)] if arguments.output == "json" else lines
    write(sys.stdout, *shown)
    return EXIT_DONE if failure is None else failure.exit_code


def _run(arguments: Namespace, environ: Environ) -> Report:
    """
    Run a command, and wait for Airflow if it is told to; return its answer.

    Raises:
        SidecarError: The command failed.
    """
    waits = arguments.command == "wait"
    api = None
    if waits or (arguments.wait and not arguments.dry_run):
        # Its settings are wrong before anything is published.
        api = Api(environ, arguments.bundle, show)
        if waits and not _URL.match(arguments.url or "s3://"):
            return wait.wait(wait.Folder(arguments.url, api), api, arguments.timeout)
    # A diff of two URLs needs no place of its own.
    places = filter(_URL.match, filter(None, (arguments.before, arguments.after)))
    url = arguments.target or arguments.url or next(places, None)
    settings = _settings(arguments, environ, url)
    keys, signer = _keys(settings, arguments, environ)
    store = Boto3Store(settings, keys, arguments.profile)
    airflow = None
    if arguments.gate == AIRFLOW:
        airflow = gate.Airflow(
            arguments.airflow_python or "python",
            environ.get("AIRFLOW_HOME", os.devnull),
            arguments.gate_allow,
        )
    origin = folder.find_origin(environ)
    origin["message"] = arguments.message or origin["message"]
    order = publish.Order(
        store,
        signer,
        judge=partial(gate.judge, settings, airflow),
        origin=origin,
        is_dry=arguments.dry_run,
        forces=arguments.force,
    )
    if api is None:
        return _act(arguments, environ, order, settings)
    dags = set()
    if arguments.folder:
        dags = wait.Folder(arguments.folder, api, arguments.exclude).dags()
    before = wait.errors_before(api)
    report = _act(arguments, environ, order, settings)
    name = report.facts.get("revision")
    if report.facts.get("previous") == name:
        before = set()  # they are of this release
    changed = {*chain(*report.facts.get("changes", {}).values())}
    try:
        live = wait.wait(
            wait.Release(store, name, dags & changed),
            api,
            arguments.timeout,
            before,
            changed,
        )
    except SidecarError as error:
        return report._replace(failure=error)
    return Report(report.lines + live.lines, report.facts | live.facts)


def _act(
    arguments: Namespace, environ: Environ, order: publish.Order, settings: Settings
) -> Report:
    """
    Run one of the other commands.
    """
    store = order.store
    match arguments.command:
        case "publish":
            take = partial(
                folder.build_parcel,
                arguments.folder,
                arguments.exclude,
                order.origin,
                store,
            )
            return publish.make_current(order, take, "published")
        case "promote":
            source = Boto3Store(
                _settings(arguments, environ, arguments.source),
                read_trusted_keys(settings),
                arguments.source_profile,
            )
            catalog.read_existing(source)
            take = partial(folder.download_parcel, source, arguments.revision)
            return publish.make_current(order, take, "promoted")
        case "rollback":
            take = partial(folder.download_parcel, store, arguments.revision)
            return publish.make_current(order, take, publish.ROLLED_BACK)
        case "check-publisher":
            url = f"{store.url}{RESERVED}/check-{time.time_ns()}"
            store = Boto3Store(_settings(arguments, environ, url), None)
            return publish.try_out(store, order.origin)
        case "releases":
            return releases.releases(store, arguments.limit)
        case "diff":
            found = []
            for text in (arguments.before, arguments.after):
                place = store
                name = text
                if _URL.match(text):
                    place = Boto3Store(_settings(arguments, environ, text), store.keys)
                    name = "current"
                catalog.read_existing(place)
                found.append(
                    catalog.read_manifest(place, catalog.resolve(place, name))[0]
                )
            return releases.diff(*found)
        case "prune-releases":
            return releases.prune(
                store,
                arguments.keep_from,
                arguments.keep_count,
                arguments.keep_for,
                is_dry=order.is_dry,
            )
        case "pin" | "unpin" as name:
            return releases.pin(store, arguments.revision, name)
        case _:
            return Report([], {})


def _settings(arguments: Namespace, environ: Environ, url: str | None) -> Settings:
    """
    Return the daemon's settings, overridden by the command line.

    Raises:
        SettingsError: A setting or an option is wrong.
    """
    given = {
        "DEST_PATH": "/nowhere",  # a publisher has no target
        **environ,
        "S3_SYNC_SOURCE": "release",
        "S3_SYNC_LAYOUT": "snapshot",
    }
    if url is not None:
        found = _URL.fullmatch(url)
        if found is None:
            raise SettingsError([Problem("URL", url, "is not s3://BUCKET/PREFIX")])
        given |= {"AWS_BUCKET": found[1], "KEY_PATH": found[2]}
    given.pop(SIGN_KEY, None)
    kind = arguments.gate
    if kind is not None:
        given["S3_SYNC_GATE"] = "off" if kind == AIRFLOW else kind
        if kind != "command":
            given.pop("S3_SYNC_GATE_COMMAND", None)
    if kind == AIRFLOW:
        # It takes several seconds to start, and 100 files take about as long again.
        given.setdefault("S3_SYNC_GATE_TIMEOUT", "10m")
    if arguments.trusted_keys is not None:
        given["S3_SYNC_TRUSTED_KEYS"] = arguments.trusted_keys
    settings, unknown = load_settings(given, may_be_idle=True)
    warn_unknown(unknown)
    return settings


def _keys(
    settings: Settings, arguments: Namespace, environ: Environ
) -> tuple[Keys | None, Signer | None]:
    """
    Return the keys that a command trusts, by default its own, and the one that it signs
    with.

    Raises:
        SettingsError: A key cannot be read, or the trusted keys would refuse the
            result.
    """
    keys = read_trusted_keys(settings)
    path = arguments.sign_key
    if "--sign-key" in COMMANDS[arguments.command][1]:  # it updates the pointer
        path = path or environ.get(SIGN_KEY)
    signer = None
    try:
        if path:
            signer = read_signer(key_file(path))
            if keys is not None and signer.key_id not in keys.by_id:
                raise ValueError(
                    f"is key {signer.key_id}, which is not in S3_SYNC_TRUSTED_KEYS"
                )
        elif keys is not None and arguments.command in ("publish", "rollback"):
            raise ValueError(
                "is missing: S3_SYNC_TRUSTED_KEYS requires --sign-key, because pods with these "
                "keys refuse an unsigned release"
            )
    except ValueError as error:
        problem = Problem(SIGN_KEY, without_key(path or ""), str(error))
        raise SettingsError([problem]) from None
    if signer:
        return keys or signer.keys, signer
    # Of an unsigned promotion, the trusted keys are those of the source.
    return None if arguments.command == "promote" else keys, None
