"""Which files of a folder become a release, and what prevents one."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.publisher.folder import FolderError, find_origin, look, make_rules
from tests.support.raising import raised
from tests.support.s3_sync.publishing import GITHUB, write_files

FILES = {"a.py": b"a", "b/c.py": b"c", ".airflowignore": b"x\n"}


def paths(folder: Path, *exclude: str) -> list[str]:
    return [
        file.path for file in look(str(folder), make_rules(str(folder), exclude))[0]
    ]


def refusal(folder: Path) -> FolderError:
    return raised(FolderError, look, str(folder), make_rules(str(folder), ()))


def test_finds_all_files_sorted_and_reports_what_is_left_out(tmp_path: Path) -> None:
    rest = {
        ".git/config": b"",
        "b/__pycache__/c.pyc": b"",
        "b/.airflow-bundle-manifest.json": b"",
    }
    folder = write_files(
        tmp_path / "dags", FILES | rest | {"x~": b"", ".venv/lib.py": b""}
    )

    files, left_out = look(str(folder), make_rules(str(folder), ()))

    assert sorted(FILES) == [file.path for file in files]
    expected = [
        ".git/",
        ".venv/",
        "b/.airflow-bundle-manifest.json",
        "b/__pycache__/",
        "x~",
    ]
    assert expected == left_out


def test_rules_of_the_file_and_of_the_command_line_apply_but_not_to_what_never_belongs(
    tmp_path: Path,
) -> None:
    rules = b"*.sql\n!keep.sql\n!__pycache__/\n!*.pyc\n!*~\n"
    more = {
        "a.sql": b"",
        "keep.sql": b"",
        "x~": b"",
        "__pycache__/y.pyc": b"",
        "z.pyc": b"",
    }
    folder = write_files(tmp_path / "dags", FILES | more | {".s3-sync-ignore": rules})

    assert [".airflowignore", "keep.sql", "x~"] == paths(folder, "*.py")


@pytest.mark.parametrize("mode", [0o755, 0o655, 0o645, 0o744])
def test_a_file_is_executable_if_anybody_may_execute_it(
    tmp_path: Path, mode: int
) -> None:
    folder = write_files(tmp_path / "dags", FILES)
    (folder / "a.py").chmod(mode)

    found = {
        file.path: file.is_executable
        for file in look(str(folder), make_rules("", ()))[0]
    }

    assert {"a.py": True, "b/c.py": False, ".airflowignore": False} == found


def test_follows_links_inside_the_folder(tmp_path: Path) -> None:
    folder = write_files(tmp_path / "dags", FILES)
    (folder / "link.py").symlink_to("a.py")
    (folder / "linked").symlink_to("b")

    assert sorted([*FILES, "link.py", "linked/c.py"]) == paths(folder)


@pytest.mark.parametrize(
    ("make", "reason", "said"),
    [
        (lambda path: path.symlink_to("/etc/hostname"), "link_outside", ": /etc/hostname"),
        (lambda path: path.symlink_to("nowhere"), "file_unreadable", "No such file"),
        (lambda path: path.symlink_to("."), "link_outside", "to one that contains it"),
        (os.mkfifo, "file_too_large", "is not a regular file of at most"),
        (lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 29),
         "file_too_large", "268435456 bytes"),
        (lambda path: path.with_name("line\nfeed").touch(), "name_refused", "control character"),
        (lambda path: path.with_name(".s3-sync").mkdir(), "name_refused", "reserved"),
        (lambda path: path.with_name(os.fsdecode(b"caf\xe9")).touch(), "name_refused", "unsafe"),
    ],
)  # fmt: skip
def test_refuses_what_cannot_be_released(
    tmp_path: Path, make: Callable[[Path], object], reason: str, said: str
) -> None:
    folder = write_files(tmp_path / "dags", FILES)
    make(folder / "odd")

    error = refusal(folder)

    assert (reason, 2) == (error.reason, error.exit_code)
    assert said in error.message


def test_refuses_an_empty_and_a_missing_folder(tmp_path: Path) -> None:
    assert (
        "folder_empty" == refusal(write_files(tmp_path / "dags", {"x.pyc": b""})).reason
    )
    assert "folder_missing" == refusal(tmp_path / "nowhere").reason


def test_the_origin_comes_from_the_ci_where_git_knows_nothing(tmp_path: Path) -> None:
    origin = find_origin(str(tmp_path), GITHUB)

    assert ("ada", "1" * 40, "main") == (
        origin["by"],
        origin["commit"],
        origin["branch"],
    )
    assert "https://github.example.com/team/dags/actions/runs/7" == origin["ci_url"]
