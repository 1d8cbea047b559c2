"""
Answers to git's credential helper; git itself asks where that is possible.
"""

from __future__ import annotations

import resource
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from git_sync_wrapper.login import credential_helper
from git_sync_wrapper.login.credential import Credential, CredentialError, Wanted
from git_sync_wrapper.login.credential_server import CredentialServer, parent_folder
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.git_sync_wrapper.access import git_credential
from tests.runtime.recording import Log
from tests.support.waiting import wait_until

Fail = Callable[[SidecarError], object]

HELPER = [sys.executable, "-I", "-S", credential_helper.__file__]


class Keys:
    """Returns what the test sets, and records the questions."""

    def __init__(self) -> None:
        self.says: Credential | Exception | None = Credential("deploy", "päss%wörd=")
        self.asked: list[Wanted] = []
        self.fences: list[Fence] = []
        self.refusals: list[Wanted] = []
        self.stored: list[tuple[Wanted, Credential]] = []

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        self.asked.append(wanted)
        self.fences.append(fence)
        if isinstance(self.says, Exception):
            raise self.says
        return self.says

    def refused(self, wanted: Wanted) -> None:
        self.refusals.append(wanted)

    def store(self, wanted: Wanted, credential: Credential) -> None:
        self.stored.append((wanted, credential))


@pytest.fixture
def keys() -> Keys:
    return Keys()


@pytest.fixture
def failures() -> list[SidecarError]:
    return []


@contextmanager
def serving(keys: Keys, path: Path, fail: Fail = lambda _: None, **seconds: float) -> Iterator[str]:
    """Run a server at a socket."""
    server = CredentialServer(str(path), keys, fail, **seconds)
    server.start()
    yield str(path)
    server.close()


@pytest.fixture
def path(temporary: Path, keys: Keys, failures: list[SidecarError]) -> Iterator[str]:
    """The socket of a running server."""
    with serving(keys, temporary / "socket with a blank", failures.append) as path:
        yield path


def git(path: str, action: str, question: str) -> subprocess.CompletedProcess[str]:
    """Run `git credential` with the helper, which asks a server."""
    helper = "!" + shlex.join([*HELPER, path])
    config = {"credential.helper": helper, "credential.useHttpPath": "true"}
    return git_credential(action, question, config)


def ask(path: str, question: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.sendall(question)
        connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
        return answer


URL = "url=https://git.example.com/team/dags.git\n"
WANTED = Wanted("https", "git.example.com", "team/dags.git")


def test_git_receives_the_credential_for_a_path(path: str, keys: Keys) -> None:
    done = git(path, "fill", URL)

    assert 0 == done.returncode, done.stderr
    assert "username=deploy\npassword=päss%wörd=\n" in done.stdout
    assert [WANTED] == keys.asked


UNREADABLE = CredentialError("secret_unreadable", "cannot read /päth", "fix it")


@pytest.mark.parametrize(
    ("says", "heard", "reported"),
    [
        (None, "could not read Username", []),
        (UNREADABLE, "git-sync-wrapper: secret_unreadable: cannot read /päth", [UNREADABLE]),
        (CycleAbandoned(), "told us to quit", []),  # a stop is not a failure
    ],
)
def test_git_reports_why_it_received_no_credential(
    path: str,
    keys: Keys,
    failures: list[SidecarError],
    says: Exception | None,
    heard: str,
    reported: list[SidecarError],
) -> None:
    keys.says = says

    done = git(path, "fill", URL)

    assert 0 != done.returncode
    assert heard in done.stderr
    assert says is None or "told us to quit" in done.stderr
    assert reported == failures


def test_keeps_answering_after_an_unexpected_exception(path: str, keys: Keys, log: Log) -> None:
    keys.says = ZeroDivisionError()
    assert "a bug" in git(path, "fill", URL).stderr
    assert 1 == len(log.events("credential_crashed"))
    keys.says = Credential("deploy", "right")

    assert "password=right" in git(path, "fill", URL).stdout


def test_stores_an_approved_credential_and_drops_a_rejected_one(path: str, keys: Keys) -> None:
    git(path, "approve", f"{URL}username=-\npassword=ghs_token\n")
    git(path, "reject", f"{URL}username=deploy\npassword=old\n")

    assert [(WANTED, Credential("-", "ghs_token"))] == keys.stored
    assert [WANTED] == keys.refusals


def test_git_fails_without_a_prompt_if_the_wrapper_does_not_answer(temporary: Path) -> None:
    done = git(str(temporary / "nobody"), "fill", URL)

    assert 0 != done.returncode
    assert "git-sync-wrapper does not answer" in done.stderr
    done = git(str(temporary / "nobody"), "approve", f"{URL}username=a\npassword=b\n")
    assert 0 == done.returncode


def test_the_helper_loads_only_the_low_level_socket_module(path: str) -> None:
    """The helper runs at each login; `socket` and `site` alone would double its cost."""
    program = f"import sys; sys.argv[1:] = [{path!r}, 'get']; before = set(sys.modules)\n"
    program += f"exec(open({credential_helper.__file__!r}, 'rb').read())\n"
    program += "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program],
        input=b"protocol=https\nhost=h\n\n",
        capture_output=True,
        timeout=60,
    )

    assert b"__future__ _socket\n" == done.stderr
    assert b"username=deploy" in done.stdout


def test_answers_many_clients_each_with_a_separate_fence(path: str, keys: Keys) -> None:
    answers: list[bytes] = []
    question = b"get\nprotocol=https\nhost=h\n\n"
    threads = [
        threading.Thread(target=lambda: answers.append(ask(path, question))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)

    assert 20 == len(answers) and 1 == len(set(answers))
    assert 20 == len({id(fence) for fence in keys.fences})


@pytest.mark.parametrize("question", [b"", b"get", b"dance\nhost=h\n", b"\xff\xfe\n\0\n"])
def test_keeps_answering_after_a_malformed_question(path: str, question: bytes) -> None:
    ask(path, question)

    assert b"username=deploy" in ask(path, b"get\nprotocol=https\nhost=h\n")


def test_a_silent_client_does_not_block_other_clients(temporary: Path, keys: Keys) -> None:
    with (
        serving(keys, temporary / "socket", question_seconds=0.2) as path,
        socket.socket(socket.AF_UNIX) as silent,
    ):
        silent.connect(path)

        assert b"username=deploy" in ask(path, b"get\nprotocol=https\nhost=h\n")


def test_recovers_from_running_out_of_descriptors(temporary: Path, keys: Keys, log: Log) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with (
        serving(keys, temporary / "socket", retry_seconds=0.01) as path,
        socket.socket(socket.AF_UNIX) as first,
        socket.socket(socket.AF_UNIX) as second,
    ):
        # Descriptors 0 to 2 are in use. Below 3, poll() fails in servers of other threads.
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            first.connect(path)  # accepted with a descriptor that is already reserved
            first.shutdown(socket.SHUT_WR)
            wait_until(lambda: log.events("credential_server_failed"), "no connection is accepted")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        second.connect(path)
        second.sendall(b"get\nprotocol=https\nhost=h\n")
        second.shutdown(socket.SHUT_WR)

        assert b"username=deploy" in second.recv(4096)


def test_close_ends_the_thread_and_refuses_connections(temporary: Path, keys: Keys) -> None:
    with serving(keys, temporary / "socket") as path:
        pass

    wait_until(
        lambda: "credentials" not in [thread.name for thread in threading.enumerate()],
        "the thread has ended",
    )
    with pytest.raises(ConnectionRefusedError):
        ask(path, b"get\n")


def test_close_revokes_the_fence_of_the_current_question(temporary: Path) -> None:
    """A child that asks AWS ends with the fence that it received."""
    revoked, asked = threading.Event(), threading.Event()

    class Slow(Keys):
        def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
            fence.on_revoke(revoked.set)
            asked.set()
            revoked.wait(20)
            raise CycleAbandoned

    path = str(temporary / "socket")
    server = CredentialServer(path, Slow(), lambda error: None)
    server.start()
    thread = threading.Thread(target=ask, args=(path, b"get\nhost=h\n"))
    thread.start()
    assert asked.wait(20)

    server.close()

    assert revoked.wait(20)
    thread.join(20)


@pytest.mark.parametrize("unusable", ["nothing", "long/" * 13])
def test_uses_another_place_if_the_first_is_unusable(
    temporary: Path, monkeypatch: pytest.MonkeyPatch, unusable: str
) -> None:
    """A read-only root has no writable /tmp; a socket's path has at most 107 bytes."""
    (temporary / "long" / ("long/" * 12)).mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary / unusable))

    assert str(temporary) == parent_folder((str(temporary / "neither"), str(temporary)))
