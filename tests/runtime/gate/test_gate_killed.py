"""
Checks that take too long, do not end, or are abandoned: killed with all their children.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.gate.checks import Check, Undecided
from tests.runtime.door import PATIENCE_SECONDS, Knock, children, is_alive, pid_in
from tests.runtime.recording import Log
from tests.support.descriptors import held
from tests.support.raising import raised
from tests.support.waiting import wait_until

# --- too slow, endless, not to be ended


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600",
        "exec sleep 600 <&- >&- 2>&-",
        "yes",
        "yes & yes & yes & yes",
        "while :; do :; done",
        "trap '' TERM; sleep 600",
    ],
)
def test_who_takes_too_long_is_killed_and_has_not_refused(
    knock: Knock, script: str, log: Log
) -> None:
    door = knock(f"echo a.py:1: what; {script}", timeout_seconds=0.5)

    undecided = raised(Undecided, door.judge, changed=["a.py"])

    assert "gate_undecided" == undecided.reason
    assert "1 files were not checked within 0.5 s" == undecided.message
    assert "GATE_TIMEOUT" in undecided.advice
    assert (1, 0) == (door.checks("undecided"), door.checks("refused"))
    assert [] == log.events("revision_refused")


def test_a_syntax_check_that_takes_too_long_names_how_many_files_it_had(knock: Knock) -> None:
    door = knock(timeout_seconds=0.3)
    door.gate._check = Check(("sleep", "600"), lambda *_: [], ".py")

    undecided = raised(Undecided, door.judge, changed=["a.py", "b.py", "c.yaml"])

    assert "2 files were not checked within 0.3 s" == undecided.message


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("kill -KILL $$", "signal 9"),  # the kernel, out of memory
        ("kill -SEGV $$", "signal 11"),
        ("exit 137", "exit code 137"),  # a shell whose program the kernel has killed
        ("exit 127", "exit code 127"),
        ("exit 126", "exit code 126"),
        ("exit 75", "exit code 75"),
    ],
)
def test_an_end_that_is_no_answer_is_asked_again(
    knock: Knock, tmp_path: Path, end: str, said: str
) -> None:
    door = knock(
        f"test -e {tmp_path}/again && exit 0; touch {tmp_path}/again; echo a.py:1:x; {end}"
    )
    (door.folder / "a.py").touch()

    undecided = raised(Undecided, door.judge)

    assert f"the gate's command ended with {said}: a.py:1:x" == undecided.message
    assert "SIGHUP" in undecided.advice
    assert door.judge() is None
    assert (1, 1, 0) == tuple(map(door.checks, ("undecided", "accepted", "refused")))


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "exec sleep 600"])
def test_children_that_it_leaves_behind_are_killed(knock: Knock, tmp_path: Path, end: str) -> None:
    """
    And whoever keeps its output open is not waited for.
    """
    door = knock(
        f"sleep 600 & echo $! > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; {end}",
        timeout_seconds=1 if "sleep" in end else PATIENCE_SECONDS,
    )
    before = children()

    with suppress(Undecided):
        assert (door.judge() is None) == (end == "exit 0")

    wait_until(lambda: not is_alive(pid_in(tmp_path / "pid")), "its child is gone")
    assert before == children()


def test_a_child_that_floods_the_output_does_not_keep_its_parent(knock: Knock) -> None:
    assert knock("yes & exit 0", timeout_seconds=10).judge() is None


def test_no_descriptor_is_left(knock: Knock) -> None:
    knock("true").judge()
    before = held("pipe:")

    knock("true").judge()
    knock("echo no; exit 1").judge()
    raised(Undecided, knock("sleep 600", timeout_seconds=0.2).judge)

    assert before == held("pipe:")


# --- abandoned


def test_a_revoked_fence_kills_the_check_with_its_children(knock: Knock, tmp_path: Path) -> None:
    door = knock(
        f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/parent; exec sleep 600"
    )
    ends: list[BaseException] = []

    def judge() -> None:
        try:
            door.judge()
        except CycleAbandoned as end:
            ends.append(end)

    thread = threading.Thread(target=judge)
    thread.start()
    pids = [pid_in(tmp_path / name) for name in ("parent", "child")]

    door.fence.revoke()
    thread.join(PATIENCE_SECONDS)

    assert 1 == len(ends)
    wait_until(lambda: not any(map(is_alive, pids)), "both are gone")
    assert (0, 0) == (door.checks("accepted"), door.checks("refused"))


def test_an_abandoned_check_is_no_verdict(knock: Knock) -> None:
    door = knock("exit 0")
    door.fence.revoke()

    with pytest.raises(CycleAbandoned):
        door.judge()
    door.fence = Fence()

    assert door.judge() is None
    assert (1, 0) == (door.checks("accepted"), door.checks("refused"))


def test_a_fence_that_is_revoked_later_kills_nobody(knock: Knock) -> None:
    """
    The number may be another's by then.
    """
    door = knock("exit 0")
    killed: list[int] = []
    assert door.judge() is None
    before, os.killpg = os.killpg, lambda pid, number: killed.append(pid)
    try:
        door.fence.revoke()
    finally:
        os.killpg = before

    assert [] == killed
