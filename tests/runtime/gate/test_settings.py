"""
The settings of a gate: the allowed values, and the check that they select.
"""

from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.gate import (
    GateMetrics,
    GateSettings,
    check_gate,
    command_line,
    make_gate,
    program_of,
    unused_by_gate,
)
from sidecar_runtime.gate.syntax import NEWEST
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import changed_settings, load
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


@pytest.mark.parametrize(
    ("environment", "argv"),
    [
        ({"GATE": "syntax"}, f"{NEWEST[0]}.{NEWEST[1]}"),
        ({"GATE": "Syntax", "GATE_GRAMMAR": "3.8"}, "3.8"),
        ({"GATE": "command", "GATE_COMMAND": "sh -c 'a b' c"}, "a b"),
    ],
)
def test_the_settings_select_the_check(environment: dict[str, str], argv: str) -> None:
    found = make_gate(settings_of(**environment), GateMetrics(Metrics("box", "1", "r")))

    assert found is not None and argv in found._check.argv
    assert (".py" if environment["GATE"] != "command" else "") == found._check.suffix


@pytest.mark.parametrize(
    "text",
    ["2.7", "3", "3.6", f"3.{NEWEST[1] + 1}", "3.99", "3.100", "3.11.4", "py311", "-3.8", "4.0"],
)
def test_rejects_other_grammars_with_the_allowed_range(text: str) -> None:
    problem = problem_of(GATE="syntax", GATE_GRAMMAR=text)

    assert ("X_GATE_GRAMMAR", text) == (problem.setting, problem.value)
    assert (
        f"is not a version from 3.7 to 3.{NEWEST[1]} (the sidecar's own Python)" in problem.problem
    )


def test_a_relative_program_becomes_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "check").symlink_to("/bin/true")
    monkeypatch.chdir(tmp_path)

    assert (f"{tmp_path}/tools/check", "x") == command_line("tools/check x")


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

    assert ("X_GATE_COMMAND", program_of(text)) == (problem.setting, problem.value)
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


@pytest.mark.parametrize("gate", ["", "off", "syntax", "command"])
def test_reports_settings_that_apply_only_to_another_gate(gate: str) -> None:
    command = {"GATE_COMMAND": "true"} if gate == "command" else {}
    settings = settings_of(GATE=gate, GATE_GRAMMAR="3.9", GATE_ENV="A", **command)

    uses = {"X_GATE_GRAMMAR": "syntax", "X_GATE_ENV": "command"}
    unused = {
        name: f"it applies only to X_GATE={kind}" for name, kind in uses.items() if kind != gate
    }
    assert unused == unused_by_gate(settings, "X_")
    assert {} == unused_by_gate(settings_of(GATE=gate, **command), "X_")


@pytest.mark.parametrize(
    ("text", "shown"),
    [("B,A=s3 cr,3t", "B,A=…"), ("AWS_*", "AWS_*"), ("1A", "1A"), ("A;B", "A;B")],
)
def test_rejects_invalid_variable_names_without_showing_values(text: str, shown: str) -> None:
    problem = problem_of(GATE="command", GATE_COMMAND="true", GATE_ENV=text)

    assert ("X_GATE_ENV", shown) == (problem.setting, problem.value)
    assert "variable names" in problem.problem


def test_rejects_a_gate_timeout_that_is_not_less_than_the_cycle_timeout() -> None:
    problem = problem_of(GATE="syntax", GATE_TIMEOUT="10m")

    assert ("X_GATE_TIMEOUT", "600") == (problem.setting, problem.value)
    assert "must be less than X_TIMEOUT, which is 600 s" == problem.problem


def test_shows_the_program_of_a_command_but_no_arguments() -> None:
    environ = {"X_GATE_COMMAND": "/bin/sh --api-key=s3cr3t", "X_GATE": "command"}

    assert {"X_GATE_COMMAND": "/bin/sh …", "X_GATE": "command"} == changed_settings(
        BoxSettings, "X_", environ
    )
