"""
Pages of XML → one listing, or an error; never half of the truth.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3_sync.listing.pages import Entry, Lister, Listing
from s3_sync.s3.refusals import SourceError

PREFIX = "dags/"
ETAG = "d41d8cd98f00b204e9800998ecf8427e"
AWS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
ORDER = ("Key", "LastModified", "ETag", "Size", "StorageClass")


def contents(
    key: str,
    *,
    etag: str = f"&quot;{ETAG}&quot;",
    size: str = "5",
    order: Sequence[str] = ORDER,
    storage_class: str = "STANDARD",
    written: str = "2026-01-02T03:04:05.000Z",
    more: str = "",
) -> str:
    values = {
        "Key": key,
        "LastModified": written,
        "ETag": etag,
        "Size": size,
        "StorageClass": storage_class,
    }
    inner = "".join(f"<{name}>{values[name]}</{name}>" for name in order)
    return f"<Contents>{inner}{more}</Contents>"


def page(
    *found: str,
    token: str | None = None,
    echo: str | None = None,
    namespace: str = AWS,
    encoding: str = "",
    count: int | None = None,
    truncated: str | None = None,
    more: str = "",
    first: bool = False,
) -> bytes:
    truncated = truncated or ("true" if token else "false")
    own = [f"<Name>bucket</Name><IsTruncated>{truncated}</IsTruncated>", more]
    own.append(f"<KeyCount>{len(found) if count is None else count}</KeyCount>")
    own.append(f"<NextContinuationToken>{token}</NextContinuationToken>" if token else "")
    own.append("" if echo is None else f"<ContinuationToken>{echo}</ContinuationToken>")
    own.append(f"<EncodingType>{encoding}</EncodingType>" if encoding else "")
    parts = [*found, *own] if first else [*own, *found]
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n'
        f"<ListBucketResult {namespace}>{''.join(parts)}</ListBucketResult>"
    ).encode()


class Server:
    """
    Answers with given pages, by token.
    """

    def __init__(self, *pages: bytes) -> None:
        self.pages: dict[str | None, bytes] = dict(zip([None, *"abcdefgh"], pages, strict=False))
        self.asked: list[str | None] = []

    async def fetch(self, token: str | None) -> bytes:
        self.asked.append(token)
        assert len(self.asked) < 50, "it never ends"
        return self.pages[token]


def lister(server: Server, **changes: Any) -> Lister:
    arguments: dict[str, Any] = {
        "prefix": PREFIX,
        "is_wanted": lambda _: True,
        "target_bytes": 10,
    }
    return Lister(server.fetch, **(arguments | changes))


def read(*pages: bytes, **changes: Any) -> Listing:
    return asyncio.run(lister(Server(*pages), **changes).read())


def refused(*pages: bytes, **changes: Any) -> str:
    """
    The message of the error for pages that must be refused.
    """
    with pytest.raises(SourceError) as caught:
        read(*pages, **changes)
    assert caught.value.reason == "listing_invalid"
    assert "Nothing was changed." in caught.value.advice
    return caught.value.message


# --- what is read


def test_reads_key_etag_and_size() -> None:
    listing = read(page(contents("dags/a.py"), contents("dags/b/c.py", size="0")))

    assert {
        "a.py": Entry("dags/a.py", ETAG, 5),
        "b/c.py": Entry("dags/b/c.py", ETAG, 0),
    } == listing.wanted
    assert listing.skipped == {}


def test_the_whole_bucket_has_no_prefix() -> None:
    assert {"dags/a.py", "b.py"} == set(
        read(page(contents("dags/a.py"), contents("b.py")), prefix="").wanted
    )


@pytest.mark.parametrize(
    "order", [ORDER, ORDER[::-1], ("Size", "ETag", "Key"), ("ETag", "Size", "Key")]
)
@pytest.mark.parametrize("first", [False, True])
def test_the_order_of_elements_does_not_matter(order: Sequence[str], first: bool) -> None:
    listing = read(page(contents("dags/a.py", order=order), first=first))

    assert listing.wanted == {"a.py": Entry("dags/a.py", ETAG, 5)}


@pytest.mark.parametrize(
    "namespace", [AWS, "", 'xmlns="https://s3.example/other"', 'xmlns="" xmlns:x="urn:x"']
)
def test_namespaces_do_not_matter(namespace: str) -> None:
    assert set(read(page(contents("dags/a.py"), namespace=namespace)).wanted) == {"a.py"}


@pytest.mark.parametrize(
    "etag", [ETAG, f"&quot;{ETAG}&quot;", f'"{ETAG}"', f"W/&quot;{ETAG}&quot;", f"&#34;{ETAG}&#34;"]
)
def test_quotes_around_an_etag_do_not_matter(etag: str) -> None:
    assert read(page(contents("dags/a.py", etag=etag))).wanted["a.py"].etag == ETAG


def test_what_else_an_entry_has_does_not_matter() -> None:
    more = (
        "<Owner><ID>Key</ID><DisplayName>x</DisplayName></Owner><Type>Normal</Type>"
        "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><RestoreStatus><Size>9</Size></RestoreStatus>"
    )

    assert read(page(contents("dags/a.py", more=more))).wanted["a.py"].size_bytes == 5


ODD = ["a b", "a+b", "a%b", "a%2Fb", "a&b<c>", "ü/日本", "e\u0301", "a'b\"c", "~x", "a\\b", "100%"]


@pytest.mark.parametrize("path", [*ODD, "new\nline", "tab\there", "\x01control"])
def test_keys_that_are_percent_encoded(path: str) -> None:
    key = quote_plus(f"dags/{path}", safe="/")

    listing = read(page(contents(key), encoding="url"))

    assert listing.wanted == {path: Entry(f"dags/{path}", ETAG, 5)}


@pytest.mark.parametrize("path", ODD)
def test_keys_of_servers_that_ignore_the_encoding(path: str) -> None:
    listing = read(page(contents(escape(f"dags/{path}"))))

    assert listing.wanted == {path: Entry(f"dags/{path}", ETAG, 5)}


def test_a_key_that_is_no_utf_8_is_skipped_and_not_taken_for_another() -> None:
    listing = read(page(contents("dags/caf%E9.py"), contents("dags/ok.py"), encoding="url"))

    assert set(listing.wanted) == {"ok.py"}
    assert listing.skipped == {"dags/caf\udce9.py": "unsafe_path"}


def test_folder_markers_and_the_prefix_itself_are_no_files() -> None:
    listing = read(
        page(contents("dags/", size="0"), contents("dags/sub/"), contents("dags/sub/a.py"))
    )

    assert (set(listing.wanted), listing.skipped) == ({"sub/a.py"}, {})


def test_markers_without_an_etag_do_not_matter() -> None:
    assert set(read(page(contents("dags/sub/", etag=""), contents("dags/a"))).wanted) == {"a"}


def test_the_filter_sees_the_relative_path() -> None:
    pages = page(contents("dags/a.py"), contents("dags/b.sql"))

    listing = read(pages, is_wanted=lambda path: path == "a.py")

    assert (set(listing.wanted), listing.skipped) == ({"a.py"}, {})


def test_what_cannot_become_a_file_is_skipped_with_its_reason() -> None:
    listing = read(
        page(
            contents("dags/../up.py"),
            contents("dags//x.py"),
            contents("dags/.s3-sync/managed"),
            contents(f"dags/{'x' * 256}"),
            contents("dags/cold.py", storage_class="GLACIER"),
            contents("dags/colder.py", storage_class="DEEP_ARCHIVE"),
            contents("dags/cool.py", storage_class="GLACIER_IR"),
            contents("dags/../cold", storage_class="GLACIER"),
        )
    )

    assert set(listing.wanted) == {"cool.py"}
    assert {
        "dags/../up.py": "unsafe_path",
        "dags//x.py": "unsafe_path",
        "dags/.s3-sync/managed": "reserved",
        f"dags/{'x' * 256}": "name_too_long",
        "dags/cold.py": "archived",
        "dags/colder.py": "archived",
        "dags/../cold": "unsafe_path",
    } == listing.skipped


@pytest.mark.parametrize("is_split", [False, True])
def test_of_a_file_and_a_folder_of_one_name_the_folder_wins(is_split: bool) -> None:
    found = [contents("dags/a"), contents("dags/a/b"), contents("dags/a/b/c"), contents("dags/ab")]
    pages = [page(*found[:1], token="a"), page(*found[1:])] if is_split else [page(*found)]

    listing = read(*pages)

    assert set(listing.wanted) == {"a/b/c", "ab"}
    assert listing.skipped == {"dags/a": "file_and_folder", "dags/a/b": "file_and_folder"}


def test_a_folder_whose_files_are_all_skipped_does_not_win() -> None:
    listing = read(page(contents("dags/a"), contents("dags/a/.."), contents("dags/a/x/")))

    assert set(listing.wanted) == {"a"}


def test_an_empty_prefix_is_an_empty_listing() -> None:
    assert read(page()).wanted == {}


# --- pages


def test_pages_are_followed_by_their_tokens() -> None:
    server = Server(
        page(contents("dags/1"), token="a"),
        page(contents("dags/2"), token="b"),
        page(contents("dags/3")),
    )

    assert ["1", "2", "3"] == list(asyncio.run(lister(server).read()).wanted)
    assert server.asked == [None, "a", "b"]


def test_a_token_is_unescaped() -> None:
    server = Server(page(token="x&amp;y&#x2F;z=="))
    server.pages["x&y/z=="] = page(contents("dags/a"))

    assert set(asyncio.run(lister(server).read()).wanted) == {"a"}


def test_a_page_without_keys_in_the_middle_is_no_end() -> None:
    assert set(read(page(token="a"), page(contents("dags/x"))).wanted) == {"x"}


def test_an_unchanged_listing_is_the_very_same_object() -> None:
    server = Server(page(contents("dags/1"), token="a"), page(contents("dags/2")))
    reader = lister(server)

    assert asyncio.run(reader.read()) is asyncio.run(reader.read())
    assert server.asked == [None, "a", None, "a"]


def test_other_tokens_for_the_same_page_are_no_change() -> None:
    """
    S3's tokens differ from call to call.
    """
    server = Server(page(contents("dags/1"), token="a"), page(contents("dags/2")))
    reader = lister(server)
    before = asyncio.run(reader.read())

    server.pages = {None: page(contents("dags/1"), token="zz"), "zz": server.pages["a"]}

    assert asyncio.run(reader.read()) is before


def test_a_page_that_did_not_change_is_not_parsed_again() -> None:
    """
    The second page is a different document; the first one's entries are the very same objects.
    """
    server = Server(page(contents("dags/1"), token="a"), page(contents("dags/2")))
    reader = lister(server)
    before = asyncio.run(reader.read())

    server.pages["a"] = page(contents("dags/2", size="6"))
    after = asyncio.run(reader.read())

    assert after is not before
    assert after.wanted["1"] is before.wanted["1"]
    assert after.wanted["2"].size_bytes == 6


@pytest.mark.parametrize(
    "change",
    [{"size": "6"}, {"etag": "ffffffffffffffffffffffffffffffff"}, {"storage_class": "GLACIER"}],
)
def test_every_change_of_an_object_is_noticed(change: Mapping[str, Any]) -> None:
    server = Server(page(contents("dags/1"), contents("dags/2")))
    reader = lister(server)
    before = asyncio.run(reader.read())

    server.pages[None] = page(contents("dags/1", **change), contents("dags/2"))
    after = asyncio.run(reader.read())

    assert after.wanted != before.wanted
    assert after.revision != before.revision


def test_a_failure_between_does_not_forget_what_was_read() -> None:
    server = Server(page(contents("dags/1")))
    reader = lister(server)
    before = asyncio.run(reader.read())

    good, server.pages[None] = server.pages[None], b"<html>"
    with pytest.raises(SourceError):
        asyncio.run(reader.read())
    server.pages[None] = good

    assert asyncio.run(reader.read()) is before


# --- the revision


@given(st.lists(st.integers(1, 999), unique=True, min_size=1, max_size=30), st.randoms())
def test_the_revision_does_not_depend_on_where_pages_break(
    numbers: list[int], draw: random.Random
) -> None:
    found = [contents(f"dags/{n}", size=n) for n in sorted(map(str, numbers))]
    cut = draw.randrange(len(found) + 1)

    whole = read(page(*found))
    split = read(page(*found[:cut], token="a"), page(*found[cut:]))

    assert whole == split


def test_the_revision_is_a_short_name_for_what_is_wanted() -> None:
    first = read(page(contents("dags/a"), contents("dags/b")))
    same = read(
        page(contents("dags/a", storage_class="X"), contents("dags/b"), contents("dags/c/"))
    )
    moved = read(page(contents("dags/a"), contents("dags/c")))
    swapped = read(page(contents("dags/a", size="6"), contents("dags/b", size="4")))

    assert len(first.revision) == 12
    assert first.revision == same.revision
    assert len({first.revision, moved.revision, swapped.revision, read(page()).revision}) == 4


# --- what cannot be trusted


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_is_refused(count: int) -> None:
    assert f"KeyCount says {count}, but 2 keys came" in refused(
        page(contents("dags/a"), contents("dags/b"), count=count)
    )


def test_a_server_without_a_count_is_believed() -> None:
    body = page(contents("dags/a")).replace(b"<KeyCount>1</KeyCount>", b"")

    assert set(read(body).wanted) == {"a"}


def test_a_truncated_page_without_a_token_is_refused() -> None:
    assert "without a continuation token" in refused(page(contents("dags/a"), truncated="true"))


@pytest.mark.parametrize("said", ["", "maybe", "True", "1"])
def test_a_page_that_does_not_say_whether_it_is_the_last_is_refused(said: str) -> None:
    """
    Taken for the last one, it would delete what the others list.
    """
    body = page(contents("dags/a"), token="a", truncated="true")

    assert "whole" in refused(body.replace(b"<IsTruncated>true", b"<IsTruncated>" + said.encode()))
    assert "whole" in refused(body.replace(b"IsTruncated", b"x:IsTruncated").replace(
        b"<ListBucketResult ", b'<ListBucketResult xmlns:x="urn:x" '))  # fmt: skip


def test_a_token_that_comes_again_is_refused() -> None:
    assert "token came twice" in refused(
        page(contents("dags/a"), token="a"), page(contents("dags/b"), token="a")
    )


def test_a_page_that_comes_again_is_refused() -> None:
    same = [contents("dags/a"), contents("dags/b")]

    assert "came after" in refused(page(*same, token="a"), page(*same))
    assert "came twice" in refused(
        page(*same[::-1], token="a"), page(*same[::-1], token="b"), page()
    )


def test_a_key_that_comes_again_is_refused() -> None:
    assert "'dags/a' came twice" in refused(page(contents("dags/a"), contents("dags/a")))
    assert "came twice" in refused(page(contents("dags/a"), token="a"), page(contents("dags/a")))


def test_pages_in_disorder_are_refused() -> None:
    """
    A page in place of another, which on a store without an echo nothing else may tell.
    """
    one, two, six = (page(contents(f"dags/{n}"), token=t) for n, t in ((1, "a"), (2, "b"), (6, "")))

    assert "the key 'dags/2' came after 'dags/6'" in refused(one, six.replace(
        b"<IsTruncated>false</IsTruncated>",
        b"<IsTruncated>true</IsTruncated><NextContinuationToken>b</NextContinuationToken>",
    ), two.replace(b"true", b"false"))  # fmt: skip


def test_empty_pages_and_markers_of_folders_are_no_disorder() -> None:
    found = read(
        page(contents("dags/"), contents("dags/1"), token="a"),
        page(token="b"),
        page(contents("dags/2/"), token="c"),
        page(contents("dags/3")),
    )

    assert {"1", "3"} == set(found.wanted)


def test_an_empty_page_does_not_hide_disorder() -> None:
    assert "'dags/1' came after 'dags/6'" in refused(
        page(contents("dags/6"), token="a"), page(token="b"), page(contents("dags/1"))
    )


def test_a_store_that_does_not_sort_is_believed() -> None:
    found = read(
        page(contents("dags/9"), contents("dags/8"), token="a"),
        page(contents("dags/1"), contents("dags/2"), token="b"),
        page(contents("dags/1a")),
    )

    assert {"9", "8", "1", "2", "1a"} == set(found.wanted)


def test_the_order_is_that_of_the_bytes() -> None:
    """
    In UTF-8 U+FF46 comes before U+1F600, in UTF-16 after it.
    """
    found = read(page(contents("dags/\uff46"), token="a"), page(contents("dags/\U0001f600")))

    assert {"\uff46", "\U0001f600"} == set(found.wanted)


# --- the echo of the token


@pytest.mark.parametrize("echo", ["a", " a ", None])
def test_a_page_that_repeats_the_token_or_says_nothing_is_believed(echo: str | None) -> None:
    found = read(page(contents("dags/1"), token="a"), page(contents("dags/2"), echo=echo))

    assert {"1", "2"} == set(found.wanted)


@pytest.mark.parametrize(
    ("token", "echo"), [("x&amp;y==", "x&amp;y=="), ("x/y==", "x%2Fy%3D%3D"), ("x+y", "x%2By")]
)
def test_the_echo_may_be_escaped_or_encoded(token: str, echo: str) -> None:
    server = Server(page(contents("dags/1"), token=token))
    server.pages[token.replace("&amp;", "&")] = page(contents("dags/2"), echo=echo)

    assert {"1", "2"} == set(asyncio.run(lister(server).read()).wanted)


@pytest.mark.parametrize("echo", ["b", "A", "aa"])
def test_a_page_that_was_asked_for_by_another_token_is_refused(echo: str) -> None:
    assert "another page came than was asked for" in refused(
        page(contents("dags/1"), token="a"), page(contents("dags/2"), echo=echo)
    )


def test_a_later_page_in_place_of_the_first_is_refused() -> None:
    assert "another page came than was asked for" in refused(page(contents("dags/9"), echo="a"))


def test_a_page_that_is_known_is_refused_too_when_it_comes_for_another() -> None:
    """
    What is remembered by its bytes is not parsed again, but still looked at.
    """
    server = Server(
        page(contents("dags/1"), token="a"),
        page(contents("dags/2"), token="b", echo="a"),
        page(contents("dags/3"), echo="b"),
    )
    reader = lister(server)
    before = asyncio.run(reader.read())

    server.pages["a"] = server.pages["b"]
    with pytest.raises(SourceError, match="another page"):
        asyncio.run(reader.read())
    server.pages["a"] = page(contents("dags/2"), token="b", echo="a")

    assert asyncio.run(reader.read()) is before


# --- when it was written


def test_the_newest_object_of_all_pages_is_known() -> None:
    found = read(
        page(contents("dags/1", written="2026-01-02T03:04:05.000Z"),
             contents("dags/2", written="2026-01-02T03:04:05.001Z"), token="a"),
        page(contents("dags/3", written="2025-12-31T23:59:59.999Z")),
    )  # fmt: skip

    assert "2026-01-02T03:04:05.001Z" == found.newest


def test_the_newest_object_may_be_one_that_becomes_no_file() -> None:
    """
    Whoever uploads a folder may still be at it, whatever of it is wanted.
    """
    found = read(page(contents("dags/1"), contents("dags/x/", written="2027-01-01T00:00:00.000Z")))

    assert "2027-01-01T00:00:00.000Z" == found.newest


def test_a_store_without_times_has_no_newest() -> None:
    assert "" == read(page(contents("dags/1", order=("Key", "ETag", "Size")))).newest
    assert "" == read(page()).newest


def test_a_key_of_another_prefix_is_refused() -> None:
    """
    Nothing may make `dags-old/` part of `dags/`.
    """
    for key in ("dags-old/a", "other", "DAGS/a"):
        assert f"the key {key!r} is not under the prefix" in refused(page(contents(key)))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Please log in</body></html>",
        b'{"keys": []}',
        page(contents("dags/a"))[:-10],
        b"<ListBucketResult><IsTruncated>false</IsTruncated>",
        b"<Error><Code>InternalError</Code></Error>",
        page(contents("dags/\x01")),
        b"\xff\xfe",
    ],
    ids=["empty", "html", "json", "cut", "open", "error", "control", "binary"],
)
def test_what_is_no_listing_is_refused(body: bytes) -> None:
    refused(body)


def test_entities_do_not_explode() -> None:
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
    [
        {"etag": ""},
        {"size": ""},
        {"size": "-1"},
        {"size": "1.5"},
        {"size": "many"},
        {"etag": "a b"},
        {"etag": "a&#13;&#10;x-injected: 1"},
        {"etag": "&quot;&quot;"},
        {"order": ("Key", "ETag")},
        {"order": ("Key", "Size")},
        {"order": ("ETag", "Size")},
    ],
)
def test_an_entry_without_key_etag_or_size_is_refused(change: Mapping[str, Any]) -> None:
    refused(page(contents("dags/a", **change)))


def test_a_failure_of_the_source_is_passed_on() -> None:
    class Failing(Server):
        async def fetch(self, token: str | None) -> bytes:
            raise SourceError("throttled", "slow down")

    with pytest.raises(SourceError, match="slow down"):
        asyncio.run(lister(Failing()).read())
