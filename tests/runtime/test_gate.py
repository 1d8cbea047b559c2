"""
The gate: its settings, the findings that it reads, and its verdicts with real programs.
"""

import itertools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar_runtime.errors import SettingsError
from sidecar_runtime.fence import Fence
from sidecar_runtime.gate.gate import (
    FIRST_REST_SECONDS,
    LONGEST_REST_SECONDS,
    Check,
    Finding,
    Gate,
    GateMetrics,
    GateSettings,
    RevisionRefused,
    Undecided,
    check_gate,
    read_command,
    syntax_check,
)
from sidecar_runtime.gate.syntax import GRAMMARS, PROBLEM_CHARACTERS
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import load
from tests.runtime.recording import Log, value_of
from tests.support.machine.clocks import Clock
from tests.support.raising import raised

# --- settings


def settings_of(**environment: str) -> GateSettings:
    return load(
        GateSettings,
        "X_",
        {"X_HTTP_BIND": ":0"}
        | {f"X_{name}": value for name, value in environment.items()},
        check=check_gate,
    )[0]


ALONE = "has no effect without X_GATE="
PROGRAM = "executable program of this image"
NAMES = "variable names"


@pytest.mark.parametrize(
    ("gate", "name", "text", "shown", "said"),
    [
        ("syntax", "GRAMMAR", "2.7", "2.7", f"is not one of {', '.join(GRAMMARS)}"),
        (
            "syntax",
            "TIMEOUT",
            "10m",
            "600",
            "must be less than X_TIMEOUT, which is 600 s",
        ),
        ("syntax", "COMMAND", "/bin/sh -c 'a b'", "/bin/sh …", ALONE),
        ("command", "COMMAND", "", "", "is needed by X_GATE=command"),
        ("command", "GRAMMAR", "3.11", "3.11", ALONE),
        ("syntax", "ENV", "HOME", "HOME", ALONE),
        ("off", "TIMEOUT", "30s", "30s", ALONE),
        (
            "command",
            "COMMAND",
            "nowhere-to-be-found --check",
            "nowhere-to-be-found …",
            PROGRAM,
        ),
        ("command", "COMMAND", __file__, __file__, PROGRAM),
        ("command", "COMMAND", "# a comment", "# …", PROGRAM),
        ("command", "COMMAND", "sh -c 'unbalanced", "sh …", "closing quotation"),
        ("command", "ENV", "B,A=s3 cr,3t", "B,A …", NAMES),
        ("command", "ENV", "AWS_*", "AWS_*", NAMES),
    ],
)
def test_rejects_settings_and_says_what_is_allowed_without_showing_values(
    gate: str, name: str, text: str, shown: str, said: str
) -> None:
    (problem,) = raised(
        SettingsError,
        settings_of,
        GATE=gate,
        **({"GATE_COMMAND": "true"} if gate == "command" else {})
        | {f"GATE_{name}": text},
    ).problems
    assert (f"X_GATE_{name}", shown) == (problem.setting, problem.value)
    assert said in problem.problem


# --- findings

TRACEBACK = """Traceback (most recent call last):
  File "/usr/bin/check", line 3, in <module>
    main()
  File "d/a.py", line 7, in <module>
    import b
  File "b.py", line 2, in <module>
    lookup("x")
  File "/usr/lib/python3/site-packages/airflow/x.py", line 99, in lookup
    raise KeyError(name)
KeyError: 'x'
"""
HUGE = "1" * 5_000
"""More digits than Python reads as a number."""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("checking\nd/a.py:12: what\ndone\n", [("d/a.py", 12, "what")]),
        ("./d/a.py:12: what\n", [("d/a.py", 12, "what")]),
        ("d/a.py:12:3: what\n", [("d/a.py", 12, "what")]),
        ("d/a.py:12:  what  \n", [("d/a.py", 12, "what")]),
        ("d/a.py:12 what\r\n", [("d/a.py", 12, "what")]),
        ("a b.py:1: what: ever\n", [("a b.py", 1, "what: ever")]),
        (
            "b.py:9: one\nnoise\nd/a.py:1: two\n",
            [("b.py", 9, "one"), ("d/a.py", 1, "two")],
        ),
        # If a library raises, the calling line in the revision is the one to fix.
        (TRACEBACK, [("b.py", 2, "KeyError: 'x'")]),
        (
            TRACEBACK.replace("d/a", "n").replace("b.py", "n.py"),
            [("", None, "KeyError: 'x'")],
        ),
        (TRACEBACK + "b.py:1: what\n", [("b.py", 1, "what")]),
        (f"b.py:1: {'x' * 5_000}\n", [("b.py", 1, "x" * PROBLEM_CHARACTERS)]),
        ("y" * 5_000, [("", None, "y" * PROBLEM_CHARACTERS)]),
        ("\n\n  \n", [("", None, "the command ended with exit code 1")]),
        # A DAG can print anything.
        (f'b.py:{HUGE}: x\nFile "b.py", line {HUGE}\nno', [("", None, "no")]),
    ],
    ids=range(14),
)
def test_finds_path_line_and_problem_in_the_text_of_a_command(
    text: str, expected: list[tuple[str, int | None, str]]
) -> None:
    files = {"d/a.py", "b.py", "a b.py"}

    found = read_command(text, 1, lambda path: os.path.normpath(path) in files)

    assert expected == [(one.path, one.line, one.problem) for one in found]


# --- verdicts


class Door:
    """A gate for a folder, with its clock and metrics."""

    def __init__(self, folder: Path, check: Check) -> None:
        self.folder = folder
        self.clock = Clock()
        self.metrics = Metrics("box")
        self.gate = Gate(
            check,
            replace(settings_of(), gate_timeout_seconds=30.0),
            GateMetrics(self.metrics),
            self.clock,
        )

    def judge(
        self, revision: str = "r1", changed: Sequence[str] = ()
    ) -> RevisionRefused | None:
        return self.gate.judge(revision, str(self.folder), changed, Fence())

    def checks(self, result: str) -> float:
        """Return how often the metric counted this result."""
        return value_of(
            self.metrics.metrics["sidecar_gate_checks_total"].labels("box", result)
        )


Knock = Callable[..., Door]


@pytest.fixture
def knock(tmp_path: Path) -> Knock:
    """A factory of gates: with a shell script, or with another check."""
    folder = tmp_path / "candidate"
    folder.mkdir()

    def make(script: str = "", check: Check | None = None) -> Door:
        return Door(folder, check or Check(("sh", "-c", script), read_command))

    return make


def test_a_refusal_names_the_first_finding_and_counts_the_rest() -> None:
    refused = RevisionRefused(
        "r1", [Finding("a.py", 12, "it is broken"), Finding("a.py", 13, "this too")]
    )

    assert (
        "the gate refuses revision r1: a.py:12: it is broken; 1 more" == refused.message
    )
    assert {
        "revision": "r1",
        "files_refused": 1,
        "problems": ["a.py:12: it is broken", "a.py:13: this too"],
    } == refused.facts()


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
    assert door.gate.due_at("r1") <= door.clock.seconds
    assert [None, None] == [door.judge(), door.judge()]
    assert door.gate.due_at("r1") > 1e9
    assert 1 == door.checks("accepted")


def test_a_syntax_refusal_is_final_until_a_check_is_requested(
    knock: Knock, log: Log
) -> None:
    door = knock(check=syntax_check(GRAMMARS[-1]))
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


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (-9, "signal 9"),  # as the kernel does when memory runs out
        *((code, f"exit code {code}") for code in (75, 126, 127)),
        (137, "exit code 137"),  # a shell whose program was killed
    ],
)
def test_an_end_that_is_no_verdict_is_not_a_refusal(code: int, said: str) -> None:
    error = raised(Undecided, read_command, "a.py:1: x\n", code, lambda _: True)

    assert f"the gate's command ended with {said}: a.py:1: x" == error.message
    assert "SIGHUP" in error.advice
