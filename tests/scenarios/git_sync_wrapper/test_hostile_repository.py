"""
A hostile committer runs no code beside Airflow, reads no other files, and gets no
password.
"""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import GitSite


@pytest.fixture
def witness(here: GitSite) -> Path:
    """A file that appears if anything in the repository is executed."""
    return here.folder / "witness"


@pytest.mark.parametrize("place", ["system", "home/.gitconfig", "tmp/.git/config"])
def test_executes_no_hooks_filters_or_modules_from_the_repository(
    here: GitSite, witness: Path, place: str
) -> None:
    """
    Nor does a configuration that is not in the settings define a filter, or lead away.
    """
    tmp = here.folder / "tmp"
    subprocess.run(["git", "init", "-q", tmp], check=True)
    evil = f'[filter "evil"]\n\tsmudge = "touch {witness}"\n\trequired = true\n'
    config = here.folder / place
    config.parent.mkdir(exist_ok=True)
    config.write_text(
        f"[core]\n\trepositoryformatversion = 0\n{evil}"
        f'[url "http://127.0.0.1:1/"]\n\tinsteadOf = {here.server.endpoint}/\n'
    )
    shell = f"#!/bin/sh\ntouch {witness}\n"
    python = f"open({str(witness)!r}, 'w')\n"
    scripts = [".githooks/post-checkout", "hooks/post-checkout"]
    modules = [
        "sitecustomize.py",
        "ast.py",
        "git_sync_wrapper.py",
        "dag.py",
    ]
    here.repository.commit(
        {
            **dict.fromkeys(scripts, shell),
            **dict.fromkeys(modules, python),
            ".gitattributes": "* filter=evil diff=evil merge=evil\n",
            ".gitconfig": f'{evil}[core]\n\tfsmonitor = "touch {witness}"\n'
            "\thooksPath = .githooks\n",
        },
        modes=dict.fromkeys(scripts, "100755"),
        whole=True,
    )
    wrapper = here.publish(
        GIT_SYNC_WRAPPER_GATE="syntax",
        TMPDIR=str(tmp),
        GIT_CONFIG_SYSTEM=str(here.folder / "system"),
    )
    here.wait_until_shown(here.repository.commit({"dag.py": f"{python}#\n"}), wrapper)
    (here.link / "ast.py").unlink()
    wrapper.sync()

    assert python == (here.link / "ast.py").read_text()
    assert not witness.exists()


def test_a_file_name_that_is_not_utf_8_is_escaped_in_the_same_way_everywhere(
    here: GitSite,
) -> None:
    """Strict readers of JSON refuse a whole text that contains a lone surrogate."""
    here.repository.commit({"dag.py": "x = 1\n"}, whole=True)
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")
    here.repository.commit({"caf\udce9.py": "two = (2\n"})
    wrapper.wait_for_event("cycle_finished", reason="revision_refused")
    refused = [wrapper.get(path).body for path in ("/readyz", "/status", "/")]
    lines = json.dumps(wrapper.find_events("revision_refused"), ensure_ascii=False)
    here.wait_until_shown(
        here.repository.commit({"caf\udce9.py": "two = 2\n"}), wrapper
    )
    record = (here.store / "published.json").read_text()

    for text in (*refused, lines, record):
        shown = (
            text
            if "<html" in text
            else json.dumps(json.loads(text), ensure_ascii=False)
        )
        assert r"caf\udce9.py" in shown.replace("\\\\", "\\")


@pytest.mark.parametrize(
    "transport", ["ext::sh -c touch% {witness}", "file://{folder}/library"]
)
def test_refuses_a_submodule_whose_url_is_a_command_or_a_local_folder(
    here: GitSite, witness: Path, transport: str
) -> None:
    wrapper = here.publish()
    good = here.shown()
    here.repository.commit_submodule(
        "library", transport.format(witness=witness, folder=here.folder), "1" * 40
    )
    wrapper.wait_for_event("cycle_failed")

    assert good == here.shown()
    assert not witness.exists()


def test_sends_no_password_to_the_server_of_a_foreign_submodule(
    here: GitSite, tmp_path: Path
) -> None:
    here.server.accept(("deploy", "password"))
    with GitServer(tmp_path / "foreign") as foreign:
        foreign.repository("library.git").commit({"library.py": "x = 1\n"})
        foreign.accept(("nobody", "knows"))
        wrapper = here.publish(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="password")
        good = here.shown()
        here.repository.commit_submodule(
            "library", foreign.url("library.git"), "1" * 40
        )
        failed = wrapper.wait_for_event("cycle_failed")

        assert good == here.shown()
        assert "login_missing" == failed["reason"], failed
        assert foreign.endpoint.removeprefix("http://") in failed["error"]
        assert "deploy" not in failed["error"], (
            "the login that was never sent is not blamed"
        )
        assert foreign.requests
        assert {None} == {
            request.headers.get("authorization") for request in foreign.requests
        }


def test_keeps_a_symlink_out_of_the_repository_and_never_shows_its_target(
    here: GitSite,
) -> None:
    """
    A reader follows the link in its own container, so it sees that container's files.
    """
    secret = here.folder / "secret"
    secret.write_text("the secret itself (\n")
    files = {"dag.py": "x = 1\n", "leak.py": str(secret)}
    here.repository.commit(files, modes={"leak.py": "120000"}, whole=True)
    wrapper = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")

    assert secret == (here.link / "leak.py").readlink()
    assert "the secret itself" not in wrapper.log() + wrapper.get("/").body
