"""Which requests of git and git-sync go through a proxy."""

from collections.abc import Iterator

import pytest

from tests.support.git.git_sync import GitSite
from tests.support.http.fake_proxy import FakeProxy


@pytest.fixture
def proxy(here: GitSite) -> Iterator[FakeProxy]:
    """A proxy that refuses every request that is not a CONNECT, and records it."""
    with FakeProxy(here.server.port) as proxy:
        yield proxy


@pytest.mark.parametrize("excepted", ["*.localhost", "other .localhost", "10.0.0.0/8,*"])
def test_git_reads_exceptions_as_the_wrapper_does(
    here: GitSite, proxy: FakeProxy, excepted: str
) -> None:
    """curl knows no `*.localhost`, and no `*` among other entries."""
    repository = here.server.url().replace("127.0.0.1", "localhost")
    through = {"http_proxy": proxy.endpoint, "NO_PROXY": excepted}

    wrapper = here.wrapper(GITSYNC_REPO=repository, **through)
    wrapper.wait_for_event("cycle_finished")

    assert [] == proxy.asked
    assert [] == wrapper.find_events("setting_unused")
