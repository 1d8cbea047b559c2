"""XML pages become one complete listing, or an error."""

from collections.abc import Sequence
from urllib.parse import quote_plus
from xml.sax.saxutils import escape

import pytest

from s3_sync.pages import Entry
from tests.s3_sync.listing.answers import AWS, ETAG, ORDER, contents, page, read


def test_reads_key_etag_and_size() -> None:
    listing = read(page(contents("dags/a.py"), contents("dags/b/c.py", size="0")))

    assert {
        "a.py": Entry("a.py", ETAG, 5),
        "b/c.py": Entry("b/c.py", ETAG, 0),
    } == listing.files
    assert listing.skipped == {}


def test_reads_the_whole_bucket_without_a_prefix() -> None:
    assert {"dags/a.py", "b.py"} == set(
        read(page(contents("dags/a.py"), contents("b.py")), KEY_PATH="").files
    )


@pytest.mark.parametrize(
    "order", [ORDER, ORDER[::-1], ("Size", "ETag", "Key"), ("ETag", "Size", "Key")]
)
@pytest.mark.parametrize("first", [False, True])
def test_the_order_of_elements_does_not_matter(order: Sequence[str], first: bool) -> None:
    listing = read(page(contents("dags/a.py", order=order), first=first))

    assert listing.files == {"a.py": Entry("a.py", ETAG, 5)}


@pytest.mark.parametrize(
    "namespace", [AWS, "", 'xmlns="https://s3.example/other"', 'xmlns="" xmlns:x="urn:x"']
)
def test_namespaces_do_not_matter(namespace: str) -> None:
    assert set(read(page(contents("dags/a.py"), namespace=namespace)).files) == {"a.py"}


@pytest.mark.parametrize(
    "etag", [ETAG, f"&quot;{ETAG}&quot;", f'"{ETAG}"', f"W/&quot;{ETAG}&quot;", f"&#34;{ETAG}&#34;"]
)
def test_quotes_around_an_etag_do_not_matter(etag: str) -> None:
    assert read(page(contents("dags/a.py", etag=etag))).files["a.py"].etag == ETAG


def test_other_elements_of_an_entry_do_not_matter() -> None:
    more = (
        "<Owner><ID>Key</ID><DisplayName>x</DisplayName></Owner><Type>Normal</Type>"
        "<ChecksumAlgorithm>CRC32</ChecksumAlgorithm><RestoreStatus><Size>9</Size></RestoreStatus>"
    )

    assert read(page(contents("dags/a.py", more=more))).files["a.py"].size_bytes == 5


ODD = ["a b", "a+b", "a%b", "a%2Fb", "a&b<c>", "ü/日本", "e\u0301", "a'b\"c", "~x", "a\\b", "100%"]


@pytest.mark.parametrize("path", [*ODD, "new\nline", "tab\there", "\x01control"])
def test_decodes_percent_encoded_keys(path: str) -> None:
    key = quote_plus(f"dags/{path}", safe="/")

    listing = read(page(contents(key), encoding="url"))

    assert listing.files == {path: Entry(path, ETAG, 5)}


@pytest.mark.parametrize("path", ODD)
def test_reads_keys_that_are_not_encoded(path: str) -> None:
    listing = read(page(contents(escape(f"dags/{path}"))))

    assert listing.files == {path: Entry(path, ETAG, 5)}


def test_skips_a_key_that_is_not_utf_8() -> None:
    listing = read(page(contents("dags/caf%E9.py"), contents("dags/ok.py"), encoding="url"))

    assert set(listing.files) == {"ok.py"}
    assert listing.skipped == {"dags/caf\udce9.py": "unsafe_path"}


@pytest.mark.parametrize(
    "written", ["\x01", "\x1f", "\x0b", "&#x1;", "&#x1F;", "&#0;", "&#31;", "&#012;", "&#x00E;"]
)
def test_a_key_that_xml_cannot_represent_hides_no_others(written: str) -> None:
    """The store does not encode keys."""
    body = page(contents("dags/aCONTROLb"), contents("dags/c&#9;&#10;&#xD;&#32;d"))

    found = read(body.replace(b"CONTROL", written.encode()))

    assert {"a\ufffdb", "c\t\n\r d"} == set(found.files)


def test_folder_markers_and_the_prefix_itself_are_not_files() -> None:
    listing = read(
        page(contents("dags/", size="0"), contents("dags/sub/"), contents("dags/sub/a.py"))
    )

    assert (set(listing.files), listing.skipped) == ({"sub/a.py"}, {})


def test_markers_without_an_etag_do_not_matter() -> None:
    assert set(read(page(contents("dags/sub/", etag=""), contents("dags/a"))).files) == {"a"}


def test_the_filter_receives_the_relative_path() -> None:
    pages = page(contents("dags/a.py"), contents("dags/b.sql"))

    listing = read(pages, S3_SYNC_INCLUDE="a.*")

    assert (set(listing.files), listing.skipped) == ({"a.py"}, {})


def test_skips_keys_that_cannot_become_files_with_a_reason() -> None:
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

    assert set(listing.files) == {"cool.py"}
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
def test_a_folder_wins_over_a_file_of_the_same_name(is_split: bool) -> None:
    found = [contents("dags/a"), contents("dags/a/b"), contents("dags/a/b/c"), contents("dags/ab")]
    pages = [page(*found[:1], token="a"), page(*found[1:])] if is_split else [page(*found)]

    listing = read(*pages)

    assert set(listing.files) == {"a/b/c", "ab"}
    assert listing.skipped == {"dags/a": "file_and_folder", "dags/a/b": "file_and_folder"}


def test_a_folder_whose_files_are_all_skipped_does_not_win() -> None:
    listing = read(page(contents("dags/a"), contents("dags/a/.."), contents("dags/a/x/")))

    assert set(listing.files) == {"a"}


def test_an_empty_prefix_is_an_empty_listing() -> None:
    assert read(page()).files == {}
