"""Reading the answers of the runner, with tracebacks of Airflow 2 and 3."""

import json
from pathlib import Path
from typing import Any

import pytest

from s3_sync.publisher.airflow.answer import Broken, LoadAnswer, read_answer
from tests.support.s3_sync.publishing import write_files

LOADER = """Traceback (most recent call last):
  File "/opt/airflow/models/dagbag.py", line 387, in parse
    loader.exec_module(new_module)
  File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = ("sales.py", "lib/rates.py", "plugins/p.py", "space/lib.py")
    return write_files(tmp_path / "dags", dict.fromkeys(files, b""))


def read(folder: Path, *said: Any) -> LoadAnswer:
    return read_answer([json.dumps(one) for one in said], str(folder))


def broken(folder: Path, text: str, path: str = "{}/sales.py") -> Broken:
    """Return the problem that a traceback reports; `{}` is the folder."""
    errors = {path.format(folder): text.replace("{}", str(folder))}
    said = {"file": f"{folder}/sales.py", "dags": [], "errors": errors}
    [found] = read(folder, said).broken
    return found


def raised(error: str) -> str:
    return f'{LOADER}  File "{{}}/sales.py", line 7, in <module>\n    load()\n{error}\n'


@pytest.mark.parametrize("path", ["{}/sales.py", "sales.py"])
def test_finds_place_problem_and_last_lines_of_a_traceback(folder: Path, path: str) -> None:
    text = raised("ZeroDivisionError: division by zero")

    found = broken(folder, text, path)

    tail = ('  File "sales.py", line 7, in <module>', "    load()")
    assert Broken("sales.py", 7, "ZeroDivisionError: division by zero", "", tail) == found


def test_an_error_in_a_library_of_the_folder_shows_both_places(folder: Path) -> None:
    text = raised(
        '  File "{}/lib/rates.py", line 2, in rate\n    return 1 / n\nZeroDivisionError: n'
    )

    found = broken(folder, text)

    assert ("sales.py", 7, "ZeroDivisionError: n (in lib/rates.py:2)") == (
        found.path,
        found.line,
        found.problem,
    )


def test_an_error_in_a_package_shows_the_line_that_called_it(folder: Path) -> None:
    frame = '  File "/usr/lib/pandas/io.py", line 99, in read\n    raise ValueError(\n'

    found = broken(folder, raised(f"{frame}ValueError: two\nlines"))

    assert ("sales.py", 7, "ValueError: two lines") == (found.path, found.line, found.problem)


def test_a_syntax_error_shows_its_line(folder: Path) -> None:
    text = f'{LOADER}  File "{{}}/sales.py", line 3\n    def (:\n        ^\nSyntaxError: invalid\n'

    found = broken(folder, text)

    assert (3, "SyntaxError: invalid") == (found.line, found.problem)
    assert '  File "sales.py", line 3' == found.tail[0]


def test_keeps_an_error_without_a_traceback_unchanged(folder: Path) -> None:
    found = broken(folder, "AirflowDagCycleException: Cycle detected")

    assert Broken("sales.py", None, "AirflowDagCycleException: Cycle detected") == found


def test_shortens_long_tracebacks_and_messages(folder: Path) -> None:
    frames = "".join(f'  File "{{}}/sales.py", line {n}, in f\n    f()\n' for n in range(1, 90))

    found = broken(folder, f"{LOADER}{frames}RecursionError: {'deep ' * 999}")

    assert (89, 300, 6) == (found.line, len(found.problem), len(found.tail))


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        ("ModuleNotFoundError: No module named 'pandas'", "package:pandas"),
        ("ModuleNotFoundError: No module named 'a.b'; 'a' is no package", "package:a.b"),
        ("airflow.AirflowOptionalProviderFeatureException: No module named 'a'", "package:a"),
        ("ImportError: cannot import name 'x' from 'pandas'", ""),
        ("KeyError: 'Variable sales_rate does not exist'", "variable:sales_rate"),
        ("KeyError: 'Variable sales rate does not exist.'", "variable:sales rate"),
        ('KeyError: "Variable sales\'s rate does not exist."', "variable:sales's rate"),
        (
            "airflow.E: VARIABLE_NOT_FOUND: {'message': 'Variable sales_rate not found'}",
            "variable:sales_rate",
        ),
        ("airflow.E: The conn_id `prd_db` isn't defined", "connection:prd_db"),
        ("airflow.E: CONNECTION_NOT_FOUND: Connection prd_db not found", "connection:prd_db"),
        ("KeyError: 'sales_rate'", ""),
        # Modules of Python or of Airflow itself, and errors that only look similar.
        ("ModuleNotFoundError: No module named 'json.decodr'", ""),
        ("ModuleNotFoundError: No module named 'airflow.operators.bash_operator'", ""),
        (
            "ModuleNotFoundError: No module named 'airflow.providers.amazon'",
            "package:airflow.providers.amazon",
        ),
        ("ValueError: Variable rate not found in rates.yaml", ""),
        ("RuntimeError: Connection pool not found", ""),
    ],
)
def test_finds_missing_package_variable_or_connection(folder: Path, error: str, lacks: str) -> None:
    assert lacks == broken(folder, raised(error)).lacks


@pytest.mark.parametrize(
    ("allowed", "lacks"),
    [
        ((), ""),
        (("package:lib*", "package:*"), ""),
        (("package:lib.tables",), "package:lib.tables"),
    ],
)
def test_the_folder_lacks_modules_of_its_packages_unless_allowed_by_name(
    folder: Path, allowed: tuple[str, ...], lacks: str
) -> None:
    text = "ModuleNotFoundError: No module named 'lib.tables'"
    said = [
        {"plugins": {"plugins/p.py": text}, "own": ["lib.tables"]},
        {"file": "sales.py", "dags": [], "errors": {"sales.py": text}, "own": ["lib.tables"]},
    ]

    found = read_answer([json.dumps(one) for one in said], str(folder), allowed).broken

    assert [lacks, lacks] == [one.lacks for one in found]


def test_reports_only_broken_plugins_of_the_folder(folder: Path) -> None:
    errors = {
        "plugins/p.py": "No module named 'pandas'",
        "/opt/airflow/plugins/q.py": "theirs",
        "an_entry_point": "theirs",
    }

    found = read(folder, {"plugins": errors}).broken

    missing = Broken("plugins/p.py", None, "No module named 'pandas'", "package:pandas")
    assert [missing] == found
    assert ["plugins/p.py: No module named 'pandas' (package pandas is missing here)"] == (
        missing.lines()
    )


def test_lists_dags_by_id_and_reports_an_id_in_two_files(folder: Path) -> None:
    said = [
        {"file": f"{folder}/{path}", "dags": dags, "errors": {}}
        for path, dags in {"a.py": ["x", "y"], "b.py": ["y"], "c.py": []}.items()
    ]

    found = read(folder, {"airflow": "3.3.2"}, *said, {"done": 3})

    assert ({"x": ["a.py"], "y": ["a.py", "b.py"]}, "3.3.2", True, "") == (
        found.dags,
        found.airflow,
        found.is_whole,
        found.trouble,
    )
    assert [Broken("b.py", None, "the DAG 'y' is also in a.py")] == found.broken


def test_a_file_that_exits_is_broken_and_a_killed_load_is_undecided(folder: Path) -> None:
    ended = read(folder, {"file": f"{folder}/sales.py", "ended": 0})
    killed = read(folder, {"file": f"{folder}/sales.py", "ended": -9})
    failed = read(folder, {"file": f"{folder}/sales.py", "failed": "TypeError: no bag"})

    text = "it ends the process that loads it, with exit code 0"
    assert ([Broken("sales.py", None, text)], "") == (ended.broken, ended.trouble)
    assert ([], "loading sales.py failed: signal 9") == (killed.broken, killed.trouble)
    assert ([], "loading sales.py failed: TypeError: no bag") == (failed.broken, failed.trouble)


def test_a_truncated_answer_is_incomplete(folder: Path) -> None:
    lines = ['{"airflow": "3.3.2"}', '{"file": "a.py", "da', '{"done": 1}']

    found = read_answer(lines, str(folder))

    assert ("3.3.2", False) == (found.airflow, found.is_whole)
