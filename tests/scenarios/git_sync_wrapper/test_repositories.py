"""Unusual repositories: SHA-256, submodules that come and go, Git LFS."""

import shutil
import subprocess

from tests.support.git.git_repository import Repository
from tests.support.git.git_sync import GitSite


def test_follows_and_repairs_a_sha_256_repository(here: GitSite) -> None:
    """GIT_DEFAULT_HASH makes git-sync itself create such a clone."""
    folder = here.repository.folder
    shutil.rmtree(folder)
    repository = Repository(folder, object_format="sha256")
    assert 64 == len(repository.commit({"a.py": "a = 1\n"}))
    wrapper = here.publish(GIT_DEFAULT_HASH="sha256")
    second = repository.commit({"a.py": "a = 2\n"})
    here.wait_until_shown(second, wrapper)
    (here.link / "a.py").write_text("")

    wrapper.sync()

    assert {"a.py": b"a = 2\n"} == here.files()
    assert (
        0 == here.wrapper("--one-time", GIT_DEFAULT_HASH="sha256").wait_for_exit().code
    )
    assert second == wrapper.wait_until_ready().json()["revision"]


def test_adds_and_removes_submodules_with_the_commits(here: GitSite) -> None:
    """
    Even if `.gitmodules` is not checked out. If it lacks a submodule, git refuses the
    commit.
    """
    commit = here.server.repository("library.git").commit({"lib.py": "lib = 1\n"})
    first = here.repository.commit({"a.py": "a = 1\n"}, whole=True)
    patterns = here.folder / "sparse"
    patterns.write_text("*.py\n/lib\n")
    wrapper = here.wrapper(GITSYNC_SPARSE_CHECKOUT_FILE=str(patterns))
    here.wait_until_shown(first, wrapper)

    added = here.repository.commit_submodule(
        "lib", here.server.url("library.git"), commit
    )
    here.wait_until_shown(added, wrapper)

    assert b"lib = 1\n" == here.files()["lib/lib.py"]
    said = f"git -c safe.directory=* -C {here.link}/lib status --porcelain".split()
    wrapper.wait_for_event("cycle_finished", revision=added)
    assert b"" == subprocess.run(said, capture_output=True, check=True).stdout
    assert ".gitmodules" not in here.files()
    here.wait_until_shown(
        here.repository.commit({"lib": None, ".gitmodules": None}), wrapper
    )
    assert {"a.py": b"a = 1\n"} == here.files()
    here.wait_until_shown(here.repository.commit({"a.py": "a = 2\n"}), wrapper)
    seen = len(wrapper.events)
    here.repository.commit_submodule("lib", here.server.url("library.git"), commit)
    here.repository.commit({".gitmodules": None})

    failed = wrapper.wait_for_event("cycle_failed", after=seen)

    assert "No url found for submodule path 'lib'" in failed["error"], failed
    assert {"a.py": b"a = 2\n"} == here.files()


POINTER = (
    f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12345\n"
)


def test_names_git_lfs_pointers(here: GitSite) -> None:
    here.repository.commit({"dag.py": "x = 1\n", "data.bin": POINTER}, whole=True)
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")

    assert ["data.bin"] == wrapper.wait_for_event("lfs_pointers_published")["paths"]
    assert (
        "data.bin is a Git LFS pointer"
        in wrapper.wait_until_ready().json()["shortfall"]
    )

    here.repository.commit({"dag.py": POINTER})
    wrapper.wait_for_event("cycle_finished", reason="revision_refused")
    assert "dag.py: is a Git LFS pointer" in wrapper.get("/readyz").json()["error"]
