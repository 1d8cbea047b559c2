"""
One volume for all pods: one writer, standbys, one-shots beside them, and rolling
updates.
"""

import errno
import fcntl
import os
import random
import shutil

import pytest

from tests import Facts
from tests.conftest import Counts
from tests.support.git.git_repository import Files
from tests.support.git.git_sync import GitSite
from tests.support.machine.refusing import refusing
from tests.support.machine.volumes import see_mounted
from tests.support.reading import reading
from tests.support.scripts import script
from tests.support.waiting import wait_until

RETAIN_SECONDS = 4
PODS = 3
ONE_SHOT = {"GITSYNC_ONE_TIME": "true"}
ONE_RUN = "--one-time=true"
"""What the wrapper gives to git-sync."""
KILLED = "git-sync ended with signal 9"


@pytest.mark.timeout(3_600)
def test_readers_see_only_whole_trees_while_pods_and_git_sync_are_killed(
    here: GitSite, counts: Counts
) -> None:
    chance = random.Random(11)
    settings = {
        "GIT_SYNC_WRAPPER_RETAIN_COUNT": "1",
        "GIT_SYNC_WRAPPER_RETAIN_FOR": f"{RETAIN_SECONDS}s",
    }
    pods = [here.publish(**settings) for _ in range(PODS)]
    seen: Facts = {}
    number = 1
    while seen.get("trees", 0) < counts.tree_reads // 2:
        with reading(seen, here.link, RETAIN_SECONDS):
            # A run may be over before it is killed.
            while KILLED not in str([pod.events for pod in pods]):
                number += 1
                newest = here.commit_revision(number)
                wait_until(
                    lambda: (
                        ONE_RUN in str([*here.gits_alive()])
                        or here.repository.head() == here.shown()
                    ),
                    "git-sync works",
                )
                here.kill_engine()
            here.wait_until_shown(newest)
            for pod in pods:
                number += 1
                newest = here.commit_revision(
                    number, **({"onto": ""} if number % 3 else {})
                )
                one_shot = here.wrapper(**settings, **ONE_SHOT)
                pod.kill()  # one of the pods is the lock holder
                if chance.random() < 0.3:
                    shutil.rmtree(here.root / ".git-sync", ignore_errors=True)
                pod.start()
                assert 0 == one_shot.wait_for_exit().code, one_shot.log()
                assert newest == here.shown()

    assert ([], 0) == (seen["flaws"], seen["gone"])
    assert seen["changes"] >= PODS


def test_a_rolling_update_is_ready_throughout_and_publishes_the_next_commit(
    here: GitSite,
) -> None:
    old = here.publish()
    for number in (2, 3, 4):
        new = here.wrapper()
        assert here.shown() == new.wait_until_ready().json()["revision"]
        new.wait_for_event("wait_began", reason="target_locked")
        assert 0 == old.terminate().code
        here.wait_until_shown(here.commit_revision(number), new)
        old = new


@pytest.mark.parametrize("what", ["list", "store"])
def test_a_holder_of_another_version_lets_a_rollout_go_on(
    here: GitSite, what: str
) -> None:
    """It records what it has published in a form that this version cannot read."""
    here.publish().kill()
    tree = here.link.resolve()
    if what == "list":
        tree.with_name(f"{tree.name}.files").write_text('["another form"]')
    else:
        tree.rename(here.root / "others")
        here.link.unlink()
        here.link.symlink_to("others")
    with (here.store / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        new = here.wrapper()

        said = new.wait_until_ready().json()

        assert here.link.resolve().name == said["revision"]
        assert ("others" in (said["shortfall"] or "")) == (what == "store")
    here.wait_until_shown(here.commit_revision(2), new)


def test_a_start_that_cannot_take_the_lock_is_ready_for_what_is_published(
    here: GitSite,
) -> None:
    here.publish().kill()
    (lock := here.store / "lock").unlink()
    lock.mkdir()
    wrapper = here.describe()
    see_mounted(wrapper, lock, lock)
    wrapper.start()

    assert "cannot lock" in wrapper.wait_for_event("cycle_failed")["error"]
    assert here.shown() == wrapper.wait_until_ready().json()["revision"]


def test_a_one_shot_beside_a_writer_reports_why_its_own_poll_fails(
    here: GitSite,
) -> None:
    here.publish()
    here.server.stop()
    one_shot = here.wrapper(**ONE_SHOT, GIT_SYNC_WRAPPER_ONE_SHOT_DEADLINE="5s")

    assert 3 == one_shot.wait_for_exit().code
    (gave_up,) = one_shot.find_events("sidecar_gave_up")
    assert "one_shot_deadline" == gave_up["reason"]
    assert gave_up["error"].startswith("remote_unreachable: cannot poll the remote: ")


def test_a_hook_runs_in_the_folder_of_its_commit_though_a_writer_shows_a_newer_one(
    here: GitSite,
) -> None:
    writer = here.publish()
    polled = here.folder / "polled"
    git = f"""git "$@"
[ $1 != ls-remote ] || touch {polled}
while [ -e {polled} ]; do sleep 0.1; done"""
    one_shot = here.wrapper(
        **ONE_SHOT,
        GITSYNC_GIT=script(here.folder / "git", git),
        GITSYNC_EXECHOOK_COMMAND=script(
            here.folder / "in", "pwd -P | grep /$GITSYNC_HASH"
        ),
    )
    wait_until(polled.exists, "it has polled")
    here.wait_until_shown(here.commit_revision(2), writer)
    polled.unlink()

    assert 0 == one_shot.wait_for_exit().code


def test_without_hard_links_commits_are_copied_and_damage_is_still_repaired(
    here: GitSite,
) -> None:
    """Symlinks are copied and repaired as well: they are part of the commit."""
    modes = {"link.py": "120000", "run.sh": "100755"}
    files: Files = {
        "a.py": "a = 1\n",
        "link.py": "a.py",
        "pkg/b.py": "b = 1\n",
        "run.sh": "#!/bin/sh\n",
    }
    here.repository.commit(files, whole=True, modes=modes)
    wrapper = here.describe()
    wrapper.wrapper = refusing(errno.EPERM, "link", "linkat")
    here.wait_until_shown(here.repository.head(), wrapper.start())
    first = here.link.resolve()
    assert "a.py" == os.readlink(first / "link.py")
    assert os.access(first / "run.sh", os.X_OK)
    here.run_once()
    here.wait_until_shown(here.repository.commit({"b.py": "b = 1\n"}), wrapper)
    tree = here.link.resolve()
    assert not (tree / "a.py").samefile(first / "a.py")
    (tree / "a.py").write_text("damaged")
    (tree / "link.py").unlink()

    wrapper.sync()

    tree = here.link.resolve()
    assert ("a = 1\n", "a.py") == (
        (tree / "a.py").read_text(),
        os.readlink(tree / "link.py"),
    )
    wait_until(lambda: 200 == wrapper.get("/readyz").status, "it is ready")
