"""
The settings of a gate: allowed values, and the check that they select.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.gate.gate import GateMetrics, make_gate
from sidecar_runtime.gate.settings import (
    GateSettings,
    check_gate,
    command_line,
    grammar,
    program_of,
    unused_by_gate,
)
from sidecar_runtime.gate.syntax import NEWEST
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.settings import changed_settings, load
from tests.support.raising import raised


@dataclass(frozen=True, kw_only=True)
class BoxSettings(GateSettings):
    """
    The settings of a sidecar with a gate.
    """


def settings_of(**environment: str) -> BoxSettings:
    environ = {"X_HTTP_BIND": ":0"} | {f"X_{name}": value for name, value in environment.items()}
    return load(BoxSettings, "X_", environ, instead={}, check=lambda it: check_gate(it, "X_"))[0]


def problem_of(**environment: str) -> Problem:
    (problem,) = raised(SettingsError, settings_of, **environment).problems
    return problem


def test_the_gate_is_off_unless_it_is_asked_for() -> None:
    assert make_gate(settings_of(), GateMetrics(Metrics("box", "1", "r"))) is None


@pytest.mark.parametrize(
    ("environment", "argv"),
    [
        ({"GATE": "syntax"}, f"{NEWEST[0]}.{NEWEST[1]}"),
        ({"GATE": "Syntax", "GATE_GRAMMAR": "3.8"}, "3.8"),
        ({"GATE": "command", "GATE_COMMAND": "sh -c 'a b' c"}, "a b"),
    ],
)
def test_settings_choose_the_check(environment: dict[str, str], argv: str) -> None:
    found = make_gate(settings_of(**environment), GateMetrics(Metrics("box", "1", "r")))

    assert found is not None and argv in found._check.argv
    assert 60 == found._timeout_seconds
    assert (".py" if environment["GATE"] != "command" else "") == found._check.suffix


@pytest.mark.parametrize("text", ["3.7", " 3.8 ", f"3.{NEWEST[1]}"])
def test_a_grammar_is_a_version_of_python(text: str) -> None:
    assert (3, int(text.strip()[2:])) == grammar(text)


@pytest.mark.parametrize(
    "text",
    ["2.7", "3", "3.6", f"3.{NEWEST[1] + 1}", "3.99", "3.100", "3.11.4", "py311", "-3.8", "4.0"],
)
def test_other_grammars_are_refused_with_the_range(text: str) -> None:
    problem = problem_of(GATE="syntax", GATE_GRAMMAR=text)

    assert ("X_GATE_GRAMMAR", text) == (problem.setting, problem.value)
    assert (
        f"is not a version from 3.7 to 3.{NEWEST[1]} (the sidecar's own Python)" in problem.problem
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("true", ("true",)),
        ("sh -c 'exit 0'", ("sh", "-c", "exit 0")),
        ('sh -c "a \\"b\\"" \\ ', ("sh", "-c", 'a "b"', " ")),
        ("/bin/sh a;b $HOME *", ("/bin/sh", "a;b", "$HOME", "*")),
    ],
)
def test_a_command_is_split_as_a_shell_would(text: str, words: tuple[str, ...]) -> None:
    program, *arguments = words
    found = shutil.which(program)

    assert found and (os.path.abspath(found), *arguments) == command_line(text)


def test_a_program_is_the_one_that_is_here_and_never_one_of_the_revision(
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
def test_a_command_that_cannot_be_run_is_refused_at_the_start(text: str, said: str) -> None:
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
def test_a_gate_goes_with_its_own_settings_only(
    name: str, gate: str, value: str, its_gate: str
) -> None:
    shown = "/bin/sh …" if value else ""
    expected = Problem(f"X_{name}", shown, f"requires X_GATE={its_gate}: set both or neither")

    assert expected == problem_of(**{"GATE": gate, name: value})


@pytest.mark.parametrize("gate", ["", "off", "syntax", "command"])
def test_what_belongs_to_another_gate_has_no_effect_and_is_named(gate: str) -> None:
    command = {"GATE_COMMAND": "true"} if gate == "command" else {}
    settings = settings_of(GATE=gate, GATE_GRAMMAR="3.9", GATE_ENV="A", **command)

    uses = {"X_GATE_GRAMMAR": "syntax", "X_GATE_ENV": "command"}
    unused = {
        name: f"it applies only to X_GATE={kind}" for name, kind in uses.items() if kind != gate
    }
    assert unused == unused_by_gate(settings, "X_")
    assert {} == unused_by_gate(settings_of(GATE=gate, **command), "X_")


@pytest.mark.parametrize(
    ("text", "names"),
    [("A", ("A",)), (" A_b,c1 , D\n", ("A_b", "c1", "D")), ("", ())],
)
def test_variables_are_named_with_commas_or_blanks(text: str, names: tuple[str, ...]) -> None:
    settings = settings_of(GATE="command", GATE_COMMAND="true", GATE_ENV=text)

    assert names == settings.gate_env


@pytest.mark.parametrize(
    ("text", "shown"),
    [("B,A=s3 cr,3t", "B,A=…"), ("AWS_*", "AWS_*"), ("1A", "1A"), ("A;B", "A;B")],
)
def test_a_value_is_no_name_and_is_not_shown(text: str, shown: str) -> None:
    problem = problem_of(GATE="command", GATE_COMMAND="true", GATE_ENV=text)

    assert ("X_GATE_ENV", shown) == (problem.setting, problem.value)
    assert "variable names" in problem.problem


def test_a_check_that_may_take_longer_than_a_cycle_is_refused() -> None:
    problem = problem_of(GATE="syntax", GATE_TIMEOUT="10m")

    assert ("X_GATE_TIMEOUT", "600") == (problem.setting, problem.value)
    assert "must be less than X_TIMEOUT, which is 600 s" == problem.problem


@pytest.mark.parametrize("text", ["0", "0.5s", "8d", "soon"])
def test_a_timeout_is_a_second_or_more(text: str) -> None:
    assert "X_GATE_TIMEOUT" == problem_of(GATE="syntax", GATE_TIMEOUT=text).setting


def test_of_a_command_the_program_is_shown_and_no_argument() -> None:
    environ = {"X_GATE_COMMAND": "/bin/sh --api-key=s3cr3t", "X_GATE": "command"}

    assert {"X_GATE_COMMAND": "/bin/sh …", "X_GATE": "command"} == changed_settings(
        BoxSettings, "X_", environ
    )
