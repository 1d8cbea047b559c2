"""
The early start of the credential chain, before the imports.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar_runtime.aws import early
from sidecar_runtime.aws.credentials import ANONYMOUS, Chain, CredentialsError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.runtime.aws.fake_chain import CONFIG, FakeChain
from tests.runtime.gate.door import is_alive, pid_in
from tests.support.machine.descriptors import held
from tests.support.raising import raised
from tests.support.scripts import script
from tests.support.waiting import wait_until


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    before = held("pipe:")
    yield
    after = held("pipe:")
    early.drop()
    assert before == after


def has_answered() -> None:
    """Wait until the child that was started early has ended, without reaping it."""
    assert early._asked is not None
    os.waitid(os.P_PID, early._asked[1].pid, os.WEXITED | os.WNOWAIT)


def test_the_first_use_takes_the_answer_that_was_started_early(
    child: FakeChain, fence: Fence
) -> None:
    child.finds()
    early.ask(is_anonymous=False)
    has_answered()
    child.fails()  # a child that is started from now on
    chain = Chain()

    assert "AKID" == chain.current(fence)[0].access_key
    assert 1 == len(child.calls)
    chain.forget()
    raised(CredentialsError, chain.current, fence)
    assert 2 == len(child.calls)


def test_an_anonymous_reader_takes_the_early_answer(child: FakeChain, fence: Fence) -> None:
    child.says({"credentials": None, **CONFIG})
    early.ask(is_anonymous=True)

    assert ANONYMOUS is Chain(is_anonymous=True).current(fence)[0]
    assert ["-I -m sidecar_runtime.aws.chain anonymous"] == child.calls


def test_does_not_take_the_answer_to_a_different_command(child: FakeChain, fence: Fence) -> None:
    child.does("exec sleep 600")
    early.ask(is_anonymous=True)
    child.finds()

    assert "AKID" == Chain().current(fence)[0].access_key


def test_does_not_take_an_answer_that_is_too_old(
    child: FakeChain, fence: Fence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A daemon may have waited for the lock of its target until the credentials expired."""
    child.fails()
    early.ask(is_anonymous=False)
    has_answered()
    child.finds()
    real = time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: real() + early.FRESH_SECONDS + 1)

    assert "AKID" == Chain().current(fence)[0].access_key


def test_drop_kills_a_process_that_an_abandoned_cycle_did_not_take(
    child: FakeChain, tmp_path: Path
) -> None:
    fence = Fence()
    child.does(f"echo $$ > {tmp_path}/pid", "exec sleep 600")
    early.ask(is_anonymous=False)
    pid = pid_in(tmp_path / "pid")
    fence.revoke()

    raised(CycleAbandoned, Chain().current, fence)
    early.drop()
    assert not is_alive(pid)


def test_a_failed_early_start_is_reported_at_first_use(child: FakeChain, fence: Fence) -> None:
    early.ask(is_anonymous=False)

    error = raised(CredentialsError, Chain().current, fence)
    assert "cannot start the credential chain" in error.message


PROGRAM = """
import os, signal, sys, time
from sidecar_runtime.aws import early
from sidecar_runtime.entry import heed_signals
from sidecar_runtime.process import run_main
heed_signals()
sys.executable = sys.argv.pop()
def wait():
    while not os.path.exists(sys.executable + ".pid"):
        time.sleep(0.01)
"""
ASK = "early.ask(is_anonymous=False); wait(); "
ENDS = {
    "a signal before the process is known": (
        "start = early.child.start\n"
        "early.child.start = lambda *a: (start(*a), wait(), os.kill(os.getpid(), signal.SIGTERM))\n"
        "early.ask(is_anonymous=False)"
    ),
    "a signal during the imports": ASK + "os.kill(os.getpid(), signal.SIGTERM)",
    "settings that are wrong": ASK + "run_main(lambda: 2, '')",
    "a bug": ASK + "run_main(lambda: 1 / 0, '')",
    "a stopped command": ASK + "run_main(lambda: sys.exit(143), '')",
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_of_the_process_kills_its_early_child(tmp_path: Path, end: str) -> None:
    program = tmp_path / "python"
    script(program, f"echo $$ > {program}.new\nmv {program}.new {program}.pid\nexec sleep 600")

    subprocess.run([sys.executable, "-c", PROGRAM + ENDS[end], program], timeout=60, check=False)

    asked = pid_in(tmp_path / "python.pid")
    # A killed process exists a moment longer.
    wait_until(lambda: not is_alive(asked), "what it has asked ends")


START = """
import json, os, sys
from s3_sync import __main__
from sidecar_runtime import entry
from sidecar_runtime.aws import early
def imported(name):
    heavy = sys.modules.keys() & {"asyncio", "structlog", "prometheus_client"}
    there = [one for one in heavy if not isinstance(sys.modules[one], entry.Later)]
    print(json.dumps([name, early._asked and early._asked[0][4:], there]))
    early.drop()
    sys.stdout.flush()
    os._exit(0)
entry.import_module = imported
__main__.main()
"""


@pytest.mark.parametrize(
    ("arguments", "access", "asked"),
    [
        ([], "", []),
        (["check"], "requester-pays", []),
        ([], "Public ", ["anonymous"]),
        (["publish", "dags"], "", None),
        (["--help"], "", None),
    ],
)
def test_s3_sync_starts_the_chain_before_its_imports_if_it_needs_it(
    arguments: list[str], access: str, asked: list[str] | None
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", START, *arguments],
        env={"S3_SYNC_BUCKET_ACCESS": access, "AWS_EC2_METADATA_DISABLED": "true"},
        capture_output=True,
        check=True,
        timeout=60,
    )

    assert ["structlog", asked, []] == json.loads(done.stdout)
