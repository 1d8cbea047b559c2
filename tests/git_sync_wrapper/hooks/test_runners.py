"""
The hooks that run after a publish.
"""

import os
import socket
import ssl
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from git_sync_wrapper.flags.options import read_options
from git_sync_wrapper.hooks.hook import Exechook, HookFailed
from git_sync_wrapper.hooks.runners import HookRunner, Hooks, PrePublishError
from git_sync_wrapper.hooks.webhook import Webhook
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.recording import Log
from tests.support.http.certificates import self_signed
from tests.support.http.faults import answer_with, with_headers
from tests.support.http.loopback import Answer, LoopbackServer, Request
from tests.support.raising import raised
from tests.support.scripts import script
from tests.support.waiting import wait_until

ONE, TWO = "1" * 40, "2" * 40


def exechook(folder: Path, text: str, timeout_seconds: float = 30.0) -> Exechook:
    command = script(folder / "hook", text)
    for commit in (ONE, TWO):
        (folder / commit).mkdir(exist_ok=True)
    return Exechook("exechook", command, timeout_seconds, 0.01, os.environ, str(folder))


Started = Callable[[HookRunner], HookRunner]


@dataclass
class Counted:
    ends: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, name: str, status: str) -> None:
        self.ends.append((name, status))


@pytest.fixture
def counted() -> Counted:
    return Counted()


@pytest.fixture
def started() -> Iterator[Started]:
    runners: list[HookRunner] = []

    def start(runner: HookRunner) -> HookRunner:
        runners.append(runner)
        runner.start()
        return runner

    yield start
    for runner in runners:
        runner.stop()


class Server(LoopbackServer):
    """Answers every request with one status."""

    def __init__(self, status: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(tls=tls)
        self._status = status
        self.hashes: list[tuple[str, str]] = []

    def good_answer(self, request: Request) -> Answer:
        self.hashes.append((request.method, request.headers.get("gitsync-hash", "")))
        return Answer(self._status, body=b"")


def test_a_command_runs_in_the_snapshot_and_receives_its_hash(tmp_path: Path, fence: Fence) -> None:
    exechook(tmp_path, 'echo "$GITSYNC_HASH in $PWD" > ../out').run(ONE, fence)

    assert f"{ONE} in {tmp_path}/{ONE}\n" == (tmp_path / "out").read_text()


@pytest.mark.parametrize(
    ("text", "timeout_seconds", "problem"),
    [
        ("echo why; exit 3", 60.0, "ended with exit code 3: why"),
        ("sleep 60", 0.2, "within 0.2 s"),
        (None, 60.0, "cannot be started"),
    ],
)
def test_reports_why_a_command_failed(
    tmp_path: Path, fence: Fence, text: str | None, timeout_seconds: float, problem: str
) -> None:
    hook = exechook(tmp_path, text or "", timeout_seconds=timeout_seconds)
    if text is None:
        (tmp_path / "hook").unlink()

    with pytest.raises(HookFailed, match=problem):
        hook.run(ONE, fence)


@pytest.mark.parametrize(
    ("flood", "printed_bytes"),
    [("yes and more | head -n 500000", 4_500_000), ("head -c 64000000 /dev/zero", 64_000_000)],
    ids=["lines", "line"],
)
@pytest.mark.parametrize("stream", [1, 2])
def test_keeps_only_the_end_of_the_output_of_a_command(
    tmp_path: Path, fence: Fence, flood: str, printed_bytes: int, stream: int
) -> None:
    hook = exechook(tmp_path, f"({flood}; echo; echo the end) >&{stream}; exit 3")
    tracemalloc.start()
    try:
        error = raised(HookFailed, hook.run, ONE, fence)
        _, most_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert str(error).endswith("the end")
    assert most_bytes < printed_bytes / 4


def test_retries_a_failed_hook_until_it_succeeds(
    tmp_path: Path, counted: Counted, log: Log, started: Started
) -> None:
    text = "echo x >> ../tries; test $(wc -l < ../tries) -ge 3"
    runner = started(HookRunner(exechook(tmp_path, text), counted))

    runner.send(ONE)

    wait_until(lambda: ("exechook", "success") in counted.ends, "the hook succeeds")
    assert [("exechook", "error")] * 2 + [("exechook", "success")] == counted.ends
    assert ONE == log.events("hook_failed")[0]["revision"]


def test_runs_for_newest_commit_only(tmp_path: Path, counted: Counted, started: Started) -> None:
    runner = HookRunner(exechook(tmp_path, "echo $GITSYNC_HASH >> ../seen"), counted)
    runner.send(ONE)
    runner.send(TWO)

    started(runner)

    wait_until(lambda: counted.ends, "the hook has run")
    assert f"{TWO}\n" == (tmp_path / "seen").read_text()


def test_stop_kills_a_running_hook(tmp_path: Path, counted: Counted, started: Started) -> None:
    runner = started(HookRunner(exechook(tmp_path, "echo $$ > ../pid; exec sleep 600"), counted))
    runner.send(ONE)
    wait_until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it runs")

    runner.stop()

    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "it is gone")
    assert [] == counted.ends


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_webhook_sends_the_hash(fence: Fence, method: str) -> None:
    with Server(200) as server:
        Webhook(f"{server.endpoint}/path", method, 200, 5.0, 1.0).run(ONE, fence)

        assert [(method, ONE)] == server.hashes


def test_a_webhook_sends_the_login_of_its_url_and_reads_no_answer(fence: Fence) -> None:
    with Server(200) as server:
        server.inject(with_headers(**{"Content-Length": "9999999"}))
        url = server.endpoint.replace("http://", "http://me:p%40ss@")

        Webhook(url, "POST", 200, 5.0, 0.01).run(ONE, fence)

        assert "Basic bWU6cEBzcw==" == server.requests[0].headers["authorization"]


@pytest.mark.parametrize("status", [307, 308])
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_webhook_is_repeated_at_the_target_of_a_redirect(
    fence: Fence, status: int, method: str
) -> None:
    """An ingress answers so on plain http."""
    with Server(200) as other, Server(200) as server:
        server.inject(answer_with(Answer(status, {"Location": f"{other.endpoint}/hook"})))

        Webhook(server.endpoint, method, 200, 5.0, 0.01).run(ONE, fence)

        assert [(method, ONE)] == other.hashes


@pytest.mark.parametrize("is_redirected", [False, True])
def test_a_webhook_over_https_needs_an_authority_that_is_trusted(
    tmp_path: Path, fence: Fence, monkeypatch: pytest.MonkeyPatch, is_redirected: bool
) -> None:
    context, authority = self_signed(tmp_path / "tls", "localhost")
    with Server(200, tls=context) as secure, Server(200) as plain:
        plain.inject(answer_with(Answer(307, {"Location": secure.endpoint})))
        plain.inject(answer_with(Answer(307, {"Location": secure.endpoint})))
        url = plain.endpoint if is_redirected else secure.endpoint
        hook = Webhook(url, "POST", 200, 5.0, 1.0)

        with pytest.raises(HookFailed, match="certificate verify failed"):
            hook.run(ONE, fence)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        hook.run(ONE, fence)

        assert [("POST", ONE)] == secure.hashes


def test_the_first_webhook_waits_for_no_import_and_over_http_for_no_authorities() -> None:
    """They take 0.1 s, and would delay a retry beyond git-sync's."""
    with Server(200) as server:
        code = (
            "import os, ssl, sys\n"
            "from git_sync_wrapper.flags.options import read_options\n"
            "from git_sync_wrapper.hooks.runners import Hooks\n"
            "from sidecar_runtime.fence import Fence\n"
            f"flags = ['--repo=r', '--root=/r', '--webhook-url={server.endpoint}']\n"
            "hooks = Hooks(read_options(flags, {}), {}, print)\n"
            "print('urllib.request' in sys.modules)\n"
            "ssl.SSLContext = None\n"
            f"print(hooks._runners[0].run_once('{ONE}', Fence()) or 'sent')\n"
        )
        said = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )

        assert ["True", "webhook success", "sent"] == said.stdout.splitlines()
        assert [("POST", ONE)] == server.hashes


def test_a_webhook_sends_no_login_to_the_target_of_a_redirect(fence: Fence) -> None:
    with Server(200) as other, Server(200) as server:
        server.inject(answer_with(Answer(302, {"Location": other.endpoint})))
        url = server.endpoint.replace("http://", "http://me:secret@")

        Webhook(url, "GET", 200, 5.0, 0.01).run(ONE, fence)

        assert "authorization" in server.requests[0].headers
        assert "authorization" not in other.requests[0].headers


def test_a_webhook_checks_the_status_if_set_and_is_not_sent_once_revoked(fence: Fence) -> None:
    with Server(500) as server:
        with pytest.raises(HookFailed, match="is 500 instead of 200"):
            Webhook(server.endpoint, "POST", 200, 5.0, 1.0).run(ONE, fence)
        Webhook(server.endpoint, "POST", 0, 5.0, 1.0).run(ONE, fence)
        fence.revoke()
        with pytest.raises(CycleAbandoned):
            Webhook(server.endpoint, "POST", 0, 5.0, 1.0).run(ONE, fence)

    assert [("POST", ONE)] * 2 == server.hashes


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/T0KEN", "http://127.0.0.1/T0KEN a"])
def test_an_unreachable_webhook_fails_without_showing_its_url(fence: Fence, url: str) -> None:
    error = raised(HookFailed, Webhook(url, "POST", 200, 5.0, 1.0).run, ONE, fence)

    assert "no answer" in str(error)
    assert "T0KEN" not in str(error)


def test_retries_a_webhook_after_an_invalid_answer(counted: Counted, started: Started) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/"
        started(HookRunner(Webhook(url, "POST", 200, 5.0, 0.01), counted)).send(ONE)
        for _ in range(2):
            peer, _ = server.accept()
            with peer:
                peer.recv(65536)
                peer.sendall(b"no web server\r\n")

        wait_until(lambda: len(counted.ends) > 1, "both are counted")
    assert ("webhook", "error") == counted.ends[0]


def hooks(folder: Path, counted: Counted, *arguments: str) -> Hooks:
    (folder / ".snapshots" / ONE).mkdir(parents=True)
    options = read_options(
        [f"--root={folder}", "--touch-file=touched/file", *arguments],
        {"GITSYNC_REPO": "https://h/r"},
    )
    return Hooks(options, os.environ, counted)


def test_creates_the_touch_file_then_updates_its_time(tmp_path: Path, counted: Counted) -> None:
    ours = hooks(tmp_path, counted)
    ours.announce(ONE)
    file = tmp_path / "touched/file"
    os.utime(file, (1, 1))

    ours.announce(TWO)

    assert 1 != file.stat().st_mtime


def test_reports_failures_until_success_without_the_output_of_commands(
    tmp_path: Path, counted: Counted, log: Log
) -> None:
    """Anyone who can reach the port can read the report."""
    good = tmp_path / "good"
    command = script(tmp_path / "hook", f"echo s3cret; test -e {good} || exit 3")
    ours = hooks(tmp_path, counted, f"--exechook-command={command}", "--exechook-backoff=1s")
    (tmp_path / "touched").touch()
    ours.start()
    try:
        assert "" == ours.problem
        ours.announce(ONE)
        said = f"exechook failed for {ONE}: it ended with exit code 3"
        wait_until(lambda: f"touch-file failed: File exists; {said}" == ours.problem, "both fail")
        (tmp_path / "touched").unlink()
        ours.announce(ONE)
        assert said == ours.problem
        good.touch()
        wait_until(lambda: "" == ours.problem, "the hook succeeds")
    finally:
        ours.stop()


def test_a_one_shot_waits_and_returns_errors_without_the_output(
    tmp_path: Path, counted: Counted, log: Log
) -> None:
    command = script(tmp_path / "hook", "echo s3cret; exit 3")
    ours = hooks(tmp_path, counted, f"--exechook-command={command}")

    problem = ours.announce_once(ONE, Fence())

    assert f"exechook failed for {ONE}: it ended with exit code 3" == problem
    assert [("exechook", "error")] == counted.ends
    assert "s3cret" in log.events("hook_failed")[0]["error"]


def test_reports_a_failed_pre_publish_hook_without_its_output(
    tmp_path: Path, counted: Counted, log: Log
) -> None:
    command = script(tmp_path / "hook", "echo s3cret; exit 3")
    ours = hooks(tmp_path, counted, f"--pre-publish-exechook-command={command}")

    error = raised(PrePublishError, ours.prepublish, ONE, Fence())

    assert f"pre-publish-exechook failed for {ONE}: it ended with exit code 3" == error.message
    assert "s3cret" in log.events("hook_failed")[0]["error"]


def test_stop_ends_the_threads_of_all_hooks(tmp_path: Path, counted: Counted) -> None:
    before = threading.active_count()
    ours = hooks(tmp_path, counted, "--exechook-command=/bin/true")
    ours.start()

    ours.stop()

    wait_until(lambda: threading.active_count() == before, "no thread is left")
