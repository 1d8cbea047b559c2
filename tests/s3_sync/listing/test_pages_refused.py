"""Listings that cannot be trusted."""

import pytest

from tests.s3_sync.listing.answers import contents, page, read, refused


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_count_is_refused(count: int) -> None:
    assert f"KeyCount is {count}, but the page has 2 keys" in refused(
        page(contents("dags/a"), contents("dags/b"), count=count)
    )


def test_a_server_without_a_count_is_believed() -> None:
    body = page(contents("dags/a")).replace(b"<KeyCount>1</KeyCount>", b"")

    assert set(read(body).wanted) == {"a"}


def test_a_truncated_page_without_a_token_is_refused() -> None:
    assert "no continuation token" in refused(page(contents("dags/a"), truncated="true"))


@pytest.mark.parametrize("said", ["", "maybe", "True", "1"])
def test_a_page_without_a_valid_IsTruncated_is_refused(said: str) -> None:
    """Taken for the last one, it would delete what the others list."""
    body = page(contents("dags/a"), token="a", truncated="true")

    assert "IsTruncated" in refused(
        body.replace(b"<IsTruncated>true", b"<IsTruncated>" + said.encode())
    )
    assert "IsTruncated" in refused(body.replace(b"IsTruncated", b"x:IsTruncated").replace(
        b"<ListBucketResult ", b'<ListBucketResult xmlns:x="urn:x" '))  # fmt: skip


def test_a_repeated_token_is_refused() -> None:
    assert "token was repeated" in refused(
        page(contents("dags/a"), token="a"), page(contents("dags/b"), token="a")
    )


def test_a_repeated_page_is_refused() -> None:
    same = [contents("dags/a"), contents("dags/b")]

    assert "is listed after" in refused(page(*same, token="a"), page(*same))
    assert "is listed twice" in refused(
        page(*same[::-1], token="a"), page(*same[::-1], token="b"), page()
    )


def test_a_repeated_key_is_refused() -> None:
    assert "'dags/a' is listed twice" in refused(page(contents("dags/a"), contents("dags/a")))
    assert "is listed twice" in refused(
        page(contents("dags/a"), token="a"), page(contents("dags/a"))
    )


def test_pages_in_disorder_are_refused() -> None:
    """A page in place of another, which on a store without an echo nothing else may tell."""
    one, two, six = (page(contents(f"dags/{n}"), token=t) for n, t in ((1, "a"), (2, "b"), (6, "")))

    assert "the key 'dags/2' is listed after 'dags/6'" in refused(one, six.replace(
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
    assert "'dags/1' is listed after 'dags/6'" in refused(
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
    """In UTF-8 U+FF46 comes before U+1F600, in UTF-16 after it."""
    found = read(page(contents("dags/\uff46"), token="a"), page(contents("dags/\U0001f600")))

    assert {"\uff46", "\U0001f600"} == set(found.wanted)
