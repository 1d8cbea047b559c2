"""
The wrapper as a process: its user, its exit at any moment, its memory and its file
modes.
"""

import random
import shutil
import stat
import tempfile
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.support.git.git_sync import GIT_SYNC, WRAPPER, GitSite, git_site
from tests.support.machine.users import as_user
from tests.support.scripts import script
from tests.support.waiting import wait_until


def test_runs_as_any_user_in_group_0_without_a_home() -> None:
    """In a folder that every user can reach; git-sync's own may be its owner's."""
    with (
        tempfile.TemporaryDirectory(prefix="git-site-") as name,
        git_site(folder := Path(name), Path(shutil.copy(GIT_SYNC, name))) as site,
    ):
        folder.chmod(0o755)
        site.root.mkdir(mode=0o2775)
        site.root.chmod(0o2775)
        site.tmp.chmod(0o1777)
        commit = site.commit_revision(1)
        wrapper = site.describe(GITSYNC_GROUP_WRITE="true", HOME="/nonexistent")
        wrapper.program = as_user(folder / "bin", WRAPPER, 50000, 0)
        wrapper.start()
        site.wait_until_shown(commit, wrapper)
        site.wait_until_shown(site.commit_revision(2), wrapper)

        assert 50000 == (site.link / "either.py").stat().st_uid
        assert 0 == wrapper.terminate().code


def test_sigterm_at_any_moment_exits_with_0_and_leaves_no_process(
    here: GitSite, counts: Counts
) -> None:
    chance = random.Random(3)
    ends = []
    for number in range(counts.kills // 4):
        here.commit_revision(number + 2)
        wrapper = here.wrapper()
        wrapper.wait_for_event("sidecar_started")
        last = chance.randrange(20)
        seen: set[str] = set()
        # until so many different git commands have run, or the cycle has finished
        while len(seen) <= last and not wrapper.find_events("cycle_finished"):
            seen.update(line for _, line in here.gits_alive())
        ends.append(wrapper.terminate().code)
        wait_until(lambda: not [*here.gits_alive()], "no process is left")

    assert {0} == set(ends)
    wrapper = here.wrapper()
    here.wait_until_shown(here.repository.head(), wrapper)


@pytest.mark.parametrize(
    ("command", "reason"),
    [("fetch", "sync_timeout"), ("ls-files", "target_incomplete")],
)
def test_a_hanging_git_sync_fails_the_cycle_after_its_timeout(
    here: GitSite, command: str, reason: str
) -> None:
    wrapper = here.wrapper(
        GITSYNC_GIT=script(
            here.folder / "git",
            f'[ "$1" != {command} ] || exec sleep 600\nexec git "$@"',
        ),
        GITSYNC_SYNC_TIMEOUT="6s",
    )

    wrapper.wait_for(lambda: wrapper.reason() == "nothing_published", "it is told")
    # Not the first failure: on a busy machine, git-sync may take too long before.
    wrapper.wait_for_event("cycle_failed", 60, reason=reason)


def test_polls_without_changes_ask_only_for_the_ref(here: GitSite) -> None:
    """A poll is one `git ls-remote`; git-sync runs only for a new commit."""
    wrapper = here.publish(GITSYNC_PERIOD="100ms")
    wrapper.wait_for_event("cycle_finished", after=len(wrapper.events))
    here.server.forget()
    here.server.wait_for(count=20)

    assert {"", "ls-refs"} == {
        "ls-refs" if b"ls-refs" in request.body else request.body.decode()
        for request in here.server.requests
    }
    # Otherwise the server lists all refs, those of all pull requests too.
    asked = [request.body for request in here.server.requests if request.body]
    assert all(b"ref-prefix refs/heads/" in body for body in asked)
    assert 1 == len(
        [line for line in wrapper.events if "initializing" in str(line.get("message"))]
    )


@pytest.mark.parametrize(
    ("group_write", "folder_mode", "mode"),
    [("true", 0o775, 0o664), ("false", 0o755, 0o644)],
)
def test_modes_do_not_depend_on_the_umask(
    here: GitSite, group_write: str, folder_mode: int, mode: int
) -> None:
    wrapper = here.describe(GITSYNC_GROUP_WRITE=group_write)
    wrapper.wrapper = ("/bin/sh", "-c", 'umask 077; exec "$0" "$@"')
    wrapper.start()
    here.wait_until_shown(here.repository.head(), wrapper)

    assert folder_mode == stat.S_IMODE((here.root / ".snapshots").stat().st_mode)
    assert mode == stat.S_IMODE((here.link / "odd1.py").stat().st_mode)
