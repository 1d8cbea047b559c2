"""
`S3_SYNC_SETTLE` in real time: what has not stayed the same is not published.
"""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import is_get
from tests.support.http.faults import first
from tests.support.s3_sync.snapshots import (
    SNAPSHOT,
    SwappingS3,
    consumed,
    count_of,
)
from tests.support.waiting import wait_until

SETTLE = "1s"
SINCE = "sidecar_reason_since_timestamp_seconds"

OLD = {f"file{number}.py": b"# old %d\n" % number for number in range(6)}


@pytest.fixture(name="s3")
def quiet_bucket() -> Iterator[SwappingS3]:
    """A bucket that has been quiet for days."""
    with SwappingS3(OLD, age_seconds=360_000) as s3:
        yield s3


def test_a_new_pod_shows_nothing_before_the_listing_has_settled(
    target: Path, start: StartDaemon
) -> None:
    daemon = start({"S3_SYNC_SETTLE": "1h"})

    assert "source_unsettled" == daemon.wait_for_event("wait_began")["reason"]
    assert {} == consumed(target)
    ready = daemon.get("/readyz")
    assert (503, "source_unsettled") == (ready.status, ready.json()["reason"])
    assert ready.json()["until"]


def test_no_part_is_shown_of_states_that_are_overtaken_one_after_another(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    daemon = start(
        {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_SETTLE": "0.2s"}, interval="0.1"
    ).until_synced()
    contents = iter([b"# second\n", b"# third\n"])

    def overtake() -> None:
        if content := next(contents, b""):
            s3.put("dags/file0.py", content)

    s3.inject(first(overtake), is_get("dags/file0.py"))
    s3.put_all({"file0.py": b"# first\n", "file1.py": b"# changed\n"}, "dags/")

    wait_until(
        lambda: consumed(target)["file0.py"] == b"# third\n", "the last state is shown"
    )
    assert [] == daemon.find_events("cycle_finished", result="partial")


@pytest.mark.parametrize("layout", ["in-place", "snapshot"])
def test_an_object_that_changes_all_the_time_holds_back_only_itself(
    layout: str, s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    """Also of a new pod, which is ready with the others, and names it."""
    numbers = itertools.count()
    ended = threading.Event()

    def restless() -> None:
        while not ended.wait(0.05):
            s3.put("dags/restless.py", b"# %d\n" % next(numbers))

    writer = threading.Thread(target=restless)
    writer.start()
    try:
        daemon = start(
            {"S3_SYNC_LAYOUT": layout, "S3_SYNC_SETTLE": SETTLE}, interval="0.1"
        )
        waits = daemon.wait_for_event("wait_began")
        assert ("info", "source_unsettled") == (waits["level"], waits["reason"])
        assert "S3_SYNC_SETTLE" in waits["advice"]
        wait_until(daemon.is_ready, "it is ready")
        ready = daemon.get("/readyz").json()
        assert "object_changing" == ready["reason"], ready
        assert "restless.py" in ready["error"]
        assert "what writes it all the time" in ready["advice"]
        assert OLD == consumed(target)
        name = "s3_sync_unread_objects"
        assert 1 == count_of(daemon, name, reason="object_changing")
        assert count_of(daemon, SINCE, result="partial", reason="object_changing")
    finally:
        ended.set()
        writer.join()

    last = s3.objects["dags/restless.py"].body
    wait_until(lambda: consumed(target) == OLD | {"restless.py": last}, "all is shown")
    wait_until(lambda: daemon.reason() is None, "nothing to say")
    assert daemon.wait_for_event("reason_ended", reason="source_unsettled")
    assert [] == [name for name in daemon.metrics() if name.startswith(SINCE)]


def test_what_a_person_may_have_to_decide_is_not_told_while_something_else_is(
    s3: SwappingS3, target: Path, start: StartDaemon
) -> None:
    """The alert of a refusal ends when what was refused has changed at the source."""
    daemon = start(
        {**SNAPSHOT, "S3_SYNC_GATE": "syntax", "S3_SYNC_SETTLE": SETTLE}, interval="0.1"
    ).until_synced()
    s3.swap(OLD | {"new.py": b"(\n"})
    refused = "sidecar_gate_refused"
    wait_until(lambda: count_of(daemon, refused), "it is refused")
    seen = len(daemon.events)

    s3.swap(OLD | {"new.py": b"()\n"})
    daemon.wait_for_event("wait_began", after=seen, reason="source_unsettled")
    wait_until(lambda: not count_of(daemon, refused), "it is not refused any more")
    assert not count_of(daemon, SINCE, result="partial", reason="revision_refused")
