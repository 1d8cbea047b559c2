"""
Each fault of a setting, a Secret, a program or the server has its own reason, and its
error quotes what is wrong.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import Texts
from tests.support.aws.fake_aws import ROLE_ARN
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with, hang, raw
from tests.support.http.loopback import Answer
from tests.support.machine.volumes import see_mounted, small_volume
from tests.support.scripts import script

Settings = Texts
Situation = Callable[[GitSite], Settings]
CODECOMMIT = {
    "GIT_SYNC_WRAPPER_CREDENTIALS": "codecommit",
    "AWS_EC2_METADATA_DISABLED": "true",
}
KEYS = {"AWS_ACCESS_KEY_ID": "AKIA0123", "AWS_SECRET_ACCESS_KEY": "hush"}


def settings(**given: str) -> Situation:
    return lambda here: {
        name: text.format(url=here.server.url(), server=here.server.endpoint)
        for name, text in given.items()
    }


def secret(name: str, content: bytes, **given: str) -> Situation:
    """Mount a file for a setting."""

    def situation(here: GitSite) -> Settings:
        (here.folder / "secret").write_bytes(content)
        return {name: str(here.folder / "secret"), **given}

    return situation


def program(name: str, body: str) -> Situation:
    return lambda here: {name: script(here.folder / "program", body)}


def a_server_that_hangs(here: GitSite) -> Settings:
    here.server.inject(hang())
    return {"GITSYNC_SYNC_TIMEOUT": "1s"}


def a_commit_that_nobody_pushed(here: GitSite) -> Settings:
    here.server.repository("library.git").commit({"lib.py": "x = 1\n"})
    here.repository.commit_submodule("lib", here.server.url("library.git"), "1" * 40)
    return {}


def a_role_without_rights(here: GitSite) -> Settings:
    here.server.refusal = 403
    here.server.accept()
    return {
        **CODECOMMIT,
        **KEYS,
        "AWS_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1",
    }


def a_webhook_of_another_protocol(here: GitSite) -> Settings:
    here.server.inject(
        raw(b"220 smtp\n"), match=lambda request: request.path == "/hook"
    )
    return {"GITSYNC_WEBHOOK_URL": f"{here.server.endpoint}/hook"}


def a_proxy_that_refuses(here: GitSite) -> Settings:
    here.server.inject(answer_with(Answer(407)))
    return {
        "GITSYNC_REPO": "https://git.invalid/dags.git",
        "https_proxy": here.server.endpoint,
    }


def answers(status: int, body: bytes = b"", **given: str) -> Situation:
    def situation(here: GitSite) -> Settings:
        here.server.inject(answer_with(Answer(status, {}, body)))
        return settings(**given)(here)

    return situation


def sts_answers(code: str) -> Situation:
    said = f"<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>"
    role = {"AWS_ROLE_ARN": ROLE_ARN, "AWS_ENDPOINT_URL_STS": "{server}"}

    def situation(here: GitSite) -> Settings:
        token = secret("AWS_WEB_IDENTITY_TOKEN_FILE", b"web identity", **CODECOMMIT)
        return answers(403, said.encode(), **role)(here) | token(here)

    return situation


# A git that is too old for `git config set`, as git-sync 4.8 calls it.
USAGE = """\
case "$1" in
  ls-remote|--version) exec git "$@" ;;
esac
echo "usage: git config [<options>]" >&2
exit 129
"""
FAULTS: list[tuple[str, str, Situation]] = [
    ("remote_timeout", "timed out", a_server_that_hangs),
    ("proxy_refused", "CONNECT tunnel failed, response 407", a_proxy_that_refuses),
    ("not_a_git_server", "info/refs not valid", answers(200, b"<html>\n</html>\n")),
    # whose only line has no end
    ("ref_not_found", "remote ref main, nor any other", answers(200, b"<html>")),
    ("throttled", "error: 429", answers(429)),
    ("git_sync_usage", "env GITSYNC_VERBOSE", settings(GITSYNC_VERBOSE="x")),
    ("server_error", "error: 500", answers(500)),
    (
        "tls_failed",
        "unable to access",
        lambda here: {"GITSYNC_REPO": here.server.url().replace("http:", "https:")},
    ),
    ("ref_not_found", "remote ref nope", settings(GITSYNC_REF="nope")),
    ("submodule_missing", "'lib'", a_commit_that_nobody_pushed),
    ("askpass_failed", "answers 404", settings(GITSYNC_ASKPASS_URL="{server}/none")),
    (
        "askpass_failed",
        "answers 200, without",
        answers(200, b"password=hush\0", GITSYNC_ASKPASS_URL="{server}"),
    ),
    (
        "secret_unreadable",
        "GITSYNC_PASSWORD_FILE: cannot read /nothing/here: No such file",
        settings(GITSYNC_USERNAME="me", GITSYNC_PASSWORD_FILE="/nothing/here"),
    ),
    (
        "secret_malformed",
        "GIT_SYNC_WRAPPER_USERNAME_FILE is empty, has several lines",
        secret("GIT_SYNC_WRAPPER_USERNAME_FILE", b"me\nyou", GITSYNC_PASSWORD="p"),
    ),
    (
        "secret_encoded",
        "GITSYNC_SSH_KEY_FILE contains a base64-encoded key",
        secret(
            "GITSYNC_SSH_KEY_FILE",
            base64.b64encode(b"-----BEGIN OPENSSH PRIVATE KEY-----\n"),
        ),
    ),
    (
        "secret_encoded",
        "GITSYNC_SSH_KNOWN_HOSTS_FILE contains a base64-encoded",
        secret("GITSYNC_SSH_KNOWN_HOSTS_FILE", base64.b64encode(b"x ssh-ed25519 AAAA")),
    ),
    ("credentials_missing", "", settings(**CODECOMMIT)),
    (
        "credentials_invalid",
        "the secret_key from env is empty, or contains",
        settings(**CODECOMMIT, **KEYS | {"AWS_SECRET_ACCESS_KEY": "hush\n"}),
    ),
    ("credentials_denied", "AccessDenied", sts_answers("AccessDenied")),
    ("credentials_expired", "Expired", sts_answers("ExpiredTokenException")),
    ("credentials_unavailable", "Internal", sts_answers("InternalFailure")),
    ("region_missing", "127.0.0.1", settings(**CODECOMMIT, **KEYS)),
    ("access_denied", "AKIA0123", a_role_without_rights),
    (
        "git_sync_failed",
        "ended with exit code 7: no error message",
        program("GIT_SYNC_WRAPPER_GIT_SYNC", "exit 7"),
    ),
    (
        "git_too_old",
        "; git-sync 4.8 needs git 2.46",
        program("GITSYNC_GIT", USAGE),
    ),
    (
        "git_sync_unusable",
        "cannot start /nothing/here: No such file",
        settings(GIT_SYNC_WRAPPER_GIT_SYNC="/nothing/here"),
    ),
    (
        "out_of_memory",
        "signal: killed",
        program("GITSYNC_GIT", '[ $1 = fetch ] && kill -9 $$; exec git "$@"'),
    ),
    (
        "bug",
        "embedded null",
        settings(
            GITSYNC_CREDENTIAL='{{"url": "http://h", "username": "u", '
            '"password-file": "\\u0000"}}'
        ),
    ),
    ("target_denied", "/sys/dags", settings(GITSYNC_ROOT="/sys/dags")),
    ("target_failed", "/proc/dags", settings(GITSYNC_ROOT="/proc/dags")),
]


def check(wrapper: SidecarProcess, reason: str, said: str, code: int = 3) -> None:
    """Check that a wrapper gives up with this reason, these words and an advice."""
    assert code == wrapper.wait_for_exit(200).code, wrapper.log()
    told = [event for event in wrapper.events if event.get("reason") == reason]
    assert told, wrapper.log()
    assert said in told[0]["error"], told
    assert told[0]["advice"], told
    assert "hush" not in wrapper.log()


@pytest.mark.parametrize(("reason", "said", "situation"), FAULTS)
def test_each_fault_has_its_reason(
    here: GitSite, reason: str, said: str, situation: Situation
) -> None:
    wrapper = here.wrapper(**situation(here), GIT_SYNC_WRAPPER_MAX_FAILURES="1")

    check(wrapper, reason, said)
    (gave_up,) = wrapper.find_events("sidecar_gave_up", reason="failure_limit")
    assert gave_up["error"].startswith(f"{reason}: "), gave_up
    assert not here.shown()


@pytest.mark.parametrize(
    ("reason", "said", "situation"),
    [
        (
            "hook_failed",
            "is published, but exechook",
            program("GITSYNC_EXECHOOK_COMMAND", "echo told; exit 3"),
        ),
        ("hook_failed", "no answer: 220 smtp", a_webhook_of_another_protocol),
        (
            "hook_failed",
            "no answer: an invalid URL or method",
            settings(GITSYNC_WEBHOOK_URL="{server}", GITSYNC_WEBHOOK_METHOD="\1"),
        ),
    ],
)
def test_a_hook_that_fails_in_a_one_shot_ends_it_as_in_git_sync(
    here: GitSite, reason: str, said: str, situation: Situation
) -> None:

    check(
        here.wrapper("--one-time", **situation(here), GITSYNC_MAX_FAILURES="0"),
        reason,
        said,
        1,
    )
    assert here.repository.head() == here.shown()


def test_what_is_in_the_way_of_its_files_is_moved_aside_or_named(here: GitSite) -> None:
    (here.link / "inside").mkdir(parents=True)
    wrapper = here.wrapper(
        GITSYNC_TOUCH_FILE="/proc/none/touched", GITSYNC_ERROR_FILE="/proc/none/error"
    )
    aside = wrapper.wait_for_event("folder_moved_aside")["to"]
    wrapper.wait_for_event("touch_failed", path="/proc/none/touched")
    wrapper.wait_for(lambda: wrapper.reason() == "hook_failed", "it is told")
    said = wrapper.wait_until_ready().json()["error"]
    here.server.stop()
    wrapper.wait_for_event("error_file_failed", path="/proc/none/error")

    assert aside.startswith(f"{here.link}.replaced-")
    assert Path(aside, "inside").is_dir()
    assert said.startswith("touch-file failed: ")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("repo", "link_blocked"), (".git-sync", "work_folder_foreign")],
)
def test_what_is_mounted_in_the_way_and_cannot_be_moved_is_named(
    here: GitSite, name: str, reason: str
) -> None:
    place = here.root / name
    (place / ".git").mkdir(parents=True)
    (place / ".git/commondir").write_text("/\n")
    wrapper = here.describe(GIT_SYNC_WRAPPER_MAX_FAILURES="1")
    see_mounted(wrapper, place, place)

    check(wrapper.start(), reason, str(place))


def test_a_private_folder_without_room_is_named(here: GitSite) -> None:
    with small_volume(here.folder / "tmp", "4k") as folder:
        (folder / "full").write_bytes(bytes(4096))

        check(here.wrapper(TMPDIR=str(folder)), "private_folder_failed", "No space")


def test_a_full_volume_of_the_link_alone_drops_no_kept_commit(here: GitSite) -> None:
    with small_volume(here.folder / "links", "1m,nr_inodes=3") as folder:
        link = folder / "repo"
        wrapper = here.wrapper(GITSYNC_LINK=str(link))
        wrapper.wait_until_ready()
        wrapper.kill()
        first = link.resolve()
        (folder / "repo.next-snapshot").symlink_to("of-a-killed-process")
        here.commit_revision(2)
        wrapper.start().wait_for(lambda: first != link.resolve(), "the next one")
        assert ["repo"] == os.listdir(folder)
        (folder / "other").touch()
        newest = here.commit_revision(3)
        wrapper.wait_for_event("cycle_failed", reason="target_full")
        (folder / "other").unlink()
        wrapper.wait_for(lambda: newest == link.resolve().name, "it has room")
        wrapper.kill()

        assert first.is_dir(), wrapper.log()[-4000:]
