"""
The findings that the gate reads from the output of a command: path, line and problem.
"""

import os
import shlex
import sys
from typing import Any

import pytest

from sidecar_runtime.child import KEPT_BYTES
from sidecar_runtime.gate.checks import PROBLEM_CHARACTERS, Finding
from tests.runtime.gate.door import Knock


def said_by(knock: Knock, text: str, *files: str, code: int = 1) -> list[tuple[Any, ...]]:
    """Return the findings in the text of a command that refuses a folder with these files."""
    door = knock(f"cat text; exit {code}")
    for path in ("text", *files):
        (door.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (door.folder / path).write_text("x")
    (door.folder / "text").write_bytes(text.replace("FOLDER", str(door.folder)).encode())
    return [(one.path, one.line, one.problem) for one in door.findings()]


@pytest.mark.parametrize(
    "line",
    [
        "d/a.py:12: what",
        "d/a.py:12:3: what",
        "d/a.py:12:  what  ",
        "d/a.py:12 what",
        "FOLDER/d/a.py:12: what",
        "d/a.py:12: what\r",
    ],
)
def test_finds_path_line_and_problem(knock: Knock, line: str) -> None:
    assert [("d/a.py", 12, "what")] == said_by(knock, f"checking\n{line}\ndone\n", "d/a.py")


@pytest.mark.parametrize(
    "line",
    [
        "2024-01-01 12:30:45 INFO what",
        "12:30:45 what",
        "localhost:5432 refused",
        "/usr/lib/python3/x.py:12: what",
        f"{os.__file__}:12: what",
        f'  File "{os.__file__}", line 12',
        "../outside.py:12: what",
        "other.py:12: what",
        "d:12: a folder",
        "../text:12: what",
        "a.py: what",
        "a.py:x: what",
        ":12: what",
        "  a.py:12: indented",
        "a.py:12:",
    ],
)
def test_ignores_lines_that_are_not_positions_in_the_revision(knock: Knock, line: str) -> None:
    """Such lines are log lines or name libraries; the last line of the output is the problem."""
    expected = ("", None, "the end of it")

    assert [expected] == said_by(knock, f"{line}\nthe end of it\n\n  \n", "d/a.py", "a.py")


TRACEBACK = """Traceback (most recent call last):
  File "/usr/bin/check", line 3, in <module>
    main()
  File "FOLDER/d/a.py", line 7, in <module>
    import b
  File "FOLDER/b.py", line 2, in <module>
    lookup("x")
  File "/usr/lib/python3/site-packages/airflow/x.py", line 99, in lookup
    raise KeyError(name)
KeyError: 'x'
"""


LONG = f"a.py:1: first\n{('z' * 99 + chr(10)) * (KEPT_BYTES // 50)}a.py:2: last\n"
BOTH = ["d/a.py", "b.py"]


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        ("a b.py:1: what: ever\n", ["a b.py"], [("a b.py", 1, "what: ever")]),
        ("..a.py:1: what\n", ["..a.py"], [("..a.py", 1, "what")]),
        (
            "b.py:9: one\nnoise\na.py:1: two\nb.py:9: one\n",
            ["a.py", "b.py"],
            [("b.py", 9, "one"), ("a.py", 1, "two"), ("b.py", 9, "one")],
        ),
        # If a library raises, the calling line in the revision is the one to fix.
        (TRACEBACK, BOTH, [("b.py", 2, "KeyError: 'x'")]),
        (TRACEBACK, [], [("", None, "KeyError: 'x'")]),
        (TRACEBACK + "b.py:1: what\n", BOTH, [("b.py", 1, "what")]),
        (f"a.py:1: {'x' * 5_000}\n", ["a.py"], [("a.py", 1, "x" * PROBLEM_CHARACTERS)]),
        ("y" * 5_000, [], [("", None, "y" * PROBLEM_CHARACTERS)]),
        (LONG, ["a.py"], [("a.py", 2, "last")]),
    ],
    ids=[
        "a name and a problem with blanks and colons",
        "a name that begins with two dots",
        "in the order of the text",
        "a traceback leads to its last frame in the revision",
        "a traceback of the check itself has no place",
        "a place wins over a traceback",
        "a long problem is cut",
        "a long line is cut",
        "of a long text the end is kept",
    ],
)
def test_finds_the_positions_in_a_text(
    knock: Knock, text: str, files: list[str], expected: list[tuple[str, int | None, str]]
) -> None:
    assert expected == said_by(knock, text, *files)


def test_finds_the_line_of_a_python_syntax_error(knock: Knock) -> None:
    door = knock(f"{shlex.quote(sys.executable)} broken.py")
    (door.folder / "broken.py").write_text("x = 1\nx = = 2\n")

    assert [Finding("broken.py", 2, "SyntaxError: invalid syntax")] == door.findings()


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_reports_the_exit_code_of_a_command_without_output(knock: Knock, text: str) -> None:
    assert [("", None, "the command ended with exit code 7")] == said_by(knock, text, code=7)


def test_reads_findings_from_standard_error(knock: Knock) -> None:
    assert [Finding("", None, "on stderr")] == knock("echo on stderr >&2; exit 1").findings()


def test_replaces_undecodable_bytes(knock: Knock) -> None:
    (finding,) = knock("printf 'a\\377b\\n'; exit 1").findings()

    assert "a\ufffdb" == finding.problem
