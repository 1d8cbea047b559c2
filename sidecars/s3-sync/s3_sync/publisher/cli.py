"""
The commands of ``s3-sync``: reads arguments, settings and keys, and prints the answer.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from s3_sync.publisher import folder, gate, publish, releases
from s3_sync.publisher.store import Store
from s3_sync.settings import (
    PREFIX,
    Settings,
    key_file,
    load_settings,
    read_trusted_keys,
    without_key,
)
from s3_sync.signature import Keys, Signer, read_signer
from sidecar_runtime import logs
from sidecar_runtime.app import warn_unknown
from sidecar_runtime.errors import (
    EXIT_DONE,
    Problem,
    SettingsError,
    SidecarError,
    json_text,
    printable,
)
from sidecar_runtime.gate.gate import RevisionRefused
from sidecar_runtime.parsers import YEAR_SECONDS, count, duration
from sidecar_runtime.usage import make_parser

AIRFLOW = "airflow"
# Airflow takes several seconds to start, and 100 files take about as long again.
AIRFLOW_TIMEOUT = "10m"
SIGN_KEY = f"{PREFIX}SIGN_KEY"

_GATE = "--gate --airflow-python --gate-allow"
_WRITE = "--sign-key --trusted-keys --force --dry-run"
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
    "releases": ("list the existing releases", "url? --limit --trusted-keys"),
    "diff": (
        "list the files that differ between two releases, or between a folder and a release",
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
    "--sign-key": {"type": _parsed(_file)},
    "--trusted-keys": {"type": _parsed(_file)},
    "--force": _SWITCH,
    "--dry-run": _SWITCH,
    "--limit": _COUNT,
    "--keep-count": _COUNT,
    "--keep-for": {
        "type": _parsed(duration(at_most=10 * YEAR_SECONDS)),
        "default": "30d",
    },
    "--output": {"choices": ("text", "json"), "default": "text"},
}
_HELP = """\
folder the DAG folder to publish
url s3://BUCKET/PREFIX of the releases; default: AWS_BUCKET and KEY_PATH
source s3://BUCKET/PREFIX to copy the release from
target s3://BUCKET/PREFIX to copy it to
revision a revision, its first 12 digits, `current` or `previous`
before a revision, s3://BUCKET/PREFIX, or a folder such as ./dags
after the same
--exclude leave out files that match this .gitignore pattern; repeatable
--message description of the release; default: the subject of the git commit
--gate overrides S3_SYNC_GATE; airflow: load the DAGs into a real Airflow
--airflow-python for --gate airflow: the Python of your Airflow; default: python on PATH
--gate-allow for --gate airflow: accept errors that match this regular expression; repeatable
--sign-key Ed25519 private key to sign with; overrides S3_SYNC_SIGN_KEY
--trusted-keys refuse pointers not signed with one of these; overrides S3_SYNC_TRUSTED_KEYS
--force replace what is damaged or not trusted, or end signing; write everything again
--dry-run show what would be done, but change nothing
--source-profile the AWS profile for SOURCE; overrides AWS_PROFILE
--profile the AWS profile for TARGET; overrides AWS_PROFILE
--limit list at most N releases; 0: all; default 20
--keep-count keep the N most recently used releases; default 20
--keep-for keep releases that were current within this time, at least a day; default 30d
--keep-from keep the releases listed in this file, one per line; -: standard input
--output output format; default text
"""


def read_arguments(words: Sequence[str]) -> argparse.Namespace:
    """
    Read the command line of ``s3-sync``; ``--help``, ``--version`` and errors end the
    process.
    """
    purpose = (
        "Keep a folder equal to an S3 prefix. Without a command, run until stopped."
    )
    example = "AWS_BUCKET=my-bucket KEY_PATH=dags DEST_PATH=/opt/airflow/dags s3-sync"
    also = (
        "AWS_REGION, AWS_PROFILE, AWS_ROLE_ARN and all other variables from which the AWS SDK "
        "takes region, credentials, proxy and certificates"
    )
    parser = make_parser("s3-sync", purpose, Settings, PREFIX, example, also)
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", title="commands"
    )
    text = "check settings, credentials, permissions, the target and a running daemon"
    commands.add_parser("check", help=text, description=text)
    meaning = dict(line.split(maxsplit=1) for line in _HELP.splitlines())
    for name, (text, names) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        for word in (*names.split(), "--output"):
            argument, is_optional, default = word.partition("?")
            how = HOW.get(argument, {})
            if not argument.startswith("-"):
                how = {"metavar": argument.upper(), "default": default or None}
                how["nargs"] = is_optional or None
            command.add_argument(argument, help=meaning[argument], **how)
    if words[0] not in COMMANDS:
        return parser.parse_args(words)
    # Else an optional argument would be absent once an option follows it (bpo-14191).
    given, command = argparse.Namespace(command=words[0]), commands.choices[words[0]]
    arguments = command.parse_intermixed_args(words[1:], given)
    # `rollback s3://bucket/prefix [REVISION]`: the first of the two arguments may be
    # omitted.
    if words[0] == "rollback" and releases.is_url(arguments.revision):
        revision = "previous" if arguments.url is None else arguments.url
        arguments.revision, arguments.url = revision, arguments.revision
    found = vars(arguments)
    if found.get("gate") != AIRFLOW and (
        found.get("airflow_python") or found.get("gate_allow")
    ):
        command.error(f"--airflow-python and --gate-allow require --gate {AIRFLOW}")
    return arguments


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """
    Run a command; return its exit code.
    """
    logs.configure("warning", sys.stderr, for_people=True)
    is_json = arguments.output == "json"
    try:
        report = _run(arguments, environ)
    except SidecarError as error:
        report = releases.Report([], {}, error)
    lines, facts, failure = report
    if failure is not None:
        findings = failure.findings if isinstance(failure, RevisionRefused) else ()
        said = [f"s3-sync {arguments.command}: {failure.message}"]
        said += [*(f"    {finding}" for finding in findings), f"  {failure.advice}"]
        sys.stderr.write(
            "".join(f"{printable(line)}\n" for line in said if line.strip())
        )
        problems = [one._asdict() for one in findings]
        facts |= {"result": "failed", "problems": problems, **failure.log_fields()}
    shown = [json_text(facts)] if is_json else map(printable, lines)
    sys.stdout.write("".join(f"{line}\n" for line in shown))
    sys.stdout.flush()
    return EXIT_DONE if failure is None else failure.exit_code


def _run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> releases.Report:
    """
    Run a command; return its answer.

    Raises:
        SidecarError: The command failed.
    """
    words = vars(arguments)
    url: str | None = words.get("target") or words.get("url")
    if arguments.command == "diff":  # of two URLs needs no place of its own
        url = url or next(
            filter(releases.is_url, (arguments.before, arguments.after)), None
        )
    settings = _settings(words, environ, url)
    keys, signer = _keys(settings, words, environ)
    store = Store(settings, keys, words.get("profile") or "")
    airflow = None
    if words.get("gate") == AIRFLOW:
        airflow = gate.find_airflow(
            arguments.airflow_python, arguments.gate_allow, environ
        )
    judge = partial(gate.judge, settings, airflow)
    is_dry, forces = words.get("dry_run", False), words.get("force", False)
    order = publish.Order(
        store, signer, judge, folder.find_publisher(environ), is_dry, forces
    )
    match arguments.command:
        case "publish":
            rules = folder.make_rules(arguments.folder, arguments.exclude)
            origin = folder.find_origin(arguments.folder, environ)
            origin["message"] = arguments.message or origin["message"]
            return publish.publish(order, arguments.folder, rules, origin)
        case "promote":
            there = _settings(words, environ, arguments.source)
            source = Store(
                there, read_trusted_keys(settings), arguments.source_profile or ""
            )
            return publish.restore(order, source, arguments.revision, "promoted")
        case "rollback":
            return publish.restore(
                order, store, arguments.revision, publish.ROLLED_BACK
            )
        case "releases":
            return releases.releases(store, arguments.limit)
        case "diff":
            texts = (arguments.before, arguments.after)
            urls = [text if releases.is_url(text) else url for text in texts]
            stores = [Store(_settings(words, environ, one), keys) for one in urls]
            return releases.diff(stores, texts)
        case "prune-releases":
            path = arguments.keep_from
            kept = releases.read_names(path) if path else set()
            if settings.revision:
                kept.add(settings.revision)
            return releases.prune(
                store, kept, arguments.keep_count, arguments.keep_for, is_dry=is_dry
            )
        case "pin":
            return releases.pin(store, arguments.revision)
        case _:
            return releases.unpin(store, arguments.revision)


def _settings(
    words: Mapping[str, Any], environ: Mapping[str, str], url: str | None
) -> Settings:
    """
    Return the daemon's settings, overridden by the command line.

    Raises:
        SettingsError: A setting or an option is wrong.
    """
    of_release = {f"{PREFIX}SOURCE": "release", f"{PREFIX}LAYOUT": "snapshot"}
    given = {**environ, **of_release, **_place(url)}
    given.pop(SIGN_KEY, None)
    given.setdefault("DEST_PATH", "/nowhere")  # a publisher has no target
    kind = words.get("gate")
    if kind is not None:
        given[f"{PREFIX}GATE"] = "off" if kind == AIRFLOW else kind
        if kind != "command":
            given.pop(f"{PREFIX}GATE_COMMAND", None)
    if kind == AIRFLOW:
        given.setdefault(f"{PREFIX}GATE_TIMEOUT", AIRFLOW_TIMEOUT)
    if (path := words.get("trusted_keys")) is not None:
        given[f"{PREFIX}TRUSTED_KEYS"] = path
    settings, unknown = load_settings(given, may_be_idle=True)
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


def _keys(
    settings: Settings, words: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[Keys | None, Signer | None]:
    """
    Return the keys that a command trusts, by default its own, and the one that it signs
    with.

    Raises:
        SettingsError: A key cannot be read, or the trusted keys would refuse the
            result.
    """
    keys, path = read_trusted_keys(settings), ""
    if "sign_key" in words:  # the command updates the pointer
        path = words["sign_key"] or environ.get(SIGN_KEY, "")
    if not path:
        if words["command"] in ("publish", "rollback") and keys is not None:
            problem = (
                "requires --sign-key: pods with these keys refuse an unsigned release"
            )
            name = f"{PREFIX}TRUSTED_KEYS"
            raise SettingsError([Problem(name, str(settings.trusted_keys), problem)])
        # Of an unsigned promotion, the trusted keys are those of the source.
        return None if words["command"] == "promote" else keys, None
    try:
        signer = read_signer(key_file(path))
        if keys is not None and signer.key_id not in keys.by_id:
            raise ValueError(
                f"is key {signer.key_id}, which is not in {PREFIX}TRUSTED_KEYS"
            )
    except ValueError as error:
        raise SettingsError(
            [Problem(SIGN_KEY, without_key(path), str(error))]
        ) from None
    return keys or signer.keys, signer
