"""
What git servers say, read and chosen from as git does.
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
    """Lines as a server sends them; None is a flush."""
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
def test_a_server_of_version_2_is_asked_for_refs(
    head: bytes, lines: list[str], hash_name: str
) -> None:
    assert Advert(None, hash_name) == read_advert(head + packets("version 2\n", *lines, None))


@pytest.mark.parametrize("first", [[], ["version 1\n"]])
def test_an_older_server_says_its_refs_at_once(first: list[str]) -> None:
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


# --- the refs that were asked for


def test_asks_for_all_that_a_name_may_mean() -> None:
    expected = packets("command=ls-refs\n", "agent=git-sync-wrapper\n", "object-format=sha1\n")
    expected += b"0001"
    names = ["v1", "refs/v1", "refs/tags/v1", "refs/heads/v1", "refs/remotes/v1"]
    expected += packets("peel\n", *(f"ref-prefix {name}\n" for name in names), None)

    assert expected == ask_for("v1", "sha1")
    assert b"0012ref-prefix \xc3\xa4\n" in ask_for("ä", "sha1")  # bytes are counted


def test_tags_are_peeled() -> None:
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


# --- what a name means


def test_a_tag_comes_before_a_branch_as_in_git() -> None:
    refs = {"refs/heads/x": A, "refs/tags/x": B}

    assert (B, A) == (choose(refs, "x"), choose(refs, "heads/x"))
    assert A == choose(refs, "refs/heads/x")


def test_only_whole_names_count() -> None:
    refs = {"refs/heads/main-2": A, "refs/heads/feature/main": B, "HEAD": C}

    assert (None, C) == (choose(refs, "main"), choose(refs, "HEAD"))
    assert B == choose(refs, "feature/main")


# --- what is no git server


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
def test_anything_else_is_refused(body: bytes) -> None:
    with pytest.raises(NotGit):
        read_advert(body)


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>0000", packets(f"{A} refs/heads/main\n"), packets("x\n", None), b"ffff0000"],
)
def test_an_invalid_list_of_refs_is_refused(body: bytes) -> None:
    with pytest.raises(NotGit):
        read_refs(body)


@pytest.mark.parametrize("read", [read_advert, read_refs])
def test_the_words_of_the_server_are_passed_on(read: object) -> None:
    with pytest.raises(ServerSays, match="access denied"):
        read(packets("ERR access denied\n", None))  # type: ignore[operator]
