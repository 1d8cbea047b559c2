"""
A redirect is followed to the same server only; no other one is asked for anything.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.git import moved
from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer, Fault, Match, Request

REFS = "/info/refs?service=git-upload-pack"


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[GitServer]:
    """A server that has the repository, too, with a commit of its own."""
    with GitServer(tmp_path / "foreign", host="127.0.0.2") as server:
        server.repository().commit({"stolen.py": "x = 1\n"})
        yield server


def redirect(to: str) -> Fault:
    return answer_with(Answer(302, {"Location": to}))


def is_of(name: str) -> Match:
    def match(request: Request) -> bool:
        return request.path.startswith(f"/{name}/")

    return match


@pytest.mark.parametrize("what", ["first run", "poll", "submodule", "login"])
def test_a_redirect_to_another_host_is_refused(
    here: GitSite, foreign: GitServer, what: str
) -> None:
    """
    In a one-shot on an empty volume git-sync asks first, later `git ls-remote`. Whoever
    answers for `--askpass-url` would choose the login.
    """
    wrapper = here.describe(
        GIT_SYNC_WRAPPER_ONE_SHOT=str(what == "first run"),
        GITSYNC_ASKPASS_URL=here.server.url("askpass/login").replace("//", "//me:hush@")
        if what == "login"
        else None,
    )
    shown = ""
    if what in ("poll", "submodule"):
        shown = here.repository.head()
        here.wait_until_shown(shown, wrapper.start())
    here.server.inject(
        redirect(foreign.url() + REFS),
        match=is_of(
            {"submodule": "library.git", "login": "askpass"}.get(what, "dags.git")
        ),
    )
    if what == "submodule":
        here.repository.commit_submodule(
            "library", here.server.url("library.git"), "1" * 40
        )
    if not shown:
        wrapper.start()

    failed = wrapper.wait_for_event("cycle_failed")

    assert "redirect_refused" == failed["reason"], failed
    assert here.server.endpoint in failed["error"], failed
    assert foreign.endpoint in failed["error"], failed
    assert "hush" not in failed["error"], failed
    assert [] == foreign.requests
    assert shown == here.shown()


def test_a_repository_that_moved_on_its_server_is_followed(here: GitSite) -> None:
    """As GitHub and GitLab do for a renamed repository, or a URL without `.git`."""
    here.server.inject(redirect(f"/dags.git{REFS}"), match=is_of("dags"))
    url = here.server.url("dags")
    here.run_once(GITSYNC_REPO=url)
    wrapper = here.wrapper(GITSYNC_REPO=url)
    here.wait_until_shown(here.commit_revision(2), wrapper)
    here.wait_until_shown(here.commit_revision(3), wrapper)

    moves = wrapper.find_events("repository_moved")
    assert [here.server.url()] == [event["url"] for event in moves], wrapper.log()
    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()

    here.server.heal()
    folder = here.repository.folder
    folder.rename(folder.with_name("dags"))
    back = here.server.repository("dags").commit({"new.py": "x = 1\n"})
    here.wait_until_shown(back, wrapper)


def test_a_repository_that_moved_in_a_circle_is_refused(here: GitSite) -> None:
    here.server.inject(redirect(f"/b.git{REFS}"), match=is_of("a.git"))
    here.server.inject(redirect(f"/a.git{REFS}"), match=is_of("b.git"))
    wrapper = here.wrapper(GITSYNC_REPO=here.server.url("a.git"))

    assert "redirect_refused" == wrapper.wait_for_event("cycle_failed")["reason"]


def test_a_submodule_that_moved_does_not_replace_the_repository(here: GitSite) -> None:
    wrapper = here.publish()
    shown = here.shown()
    here.server.repository("other.git").commit({"other.py": "x = 1\n"})
    here.server.inject(redirect(f"/other.git{REFS}"), match=is_of("library.git"))
    here.repository.commit_submodule(
        "library", here.server.url("library.git"), "1" * 40
    )

    failed = wrapper.wait_for_event("cycle_failed", 30)
    assert ("redirect_refused", shown) == (failed["reason"], here.shown())


def test_only_the_same_server_may_name_another_address_and_never_http_for_https() -> (
    None
):
    for location in (
        "https://h:8443/dags",
        "http://h:81/dags",
        "http://h.example/dags",
        "http://me@h/dags",
        "file:///dags",
        "http://[",
    ):
        assert "" == moved("http://h/dags", location + REFS), location
    assert "" == moved("http://h/dags", "https://h/login")
    assert "" == moved("https://h/dags", f"http://h/b{REFS}")
    assert "https://h/b" == moved("http://h/dags", f"https://h/b{REFS}")
