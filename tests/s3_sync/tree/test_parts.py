"""The parts of `.s3-sync`, and a target that is only read."""

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
def test_a_part_has_its_files_and_its_list(
    folder: Path, part: str, place: str, journal: str
) -> None:
    with opened(folder, part=part) as target:
        put(target, "a/b.py")
        assert str(folder / place) == target.path.rstrip("/")

    assert BODY == (folder / place / "a/b.py").read_bytes()
    assert b'"a/b.py"' in (folder / RESERVED / journal).read_bytes()
    assert journal.rpartition("/")[2] == list_name(part)
    with opened(folder, part=part) as successor:
        assert {"a/b.py"} == set(successor.managed.files) and set() == damaged(successor)


def test_parts_do_not_see_each_other(target: Target, tree: Target) -> None:
    put(target, "c.py")

    assert ({"c.py"}, {"a/b.py"}) == (set(target.managed.files), set(tree.managed.files))
    assert ([], []) == (target.foreign(), tree.foreign())


# --- without touching it


def test_a_missing_target_has_no_files_and_stays_missing(folder: Path) -> None:
    assert ({}, []) == read_target(str(folder), "", with_foreign=True)
    assert not folder.exists()


def test_a_target_is_read_without_touching_it(folder: Path, target: Target) -> None:
    put(target, "a.py")
    staging = target.staging.open()
    (folder / "foreign").write_bytes(b"x")
    target.close()
    journal = (folder / RESERVED / "managed").read_bytes()

    managed, foreign = read_target(str(folder), "", with_foreign=True)

    assert (["a.py"], ["foreign"]) == (list(managed), foreign)
    assert (managed, []) == read_target(str(folder), "", with_foreign=False)
    assert ({}, []) == read_target(str(folder), TREE, with_foreign=True)
    assert not (folder / RESERVED / TREE).exists()
    assert [staging.name] == staged(folder)
    assert journal == (folder / RESERVED / "managed").read_bytes()
    staging.close()
