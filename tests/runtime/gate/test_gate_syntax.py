"""
The gate with the syntax check.
"""

import os

import pytest

from sidecar_runtime.gate.gate import Finding, Undecided
from sidecar_runtime.gate.syntax import NEWEST
from tests.runtime.gate.door import Knock
from tests.runtime.recording import Log
from tests.support.raising import raised


def test_refuses_files_that_do_not_compile_with_their_lines(knock: Knock, log: Log) -> None:
    door = knock(grammar=NEWEST)
    (door.folder / "d").mkdir()
    (door.folder / "d/a.py").write_text("x = 1\nx = = 2\n")
    (door.folder / "b.py").write_text("def f(:\n")
    (door.folder / "good.py").write_text("x = 1\n")

    found = door.findings(changed=["good.py", "d/a.py", "b.py"])

    assert [Finding("d/a.py", 2, "invalid syntax"), Finding("b.py", 1, "invalid syntax")] == found
    (event,) = log.events("revision_refused")
    assert ("d/a.py", 2) == (event["path"], event["line"])
    assert ("invalid syntax", 2) == (event["problem"], event["files_refused"])


def test_judges_only_new_and_changed_python_files(knock: Knock) -> None:
    door = knock(grammar=NEWEST)
    for name in ("old.py", "a.yaml", "b.pyc", "py"):
        (door.folder / name).write_text("x = = 2\n")

    assert [] == door.findings(changed=["a.yaml", "b.pyc", "py"])
    assert 1 == door.checks("accepted")


@pytest.mark.parametrize("name", ["a b.py", "new\nline.py", "ü日本.py", '"quote\\.py', "-c.py"])
def test_unusual_file_names_are_reported_unchanged(knock: Knock, name: str) -> None:
    door = knock(grammar=NEWEST)
    (door.folder / name).write_text("x = = 2\n")

    assert [Finding(name, 1, "invalid syntax")] == door.findings(changed=[name])


def test_the_check_imports_no_modules_from_the_folder(knock: Knock) -> None:
    """The working directory of the check is a folder to which others can upload."""
    door = knock(grammar=NEWEST)
    for name in ("ast.py", "json.py", "sidecar_runtime.py", "sitecustomize.py", "a.py"):
        (door.folder / name).write_text("open('ran', 'w')\n")

    assert [] == door.findings(changed=sorted(os.listdir(door.folder)))
    assert not (door.folder / "ran").exists()


def test_a_link_is_judged_by_its_own_name_and_the_content_of_its_target(knock: Knock) -> None:
    door = knock(grammar=NEWEST)
    (door.folder / "d").mkdir()
    (door.folder / "broken.txt").write_text("x = = 2\n")
    (door.folder / "good.txt").write_text("x = 2\n")
    (door.folder / "d/broken.py").symlink_to("../broken.txt")
    (door.folder / "good.py").symlink_to("good.txt")

    found = door.findings(changed=["d/broken.py", "good.py", "broken.txt", "good.txt"])

    assert [Finding("d/broken.py", 1, "invalid syntax")] == found


@pytest.mark.parametrize("target", ["../outside.py", "/dev/zero", "loop.py", "gone.py", "folder"])
def test_skips_links_that_do_not_lead_to_a_file_in_the_folder(knock: Knock, target: str) -> None:
    door = knock(grammar=NEWEST)
    (door.folder.parent / "outside.py").write_text("x = = 2\n")
    (door.folder / "folder").mkdir()
    (door.folder / "loop.py").symlink_to(target)

    assert [] == door.findings(changed=["loop.py"])


def test_a_check_that_fails_is_undecided(knock: Knock) -> None:
    """For example, a file vanishes, or the compiler is killed for its memory use."""
    door = knock(grammar=NEWEST)

    error = raised(Undecided, door.judge, changed=["missing.py"])

    assert "the syntax check ended with exit code 1: FileNotFoundError" in error.message
    (door.folder / "missing.py").write_text("x = 1\n")
    assert [] == door.findings(changed=["missing.py"])
