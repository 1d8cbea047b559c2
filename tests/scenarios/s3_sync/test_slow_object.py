"""
An object that takes longer than a cycle holds back only itself; half a change is
reported.
"""

from pathlib import Path

from tests import Facts, Texts
from tests.scenarios.s3_sync.conftest import IN_BOTH_LAYOUTS, StartDaemon
from tests.support.aws.fake_s3 import FakeS3, is_get
from tests.support.daemon import Daemon
from tests.support.http.faults import drip, hang
from tests.support.s3_sync.scripted import FILES, record_of
from tests.support.s3_sync.snapshots import (
    SNAPSHOT,
    consumed,
    count_of,
)
from tests.support.waiting import wait_until

SLOW = "models/slow.bin"
# An object may take nine tenths of it.
LIMIT = {"S3_SYNC_TIMEOUT": "4s"}


@IN_BOTH_LAYOUTS
def test_a_slow_object_holds_back_only_itself(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    s3.put(f"dags/{SLOW}", b"slow" * 1_000)
    s3.inject(drip(1, 0.2), is_get(SLOW))
    daemon = start(LIMIT | layout, interval="0.2")
    daemon.wait_until_ready()
    assert FILES == consumed(target)
    ready = daemon.get("/readyz").json()
    assert (None, "object_slow") == (ready["revision"], ready["reason"])
    assert not daemon.find_events("cycle_finished", revision="")
    assert (
        f"'dags/{SLOW}' was not complete before the cycle's time was up"
        in ready["error"]
    )
    assert "S3_SYNC_TIMEOUT" in ready["advice"]

    s3.put("dags/a.py", b"changed")
    s3.put("dags/new.py", b"new")
    s3.delete("dags/pkg/b.py")
    changed = {"a.py": b"changed", "new.py": b"new", "pkg/empty.py": b""}
    wait_until(lambda: consumed(target) == changed, "all other files are published")
    assert 1 == count_of(daemon, "s3_sync_unread_objects", reason="object_slow")
    assert [SLOW] == [event["path"] for event in daemon.find_events("object_unread")]

    s3.heal()
    daemon.sighup()
    wait_until(
        lambda: daemon.get("/readyz").json()["revision"], "the revision is complete", 60
    )
    assert b"slow" * 1_000 == consumed(target)[SLOW]


def test_a_damaged_file_whose_object_is_slow_holds_back_only_itself(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.put(f"dags/{SLOW}", b"slow" * 1_000)
    start().until_synced().terminate()
    s3.inject(drip(1, 0.2), is_get(SLOW))
    s3.put("dags/a.py", b"an urgent fix")
    (target / SLOW).write_bytes(b"altered")
    start(LIMIT, interval="0.2")

    left = FILES | {"a.py": b"an urgent fix"}
    wait_until(lambda: consumed(target) == left, "others are published")


def reports(daemon: Daemon) -> Facts:
    """Return what the endpoint says; assert that record and metric say the same."""
    ready = daemon.get("/readyz").json()
    record = record_of(daemon)
    missing = record["missing"]
    assert (ready["revision"] or "") == record["revision"]
    assert bool(ready["shortfall"]) == bool(missing) == (not record["revision"])
    assert bool(missing) == bool(count_of(daemon, "s3_sync_partial"))
    return {"missing": missing, "revision": record["revision"], "aim": record["aim"]}


@IN_BOTH_LAYOUTS
def test_endpoint_record_and_metric_agree_while_half_a_change_is_downloaded(
    s3: FakeS3, target: Path, start: StartDaemon, layout: Texts
) -> None:
    daemon = start(layout).until_synced()
    before = reports(daemon)
    s3.put("dags/a.py", b"changed")
    s3.put("dags/pkg/b.py", b"changed as well")
    s3.delete("dags/pkg/empty.py")
    s3.inject(hang(), is_get("dags/pkg/b.py"))
    daemon.sighup()
    s3.wait_for(is_get("dags/pkg/b.py"), count=2)

    if layout == SNAPSHOT:  # consumers see nothing of it
        assert FILES == consumed(target)
        assert before == reports(daemon)
    else:
        wait_until(
            lambda: consumed(target)["a.py"] == b"changed", "half of it is in place"
        )
        half = reports(daemon)
        assert (3, "") == (half["missing"], half["revision"])
        assert half["aim"] != before["aim"]

    seen = len(daemon.events)
    s3.heal()
    daemon.wait_for_event("cycle_finished", after=seen, result="changed")
    after = reports(daemon)
    assert 0 == after["missing"]
    assert after["aim"] == after["revision"] != before["revision"]
    assert {"added": 0, "changed": 2, "deleted": 1}.items() <= record_of(daemon).items()
    assert {"a.py": b"changed", "pkg/b.py": b"changed as well"} == consumed(target)
