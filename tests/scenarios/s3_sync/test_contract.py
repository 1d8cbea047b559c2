"""Promises of the README that no other scenario shows, each by a daemon of its own."""

import re
from pathlib import Path

import pytest

from tests import Plant, Texts
from tests.scenarios.s3_sync.conftest import IN_BOTH_LAYOUTS, StartDaemon
from tests.support.aws.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.http.faults import replace_body
from tests.support.http.loopback import Exchange
from tests.support.machine.plants import remove
from tests.support.s3_sync.scripted import FILES, published, record_of
from tests.support.s3_sync.snapshots import SNAPSHOT, consumed, count_of
from tests.support.scripts import script
from tests.support.waiting import wait_until


@IN_BOTH_LAYOUTS
def test_a_changed_file_gets_a_later_second_and_others_keep_their_time(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    """
    Python's bytecode cache and Airflow's file processor compare whole seconds and
    sizes.
    """
    daemon = start(layout).until_synced()
    folder = target / "current" if layout else target
    seconds = []
    others = set()
    for number in range(5):
        s3.put("dags/a.py", b"print(%d)\n" % (number % 3))
        daemon.sync()
        assert b"print(%d)\n" % (number % 3) == (folder / "a.py").read_bytes()
        seconds.append((folder / "a.py").stat().st_mtime_ns // 1_000_000_000)
        others.add((folder / "pkg/b.py").stat().st_mtime_ns)

    assert seconds == sorted(set(seconds))
    assert 1 == len(others)


@pytest.mark.parametrize(
    ("policy", "left"),
    [("managed", {"foreign.py"}), ("none", {"foreign.py", "pkg/b.py"})],
)
def test_each_deletion_policy_deletes_its_files(
    s3: FakeS3, target: Path, start: StartDaemon, policy: str, left: set[str]
) -> None:
    daemon = start({"S3_SYNC_DELETE": policy}).until_synced()
    (target / "foreign.py").write_text("someone else's")
    (target / "pkg/__pycache__").mkdir()
    (target / "pkg/__pycache__/b.cpython-313.pyc").write_bytes(b"bytecode")
    s3.delete("dags/pkg/b.py")
    daemon.sync()

    assert {
        "a.py",
        "pkg/__pycache__/b.cpython-313.pyc",
        "pkg/empty.py",
    } | left == published(target).keys()
    assert "unchanged" == daemon.sync()["result"]


def test_a_file_that_moves_is_at_one_of_both_paths(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    daemon = start().until_synced()
    there = []

    def look(exchange: Exchange) -> None:
        there.append((target / "a.py").exists())
        exchange.send(exchange.good())

    s3.inject(look, is_get("dags/moved.py"))
    s3.put("dags/moved.py", b"x = 1\n")
    s3.delete("dags/a.py")
    daemon.sync()

    assert [True] == there
    assert {"moved.py", "pkg/b.py", "pkg/empty.py"} == published(target).keys()


@IN_BOTH_LAYOUTS
def test_an_empty_listing_deletes_nothing(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    daemon = start(layout).until_synced()
    s3.objects.clear()
    assert "source_empty" == daemon.sync()["reason"]
    assert FILES == consumed(target)
    assert daemon.is_ready()
    daemon.terminate()

    start({**layout, "S3_SYNC_ALLOW_EMPTY": "true"}).until_synced()
    assert {} == consumed(target)


@IN_BOTH_LAYOUTS
def test_a_key_that_is_missing_from_one_listing_stays(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    daemon = start(layout).until_synced()

    def lose(body: bytes) -> bytes:
        return re.sub(
            rb"<Contents><Key>dags.{1,3}pkg.{1,3}b\.py<.*?</Contents>", b"", body
        )

    s3.inject(replace_body(lose), is_list, times=1)
    ended = daemon.sync()
    assert ended["result"] in ("partial", "waiting"), ended
    assert FILES == consumed(target)
    assert "unchanged" in [daemon.sync()["result"] for _ in range(2)]
    assert daemon.get("/readyz").json()["revision"]


@IN_BOTH_LAYOUTS
def test_a_listing_without_most_files_is_held_back_until_sighup(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    s3.put_all({f"{number:02}.py": b"" for number in range(30)}, "dags/")
    daemon = start(layout).until_synced()
    s3.delete(*(f"dags/{number:02}.py" for number in range(30)))
    assert "deletion_held" == daemon.sync()["reason"]
    assert 33 == len(consumed(target))
    assert "deletion_held" == daemon.reason()
    assert 30 == count_of(daemon, "s3_sync_held_deletions")

    assert 30 == daemon.sync()["files_deleted"]
    assert FILES == consumed(target)
    assert 0 == count_of(daemon, "s3_sync_held_deletions")


def test_files_that_are_lost_on_disk_as_well_hold_back_no_deletion(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    names = [f"{number:02}.py" for number in range(30)]
    s3.put_all(dict.fromkeys(names, b""), "dags/")
    daemon = start().until_synced()
    for name in names:
        (target / name).unlink()
        s3.delete(f"dags/{name}")

    assert "changed" == daemon.sync()["result"]
    assert FILES == consumed(target)


@pytest.mark.parametrize(
    "layout", [{}, SNAPSHOT, SNAPSHOT | {"S3_SYNC_DELETE": "none"}]
)
def test_files_of_another_prefix_stand_in_for_no_object(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    start(layout).until_synced().terminate()
    s3.put_all({"a.py": b"other\n", "b.py": b"other\n", "c.py": b"other\n"}, "other/")
    s3.inject(error(403, "AccessDenied"), is_get())
    other = start({**layout, "KEY_PATH": "other"}, interval="0.2")
    assert "access_denied_get" == other.wait_for_event("cycle_failed")["reason"]
    assert FILES == consumed(target)
    s3.heal()
    s3.inject(error(403, "AccessDenied"), is_get("other/a.py"))
    other.wait_until_ready()

    wait_until(
        lambda: consumed(target).keys() == {"b.py", "c.py"},
        "only the new files are there",
    )
    assert "1 file is missing" in other.get("/readyz").json()["shortfall"]


@pytest.mark.parametrize("changed", [{"KEY_PATH": "other"}, SNAPSHOT])
def test_files_in_place_stay_after_a_change_if_nothing_is_ever_deleted(
    s3: FakeS3, target: Path, start: StartDaemon, changed: Texts
) -> None:
    start().until_synced().terminate()
    s3.put("other/new.py", b"new\n")
    start({**changed, "S3_SYNC_DELETE": "none"}).until_synced()

    assert FILES.items() <= published(target).items()


@IN_BOTH_LAYOUTS
@pytest.mark.parametrize(
    ("changed", "left"),
    [({"S3_SYNC_EXCLUDE": "*.tmp"}, {*FILES}), ({"KEY_PATH": "other"}, {"new.py"})],
)
def test_the_file_of_an_archived_object_stays_as_long_as_its_source(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts, changed: Texts,
    left: set[str],
) -> None:  # fmt: skip
    start(layout).until_synced().terminate()
    s3.put("other/new.py", b"new\n")
    for key in ("dags/pkg/b.py", "other/pkg/b.py"):
        s3.put(key, b"archived\n", storage_class="GLACIER")
    daemon = start(layout | changed).until_synced()

    assert left == consumed(target).keys()
    assert ([[], ["*.tmp"]] if "S3_SYNC_EXCLUDE" in changed else None) == record_of(
        daemon
    ).get("filters")


def test_a_denied_object_keeps_its_file_and_comes_back_by_itself(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(interval="0.2").until_synced()
    s3.inject(error(403, "AccessDenied"), is_get("dags/a.py"))
    s3.put("dags/a.py", b"denied\n")
    s3.put("dags/new.py", b"new\n", headers={"Content-Encoding": "gzip"})
    wait_until((target / "new.py").exists, "others are published")
    encoded = daemon.wait_for_event("object_encoded")
    assert ("dags/new.py", "gzip") == (encoded["key"], encoded["encoding"])
    assert FILES["a.py"] == (target / "a.py").read_bytes()
    wait_until(
        lambda: daemon.reason() == "access_denied_get",
        "it is reported",
    )

    s3.heal()
    wait_until(
        lambda: (target / "a.py").read_bytes() == b"denied\n", "it is read again"
    )


def test_what_contradicts_its_md5_is_not_published_if_the_setting_forbids_it(
    s3: FakeS3, start: StartDaemon
) -> None:
    s3.put("dags/a.py", b"altered\n", etag="0" * 32)

    assert (
        "object_corrupt" == start({"S3_SYNC_VERIFY": "strict"}).until_synced().reason()
    )


DEEDS = ["touch left.py", "rm -f a.py", "echo x >> a.py"]


@pytest.mark.parametrize("deed", DEEDS)
def test_a_gate_that_edits_the_tree_changes_nothing_that_is_published(
    s3: FakeS3, target: Path, tmp_path: Path, start: StartDaemon, deed: str
) -> None:
    start(
        SNAPSHOT
        | {
            "S3_SYNC_GATE": "command",
            "S3_SYNC_GATE_COMMAND": script(
                tmp_path / "gate", f"chmod -R u+w .; {deed}\nexit 0"
            ),
        },
        interval="0.2",
    ).wait_until_ready()

    assert FILES == consumed(target)


def write(path: Path) -> None:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(b"theirs")


KINDS: dict[str, Plant] = {
    "a folder of others": lambda path: write(path / "theirs"),
    "a folder of bytecode": lambda path: write(path / "__pycache__/x.pyc"),
    "an empty folder": lambda path: path.mkdir(),
    "a link": lambda path: path.symlink_to("/etc"),
    "a file of others": write,
}


@pytest.mark.parametrize("key", ["x", "x/y"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_others_blocks_only_its_own_path(
    s3: FakeS3, target: Path, start: StartDaemon, kind: str, key: str
) -> None:
    target.mkdir()
    KINDS[kind](target / "x")
    s3.put(f"dags/{key}", b"ours")
    daemon = start().until_synced()

    is_blocked = (kind, key) in [
        ("a folder of others", "x"),
        ("a file of others", "x/y"),
    ]
    there = published(target)
    assert (FILES | ({} if is_blocked else {key: b"ours"})).items() <= there.items()
    assert (
        is_blocked
        or kind == "a folder of others"
        or (kind, key) == ("a folder of bytecode", "x/y")
    ) == (b"theirs" in there.values())
    assert ({key: "blocked"} if is_blocked else None) == daemon.status()["details"].get(
        "unread"
    )
    ready = daemon.get("/readyz")
    assert (200, is_blocked) == (ready.status, not ready.json()["revision"])
    if is_blocked:
        remove(target / "x")
        assert "changed" == daemon.sync()["result"]
        assert b"ours" == (target / key).read_bytes()
