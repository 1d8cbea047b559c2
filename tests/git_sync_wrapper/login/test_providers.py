"""
Given pairs, an askpass service, and the tokens that git-sync gets itself.
"""

from collections.abc import Callable, Iterator

import pytest

from git_sync_wrapper.login.credential import Credential, Wanted
from git_sync_wrapper.login.providers import Askpass, Given, Pair, Stored
from git_sync_wrapper.login.secret import Cleaner, Secret
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.support import faults
from tests.support.askpass import AskpassServer
from tests.support.loopback import Answer
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


# --- what is wanted


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
def test_a_url_is_taken_apart_as_git_does(url: str, expected: Wanted) -> None:
    assert expected == Wanted.by_url(url)


# --- given pairs


def test_a_pair_is_for_its_server_only(fence: Fence) -> None:
    given = Given([pair("https://git.example.com/team/dags.git")])

    assert Credential("deploy", "secret") == given.credential(REPO, fence)
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


def test_the_longest_path_wins_and_whole_names_count(fence: Fence) -> None:
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


def test_a_pair_for_another_path_serves_where_there_is_no_better(fence: Fence) -> None:
    """As in git-sync, which tells git only the server."""
    given = Given([pair("https://h/team/dags.git")])

    assert Credential("deploy", "secret") == given.credential(wanted("https://h/sub.git"), fence)


@pytest.mark.parametrize("prefix", ["AKIA", "ASIA"])
def test_an_access_key_as_username_for_codecommit_is_explained(fence: Fence, prefix: str) -> None:
    url = "https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/dags"
    given = Given([pair(url, f"{prefix}IOSFODNN7EXAMPLE", "wJalrXUtnFEMI")])

    error = raised(SidecarError, given.credential, wanted(url), fence)

    assert "access_key_as_username" == error.reason
    assert "IRSA" in error.advice and "wJalrXUtnFEMI" not in str(error)


def test_a_refusal_decodes_both_parts(fence: Fence) -> None:
    given = Given([pair("https://h/x", "ZGVwbG95", "c2VjcmV0")])
    first = given.credential(wanted("https://h/x"), fence)

    given.refused(wanted("https://other/x"))
    assert first == given.credential(wanted("https://h/x"), fence)
    given.refused(wanted("https://h/x"))

    assert Credential("deploy", "secret") == given.credential(wanted("https://h/x"), fence)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(Credential("deploy", "secret"))


# --- askpass


@pytest.fixture
def service() -> Iterator[AskpassServer]:
    with AskpassServer("deploy", "a=b%+") as service:
        yield service


Ask = Callable[[], Credential | None]


@pytest.fixture
def askpass(service: AskpassServer) -> Askpass:
    return Askpass(f"{service.endpoint}/git?who=dags", REPO, {"http_proxy": "http://p:1"})


@pytest.fixture
def ask(askpass: Askpass, fence: Fence) -> Ask:
    return lambda: askpass.credential(REPO, fence)


def test_askpass_says_it_until_it_is_refused_and_is_never_asked_by_a_proxy(
    service: AskpassServer, askpass: Askpass, ask: Ask
) -> None:
    said = [ask(), ask()]
    askpass.refused(wanted("https://github.com/x"))
    said.append(ask())
    # A few lines of shell, say.
    service.inject(faults.raw(b"HTTP/1.1 200 OK\n\njunk\nusername=next\r\npassword=other\n"))
    askpass.refused(REPO)
    said.append(ask())

    assert [*[Credential("deploy", "a=b%+")] * 3, Credential("next", "other")] == said
    assert ["/git?who=dags"] * 2 == [request.target for request in service.requests]


def test_askpass_may_take_its_time(service: AskpassServer, ask: Ask) -> None:
    """git-sync itself gives it one second."""
    service.inject(lambda exchange: (exchange.pause(1.3), exchange.send(exchange.good()))[1])

    assert Credential("deploy", "a=b%+") == ask()


def test_askpass_is_for_the_server_of_the_repository_only(
    service: AskpassServer, fence: Fence
) -> None:
    askpass = Askpass(service.endpoint, REPO, {})

    assert None is askpass.credential(wanted("https://github.com/x"), fence)
    assert [] == service.requests


@pytest.mark.parametrize(
    "answer", [Answer(500, {}, b"password=secret"), Answer(302), Answer(200, {}, b"hello")]
)
def test_askpass_that_fails_is_named_without_its_answer(
    service: AskpassServer, ask: Ask, answer: Answer
) -> None:
    service.inject(faults.answer_with(answer))

    error = raised(SidecarError, ask)

    assert "askpass_failed" == error.reason
    assert "secret" not in f"{error}{error.advice}"


def test_askpass_that_is_down_is_named_as_itself(service: AskpassServer, ask: Ask) -> None:
    service.stop()

    error = raised(SidecarError, ask)

    assert ("askpass_failed", True) == (error.reason, "refused" in error.message)


# --- stored


def test_the_newest_token_of_a_server_is_kept_until_it_is_refused(fence: Fence) -> None:
    stored = Stored()
    stored.store(REPO, Credential("-", "first"))
    stored.store(wanted("https://other/x"), Credential("-", "other"))
    stored.store(REPO, Credential("-", "second"))
    submodule = wanted("https://git.example.com/team/sub.git")

    assert Credential("-", "second") == stored.credential(submodule, fence)
    stored.refused(REPO)
    assert None is stored.credential(REPO, fence)
    assert Credential("-", "other") == stored.credential(wanted("https://other/y"), fence)
