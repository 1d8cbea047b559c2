"""
The image of git-sync-wrapper: its contents, and that it replaces git-sync's image,
hardened.
"""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.images.container import Container, Image
from tests.support.git.git_sync import GitSite, chart_environment, git_site
from tests.support.git.ssh_server import SshServer, skip_without_sshd

CHART = "65533:0"
ARBITRARY = "1000710000:0"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[GitSite]:
    """
    A remote with one commit, and an empty volume.
    """
    with git_site(tmp_path, Path("/git-sync")) as site:
        site.commit_revision(1)
        yield site


def container(
    image: Image,
    here: GitSite,
    user: str = CHART,
    readable: Sequence[Path] = (),
    *,
    tmp: bool = True,
    **settings: str | None,
) -> Container:
    """
    Return a hardened container as in the chart, but with a root that the tests can
    read.

    Args:
        tmp: Whether a writable file system is mounted on /tmp.
    """
    environment = {
        **chart_environment(here),
        "GITSYNC_PERIOD": "200ms",
        "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",
        **settings,
    }
    return Container(
        image,
        environment,
        here.folder / "home",
        [here.root],
        readable,
        user,
        ["--tmpfs=/tmp:mode=1777"] * tmp,
    )


def test_contains_git_sync_and_a_git_for_the_next_one(image: Image) -> None:
    """
    The next git-sync runs `git config list`, which git 2.46 introduced.
    """
    version = re.search(r"(\d+)\.(\d+)", image.run("--version", entrypoint="git"))

    assert version
    assert (int(version[1]), int(version[2])) >= (2, 46)
    assert re.search(
        r"^v4\.", image.run("--version", entrypoint="/git-sync"), re.MULTILINE
    )


def test_submodules_work_without_perl(image: Image, here: GitSite) -> None:
    commit = here.server.repository("library.git").commit({"lib.py": "lib = 1\n"})
    here.repository.commit_submodule("lib", here.server.url("library.git"), commit)
    with container(image, here) as running:
        here.wait_until_shown(here.repository.head(), running, 60)
        (here.link / "lib/lib.py").unlink()
        seen = len(running.events)
        running.sighup()
        # Submodules are fetched again.
        running.wait_for_event("commit_published", after=seen)
        assert "lib = 1\n" == (here.link / "lib/lib.py").read_text()
        assert [] == running.stray_lines


@pytest.mark.parametrize("user", [CHART, ARBITRARY], ids=["chart", "arbitrary"])
@pytest.mark.parametrize("tmp", [True, False], ids=["tmp", "no tmp"])
def test_follows_a_branch_in_a_hardened_container(
    image: Image, here: GitSite, user: str, tmp: bool
) -> None:
    with container(image, here, user, tmp=tmp) as running:
        here.wait_until_shown(here.repository.head(), running, 60)
        here.wait_until_shown(here.commit_revision(2), running, 60)
        running.wait_until_ready()

        assert (int(user.split(":")[0]), 0) == image.owner(here.link / "either.py")
        assert [] == running.stray_lines
        assert 0 == running.terminate().code
    assert here.shown() == here.repository.head()


@pytest.mark.parametrize("user", [CHART, ARBITRARY], ids=["chart", "arbitrary"])
def test_ssh_works_for_any_user(
    image: Image, here: GitSite, tmp_path: Path, user: str
) -> None:
    """
    ssh requires an entry in /etc/passwd for the user that runs it.
    """
    skip_without_sshd()
    with SshServer(tmp_path / "ssh") as ssh:
        key = here.folder / "key"
        known_hosts = here.folder / "known_hosts"
        key.write_bytes(ssh.client_key.read_bytes())
        key.chmod(0o400)
        os.chown(key, int(user.split(":")[0]), 0)
        known_hosts.write_text(ssh.known_hosts)
        url = ssh.url(here.repository.folder)
        files = {"SSH_KEY_FILE": str(key), "SSH_KNOWN_HOSTS_FILE": str(known_hosts)}
        login: dict[str, Any] = {
            f"GITSYNC_{name}": path for name, path in files.items()
        }
        login |= {"GITSYNC_REPO": url, "GIT_SYNC_REPO": url}
        with container(image, here, user, (key, known_hosts), **login) as running:
            here.wait_until_shown(here.repository.head(), running, 60)
