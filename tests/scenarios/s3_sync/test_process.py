"""
The life of the process: signals, one-shots, deadlines, restarts, locks and permissions.
"""

import ctypes
import fcntl
import itertools
import os
import resource
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests import Texts
from tests.scenarios.s3_sync.conftest import IN_BOTH_LAYOUTS, StartDaemon
from tests.support.aws.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.http.faults import hang
from tests.support.http.loopback import Match
from tests.support.machine.clocks import set_clock
from tests.support.s3_sync.scripted import FILES, published, record_of, staged
from tests.support.s3_sync.shelf import RELEASE
from tests.support.s3_sync.snapshots import SNAPSHOT
from tests.support.waiting import wait_until

SYS_TGKILL = {"x86_64": 234, "aarch64": 131}[os.uname().machine]


def test_heeds_signals_that_are_delivered_to_another_thread(start: StartDaemon) -> None:
    """The kernel delivers them so when the main thread is busy."""
    daemon = start().until_synced()

    def signal_another_thread(number: signal.Signals) -> None:
        threads = [int(name) for name in os.listdir(f"/proc/{daemon.pid}/task")]
        assert 0 == ctypes.CDLL(None).syscall(
            SYS_TGKILL,
            daemon.pid,
            next(thread for thread in threads if thread != daemon.pid),
            int(number),
        )

    seen = len(daemon.events)
    signal_another_thread(signal.SIGHUP)
    daemon.wait_for_event("cycle_finished", after=seen)
    signal_another_thread(signal.SIGTERM)

    assert 0 == daemon.wait_for_exit().code


@pytest.mark.parametrize(
    ("number", "match", "after"),
    [
        (signal.SIGINT, is_list, None),
        *((signal.SIGTERM, is_get("dags/a.py"), after) for after in (None, 0, 5)),
    ],
)
def test_a_signal_stops_the_daemon_during_a_hanging_request(
    s3: FakeS3,
    target: Path,
    start: StartDaemon,
    number: signal.Signals,
    match: Match,
    after: int | None,
) -> None:
    daemon = start().until_synced()
    s3.put("dags/a.py", b"never whole")
    s3.inject(hang(after), match)
    s3.forget()
    daemon.sighup()
    s3.wait_for(match)
    daemon.send_signal(number)

    assert daemon.wait_for_exit().code == 0
    assert daemon.find_events("sidecar_stopped", exit_code=0)
    assert published(target) == FILES
    assert staged(target) == []
    assert daemon.stray_lines == []


def test_a_one_shot_publishes_exits_and_binds_no_port(
    target: Path, start: StartDaemon
) -> None:
    """
    And code of other people, which a PYTHONPATH may contain, never sees its
    credentials.
    """
    (target.parent / "botocore.py").write_text("raise SystemExit('not ours')")
    settings = {"S3_SYNC_ONE_SHOT": "true", "PYTHONPATH": str(target.parent)}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings["S3_SYNC_HTTP_BIND"] = f"127.0.0.1:{taken.getsockname()[1]}"
        daemon = start(settings)
        assert 0 == daemon.wait_for_exit().code, daemon.log()

    assert (FILES, []) == (published(target), daemon.stray_lines)
    assert [] == [
        e for e in daemon.events if e["event"] in ("http_listening", "cycle_failed")
    ]


def test_ends_after_the_failures_that_the_setting_allows(start: StartDaemon) -> None:
    """Here those of a proxy of another kind."""
    daemon = start(
        {"HTTP_PROXY": "https://proxy.example:3128", "NO_PROXY": ""}
        | {"S3_SYNC_MAX_FAILURES": "2"},
        interval="0.2",
    )

    assert 3 == daemon.wait_for_exit().code
    assert 2 == len(daemon.find_events("cycle_failed", reason="proxy_refused"))


@pytest.mark.parametrize(
    ("error_of_python", "reason"),
    [("MemoryError", "memory_limit"), ("OverflowError", "bug")],
)
def test_an_unexpected_error_ends_one_cycle_and_is_told(
    s3: FakeS3, target: Path, start: StartDaemon, error_of_python: str, reason: str
) -> None:
    """Here one of a library, which is imported for the first such checksum."""
    (target.parent / "anycrc.py").write_text(f"raise {error_of_python}")
    s3.put("dags/c.py", b"c", headers={"x-amz-checksum-crc32c": "AAAAAA=="})
    daemon = start({"PYTHONPATH": str(target.parent)})

    failed = daemon.wait_for_event("cycle_failed")
    assert reason == failed["reason"]
    assert (reason == "bug") == ("anycrc.py" in str(failed.get("exception")))
    assert (reason == "bug") == (failed["level"] == "error")
    s3.delete("dags/c.py")
    assert "cycle_finished" == daemon.sync()["event"]
    assert FILES == published(target)


@pytest.mark.parametrize(
    ("module", "content", "code", "said"),
    [
        ("cryptography", "raise OverflowError", 1, "sidecar_crashed"),
        (
            "sitecustomize",
            "__import__('sys').modules['httptools'] = None",
            3,
            "s3-sync[daemon]",
        ),
    ],
)
def test_a_broken_installation_ends_the_start(
    target: Path, start: StartDaemon, module: str, content: str, code: int, said: str
) -> None:
    (target.parent / f"{module}.py").write_text(content)
    daemon = start(
        RELEASE | {"S3_SYNC_TRUSTED_KEYS": "/nowhere", "PYTHONPATH": str(target.parent)}
    )

    assert code == daemon.wait_for_exit().code
    assert said in daemon.log()


def test_abandoned_cycles_leak_neither_threads_nor_connections(
    s3: FakeS3, start: StartDaemon
) -> None:
    daemon = start({"S3_SYNC_TIMEOUT": "1s"}, interval="0.2").until_synced()
    threads, files = resources(daemon.pid)
    s3.inject(hang(), is_list)
    failed = daemon.wait_for_event(
        "cycle_failed", consecutive_failures=3, timeout_seconds=90
    )
    abandoned = int(failed["consecutive_failures"])
    before = len(daemon.events)
    s3.heal()
    daemon.wait_for_event("cycle_finished", after=before)

    def settled() -> bool:
        now_threads, now_files = resources(daemon.pid)
        return now_threads < threads + abandoned and now_files < files + abandoned

    wait_until(settled, "fewer new threads and connections than abandoned cycles")


def resources(pid: int) -> tuple[int, int]:
    """Return the number of threads and of open files of a process."""
    return tuple(len(os.listdir(f"/proc/{pid}/{name}")) for name in ("task", "fd"))  # type: ignore[return-value]


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_modes_do_not_depend_on_the_umask(
    target: Path, start: StartDaemon, mode: int
) -> None:
    """Another user of the group must be able to continue."""
    start(
        {"S3_SYNC_FILE_MODE": f"{mode:04o}"},
        wrapper=("/bin/sh", "-c", f'umask {mode & 0o77:03o}; exec "$0" "$@"'),
    ).until_synced()

    assert mode == stat.S_IMODE((target / "a.py").stat().st_mode)
    made = [target, target / "pkg", target / ".s3-sync", target / ".s3-sync/staging"]
    assert {0o775} == {stat.S_IMODE(path.stat().st_mode) for path in made}
    assert 0o664 == stat.S_IMODE((target / ".s3-sync/lock").stat().st_mode)


@IN_BOTH_LAYOUTS
def test_a_standby_waits_and_takes_over(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    first = start(layout).until_synced()
    second = start(layout, interval="0.5")

    told = second.wait_for_event("wait_began", reason="target_locked")
    assert "info" == told["level"]
    assert str(first.pid) in str(told["holder"])
    assert f"{told['holder']} holds the lock" in told["error"]
    assert "target_locked" == second.wait_until_ready().json()["reason"]
    s3.inject(error(500, "InternalError"))
    shown = target / "current" if layout == SNAPSHOT else target
    (shown / "a.py").unlink()  # the holder cannot restore it
    first.sync()
    wait_until(lambda: second.get("/readyz").status == 503, "both say so")
    assert "1 published file" in second.get("/readyz").json()["problem"]
    assert 1 == record_of(first)["damaged"]
    s3.heal()
    first.sync()
    second.wait_until_ready()
    first.kill()
    second.wait_for_event("target_acquired")
    assert [told] == second.find_events("wait_began")
    assert (
        second.wait_for_event("reason_ended", reason="target_locked")["lasted_seconds"]
        > 0
    )
    s3.put("dags/new.py", b"new")
    wait_until((shown / "new.py").exists, "the second one publishes")


def test_a_lock_that_another_program_holds_is_not_said_to_be_a_dead_holders(
    target: Path, start: StartDaemon
) -> None:
    daemon = start().until_synced()
    named = f"pid {daemon.pid} on {os.uname().nodename}"
    daemon.kill()
    with open(target / ".s3-sync/lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        told = start().wait_for_event("wait_began")["holder"]

    assert f"{named} (or, if that is gone, an unknown program)" == told


@pytest.mark.parametrize(("key_path", "code"), [("dags", 0), ("other", 3)])
def test_a_one_shot_beside_a_holder_ends_if_that_has_what_it_was_started_for(
    s3: FakeS3, start: StartDaemon, key_path: str, code: int
) -> None:
    s3.put("other/a.py", b"other")
    start().until_synced()
    second = start(
        {
            "S3_SYNC_ONE_SHOT": "true",
            "S3_SYNC_ONE_SHOT_DEADLINE": "2s",
            "KEY_PATH": key_path,
        },
        interval="0.5",
    )
    second.wait_for_event("wait_began", reason="target_locked")

    assert code == second.wait_for_exit().code
    gave_up = second.find_events("sidecar_gave_up", reason="one_shot_deadline")
    assert (code == 3) == any("target_locked: pid" in one["error"] for one in gave_up)


def test_goes_on_when_the_clock_is_set_by_hours(
    s3: FakeS3, target: Path, start: StartDaemon, tmp_path: Path
) -> None:
    clock = tmp_path / "clock"
    daemon = start(set_clock(clock, "+0h"), interval="0.2").until_synced()
    for offset in ("+5h", "-5h"):
        set_clock(clock, offset)
        s3.put("dags/a.py", offset.encode())
        wait_until(lambda: offset.encode() == (target / "a.py").read_bytes(), offset)  # noqa: B023

    assert [] == daemon.find_events("cycle_failed")
    assert daemon.is_alive() and daemon.is_ready()


def test_a_connection_that_cannot_be_accepted_is_accepted_later(
    start: StartDaemon,
) -> None:
    """Without a free descriptor: the client waits, and nobody else is harmed."""
    daemon = start({"S3_SYNC_LOG_LEVEL": "debug"}).until_synced()
    before = resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE)
    in_use = set(map(int, os.listdir(f"/proc/{daemon.pid}/fd")))
    free = next(number for number in itertools.count() if number not in in_use)
    resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, (free, before[1]))
    with socket.create_connection(daemon.address()) as client:
        client.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        failed = daemon.wait_for_event("http_failed")
        resource.prlimit(daemon.pid, resource.RLIMIT_NOFILE, before)
        answer = client.makefile("rb").readline()

    assert "accept" in failed["error"]
    assert b"200 OK" in answer
