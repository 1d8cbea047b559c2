"""
Read whole trees during commits, kills and wipes, with git-sync alone and inside the wrapper.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.support.git.git_sync import GitSite
from tests.support.reading import Readers
from tests.support.revisions import make_revision

PROMISED = 10_000
RETAIN_SECONDS = 30
GATE = {
    "GIT_SYNC_WRAPPER_GATE": "command",
    "GIT_SYNC_WRAPPER_GATE_COMMAND": "/usr/bin/test ! -e BROKEN",
    "GIT_SYNC_WRAPPER_RETAIN_COUNT": "1",
    "GIT_SYNC_WRAPPER_RETAIN_FOR": f"{RETAIN_SECONDS}s",
}


@dataclass(frozen=True)
class Siege:
    """
    The result of reading trees during faults.

    Args:
        happened: The kinds of events, for the table.
        trees: The number of trees that readers tried to read.
        failed: Of these, how many were missing or incomplete.
    """

    happened: str
    trees: int
    failed: int


def of_git_sync(here: GitSite, reads: int, rounds: int) -> Siege:
    """
    Commit as soon as the last commit is published, and kill and restart git-sync like the kubelet.
    """
    numbers = itertools.count(1)
    here.commit_revision(next(numbers))
    process = here.plain(GITSYNC_PERIOD="50ms")
    here.wait_until_shown(here.repository.head(), timeout_seconds=60)

    def commit() -> None:
        here.wait_until_shown(here.commit_revision(next(numbers)), timeout_seconds=60)

    def kill() -> None:
        here.commit_revision(next(numbers))
        here.kill_engine()
        process.kill()
        process.start()
        commit()

    return _siege(here, "commits, kills", [*[commit] * 6, kill], reads, rounds)


def of_ours(here: GitSite, reads: int, rounds: int) -> Siege:
    """
    Also make bad commits, kill the wrapper, and remove all files of git-sync.
    """
    numbers = itertools.count(1)
    here.commit_revision(next(numbers))
    wrapper = here.publish(GITSYNC_PERIOD="50ms", **GATE)

    def commit() -> None:
        commit = here.commit_revision(next(numbers))
        here.wait_until_shown(commit, wrapper, timeout_seconds=60)

    def bad_commit() -> None:
        seen = len(wrapper.events)
        here.repository.commit({**make_revision(next(numbers)), "BROKEN": b""}, whole=True)
        wrapper.wait_for_event("revision_refused", 60, after=seen)

    def kill_git_sync() -> None:
        here.commit_revision(next(numbers))
        here.kill_engine()
        commit()

    def kill_wrapper() -> None:
        here.commit_revision(next(numbers))
        wrapper.kill()
        wrapper.start()
        commit()

    def wipe() -> None:
        shutil.rmtree(here.root / ".git-sync", ignore_errors=True)
        commit()

    deeds = [*[commit] * 6, bad_commit, kill_git_sync, kill_wrapper, wipe]
    return _siege(here, "commits, bad commits, kills, wipes", deeds, reads, rounds)


SIEGES: Mapping[str, Callable[[GitSite, int, int], Siege]] = {
    "git-sync": of_git_sync,
    "git-sync-wrapper": of_ours,
}


def _siege(
    here: GitSite, happened: str, deeds: Iterable[Callable[[], None]], reads: int, rounds: int
) -> Siege:
    """
    Repeat all events while two processes read, until there are enough reads and rounds.
    """
    trees = failed = done = 0
    while trees < reads or done < rounds:
        done += 1
        readers = Readers(here.link, RETAIN_SECONDS)
        try:
            for deed in deeds:
                deed()
            seen = readers.stop()
        finally:
            readers.kill()
        trees += seen["trees"]
        failed += len(seen["flaws"]) + seen["gone"]
    return Siege(happened, trees, failed)
