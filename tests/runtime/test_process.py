"""
The process: signals at any time, how it ends, and what a start imports.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import Facts, Texts
from tests.support.daemon import ask
from tests.support.ledger.documented import ANY
from tests.support.ledger.seen import LEDGER
from tests.support.machine.pipes import unread_pipe
from tests.support.waiting import wait_until

PROGRAM = """
import os, sys, threading, time
from sidecar_runtime.app import begin_logs, log, run_daemon, run_main
from sidecar_runtime.errors import GaveUp, Problem, SettingsError, SidecarError
from sidecar_runtime.health import About
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import CHANGED, Script, settings_of

ABOUT = About("box", "1.2.3", "box://source", "/target")

def daemon(*steps, **environment):
    settings = settings_of(**environment)
    return run_daemon(Script(*steps), settings, ABOUT, Metrics("box"))

def hang(fence):
    print("ready", flush=True)
    os.read(os.pipe()[0], 1)     # forever, in the kernel

def hang_in_a_publish(fence):
    with fence:
        hang(fence)

def hang_and_hold_the_interpreter(fence):
    print("ready", flush=True)
    while True:
        sum(range(1000))

def crash_beside(fence):
    threading.Thread(target=lambda: 1 / 0, name="look").start()
    fence.wait(600)

def main():
    {body}

run_main(main)
"""
# A sidecar whose next import never ends.
IMPORTING = """
import importlib.abc, sys, time

class Stuck(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "{sidecar}.command":
            print("ready", flush=True)
            while True:
                time.sleep(0.05)

sys.meta_path.insert(0, Stuck())
import {sidecar}.__main__
"""


@contextmanager
def start(
    program: str, *arguments: str, **more: Any
) -> Iterator[subprocess.Popen[str]]:
    """Start a program; kill it at the end of the block."""
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, **more}
    with subprocess.Popen(
        [sys.executable, "-u", "-c", program, *arguments],
        cwd=Path(__file__).parents[2],
        text=True,
        env={"PATH": "/usr/bin:/bin"},
        **options,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(body: str) -> tuple[int, list[Facts]]:
    """Run a command until it ends; return the exit code and the log."""
    with start(PROGRAM.format(body=body), stderr=subprocess.PIPE) as process:
        out, err = process.communicate(timeout=30)
    assert err == ""
    return process.returncode, [json.loads(line) for line in out.splitlines()]


def code_at(number: signal.Signals, program: str, *arguments: str) -> int:
    """Return the exit code of a program that gets a signal when it is ready."""
    with start(program, *arguments) as process:
        assert process.stdout and process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        process.send_signal(number)
        return process.wait(60)


# --- signals


@pytest.mark.parametrize(
    "how", ["hang", "hang_in_a_publish", "hang_and_hold_the_interpreter"]
)
def test_sigterm_ends_the_process_while_a_cycle_hangs(how: str) -> None:
    assert 0 == code_at(
        signal.SIGTERM,
        PROGRAM.format(
            body=f"begin_logs(settings_of(LOG_LEVEL='error'), []); return daemon({how})"
        ),
    )


@pytest.mark.parametrize(
    ("sidecar", "number", "arguments", "code"),
    [
        # flags are no command
        ("git_sync_wrapper", signal.SIGTERM, ["--repo", "https://h/r"], 0),
        ("kerberos_sidecar", signal.SIGTERM, [], 0),
        ("sync_perm", signal.SIGTERM, [], 0),
        ("s3_sync", signal.SIGINT, [], 0),
        # CI must not continue after a stopped publish as if it had published.
        ("s3_sync", signal.SIGTERM, ["publish", "dags"], 128 + signal.SIGTERM),
        ("s3_sync", signal.SIGINT, ["check"], 128 + signal.SIGINT),
    ],
)
def test_every_sidecar_heeds_signals_before_its_imports(
    sidecar: str, number: signal.Signals, arguments: list[str], code: int
) -> None:
    assert code == code_at(number, IMPORTING.format(sidecar=sidecar), *arguments)


# --- how it ends


def test_a_thread_that_ends_unexpectedly_is_named_and_ends_liveness() -> None:
    """Nothing else brings it back, such as the one that looks at a volume."""
    body = "begin_logs(settings_of(), []); return daemon(crash_beside)"
    log: dict[str, Facts] = {}
    with start(PROGRAM.format(body=body)) as process:
        assert process.stdout
        while not {"http_listening", "thread_crashed"} <= log.keys():
            line = json.loads(process.stdout.readline())
            log[line["event"]] = line
            LEDGER.add(ANY, "event", line["event"])
        host, _, port = log["http_listening"]["address"].rpartition(":")
        healthy = ask((host, int(port)), "/healthz")
        ready = ask((host, int(port)), "/readyz").json()
        metrics = ask((host, int(port)), "/metrics").body

    assert 'reason="bug",result="failed"' in metrics
    assert 503 == healthy.status
    assert "bug" == ready["reason"]
    assert "look has ended: ZeroDivisionError" in ready["error"]


def test_children_can_be_waited_for_although_the_parent_ignores_sigchld() -> None:
    """As `trap '' CHLD` and some supervisors do: the kernel then keeps no exit code."""
    program = PROGRAM.format(
        body="return os.spawnl(os.P_WAIT, '/bin/sh', 'sh', '-c', 'exit 7')"
    )

    with start(
        program, preexec_fn=partial(signal.signal, signal.SIGCHLD, signal.SIG_IGN)
    ) as process:
        assert 7 == process.wait(60)


@pytest.mark.parametrize("stream", [0, 1, 2])
def test_a_stream_that_is_closed_at_the_start_is_survived(stream: int) -> None:
    """And no file of the volume gets its number, which children write to."""
    program = PROGRAM.format(
        body="begin_logs(settings_of(), []); return os.open('/', 0)"
    )

    with start(program, stdout=None, preexec_fn=partial(os.close, stream)) as process:
        assert process.wait(60) > 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        # the search for garbage, off during the imports, is on again
        ("import gc; return 3 if gc.isenabled() else 4", 3),
        ("sys.exit('a text')", 1),
        ("threading.Thread(target=time.sleep, args=(600,)).start(); return 0", 0),
    ],
)
def test_exits_with_the_exit_code_of_the_command(body: str, code: int) -> None:
    assert run(body) == (code, [])


SETTINGS = (
    "SettingsError([Problem('A', 'x', 'is bad'), Problem('B', '', 'is missing')])"
)


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        (
            f"raise {SETTINGS}",
            2,
            {"setting": "B", "value": "", "problem": "is missing"},
        ),
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
)
def test_the_last_log_line_has_the_cause_of_the_end(
    body: str, code: int, said: Texts
) -> None:
    found, lines = run(body)

    assert code == found
    event = "sidecar_gave_up" if code == 3 else "setting_rejected"
    assert ({"level": "error", "event": event} | said).items() <= lines[-1].items()


CYCLES = """
def cycle(fence):
    for number in range(100):
        log.info("said", number=number)
    open("{file}", "a").write("x")
    return CHANGED
begin_logs(settings_of(), [])
return daemon(*[cycle] * 10_000, INTERVAL="0.1s")
"""


def test_an_unread_log_blocks_neither_cycles_nor_sigterm_and_names_its_gaps(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cycles"
    path.touch()
    body = CYCLES.format(file=path).strip().replace("\n", "\n    ")
    streams = {"stderr": subprocess.PIPE}
    with (
        unread_pipe() as pipe,
        start(PROGRAM.format(body=body), stdout=pipe.writer, **streams) as process,
    ):
        wait_until(lambda: path.stat().st_size > 2, "it runs cycles")
        pipe.fill()
        before = path.stat().st_size
        wait_until(
            lambda: path.stat().st_size > before + 10, "more lines than are kept"
        )
        text = ""
        while "log_lines_dropped" not in text:
            text += pipe.drain()
        LEDGER.add(ANY, "event", "log_lines_dropped")
        assert text.count('"event": "said"') >= 500, "what was kept"
        pipe.fill()
        process.terminate()
        _, err = process.communicate(timeout=20)

    assert (0, "") == (process.returncode, err)


# --- imports


@pytest.mark.parametrize(
    ("module", "metrics", "client"),
    [
        ("git_sync_wrapper.sidecar", "WrapperMetrics", "asyncio"),
        ("s3_sync.metrics", "SyncMetrics", "boto3"),
    ],
)
def test_a_one_shot_imports_no_scheduler_http_server_metrics_client_or_botocore(
    module: str, metrics: str, client: str
) -> None:
    """Each task pod pays for what a start imports."""
    sidecar = module.partition(".")[0]
    heavy = (
        "botocore",
        client,
        "apscheduler",
        "prometheus_client",
        "http.client",
        f"{sidecar}.check",
    )
    program = (
        f"import sys, {sidecar}.command, sidecar_runtime.app\n"
        f"from {module} import {metrics}\n"
        f"{metrics}(is_read=False).show_readiness(is_ready=True, revision='r')\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )

    assert (
        "[]"
        == subprocess.check_output([sys.executable, "-c", program], text=True).strip()
    )
