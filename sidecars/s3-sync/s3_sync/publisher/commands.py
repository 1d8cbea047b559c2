"""
Runs the commands and reports their results.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any

from s3_sync.publisher.airflow.check import Airflow, Passed
from s3_sync.publisher.catalog import (
    ReleaseError,
    RevisionError,
    Unmatched,
    find_release,
    incomplete,
    list_releases,
    read_current,
    read_pins,
    read_pointer,
    resolve,
    summarise,
    unknown,
)
from s3_sync.publisher.changes import (
    NAMED,
    ReleaseChanges,
    compare,
    compare_dags,
    content_of,
    content_of_folder,
)
from s3_sync.publisher.gate import judge
from s3_sync.publisher.local.folder import digests_of, look
from s3_sync.publisher.local.ignore import Ignore
from s3_sync.publisher.local.origin import find_ci_url, find_origin, find_publisher
from s3_sync.publisher.pointer_swap import announce
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.promote import promote
from s3_sync.publisher.prune import prune, read_names
from s3_sync.publisher.publish import Outcome, Publisher
from s3_sync.publisher.report import Report, size_text
from s3_sync.publisher.rollback import roll_back
from s3_sync.publisher.store import Store
from s3_sync.publisher.table import releases_report
from s3_sync.publisher.turns import changes_of_turns
from s3_sync.release.facts import Checked, Origin, checked_facts, time_text
from s3_sync.release.names import PIN_FOLDER, POINTER_KEY, pin_key
from s3_sync.revision import short
from s3_sync.settings import Settings
from s3_sync.signature import NO_KEYS, PublisherKeys
from sidecar_runtime.printable import counted

NAMED_LEFT_OUT = 10
UNGUARDED = (
    "This server has no conditional writes: the pointer was read, written and read again. "
    "Two publishes at the same moment may not notice each other. Run one at a time."
)

NEIGHBORS = (
    "This prefix contains other files ({}): a pod that lists it, for example with `aws s3 sync`, "
    "loads bundles as DAGs. Use a separate prefix for releases."
)


def run(
    settings: Settings,
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    progress: Progress,
    trust: PublisherKeys = NO_KEYS,
    source: Settings | None = None,
    airflow: Airflow | None = None,
) -> Report:
    """
    Run a command.

    Args:
        trust: The keys that it trusts and signs with.
        source: The settings of the place that a promotion copies from.
        airflow: The Airflow to use as gate, instead of the gate in the settings.

    Raises:
        SidecarError: The command failed; the current release has not changed.
    """
    if arguments.command == "publish":
        ignore = Ignore(arguments.folder, arguments.exclude)
        return _publish(settings, trust, airflow, arguments, ignore, environ, progress)
    is_dry = getattr(arguments, "dry_run", False)
    if arguments.command == "promote":
        assert source is not None
        here = Store(source, arguments.source_profile, PublisherKeys(trust.keys))
        there = Store(settings, arguments.profile, trust if trust.signer else NO_KEYS)
        return _promote(here, there, settings, airflow, arguments, environ, progress, is_dry=is_dry)
    store = Store(settings, trust=trust)
    given: str | None = getattr(arguments, "revision", None)
    match arguments.command:
        case "releases":
            return _releases(store, arguments.limit, has_changes=arguments.changes)
        case "diff":
            return _diff(store, arguments.before, arguments.after, progress)
        case "rollback":
            who = Origin(by=find_publisher(environ), ci_url=find_ci_url(environ))
            revision = None if given is None else resolve(store, given)
            return _rollback(store, revision, who, is_dry=is_dry, repairs=arguments.repair)
        case "prune-releases":
            keep = {resolve(store, name) for name in arguments.keep}
            if settings.revision:
                keep.add(settings.revision)
            return _prune(store, keep, arguments, is_dry=is_dry)
        case "pin":
            by = find_publisher(environ)
            return _pin(store, resolve(store, str(given)), by)
        case _:
            return _unpin(store, resolve(store, str(given), PIN_FOLDER))


def _publish(
    settings: Settings,
    trust: PublisherKeys,
    airflow: Airflow | None,
    arguments: argparse.Namespace,
    ignore: Ignore,
    environ: Mapping[str, str],
    progress: Progress,
) -> Report:
    origin = find_origin(arguments.folder, environ)
    if arguments.message:
        origin = origin._replace(message=arguments.message)
    store = Store(settings, trust=trust)
    publisher = Publisher(store, origin, partial(judge, settings, airflow), progress)
    outcome = publisher.publish(
        arguments.folder, ignore, is_dry=arguments.dry_run, repairs=arguments.repair
    )
    facts = {
        "result": outcome.result,
        "url": settings.source,
        "revision": outcome.revision,
        "previous": outcome.before.revision if outcome.before else None,
        "files": len(outcome.seen.files),
        "size_bytes": outcome.seen.size_bytes,
        "bundle_bytes": outcome.bundle_bytes,
        "left_out": outcome.seen.left_out,
        "gate": "airflow" if airflow else settings.gate,
        **_passed_facts(outcome.passed),
        "conditional_writes": outcome.is_guarded,
        "stranger": outcome.stranger or None,
        "changes": outcome.changes.facts(),
        "dags": outcome.dags.facts() if outcome.dags else None,
        "origin": origin._asdict(),
        **_signed_facts(store),
    }
    return Report(_publish_lines(outcome, store, settings), facts)


def _publish_lines(outcome: Outcome, store: Store, settings: Settings) -> list[str]:
    seen, lines = outcome.seen, []
    if seen.left_out:
        more = ", …" if len(seen.left_out) > NAMED_LEFT_OUT else ""
        names = ", ".join(seen.left_out[:NAMED_LEFT_OUT])
        lines.append(f"Left out: {len(seen.left_out)} ({names}{more})")
    size = f"{counted(len(seen.files), 'file')}, {size_text(seen.size_bytes)}"
    if outcome.result == "unchanged":
        return [
            *lines,
            f"Unchanged: {settings.source} is already at {short(outcome.revision)} ({size})",
        ]
    if outcome.passed:
        lines += _passed_lines(outcome.passed)
    elif settings.gate == "off":
        lines.append("Not checked: the gate is off (--gate airflow checks with your Airflow)")
    if outcome.is_guarded is False:
        lines.append(UNGUARDED)
    if outcome.stranger:
        lines.append(NEIGHBORS.format(outcome.stranger))
    if outcome.result == "planned":
        lines.append(f"Would publish {short(outcome.revision)} to {settings.source}: {size}")
    else:
        packed = size_text(outcome.bundle_bytes)
        lines.append(
            f"Published {short(outcome.revision)} to {settings.source}: {size} in a bundle of "
            f"{packed}"
        )
        lines += _signed_lines(store)
    if outcome.before and outcome.before.revision != outcome.revision:
        before = short(outcome.before.revision)
        lines.append(f"Changes: {outcome.changes}")
        lines += outcome.changes.lines(NAMED)
        lines += _dag_lines(outcome.dags, NAMED)
        lines.append(f"Previous: {before}; `s3-sync rollback {settings.source}` goes back to it")
    return lines


def _signed_facts(store: Store) -> dict[str, Any]:
    return {"signed_by": store.signer.key_id} if store.signer else {}


def _signed_lines(store: Store) -> list[str]:
    return [f"Signed by {store.signer.key_id}"] if store.signer else []


def _passed_facts(passed: Passed | None) -> dict[str, Any]:
    if passed is None:
        return {"airflow": None}
    allowed = [{"lacks": one.lacks, "problem": str(one)} for one in passed.allowed]
    return {"airflow": {**checked_facts(passed.checked), "allowed": allowed}}


def _passed_lines(passed: Passed) -> list[str]:
    lines = [f"Checked with {passed.checked}"]
    lines += [f"  allowed: {one.lacks} is missing, {one}" for one in passed.allowed[:NAMED]]
    if len(passed.allowed) > NAMED:
        lines.append(f"  and {len(passed.allowed) - NAMED} more")
    return lines


def _dag_lines(dags: ReleaseChanges | None, limit: int = 0) -> list[str]:
    if not dags:
        return []
    return [f"DAGs: {len(dags.added)} added, {len(dags.removed)} removed", *dags.lines(limit)]


def _releases(store: Store, limit: int, *, has_changes: bool) -> Report:
    current = read_pointer(store)
    pointer = current.trusted if current else None
    found = list_releases(store, pointer.revision if pointer else "")
    entries = summarise(store, found[:limit] if limit else found)
    older = len(found) - len(entries)
    report = releases_report(store.url, entries, older, pointer, read_pins(store))
    refused, replayed = (current.refusal, current.replayed) if current else ("", "")
    report.facts |= {"refused": refused or None, "replayed": replayed or None}
    if refused:
        report.lines.append(f"{POINTER_KEY} is refused: {refused}")
    if replayed:
        report.lines.append(replayed)
    if store.keys is not None:
        report.facts["signed_by"] = (current.signed_by if current else "") or None
    if has_changes:
        turns = list(changes_of_turns(store, pointer)) if pointer else []
        report.facts["changes"] = [turn.facts() for turn in turns]
        for turn in turns:
            report.lines += ["", str(turn)]
            report.lines += turn.files.lines(NAMED) if turn.files else []
            report.lines += _dag_lines(turn.dags, NAMED)
    return report


def _promote(
    here: Store,
    there: Store,
    settings: Settings,
    airflow: Airflow | None,
    arguments: argparse.Namespace,
    environ: Mapping[str, str],
    progress: Progress,
    *,
    is_dry: bool,
) -> Report:
    who = Origin(by=find_publisher(environ), ci_url=find_ci_url(environ))
    gate = partial(judge, settings, airflow)
    done = promote(
        here,
        there,
        arguments.revision,
        who,
        gate,
        progress,
        is_dry=is_dry,
        repairs=arguments.repair,
    )
    revision, at = done.manifest.revision, there.url
    facts = {
        "result": done.result,
        "source": here.url,
        "url": at,
        "revision": revision,
        "previous": done.before.revision if done.before else None,
        "files": len(done.manifest.files),
        "gate": "airflow" if airflow else settings.gate,
        **_passed_facts(done.passed),
        "conditional_writes": done.is_guarded,
        "changes": done.changes.facts(),
        "dags": done.dags.facts() if done.dags else None,
        **_signed_facts(there),
    }
    if done.result == "unchanged":
        return Report([f"Unchanged: {at} is already at {short(revision)}"], facts)
    lines = [UNGUARDED] if done.is_guarded is False else []
    lines += _passed_lines(done.passed) if done.passed else []
    verb = "Would promote" if done.result == "planned" else "Promoted"
    lines.append(f"{verb} {short(revision)} from {here.url} to {at}: {done.changes}")
    lines += _signed_lines(there) if done.result == "promoted" else []
    if done.before and done.before.revision != revision:
        lines += done.changes.lines(NAMED)
        lines += _dag_lines(done.dags, NAMED)
        previous = short(done.before.revision)
        lines.append(f"Previous: {previous}; `s3-sync rollback {at}` goes back to it")
    return Report(lines, facts)


def _diff(store: Store, before: str, after: str, progress: Progress) -> Report:
    names, contents, checks = zip(
        *(_content_of(store, text, progress) for text in (before, after)), strict=True
    )
    changes, dags = compare(*contents), compare_dags(*checks)
    facts = {
        "url": store.url,
        "before": names[0],
        "after": names[1],
        "changes": changes.facts(),
        "dags": dags.facts() if dags else None,
    }
    between = f"{short(names[0])} → {short(names[1])}"
    return Report([f"{between}: {changes}", *changes.lines(), *_dag_lines(dags)], facts)


def _content_of(
    store: Store, text: str, progress: Progress
) -> tuple[str, dict[str, str], Checked | None]:
    """
    Return the content that an argument names: a folder, ``current``, ``previous`` or a revision.
    """
    if "/" in text or text in (".", ".."):
        seen = look(text, Ignore(text, ()))
        digests = digests_of(seen.files, progress.counter("Reading files", len(seen.files)))
        return text, content_of_folder(seen, digests), None
    is_turn = text in ("current", "previous")
    if not is_turn and os.path.isdir(text):
        raise RevisionError(
            "release_unknown", f"{text!r} is a local folder", f"Write ./{text} to compare it."
        )
    revision = _turn_of(store, text) if is_turn else resolve(store, text)
    kept = find_release(store, revision)
    if kept.manifest is None:
        raise kept.sealed or incomplete(revision)
    return revision, content_of(kept.manifest), kept.manifest.head.checked


def _turn_of(store: Store, text: str) -> str:
    """
    Return the current or the previous revision.

    Raises:
        ReleaseError: No such release exists.
    """
    current = read_current(store)
    pointer = current.trusted if current else None
    turn = pointer and (pointer.turn if text == "current" else pointer.previous)
    if not turn:
        raise ReleaseError(
            "history_empty",
            f"{store.url} has no {text} release",
            "Pass a revision; `s3-sync releases` lists the existing ones.",
        )
    return turn.revision


def _rollback(
    store: Store, revision: str | None, who: Origin, *, is_dry: bool, repairs: bool
) -> Report:
    done = roll_back(store, revision, who, is_dry=is_dry, repairs=repairs)
    before, after = done.before and short(done.before.revision), short(done.after.revision)
    result = "unchanged" if done.before == done.after else "planned" if is_dry else "rolled_back"
    facts = {
        "result": result,
        "url": store.url,
        "revision": done.after.revision,
        "previous": done.before.revision if done.before else None,
        "history": [turn.revision for turn in done.after.history],
        "conditional_writes": done.is_guarded,
        **_signed_facts(store),
    }
    lines = [UNGUARDED] if done.is_guarded is False else []
    if result == "unchanged":
        return Report([f"Unchanged: {store.url} is already at {after}"], facts)
    verb = "Would roll" if is_dry else "Rolled"
    origin = done.after.origin
    what = ", ".join(part for part in (origin.commit[:12], origin.message) if part)
    before = None if before == after else before  # the same release with a new pointer
    left = f"from {before} " if before else ""
    lines.append(f"{verb} {store.url} back {left}to {after}{what and f' ({what})'}")
    lines += _signed_lines(store) if result == "rolled_back" else []
    lines += [f"To undo this: `s3-sync rollback {before} {store.url}`"] if before else []
    return Report(lines, facts)


def _prune(store: Store, keep: set[str], arguments: argparse.Namespace, *, is_dry: bool) -> Report:
    unmatched = 0
    for name in read_names(arguments.keep_from):
        try:
            keep.add(resolve(store, name))
        except Unmatched:  # such as a commit, of runs from before a move from git to releases
            unmatched += 1
    done = prune(store, keep, arguments.keep_count, arguments.keep_for, is_dry=is_dry)
    facts = {
        "result": "planned" if is_dry else "pruned",
        "url": store.url,
        "removed": [entry.revision for entry in done.removed],
        "kept": [entry.revision for entry in done.kept],
        "bundles": done.bundles,
        "freed_bytes": done.freed_bytes,
    }
    verb = "Would remove" if is_dry else "Removed"
    lines = [
        f"{verb} {short(entry.revision)}, last used {time_text(entry.used_at)}"
        for entry in done.removed
    ]
    if unmatched:
        lines.append(f"Lines of --keep-from that match no release: {unmatched}")
    lines.append(
        f"{verb} from {store.url}: releases {len(done.removed)}, bundles {done.bundles} "
        f"({size_text(done.freed_bytes)}); releases kept: {len(done.kept)}"
    )
    return Report(lines, facts)


def _pin(store: Store, revision: str, by: str) -> Report:
    kept = find_release(store, revision)
    if kept.manifest is None and kept.sealed is None:
        raise incomplete(revision)
    facts = {"result": "pinned", "url": store.url, "revision": revision}
    if not announce(store, revision):
        raise unknown(store, revision)
    note = {"pinned_at": time_text(datetime.now(UTC)), "pinned_by": by}
    store.put(pin_key(revision), json.dumps(note).encode() + b"\n")
    return Report([f"Pinned {revision} in {store.url}: it will not be pruned"], facts)


def _unpin(store: Store, revision: str) -> Report:
    facts = {"result": "unpinned", "url": store.url, "revision": revision}
    if revision not in read_pins(store):
        return Report(
            [f"Unchanged: {short(revision)} is not pinned"], facts | {"result": "unchanged"}
        )
    store.delete(pin_key(revision))
    return Report([f"Unpinned {short(revision)} in {store.url}"], facts)
