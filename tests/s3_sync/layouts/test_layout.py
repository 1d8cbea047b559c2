"""The in-place layouts, and changes between all layouts."""

import os
import stat
from pathlib import Path

import pytest

from s3_sync.tree.volume import STAGED as STAGED_PART
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.s3_sync.layouts.revisions import ONE, refusing_a_name
from tests.s3_sync.stage import (
    DIRECT,
    LAYOUTS,
    SNAPSHOT,
    STAGED,
    Begin,
    Stage,
    files_of,
)
from tests.support.machine.descriptors import held


@pytest.fixture
def stage(begin: Begin) -> Stage:
    """A volume with a gate and without a published revision."""
    return begin(**STAGED)


# --- with a gate


def test_publishes_a_revision_with_hard_links(one: Stage) -> None:
    assert ONE == one.seen()
    assert one.layout.shows("r1") and set() == one.damaged() == one.torn()
    for path in ONE:
        assert (one.folder / path).samefile(one.state / STAGED_PART / path)


def test_touches_only_changed_files(one: Stage) -> None:
    before = (one.folder / "a.py").stat().st_ino
    one.put(d__b="two", c="two")
    one.drop("a.py")
    one.put(a="one")  # a new file with the same content

    result = one.layout.publish("r2", Fence())

    assert (2, 0) == (result.published, result.deleted)
    assert {"a.py": "one", "d/b.py": "two", "c.py": "two"} == one.seen()
    assert before == (one.folder / "a.py").stat().st_ino


def test_foreign_files_stay_and_block_new_ones(one: Stage) -> None:
    (one.folder / "theirs").write_text("x")
    (one.folder / "c").write_text("x")

    result = one.publish("r2", a="two", c__d="two")

    assert ({"c/d.py"}, 1) == (result.blocked, result.published)
    assert ONE | {"a.py": "two", "theirs": "x", "c": "x"} == one.seen()


def test_a_file_that_cannot_be_renamed_delays_all_deletions(one: Stage) -> None:
    one.put(a="two", c="two")
    one.drop("d/b.py")
    with refusing_a_name():
        result = one.layout.publish("r2", Fence())

    assert ["target_denied"] == [error.reason for error in result.failed.values()]
    assert (1, 0) == (result.published, result.deleted)
    assert ONE | {"c.py": "two"} == one.seen()
    assert not one.layout.shows("r2")
    result = one.layout.publish("r2", Fence())
    assert (1, 1) == (result.published, result.deleted)
    assert {"a.py": "two", "c.py": "two"} == one.seen() and one.layout.shows("r2")


def test_a_revoked_fence_publishes_nothing(one: Stage, revoked: Fence) -> None:
    one.put(a="two")
    one.drop("d/b.py")

    with pytest.raises(CycleAbandoned):
        one.layout.publish("r2", revoked)

    assert ONE == one.seen()
    assert [] == os.listdir(one.state / "staging")


def test_repair_ignores_paths_that_are_no_longer_listed(one: Stage) -> None:
    """Damage is remembered by path, and the listing may have changed since."""
    one.drop("a.py")
    one.put(new="two")

    result = one.layout.repair({"a.py", "new.py", "never-seen"}, Fence())

    assert 0 == result.healed and ONE == one.seen()


def test_a_gate_takes_over_files_published_without_it(folder: Path, begin: Begin) -> None:
    stage = begin(**DIRECT)
    stage.put(a="one", d__b="one")
    (folder / "d/b.py").write_text("edited by someone")

    stage.begin(**STAGED)

    assert {"a.py"} == set(stage.layout.tree.managed.files)
    assert (folder / "a.py").samefile(stage.state / STAGED_PART / "a.py")
    assert not stage.layout.shows("r1")  # d/b.py is still missing
    stage.publish("r1", d__b="one")
    assert {"d/b.py"} == stage.damaged() and 1 == stage.repair().healed
    assert ONE == stage.seen() and stage.layout.shows("r1")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_closing_leaks_no_descriptors(folder: Path, layout: str) -> None:
    before = held(folder)
    stage = Stage(folder, **LAYOUTS[layout])
    stage.publish("r1", a="one", d__b="one")
    stage.drop("d/b.py")
    stage.publish("r2", a="two")
    stage.layout.finish(Fence())

    stage.close()

    assert before == held(folder)


# --- from one layout to another


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize(
    ("after", "mode"), [("direct", 0o644), ("staged", 0o644), ("snapshot", 0o444)]
)
def test_files_get_the_mode_of_the_new_layout(
    folder: Path, begin: Begin, before: str, after: str, mode: int
) -> None:
    """Snapshots share their files, so an edit in one would change all of them."""
    stage = begin(**LAYOUTS[before])
    stage.publish("r1", a="one")

    stage.begin(S3_SYNC_GATE="off")
    stage.begin(**LAYOUTS[after])
    if stage.torn() or not stage.layout.tree.managed.files:
        stage.put(a="one")  # as a cycle would download it
    stage.layout.publish("r2", Fence())

    shown = folder / ("current/a.py" if after == "snapshot" else "a.py")
    assert f"{mode:o}" == f"{stat.S_IMODE(shown.stat().st_mode):o}"


@pytest.mark.parametrize("after", ["direct", "staged"])
def test_a_foreign_link_stays_when_snapshots_are_removed(
    folder: Path, begin: Begin, tmp_path: Path, after: str
) -> None:
    stage = begin(**SNAPSHOT)
    stage.publish("r1", a="one")
    (folder / "current").unlink()
    (tmp_path / "theirs").mkdir()
    (folder / "current").symlink_to(tmp_path / "theirs")

    stage.begin(**LAYOUTS[after])
    stage.publish("r1", a="one")
    stage.layout.finish(Fence())

    assert {"a.py": "one", "current": f"-> {tmp_path / 'theirs'}"} == stage.seen()
    assert not (stage.state / "snapshots").exists()


@pytest.mark.parametrize("after", ["direct", "staged"])
def test_a_key_named_like_the_link_replaces_it(begin: Begin, after: str) -> None:
    stage = begin(**SNAPSHOT)
    stage.publish("r1", a="one")

    stage.begin(**LAYOUTS[after])
    stage.drop("a.py")
    stage.publish("r2", current__b="two")
    stage.layout.finish(Fence())

    assert {"current/b.py": "two"} == stage.seen()


@pytest.mark.parametrize("name", ["tree", "staged", "snapshots"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_planted_links_and_files_in_place_of_layout_folders_are_removed(
    begin: Begin, outside: Path, name: str, kind: str
) -> None:
    stage = begin(**DIRECT)
    place = stage.state / name
    if kind == "link":
        place.symlink_to(outside)
    else:
        place.write_text("x")
    stage.publish("r1", a="one")

    stage.layout.finish(Fence())

    assert {"a.py": "victim"} == files_of(outside)
    assert not os.path.lexists(place)


@pytest.mark.parametrize("after", LAYOUTS)
def test_a_revoked_fence_removes_no_files_of_another_layout(
    begin: Begin, after: str, revoked: Fence
) -> None:
    before = SNAPSHOT if after != "snapshot" else DIRECT
    stage = begin(**before)
    stage.publish("r1", a="one")
    stage.begin(**LAYOUTS[after])
    stage.publish("r1", a="one")
    seen = stage.seen()

    with pytest.raises(CycleAbandoned):
        stage.layout.finish(revoked)

    assert seen == stage.seen()


def test_a_revoked_fence_keeps_an_empty_list_of_another_layout(
    begin: Begin, revoked: Fence
) -> None:
    stage = begin(**DIRECT)
    stage.begin(**SNAPSHOT)
    stage.publish("r1", a="one")

    with pytest.raises(CycleAbandoned):
        stage.layout.finish(revoked)

    assert (stage.state / "managed").exists()
    stage.layout.finish(Fence())
    assert not (stage.state / "managed").exists()
