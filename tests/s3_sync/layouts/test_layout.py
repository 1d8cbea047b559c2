"""The layouts in place, and the change from any layout to any other."""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.layouts.open import tree_part
from s3_sync.tree.target import Torn
from s3_sync.tree.volume import STAGED as STAGED_PART
from s3_sync.tree.volume import TREE
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
    settings_of,
)
from tests.support.descriptors import held


@pytest.fixture
def stage(begin: Begin) -> Stage:
    """A volume behind a gate on which nothing has been published."""
    return begin(**STAGED)


# --- which one


@pytest.mark.parametrize(
    ("layout", "is_atomic", "part"),
    [("direct", False, ""), ("staged", True, STAGED_PART), ("snapshot", True, TREE)],
)
def test_settings_choose_the_layout(
    folder: Path, begin: Begin, layout: str, is_atomic: bool, part: str
) -> None:
    stage = begin(**LAYOUTS[layout])

    assert is_atomic is stage.layout.is_atomic
    assert part == tree_part(settings_of(folder, **LAYOUTS[layout]))
    assert str(folder / ".s3-sync" / part if part else folder) == stage.layout.tree.path


def test_a_gate_before_snapshots_changes_nothing_of_the_layout(begin: Begin) -> None:
    stage = begin(**SNAPSHOT, S3_SYNC_GATE="syntax")
    stage.publish("r1", a="one")

    assert {"current": "-> .s3-sync/snapshots/r1"} == stage.seen()


# --- directly


def test_directly_each_file_is_visible_at_once(begin: Begin) -> None:
    stage = begin(**DIRECT)
    stage.put(a="one")

    assert {"a.py": "one"} == stage.seen()
    assert stage.layout.shown is stage.layout.tree
    assert stage.layout.changes().is_empty and stage.layout.shows("r1")
    result = stage.layout.publish("r1", Fence())
    assert (0, 0, 0) == (result.published, result.deleted, result.healed)
    assert 0 == stage.repair().healed and "" == stage.layout.problem
    stage.layout.prune(Fence())
    assert {"staging", ".airflowignore", "managed"} == set(os.listdir(stage.state))


# --- behind a gate


def test_nothing_is_seen_before_it_is_published(stage: Stage) -> None:
    stage.put(a="one", d__b="one")

    assert {} == stage.seen()
    assert not stage.layout.shows("r1")
    assert {"a.py", "d/b.py"} == set(stage.layout.changes().publish)


def test_a_revision_is_put_in_place_by_links(one: Stage) -> None:
    assert ONE == one.seen()
    assert one.layout.shows("r1") and set() == one.damaged() == one.torn()
    for path in ONE:
        assert (one.folder / path).samefile(one.state / STAGED_PART / path)


def test_only_what_changed_is_touched(one: Stage) -> None:
    before = (one.folder / "a.py").stat().st_ino
    one.put(d__b="two", c="two")
    one.drop("a.py")
    one.put(a="one")  # gone and back: a new file with the same content

    result = one.layout.publish("r2", Fence())

    assert (2, 0) == (result.published, result.deleted)
    assert {"a.py": "one", "d/b.py": "two", "c.py": "two"} == one.seen()
    assert before == (one.folder / "a.py").stat().st_ino


def test_what_is_gone_is_removed_with_its_folder(one: Stage) -> None:
    one.drop("d/b.py")
    result = one.layout.publish("r2", Fence())

    assert (0, 1) == (result.published, result.deleted)
    assert {"a.py": "one"} == one.seen() and not (one.folder / "d").exists()


def test_foreign_files_stay_and_block(one: Stage) -> None:
    (one.folder / "theirs").write_text("x")
    (one.folder / "c").write_text("x")

    result = one.publish("r2", a="two", c__d="two")

    assert ({"c/d.py"}, 1) == (result.blocked, result.published)
    assert ONE | {"a.py": "two", "theirs": "x", "c": "x"} == one.seen()


def test_what_changes_its_kind_makes_way(one: Stage) -> None:
    one.drop("d/b.py")
    one.put(d="a file now")
    one.drop("a.py")
    one.put(**{"a.py__inside": "a folder now"})

    result = one.layout.publish("r2", Fence())

    assert set() == result.blocked
    assert {"d.py": "a file now", "a.py/inside.py": "a folder now"} == one.seen()


def test_a_file_that_cannot_be_put_in_place_holds_the_deletions_back(one: Stage) -> None:
    one.put(a="two", c="two")
    one.drop("d/b.py")
    with refusing_a_name():
        result = one.layout.publish("r2", Fence())

    assert ["target_denied"] == [error.reason for error in result.failed.values()]
    assert (1, 0) == (result.published, result.deleted)
    assert ONE | {"c.py": "two"} == one.seen()
    assert not one.layout.shows("r2")
    result = one.layout.publish("r2", Fence())
    assert {"a.py": "two", "c.py": "two"} == one.seen() and one.layout.shows("r2")


def test_a_full_volume_ends_it(one: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    one.put(a="two")
    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        one.layout.publish("r2", Fence())
    monkeypatch.undo()

    assert ONE == one.seen() and set() == one.damaged()


def test_a_torn_tree_is_not_put_in_place(one: Stage) -> None:
    one.put(a="two")
    (one.state / STAGED_PART / "a.py").unlink()

    with pytest.raises(Torn, match=r"a\.py"):
        one.layout.publish("r2", Fence())

    assert ONE == one.seen()


def test_a_revoked_fence_puts_nothing_in_place(one: Stage, revoked: Fence) -> None:
    one.put(a="two")
    one.drop("d/b.py")

    with pytest.raises(CycleAbandoned):
        one.layout.publish("r2", revoked)

    assert ONE == one.seen()
    assert [] == os.listdir(one.state / "staging")


@pytest.mark.parametrize("harm", [Path.unlink, lambda place: place.rename(place.with_name("x.py"))])
def test_what_was_removed_is_put_back_from_the_tree(
    one: Stage, harm: Callable[[Path], object]
) -> None:
    harm(one.folder / "a.py")
    result = one.repair()

    assert (1, 0) == (result.healed, result.published)
    assert "one" == (one.folder / "a.py").read_text() and set() == one.damaged()


def test_an_edit_damages_the_tree_too_and_is_not_repaired_from_it(one: Stage) -> None:
    (one.folder / "a.py").write_text("edited")

    assert {"a.py"} == one.damaged() == one.torn()
    assert 0 == one.repair().healed
    assert "edited" == (one.folder / "a.py").read_text()


def test_damage_to_a_file_that_is_gone_from_the_tree_waits_for_the_publish(one: Stage) -> None:
    one.drop("d/b.py")
    (one.folder / "d/b.py").unlink()

    assert 0 == one.repair().healed
    assert {"a.py": "one"} == one.seen()


def test_repairing_knows_paths_that_are_no_longer_listed(one: Stage) -> None:
    """Damage is remembered by path; what it belonged to may have changed since."""
    one.drop("a.py")
    one.put(new="two")

    result = one.layout.repair({"a.py", "new.py", "never-seen"}, Fence())

    assert 0 == result.healed and ONE == one.seen()


def test_a_gate_begins_with_what_was_published_before_it(folder: Path, begin: Begin) -> None:
    stage = begin(**DIRECT)
    stage.put(a="one", d__b="one")
    (folder / "d/b.py").write_text("edited by someone")

    stage.begin(**STAGED)

    assert {"a.py"} == set(stage.layout.tree.managed.files)
    assert (folder / "a.py").samefile(stage.state / STAGED_PART / "a.py")
    assert not stage.layout.shows("r1")  # d/b.py is still to come
    stage.publish("r1", d__b="one")
    assert {"d/b.py"} == stage.damaged() and 1 == stage.repair().healed
    assert ONE == stage.seen() and stage.layout.shows("r1")


def test_the_next_process_behind_a_gate_sees_what_is_shown(one: Stage) -> None:
    one.put(a="two")
    one.begin()

    assert not one.layout.shows("r2") and ONE == one.seen()
    assert {"a.py"} == set(one.layout.changes().publish)
    assert set() == one.damaged() == one.torn()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_closing_leaves_no_descriptor(folder: Path, layout: str) -> None:
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
@pytest.mark.parametrize("after", LAYOUTS)
def test_one_layout_follows_another(folder: Path, begin: Begin, before: str, after: str) -> None:
    """What the other left stays until all of the new one is in its place; files of others stay."""
    stage = begin(**LAYOUTS[before])
    stage.publish("r1", a="one", d__b="one", old="one")
    (folder / "d").mkdir(exist_ok=True)
    (folder / "d/theirs").write_text("x")
    seen = stage.seen()

    stage.begin(S3_SYNC_GATE="off")
    stage.begin(**LAYOUTS[after])
    stage.put(a="one", d__b="one")
    stage.drop("old.py")
    if after == "snapshot" != before:
        assert seen == stage.seen()
    stage.layout.publish("r2", Fence())
    stage.layout.finish(Fence())

    expected = {"current": "-> .s3-sync/snapshots/r2"} if after == "snapshot" else ONE
    assert expected | {"d/theirs": "x"} == stage.seen()
    if after == "snapshot":
        assert ONE == stage.current()
    assert set() == stage.damaged()
    own = {"staging", ".airflowignore"} | {
        "direct": {"managed"},
        "staged": {"managed", "staged", "staged.managed"},
        "snapshot": {"snapshots", "tree", "tree.managed"},
    }[after]
    assert own == set(os.listdir(stage.state))
    stage.begin()
    assert set() == stage.damaged() and expected | {"d/theirs": "x"} == stage.seen()


@pytest.mark.parametrize("before", LAYOUTS)
@pytest.mark.parametrize(
    ("after", "mode"), [("direct", 0o644), ("staged", 0o644), ("snapshot", 0o444)]
)
def test_files_have_the_mode_of_the_layout_whatever_was_before_it(
    folder: Path, begin: Begin, before: str, after: str, mode: int
) -> None:
    """Snapshots share their files: an edit in one would be one in all."""
    stage = begin(**LAYOUTS[before])
    stage.publish("r1", a="one")

    stage.begin(S3_SYNC_GATE="off")
    stage.begin(**LAYOUTS[after])
    if stage.torn() or not stage.layout.tree.managed.files:
        stage.put(a="one")  # what a cycle downloads
    stage.layout.publish("r2", Fence())

    shown = folder / ("current/a.py" if after == "snapshot" else "a.py")
    assert f"{mode:o}" == f"{stat.S_IMODE(shown.stat().st_mode):o}"


@pytest.mark.parametrize("after", ["direct", "staged"])
def test_a_link_of_others_stays_when_snapshots_go(
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
def test_a_key_with_the_name_of_the_link_takes_its_place(begin: Begin, after: str) -> None:
    stage = begin(**SNAPSHOT)
    stage.publish("r1", a="one")

    stage.begin(**LAYOUTS[after])
    stage.drop("a.py")
    stage.publish("r2", current__b="two")
    stage.layout.finish(Fence())

    assert {"current/b.py": "two"} == stage.seen()


@pytest.mark.parametrize("name", ["tree", "staged", "snapshots"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_what_was_planted_in_place_of_another_layouts_folder_is_not_followed(
    begin: Begin, outside: Path, name: str, kind: str
) -> None:
    stage = begin(**DIRECT)
    place = stage.state / name
    if kind == "link":
        place.symlink_to(outside)
    elif name != "snapshots":
        place.write_text("x")
    stage.publish("r1", a="one")

    stage.layout.finish(Fence())

    assert {"a.py": "victim"} == files_of(outside)
    assert not os.path.lexists(place)


@pytest.mark.parametrize("after", LAYOUTS)
def test_nothing_of_another_layout_goes_under_a_revoked_fence(
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


def test_an_empty_list_of_another_layout_stays_under_a_revoked_fence(
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


@pytest.mark.parametrize("after", LAYOUTS)
def test_nothing_to_clear_is_no_work(begin: Begin, after: str) -> None:
    stage = begin(**LAYOUTS[after])
    stage.publish("r1", a="one")
    seen = stage.seen()

    for _ in range(2):
        stage.layout.finish(Fence())

    assert seen == stage.seen() and set() == stage.damaged()
