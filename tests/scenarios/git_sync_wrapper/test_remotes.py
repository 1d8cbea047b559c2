"""Servers and refs as they are: the wrapper follows what git follows, and keeps what it has."""

import os
import shutil
from dataclasses import replace

import pytest

from tests.support.git.git_repository import Repository
from tests.support.git.git_sync import GitSite
from tests.support.http.fake_proxy import FakeProxy
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
    hosts, entry = here.folder / "hosts", "127.0.0.1 git.invalid\n"
    hosts.write_text(entry)
    wrapper = here.describe(GITSYNC_REPO=here.server.url().replace("127.0.0.1", "git.invalid"))
    if name == "proxy":
        wrapper.environment["http_proxy"] = here.server.endpoint
    elif os.getuid() == 0:
        mount = f'mount --bind {hosts} /etc/hosts && exec "$0" "$@"'
        wrapper.wrapper = ("unshare", "--mount", "/bin/sh", "-c", mount)
    else:
        pytest.skip("mounting another /etc/hosts needs root")
    wrapper.start()
    here.wait_until_shown(here.repository.head(), wrapper)
    before = here.shown()
    hosts.write_text("") if name == "dns" else here.server.stop()
    commit = here.commit_revision(2)

    failed = wrapper.wait_for_event("cycle_failed", 60)

    assert failed["reason"] == ("name_unresolved" if name == "dns" else "remote_unreachable")
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)
    hosts.write_text(entry) if name == "dns" else here.server.start()
    here.wait_until_shown(commit, wrapper, 90)


@pytest.mark.parametrize("excepted", ["*.localhost", "other .localhost", "10.0.0.0/8,*"])
def test_git_reads_exceptions_as_the_wrapper_does(here: GitSite, excepted: str) -> None:
    """curl knows no `*.localhost`, and no `*` among other entries."""
    repository = here.server.url().replace("127.0.0.1", "localhost")
    with FakeProxy(here.server.port) as proxy:
        through = {"http_proxy": proxy.endpoint, "NO_PROXY": excepted}
        wrapper = here.wrapper(GITSYNC_REPO=repository, **through)
        wrapper.wait_for_event("cycle_finished")

    assert [] == proxy.asked
    assert [] == wrapper.find_events("setting_unused")


@pytest.mark.parametrize("message", ["", "annotated"])
def test_follows_a_tag_that_moves(here: GitSite, message: str) -> None:
    here.repository.tag("v1", here.repository.head(), message)
    wrapper = here.wrapper(GITSYNC_REF="v1")
    here.wait_until_shown(here.repository.head(), wrapper)
    newer = here.commit_revision(2)
    here.repository.tag("v1", newer, message)

    here.wait_until_shown(newer, wrapper)
