"""
The wrapper detects and repairs files that another writer or a power loss has damaged.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar_runtime.volume.own import walk
from sidecar_runtime.volume.snapshots import opened
from tests import Texts
from tests.scenarios.git_sync_wrapper.conftest import record
from tests.support.git.git_repository import Files
from tests.support.git.git_sync import GitSite
from tests.support.scripts import script
from tests.support.waiting import wait_until

Spoil = Callable[[Path], None]
FILES: Files = {
    "a.py": "a = 1\n",
    "pkg/deep/b.py": "b = 1\n",
    "c.py": "a.py",
}


def empty_tree(tree: Path) -> None:
    """Empty the tree, as `rm -rf repo/*` does."""
    for path in tree.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def truncate(tree: Path) -> None:
    """Empty all modules, as a power loss does with files that were not flushed."""
    for path in tree.rglob("*.py"):
        if not path.is_symlink():
            path.write_text("")


def edit(tree: Path) -> None:
    """Replace the content of a file by one of the same size."""
    (tree / "pkg/deep/b.py").write_text("b = 2\n")


def lock_up(tree: Path) -> None:
    (tree / "a.py").chmod(0)


def put_something_else(tree: Path) -> None:
    shutil.rmtree(tree / "pkg")
    (tree / "pkg").symlink_to("/etc")
    (tree / "a.py").unlink()
    (tree / "a.py").mkdir()
    (tree / "a.py/inside").touch()
    (tree / "c.py").unlink()
    (tree / "c.py").symlink_to("elsewhere.py")


SPOILS = [empty_tree, truncate, edit, lock_up, put_something_else]


def contents(tree: Path) -> Texts:
    """
    Return the mode and content, or link target, of each file and folder except git's
    own.
    """
    return {
        str(path.relative_to(tree)): f"-> {os.readlink(path)}"
        if path.is_symlink()
        else f"{path.stat().st_mode:o} {path.read_text() if path.is_file() else ''}"
        for path in tree.rglob("*")
        if path.name != ".git"
    }


def commit_files(here: GitSite, **changed: str) -> str:
    return here.repository.commit(
        {**FILES, "new.py": "new\n", **changed}, whole=True, modes={"c.py": "120000"}
    )


@pytest.mark.parametrize("spoil", SPOILS)
def test_a_signal_repairs_damage_while_offline(here: GitSite, spoil: Spoil) -> None:
    commit_files(here, **{"new.py": "old\n"})
    wrapper = here.publish()
    here.wait_until_shown(commit_files(here), wrapper)
    before = contents(here.link.resolve())
    here.server.stop()
    spoil(here.link.resolve())

    wrapper.sync()

    assert before == contents(here.link.resolve()), wrapper.log()
    assert 200 == wrapper.get("/readyz").status
    assert wrapper.find_events("damage_found") and wrapper.find_events(
        "damage_repaired"
    )


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_start_repairs_damage_and_leaves_intact_files_alone(
    here: GitSite, *, is_listed: bool
) -> None:
    """Without a list of the files, git's objects are the reference."""
    commit_files(here)
    here.publish().kill()
    tree = here.link.resolve()
    before = contents(tree)
    time = (tree / "a.py").stat().st_mtime_ns
    if not is_listed:
        tree.with_name(f"{tree.name}.files").unlink()
    edit(tree)
    here.server.stop()

    here.wrapper().wait_until_ready()

    assert before == contents(here.link.resolve())
    assert time == (here.link / "a.py").stat().st_mtime_ns


def forget_published(here: GitSite) -> None:
    """
    Remove the unreachable objects of the published commit, as git-sync does after it
    has fetched a newer one.
    """
    engine = here.root / ".git-sync"
    for words in (
        "worktree prune",
        "reflog expire --expire=now --all",
        "gc --quiet --prune=now",
    ):
        subprocess.run(
            ["git", "-c", "safe.directory=*", *words.split()], cwd=engine, check=True
        )


def test_repairs_damage_behind_refused_commits_while_offline(here: GitSite) -> None:
    commit_files(here)
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")
    tree = here.link.resolve()
    before = contents(tree)
    pointer = (tree / ".git").read_text()
    for number in range(2):
        refused = commit_files(here, **{"bad.py": f"x = = {number}\n"})
        wrapper.wait_for_event("revision_refused", revision=refused)
    forget_published(here)
    here.server.stop()
    empty_tree(tree)

    wrapper.sync()

    assert before == contents(here.link.resolve()), wrapper.log()
    assert pointer == (here.link / ".git").read_text()
    assert 200 == wrapper.get("/readyz").status


def test_a_repair_whose_files_somebody_removes_is_not_published(here: GitSite) -> None:
    go_on = here.folder / "go-on"
    body = f"""git "$@" || exit
test $1 = read-tree || exit 0
rm "$GIT_WORK_TREE/a.py"
until test -e {go_on}; do sleep 0.1; done"""
    commit_files(here)
    wrapper = here.publish(GITSYNC_GIT=script(here.folder / "git", body))
    before = contents(here.link.resolve())
    wrapper.wait_until_ready()
    at = record(here)["published_at"]
    edit(here.link.resolve())
    wrapper.send_signal(signal.SIGHUP)
    wait_until(lambda: 503 == wrapper.get("/readyz").status, "it is not ready")
    go_on.touch()

    assert "a.py" in wrapper.wait_for_event("restore_failed")["error"]
    wait_until(
        lambda: before == contents(here.link.resolve()), "git-sync has brought it"
    )
    assert at == record(here)["published_at"]


def test_no_more_than_a_sparse_checkout_comes_to_the_volume_for_a_repair(
    here: GitSite,
) -> None:
    """Only git-sync can make one, and needs the remote; a whole tree may not fit."""
    (patterns := here.folder / "sparse").write_text("/pkg\n")
    log = here.folder / "log"
    git = script(here.folder / "git", f'echo "$1" >> {log}\nexec git "$@"')
    commit_files(here)
    wrapper = here.publish(GITSYNC_SPARSE_CHECKOUT_FILE=str(patterns), GITSYNC_GIT=git)
    before = contents(here.link.resolve())
    here.server.stop()
    edit(here.link.resolve())
    wrapper.sync()
    here.server.start()

    wait_until(lambda: before == contents(here.link.resolve()), "it is repaired")
    assert "read-tree" not in log.read_text().split()


def test_what_vanishes_during_an_inspection_does_not_stop_it(tmp_path: Path) -> None:
    """Consumers compile modules under temporary names."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with opened(str(tmp_path)) as top:
        walking = walk(top)
        next(walking)
        empty_tree(tmp_path)

        assert [] == list(walking)


def test_is_not_ready_while_the_link_is_gone_and_cannot_come_back(
    here: GitSite,
) -> None:
    folder = here.folder / "links"
    wrapper = here.wrapper(GITSYNC_LINK=str(folder / "repo"))
    wrapper.wait_until_ready()
    shutil.rmtree(folder)
    folder.touch()

    wait_until(lambda: 503 == wrapper.get("/readyz").status, "it is not ready")
    folder.unlink()
    wrapper.wait_until_ready()
    shutil.rmtree(here.store)
    wait_until((here.store / ".airflowignore").exists, "Airflow skips the store")


def test_standby_and_one_shot_wait_until_the_lock_holder_repairs_damage(
    here: GitSite,
) -> None:
    """
    On a shared volume each pod inspects for itself; the next poll of the holder is far
    away.
    """
    commit_files(here)
    holder = here.publish(GITSYNC_PERIOD="1h")
    before = contents(here.link.resolve())
    truncate(here.link.resolve())

    second = here.wrapper()
    one_shot = here.wrapper(GITSYNC_ONE_TIME="true")

    second.wait_for_event("damage_found")
    one_shot.wait_for_event("damage_found")
    assert 503 == second.get("/readyz").status
    assert one_shot.is_running()
    holder.sync()
    assert 0 == one_shot.wait_for_exit().code
    second.wait_until_ready()
    assert before == contents(here.link.resolve())
    assert [] == second.find_events("damage_repaired")
