"""
Who may commit, and nothing else: no code runs beside Airflow, no file outside is shown, no password
goes to a server of theirs.
"""

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.git_server import GitServer
from tests.support.git_sync import GitSite


@pytest.fixture
def witness(here: GitSite) -> Path:
    """A file that appears when something of the repository runs."""
    return here.folder / "witness"


def test_nothing_of_a_repository_runs(here: GitSite, witness: Path) -> None:
    shell = f"#!/bin/sh\ntouch {witness}\n"
    python = f"open({str(witness)!r}, 'w')\n"
    scripts = [".githooks/post-checkout", "hooks/post-checkout", "hooks/post-merge"]
    modules = ["sitecustomize.py", "usercustomize.py", "ast.py", "git_sync_wrapper.py", "dag.py"]
    here.repository.commit(
        {
            **dict.fromkeys(scripts, shell),
            **dict.fromkeys(modules, python),
            ".gitattributes": "* filter=evil diff=evil merge=evil\n",
            ".gitconfig": f'[core]\n\tfsmonitor = "touch {witness}"\n\thooksPath = .githooks\n'
            f'[filter "evil"]\n\tsmudge = "touch {witness}"\n\trequired = true\n',
        },
        modes=dict.fromkeys(scripts, "100755"),
        whole=True,
    )
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")
    here.wait_until_shown(here.repository.commit({"dag.py": f"{python}#\n"}), wrapper)

    assert python == (here.link / "ast.py").read_text()
    assert not witness.exists()


@pytest.mark.parametrize("transport", ["ext::sh -c touch% {witness}", "file://{folder}/library"])
def test_submodule_that_is_a_command_or_a_folder_is_refused(
    here: GitSite, witness: Path, transport: str
) -> None:
    wrapper = here.publish()
    good = here.shown()
    url = transport.format(witness=witness, folder=here.folder)
    here.repository.commit_submodule("library", url, "1" * 40)
    wrapper.wait_for_event("cycle_failed")

    assert good == here.shown()
    assert not witness.exists()


def test_submodule_of_a_foreign_server_is_asked_without_our_password(
    here: GitSite, tmp_path: Path
) -> None:
    here.server.accept(("deploy", "password"))
    with GitServer(tmp_path / "foreign") as foreign:
        foreign.repository("library.git").commit({"library.py": "x = 1\n"})
        foreign.accept(("nobody", "knows"))
        wrapper = here.publish(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="password")
        good = here.shown()
        here.repository.commit_submodule("library", foreign.url("library.git"), "1" * 40)
        wrapper.wait_for_event("cycle_failed")

        assert good == here.shown()
        assert foreign.requests
        assert {None} == {request.headers.get("authorization") for request in foreign.requests}


def test_symlink_that_leads_out_stays_a_symlink_and_its_target_is_not_told(here: GitSite) -> None:
    """Whoever follows it does so in a container of its own, and sees that container's files."""
    secret = here.folder / "secret"
    secret.write_text("the secret itself (\n")
    files = {"dag.py": "x = 1\n", "leak.py": str(secret)}
    here.repository.commit(files, modes={"leak.py": "120000"}, whole=True)
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")

    assert secret == (here.link / "leak.py").readlink()
    assert "the secret itself" not in wrapper.log() + wrapper.get("/").body


@pytest.fixture
def deep(here: GitSite) -> Iterator[str]:
    """
    Deeper than Python goes by itself: pytest cannot remove it.
    """
    yield "d/" * 1100
    here.close()
    subprocess.run(["rm", "-r", here.root], check=True)


def test_folders_as_deep_as_git_checks_them_out(here: GitSite, deep: str) -> None:
    here.repository.commit({"dag.py": "x = 1\n"}, whole=True)
    retention = {"GIT_SYNC_WRAPPER_RETAIN_COUNT": "0", "GIT_SYNC_WRAPPER_RETAIN_FOR": "0s"}
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax", **retention)
    here.wait_until_shown(here.repository.commit({f"{deep}dag.py": "x = 1\n"}), wrapper)
    subprocess.run(["rm", "-r", here.link / "d"], check=True)
    wrapper.send_signal(signal.SIGHUP)
    wrapper.wait_for_event("damage_repaired")
    here.wait_until_shown(here.repository.commit({f"{deep}dag.py": "x = 2\n"}), wrapper)

    assert [] == wrapper.find_events("cycle_failed") + wrapper.find_events("leftover_kept")
