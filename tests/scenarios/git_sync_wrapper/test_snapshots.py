"""
A snapshot is never changed under its readers: its name and its files stay its own.
"""

import fcntl
import os
import subprocess
from datetime import datetime, timedelta

import pytest

from sidecar_runtime.gate.gate import FIRST_REST_SECONDS
from tests.scenarios.git_sync_wrapper.conftest import record
from tests.scenarios.git_sync_wrapper.test_damage import commit_files, contents
from tests.support.git.git_sync import GitSite
from tests.support.scripts import script
from tests.support.waiting import wait_until


@pytest.mark.parametrize("is_damaged", [False, True])
def test_a_commit_that_is_published_again_leaves_its_folder_to_a_task(
    here: GitSite, *, is_damaged: bool
) -> None:
    wrapper = here.publish()
    first = here.repository.head()
    folder = here.link.resolve()
    task = os.open(folder, os.O_RDONLY)
    fcntl.flock(task, fcntl.LOCK_SH)
    before = sorted(os.listdir(task))
    here.wait_until_shown(here.commit_revision(2), wrapper)
    if is_damaged:
        (folder / "odd1.py").write_text("damaged")
    here.repository.git("update-ref", "refs/heads/main", first)

    here.wait_until_shown(first, wrapper)

    assert f".snapshots/{first}{'.2' * is_damaged}" == os.readlink(here.link)
    assert is_damaged != here.link.samefile(folder)
    assert before == sorted(os.listdir(task))
    assert os.fstat(task).st_ino == folder.stat().st_ino
    assert "damaged" not in (here.link / "odd1.py").read_text()
    os.close(task)


def test_a_link_that_somebody_moves_to_an_older_commit_comes_back(
    here: GitSite,
) -> None:
    wrapper = here.publish(
        GIT_SYNC_WRAPPER_RETAIN_COUNT="0",
        GIT_SYNC_WRAPPER_RETAIN_FOR="0s",
        GITSYNC_STALE_WORKTREE_TIMEOUT="1h",
    )
    older = os.readlink(here.link)
    commit = here.commit_revision(2)
    here.wait_until_shown(commit, wrapper)
    here.link.unlink()
    here.link.symlink_to(older)

    here.wait_until_shown(commit, wrapper)
    wrapper.sync()
    assert (here.root / older).is_dir(), "the longer time counts"


def test_a_gate_that_edits_files_before_they_are_published_edits_only_the_new_commit(
    here: GitSite,
) -> None:
    """What it refuses, it is asked about again: that moment is told."""
    commit_files(here)
    wrapper = here.publish(
        GIT_SYNC_WRAPPER_GATE="command",
        GIT_SYNC_WRAPPER_GATE_COMMAND=script(
            here.folder / "edit", "echo '# edited' >> a.py; ! ls bad.py"
        ),
    )
    folder = here.link.resolve()
    before = contents(folder)
    here.wait_until_shown(commit_files(here, **{"new.py": "newer\n"}), wrapper)

    wrapper.sync()

    assert before == contents(folder)
    assert "a = 1\n# edited\n" == (here.link / "a.py").read_text()
    assert here.link.joinpath("pkg/deep/b.py").samefile(folder / "pkg/deep/b.py")
    assert [] == wrapper.find_events("damage_found"), wrapper.log()
    commit_files(here, **{"bad.py": ""})
    wrapper.wait_for(lambda: wrapper.reason() == "revision_refused", "it is told")
    told = wrapper.get("/readyz").json()
    since, until = map(datetime.fromisoformat, (told["since"], told["until"]))
    assert since < until <= since + timedelta(seconds=FIRST_REST_SECONDS)


def test_a_start_swaps_the_link_after_a_kill_between_the_record_and_the_swap(
    here: GitSite,
) -> None:
    wrapper = here.publish()
    old = os.readlink(here.link)
    here.wait_until_shown(here.commit_revision(2), wrapper)
    wrapper.kill()
    here.link.unlink()
    here.link.symlink_to(old)
    here.server.stop()

    here.wrapper().wait_until_ready()

    wait_until(
        lambda: here.repository.head() == here.shown(),
        "the link shows what is recorded",
    )
    assert here.shown() == record(here)["revision"]


@pytest.mark.parametrize("kind", ["pin", "branch"])
def test_becomes_ready_only_with_the_commit_of_a_new_ref(
    here: GitSite, kind: str
) -> None:
    """No answer reports the old commit as good, and readiness is not lost again."""
    first = here.repository.head()
    here.repository.git("branch", "release", first)
    old = here.commit_revision(2)
    here.publish().terminate()
    wrapper = here.wrapper(GITSYNC_REF=first if kind == "pin" else "release")
    wrapper.wait_for_event("http_listening")
    answers: list[tuple[int, str, bool]] = []

    def is_done() -> bool:
        answer = wrapper.get("/readyz")
        said = answer.json()
        answers.append((answer.status, said["revision"], said["shortfall"] is None))
        return (200, first, True) == answers[-1]

    wait_until(is_done, "the new setting is applied", step_seconds=0.01)

    assert (200, old, True) not in answers
    statuses = [status for status, _, _ in answers]
    assert statuses == sorted(statuses, reverse=True), answers


def test_another_depth_applies_at_a_restart(here: GitSite) -> None:
    here.commit_revision(2)
    here.publish(GITSYNC_DEPTH="1").kill()
    here.wrapper(GITSYNC_DEPTH="2")
    words = f"git -c safe.directory=* -C {here.link} rev-list --count HEAD".split()

    wait_until(
        lambda: b"2\n" == subprocess.run(words, capture_output=True).stdout,
        "two commits",
    )
