"""
The process: how it ends, its daemon, its command line, and its pod.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.machine.pipes import unread_pipe
from tests.support.waiting import wait_until

# A Linux pipe holds 64 KiB, and a log line is shorter than a page.

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


# --- run_daemon


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


# --- the command line


# --- the pod
