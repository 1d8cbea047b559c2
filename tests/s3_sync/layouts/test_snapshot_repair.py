"""Snapshots that are damaged, or published again."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.tree.target import Torn
from sidecar_runtime.fence import Fence
from tests.s3_sync.failing import failure
from tests.s3_sync.layouts.revisions import ONE, TWO, refusing_a_name
from tests.s3_sync.stage import Stage, files_of

# --- a torn tree


@pytest.mark.parametrize(
    "harm",
    [
        Path.unlink,
        lambda place: os.utime(place, ns=(1, 1)),
        lambda place: (place.unlink(), place.symlink_to("/etc/hostname")),
        lambda place: (place.unlink(), place.mkdir()),
        lambda place: (shutil.rmtree(place.parent), place.parent.write_text("x")),
    ],
    ids=["removed", "time", "link", "folder", "file"],
)
@pytest.mark.parametrize("is_back", [False, True], ids=["new", "back"])
def test_a_torn_tree_is_not_published(
    one: Stage, harm: Callable[[Path], object], is_back: bool
) -> None:
    """A file changes between its inspection and the publish."""
    if is_back:
        one.publish("r2", d__b="two")
        one.publish("r1", d__b="one")
        one.publish("r3", d__b="six")
    shown, before = one.layout.revision, one.current()
    one.put(d__b="two" if is_back else "new")

    harm(one.state / "tree/d/b.py")
    with pytest.raises(Torn):
        one.layout.publish("r2", Fence())

    assert (shown, before) == (one.layout.revision, one.current())
    assert not [name for name in one.snapshots if name.startswith(".")]


# --- a revision that returns


def test_a_returning_revision_reuses_its_snapshot(two: Stage) -> None:
    before = (two.state / "snapshots/r1").stat().st_ino
    two.put(a="one")
    two.drop("c.py")
    result = two.layout.publish("r1", Fence())

    assert before == (two.folder / "current").stat().st_ino
    assert ONE == two.current() and two.layout.shows("r1")
    assert (1, 1) == (result.published, result.deleted)
    assert TWO == files_of(two.state / "snapshots/r2")
    assert set() == two.damaged()


def test_a_returning_revision_gets_newer_file_times(two: Stage) -> None:
    """Python's bytecode cache and Airflow's file processor compare whole seconds and sizes."""
    times = [int((two.folder / "current/a.py").stat().st_mtime)]
    for revision, content in (("r1", "one"), ("r2", "two"), ("r1", "one")):
        two.publish(revision, a=content)
        times.append(int((two.folder / "current/a.py").stat().st_mtime))

    assert times == sorted(set(times))


def test_damage_to_a_returning_revision_is_repaired(two: Stage) -> None:
    two.publish("r3", z="last")
    two.publish("r4", a="six")
    place = two.state / "snapshots/r3"
    (place / "d/b.py").unlink()
    (place / "a.py").unlink()
    (place / "a.py").write_text("planted")

    two.publish("r3", a="two")

    assert TWO | {"z.py": "last"} == two.current() and set() == two.damaged()


def test_a_returning_revision_loses_files_kept_only_by_delete_none(two: Stage) -> None:
    """Files that S3_SYNC_DELETE=none keeps are not part of the revision's name."""
    two.drop("c.py", "d/b.py")

    two.publish("r1", a="one")

    assert {"a.py": "one"} == two.current() and two.layout.shows("r1")


def test_the_next_process_completes_an_interrupted_removal(two: Stage) -> None:
    """The journal line is written before the file is removed."""
    for journal, path in (("snapshots/r1.managed", "d/b.py"), ("tree.managed", "c.py")):
        with (two.state / journal).open("a") as lines:
            lines.write(f'["{path}"]\n')
    two.begin()

    two.drop("c.py", "d/b.py")
    two.publish("r1", a="one")

    assert {"a.py": "one"} == two.current() == files_of(two.state / "tree")


def test_a_revision_that_cannot_be_renewed_is_not_published(two: Stage) -> None:
    two.put(a="one")
    two.drop("c.py")
    with refusing_a_name():
        found = failure(two.layout.publish, "r1", Fence())

    assert "target_denied" == found.reason
    assert TWO == two.current() and "r2" == two.layout.revision
    two.publish("r1")
    assert ONE == two.current()


def test_reuses_a_snapshot_whose_list_was_lost(two: Stage) -> None:
    (two.state / "snapshots/r1.managed").unlink()
    two.put(a="one")
    two.drop("c.py")

    two.layout.publish("r1", Fence())

    assert ONE == two.current() and set() == two.damaged()


def test_a_snapshot_blocked_by_foreign_files_is_not_published(two: Stage) -> None:
    """Another process put files at the path of a managed file."""
    place = two.state / "snapshots/r1/a.py"
    place.unlink()
    place.mkdir()
    (place / "foreign").write_text("x")
    two.put(a="one")
    two.drop("c.py")

    found = failure(two.layout.publish, "r1", Fence())

    assert "target_failed" == found.reason
    assert "files that s3-sync does not own block 'a.py'" in found.message
    assert TWO == two.current() and "r2" == two.layout.revision


# --- repairing


def test_repair_does_not_mix_in_a_newer_file_of_the_tree(one: Stage) -> None:
    one.put(a="two")
    (one.folder / "current/a.py").unlink()

    assert 0 == one.repair().healed
    assert {"d/b.py": "one"} == one.current()
    one.publish("r2")
    assert {"a.py": "two", "d/b.py": "one"} == one.current()


def test_does_not_recreate_a_lost_snapshot_from_a_newer_tree(one: Stage) -> None:
    """A tree between two revisions matches neither."""
    one.put(a="two")
    shutil.rmtree((one.folder / "current").resolve())

    one.repair()

    assert (None, "") == (one.layout.shown, one.layout.revision)
    assert {} == one.current()
    one.publish("r2", c="two")
    assert TWO == one.current() and set() == one.damaged()


def test_does_not_recreate_a_lost_snapshot_from_a_torn_tree(one: Stage) -> None:
    shutil.rmtree((one.folder / "current").resolve())
    (one.state / "tree/a.py").unlink()

    with pytest.raises(Torn):
        one.layout.repair(one.damaged(), Fence())

    assert {} == one.current()
    one.publish("r1", a="one")
    assert ONE == one.current()


def test_ignores_a_record_that_is_not_a_valid_file_name(two: Stage) -> None:
    """Anyone who can write to the volume can also write the record."""
    shutil.rmtree((two.folder / "current").resolve())
    two.published = "\ud800"

    two.begin()

    assert "" == two.layout.revision
    two.publish("r2")
    assert TWO == two.current()
