"""
The findings that the gate reads from the output of a command: path, line and problem.
"""

import os
from typing import Any

import pytest

from sidecar_runtime.gate.gate import PROBLEM_CHARACTERS, command_check


def read(text: str, *files: str, code: int = 1) -> list[tuple[Any, ...]]:
    """Return the findings in the text of a command that refuses a folder with these files."""
    found = command_check(["check"]).read(text, code, lambda path: os.path.normpath(path) in files)
    return [(one.path, one.line, one.problem) for one in found]


@pytest.mark.parametrize(
    "line",
    [
        "d/a.py:12: what",
        "./d/a.py:12: what",
        "d/a.py:12:3: what",
        "d/a.py:12:  what  ",
        "d/a.py:12 what",
        "d/a.py:12: what\r",
    ],
)
def test_finds_path_line_and_problem(line: str) -> None:
    assert [("d/a.py", 12, "what")] == read(f"checking\n{line}\ndone\n", "d/a.py")


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
BOTH = ["d/a.py", "b.py"]


@pytest.mark.parametrize(
    ("text", "files", "expected"),
    [
        ("a b.py:1: what: ever\n", ["a b.py"], [("a b.py", 1, "what: ever")]),
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
        ("\n\n  \n", [], [("", None, "the command ended with exit code 1")]),
    ],
    ids=["blanks", "order", "traceback", "no place", "a place wins", "cut", "cut line", "silent"],
)
def test_finds_the_positions_in_a_text(
    text: str, files: list[str], expected: list[tuple[str, int | None, str]]
) -> None:
    assert expected == read(text, *files)
