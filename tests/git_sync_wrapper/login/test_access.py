"""
What git-sync and git receive: a helper instead of passwords, and files that ssh accepts.
"""

from __future__ import annotations

import calendar
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.login import sigv4
from git_sync_wrapper.login.access import KEPT_BACK, Access, Prepared
from git_sync_wrapper.login.ssh_files import PINNED
from sidecar_runtime.aws.credentials import Credentials
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.git_sync_wrapper.access import git_credential, make_access

REPO = "https://git.example.com/team/dags.git"
CODECOMMIT = "https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/dags"

Start = Callable[..., Access]


@pytest.fixture
def start(temporary: Path) -> Iterator[Start]:
    """A factory of started `Access` objects for a repository."""
    made: list[Access] = []

    def make(repo: str = REPO, **variables: str) -> Access:
        access = make_access(repo, **variables)
        access.start()
        made.append(access)
        return access

    yield make
    for access in made:
        access.close()


def fill(prepared: Prepared, url: str) -> subprocess.CompletedProcess[str]:
    return git_credential("fill", f"url={url}\n", prepared.git_config)


def test_git_receives_the_password_and_git_sync_does_not(start: Start) -> None:
    prepared = start(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="hunter2").prepare()

    kept_back = {"username", "password", "password-file", "credential", "askpass-url"}
    assert kept_back == {name for name, value in prepared.flags.items() if value is None}
    assert "hunter2" not in repr(prepared)
    assert "username=deploy\npassword=hunter2\n" in fill(prepared, REPO).stdout


def test_git_and_the_poll_receive_the_same_rotated_password(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "password"
    access = start(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD_FILE=str(file))
    for password in ("first", "second"):
        file.write_text(password)

        credential = access.credential(REPO, Fence())

        assert credential is not None and password == credential.password
        assert f"password={password}\n" in fill(access.prepare(), REPO).stdout


def test_keeps_the_error_of_the_helper_until_the_next_run(start: Start, tmp_path: Path) -> None:
    access = start(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD_FILE=str(tmp_path / "nothing"))
    prepared = access.prepare()
    assert None is access.failure

    done = fill(prepared, REPO)

    failure = access.failure
    assert failure is not None and "secret_unreadable" == failure.reason
    assert "secret_unreadable" in done.stderr
    access.prepare()
    assert None is access.failure


def test_leaves_the_users_credential_helpers_alone(start: Start) -> None:
    for name in ("credential.helper", "credential.https://git.example.com.helper"):
        access = start(
            GITSYNC_USERNAME="deploy",
            GITSYNC_PASSWORD="secret",
            GITSYNC_GIT_CONFIG=f'"{name}":"store"',
        )

        prepared = access.prepare()

        assert {} == prepared.git_config
        assert not set(KEPT_BACK) & set(prepared.flags)


def test_sends_signatures_to_codecommit_without_a_challenge(start: Start) -> None:
    """CodeCommit may answer 403 without a login, and then git gives up."""
    host = CODECOMMIT.removesuffix("v1/repos/dags")

    assert "basic" == start(CODECOMMIT).prepare().git_config[f"http.{host}.proactiveAuth"]
    assert not any("proactive" in key for key in start().prepare().git_config)


def test_git_receives_a_signature_for_the_path(start: Start, aws: None) -> None:
    said = fill(start(CODECOMMIT).prepare(), CODECOMMIT).stdout

    fields = dict(line.partition("=")[::2] for line in said.splitlines())
    stamp = fields["password"].partition("Z")[0]
    signed_at = calendar.timegm(time.strptime(stamp, "%Y%m%dT%H%M%S"))
    keys = Credentials("AKIDEXAMPLE", "s3cr3t")
    host, _, path = CODECOMMIT.removeprefix("https://").partition("/")
    expected = sigv4.password(keys, host, path, "eu-central-1", signed_at)
    assert ("AKIDEXAMPLE", expected) == (fields["username"], fields["password"])


def test_ssh_uses_pinned_host_keys_without_a_known_hosts_file(start: Start, tmp_path: Path) -> None:
    own = tmp_path / "known_hosts"
    access = start(
        "git@github.com:acme/dags.git",
        GITSYNC_SSH_KEY_FILE="/one:/two",
        GITSYNC_SSH_KNOWN_HOSTS_FILE=str(own),
    )

    flags = access.prepare().flags
    assert ("/one:/two", PINNED) == (flags["ssh-key-file"], flags["ssh-known-hosts-file"])
    own.write_text("github.com ssh-ed25519 AAAA\n")
    assert str(own) == access.prepare().flags["ssh-known-hosts-file"]


def test_the_private_folder_has_mode_0700_and_is_removed(temporary: Path) -> None:
    access = make_access(REPO)
    access.start()
    (folder,) = temporary.iterdir()

    assert 0o700 == stat.S_IMODE(folder.stat().st_mode)
    access.close()

    assert [] == list(temporary.iterdir())


def test_advises_on_tmp_if_the_folder_cannot_be_created(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: object) -> str:
        raise PermissionError

    monkeypatch.setattr("tempfile.mkdtemp", refuse)

    with pytest.raises(SidecarError) as raised:
        make_access(REPO).start()

    assert ("private_folder_failed", True) == (raised.value.reason, "/tmp" in raised.value.advice)


def test_explains_a_refusal_only_for_codecommit(
    start: Start, aws: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:1")
    access = start(CODECOMMIT)

    error = access.explain(CODECOMMIT, Fence())

    assert error is not None and "access_denied" == error.reason
    assert "the access key AKIDEXAMPLE" in error.message
    assert None is access.explain(REPO, Fence())


def test_the_helper_works_with_blanks_in_the_paths_of_python_and_bytecode(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The helper runs without `site`, which would set the folder of the bytecode."""
    python = tmp_path / "für alle Fälle" / "python3"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    monkeypatch.setattr("sys.executable", str(python))
    monkeypatch.setattr("sys.pycache_prefix", str(tmp_path / "byte code"))

    prepared = start(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="secret").prepare()

    assert "'pycache_prefix=" in prepared.git_config["credential.helper"]
    assert "password=secret\n" in fill(prepared, REPO).stdout
