"""
The gate with real programs: accepted, refused and undecided revisions.
"""

import itertools
import os
from pathlib import Path

import pytest

from sidecar_runtime.gate.gate import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    Undecided,
    command_check,
)
from sidecar_runtime.gate.syntax import GRAMMARS
from tests.runtime.gate.door import Knock
from tests.runtime.recording import Log
from tests.support.raising import raised

# --- accepting


def test_a_command_inherits_only_known_and_named_variables(
    knock: Knock, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AIRFLOW_HOME", "GITSYNC_PASSWORD", "AWS_SECRET_ACCESS_KEY", "PYTHONPATH", "TZ"):
        monkeypatch.setenv(name, f"of {name}")
    for name in ("HOME", "LANG", "UNSET"):
        monkeypatch.delenv(name, raising=False)
    door = knock(variables=["AIRFLOW_HOME", "UNSET"])
    door.gate._check = command_check(("cp", "/proc/self/environ", f"{tmp_path}/environ"))

    assert door.judge() is None

    given = (tmp_path / "environ").read_text().rstrip("\0").split("\0")
    assert {
        "PATH": os.environ["PATH"],
        "TZ": "of TZ",
        "AIRFLOW_HOME": "of AIRFLOW_HOME",
        "GATE_FOLDER": str(door.folder),
        "GATE_REVISION": "r1",
        "PYTHONDONTWRITEBYTECODE": "1",
    } == dict(variable.split("=", 1) for variable in given)


# --- refusing


def test_a_refusal_is_reported_in_log_metrics_error_and_facts(knock: Knock, log: Log) -> None:
    says = "d/a.py:12: it is broken", "d/b.py:3:7: this too", "d/b.py:9: and this"
    door = knock("; ".join(f"echo '{line}'" for line in says) + "; exit 1")
    (door.folder / "d").mkdir()
    for name in ("a.py", "b.py"):
        (door.folder / "d" / name).write_text("x")

    refused = door.judge("r7")

    assert refused is not None
    assert ("revision_refused", 3) == (refused.reason, refused.exit_code)
    assert "the gate refuses revision r7: d/a.py:12: it is broken; 2 more" == refused.message
    assert "what is published stays" in refused.advice
    assert {
        "revision": "r7",
        "files_refused": 2,
        "problems": ["d/a.py:12: it is broken", "d/b.py:3: this too", "d/b.py:9: and this"],
    } == refused.facts()
    (event,) = log.events("revision_refused")
    assert {
        "level": "error",
        "revision": "r7",
        "path": "d/a.py",
        "line": 12,
        "problem": "it is broken",
        "files_refused": 2,
        "problems": [
            {"path": "d/a.py", "line": 12, "problem": "it is broken"},
            {"path": "d/b.py", "line": 3, "problem": "this too"},
            {"path": "d/b.py", "line": 9, "problem": "and this"},
        ],
    }.items() <= event.items()
    assert (0, 1, 1) == (door.checks("accepted"), door.checks("refused"), door.refused)


# --- not started


# --- one verdict for each revision, except if the command itself may have failed


@pytest.mark.parametrize("code", [0, 1])
def test_a_verdict_is_remembered(knock: Knock, tmp_path: Path, log: Log, code: int) -> None:
    door = knock(f"echo x >> {tmp_path}/ran; echo what; exit {code}")

    verdicts = [door.judge() for _ in range(3)]

    assert 1 == len((tmp_path / "ran").read_text().split())
    assert verdicts[0] is verdicts[1] is verdicts[2]
    assert 1 == door.checks("refused" if code else "accepted") and float(code) == door.refused
    assert code == len(log.events("revision_refused"))


@pytest.mark.parametrize("said", ["Segfault in my linter", "a.py:1: MemoryError"])
def test_a_commands_refusal_is_checked_again_with_backoff(
    knock: Knock, tmp_path: Path, log: Log, said: str
) -> None:
    """The command itself may have failed: its exit code is that of a refusal."""
    door = knock(f"test -e {tmp_path}/fixed || {{ echo {said}; exit 1; }}")
    (door.folder / "a.py").write_text("x")
    asked = []
    for seconds in range(0, 6 * 3_600, 10):
        before = door.checks("refused")
        door.judge()
        asked += [seconds] * int(door.checks("refused") - before)
        door.clock.seconds += 10

    rests = [after - before for before, after in itertools.pairwise(asked)]
    assert [FIRST_REST_SECONDS * 2.0**n for n in range(5)] == rests[:5]
    assert {LONGEST_REST_SECONDS} == set(rests[5:])
    assert 1 == len(log.events("revision_refused"))
    (tmp_path / "fixed").touch()
    door.clock.seconds += LONGEST_REST_SECONDS
    assert door.gate.is_due("r1")
    assert door.judge() is None and 0 == door.refused
    assert not door.gate.is_due("r1")


def test_a_syntax_refusal_is_final_until_a_check_is_requested(knock: Knock, log: Log) -> None:
    door = knock(grammar=GRAMMARS[-1])
    source = door.folder / "a.py"
    source.write_text("def 1")
    door.judge("r1", ["a.py"])
    door.clock.seconds += 100 * LONGEST_REST_SECONDS
    door.judge("r1", ["a.py"])
    assert 1 == door.checks("refused")

    door.gate.ask_again()
    door.judge("r1", ["a.py"])
    assert (2, 1) == (door.checks("refused"), len(log.events("revision_refused")))
    source.write_text("(")
    door.gate.ask_again()
    door.judge("r1", ["a.py"])

    assert 2 == len(log.events("revision_refused"))  # the problem has changed


def test_three_checks_without_a_verdict_count_as_a_refusal(knock: Knock) -> None:
    door = knock("kill -9 $$")

    silences = []
    for _ in range(3):
        last = raised(Undecided, door.judge)
        silences.append(door.gate.silence("r1", last))

    assert [None, None] == silences[:2] and door.gate.silence("r2", last) is None
    assert silences[2] is not None and "signal 9" in silences[2].message


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
