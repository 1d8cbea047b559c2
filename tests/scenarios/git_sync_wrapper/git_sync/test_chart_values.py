"""
The official chart's own git-sync containers, with its defaults and with values that
people have published: the wrapper does what git-sync does in them.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests import Facts, Texts
from tests.chart import rendering
from tests.support.daemon import Settings, SidecarProcess
from tests.support.git.git_sync import GIT_SYNC, WRAPPER, GitSite, git_site
from tests.support.git.ssh_server import SshServer, skip_without_sshd
from tests.support.machine.users import as_user
from tests.support.program import own_port
from tests.support.revisions import make_revision

SECRET = {"USERNAME": "x-access-token", "PASSWORD": "github_pat_0/+=%"}
IMAGE_USER = 65533
REFS = ("v1.2", "v2-2-stable", "master", "main")
# What is below `dags.gitSync` in public repositories; the URLs become local ones.
VALUES = yaml.safe_load("""
the chart's own defaults: {}

a token in a Secret:
  branch: master
  rev: HEAD
  depth: 1
  maxFailures: 0
  subPath: helm-charts/airflow/dags
  credentialsSecret: git-credentials

an SSH key without known hosts:
  branch: main
  rev: HEAD
  ref: main
  subPath: ./dags/
  sshKeySecret: airflow-git-ssh-secret
  period: 60s
  wait: ~
  uid: 65533

an SSH key and known hosts:
  branch: main
  depth: 0
  subPath: ''
  sshKeySecret: airflow-ssh-secret
  knownHosts: github.com ssh-ed25519 AAAA
  maxFailures: 3

the seconds of version 3 and a user:
  branch: main
  wait: 5
  uid: 50000
  credentialsSecret: git-credentials

a tag and variables:
  branch: v1.2
  ref: v1.2
  period: 600s
  maxFailures: 10
  securityContexts: {container: {capabilities: {drop: [ALL]}}}
  env:
    - {name: GITSYNC_SUBMODULES, value: recursive}
    - {name: GITSYNC_SYNC_TIMEOUT, value: 360s}
    - {name: GIT_SYNC_TIMEOUT, value: '120'}
    - {name: GITSYNC_GROUP_WRITE, value: 'true'}
""")
REFUSED = yaml.safe_load("""
a branch that does not exist: {branch: mian}
a token that is refused: {branch: main, credentialsSecret: old-credentials}
a branch and a revision: {branch: main, rev: v1.2}
""")


class Pod(NamedTuple):
    """
    The containers of the chart's pods, the URL of the repository, the ref that its user
    wants, and a volume for each of the two programs.
    """

    containers: dict[str, Facts]
    repo: str
    ref: str
    volumes: dict[Path, GitSite]

    def run(self, name: str, program: Path) -> SidecarProcess:
        """
        Start a container with git-sync or the wrapper as its image.
        """
        site = self.volumes[program]
        container = self.containers[name]
        here = {
            "REPO": self.repo,
            "ROOT": str(site.root),
            "HTTP_BIND": f"127.0.0.1:{own_port()}",
            "ADD_USER": "false",  # the image has the user
            **SECRET,
        }
        given: Settings = {
            "TMPDIR": str(site.tmp),
            "GIT_SYNC_WRAPPER_GIT_SYNC": str(site.engine),
            "GIT_SYNC_WRAPPER_HTTP_BIND": "127.0.0.1:0",
        }
        for one in container["env"]:
            text = here.get(one["name"].partition("SYNC_")[2], one.get("value", ""))
            given[one["name"]] = text.replace(
                "/etc/git-secret", str(site.folder.parent)
            )
        uid = container["securityContext"].get("runAsUser", IMAGE_USER)
        if self.repo.startswith("ssh"):  # this server knows only the user of the tests
            uid = os.getuid()
        process = SidecarProcess(
            as_user(site.folder / "bin", program, uid, 0), given, site.folder / "home"
        )
        site.processes.append(process)
        return process.start()


@pytest.fixture
def pod(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pod]:
    """
    The pod of these values, and a remote with one commit.
    """
    if not rendering.CAN_RENDER:
        pytest.skip(rendering.HOW_TO_RENDER)
    values = {"enabled": True, **(VALUES | REFUSED)[request.param]}
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump({"dags": {"gitSync": values}}))
    containers = {
        one["name"]: one
        for pod in rendering.pods(rendering.render(tmp_path, [str(file)]))
        for one in [*pod["spec"]["containers"], *pod["spec"].get("initContainers", [])]
    }
    folder = Path(tempfile.mkdtemp(prefix="git-pod-"))
    folder.chmod(0o755)  # every user can reach it
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        engine = Path(shutil.copy(GIT_SYNC, folder))
        site = stack.enter_context(git_site(folder, engine))
        other = GitSite(site.server, folder / "other", engine)
        stack.callback(other.close)
        repo = site.server.url()
        if "credentialsSecret" in values:
            word = SECRET["PASSWORD"] if request.param in VALUES else "the next one"
            site.server.accept((SECRET["USERNAME"], word))
        if "sshKeySecret" in values:
            skip_without_sshd()
            ssh = stack.enter_context(SshServer(folder / "keys"))
            shutil.copy(ssh.client_key, folder / "ssh")
            (folder / "known_hosts").write_text(ssh.known_hosts)
            repo = ssh.url(site.repository.folder)
        for one in (site, other):
            for path in (one.folder, one.folder / "home", one.root, one.tmp):
                path.mkdir(parents=True, exist_ok=True)
                path.chmod(0o777)
        commit(site, 1)
        ref = values.get("branch", "v2-2-stable")
        yield Pod(containers, repo, ref, {WRAPPER: site, engine: other})


def commit(site: GitSite, number: int) -> Texts:
    """
    Commit a revision to each branch or tag that the values name, and return them: each
    has its own.
    """
    found = {
        ref: site.commit_revision(number * len(REFS) + place, branch=ref)
        for place, ref in enumerate(REFS)
    }
    site.repository.tag("v1.2", found["v1.2"])
    return found


@pytest.mark.parametrize("pod", VALUES, indirect=True)
def test_shows_what_git_sync_shows_with_the_values_of_the_chart(pod: Pod) -> None:
    for number, name in enumerate(("git-sync-init", "git-sync"), 1):
        for program, site in pod.volumes.items():
            newest = commit(site, number)[pod.ref]
            process = pod.run(name, program)
            if name == "git-sync-init":
                assert 0 == process.wait_for_exit().code, process.log()
            site.wait_until_shown(newest, timeout_seconds=60)

            revision = number * len(REFS) + REFS.index(pod.ref)
            assert make_revision(revision) == site.files()
            assert not os.readlink(site.link).startswith("/")


@pytest.mark.parametrize("pod", REFUSED, indirect=True)
def test_ends_as_git_sync_does_with_values_that_are_wrong(pod: Pod) -> None:
    """But 2 is the code for wrong settings in every sidecar."""
    for program, site in pod.volumes.items():
        process = pod.run("git-sync-init", program)
        code = process.wait_for_exit().code

        is_ours = "exclude each other" in process.log()
        assert (2 if is_ours else 1) == code, process.log()
        assert not site.link.exists(), process.log()
