"""Listings that are refused."""

import pytest

from tests.s3_sync.listing.answers import contents, page, read, refused


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


def test_refuses_a_repeated_page() -> None:
    """A proxy that answers with the same page again and again does not make a listing endless."""
    same = [contents("dags/a"), contents("dags/b")]

    assert "is listed twice" in refused(page(*same, token="a"), page(*same))
    assert "the same page twice" in refused(page(*same, token="a"), page(*same, token="b"))


def test_refuses_a_repeated_key() -> None:
    assert "'dags/a' is listed twice" in refused(page(contents("dags/a"), contents("dags/a")))
    assert "is listed twice" in refused(
        page(contents("dags/a"), token="a"), page(contents("dags/a"))
    )
