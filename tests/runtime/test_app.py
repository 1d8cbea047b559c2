"""
The process: how it ends, its daemon, its command line, and its pod.
"""

import array
import fcntl
import json
import socket
import subprocess
import sys
import termios
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from sidecar_runtime.app import find_pod, make_parser
from sidecar_runtime.settings import CommonSettings
from tests.support.machine.pipes import unread_pipe
from tests.support.waiting import wait_until

# A Linux pipe holds 64 KiB, and a log line is shorter than a page.
FULL_BYTES = 60_000

PROGRAM = """
import os, sys, threading, time, urllib.request
from sidecar_runtime import logs
from sidecar_runtime.app import begin_logs, run_daemon, run_main
from sidecar_runtime.errors import GaveUp, Problem, SettingsError, SidecarError
from sidecar_runtime.http.status import About
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import CHANGED, Script, settings_of

ABOUT = About("box", "1.2.3", "box://source", "/target")

def daemon(*steps, watch=lambda wake: None, **environment):
    settings = settings_of(**environment)
    metrics = Metrics("box", "1.2.3", "r")
    return run_daemon(Script(*steps), settings, ABOUT, metrics, watch=watch)

def main():
    {body}

run_main(main)
"""


@contextmanager
def start(body: str, *around: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a command, optionally through the command `around`; kill it at the end of the block."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **more}
    with subprocess.Popen(
        [*around, sys.executable, "-c", PROGRAM.format(body=body)],
        cwd=Path(__file__).parents[2],
        text=True,
        **{"env": {"PATH": "/usr/bin:/bin"}, **options},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(body: str) -> tuple[int, list[dict[str, Any]]]:
    """Run a command until it ends; return the exit code and the log."""
    with start(body, stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=30)
    assert err == ""
    return process.returncode, [json.loads(line) for line in out.splitlines()]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("return 0", 0),
        ("return 3", 3),
        ("sys.exit(2)", 2),
        ("sys.exit(0)", 0),
        ("sys.exit('a text')", 1),
        ("threading.Thread(target=time.sleep, args=(600,)).start(); return 0", 0),
    ],
    ids=["done", "failed", "as argparse", "as its help", "a text", "a thread that hangs"],
)
def test_exits_with_the_exit_code_of_the_command(body: str, code: int) -> None:
    assert run(body) == (code, [])


def test_wrong_settings_are_logged_one_per_line_and_exit_with_code_2() -> None:
    code, lines = run(
        "raise SettingsError([Problem('A', 'x', 'is bad'), Problem('B', '', 'is missing')])"
    )

    assert code == 2
    assert [
        ("error", "setting_rejected", "A", "x", "is bad"),
        ("error", "setting_rejected", "B", "", "is missing"),
    ] == [
        (line["level"], line["event"], line["setting"], line["value"], line["problem"])
        for line in lines
    ]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (
            "raise GaveUp('failure_limit', 'too many', 'look there')",
            3,
            {"reason": "failure_limit", "error": "too many", "advice": "look there"},
        ),
        (
            "return daemon(*[SidecarError('denied', 'no', 'ask')] * 9, MAX_FAILURES='1')",
            3,
            {"reason": "failure_limit", "error": "denied: no", "advice": "ask"},
        ),
        (
            "return daemon(CHANGED, HTTP_BIND='192.0.2.1:1')",
            2,
            {"setting": "X_HTTP_BIND", "value": "192.0.2.1:1"},
        ),
    ],
    ids=["it gives up", "the loop gives up", "an address that cannot be bound"],
)
def test_the_last_log_line_has_the_cause_of_the_end(
    body: str, code: int, said: dict[str, str]
) -> None:
    found, lines = run(body)

    assert code == found
    event = "sidecar_gave_up" if code == 3 else "setting_rejected"
    assert ({"event": event} | said).items() <= lines[-1].items()


@pytest.mark.parametrize(
    "body",
    [
        "raise ValueError('bug')",
        "raise KeyboardInterrupt",
    ],
)
def test_a_bug_exits_with_code_1_and_a_traceback(body: str) -> None:
    code, lines = run(body)

    assert code == 1
    assert lines[-1]["event"] == "sidecar_crashed"
    assert "Traceback" in lines[-1]["exception"] and "in main" in lines[-1]["exception"]


# --- run_daemon


def test_watch_can_trigger_a_cycle() -> None:
    body = """given = []
    def wakes(fence):
        given[0]()
        return CHANGED
    return daemon(wakes, GaveUp('stop', ''), INTERVAL='1h', MAX_FAILURES='1', watch=given.append)"""

    code, lines = run(body)

    assert code == 3
    assert ["cycle_finished", "cycle_failed"] == [
        line["event"] for line in lines if line["event"].startswith("cycle_")
    ]


def test_begin_logs_applies_the_level_and_warns_about_unknown_variables() -> None:
    code, lines = run(
        "begin_logs(settings_of(LOG_LEVEL='warning'), ['BOX_STRANGE']);"
        "logs.get_logger('x').info('hushed'); return 0"
    )

    assert code == 0
    assert [("setting_unknown", "BOX_STRANGE")] == [
        (line["event"], line["setting"]) for line in lines
    ]


def test_exits_with_141_if_the_reader_of_its_output_leaves() -> None:
    """`head` leaves early. The exit code is that of a shell for SIGPIPE; there is no traceback."""
    body = "print('first', flush=True); sys.stdin.read(); print('second', flush=True)"
    with start(body, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        process.stdout = None

        _, err = process.communicate(timeout=30)

    assert (141, "") == (process.returncode, err)


CYCLES = """
def cycle(fence):
    open("{file}", "a").write("x")
    return CHANGED
settings = {{"INTERVAL": "0.1s", "LOG_LEVEL": "debug"}}
begin_logs(settings_of(**settings), [])
return daemon(*[cycle] * 10_000, **settings)
"""


def cycles(tmp_path: Path) -> str:
    """Return the body of a program: a daemon whose cycles append to a file, and log."""
    return CYCLES.format(file=tmp_path / "cycles").strip().replace("\n", "\n    ")


def count_cycles(tmp_path: Path) -> int:
    path = tmp_path / "cycles"
    return path.stat().st_size if path.exists() else 0


def test_an_unread_log_blocks_neither_cycles_nor_sigterm(tmp_path: Path) -> None:
    with (
        unread_pipe() as pipe,
        start(cycles(tmp_path), stdout=pipe.writer, stderr=subprocess.PIPE) as process,
    ):
        wait_until(lambda: count_cycles(tmp_path) > 2, "it runs cycles")
        pipe.fill()
        before = count_cycles(tmp_path)
        wait_until(lambda: count_cycles(tmp_path) > before + 5, "it runs more")
        process.terminate()
        _, err = process.communicate(timeout=20)

    assert (0, "") == (process.returncode, err)


@pytest.mark.parametrize("is_err_closed", [False, True], ids=["log", "both"])
def test_a_daemon_runs_and_stops_normally_after_its_log_pipe_closes(
    tmp_path: Path, *, is_err_closed: bool
) -> None:
    err = subprocess.STDOUT if is_err_closed else subprocess.PIPE
    with (
        unread_pipe() as pipe,
        start(cycles(tmp_path), stdout=pipe.writer, stderr=err) as process,
    ):
        wait_until(lambda: count_cycles(tmp_path) > 2, "it runs cycles")
        pipe.close_reader()
        before = count_cycles(tmp_path)
        wait_until(lambda: count_cycles(tmp_path) > before + 5, "it runs more")
        process.terminate()
        _, said = process.communicate(timeout=20)

    assert 0 == process.returncode
    assert not said


def _waiting_bytes(pipe: IO[bytes] | IO[str] | None) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(pipe, termios.FIONREAD, found)  # type: ignore[arg-type]
    return found[0]


def test_a_command_waits_for_a_slow_reader_of_its_log() -> None:
    body = "for n in range(3_000): logs.get_logger('x').info('said', n=n)"
    with start(f"{body}\n    return 0") as process:
        assert process.stdout is not None
        wait_until(lambda: _waiting_bytes(process.stdout) > FULL_BYTES, "the pipe is full")
        numbers = [json.loads(line)["n"] for line in process.stdout]

    assert list(range(3_000)) == numbers


# --- the command line


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("--version", "some-sidecar "),
        ("--help", "SOME_HTTP_BIND"),
        ("--help", "also reads: OTHER\n"),
    ],
)
def test_version_and_help_work_without_settings(
    argument: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        some_parser().parse_args([argument])

    assert said in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--bucket", "x"], ["check", "--interval=5"]])
def test_an_option_is_rejected_with_a_hint_at_environment_variables(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    parser = some_parser()
    parser.add_subparsers(metavar="COMMAND").add_parser("check")

    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)

    hint = "Settings are environment variables, not options. Run some-sidecar --help for a list.\n"
    assert capsys.readouterr().err.endswith(hint)


def some_parser() -> ArgumentParser:
    return make_parser(
        "some-sidecar",
        "It does something.",
        CommonSettings,
        "SOME_",
        "SOME=1 some-sidecar",
        "OTHER",
    )


# --- the pod


def test_uses_the_downward_api(tmp_path: Path) -> None:
    given = {"POD_NAME": "box-0", "POD_NAMESPACE": "airflow", "NODE_NAME": "node-1"}

    found = find_pod(given, str(tmp_path / "namespace"))
    assert {"name": "box-0", "namespace": "airflow", "node": "node-1"} == found


def test_falls_back_to_host_name_and_service_account_namespace(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("airflow\n")

    found = find_pod({}, str(tmp_path / "namespace"))
    assert {"name": socket.gethostname(), "namespace": "airflow", "node": ""} == found
