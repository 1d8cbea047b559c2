"""Which files of a folder become a release, and what prevents one."""

from pathlib import Path

import pytest

from s3_sync.publisher import folder as folders
from s3_sync.publisher.catalog import InputError
from s3_sync.publisher.folder import look
from tests.support.s3_sync.publishing import write_files

FILES = {"a.py": b"a", "b/c.py": b"c", ".airflowignore": b"x\n"}


def paths(folder: Path, *exclude: str) -> list[str]:
    return [file.path for file in look(str(folder), exclude)[0]]


def test_finds_all_files_sorted_and_reports_what_is_left_out(tmp_path: Path) -> None:
    folders = (
        ".git .hg .svn .venv .mypy_cache .ipynb_checkpoints .idea .vscode b/__pycache__"
    )
    names = ".DS_Store x~ .x.swp .x.swa x.pyc x.pyo .s3-sync-ignore b/.airflow-bundle-manifest.json"
    left = [f"{name}/" for name in folders.split()] + names.split()
    rest = {f"{name}x.py" if name.endswith("/") else name: b"" for name in left}

    files, left_out = look(str(write_files(tmp_path / "dags", FILES | rest)), ())

    assert sorted(FILES) == [file.path for file in files]
    assert sorted(left) == left_out


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

    assert [".airflowignore", "keep.sql", "x~"] == paths(
        write_files(tmp_path / "dags", FILES | more | {".s3-sync-ignore": rules}),
        "*.py",
    )


def test_a_file_is_executable_if_anybody_may_execute_it(tmp_path: Path) -> None:
    modes = ["644", "645", "655", "744", "755"]
    folder = write_files(tmp_path / "dags", dict.fromkeys(modes, b""))
    for mode in modes:
        (folder / mode).chmod(int(mode, 8))

    assert modes[1:] == [
        file.path for file in look(str(folder), ())[0] if file.is_executable
    ]


def test_what_it_looks_at_and_lists_has_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folders, "FILES_LIMIT", 10)
    folder = write_files(tmp_path / "dags", FILES)
    for number in range(20):
        (folder / f"link{number}").symlink_to("nowhere")

    with pytest.raises(InputError) as refused:
        look(str(folder), ())

    assert "release_too_large" == refused.value.reason
