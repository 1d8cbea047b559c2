"""
Outages of git-sync itself, one test each: the reasons for the wrapper.

`test_outages` has the same situations with the wrapper. The wrapper does not run here, so these run
with `--full` only: they show whether those reasons still hold for a new git-sync.
"""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scenarios.git_sync_wrapper.git_sync.situations import (
    after,
    corrupt,
    damage_link,
    head_lock,
    index_lock,
    is_pack,
    shallow_lock,
    tmp_link,
)
from tests.support.daemon import ask
from tests.support.git.askpass import AskpassServer
from tests.support.git.git_sync import GitSite, PlainGitSync
from tests.support.http.faults import answer_with, hang
from tests.support.http.loopback import Answer
from tests.support.machine.volumes import small_volume
from tests.support.program import own_port
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def only_with_full(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("tests git-sync itself: runs with make test-full")


def started(here: GitSite, *arguments: str, **settings: str | None) -> PlainGitSync:
    """Start git-sync; return it once it publishes the head of the branch."""
    process = here.plain(*arguments, **settings)
    here.wait_until_shown(here.repository.head(), process)
    return process


def fails_again_and_again(process: PlainGitSync, times: int = 3) -> None:
    """Wait until `times` more syncs have failed."""
    enough = process.failures() + times
    wait_until(lambda: process.failures() >= enough, f"{times} failures:\n{process.log()}", 30)


def test_a_rotated_username_fails_every_sync_when_old_credentials_get_403(here: GitSite) -> None:
    here.server.accept(("user-1", "password-1"))
    here.server.refusal = 403
    with AskpassServer("user-1", "password-1") as askpass:
        process = started(here, GITSYNC_ASKPASS_URL=askpass.endpoint)
        here.server.accept(("user-2", "password-2"))
        askpass.username, askpass.password = "user-2", "password-2"
        here.commit_revision(2)

        fails_again_and_again(process)


@pytest.mark.parametrize("spoil", [shallow_lock, corrupt])
def test_lock_or_damage_wipes_the_dags_while_the_remote_is_down(
    here: GitSite, spoil: Callable[[Path], None]
) -> None:
    started(here).kill()
    spoil(here.root)
    here.server.stop()
    process = here.plain()

    fails_again_and_again(process, 1)
    assert here.link.is_symlink() and "" == here.shown()


@pytest.mark.parametrize("spoil", [tmp_link, head_lock, damage_link, index_lock])
def test_a_leftover_stops_all_syncs(here: GitSite, spoil: Callable[[Path], None]) -> None:
    """The lock of a killed checkout does so until the next commit, the others permanently."""
    started(here).kill()
    spoil(here.root)
    if spoil is not index_lock:
        here.commit_revision(2)
    process = here.plain()

    fails_again_and_again(process)
    assert spoil is index_lock or here.shown() != here.repository.head()


def test_a_full_disk_stays_full_after_the_repository_shrinks(here: GitSite) -> None:
    with small_volume(here.root, "4m"):
        process = started(here)
        here.repository.commit({"big.bin": os.urandom(3_000_000)})
        fails_again_and_again(process, 1)
        here.repository.commit({"big.bin": None})

        fails_again_and_again(process)
        process.kill()


def test_publishes_broken_code_removes_foreign_files_and_exits_on_one_failure(
    here: GitSite,
) -> None:
    """A failing hook stops nothing; with the chart's defaults, one failed sync ends git-sync."""
    (here.root / "lost+found").mkdir(parents=True)
    process = started(here, GITSYNC_EXECHOOK_COMMAND="/bin/false", GITSYNC_MAX_FAILURES="0")
    assert not (here.root / "lost+found").exists()
    broken = here.repository.commit({"broken.py": "def ("})

    here.wait_until_shown(broken, process)
    here.server.inject(answer_with(Answer(502)))
    assert 1 == process.wait_for_exit().code


def test_health_stays_good_while_every_sync_fails(here: GitSite) -> None:
    address = ("127.0.0.1", own_port())
    bind = f"127.0.0.1:{address[1]}"
    process = started(here, GITSYNC_HTTP_BIND=bind, GITSYNC_HTTP_METRICS="true")
    here.server.stop()
    fails_again_and_again(process)

    assert 200 == ask(address, "/").status
    assert "timestamp" not in ask(address, "/metrics").body


def test_removes_the_old_tree_while_readers_may_use_it(here: GitSite) -> None:
    process = started(here)
    resolved = here.link.resolve()
    here.wait_until_shown(here.commit_revision(2), process)

    wait_until(lambda: not resolved.exists(), "the old tree is gone")


def test_askpass_that_takes_longer_than_a_second_fails_the_sync(here: GitSite) -> None:
    with AskpassServer("user", "password") as askpass:
        askpass.inject(after(1.5))
        process = here.plain(GITSYNC_ASKPASS_URL=askpass.endpoint)

        fails_again_and_again(process, 1)


def test_sigterm_leaves_a_git_process_running(here: GitSite) -> None:
    here.server.inject(hang(), is_pack)
    process = here.plain()
    here.server.wait_for(is_pack)

    end = process.terminate()

    assert -signal.SIGTERM == end.code
    assert [line for line in here.gits_alive() if " fetch " in line]


def test_a_hash_as_ref_sleeps_forever_and_ignores_signals(here: GitSite) -> None:
    process = here.plain(GITSYNC_REF=here.repository.head(), GITSYNC_SYNC_ON_SIGNAL="SIGHUP")
    process.wait_for_message("no further sync needed")
    here.server.forget()
    process.sighup()

    with pytest.raises(TimeoutError):
        here.server.wait_for(timeout=1)


def test_a_second_git_sync_wipes_a_root_that_the_first_one_uses(here: GitSite) -> None:
    started(here).kill()
    here.repository.commit({"big.bin": os.urandom(300_000)})
    here.server.inject(hang(after=200_000), is_pack, times=1)
    here.plain()
    wait_until((here.root / ".git/shallow.lock").exists, "the first one is in the midst")
    second = here.plain()

    second.wait_for_message("failed checks")
