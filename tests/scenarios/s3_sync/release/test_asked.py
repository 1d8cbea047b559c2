"""Older releases that a consumer requests: answers, cost and retention."""

import errno
import fcntl
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from s3_sync.release.request_socket import MOST_UNKNOWN, PERIOD_SECONDS
from sidecar_runtime.loop import Pace
from tests import Bodies
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.airflow.asking import STORE, ask, asked, kept
from tests.support.aws.fake_s3 import FakeS3, error
from tests.support.daemon import Daemon
from tests.support.ledger.seen import Witness
from tests.support.machine.refusing import CHMOD, refusing
from tests.support.machine.volumes import small_volume
from tests.support.s3_sync.releases import ABSENT, Release
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.shelf import RELEASE, Shelf, is_bundle, is_manifest
from tests.support.s3_sync.snapshots import consumed, count_of, overwrite
from tests.support.waiting import wait_until

SETTINGS = {**RELEASE, "S3_SYNC_RETAIN_COUNT": "0", "S3_SYNC_RETAIN_FOR": "0"}
COMMON = {f"common{number}.py": os.urandom(20_000) for number in range(20)}

Begin = Callable[..., Daemon]


def files_of(number: int) -> Bodies:
    """Return the files of a release, of which only `own.py` differs."""
    return {
        **COMMON,
        "own.py": f"number = {number}\n".encode() * 200,
        "pkg/empty.py": b"",
    }


@pytest.fixture
def shelf(s3: FakeS3) -> Shelf:
    s3.objects.clear()
    return Shelf(s3)


@pytest.fixture
def releases(shelf: Shelf) -> list[str]:
    """The revisions of six releases; the last one is current."""
    return [shelf.publish(files_of(number)).revision for number in range(6)]


@pytest.fixture
def begin(start: StartDaemon, releases: list[str]) -> Begin:
    return lambda **more: start(SETTINGS | more).until_synced()


@pytest.fixture
def store(target: Path) -> Path:
    return target / STORE


@contextmanager
def in_use(folder: Path) -> Iterator[None]:
    """Lock a version as a task does."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(opened, fcntl.LOCK_SH)
        yield
    finally:
        os.close(opened)


def test_provides_a_requested_release_beside_the_published_one(
    s3: FakeS3,
    shelf: Shelf,
    target: Path,
    store: Path,
    begin: Begin,
    releases: list[str],
) -> None:
    """It downloads only the manifest and the differences; `current` stays unchanged."""
    daemon = begin()
    shown = (target / "current").readlink()
    s3.forget()

    assert (200, {"name": releases[1]}) == asked(store, releases[1])

    assert files_of(1) == published(store / releases[1])
    assert shown == (target / "current").readlink() and files_of(5) == consumed(target)
    assert 1 == sum(map(is_manifest, s3.requests)) == sum(map(is_bundle, s3.requests))
    assert (
        0
        < daemon.wait_for_event("requested_revision_ready", revision=releases[1])[
            "downloaded_bytes"
        ]
        < 2_000
    )  # of 400 KB
    wait_until(
        lambda: 1 == count_of(daemon, "sidecar_requested_snapshots"),
        "the cycle that brought it ends",
    )
    assert 1 == count_of(daemon, "sidecar_requested_revisions_total", result="success")
    assert os.path.samefile(
        store / releases[1] / "common1.py", target / "current/common1.py"
    )
    shelf.point_to(shelf.releases[releases[1]])  # a rollback publishes that snapshot
    daemon.sync()
    assert files_of(1) == consumed(target) == published(store / releases[1])


def test_reports_a_requested_release_that_does_not_exist(
    s3: FakeS3, store: Path, begin: Begin
) -> None:
    daemon = begin()

    status, said = asked(store, ABSENT, lambda status: status != 202)

    assert (404, True) == (
        status,
        f"releases/{ABSENT}.json.gz does not exist" in said["error"],
    )
    event = daemon.wait_for_event("requested_revision_unavailable", revision=ABSENT)
    assert "release_missing" == said["reason"] == event["reason"]
    assert "prune-releases --keep-from" in event["advice"]

    daemon.sync()
    assert 2 == sum(map(is_manifest, s3.requests)), (
        "it says nothing of the current one, which is not read again"
    )


# By the index of its object in the order of a publish.
DAMAGE = {"bundle": 0, "manifest": 1, "pointer": 2}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_new_pod_gets_an_older_release_although_the_current_one_is_damaged(
    start: StartDaemon, shelf: Shelf, store: Path, releases: list[str], damage: str
) -> None:
    shelf.put([*shelf.releases[releases[5]].objects()][DAMAGE[damage]], b"{}")
    daemon = start(SETTINGS | {"S3_SYNC_KEEP_REQUESTED": "1"})
    daemon.wait_for_event("cycle_failed")

    for revision in releases[1:5]:
        asked(store, revision)

    assert releases[4] in kept(store) and len(kept(store)) <= 2
    assert 503 == daemon.get("/readyz").status


def test_a_failure_of_the_volume_takes_no_retained_version(
    shelf: Shelf, store: Path, begin: Begin, releases: list[str]
) -> None:
    daemon = begin(S3_SYNC_RETAIN_COUNT="1")
    shelf.publish(files_of(6))
    daemon.sync()
    resource.prlimit(daemon.pid, resource.RLIMIT_FSIZE, (1_000, 1_000))

    asked(store, releases[0], lambda status: status == 503)

    assert releases[5] in kept(store)


def test_a_request_sends_nothing_to_the_source_while_cycles_fail(
    s3: FakeS3, store: Path, begin: Begin, releases: list[str]
) -> None:
    daemon = begin()
    s3.inject(error(503, "SlowDown"))
    daemon.sighup()
    daemon.wait_for_event("cycle_failed")
    s3.forget()

    status, said = asked(store, releases[0], lambda status: status != 202)

    assert (503, "throttled") == (status, said["reason"])
    Witness(daemon.program).output(said["reason"])
    assert not any(map(is_manifest, s3.requests))
    s3.heal()
    daemon.sync()
    asked(store, releases[0])


def test_a_flood_of_invented_requests_costs_few_requests_and_delays_no_known_release(
    s3: FakeS3, store: Path, begin: Begin, releases: list[str]
) -> None:
    """Any task of the pod can send it, also through a mount that it cannot write to."""
    daemon = begin()
    s3.forget()
    began = time.monotonic()

    answers = [
        ask(store, f"/revisions/sha256-{number:064}")[1].get("reason")
        for number in range(500)
    ]

    assert 202 == ask(store, f"/revisions/{releases[0]}")[0]
    assert 200 == asked(store, releases[0])[0]
    periods = int((time.monotonic() - began) / PERIOD_SECONDS) + 1
    assert answers.count("request_limit") >= 500 - MOST_UNKNOWN - periods
    daemon.sync()
    manifests = sum(map(is_manifest, s3.requests))
    assert 1 < manifests <= MOST_UNKNOWN + 1 + periods
    cycles = Pace().asked_burst + (time.monotonic() - began) / Pace().asked_seconds
    assert len(s3.requests) - manifests <= cycles + len(s3.seen(is_bundle)) + 1
    said = daemon.find_events("requested_revision_unavailable")
    assert len(said) <= manifests + periods
    assert 1 <= len([event for event in said if event["reason"] == "request_limit"])


def test_recreates_a_replaced_socket_that_only_owner_and_group_can_replace(
    store: Path, begin: Begin, releases: list[str]
) -> None:
    daemon = begin()
    assert 0o666 == (store / "ask.sock").stat().st_mode & 0o777
    assert 0o775 == store.stat().st_mode & 0o777
    (store / "ask.sock").unlink()
    (store / "ask.sock").write_text("not a socket")
    daemon.sync()

    asked(store, releases[0])


def test_a_volume_without_sockets_is_told_and_follows_its_source(
    s3: FakeS3, target: Path, start: StartDaemon, releases: list[str]
) -> None:

    start(RELEASE, wrapper=refusing(errno.EPERM, *CHMOD)).wait_for_event(
        "ask_socket_unavailable"
    )
    assert files_of(5) == consumed(target)


def test_keeps_a_release_in_use_and_prunes_it_afterwards(
    store: Path, begin: Begin, releases: list[str]
) -> None:
    daemon = begin(S3_SYNC_KEEP_REQUESTED="1")
    asked(store, releases[0])
    with in_use(store / releases[0]):
        for revision in releases[1:4]:
            asked(store, revision)
        daemon.sync()
        stay = kept(store)
        assert {releases[n] for n in (0, 5)} <= stay
        assert not stay & {releases[n] for n in (1, 2)}

    asked(store, releases[1])
    daemon.sync()
    assert {releases[n] for n in (1, 5)} == kept(store)


@pytest.mark.parametrize("is_requested", [True, False])
def test_a_version_damaged_in_use_is_repaired_for_a_request_or_removed_after_its_tasks(
    store: Path, begin: Begin, releases: list[str], is_requested: bool
) -> None:
    daemon = begin()
    old = releases[0]
    current = releases[5]
    asked(store, old)
    with in_use(store / old):
        overwrite(store / old / "common1.py", b"shared with the current one")
        daemon.sync()
        [event] = daemon.find_events("snapshot_damaged")
        assert old == event["revision"]
        if is_requested:
            asked(store, old)
            assert files_of(0) == published(store / old)

    daemon.sync()
    assert ({old, current} if is_requested else {current}) == kept(store)
    assert 200 == asked(store, old)[0]
    assert files_of(0) == published(store / old)


@pytest.mark.parametrize(
    "is_new", [True, False], ids=["a new one", "another that is asked for"]
)
def test_drops_requested_releases_to_make_room_on_a_full_volume(
    shelf: Shelf, start: StartDaemon, tmp_path: Path, is_new: bool
) -> None:
    """Otherwise a cache would stop the pod from following its source."""

    def publish() -> Release:
        return shelf.publish({f"{n}.py": os.urandom(30_000) for n in range(24)})

    made = [publish() for _ in range(4)]
    with small_volume(tmp_path / "small", "3m") as volume:
        store = volume / "dags" / STORE
        link = volume / "dags/current"
        daemon = start(SETTINGS, target=volume / "dags").until_synced()
        for release in made[:2]:
            asked(store, release.revision)

        if is_new:
            new = publish()
            daemon.sighup()
            wait_until(lambda: link.readlink().name == new.revision, "it is shown")
        else:
            asked(store, made[2].revision)

        assert daemon.find_events("requested_revisions_removed")
        daemon.kill()
