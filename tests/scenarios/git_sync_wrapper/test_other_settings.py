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


def test_publishes_the_newest_accepted_commit_of_another_repository(here: GitSite) -> None:
    """The gate stops no pod, because nothing of this repository is published yet."""
    here.publish().terminate()
    other = here.server.repository("other.git")
    accepted = other.commit({"dag.py": "x = 1\n"}, whole=True)
    refused = other.commit({"dag.py": "def\n"})
    settings = {
        "GITSYNC_REPO": here.server.url("other.git"),
        "GIT_SYNC_WRAPPER_GATE": "syntax",
    }

    one_shot = here.wrapper("--one-time", **settings)

    assert 0 == one_shot.wait_for_exit().code, one_shot.log()
    assert accepted == here.shown()
    wrapper = restart(here, **settings)
    wrapper.wait_until_ready()
    said = f"the gate refused {refused}, so this is a fallback"
    assert said == wrapper.status()["shortfall"]
