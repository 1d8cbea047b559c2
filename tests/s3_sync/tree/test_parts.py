"""The parts of `.s3-sync`, and reading a target without changing it."""

from pathlib import Path

import pytest

from s3_sync.keys import RESERVED
from s3_sync.tree.parts import list_name, read_target
from s3_sync.tree.target import Target
from s3_sync.tree.volume import TREE
from tests.s3_sync.tree.handling import BODY, damaged, opened, put, staged

# --- a part of `.s3-sync`


@pytest.mark.parametrize(
    ("part", "place", "journal"),
    [
        ("", "", "managed"),
        (TREE, f"{RESERVED}/tree", "tree.managed"),
        ("snapshots/r1", f"{RESERVED}/snapshots/r1", "snapshots/r1.managed"),
    ],
)
def test_a_part_has_its_folder_and_list(folder: Path, part: str, place: str, journal: str) -> None:
    with opened(folder, part=part) as target:
        put(target, "a/b.py")
        assert str(folder / place) == target.path.rstrip("/")

    assert BODY == (folder / place / "a/b.py").read_bytes()
    assert b'"a/b.py"' in (folder / RESERVED / journal).read_bytes()
    assert journal.rpartition("/")[2] == list_name(part)
    with opened(folder, part=part) as successor:
        assert {"a/b.py"} == set(successor.managed.files) and set() == damaged(successor)


def test_parts_do_not_list_each_others_files(target: Target, tree: Target) -> None:
    put(target, "c.py")

    assert ({"c.py"}, {"a/b.py"}) == (set(target.managed.files), set(tree.managed.files))
    assert ([], []) == (target.foreign(), tree.foreign())


# --- reading only


def test_reading_a_missing_target_does_not_create_it(folder: Path) -> None:
    assert {} == read_target(str(folder), "")
    assert not folder.exists()


def test_reading_a_target_does_not_change_it(folder: Path, target: Target) -> None:
    put(target, "a.py")
    staging = target.staging.open()
    (folder / "foreign").write_bytes(b"x")
    target.close()
    journal = (folder / RESERVED / "managed").read_bytes()

    assert ["a.py"] == list(read_target(str(folder), ""))
    assert {} == read_target(str(folder), TREE)
    assert not (folder / RESERVED / TREE).exists()
    assert [staging.name] == staged(folder)
    assert journal == (folder / RESERVED / "managed").read_bytes()
    staging.close()
