"""Tests of reading Airflow's tracebacks, as Airflow 2 and 3 write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from s3_sync.publisher.airflow.answer import Answer, Broken, read_answer
from tests.support.publishing import write_files

LOADER = """Traceback (most recent call last):
  File "/opt/airflow/models/dagbag.py", line 387, in parse
    loader.exec_module(new_module)
  File "<frozen importlib._bootstrap>", line 241, in _call_with_frames_removed
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = ("sales.py", "lib/rates.py", "plugins/p.py", "space/lib.py")
    return write_files(tmp_path / "dags", dict.fromkeys(files, b""))


def read(folder: Path, *said: Any) -> Answer:
    return read_answer([json.dumps(one) for one in said], str(folder))


def broken(folder: Path, text: str, path: str = "{}/sales.py") -> Broken:
    """What one traceback says; `{}` is the folder."""
    errors = {path.format(folder): text.replace("{}", str(folder))}
    said = {"file": f"{folder}/sales.py", "dags": [], "errors": errors}
    [found] = read(folder, said).broken
    return found


def raised(error: str) -> str:
    return f'{LOADER}  File "{{}}/sales.py", line 7, in <module>\n    load()\n{error}\n'


@pytest.mark.parametrize("path", ["{}/sales.py", "sales.py"])
def test_place_problem_and_the_last_lines_from_the_folders_on(folder: Path, path: str) -> None:
    text = raised("ZeroDivisionError: division by zero")

    found = broken(folder, text, path)

    tail = ('  File "sales.py", line 7, in <module>', "    load()")
    assert Broken("sales.py", 7, "ZeroDivisionError: division by zero", "", tail) == found


def test_a_fault_in_a_library_of_the_folder_is_named_beside_the_file(folder: Path) -> None:
    text = raised(
        '  File "{}/lib/rates.py", line 2, in rate\n    return 1 / n\nZeroDivisionError: n'
    )

    found = broken(folder, text)

    assert ("sales.py", 7, "ZeroDivisionError: n (in lib/rates.py:2)") == (
        found.path,
        found.line,
        found.problem,
    )


def test_a_fault_in_a_package_has_the_line_that_led_there(folder: Path) -> None:
    frame = '  File "/usr/lib/pandas/io.py", line 99, in read\n    raise ValueError(\n'

    found = broken(folder, raised(f"{frame}ValueError: two\nlines"))

    assert ("sales.py", 7, "ValueError: two lines") == (found.path, found.line, found.problem)


def test_a_syntax_error_has_its_line(folder: Path) -> None:
    text = f'{LOADER}  File "{{}}/sales.py", line 3\n    def (:\n        ^\nSyntaxError: invalid\n'

    found = broken(folder, text)

    assert (3, "SyntaxError: invalid") == (found.line, found.problem)
    assert '  File "sales.py", line 3' == found.tail[0]


def test_an_error_without_a_traceback_stays_as_it_is(folder: Path) -> None:
    found = broken(folder, "AirflowDagCycleException: Cycle detected")

    assert Broken("sales.py", None, "AirflowDagCycleException: Cycle detected") == found


def test_many_lines_are_cut(folder: Path) -> None:
    frames = "".join(f'  File "{{}}/sales.py", line {n}, in f\n    f()\n' for n in range(1, 90))

    found = broken(folder, f"{LOADER}{frames}RecursionError: {'deep ' * 999}")

    assert (89, 300, 6) == (found.line, len(found.problem), len(found.tail))


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        ("ModuleNotFoundError: No module named 'pandas'", "package:pandas"),
        ("ModuleNotFoundError: No module named 'a.b'; 'a' is no package", "package:a.b"),
        ("ModuleNotFoundError: No module named 'lib.tables'", ""),
        ("ModuleNotFoundError: No module named 'sales.x'", ""),
        ("ImportError: cannot import name 'x' from 'pandas'", ""),
        ("KeyError: 'Variable sales_rate does not exist'", "variable:sales_rate"),
        ("KeyError: 'Variable sales rate does not exist.'", "variable:sales rate"),
        (
            "airflow.E: VARIABLE_NOT_FOUND: {'message': 'Variable sales_rate not found'}",
            "variable:sales_rate",
        ),
        ("airflow.E: The conn_id `prd_db` isn't defined", "connection:prd_db"),
        ("airflow.E: CONNECTION_NOT_FOUND: Connection prd_db not found", "connection:prd_db"),
        ("KeyError: 'sales_rate'", ""),
        # What is there in every Airflow, and what only sounds alike.
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
def test_what_is_missing_is_told_apart(folder: Path, error: str, lacks: str) -> None:
    assert lacks == broken(folder, raised(error)).lacks


def test_a_broken_plugin_counts_where_it_is_part_of_the_folder(folder: Path) -> None:
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


def test_dags_are_known_by_their_ids_and_one_in_two_files_is_broken(folder: Path) -> None:
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


def test_a_file_that_ends_its_process_is_broken_and_one_that_was_killed_or_not_loaded_is_not(
    folder: Path,
) -> None:
    ended = read(folder, {"file": f"{folder}/sales.py", "ended": 0})
    killed = read(folder, {"file": f"{folder}/sales.py", "ended": -9})
    failed = read(folder, {"file": f"{folder}/sales.py", "failed": "TypeError: no bag"})

    text = "it ends the process that loads it, with exit code 0"
    assert ([Broken("sales.py", None, text)], "") == (ended.broken, ended.trouble)
    assert ([], "loading sales.py failed: signal 9") == (killed.broken, killed.trouble)
    assert ([], "loading sales.py failed: TypeError: no bag") == (failed.broken, failed.trouble)


def test_an_answer_that_was_cut_off_is_not_whole(folder: Path) -> None:
    lines = ['{"airflow": "3.3.2"}', '{"file": "a.py", "da', '{"done": 1}']

    found = read_answer(lines, str(folder))

    assert ("3.3.2", False) == (found.airflow, found.is_whole)
