"""
Servers and refs as they are: the wrapper keeps what it has and follows what comes back.
"""

from pathlib import Path

import pytest

from tests.support.git.git_sync import GitSite
from tests.support.http.fake_proxy import FakeProxy
from tests.support.machine.volumes import see_mounted


@pytest.mark.parametrize("reason", ["name_unresolved", "ref_not_found"])
def test_keeps_what_it_has_without_dns_or_the_branch(
    here: GitSite, reason: str
) -> None:
    hosts = here.folder / "hosts"
    entry = "127.0.0.1 git.invalid\n"
    hosts.write_text(entry)
    wrapper = here.describe(
        GITSYNC_REPO=here.server.url().replace("127.0.0.1", "git.invalid")
    )
    see_mounted(wrapper, hosts, Path("/etc/hosts"))
    wrapper.start()
    here.wait_until_shown(here.repository.head(), wrapper)
    before = here.shown()
    if reason == "name_unresolved":
        hosts.write_text("")
    else:
        here.repository.delete_branch("main")

    # Not the first failure: it may be a poll that was under way.
    wrapper.wait_for_event("cycle_failed", 60, reason=reason)
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)
    hosts.write_text(entry)
    here.wait_until_shown(here.commit_revision(2), wrapper, 90)


def test_git_reads_exceptions_as_the_wrapper_does(here: GitSite) -> None:
    """curl knows no `*.localhost`, and no `*` among other entries."""
    with FakeProxy(here.server.port) as proxy:
        here.wrapper(
            GITSYNC_REPO=here.server.url().replace("127.0.0.1", "localhost"),
            http_proxy=proxy.endpoint,
            NO_PROXY="10.0.0.0/8,*.localhost",
        ).wait_for_event("cycle_finished")

    assert [] == proxy.asked


@pytest.mark.parametrize(
    ("ref", "move"),
    [
        ("v1", ["tag", "-f"]),
        ("v1", ["tag", "-f", "-m", "annotated"]),
        ("heads/release", ["update-ref"]),
        ("refs/pull/7/head", ["update-ref"]),
    ],
)
def test_follows_any_ref_that_moves(here: GitSite, ref: str, move: list[str]) -> None:
    name = ref.replace("heads/release", "refs/heads/release")
    here.repository.git(*move, name, here.repository.head())
    wrapper = here.wrapper(GITSYNC_REF=ref)
    here.wait_until_shown(here.repository.head(), wrapper)
    newer = here.commit_revision(2)
    here.repository.git(*move, name, newer)

    here.wait_until_shown(newer, wrapper)
