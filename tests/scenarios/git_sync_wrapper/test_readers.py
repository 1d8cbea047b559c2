"""Readers at full speed find one whole commit whatever fails around git-sync."""

import os
import random
import shutil
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Counts
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite, corrupt
from tests.support.http.faults import answer_with, hang, truncate
from tests.support.http.loopback import Answer, Exchange
from tests.support.reading import Readers
from tests.support.revisions import make_revision

RETAIN_SECONDS = 4
SETTINGS = {
    "GIT_SYNC_WRAPPER_RETAIN_COUNT": "1",
    "GIT_SYNC_WRAPPER_RETAIN_FOR": f"{RETAIN_SECONDS}s",
    "GIT_SYNC_WRAPPER_GATE": "command",
    "GIT_SYNC_WRAPPER_GATE_COMMAND": "/usr/bin/test ! -e BROKEN",
    "GITSYNC_PERIOD": "100ms",
}


class Trouble:
    """A remote, a wrapper and a volume, with methods that disturb them."""

    def __init__(self, here: GitSite, chance: random.Random) -> None:
        self.here = here
        self.chance = chance
        self.number = 1
        self.bad: set[str] = set()
        self.wrapper: SidecarProcess = here.publish(**SETTINGS)
        self.private = here.root / ".git-sync"

    def commit(self, **options: str) -> None:
        self.number += 1
        self.here.wait_until_shown(
            self.here.commit_revision(self.number, **options), self.wrapper, 60
        )

    def hurried_commits(self) -> None:
        """Commit three times, faster than any period."""
        for _ in range(3):
            self.number += 1
            self.here.commit_revision(self.number)

    def bad_commit(self) -> None:
        """Commit a revision that the gate refuses."""
        self.number += 1
        seen = len(self.wrapper.events)
        files = {**make_revision(self.number), "BROKEN": b""}
        self.bad.add(self.here.repository.commit(files, whole=True))
        self.wrapper.wait_for_event("revision_refused", 60, after=seen)

    def force_push(self) -> None:
        self.commit(onto="")

    def branch_deletion(self) -> None:
        head, seen = self.here.repository.head(), len(self.wrapper.events)
        self.here.repository.delete_branch("main")
        self.wrapper.wait_for_event("cycle_failed", 60, after=seen)
        self.here.repository.set_branch("main", head)

    def kill_of_git_sync(self) -> None:
        self.hurried_commits()
        for _ in range(20):
            self.here.kill_engine()

    def kill_of_the_wrapper(self) -> None:
        self.hurried_commits()
        # A random moment: time itself is what is tested here.
        self.here.server.wait_for(
            count=len(self.here.server.requests) + self.chance.randrange(4)
        )
        self.wrapper.kill()
        self.wrapper.start()

    def wiped_root(self) -> None:
        """Delete or damage everything that git-sync has."""
        if self.chance.random() < 0.5:
            shutil.rmtree(self.private, ignore_errors=True)
        else:
            corrupt(self.private)
        self.commit()

    def unreachable_remote(self) -> None:
        """Stop the server, or let it return errors or truncated answers."""
        seen = len(self.wrapper.events)
        if self.chance.random() < 0.5:
            self.here.server.stop()
            self.wrapper.wait_for_event("cycle_failed", 60, after=seen)
            self.here.server.start()
            return
        self.here.server.inject(
            self.chance.choice([answer_with(Answer(503)), truncate(60)])
        )
        self.hurried_commits()
        self.wrapper.wait_for_event("cycle_failed", 60, after=seen)
        self.here.server.heal()

    def hanging_remote(self) -> None:
        """Let one answer stop after 100 bytes, and commit meanwhile."""
        hung = threading.Event()

        def stop_halfway(exchange: Exchange) -> None:
            hung.set()
            hang(after=100)(exchange)

        self.here.server.inject(stop_halfway, times=1)
        assert hung.wait(60)
        self.hurried_commits()
        self.here.server.heal()


@pytest.mark.timeout(3_600)
def test_readers_always_see_a_whole_tree_during_random_failures(
    here: GitSite, counts: Counts
) -> None:
    chance = random.Random(os.environ.get("SEED", "7"))
    trouble = Trouble(here, chance)
    kinds: list[Callable[[], None]] = [
        trouble.commit,
        trouble.bad_commit,
        trouble.force_push,
        trouble.branch_deletion,
        trouble.kill_of_git_sync,
        trouble.kill_of_the_wrapper,
        trouble.wiped_root,
        trouble.unreachable_remote,
        trouble.hanging_remote,
    ]
    seen: Counter[str] = Counter()
    flaws: list[str] = []
    happened: Counter[str] = Counter()
    rounds = 0
    while seen["trees"] < counts.tree_reads or rounds < counts.tree_reads // 1_000:
        rounds += 1
        chance.shuffle(kinds)
        readers = Readers(here.link, RETAIN_SECONDS)
        try:
            for happen in kinds:
                happen()
                happened[happen.__name__] += 1
            found: dict[str, Any] = readers.stop()
        finally:
            readers.kill()
        flaws += found.pop("flaws")
        seen.update(found)
    trouble.commit()
    print(f"{dict(seen)} {dict(happened)}, {trouble.number} revisions")

    assert [] == flaws
    assert 0 == seen["gone"]
    assert seen["changes"] >= 4
    assert seen["late"] < seen["trees"] / 10
    assert {".git-sync", ".snapshots", "repo"} == set(os.listdir(here.root))
    assert 0 == trouble.wrapper.terminate().code
