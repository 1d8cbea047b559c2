"""Promotion: makes the same release current in another place, or fails."""

import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.cli import read_arguments
from s3_sync.publisher.commands import run
from s3_sync.publisher.local.folder_errors import FolderError
from s3_sync.publisher.progress import Progress
from s3_sync.publisher.promote import Fetched, Promotion, promote
from s3_sync.publisher.rollback import roll_back
from s3_sync.publisher.store import Store
from s3_sync.release.facts import Origin
from s3_sync.release.names import POINTER_KEY, bundle_key, manifest_key
from s3_sync.release.pointer import serialize_pointer
from s3_sync.release.signed import digest_of_manifest
from s3_sync.settings import load_settings
from tests.s3_sync.bucket import CHECKED, ORIGIN, Bucket
from tests.s3_sync.failing import failure
from tests.support.aws.writable_s3 import is_write
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.releases import AT, Release, make_release, seal

A = {"a.py": b"a = 1\n" * 50, "run.sh": b"#!/bin/sh\n", "empty.py": b""}
B = {"a.py": b"a = 2\n" * 50, "new.py": b"", "run.sh": b"#!/bin/sh\n"}
WHO = Origin(by="grace", ci_url="https://ci/7")


class Places:
    """The source `dev/`, and the target of the promotion: the prefix of the bucket."""

    def __init__(self, prd: Bucket) -> None:
        self.prd = prd
        given = {"AWS_BUCKET": prd.server.bucket, "KEY_PATH": "dev", "DEST_PATH": "/nowhere"}
        self.source, _ = load_settings(given)
        self.dev = Store(self.source)
        self.judged: list[tuple[str, dict[str, bytes]]] = []
        self.verdict: Callable[[], object] = lambda: None

    def put(self, release: Release) -> Release:
        self.prd.server.put_all(release.objects(), "dev/", at=release.pointer.turn.since)
        return release

    def promote(
        self, revision: str | None = None, *, is_dry: bool = False, repairs: bool = False
    ) -> Promotion:
        def judge(name: str, write: Callable[[str], list[str]]) -> None:
            folder = self.prd.folder / name
            folder.mkdir(parents=True, exist_ok=True)
            paths = write(str(folder))
            self.judged.append((name, {path: Path(folder, path).read_bytes() for path in paths}))
            self.verdict()

        return promote(
            self.dev,
            self.prd.store,
            revision,
            WHO,
            judge,
            Progress(),
            is_dry=is_dry,
            repairs=repairs,
        )


@pytest.fixture
def places(bucket: Bucket) -> Places:
    return Places(bucket)


def test_promoting_copies_manifest_and_bundle_byte_for_byte(places: Places) -> None:
    release = places.put(make_release(A, executable={"run.sh"}, origin=ORIGIN))

    done = places.promote()

    assert ("promoted", None, True) == (done.result, done.before, done.is_guarded)
    assert A == places.prd.current()
    bodies = places.prd.bodies()
    for key in release.objects().keys() - {POINTER_KEY}:
        assert bodies[f"dev/{key}"] == bodies[PREFIX + key]
    origin = places.prd.pointer().origin
    assert ("grace", ORIGIN.commit) == (origin.by, origin.commit)
    assert places.dev.url == places.prd.pointer().turn.promoted_from
    assert [(release.revision, A)] == places.judged


def test_the_history_shows_where_each_release_was_promoted_from(places: Places) -> None:
    places.prd.publish(B)
    promoted = places.put(make_release(A)).revision
    places.promote()
    places.promote(repairs=True)
    places.prd.publish(B)
    roll_back(places.prd.store, None, Origin(), is_dry=False)

    current, *history = places.prd.pointer().turns()

    assert (promoted, places.dev.url) == (current.revision, current.promoted_from)
    assert ["", places.dev.url, ""] == [turn.promoted_from for turn in history]


def test_promoting_over_a_release_reports_changes_and_keeps_history(places: Places) -> None:
    before = places.prd.publish(A)
    places.put(make_release(B))

    done = places.promote()

    assert (("new.py",), ("a.py",), ("empty.py",)) == (
        done.changes.added,
        done.changes.changed,
        done.changes.removed,
    )
    assert B == places.prd.current()
    previous = places.prd.pointer().previous
    assert previous is not None and before.revision == previous.revision


def test_reports_the_dags_that_a_promotion_adds_and_removes(places: Places) -> None:
    places.prd.passed = Passed(CHECKED, ())
    places.prd.publish(A)
    checked = CHECKED._replace(dag_ids=("sales",))
    places.put(make_release(B, checked=checked))

    done = places.promote()

    assert done.dags is not None
    assert ((), ("orders",)) == (done.dags.added, done.dags.removed)
    assert checked == done.manifest.head.checked


def test_promotes_an_older_release_by_its_first_digits(places: Places) -> None:
    old = places.put(make_release(A))
    places.put(make_release(B))

    assert old.revision == places.promote(old.revision[:12]).manifest.revision
    assert A == places.prd.current()


def test_promoting_the_current_release_writes_nothing(places: Places) -> None:
    places.put(make_release(A))
    places.promote()
    places.prd.server.forget()

    assert "unchanged" == places.promote().result
    assert [] == places.prd.writes()


def test_promoting_the_current_release_again_names_no_other_as_previous(places: Places) -> None:
    places.put(make_release(A))
    places.promote()
    urls = (f"s3://dags-bucket/{prefix}" for prefix in ("dev", PREFIX.rstrip("/")))
    arguments = read_arguments(["promote", *urls, "--repair"])

    report = run(places.prd.settings, arguments, {}, Progress(), source=places.source)

    assert "promoted" == report.facts["result"]
    assert not [line for line in report.lines if "Previous" in line]


def test_a_dry_run_writes_nothing(places: Places) -> None:
    places.put(make_release(A))

    done = places.promote(is_dry=True)

    assert ("planned", {}) == (done.result, {k: 1 for k in places.prd.bodies() if "dags/" in k})
    assert 1 == len(places.judged)


def test_writes_nothing_if_the_gate_refuses_the_release(places: Places) -> None:
    def refuse() -> None:
        raise FolderError("revision_refused", "a.py:1: no")

    places.prd.publish(A)
    places.put(make_release(B))
    places.prd.server.forget()
    places.verdict = refuse

    assert "revision_refused" == failure(places.promote).reason
    assert [] == places.prd.writes()
    assert A == places.prd.current()


def spoilt(change: Callable[[bytes], bytes]) -> Callable[[Places, Release], None]:
    """Alter a bundle, and store it with a manifest that has its new digest."""

    def spoil(places: Places, release: Release) -> None:
        rows = release.manifest.locate(release.manifest.files.values())
        places.put(seal(rows, change(release.bundle_bytes)))

    return spoil


def under_its_name(change: Callable[[bytes], bytes]) -> Callable[[Places, Release], None]:
    """Store an altered bundle under the name of the original one."""

    def spoil(places: Places, release: Release) -> None:
        key = bundle_key(release.manifest.head.bundle_sha256)
        places.prd.server.put(f"dev/{key}", change(release.bundle_bytes))

    return spoil


def longer(places: Places, release: Release) -> None:
    """Put a byte after the end of a stream into its row: pods refuse such a file."""
    one = make_release({"a.py": A["a.py"]})
    (row,) = one.manifest.locate(one.manifest.files.values())
    places.put(seal([row._replace(stored_bytes=row.stored_bytes + 1)], one.bundle_bytes))


def without(name: Callable[[Release], str]) -> Callable[[Places, Release], None]:
    return lambda places, release: places.prd.server.delete(f"dev/{name(release)}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (without(lambda release: POINTER_KEY), "history_empty"),
        (without(lambda release: manifest_key(release.revision)), "release_unknown"),
        (
            without(lambda release: bundle_key(release.manifest.head.bundle_sha256)),
            "release_incomplete",
        ),
        (spoilt(lambda body: body[:40] + bytes([body[40] ^ 1]) + body[41:]), "bundle_corrupt"),
        (spoilt(lambda body: bytes(len(body))), "bundle_corrupt"),
        (longer, "bundle_corrupt"),
        (under_its_name(lambda body: body[:-1] + b"\1"), "bundle_corrupt"),
    ],
    ids=["no pointer", "no manifest", "no bundle", "other bytes", "zeros", "more", "other zip"],
)
def test_does_not_promote_an_incomplete_or_corrupt_release(
    places: Places, spoil: Callable[[Places, Release], None], reason: str
) -> None:
    places.prd.publish(B)
    release = places.put(make_release(A))
    spoil(places, release)
    places.prd.server.forget()

    found = failure(places.promote)
    assert reason == found.reason and found.advice
    assert [] == places.prd.writes()
    assert B == places.prd.current()


def test_promotes_nothing_without_a_temporary_folder(
    places: Places, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release = places.put(make_release(A))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    path = f"{tempfile.tempdir}/bundle.zip"
    parcel = Fetched(
        places.dev, release.revision, release.manifest, release.manifest_bytes, path, Progress()
    )

    for act in (places.promote, parcel.ready):
        found = failure(act)
        assert ("temporary_failed", 2) == (found.reason, found.exit_code)
        assert "TMPDIR" in found.advice
    assert [] == places.prd.writes()


def test_promote_requires_a_revision_after_an_old_pointer_was_restored(places: Places) -> None:
    old = places.put(make_release(A))
    later = old.pointer.turn.since + timedelta(minutes=6)
    places.prd.server.put(f"dev/{POINTER_KEY}", old.pointer_bytes, at=later)

    found = failure(places.promote)

    assert "release_replayed" == found.reason
    assert "Pass the revision" in found.advice
    assert [] == places.prd.writes()
    assert "promoted" == places.promote(old.revision[:12]).result


@pytest.mark.parametrize("content", [b"", b'{"format": 3}'])
def test_promote_replaces_an_invalid_target_pointer_only_with_repair(
    places: Places, content: bytes
) -> None:
    places.put(make_release(A))
    places.prd.server.put(PREFIX + POINTER_KEY, content)

    assert "pointer_invalid" == failure(places.promote).reason
    assert content == places.prd.bodies()[PREFIX + POINTER_KEY]
    assert "promoted" == places.promote(repairs=True).result
    assert A == places.prd.current()


def test_promotes_only_the_manifest_that_the_source_pointer_names(places: Places) -> None:
    """One content may have several manifests, with different verdicts."""
    release = places.put(make_release(A))
    digest = digest_of_manifest(release.manifest_bytes)
    pointer = serialize_pointer(release.pointer._replace(manifest_sha256=digest))
    places.prd.server.put(f"dev/{POINTER_KEY}", pointer, at=AT)
    other = make_release(A, checked=CHECKED._replace(dags=99))
    places.prd.server.put(f"dev/{manifest_key(release.revision)}", other.manifest_bytes)

    found = failure(places.promote)

    assert "release_untrusted" == found.reason
    assert "not the manifest that the signed pointer names" in found.message
    assert [] == places.prd.writes()
    places.put(release)
    assert "promoted" == places.promote().result


def test_promote_fails_if_another_publisher_was_faster(places: Places) -> None:
    places.prd.publish(A)
    places.put(make_release(B))
    places.verdict = lambda: places.prd.put(make_release({"c.py": b""}))

    assert "publish_conflict" == failure(places.promote).reason
    assert {"c.py": b""} == places.prd.current()


def test_replaces_a_damaged_bundle_in_the_target(places: Places) -> None:
    release = places.put(make_release(A))
    places.prd.put(make_release(A))
    key = PREFIX + bundle_key(release.manifest.head.bundle_sha256)
    places.prd.server.put(key, bytes(len(release.bundle_bytes)))

    assert "promoted" == places.promote().result
    assert A == places.prd.current()
    assert any(name.endswith(".zip") for name in places.prd.writes())
    assert places.prd.server.seen(is_write(POINTER_KEY))
