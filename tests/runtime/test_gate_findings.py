"""
What the gate makes of the words of a command: path, line and problem.
"""

import shlex
import signal
import sys
from typing import Any

import pytest

from sidecar_runtime.ask import KEPT_BYTES
from sidecar_runtime.gate_check import PROBLEM_CHARACTERS, Finding
from tests.runtime.door import Knock


def said_by(knock: Knock, text: str, *files: str, code: int = 1) -> list[tuple[Any, ...]]:
    """
    The findings of a command that writes a text and refuses, in a folder with these files.
    """
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
def test_a_place_is_path_line_and_problem(knock: Knock, line: str) -> None:
    assert [("d/a.py", 12, "what")] == said_by(knock, f"checking\n{line}\ndone\n", "d/a.py")


@pytest.mark.parametrize(
    "line",
    [
        "2024-01-01 12:30:45 INFO what",
        "12:30:45 what",
        "localhost:5432 refused",
        "/usr/lib/python3/x.py:12: what",
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
def test_what_is_no_place_in_the_revision_is_not_taken_for_one(knock: Knock, line: str) -> None:
    """
    Log lines and libraries; the last line says what it is about.
    """
    expected = ("", None, "the end of it")

    assert [expected] == said_by(knock, f"{line}\nthe end of it\n\n  \n", "d/a.py", "a.py")


def test_a_problem_that_a_name_with_colon_and_blank_has_is_still_told(knock: Knock) -> None:
    assert [("a b.py", 1, "what: ever")] == said_by(knock, "a b.py:1: what: ever\n", "a b.py")


def test_places_stand_in_the_order_of_the_text(knock: Knock) -> None:
    text = "b.py:9: one\nnoise\na.py:1: two\nb.py:9: one\n"

    assert [("b.py", 9, "one"), ("a.py", 1, "two"), ("b.py", 9, "one")] == said_by(
        knock, text, "a.py", "b.py"
    )


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


def test_a_traceback_leads_to_its_last_frame_in_the_revision(knock: Knock) -> None:
    """
    Where a library raises, the line that called it is the one to mend.
    """
    assert [("b.py", 2, "KeyError: 'x'")] == said_by(knock, TRACEBACK, "d/a.py", "b.py")


def test_a_traceback_of_the_check_itself_has_no_place(knock: Knock) -> None:
    assert [("", None, "KeyError: 'x'")] == said_by(knock, TRACEBACK)


def test_a_syntax_error_of_python_leads_to_its_line(knock: Knock) -> None:
    door = knock(f"{shlex.quote(sys.executable)} broken.py")
    (door.folder / "broken.py").write_text("x = 1\nx = = 2\n")

    assert [Finding("broken.py", 2, "SyntaxError: invalid syntax")] == door.findings()


def test_a_place_wins_over_a_traceback(knock: Knock) -> None:
    assert [("b.py", 1, "what")] == said_by(knock, TRACEBACK + "b.py:1: what\n", "d/a.py", "b.py")


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_who_says_nothing_is_named_by_its_exit_code(knock: Knock, text: str) -> None:
    assert [("", None, "the command ended with exit code 7")] == said_by(knock, text, code=7)


def test_errors_are_heard_as_output_is(knock: Knock) -> None:
    assert [Finding("", None, "on stderr")] == knock("echo on stderr >&2; exit 1").findings()


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
def test_who_is_killed_is_named_by_the_signal(knock: Knock, name: str) -> None:
    number = signal.Signals[f"SIG{name}"].value

    assert [Finding("", None, f"the command ended with signal {number}")] == knock(
        f"kill -{name} $$"
    ).findings()


def test_bytes_that_are_no_text_are_shown_as_well_as_can_be(knock: Knock) -> None:
    (finding,) = knock("printf 'a\\377b\\n'; exit 1").findings()

    assert "a\ufffdb" == finding.problem


def test_a_long_line_is_cut(knock: Knock) -> None:
    assert [("a.py", 1, "x" * PROBLEM_CHARACTERS)] == said_by(
        knock, f"a.py:1: {'x' * 5_000}\n", "a.py"
    )
    (finding,) = said_by(knock, "y" * 5_000)
    assert ("", None, "y" * PROBLEM_CHARACTERS) == finding


def test_of_a_long_text_the_end_is_kept(knock: Knock) -> None:
    noise = "z" * 99 + "\n"
    text = f"a.py:1: first\n{noise * (KEPT_BYTES // 50)}a.py:2: last\n"

    assert [("a.py", 2, "last")] == said_by(knock, text, "a.py")
