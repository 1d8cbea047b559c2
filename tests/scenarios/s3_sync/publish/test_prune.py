"""
Prune goes by age alone: beside other commands, what the pointer names is always there.
"""

import re
from datetime import UTC, datetime, timedelta

import pytest

from s3_sync.release.format import bundle_key, manifest_key, pin_key
from tests.scenarios.s3_sync.publish.site import POINTER, PRUNE, Site
from tests.support.aws.fake_s3 import error, is_get
from tests.support.aws.writable_s3 import is_delete
from tests.support.http.faults import first, replace_body
from tests.support.http.loopback import Exchange, Fault
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.releases import AT, Release, make_release

CONTENTS = [{"a.py": b"print(%d)\n" % number} for number in range(5)]
SLOW = error(503, "SlowDown")


def objects_of(release: Release) -> set[str]:
    return {
        PREFIX + manifest_key(release.revision),
        PREFIX + bundle_key(release.manifest.bundle_sha256),
    }


def test_removes_what_is_older_than_a_day_and_neither_used_nor_pinned(
    site: Site,
) -> None:
    """Also the bundle that a killed publish left; nothing that is younger."""
    old, pinned, left, young, before = (
        site.has({"a.py": b"%d" % number}, days)
        for number, days in enumerate((29, 30, 31, 0.95, 32))
    )
    current = site.has({"a.py": b"5"}, 33, history=[before.revision])
    killed, running = (PREFIX + bundle_key(digit * 64) for digit in "01")
    for key, hours in ((killed, 25), (running, 23)):
        site.s3.put(key, b"", at=datetime.now(UTC) - timedelta(hours=hours))
    site.succeed("pin", pinned.revision)
    keep = site.folder / "keep"
    keep.write_text(f"  {'0' * 40}\n\n  {left.revision[7:19]}\n")

    for options in (["--keep-count", "0"], ["--keep-count", "2", "--keep-for", "0"]):
        assert [left.revision] == site.succeed("prune-releases", *options, "--dry-run")[
            "removed"
        ]
    assert (
        [] == site.succeed("prune-releases", "--keep-for", "0", "--dry-run")["removed"]
    )
    planned = site.succeed(*PRUNE, "--keep-from", keep, "--dry-run")
    done = site.succeed(*PRUNE, "--keep-from", keep)

    assert [old.revision] == done["removed"] == planned["removed"]
    assert 2 == done["bundles"]
    assert (
        set().union(*map(objects_of, (pinned, left, young, before, current)))
        | {running}
        <= site.s3.objects.keys()
    )
    assert not site.s3.objects.keys() & (objects_of(old) | {killed})


def test_a_release_counts_as_used_until_it_was_replaced(site: Site) -> None:
    """
    A run can still be on a release that was current until yesterday, however old it is.
    """
    first = site.publish(CONTENTS[0])["revision"]
    site.s3.clock = lambda: datetime.now(UTC) + timedelta(days=90)
    for content in CONTENTS[1:4]:
        site.publish(content)
    site.s3.clock = lambda: datetime.now(UTC) + timedelta(days=100)

    prune = ("prune-releases", "--keep-count", "0", "--keep-for")
    assert [] == site.succeed(*prune, "11d")["removed"]
    assert first in site.succeed(*prune, "9d")["removed"]


@pytest.mark.parametrize("part", [".json.gz", ".zip"])
@pytest.mark.parametrize(
    ("reason", "fault"),
    [
        ("connection_lost", Exchange.reset),
        ("throttled", SLOW),
        ("release_damaged", None),
    ],
)
def test_a_deletion_that_meets_a_publish_is_told_and_not_repeated_unseen(
    site: Site, part: str, reason: str, fault: Fault | None
) -> None:
    """Its answer is lost, or it waits for as long as a publish takes."""
    old, _ = (site.has(files) for files in CONTENTS[:2])
    site.publish(CONTENTS[2])

    def meet(exchange: Exchange) -> None:
        if fault:
            exchange.good()
        site.others_publish(CONTENTS[0])
        (fault or first(list))(exchange)

    [key] = [key for key in old.objects() if key.endswith(part)]
    site.s3.inject(meet, lambda one: is_delete(one) and one.path.endswith(key), times=1)

    site.fails(reason, *PRUNE)
    if fault:
        site.succeed(*PRUNE)
    else:
        site.publish(CONTENTS[0])
    assert CONTENTS[0] == site.current()


MEANWHILE = {
    "pinned": lambda bucket, one: bucket.put(PREFIX + pin_key(one.revision), b""),
    "published": lambda bucket, one: bucket.put(
        PREFIX + manifest_key(one.revision), one.manifest_bytes
    ),
    "current": lambda bucket, one: bucket.put(POINTER, one.pointer_bytes),
}


@pytest.mark.parametrize("meanwhile", MEANWHILE)
def test_looks_again_before_each_removal(site: Site, meanwhile: str) -> None:
    removed, second, _ = (
        site.has(files, days) for days, files in enumerate(CONTENTS[1:4], 40)
    )
    site.publish(CONTENTS[0])
    site.s3.inject(
        first(lambda: MEANWHILE[meanwhile](site.s3, second)), is_delete, times=1
    )

    gone = site.succeed(*PRUNE)["removed"]

    assert removed.revision in gone and second.revision not in gone
    assert objects_of(second) <= site.s3.objects.keys()


def test_a_release_that_is_published_again_after_its_removal_is_no_damage(
    site: Site,
) -> None:
    for files in CONTENTS[1:3]:
        site.has(files)
    site.publish(CONTENTS[0])
    site.s3.inject(
        first(lambda: site.others_publish(CONTENTS[1])),
        lambda one: is_get(POINTER)(one) and bool(site.s3.seen(is_delete)),
        times=1,
    )

    site.succeed(*PRUNE)
    assert CONTENTS[1] == site.current()


def test_removes_only_what_the_format_names(site: Site) -> None:
    """Other objects in its folders stay, however old they are."""
    site.publish(CONTENTS[0])
    bundle = f"bundles/{'0' * 64}.zip"
    revision = make_release(CONTENTS[1]).revision
    strange = (
        "bundles/app.js",
        "bundles/readme.txt",
        f"{bundle}.bak",
        bundle.replace("/", "/sub/"),
        bundle.replace("0.", "G."),
        f"releases/{revision}",
        f"releases/sub/{revision}.json.gz",
        "pins/notes",
        "a.py",
    )
    site.s3.put_each((PREFIX + name for name in (*strange, bundle)), b"", at=AT)
    before = site.s3.objects.keys() - {PREFIX + bundle}

    done = site.succeed(*PRUNE)

    assert (1, []) == (done["bundles"], done["removed"])
    assert before == site.s3.objects.keys()


def test_says_what_it_has_removed_before_it_failed(site: Site) -> None:
    for files in CONTENTS[1:]:
        site.has(files)
    site.publish(CONTENTS[0])
    count = len(site.s3.objects)
    site.s3.inject(
        SLOW, lambda one: is_delete(one) and len(site.s3.objects) == count - 2
    )

    facts = site.fails("throttled", *PRUNE).facts()

    assert ("failed", 2) == (facts["result"], len(facts["removed"]))
    for name in facts["removed"]:
        assert PREFIX + manifest_key(name) not in site.s3.objects


def test_removes_no_bundle_while_the_listing_lacks_the_current_release(
    site: Site,
) -> None:
    site.publish(CONTENTS[0])
    site.s3.clock = lambda: datetime.now(UTC) + timedelta(days=9)
    before = dict(site.s3.objects)
    site.s3.inject(
        replace_body(lambda body: re.sub(b"<Contents>.*</Contents>", b"", body)),
        lambda one: one.query.get("prefix") == "dags/releases/",
    )

    site.fails("release_damaged", *PRUNE)
    assert before == site.s3.objects
