"""Digests that identify the content of a file."""

import hashlib

import pytest

from s3_sync.digest import has_digest, is_executable, is_sha256, looks_like_md5

BODY = [b"print(", b"1)\n"]
MD5 = hashlib.md5(b"".join(BODY)).hexdigest()
SHA256 = hashlib.sha256(b"".join(BODY)).hexdigest()


@pytest.mark.parametrize("etag", [MD5, SHA256, f"{SHA256}+x"])
def test_each_digest_matches_only_its_content(etag: str) -> None:
    assert has_digest(etag, BODY)
    assert not has_digest(etag, [b"other"])


@pytest.mark.parametrize("etag", ["", f"{MD5}-2", f"{MD5}+x", MD5.upper(), f"x{SHA256}"])
def test_an_etag_that_is_not_a_digest_matches_no_content(etag: str) -> None:
    assert not has_digest(etag, BODY)


def test_recognizes_kinds_and_the_executable_bit() -> None:
    assert (True, False) == (looks_like_md5(MD5), looks_like_md5(SHA256))
    assert (False, True, True) == tuple(map(is_sha256, (MD5, SHA256, f"{SHA256}+x")))
    assert [False, False, True] == [is_executable(e) for e in (SHA256, "abc+x", f"{SHA256}+x")]
