"""
A poll with `git ls-remote`.
"""

import os
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.flags.options import read_options
from git_sync_wrapper.poll.ls_remote_poller import LsRemote
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.git_sync_wrapper.access import make_access
from tests.support.git.git_repository import Repository
from tests.support.raising import raised
from tests.support.scripts import script


class Site:
    """A local repository, and polls of its refs."""

    def __init__(self, folder: Path) -> None:
        self.repository = Repository(folder / "r.git")
        self.url = self.repository.url
        self.access = make_access(self.url)
        self.access.start()

    def poll(self, ref: str, **variables: str) -> LsRemote:
        environ = {"PATH": os.environ["PATH"], "GITSYNC_REPO": self.url, "GITSYNC_REF": ref}
        environ |= variables
        return LsRemote(read_options([], environ), self.access, environ)

    def commit(self, ref: str, **variables: str) -> str:
        return self.poll(ref, **variables).commit(Fence())


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.access.close()


def test_finds_head_branches_and_tags(site: Site) -> None:
    commit = site.repository.commit({"a.py": "1"})
    other = site.repository.commit({"a.py": "2"}, branch="other")
    site.repository.commit({"a.py": "3"}, branch="light")  # a tag of the same name wins
    site.repository.tag("light", commit)
    site.repository.tag("annotated", other, "a message")

    assert [commit, commit, other, commit, other, other] == [
        site.commit(ref)
        for ref in ("HEAD", "main", "other", "light", "annotated", "refs/heads/other")
    ]


def test_ignores_a_ref_that_only_ends_with_the_requested_name(site: Site) -> None:
    site.repository.commit({"a.py": "1"}, branch="feature/main")

    assert "ref_not_found" == raised(SidecarError, site.commit, "main").reason


def test_reports_a_missing_repository(site: Site) -> None:
    site.url = "file:///missing.git"

    assert "repository_not_found" == raised(SidecarError, site.commit, "main").reason


def test_calls_ssh_as_git_sync_does(site: Site, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    ssh = script(tmp_path / "ssh", f'echo "$@" > {seen}\nexit 1')
    site.url = "git@git.example.com:team/dags.git"

    with pytest.raises(SidecarError):
        site.commit("main", GIT_SSH_COMMAND=ssh, GITSYNC_SSH_KEY_FILE="/a:/b")

    said = seen.read_text()
    assert "-o StrictHostKeyChecking=yes -o UserKnownHostsFile=" in said
    assert "git-upload-pack 'team/dags.git'" in said


def test_git_receives_every_value_of_a_config_key(site: Site, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    git = script(tmp_path / "git", f"git config --get-all http.extraHeader > {seen}; exit 1")
    headers = {"GITSYNC_GIT_CONFIG": "http.extraHeader:a,http.extraHeader:b"}

    with pytest.raises(SidecarError):
        site.commit("main", GITSYNC_GIT=git, **headers)

    assert ["a", "b"] == seen.read_text().split()


def test_reports_a_missing_private_folder(site: Site) -> None:
    """A copy of /etc/passwd, or of a repaired key, is written there for each poll."""
    crlf = Path(site.access.folder).with_suffix(".key")
    crlf.write_bytes(b"-----BEGIN PRIVATE KEY-----\r\n")
    site.url = "git@git.example.com:team/dags.git"
    site.access.close()
    site.access = make_access(site.url, GITSYNC_SSH_KEY_FILE=str(crlf))
    site.access.start()
    shutil.rmtree(site.access.folder)

    error = raised(SidecarError, site.commit, "main")
    crlf.unlink()

    assert "private_folder_failed" == error.reason


def test_keeps_little_of_a_long_output(site: Site, tmp_path: Path) -> None:
    commit, line = "7" * 40, "remote: all is well, and here is some more of it"
    flood = f"yes '{line}' | head -n 200000"
    said = f"{flood} >&2\n{flood}\nprintf '{commit}\\trefs/heads/main\\n'"
    git = script(tmp_path / "git", said)
    tracemalloc.start()
    try:
        found = site.commit("main", GITSYNC_GIT=git)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert commit == found
    assert most_bytes < 200_000 * len(line) / 4


def test_a_revoked_fence_abandons_the_poll(site: Site, revoked: Fence) -> None:
    with pytest.raises(CycleAbandoned):
        site.poll("main").commit(revoked)
