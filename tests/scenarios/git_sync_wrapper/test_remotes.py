"""Servers and refs as they are: the wrapper follows what git follows, and keeps what it has."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.support.git.git_repository import Repository
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer, Exchange, Fault


def redirect(exchange: Exchange) -> None:
    """Send a client that asks under the old name to the new one."""
    if not exchange.request.target.startswith("/old.git"):
        return exchange.send(exchange.good())
    place = exchange.request.target.replace("/old.git", "/dags.git", 1)
    return exchange.send(Answer(301, {"Location": place}))


def http_1_0(exchange: Exchange) -> None:
    """Answer as an old server or proxy does: without a length, one connection for each request."""
    answer = exchange.good()
    lines = [f"{name}: {value}" for name, value in answer.headers.items()]
    head = "\r\n".join([f"HTTP/1.0 {answer.status} Old", *lines, "", ""])
    exchange.send_bytes(head.encode() + answer.body)
    exchange.close()


def protocol_0(exchange: Exchange) -> None:
    """Answer only protocol 0, which lists all refs."""
    request = replace(exchange.request, headers={**exchange.request.headers, "git-protocol": ""})
    exchange.send(exchange._server.good_answer(request))


@pytest.mark.parametrize("fault", [redirect, http_1_0, protocol_0])
def test_follows_any_server_that_git_follows(here: GitSite, fault: Fault) -> None:
    here.server.inject(fault)
    wrapper = here.publish(
        GITSYNC_REPO=here.server.url("old.git" if fault is redirect else "dags.git")
    )
    here.wait_until_shown(here.commit_revision(2), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()


def test_follows_a_server_whose_repository_is_shallow(here: GitSite) -> None:
    here.commit_revision(2)
    whole = here.server.repository("whole.git").folder
    shutil.rmtree(whole)
    shutil.move(here.repository.folder, whole)
    Repository(whole).git(
        "clone", "-q", "--bare", "--depth=1", f"file://{whole}", str(whole.with_name("dags.git"))
    )

    wrapper = here.publish()
    here.wait_until_shown(here.commit_revision(3), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()


@pytest.mark.parametrize(
    ("status", "reason"), [(429, "throttled"), (503, "throttled"), (500, "server_error")]
)
def test_a_server_that_limits_its_clients_is_followed_once_it_answers(
    here: GitSite, status: int, reason: str
) -> None:
    wrapper = here.publish()
    before = here.shown()
    here.server.inject(answer_with(Answer(status, {"Retry-After": "1"})))
    commit = here.commit_revision(2)
    for _ in range(2):
        failed = wrapper.wait_for_event("cycle_failed", after=len(wrapper.events))
        assert reason == failed["reason"]
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)
    here.server.heal()

    here.wait_until_shown(commit, wrapper)


@pytest.mark.parametrize("name", ["dns", "proxy"])
def test_recovers_from_an_outage_of_dns_or_the_proxy(here: GitSite, name: str) -> None:
    url, hosts = here.server.url(), here.folder / "hosts"
    hosts.write_text("127.0.0.1 git.invalid\n")
    given = {"GITSYNC_REPO": url.replace("127.0.0.1", "git.invalid")}
    wrapper = here.describe(
        **given, **({"http_proxy": here.server.endpoint} if name == "proxy" else {})
    )
    if name == "dns":
        if os.getuid() != 0:
            pytest.skip("mounting another /etc/hosts needs root")
        mount = f'mount --bind {hosts} /etc/hosts && exec "$0" "$@"'
        wrapper.wrapper = ("unshare", "--mount", "/bin/sh", "-c", mount)
    wrapper.start()
    here.wait_until_shown(here.repository.head(), wrapper)
    before = here.shown()
    if name == "dns":
        hosts.write_text("")
    else:
        here.server.stop()
    commit = here.commit_revision(2)
    failed = wrapper.wait_for_event("cycle_failed", 60)

    assert {"dns": "name_unresolved", "proxy": "remote_unreachable"}[name] == failed["reason"], (
        failed
    )
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)
    if name == "dns":
        hosts.write_text("127.0.0.1 git.invalid\n")
    else:
        here.server.start()
    here.wait_until_shown(commit, wrapper, 90)


def force_push(here: GitSite) -> str:
    return here.commit_revision(2, onto="")


def go_back(here: GitSite) -> str:
    first = here.repository.head()
    here.commit_revision(2)
    here.repository.set_branch("main", first)
    return first


@pytest.mark.parametrize("move", [force_push, go_back])
def test_follows_a_branch_that_was_rewritten(here: GitSite, move: Callable[[GitSite], str]) -> None:
    wrapper = here.publish()

    here.wait_until_shown(move(here), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()


def test_a_deleted_branch_keeps_its_commit_until_it_is_there_again(here: GitSite) -> None:
    wrapper = here.publish()
    before = here.shown()
    here.repository.delete_branch("main")
    assert "ref_not_found" == wrapper.wait_for_event("cycle_failed")["reason"]
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)

    here.wait_until_shown(here.commit_revision(2), wrapper)


@pytest.mark.parametrize("message", ["", "annotated"])
def test_follows_a_tag_that_moves(here: GitSite, message: str) -> None:
    here.repository.tag("v1", here.repository.head(), message)
    wrapper = here.wrapper(GITSYNC_REF="v1")
    here.wait_until_shown(here.repository.head(), wrapper)
    newer = here.commit_revision(2)
    here.repository.tag("v1", newer, message)

    here.wait_until_shown(newer, wrapper)
