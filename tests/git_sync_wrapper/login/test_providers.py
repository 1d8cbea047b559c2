"""
Credentials from settings, and the tokens that git-sync requests itself.
"""

import pytest

from git_sync_wrapper.login.credential import Credential, Wanted
from git_sync_wrapper.login.providers import Given, Pair, Stored
from git_sync_wrapper.login.secret import Cleaner, Secret
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.support.raising import raised

wanted = Wanted.by_url
REPO = wanted("https://git.example.com/team/dags.git")


def pair(url: str, username: str = "deploy", password: str = "secret") -> Pair:
    cleaner = Cleaner()
    return Pair(
        Wanted.by_url(url),
        Secret("username", cleaner, username),
        Secret("password", cleaner, password),
    )


# --- requested servers


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://Git.Example.com/a/b.git", Wanted("https", "git.example.com", "a/b.git")),
        ("http://h:8080/a%20b/", Wanted("http", "h:8080", "a b")),
        ("https://user:pw@h/x", Wanted("https", "h", "x")),
        ("https://[::1/x", Wanted("", "https://[::1/x")),
        ("git@github.com:acme/dags.git", Wanted("", "", "git@github.com:acme/dags.git")),
    ],
)
def test_splits_a_url_as_git_does(url: str, expected: Wanted) -> None:
    assert expected == Wanted.by_url(url)


# --- pairs from settings


def test_uses_a_pair_only_for_its_server(fence: Fence) -> None:
    given = Given([pair("https://git.example.com/team/dags.git")])

    assert Credential("deploy", "secret") == given.credential(REPO, fence)
    # Other paths of the server match as well, because git-sync passes git only the server.
    assert Credential("deploy", "secret") == given.credential(
        wanted("https://GIT.example.com/other"), fence
    )
    for url in (
        "http://git.example.com/team/dags.git",
        "https://git.example.com:8443/team/dags.git",
        "https://example.com/team/dags.git",
        "https://git.example.com.evil.example/team/dags.git",
    ):
        assert None is given.credential(wanted(url), fence), url


def test_the_longest_path_of_whole_names_wins(fence: Fence) -> None:
    given = Given(
        [
            pair("https://h/", "all"),
            pair("https://h/team", "team"),
            pair("https://h/team/dags.git", "dags"),
        ]
    )

    def who(url: str) -> str | None:
        found = given.credential(wanted(url), fence)
        return found.username if isinstance(found, Credential) else None

    paths = ("team/dags.git", "team/library.git", "teamwork/x.git", "")
    assert ["dags", "team", "all", "all"] == [who(f"https://h/{path}") for path in paths]


@pytest.mark.parametrize("prefix", ["AKIA", "ASIA"])
def test_explains_an_access_key_used_as_username_for_codecommit(fence: Fence, prefix: str) -> None:
    url = "https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/dags"
    given = Given([pair(url, f"{prefix}IOSFODNN7EXAMPLE", "wJalrXUtnFEMI")])

    error = raised(SidecarError, given.credential, wanted(url), fence)

    assert "access_key_as_username" == error.reason
    assert "IRSA" in error.advice and "wJalrXUtnFEMI" not in str(error)


def test_a_refusal_decodes_username_and_password(fence: Fence) -> None:
    given = Given([pair("https://h/x", "ZGVwbG95", "c2VjcmV0")])
    first = given.credential(wanted("https://h/x"), fence)

    given.refused(wanted("https://other/x"))
    assert first == given.credential(wanted("https://h/x"), fence)
    given.refused(wanted("https://h/x"))

    assert Credential("deploy", "secret") == given.credential(wanted("https://h/x"), fence)


def test_hides_the_password_in_the_repr() -> None:
    assert "secret" not in repr(Credential("deploy", "secret"))


# --- stored tokens


def test_keeps_the_newest_token_of_a_server_until_it_is_refused(fence: Fence) -> None:
    stored = Stored()
    stored.store(REPO, Credential("-", "first"))
    stored.store(wanted("https://other/x"), Credential("-", "other"))
    stored.store(REPO, Credential("-", "second"))
    submodule = wanted("https://git.example.com/team/sub.git")

    assert Credential("-", "second") == stored.credential(submodule, fence)
    stored.refused(REPO)
    assert None is stored.credential(REPO, fence)
    assert Credential("-", "other") == stored.credential(wanted("https://other/y"), fence)
