"""XML pages become one complete listing, or an error that changes nothing."""

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest

from s3_sync import listing
from s3_sync.holds import Settling
from s3_sync.listing import Entry
from s3_sync.reasons import SourceError
from s3_sync.release.format import bundle_key
from tests.s3_sync.listing.answers import (
    AWS,
    ETAG,
    ORDER,
    Lister,
    Server,
    contents,
    page,
    read,
    refused,
)

A = {"a.py": Entry("a.py", ETAG, 5)}


# --- one page

MORE = (
    "<Owner><ID>Key</ID><DisplayName>x</DisplayName></Owner><Type>Normal</Type>"
    "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><RestoreStatus><Size>9</Size></RestoreStatus>"
)


@pytest.mark.parametrize(
    "body",
    [
        *(
            page(contents("dags/a.py", order=order), first=first)
            for order in (ORDER, ORDER[::-1], ("Size", "ETag", "Key"))
            for first in (False, True)
        ),
        page(contents("dags/a.py")).replace(b"<IsTruncated>false</IsTruncated>", b""),
        *(
            page(contents("dags/a.py"), namespace=namespace)
            for namespace in (AWS, "", 'xmlns="https://s3.example/other"')
        ),
        *(
            page(contents("dags/a.py", etag=etag))
            for etag in (
                ETAG,
                f'"{ETAG}"',
                f"W/&quot;{ETAG}&quot;",
                f"&#34;{ETAG}&#34;",
            )
        ),
        page(contents("dags/a.py", more=MORE)),
        page(contents("dags/a.py")).replace(b"<KeyCount>1</KeyCount>", b""),
        # Folder markers, and the prefix itself, are not files.
        page(
            contents("dags/", size="0"),
            contents("dags/sub/", etag=""),
            contents("dags/a.py"),
        ),
    ],
)
def test_servers_spell_the_same_page_differently(body: bytes) -> None:
    found = read(body)

    assert (A, {}) == (found.files, found.skipped)


ODD = [
    "a b",
    "a+b",
    "a%b",
    "a%2Fb",
    "a&b<c>",
    "ü/日本",
    "e\u0301",
    "a'b\"c",
    "~x",
    "a\\b",
    "100%",
]


@pytest.mark.parametrize("path", [*ODD, "new\nline", "tab\there", "\x01control"])
def test_reads_odd_keys_encoded_or_not(path: str) -> None:
    expected = {path: Entry(path, ETAG, 5)}
    encoded = page(contents(quote_plus(f"dags/{path}", safe="/")), encoding="url")

    assert expected == read(encoded).files
    if path in ODD:
        assert expected == read(page(contents(escape(f"dags/{path}")))).files


def test_archived_objects_are_skipped_and_their_files_stay() -> None:
    classes = {
        "cold.py": "GLACIER",
        "colder.py": "DEEP_ARCHIVE",
        "../cold": "GLACIER",
        "cool.py": "GLACIER_IR",
    }

    found = read(
        page(
            *(
                contents(f"dags/{name}", storage_class=kind)
                for name, kind in classes.items()
            )
        )
    )

    assert {"cool.py"} == set(found.files)
    assert {
        "dags/cold.py": "archived",
        "dags/colder.py": "archived",
        "dags/../cold": "unsafe_path",
    } == found.skipped
    assert {"cold.py", "colder.py"} == found.kept


@pytest.mark.parametrize(
    "change",
    [{"etag": ""}, {"size": ""}, {"size": "-1"}, {"size": "1.5"}, {"size": "9" * 5000},
     {"etag": "a b"}, {"etag": "a&#13;&#10;x-injected: 1"}, {"etag": "日本"},
     {"etag": "&quot;&quot;"}, {"order": ("Key", "ETag")}, {"order": ("Key", "Size")}],
)  # fmt: skip
def test_an_entry_without_valid_etag_or_size_has_neither(
    change: Mapping[str, Any],
) -> None:
    wanted = read(page(contents("dags/a.py", **change), contents("dags/b"))).files

    assert (Entry("a.py", "", 0), ETAG) == (wanted["a.py"], wanted["b"].etag)


# --- several pages


def test_follows_the_continuation_tokens_unescaped() -> None:
    server = Server(page(contents("dags/1"), token="x&amp;y&#x2F;z=="))
    # a page without keys does not end the listing
    server.pages["x&y/z=="] = page(token="b")
    server.pages["b"] = page(contents("dags/3"))

    assert ["1", "3"] == list(Lister(server).read().files)
    assert [None, "x&y/z==", "b"] == server.asked


@pytest.mark.parametrize("is_split", [False, True])
def test_a_folder_wins_over_a_file_of_the_same_name(is_split: bool) -> None:
    found = [contents(f"dags/{name}") for name in ("a", "a/b", "a/b/c", "ab")]
    pages = (
        [page(*found[:1], token="a"), page(*found[1:])] if is_split else [page(*found)]
    )

    listing = read(*pages)

    assert {"a/b/c", "ab"} == set(listing.files)
    assert {
        "dags/a": "file_and_folder",
        "dags/a/b": "file_and_folder",
    } == listing.skipped
    assert {"a"} == read(
        page(*map(contents, ("dags/a", "dags/a/..", "dags/a/x/")))
    ).files.keys()
    assert (
        {}
        == read(
            page(contents("dags/a"), contents("dags/a/b", storage_class="GLACIER"))
        ).files
    ), "its file on disk stays"


def test_a_listing_stays_the_same_object_until_it_changes() -> None:
    """
    S3's tokens differ from call to call; a failed listing does not discard the last
    one.
    """
    server = Server(page(contents("dags/1"), token="a"), page(contents("dags/2")))
    reader = Lister(server)
    before = reader.read()
    server.pages = {None: page(contents("dags/1"), token="zz"), "zz": server.pages["a"]}
    assert before is reader.read()
    good = server.pages[None]
    server.pages[None] = b"<html>"
    with pytest.raises(SourceError):
        reader.read()
    server.pages[None] = good
    assert before is reader.read()

    server.pages["zz"] = page(contents("dags/2", size="6"))
    after = reader.read()

    assert after is not before
    assert after.files["1"] is before.files["1"], (
        "an unchanged page is not parsed again"
    )
    assert 6 == after.files["2"].size_bytes


# --- the revision


def test_the_revision_identifies_the_wanted_files() -> None:
    a = contents("dags/a")
    b = contents("dags/b")
    same = [
        page(a, b),
        page(contents("dags/a", storage_class="X"), b, contents("dags/c/")),
    ]
    others = [
        page(),
        page(a, contents("dags/c")),
        page(contents("dags/a", size="6"), contents("dags/b", size="4")),
        page(a, contents("dags/b", etag="f" * 32)),
        page(a, contents("dags/b", storage_class="GLACIER")),
    ]

    revision = read(same[0]).revision

    assert (12, revision) == (len(revision), read(same[1]).revision)
    # however the store orders and cuts it
    assert revision == read(page(b, token="a"), page(a)).revision
    assert 1 + len(others) == len(
        {revision, *(read(other).revision for other in others)}
    )


def test_releases_under_the_prefix_are_skipped() -> None:
    """
    Airflow loads every zip file that it finds, and a bundle contains all DAGs of a
    release.
    """
    own = contents("dags/a.py")
    bundle = f"dags/{bundle_key('a' * 64)}"
    pointers = [contents("dags/current.json", size=size) for size in ("1", "2")]
    alone = read(page(own))

    mixed = [
        read(page(own, contents(bundle), token="a"), page(one)) for one in pointers
    ]

    assert [alone.files] * 2 == [found.files for found in mixed]
    assert {bundle: "release", "dags/current.json": "release"} == mixed[0].skipped
    assert {alone.revision} == {found.revision for found in mixed}, (
        "publishing does not change it"
    )
    assert {"a.py", "current.json"} == read(page(own, pointers[0])).files.keys(), (
        "there is no release"
    )


def test_a_key_without_end_is_kept_as_its_beginning() -> None:
    (key,) = read(page(contents(f"dags/{'x' * 100_000}"))).skipped

    assert len(key) < 5000


# --- listings that are refused

DTD = '<!DOCTYPE x [<!ATTLIST Key a CDATA "">]><ListBucketResult/>'
REFUSED: dict[str, Sequence[bytes]] = {
    "is not under the prefix": [page(contents("dags-old/a"))],
    "the key '' is not under": [page(contents("dags/a", order=("ETag", "Size")))],
    "it is not XML": [b""],
    "it is a html": [b"<html><body>Please log in</body></html>"],
    # Each of these would take gigabytes.
    "a DTD": [DTD.encode()],
    "NULs": [DTD.encode("utf-16")],
    "too many elements": [page("<Key/>" * listing.ELEMENTS_LIMIT)],
    "or attributes": [page("<Key" + " a=''" * listing.ELEMENTS_LIMIT + "/>")],
    "no valid IsTruncated": [page(contents("dags/a"), token="a", truncated="maybe")],
    "no continuation token": [page(contents("dags/a"), truncated="true")],
    # A proxy that answers with the same page again does not make a listing endless.
    "the same page twice": [
        page(contents("dags/a"), token="a"),
        page(contents("dags/a"), token="b"),
    ],
    "'dags/a' is listed twice": [page(contents("dags/a"), contents("dags/a"))],
    "is listed twice": [page(contents("dags/a"), token="a"), page(contents("dags/a"))],
}


@pytest.mark.parametrize("said", REFUSED)
def test_refuses_a_listing_that_contradicts_itself(said: str) -> None:
    assert said in refused(*REFUSED[said])


# --- settling


def listed(**etags: str) -> dict[str, Entry]:
    return {path: Entry(path, etag, 1) for path, etag in etags.items()}


def test_a_listing_counts_from_its_first_arrival_and_every_change_restarts_the_wait() -> (
    None
):
    """
    Even back to a known state: an upload is interrupted, reverted, and started again.
    """
    settling = Settling(10.0)
    seen = [
        ("1", 9.0, 10.0, 10.0),
        ("1", 19.9, 20.0, 0.001),  # requested before the time is up
        ("1", 19.9, 20.5, 0.001),  # the next listing may tell
        ("1", 20.0, 20.5, 0.0),
        ("2", 21.0, 22.0, 10.0),
        ("1", 31.0, 31.5, 10.0),
        ("1", 41.5, 42.0, 0.0),
        ("", 43.0, 44.0, 10.0),  # deleted
    ]
    for etag, asked_at, now, left in seen:
        files = listed(a=etag, b="1") if etag else listed(b="1")
        assert left == pytest.approx(settling.meet(files, asked_at, now), abs=0.0001), (
            now
        )


@pytest.mark.parametrize(("step", "last_upload"), [(5, 5.0), (10, 0.0), (15, 0.0)])
def test_only_a_file_that_changes_again_and_again_is_not_waited_for(
    step: int, last_upload: float
) -> None:
    """
    An upload of many files changes each of them once, for however long. The next
    listing comes when the wait is over, or later.
    """
    settling = Settling(10.0)
    files = listed(restless="0")
    for second in range(0, 60, step):
        files = files | listed(**{"restless": f"{second}", f"upload{second}": "1"})
        assert settling.meet(files, second, second) == 10.0
        assert settling.restless == ({"restless"} if second >= 40 else set())

    files = files | listed(restless="last")
    assert settling.meet(files, 60, 60) == last_upload
    assert settling.meet(files, 66, 66) == 0.0
    assert settling.meet(files, 76, 76) == 0.0
    assert settling.restless == set()


def test_a_listing_of_pages_without_keys_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "EMPTY_PAGES", 5)
    again = page(token="a")

    assert "6 pages have only 0 keys, and are not the last" in refused(again, again)
