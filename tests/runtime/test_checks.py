"""
The lines of a `check` command, and the exit code that they make.
"""

import pytest

from sidecar_runtime.checks import exit_code, fail, say
from sidecar_runtime.errors import Problem, SettingsError, SidecarError


def test_a_line_has_mark_name_and_text(capsys: pytest.CaptureFixture[str]) -> None:
    say("ok", "KDC", "gave a ticket")
    say("", "", "in 0.1 s")

    assert (
        "  ok    KDC            gave a ticket\n                       in 0.1 s\n"
        == capsys.readouterr().out
    )


def test_what_a_server_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say("ok", "DAG a\x1b[2J", "x.py\r  FAIL \udcff")

    assert "  ok    DAG a\\x1b[2J   x.py\\r  FAIL \\udcff\n" == capsys.readouterr().out


def test_a_failure_names_reason_and_advice(capsys: pytest.CaptureFixture[str]) -> None:
    is_fine = fail("ccache", SidecarError("ccache_full", "there is no room", "Enlarge it."))
    said = capsys.readouterr().out

    assert not is_fine
    assert ["FAIL ccache ccache_full: there is no room", "Enlarge it."] == [
        " ".join(line.split()) for line in said.splitlines()
    ]


def test_each_setting_that_is_wrong_has_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    fail("airflow", SettingsError([Problem("A", "1", "is odd"), Problem("B", "", "is missing")]))

    assert ["FAIL airflow A='1' is odd", "FAIL airflow B='' is missing"] == [
        " ".join(line.split()) for line in capsys.readouterr().out.splitlines()
    ]


@pytest.mark.parametrize(("results", "code"), [([True, True], 0), ([True, False], 3), ([], 0)])
def test_one_failure_makes_the_exit_code_3(results: list[bool], code: int) -> None:
    assert code == exit_code(results)
