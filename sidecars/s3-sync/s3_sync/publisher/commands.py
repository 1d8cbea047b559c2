"""
Runs a command of the publisher: settings, keys and gate, then the command, then its answer.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

from s3_sync.publisher import prune, publish, show
from s3_sync.publisher.catalog import Trust, resolve
from s3_sync.publisher.cli import AIRFLOW, SIGN_KEY, SIGNING
from s3_sync.publisher.folder import find_origin, find_publisher, make_rules
from s3_sync.publisher.gate import Airflow, Refused, find_airflow, judge
from s3_sync.publisher.report import Progress, Report
from s3_sync.publisher.show import is_url
from s3_sync.publisher.store import Store
from s3_sync.publisher.swap import Order
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
from sidecar_runtime.app import warn_unknown
from sidecar_runtime.errors import EXIT_DONE, Problem, SettingsError, SidecarError
from sidecar_runtime.printable import json_text, printable

# Airflow takes several seconds to start, and 100 files take about as long again.
AIRFLOW_TIMEOUT = "10m"


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
        report = _run(arguments, environ, progress)
    except SidecarError as error:
        progress.clear()
        facts: dict[str, object] = {"result": "failed", "reason": error.reason}
        facts |= {"error": error.message, "advice": error.advice}
        lines = [f"s3-sync {arguments.command}: {error.message}"]
        if isinstance(error, Refused):
            lines += [f"    {line}" for line in error.details]
            facts["problems"] = list(map(asdict, error.findings))
        lines += [f"  {error.advice}"] if error.advice else []
        sys.stderr.write("".join(f"{printable(line)}\n" for line in lines))
        if is_json:
            sys.stdout.write(f"{json_text(facts)}\n")
        return error.exit_code
    progress.clear()
    said = [json_text(report.facts)] if is_json else map(printable, report.lines)
    _answer("".join(f"{line}\n" for line in said))
    return EXIT_DONE


def _run(arguments: argparse.Namespace, environ: Mapping[str, str], progress: Progress) -> Report:
    """
    Run a command; return its report.

    Raises:
        SidecarError: The command failed; the current release has not changed.
    """
    url: str | None = arguments.url
    if arguments.command == "diff":  # of two URLs needs no place of its own
        url = url or next(filter(is_url, (arguments.before, arguments.after)), None)
    settings = _settings(arguments, environ, url)
    airflow = _airflow(arguments, environ)
    trust = _trust(settings, arguments, environ)
    store = Store(settings, getattr(arguments, "profile", ""))
    order = Order(
        store,
        trust,
        partial(judge, settings, airflow),
        find_publisher(environ),
        progress,
        is_dry=getattr(arguments, "dry_run", False),
        forces=getattr(arguments, "force", False),
    )
    match arguments.command:
        case "publish":
            rules = make_rules(arguments.folder, arguments.exclude)
            origin = find_origin(arguments.folder, environ)
            origin = origin._replace(message=arguments.message or origin.message)
            return publish.publish(order, arguments.folder, rules, origin)
        case "promote":
            there = _settings(arguments, environ, arguments.source)
            source = Store(there, arguments.source_profile)
            given = Trust(read_trusted_keys(settings))  # those of the source, unless it signs
            order = order._replace(trust=trust if trust.signer else Trust())
            return publish.promote(order, source, given, arguments.revision)
        case "rollback":
            return publish.roll_back(order, arguments.revision)
        case "releases":
            return show.releases(store, trust, arguments.limit)
        case "diff":
            stores = [
                Store(_settings(arguments, environ, text)) if is_url(text) else store
                for text in (arguments.before, arguments.after)
            ]
            return show.diff(stores, trust, (arguments.before, arguments.after))
        case "prune-releases":
            find = partial(resolve, store)
            names, unmatched = prune.read_names(arguments.keep_from, find)
            names |= {*map(find, arguments.keep), *filter(None, [settings.revision])}
            keep = prune.Keep(frozenset(names), arguments.keep_count, arguments.keep_for)
            return prune.prune(store, trust, keep, unmatched, is_dry=order.is_dry)
        case "pin":
            return prune.pin(store, arguments.revision, order.who)
        case _:
            return prune.unpin(store, arguments.revision)


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


def _settings(
    arguments: argparse.Namespace, environ: Mapping[str, str], url: str | None
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
    if not given.get("AWS_BUCKET"):
        problem = "is missing: set it, or pass s3://BUCKET/PREFIX"
        raise SettingsError([Problem("AWS_BUCKET", "", problem)])
    gate = getattr(arguments, "gate", None)
    if gate is not None:
        given[f"{PREFIX}GATE"] = "off" if gate == AIRFLOW else gate
        if gate != "command":
            given.pop(f"{PREFIX}GATE_COMMAND", None)
    if gate == AIRFLOW:
        given.setdefault(f"{PREFIX}GATE_TIMEOUT", AIRFLOW_TIMEOUT)
    if (path := getattr(arguments, "trusted_keys", None)) is not None:
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
    if not is_url(url):
        raise SettingsError([Problem("URL", url, "is not s3://BUCKET/PREFIX")])
    parts = url[5:].split("/")
    # `s3://arn:…:accesspoint/NAME/PREFIX`: the ARN of an access point contains a slash.
    end = 2 if parts[0].endswith(":accesspoint") else 1
    return {"AWS_BUCKET": "/".join(parts[:end]), "KEY_PATH": "/".join(parts[end:])}


def _named(option: str, path: str) -> str:
    if not path:  # a protected CI variable is empty in an unprotected job
        raise SettingsError([Problem(option, "", "is empty: name a file, or omit it")])
    return path


def _trust(settings: Settings, arguments: argparse.Namespace, environ: Mapping[str, str]) -> Trust:
    """
    Return the keys that a command trusts and signs with; by default it trusts its own key.

    Raises:
        SettingsError: A key cannot be read, or the trusted keys would refuse the result.
    """
    keys, command = read_trusted_keys(settings), arguments.command
    path = environ.get(SIGN_KEY) if command in SIGNING else None
    if (option := getattr(arguments, "sign_key", None)) is not None:
        path = _named("--sign-key", option)
    if not path:
        if command in SIGNING and command != "promote" and keys is not None:
            problem = "requires --sign-key: pods with these keys refuse an unsigned release"
            name = f"{PREFIX}TRUSTED_KEYS"
            raise SettingsError([Problem(name, str(settings.trusted_keys), problem)])
        return Trust(keys)
    try:
        signer = read_signer(key_file(path))
        if keys is not None and signer.key_id not in keys.by_id:
            raise ValueError(f"is key {signer.key_id}, which is not in {PREFIX}TRUSTED_KEYS")
    except ValueError as error:
        raise SettingsError([Problem(SIGN_KEY, without_key(path), str(error))]) from None
    return Trust(keys or signer.keys, signer)


def _airflow(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Airflow | None:
    """
    Return the Airflow for ``--gate airflow``; None without that gate.

    Raises:
        SettingsError: Its Python does not exist, or an option requires ``--gate airflow``.
    """
    python: str | None = getattr(arguments, "airflow_python", None)
    allowed: list[re.Pattern[str]] = getattr(arguments, "gate_allow", [])
    if getattr(arguments, "gate", None) == AIRFLOW:
        return find_airflow(python, allowed, environ)
    patterns = ", ".join(pattern.pattern for pattern in allowed)
    given = {"--airflow-python": python, "--gate-allow": patterns}
    only = f"requires --gate {AIRFLOW}"
    if wrong := [Problem(name, text, only) for name, text in given.items() if text]:
        raise SettingsError(wrong)
    return None
