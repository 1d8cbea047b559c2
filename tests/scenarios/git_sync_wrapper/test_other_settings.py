"""A restart with another repository, ref or pin, on a volume with the earlier commit."""

import json

import pytest

from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite
from tests.support.waiting import wait_until


def restart(here: GitSite, **settings: str) -> SidecarProcess:
    wrapper = here.wrapper(**settings)
    wrapper.wait_for_event("http_listening")
    return wrapper


@pytest.mark.parametrize("kind", ["pin", "branch"])
def test_becomes_ready_only_with_the_commit_of_the_new_ref(here: GitSite, kind: str) -> None:
    """No answer reports the old commit as good, and readiness is not lost again."""
    first = here.repository.head()
    here.repository.git("branch", "release", first)
    old = here.commit_revision(2)
    here.publish().terminate()
    wrapper = restart(here, GITSYNC_REF=first if kind == "pin" else "release")
    answers: list[tuple[int, str, bool]] = []

    def is_done() -> bool:
        answer = wrapper.get("/readyz")
        said = json.loads(answer.body)
        answers.append((answer.status, said["revision"], said["shortfall"] is None))
        return (200, first, True) == answers[-1]

    wait_until(is_done, "the new setting is applied", step_seconds=0.01)

    assert (200, old, True) not in answers
    statuses = [status for status, _, _ in answers]
    assert statuses == sorted(statuses, reverse=True), answers
