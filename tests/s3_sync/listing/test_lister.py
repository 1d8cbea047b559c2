"""Reading all pages of a listing, repeatedly."""

import random
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.plan import State
from s3_sync.release.format import bundle_key
from s3_sync.s3.refusals import SourceError
from tests.s3_sync.listing.answers import Lister, Server, contents, page, read, refused

# --- pages


def test_follows_the_continuation_tokens() -> None:
    server = Server(
        page(contents("dags/1"), token="a"),
        page(contents("dags/2"), token="b"),
        page(contents("dags/3")),
    )

    assert ["1", "2", "3"] == list(Lister(server).read().files)
    assert server.asked == [None, "a", "b"]


def test_a_token_is_unescaped() -> None:
    server = Server(page(token="x&amp;y&#x2F;z=="))
    server.pages["x&y/z=="] = page(contents("dags/a"))

    assert set(Lister(server).read().files) == {"a"}


def test_a_page_without_keys_does_not_end_the_listing() -> None:
    assert set(read(page(token="a"), page(contents("dags/x"))).files) == {"x"}


def two_pages() -> tuple[Server, Lister, State]:
    """Return a server with two pages, a lister, and the first listing."""
    server = Server(page(contents("dags/1"), token="a"), page(contents("dags/2")))
    reader = Lister(server)
    return server, reader, reader.read()


def test_an_unchanged_listing_returns_the_same_object() -> None:
    server, reader, before = two_pages()

    assert before is reader.read()
    assert server.asked == [None, "a", None, "a"]


def test_other_tokens_for_the_same_page_are_not_a_change() -> None:
    """S3's tokens differ from call to call."""
    server, reader, before = two_pages()

    server.pages = {None: page(contents("dags/1"), token="zz"), "zz": server.pages["a"]}

    assert reader.read() is before


def test_an_unchanged_page_is_not_parsed_again() -> None:
    server, reader, before = two_pages()

    server.pages["a"] = page(contents("dags/2", size="6"))
    after = reader.read()

    assert after is not before
    assert after.files["1"] is before.files["1"]
    assert after.files["2"].size_bytes == 6


@pytest.mark.parametrize(
    "change",
    [{"size": "6"}, {"etag": "ffffffffffffffffffffffffffffffff"}, {"storage_class": "GLACIER"}],
)
def test_notices_every_change_of_an_object(change: Mapping[str, Any]) -> None:
    server = Server(page(contents("dags/1"), contents("dags/2")))
    reader = Lister(server)
    before = reader.read()

    server.pages[None] = page(contents("dags/1", **change), contents("dags/2"))
    after = reader.read()

    assert after.files != before.files
    assert after.revision != before.revision


def test_a_failed_listing_does_not_discard_the_previous_one() -> None:
    server = Server(page(contents("dags/1")))
    reader = Lister(server)
    before = reader.read()

    good, server.pages[None] = server.pages[None], b"<html>"
    with pytest.raises(SourceError):
        reader.read()
    server.pages[None] = good

    assert reader.read() is before


# --- the revision


@given(st.lists(st.integers(1, 999), unique=True, min_size=1, max_size=30), st.randoms())
def test_the_revision_does_not_depend_on_page_breaks(
    numbers: list[int], draw: random.Random
) -> None:
    found = [contents(f"dags/{n}", size=n) for n in sorted(map(str, numbers))]
    cut = draw.randrange(len(found) + 1)

    whole = read(page(*found))
    split = read(page(*found[:cut], token="a"), page(*found[cut:]))

    assert whole == split


def test_the_revision_identifies_the_wanted_files() -> None:
    first = read(page(contents("dags/a"), contents("dags/b")))
    same = read(
        page(contents("dags/a", storage_class="X"), contents("dags/b"), contents("dags/c/"))
    )
    moved = read(page(contents("dags/a"), contents("dags/c")))
    swapped = read(page(contents("dags/a", size="6"), contents("dags/b", size="4")))

    assert len(first.revision) == 12
    assert first.revision == same.revision
    assert len({first.revision, moved.revision, swapped.revision, read(page()).revision}) == 4


# --- releases


def test_releases_under_the_prefix_are_skipped() -> None:
    """Airflow loads every zip file that it finds, and a bundle contains all DAGs of a release."""
    own = [contents("dags/a.py"), contents("dags/b.py")]
    bundle = contents(f"dags/{bundle_key('a' * 64)}")
    pointers = [contents("dags/current.json", size=size) for size in ("1", "2")]

    alone = read(page(*own))
    mixed = [read(page(own[0], own[1], bundle, token="a"), page(one)) for one in pointers]

    assert [alone.files] * 2 == [found.files for found in mixed]
    assert {f"dags/{bundle_key('a' * 64)}", "dags/current.json"} == set(mixed[0].skipped)
    assert {"release"} == set(mixed[0].skipped.values())
    assert {alone.revision} == {
        found.revision for found in mixed
    }  # publishing a release does not change it


def test_current_json_is_a_file_if_there_is_no_release() -> None:
    found = read(page(contents("dags/a.py"), contents("dags/current.json")))

    assert {"a.py", "current.json"} == set(found.files)


# --- unexpected keys and responses


def test_refuses_a_key_with_another_prefix() -> None:
    """`dags-old/` must not be taken for a part of `dags/`."""
    for key in ("dags-old/a", "other", "DAGS/a"):
        assert f"the key {key!r} is not under the prefix" in refused(page(contents(key)))


@pytest.mark.parametrize(
    "body",
    [b"", b"<html><body>Please log in</body></html>", b'{"keys": []}',
     page(contents("dags/a"))[:-10], b"<ListBucketResult><IsTruncated>false</IsTruncated>",
     b"<Error><Code>InternalError</Code></Error>", b"\0\1\2", b"\xff\xfe"],
    ids=["empty", "html", "json", "cut", "open", "error", "control", "binary"],
)  # fmt: skip
def test_refuses_a_response_that_is_not_a_listing(body: bytes) -> None:
    refused(body)


def test_refuses_exponential_entities() -> None:
    levels = "".join(
        f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12)
    )  # the "billion laughs"
    body = (
        f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "{"ha" * 100}">{levels}]>'
        "<ListBucketResult><IsTruncated>false</IsTruncated>"
        "<Contents><Key>&l11;</Key></Contents></ListBucketResult>"
    )

    assert "not XML" in refused(body.encode())


@pytest.mark.parametrize(
    "change",
    [{"etag": ""}, {"size": ""}, {"size": "-1"}, {"size": "1.5"}, {"size": "many"},
     {"size": "9" * 5000}, {"etag": "a b"}, {"etag": "a&#13;&#10;x-injected: 1"}, {"etag": "日本"},
     {"etag": "&quot;&quot;"}, {"order": ("Key", "ETag")}, {"order": ("Key", "Size")}],
)  # fmt: skip
def test_an_entry_without_valid_etag_or_size_has_neither(
    change: Mapping[str, Any],
) -> None:
    wanted = read(page(contents("dags/a", **change), contents("dags/b"))).files

    assert ("", 0) == (wanted["a"].etag, wanted["a"].size_bytes)
    assert "" != wanted["b"].etag


def test_refuses_an_entry_without_a_key() -> None:
    refused(page(contents("dags/a", order=("ETag", "Size"))))


def test_keys_that_look_like_tokens_are_listed() -> None:
    """The store does not encode keys."""
    keys = [f"dags/{number:02}ContinuationToken>" for number in range(20)]
    server = Server(page(*(contents(key) for key in keys), token="a", first=True))
    server.pages["a"] = page(contents("dags/x"), echo="a")
    reader = Lister(server)

    listing = reader.read()

    assert {key.removeprefix("dags/") for key in [*keys, "dags/x"]} == listing.files.keys()
    server.pages["b"] = server.pages.pop("a").replace(b">a<", b">b<")
    server.pages[None] = server.pages[None].replace(b">a<", b">b<")
    assert listing is reader.read()
