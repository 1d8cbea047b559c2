"""Listings that are refused."""

import pytest

from tests.s3_sync.listing.answers import contents, page, read, refused


@pytest.mark.parametrize("count", [0, 1, 3])
def test_refuses_a_wrong_key_count(count: int) -> None:
    assert f"KeyCount is {count}, but the page has 2 keys" in refused(
        page(contents("dags/a"), contents("dags/b"), count=count)
    )


def test_accepts_a_page_without_a_key_count() -> None:
    body = page(contents("dags/a")).replace(b"<KeyCount>1</KeyCount>", b"")

    assert set(read(body).files) == {"a"}


def test_refuses_a_truncated_page_without_a_token() -> None:
    assert "no continuation token" in refused(page(contents("dags/a"), truncated="true"))


@pytest.mark.parametrize("said", ["", "maybe", "True", "1"])
def test_refuses_a_page_without_a_valid_is_truncated(said: str) -> None:
    """Taken for the last page, it would delete the files of later pages."""
    body = page(contents("dags/a"), token="a", truncated="true")

    assert "IsTruncated" in refused(
        body.replace(b"<IsTruncated>true", b"<IsTruncated>" + said.encode())
    )
    assert "IsTruncated" in refused(body.replace(b"IsTruncated", b"x:IsTruncated").replace(
        b"<ListBucketResult ", b'<ListBucketResult xmlns:x="urn:x" '))  # fmt: skip


def test_refuses_a_repeated_token() -> None:
    assert "token was repeated" in refused(
        page(contents("dags/a"), token="a"), page(contents("dags/b"), token="a")
    )


def test_refuses_a_repeated_page() -> None:
    same = [contents("dags/a"), contents("dags/b")]

    assert "is listed after" in refused(page(*same, token="a"), page(*same))
    assert "is listed twice" in refused(
        page(*same[::-1], token="a"), page(*same[::-1], token="b"), page()
    )


def test_refuses_a_repeated_key() -> None:
    assert "'dags/a' is listed twice" in refused(page(contents("dags/a"), contents("dags/a")))
    assert "is listed twice" in refused(
        page(contents("dags/a"), token="a"), page(contents("dags/a"))
    )


def test_refuses_pages_in_the_wrong_order() -> None:
    """Stores that do not echo the token may give no other sign of a wrong page."""
    one, two, six = (page(contents(f"dags/{n}"), token=t) for n, t in ((1, "a"), (2, "b"), (6, "")))

    assert "the key 'dags/2' is listed after 'dags/6'" in refused(one, six.replace(
        b"<IsTruncated>false</IsTruncated>",
        b"<IsTruncated>true</IsTruncated><NextContinuationToken>b</NextContinuationToken>",
    ), two.replace(b"true", b"false"))  # fmt: skip


def test_empty_pages_and_folder_markers_keep_the_order() -> None:
    found = read(
        page(contents("dags/"), contents("dags/1"), token="a"),
        page(token="b"),
        page(contents("dags/2/"), token="c"),
        page(contents("dags/3")),
    )

    assert {"1", "3"} == set(found.files)


def test_an_empty_page_does_not_hide_a_wrong_order() -> None:
    assert "'dags/1' is listed after 'dags/6'" in refused(
        page(contents("dags/6"), token="a"), page(token="b"), page(contents("dags/1"))
    )


def test_accepts_a_store_that_does_not_sort() -> None:
    found = read(
        page(contents("dags/9"), contents("dags/8"), token="a"),
        page(contents("dags/1"), contents("dags/2"), token="b"),
        page(contents("dags/1a")),
    )

    assert {"9", "8", "1", "2", "1a"} == set(found.files)


def test_keys_are_ordered_by_their_utf_8_bytes() -> None:
    """In UTF-8 U+FF46 comes before U+1F600, in UTF-16 after it."""
    found = read(page(contents("dags/\uff46"), token="a"), page(contents("dags/\U0001f600")))

    assert {"\uff46", "\U0001f600"} == set(found.files)
