"""
The settings of a gate: the allowed values, and the check that they select.
"""

from dataclasses import dataclass

import pytest

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.gate import (
    GateSettings,
    check_gate,
    first_word,
)
from sidecar_runtime.gate.syntax import GRAMMARS
from sidecar_runtime.settings import load
from tests.support.raising import raised


@dataclass(frozen=True, kw_only=True)
class BoxSettings(GateSettings):
    """The settings of a sidecar with a gate."""


def settings_of(**environment: str) -> BoxSettings:
    environ = {"X_HTTP_BIND": ":0"} | {f"X_{name}": value for name, value in environment.items()}
    return load(BoxSettings, "X_", environ, check=lambda it: check_gate(it, "X_"))[0]


def problem_of(**environment: str) -> Problem:
    (problem,) = raised(SettingsError, settings_of, **environment).problems
    return problem


@pytest.mark.parametrize("text", ["2.7", "3", "3.6", "3.99", "3.100", "3.11.4", "py311", "-3.8"])
def test_rejects_other_grammars_with_the_allowed_range(text: str) -> None:
    problem = problem_of(GATE="syntax", GATE_GRAMMAR=text)

    assert ("X_GATE_GRAMMAR", text) == (problem.setting, problem.value)
    assert problem.problem == f"is not one of {', '.join(GRAMMARS)}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere-to-be-found --check", "executable program of this image"),
        (__file__, "executable program of this image"),
        ("/etc", "executable program of this image"),
        ("''", "executable program of this image"),
        ("# a comment", "executable program of this image"),
        ("sh -c 'unbalanced", "closing quotation"),
        ("sh \\", "escaped character"),
    ],
)
def test_rejects_a_command_that_cannot_run(text: str, said: str) -> None:
    problem = problem_of(GATE="command", GATE_COMMAND=text)

    assert ("X_GATE_COMMAND", first_word(text)) == (problem.setting, problem.value)
    assert said in problem.problem


@pytest.mark.parametrize(
    ("name", "gate", "value", "its_gate"),
    [
        *(("GATE_COMMAND", gate, "/bin/sh -c 'a b'", "command") for gate in ("", "off", "syntax")),
        ("GATE_COMMAND", "command", "", "command"),
    ],
)
def test_gate_command_and_its_gate_require_each_other(
    name: str, gate: str, value: str, its_gate: str
) -> None:
    shown = "/bin/sh …" if value else ""
    expected = Problem(f"X_{name}", shown, f"requires X_GATE={its_gate}: set both or neither")

    assert expected == problem_of(**{"GATE": gate, name: value})


@pytest.mark.parametrize(
    ("text", "shown"),
    [("B,A=s3 cr,3t", "B,A …"), ("AWS_*", "AWS_*"), ("1A", "1A"), ("A;B", "A;B")],
)
def test_rejects_invalid_variable_names_without_showing_values(text: str, shown: str) -> None:
    problem = problem_of(GATE="command", GATE_COMMAND="true", GATE_ENV=text)

    assert ("X_GATE_ENV", shown) == (problem.setting, problem.value)
    assert "variable names" in problem.problem


def test_rejects_a_gate_timeout_that_is_not_less_than_the_cycle_timeout() -> None:
    problem = problem_of(GATE="syntax", GATE_TIMEOUT="10m")

    assert ("X_GATE_TIMEOUT", "600") == (problem.setting, problem.value)
    assert "must be less than X_TIMEOUT, which is 600 s" == problem.problem
