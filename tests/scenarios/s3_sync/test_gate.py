"""
The gate reports a refused revision and keeps the last good one, tested with whole
processes.
"""

import json
import os
import re
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import Texts
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.daemon import Daemon
from tests.support.s3_sync.snapshots import (
    SNAPSHOT,
    SwappingS3,
    consumed,
    count_of,
    wait_for_partial_cycles,
)
from tests.support.waiting import wait_until

GOOD = {
    "sales.py": b"VALUE = 1\n",
    "pkg/stock.py": b"STOCK = 2\n",
    "pkg/old.py": b"OLD = 3\n",
    "notes.txt": b"not Python (\n",
}
BROKEN_NAME = "pkg/<img src=x onerror=alert(1)>.py"
BROKEN = GOOD | {BROKEN_NAME: b"one = 1\ntwo = (2\nthree = 3\n", "new.py": b"NEW = 1\n"}
del BROKEN["pkg/old.py"]
FIXED = BROKEN | {BROKEN_NAME: b"one = 1\ntwo = (2)\nthree = 3\n"}
NAP = 1_000_000 + os.getpid()
"""Seconds that a hanging command sleeps; the number identifies its process."""


@pytest.fixture
def s3() -> Iterator[SwappingS3]:
    """A bucket with a good revision."""
    with SwappingS3(GOOD) as s3:
        yield s3


GATED = SNAPSHOT | {"S3_SYNC_GATE": "syntax"}


def by_command(*words: object) -> Texts:
    """Return the settings of a gate that runs a command."""
    return {
        **SNAPSHOT,
        "S3_SYNC_GATE": "command",
        "S3_SYNC_GATE_COMMAND": shlex.join(map(str, words)),
        "S3_SYNC_GATE_TIMEOUT": "60s",
    }


def checks(daemon: Daemon) -> tuple[float, float, float]:
    """
    Return how many revisions were accepted and refused, and whether the newest is
    refused.
    """
    return (
        count_of(daemon, "sidecar_gate_checks_total", result="accepted"),
        count_of(daemon, "sidecar_gate_checks_total", result="refused"),
        count_of(daemon, "sidecar_gate_refused"),
    )


def napping() -> list[int]:
    """Return the processes of hanging commands."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", b"%d" % NAP]:
            found.append(int(pid))
    return found


@pytest.fixture
def no_nap_is_left() -> Iterator[None]:
    """A check that fails a test which leaves hanging commands, and kills them."""
    yield
    left = napping()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert [] == left


# --- refused, named, fixed


def test_refuses_and_reports_a_broken_dag_until_it_is_fixed(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(GATED, interval="0.2").until_synced()
    good = daemon.status()["revision"]
    s3.swap(BROKEN)
    refused = daemon.wait_for_event("revision_refused")
    place = f"{BROKEN_NAME}:2"

    assert ("error", BROKEN_NAME, 2) == (
        refused["level"],
        refused["path"],
        refused["line"],
    )
    assert "was never closed" in refused["problem"]
    assert [{"path": BROKEN_NAME, "line": 2, "problem": refused["problem"]}] == refused[
        "problems"
    ]
    assert 1 == refused["files_refused"]
    wait_for_partial_cycles(daemon)
    assert GOOD == consumed(target)

    ready = daemon.get("/readyz")
    assert (200, "revision_refused") == (ready.status, ready.json()["reason"])
    assert place in ready.json()["error"]
    assert good == ready.json()["revision"]
    status = daemon.status()
    assert place in str(status["details"]["refused"])
    assert refused["revision"] in str(status["details"]["refused"])
    assert (0, "partial") == (
        status["consecutive_failures"],
        status["cycles"][0]["result"],
    )
    page = daemon.get("/").body
    assert "&lt;img src=x onerror=alert(1)&gt;.py:2" in page
    assert "<img" not in page
    assert (1, 1, 1) == checks(daemon)
    assert daemon.is_alive()

    wait_for_partial_cycles(daemon)
    assert 1 == len(daemon.find_events("revision_refused"))
    assert [] == daemon.find_events("cycle_failed")
    daemon.sync()
    assert (1, 2, 1) == checks(daemon), "SIGHUP asks again"
    s3.swap(FIXED)
    wait_until(lambda: consumed(target) == FIXED, "the fixed revision is published")
    wait_until(lambda: checks(daemon) == (2, 2, 0), "the gate rests")
    assert daemon.reason() is None
    assert "refused" not in daemon.status()["details"]


def test_a_file_is_compiled_with_the_grammar_of_the_setting(
    s3: SwappingS3, start: StartDaemon
) -> None:
    daemon = start(GATED | {"S3_SYNC_GATE_GRAMMAR": "3.11"}).until_synced()
    s3.swap(GOOD | {"new.py": b"type Number = int\n"})

    assert "revision_refused" == daemon.sync()["reason"]
    assert "new.py" == daemon.find_events("revision_refused")[0]["path"]


# --- a command

REPORT = """
import json, os, sys
with open({report!r}, "a") as file:
    json.dump({{
        "arguments": sys.argv[1:],
        "folder": os.environ["GATE_FOLDER"],
        "cwd": os.getcwd(),
        "revision": os.environ["GATE_REVISION"],
        "changed": sorted(sys.stdin.buffer.read().decode().split(chr(0))),
        "variables": sorted(os.environ),
        "files": {{
            os.path.relpath(os.path.join(here, name)): open(os.path.join(here, name)).read()
            for here, _, names in os.walk(".") for name in names
        }},
    }}, file)
    file.write(chr(10)); open("left behind", "w")
"""


def test_command_receives_the_complete_candidate_and_its_changed_paths(
    s3: SwappingS3, target: Path, tmp_path: Path, start: StartDaemon
) -> None:
    report = tmp_path / "report"
    program = tmp_path / "check me.py"
    program.write_text(REPORT.format(report=str(report)))
    odd = {"two words.py": b"# 1", "line\nbreak.py": b"# 2", "-rf.py": b"# 3"}
    settings = by_command(sys.executable, program, "two words", "$HOME", "*")
    settings |= {"S3_SYNC_GATE_ENV": "TEAM, NOBODY", "TEAM": "data"}
    settings |= {"TZ": "UTC", "LANG": "C.UTF-8", "AIRFLOW_HOME": "/nowhere"}
    daemon = start(settings).until_synced()
    changed = {**GOOD, "sales.py": b"VALUE = 2\n", **odd}
    del changed["pkg/old.py"]
    s3.swap(changed)
    revision = daemon.sync()["revision"]
    first, second = [json.loads(line) for line in report.read_text().splitlines()]
    assert ["two words", "$HOME", "*"] == first["arguments"]
    # The interpreter sets LC_CTYPE itself if no locale is given (PEP 538).
    assert {
        "GATE_FOLDER",
        "GATE_REVISION",
        "HOME",
        "LANG",
        "PATH",
        "PYTHONDONTWRITEBYTECODE",
        "PYTHONSAFEPATH",
        "TEAM",
        "TZ",
    } == (set(first["variables"]) - {"LC_CTYPE"})
    assert sorted(["", *GOOD]) == first["changed"]
    assert {path: body.decode() for path, body in GOOD.items()} == first["files"]
    assert sorted(["", "sales.py", *odd]) == second["changed"]
    assert {path: body.decode() for path, body in changed.items()} == second["files"]
    assert revision == second["revision"] != first["revision"]
    assert os.path.realpath(second["folder"]) == second["cwd"]
    assert changed == consumed(target)


def test_a_command_of_the_standard_library_runs_no_module_of_the_bucket(
    s3: SwappingS3, target: Path, tmp_path: Path, start: StartDaemon
) -> None:
    """Python's `-m` would find it first: the command runs in the revision's folder."""
    ran = tmp_path / "ran"
    planted = f"open({str(ran)!r}, 'w')\n".encode()
    s3.swap(
        GOOD
        | dict.fromkeys(
            ("tabnanny.py", "os.py", "tokenize.py", "sitecustomize.py"), planted
        )
    )

    daemon = start(by_command(sys.executable, "-m", "tabnanny", "."))

    daemon.wait_until_synced()
    assert planted == consumed(target)["tabnanny.py"], daemon.log()
    assert not ran.exists()


@pytest.mark.usefixtures("no_nap_is_left")
def test_sigterm_ends_a_hanging_command_and_all_its_processes(
    start: StartDaemon,
) -> None:
    daemon = start(
        by_command(
            "sh", "-c", f"sleep {NAP} & trap '' TERM INT; sleep {NAP}; sleep {NAP}"
        )
    )
    wait_until(lambda: len(napping()) == 2, "the command hangs")
    assert daemon.is_alive()
    slow = daemon.wait_for_event("cycle_slow")
    assert re.search(r": since [\d-]+T[\d:]+Z it waits for the gate \(", slow["error"])
    assert slow["error"] == daemon.status()["error"]

    assert 0 == daemon.terminate().code
    wait_until(lambda: not napping(), "all its processes are gone")
    assert {} == consumed(daemon.target)
