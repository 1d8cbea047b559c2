"""
Parsing of the answers of git servers, and the choice of a ref as in git.
"""

import pytest

from git_sync_wrapper.poll.pkt import (
    Advert,
    NotGit,
    ServerSays,
    ask_for,
    choose,
    read_advert,
    read_refs,
)

A, B, C = ("a" * 40, "b" * 40, "c" * 40)
LONG = "d" * 64


def packets(*lines: str | None) -> bytes:
    """Return lines as a server sends them; None is a flush packet."""
    return b"".join(
        b"0000" if line is None else b"%04x" % (len(line.encode()) + 4) + line.encode()
        for line in lines
    )


# --- the first answer


@pytest.mark.parametrize("head", [b"", packets("# service=git-upload-pack\n", None)])
@pytest.mark.parametrize(
    ("lines", "hash_name"),
    [
        (["agent=git/2\n", "ls-refs=unborn\n", "object-format=sha1\n"], "sha1"),
        (["object-format=sha256\n"], "sha256"),
        ([], "sha1"),
    ],
)
def test_reads_a_version_2_advertisement(head: bytes, lines: list[str], hash_name: str) -> None:
    assert Advert(None, hash_name) == read_advert(head + packets("version 2\n", *lines, None))


@pytest.mark.parametrize("first", [[], ["version 1\n"]])
def test_reads_the_refs_in_the_advertisement_of_an_older_server(first: list[str]) -> None:
    body = packets(
        "# service=git-upload-pack\n",
        None,
        *first,
        f"{A} HEAD\0multi_ack symref=HEAD:refs/heads/main\n",
        f"{A} refs/heads/main\n",
        f"{B} refs/tags/v1\n",
        f"{C} refs/tags/v1^{{}}\n",
        f"shallow {A}\n",
        None,
    )

    assert {"HEAD": A, "refs/heads/main": A, "refs/tags/v1": C} == read_advert(body).refs
    empty = (f"{'0' * 40} capabilities^{{}}\0caps\n", None)
    assert {} == read_advert(packets("# service=git-upload-pack\n", None, *first, *empty)).refs


# --- requested refs


def test_requests_every_ref_that_a_name_can_mean() -> None:
    expected = packets("command=ls-refs\n", "agent=git-sync-wrapper\n", "object-format=sha1\n")
    expected += b"0001"
    names = ["v1", "refs/v1", "refs/tags/v1", "refs/heads/v1", "refs/remotes/v1"]
    expected += packets("peel\n", *(f"ref-prefix {name}\n" for name in names), None)

    assert expected == ask_for("v1", "sha1")
    assert b"0012ref-prefix \xc3\xa4\n" in ask_for("ä", "sha1")  # the length is in bytes


def test_peels_annotated_tags() -> None:
    body = packets(
        f"{A} HEAD symref-target:refs/heads/main\n",
        f"{A} refs/heads/main\n",
        f"{B} refs/tags/v1 peeled:{C}\n",
        f"{LONG} refs/heads/long\n",
        None,
    )

    expected = {"HEAD": A, "refs/heads/main": A, "refs/tags/v1": C, "refs/heads/long": LONG}
    assert expected == read_refs(body)
    assert {} == read_refs(packets("unborn HEAD symref-target:refs/heads/main\n", None))


# --- the meaning of a name


def test_prefers_a_tag_to_a_branch_as_git_does() -> None:
    refs = {"refs/heads/x": A, "refs/tags/x": B}

    assert (B, A) == (choose(refs, "x"), choose(refs, "heads/x"))
    assert A == choose(refs, "refs/heads/x")


def test_matches_only_whole_names() -> None:
    refs = {"refs/heads/main-2": A, "refs/heads/feature/main": B, "HEAD": C}

    assert (None, C) == (choose(refs, "main"), choose(refs, "HEAD"))
    assert B == choose(refs, "feature/main")


# --- invalid answers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Sign in</html>",
        b"0000",
        packets(f"{A} refs/heads/main\n"),
        packets(f"{A} refs/heads/main\n", None)[:-10] + b"0000",
        packets("not a hash refs/heads/main\n", None),
        b"zzzzversion 2\n0000",
    ],
)
def test_refuses_an_invalid_advertisement(body: bytes) -> None:
    with pytest.raises(NotGit):
        read_advert(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>0000", packets(f"{A} refs/heads/main\n"), packets("x\n", None), b"ffff0000"],
)
def test_refuses_an_invalid_list_of_refs(body: bytes) -> None:
    with pytest.raises(NotGit):
        read_refs(body)


@pytest.mark.parametrize("read", [read_advert, read_refs])
def test_raises_the_error_message_of_the_server(read: object) -> None:
    with pytest.raises(ServerSays, match="access denied"):
        read(packets("ERR access denied\n", None))  # type: ignore[operator]
    with pytest.raises(ServerSays, match="access denied"):  # JGit ends it there
        read(packets("ERR access denied\n"))  # type: ignore[operator]
