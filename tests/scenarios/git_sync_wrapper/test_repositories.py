"""Unusual repositories: SHA-256, submodules that come and go, filters."""

import shutil

from tests.scenarios.git_sync_wrapper.conftest import record
from tests.support.git.git_repository import Repository
from tests.support.git.git_sync import GitSite


def test_follows_and_repairs_a_sha_256_repository(here: GitSite) -> None:
    """
    GIT_DEFAULT_HASH makes git-sync itself create such a clone; without it, a start over
    could not help, and with it helps once more.
    """
    folder = here.repository.folder
    shutil.rmtree(folder)
    repository = Repository(folder, object_format="sha256")
    assert 64 == len(repository.commit({"a.py": "a = 1\n"}))
    wrapper = here.wrapper()
    wrapper.wait_for_event("repository_removed")
    wrapper.wait_for_event("cycle_failed", 60, after=len(wrapper.events))
    wrapper.kill()
    wrapper.environment["GIT_DEFAULT_HASH"] = "sha256"
    wrapper.start()
    second = repository.commit({"a.py": "a = 2\n"})
    here.wait_until_shown(second, wrapper, 60)
    (here.link / "a.py").write_text("")

    wrapper.sync()

    assert {"a.py": b"a = 2\n"} == here.files()
    here.run_once(GIT_DEFAULT_HASH="sha256")
    assert second == wrapper.wait_until_ready().json()["revision"]


def test_adds_moves_and_removes_submodules_with_the_commits(here: GitSite) -> None:
    """
    Even if `.gitmodules` is not checked out. If it lacks a submodule, git refuses the
    commit.
    """
    commit = here.server.repository("library.git").commit(
        {"lib.py": "lib = 1\n", "a.bin": "", ".gitattributes": "*.bin filter=lfs\n"}
    )
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
    assert ".gitmodules" not in here.files()
    (lack,) = record(here)["unfiltered"]
    assert lack == "lib/a.bin needs the filter lfs, which git has no program for"
    newer = here.server.repository("moved.git").commit({"lib.py": "lib = 2\n"})
    here.wait_until_shown(
        here.repository.commit_submodule("lib", here.server.url("moved.git"), newer),
        wrapper,
    )
    assert [] == wrapper.find_events("cycle_failed"), "no run remembers a URL"
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


def test_names_files_whose_filter_is_missing(here: GitSite) -> None:
    """
    As of Git LFS and git-crypt, but not outside of a sparse checkout; a filter that is
    set applies, and many files of it hide no other. git-annex commits links and, of
    unlocked files, pointers.
    """
    key = f"SHA256E-s12345--{'0' * 64}.csv"
    files = {
        "annexed/locked.csv": f"../.git/annex/objects/Kj/0x/{key}/{key}",
        "annexed/unlocked.csv": f"/annex/objects/{key}\n",
        "annexed/README": "large files are in .git/annex/objects/\n",
        **{f"many/{number}.txt": "" for number in range(25)},
        "out/data.bin": POINTER,
        "dag.py": "x = 1\n",
        "data.bin": POINTER,
        "secrets/.gitattributes": "*.key filter=git-crypt\n",
        "secrets/db.key": "\0GITCRYPT\0",
        "up.txt": "up\n",
        ".gitattributes": "*.bin filter=lfs\n*.txt filter=up\nplain -filter\n",
        "plain": "plain\n",
    }
    here.repository.commit(files, modes={"annexed/locked.csv": "120000"}, whole=True)
    (patterns := here.folder / "sparse").write_text("/*\n!/out\n")
    wrapper = here.publish(
        GIT_SYNC_WRAPPER_GATE="syntax",
        GITSYNC_GIT_CONFIG="filter.up.smudge:tr a-z A-Z",
        GITSYNC_SPARSE_CHECKOUT_FILE=str(patterns),
    )

    lacks = [
        "annexed/locked.csv needs git-annex, which git-sync does not run",
        "annexed/unlocked.csv needs git-annex, which git-sync does not run",
        "data.bin needs the filter lfs, which git has no program for",
        "secrets/db.key needs the filter git-crypt, which git has no program for",
    ]
    assert lacks == wrapper.wait_for_event("filter_missing")["paths"]
    assert lacks == record(here)["unfiltered"]
    wrapper.wait_for(lambda: wrapper.reason() == "filter_missing", "it is told")
    told = wrapper.wait_until_ready().json()
    assert (told["result"], told["error"]) == ("partial", lacks[0])
    assert "GITSYNC_GIT_CONFIG" in told["advice"]
    (here.store / "published.json").unlink()
    wrapper.sync()
    assert lacks == record(here)["unfiltered"]
    one_shot = here.run_once(GITSYNC_ROOT=str(here.folder / "another"))
    assert one_shot.find_events("filter_missing"), "without a filter of its own"
    assert b"UP\n" == here.files()["up.txt"]

    here.repository.commit({"dag.py": POINTER, ".gitattributes": "*.py filter=lfs\n"})
    wrapper.wait_for_event("cycle_finished", reason="revision_refused")
    assert here.repository.head() == record(here)["refused"]
    assert (
        "dag.py: needs the filter lfs, which" in wrapper.get("/readyz").json()["error"]
    )


def test_a_new_repository_that_the_gate_refuses_leaves_what_is_shown(
    here: GitSite,
) -> None:
    here.publish().kill()
    here.server.repository("other.git").commit({"dag.py": "x = =\n"})
    wrapper = here.wrapper(
        GITSYNC_REPO=here.server.url("other.git"), GIT_SYNC_WRAPPER_GATE="syntax"
    )
    wrapper.wait_for_event("revision_refused")
    wrapper.sync()

    assert here.repository.head() == wrapper.get("/readyz").json()["revision"]
