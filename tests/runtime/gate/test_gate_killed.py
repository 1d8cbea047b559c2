"""
Checks that take too long, end without a verdict, or are abandoned.
"""

from pathlib import Path

import pytest

from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.gate.gate import Undecided
from tests.runtime.gate.door import Knock
from tests.runtime.recording import Log
from tests.support.raising import raised

# --- no verdict


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
def test_a_check_that_takes_too_long_is_undecided_not_refused(
    knock: Knock, script: str, log: Log
) -> None:
    door = knock(f"echo a.py:1: what; {script}", timeout_seconds=0.5)

    undecided = raised(Undecided, door.judge, changed=["a.py"])

    assert "gate_undecided" == undecided.reason
    assert "the check of 1 file took longer than 0.5 s" == undecided.message
    assert undecided.advice.startswith("Raise X_GATE_TIMEOUT or ")
    assert (1, 0) == (door.checks("undecided"), door.checks("refused"))
    assert [] == log.events("revision_refused")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("kill -KILL $$", "signal 9"),  # as the kernel does when memory runs out
        ("kill -SEGV $$", "signal 11"),
        ("exit 137", "exit code 137"),  # a shell whose program was killed
        ("exit 127", "exit code 127"),
        ("exit 126", "exit code 126"),
        ("exit 75", "exit code 75"),
    ],
)
def test_a_check_that_ends_without_a_verdict_is_repeated(
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


# --- abandoned


def test_an_abandoned_check_is_not_a_verdict(knock: Knock) -> None:
    door = knock("exit 0")
    door.fence.revoke()

    with pytest.raises(CycleAbandoned):
        door.judge()
    door.fence = Fence()

    assert door.judge() is None
    assert (1, 0) == (door.checks("accepted"), door.checks("refused"))
