"""The check with Airflow: the result for each answer of a fake Python."""

import ast
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s3_sync.publisher.airflow.check import RUNNER, Airflow, Passed, find_airflow, pattern
from s3_sync.publisher.gate import Refused, judge
from s3_sync.settings import load_settings
from sidecar_runtime.errors import SettingsError, SidecarError
from tests.s3_sync.failing import failure
from tests.support.raising import raised
from tests.support.s3_sync.publishing import write_files
from tests.support.scripts import script

FILES = {"sales.py": b"", "lib.py": b""}
WHOLE: tuple[dict[str, Any], ...] = ({"airflow": "3.3.2"}, {"plugins": {}}, {"done": 0})
PANDAS = {"sales.py": "ModuleNotFoundError: No module named 'pandas'"}

Ask = Callable[..., Passed]


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """A function that checks a folder with a program that returns the given answers."""

    def ask_one(
        *said: Any, then: str = "", allowed: tuple[str, ...] = (), timeout: str = "60"
    ) -> Passed:
        answers = tmp_path / "said"
        answers.write_text("".join(f"{json.dumps(one)}\n" for one in said))
        told = f'cat {answers} > "$2/answers"\nls "$2" > {tmp_path}/home\n{then}'
        python = script(tmp_path / "python", told)
        given = {"AWS_BUCKET": "bucket", "DEST_PATH": "/nowhere", "S3_SYNC_GATE_TIMEOUT": timeout}

        def write(folder: str) -> list[str]:
            write_files(Path(folder), FILES)
            return list(FILES)

        airflow = Airflow(python, str(tmp_path / "airflow"), allowed)
        passed = judge(load_settings(given)[0], airflow, "0" * 64, write)
        assert passed is not None
        return passed

    return ask_one


def loaded(path: str, *dags: str, errors: dict[str, str] | None = None) -> dict[str, Any]:
    return {"file": path, "dags": dags, "errors": errors or {}}


def test_an_accepted_folder_lists_its_dags_in_order(ask: Ask) -> None:
    passed = ask(*WHOLE[:2], loaded("sales.py", "b", "a"), loaded("lib.py", "c"), WHOLE[2])

    checked = passed.checked
    assert ("3.3.2", 3, ("a", "b", "c"), 0) == (
        checked.airflow,
        checked.dags,
        checked.dag_ids,
        checked.files_not_loaded,
    )
    assert () == passed.allowed


@pytest.mark.parametrize("allowed", ["package:pandas", "package:p*", "package:*"])
def test_lists_allowed_missing_packages_and_omits_the_dag_ids(ask: Ask, allowed: str) -> None:
    said = (*WHOLE, loaded("sales.py", errors=PANDAS), loaded("lib.py", "c"))

    passed = ask(*said, allowed=("variable:*", allowed))

    assert ["package:pandas"] == [one.lacks for one in passed.allowed]
    assert (1, (), 1) == (
        passed.checked.dags,
        passed.checked.dag_ids,
        passed.checked.files_not_loaded,
    )


def test_accepts_a_missing_module_of_a_package_of_the_folder_that_is_allowed_by_name(
    ask: Ask,
) -> None:
    said = (*WHOLE, {**loaded("sales.py", errors=PANDAS), "own": ["pandas"]})

    passed = ask(*said, allowed=("package:pandas",))

    assert ["package:pandas"] == [one.lacks for one in passed.allowed]
    assert "--gate-allow" not in raised(Refused, ask, *said, allowed=("package:*",)).advice


@pytest.mark.parametrize("allowed", [(), ("package:numpy",), ("package:panda",), ("variable:*",)])
def test_refuses_missing_packages_and_shows_how_to_allow_them(
    ask: Ask, allowed: tuple[str, ...]
) -> None:
    error = raised(Refused, ask, *WHOLE, loaded("sales.py", errors=PANDAS), allowed=allowed)

    assert "--gate-allow 'package:pandas'" in error.advice
    said = (
        "sales.py: ModuleNotFoundError: No module named 'pandas' (package pandas is missing here)"
    )
    assert [said] == error.details
    assert 2 == error.exit_code


def test_lists_the_first_of_many_problems_and_counts_the_rest(ask: Ask) -> None:
    error = raised(
        Refused, ask, *WHOLE, *(loaded(f"{n}.py", errors={f"{n}.py": "no"}) for n in range(30))
    )

    assert 30 == len(error.broken)
    assert ["9.py: no", "and 20 more"] == error.details[-2:]
    assert "--gate-allow" not in error.advice


def test_a_python_without_airflow_is_a_settings_error(ask: Ask) -> None:
    error = failure(ask, {"missing": "No module named 'airflow'"})

    assert isinstance(error, SettingsError)
    assert "--airflow-python" in error.message and "has no Airflow" in error.message


@pytest.mark.parametrize(
    ("said", "then", "problem"),
    [
        (WHOLE[:2], "", "ended with exit code 0"),
        (WHOLE, "echo it is broken; exit 1", "ended with exit code 1: it is broken"),
        (WHOLE, "kill -KILL $$", "ended with signal 9"),
        (
            (*WHOLE, {"file": "sales.py", "ended": -9}),
            "",
            "loading sales.py failed: signal 9",
        ),
        (WHOLE, "exec sleep 600", "the check of 2 files took longer than 1 s"),
    ],
)
def test_a_check_that_fails_or_does_not_finish_is_undecided(
    ask: Ask, said: tuple[Any, ...], then: str, problem: str
) -> None:
    timeout = "1" if "sleep" in then else "60"

    error = failure(lambda: ask(*said, then=then, timeout=timeout))

    assert ("gate_undecided", 3) == (error.reason, error.exit_code)
    assert problem in error.message
    assert error.advice.startswith("Nothing was published. ") and "SIGHUP" not in error.advice
    assert ("--gate-timeout" in error.advice) == ("took longer" in problem)
    assert not isinstance(error, SettingsError) and type(error) is SidecarError


def test_uses_only_config_and_plugins_of_the_users_airflow_home(ask: Ask, tmp_path: Path) -> None:
    home = tmp_path / "airflow"
    write_files(home, {"plugins/p.py": b"", "config/s.py": b"", "airflow.cfg": b"", "logs/l": b""})

    ask(*WHOLE)

    assert ["answers", "config", "plugins"] == (tmp_path / "home").read_text().split()


def test_expands_airflow_home_as_airflow_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ci")
    monkeypatch.setenv("NAME", "airflow")

    found = find_airflow("/bin/sh", [], {"AIRFLOW_HOME": "~/$NAME"})

    assert "/home/ci/airflow" == found.home


def test_finds_python_on_path_and_keeps_its_symlink(tmp_path: Path) -> None:
    """The link to Python identifies a virtual environment."""
    (tmp_path / "python").symlink_to("/bin/sh")
    environ = {"PATH": str(tmp_path), "AIRFLOW_HOME": "/opt/airflow"}

    found = find_airflow(None, ["package:a"], environ)

    assert Airflow(f"{tmp_path}/python", "/opt/airflow", ("package:a",)) == found
    assert found.python == find_airflow(os.path.relpath(found.python), [], {}).python


@pytest.mark.parametrize("given", [None, "nonsense", "/nowhere/python"])
def test_a_missing_python_is_a_settings_error(given: str | None) -> None:
    error = failure(find_airflow, given, [], {"PATH": "/nowhere"})

    assert isinstance(error, SettingsError)
    assert error.message.startswith(f"--airflow-python={given or 'python'!r} is not")


@pytest.mark.parametrize("text", ["pandas", "package:", ":pandas", "module:pandas", "*"])
def test_a_pattern_requires_a_known_kind_and_a_name(text: str) -> None:
    with pytest.raises(ValueError, match="KIND of package, variable, connection"):
        pattern(text)


def test_the_runner_parses_as_python_3_8_and_imports_no_s3_sync() -> None:
    tree = ast.parse(RUNNER.read_text(), feature_version=(3, 8))

    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert not {"s3_sync", "sidecar_runtime"} & imported
