"""
The output of a `check` command, and its exit code.
"""

import contextlib
import socket
from collections.abc import Iterator

import pytest

from sidecar_runtime.checks import daemon, say
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Health, Outcome, Readiness
from sidecar_runtime.http.endpoint import Endpoint
from sidecar_runtime.metrics import Metrics
from tests.runtime.recording import Log
from tests.runtime.sidecars import ABOUT, Sidecar
from tests.support.machine.clocks import Clock
from tests.support.program import own_port

HERE = {"pid": 7, "host": socket.gethostname()}
GOOD = Readiness(True, "r1", 5.0)
THROTTLED = SidecarError("throttled", "slow down", "Ask less.")


def test_say_escapes_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    say("ok", "DAG a\x1b[2J", "x.py\r  FAIL \udcff")

    assert "  ok    DAG a\\x1b[2J   x.py\\r  FAIL \\udcff\n" == capsys.readouterr().out


# --- the state of a running daemon


@contextlib.contextmanager
def running(
    readiness: Readiness = GOOD,
    error: SidecarError | None = None,
    *,
    silent_seconds: float = 0.0,
) -> Iterator[tuple[str, int]]:
    """Serve these facts as a daemon would; yield its address."""
    health = Health(clock := Clock())
    if error:
        health.record(Outcome("error", problem=error), 0)
    clock.seconds += silent_seconds
    metrics = Metrics("box-sync", "1.2.3", "abc")
    endpoint = Endpoint(ABOUT, health, Sidecar(readiness), metrics)
    listener = endpoint.start(("127.0.0.1", 0), "BOX_HTTP_BIND")
    try:
        yield "127.0.0.1", listener.port
    finally:
        listener.close()


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize(
    ("readiness", "error", "silent_seconds", "said"),
    [
        (GOOD, None, 0, ["ok daemon has published r1"]),
        (GOOD, THROTTLED, 0, ["FAIL daemon throttled: slow down", "Ask less."]),
        (GOOD._replace(shortfall="a part"), None, 0, ["FAIL daemon a part"]),
        (Readiness(False, problem="nothing yet"), None, 0, ["FAIL daemon nothing yet"]),
        (
            Readiness(False, "r1", problem="damaged", shortfall="a part"),
            THROTTLED,
            0,
            ["FAIL daemon throttled: slow down", "Ask less.", "FAIL daemon damaged; a part"],
        ),
        (
            GOOD,
            None,
            75,
            ["FAIL daemon is not alive: no cycle has finished for 75 s", "Restart it."],
        ),
    ],
    ids=["good", "failing", "a part", "nothing", "all of it", "not alive"],
)
def test_check_reports_the_state_of_a_running_daemon(
    capsys: pytest.CaptureFixture[str],
    log: Log,
    readiness: Readiness,
    error: SidecarError | None,
    silent_seconds: float,
    said: list[str],
) -> None:
    with running(readiness, error, silent_seconds=silent_seconds) as address:
        result = daemon("box-sync", "box://source", address, holder=HERE)

    assert (said[0].startswith("ok"), said) == (result, lines(capsys))


def test_check_succeeds_with_a_hint_if_the_daemon_serves_another_source(
    capsys: pytest.CaptureFixture[str], log: Log
) -> None:
    with running(Readiness(False, problem="nothing yet")) as address:
        assert daemon("box-sync", "box://other", address, holder=HERE)

    assert [
        f"?? daemon the process that answers at 127.0.0.1:{address[1]} serves another source"
    ] == (lines(capsys))


@pytest.mark.parametrize(
    ("holder", "has_port", "mark"),
    [
        ({}, True, ""),
        (HERE, True, "FAIL"),
        (HERE, False, "??"),
        ({"pid": 7, "host": "elsewhere"}, True, "??"),
    ],
    ids=["nobody", "here", "at any port", "in another pod"],
)
def test_check_fails_only_if_a_reachable_lock_holder_does_not_answer(
    capsys: pytest.CaptureFixture[str], holder: dict[str, object], has_port: bool, mark: str
) -> None:
    """A daemon in another pod cannot answer, and neither can one on an unknown port."""
    port = own_port() if has_port else 0

    result = daemon("box-sync", "box://source", ("127.0.0.1", port), holder=holder)

    where = f"127.0.0.1:{port}"
    who = f"pid 7 on {holder.get('host')}"
    said = f"{who} holds the lock of the target but does not answer at {where}"
    assert (mark != "FAIL", [f"{mark} daemon {said}"] if mark else []) == (result, lines(capsys))
