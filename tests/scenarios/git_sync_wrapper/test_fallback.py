"""
A gate stops a change, never a pod: an empty volume gets the newest accepted commit.
"""

import pytest

from tests import Texts
from tests.scenarios.git_sync_wrapper.conftest import record
from tests.support.daemon import Settings
from tests.support.git.git_sync import GitSite
from tests.support.scripts import script
from tests.support.waiting import wait_until

GATE = {"GIT_SYNC_WRAPPER_GATE": "syntax"}
FALLBACK = 'sidecar_gate_fallback{sidecar="git-sync-wrapper"}'
REFUSED = 'sidecar_gate_refused{sidecar="git-sync-wrapper"}'


def command(here: GitSite, said: str) -> Settings:
    return {
        "GIT_SYNC_WRAPPER_GATE": "command",
        "GIT_SYNC_WRAPPER_GATE_COMMAND": script(here.folder / "check", said),
    }


def good(here: GitSite, number: int = 1) -> str:
    return here.repository.commit({"dag.py": f"x = {number}\n"}, whole=True)


def bad(here: GitSite, number: int = 1) -> str:
    return here.repository.commit({"dag.py": f"def {number}\n"})


def test_publishes_the_newest_accepted_ancestor_until_a_good_commit_arrives(
    here: GitSite,
) -> None:
    good(here)
    accepted = good(here, 2)
    bad(here)
    refused = bad(here, 2)
    wrapper = here.wrapper(**GATE)

    here.wait_until_shown(accepted, wrapper)
    wrapper.wait_until_ready()
    event = wrapper.wait_for_event("gate_fallback")
    assert (accepted, refused) == (event["name"], event["refused"])
    assert (
        f"the gate refused {refused}, so this is a fallback"
        == wrapper.status()["shortfall"]
    )
    wait_until(lambda: 1 == wrapper.metrics()[REFUSED], "the newest is refused")
    assert (1, refused) == (wrapper.metrics()[FALLBACK], record(here)["fallback"])
    assert (here.root / ".git-sync/.git/shallow").exists(), (
        "the whole history was fetched"
    )
    here.wait_until_shown(good(here, 3), wrapper)
    wait_until(lambda: 0 == wrapper.metrics()[FALLBACK], "it is left")
    ended = (
        wrapper.metrics()[REFUSED],
        wrapper.status()["shortfall"],
        record(here)["fallback"],
    )
    assert (0, None, "") == ended


@pytest.mark.parametrize("kind", ["hash", "tag"])
def test_a_refused_pin_publishes_no_fallback(here: GitSite, kind: str) -> None:
    good(here)
    pinned = bad(here)
    here.repository.tag("v1", pinned)
    wrapper = here.wrapper(GITSYNC_REF=pinned if kind == "hash" else "v1", **GATE)

    event = wrapper.wait_for_event("fallback_unusable")

    assert (pinned, "pinned") == (event["revision"], event["reason"])
    said = f"{here.link} shows no commit: the gate refuses {pinned}, which GITSYNC_REF pins"
    wait_until(lambda: said == wrapper.status()["problem"], said)
    assert ("", 503) == (here.shown(), wrapper.get("/readyz").status)


def test_a_refused_pin_is_the_reason_beside_what_was_published_before(
    here: GitSite,
) -> None:
    before = good(here)
    here.run_once()
    wrapper = here.wrapper(GITSYNC_REF=bad(here), **GATE)

    wrapper.wait_for_event("cycle_finished", reason="revision_refused")

    assert (before, 503) == (here.shown(), wrapper.get("/readyz").status)
    assert "revision_refused" == wrapper.get("/readyz").json()["reason"]


def test_stays_ready_on_the_last_good_commit_when_a_tag_moves_to_a_refused_one(
    here: GitSite,
) -> None:
    """
    Nothing is published again, but each process starts the hooks for it, and has the
    reason: the daemon, a one-shot beside it, and one after it.
    """
    before = good(here)
    here.repository.tag("prd", before)
    wrapper = here.wrapper(GITSYNC_REF="prd", **GATE)
    here.wait_until_shown(before, wrapper)
    refused = here.repository.commit({f"{n}.py": "def" for n in range(25)})
    here.repository.tag("prd", refused)

    wrapper.wait_for_event("cycle_finished", reason="revision_refused")
    at = record(here)["published_at"]
    assert 25 == wrapper.status()["details"]["refused"]["files_refused"]
    assert (before, 200) == (here.shown(), wrapper.get("/readyz").status)
    hook = script(here.folder / "hook", f"touch {here.folder}/$GITSYNC_HASH")
    given = {**wrapper.environment, "GITSYNC_EXECHOOK_COMMAND": hook}
    for _ in ("beside it", "after it"):
        (ended,) = here.run_once(**given).find_events(
            "cycle_finished", reason="revision_refused"
        )
        assert refused in ended["error"]
        (here.folder / before).unlink()
        wrapper.kill()
    here.repository.tag("prd", before)
    wrapper.start()
    wait_until(
        lambda: 1 == wrapper.metrics().get('git_sync_count_total{status="success"}'),
        "it is taken back",
    )
    assert at == record(here)["published_at"]


@pytest.mark.parametrize(
    "mode", [{}, {"GITSYNC_ONE_TIME": "true"}], ids=["daemon", "one-shot"]
)
def test_a_gate_without_a_verdict_three_times_counts_as_refused(
    here: GitSite, mode: Texts
) -> None:
    gate = command(here, "grep -q def dag.py || exit 0\nkill -KILL $$")
    accepted = good(here)
    bad(here)
    wrapper = here.wrapper(GITSYNC_MAX_FAILURES="0", **mode, **gate)

    if mode:
        assert 0 == wrapper.wait_for_exit().code
        assert accepted == here.shown()
        return
    here.wait_until_shown(accepted, wrapper)
    assert "gate_undecided" == wrapper.wait_for_event("cycle_failed")["reason"]
    wrapper.wait_until_ready()
    here.wait_until_shown(good(here, 2), wrapper)


def test_a_command_is_asked_again_about_a_commit_that_a_fallback_replaces(
    here: GitSite,
) -> None:
    fixed = here.folder / "fixed"
    accepted = good(here)
    refused = bad(here)
    wrapper = here.wrapper(**command(here, f"! grep -q def dag.py || [ -e {fixed} ]"))
    here.wait_until_shown(accepted, wrapper)

    fixed.touch()
    wrapper.sync()

    assert refused == here.shown()


def test_a_commit_that_is_known_to_be_refused_is_not_checked_out_again(
    here: GitSite,
) -> None:
    here.repository.commit({"dag.py": "def (\n"}, whole=True, onto="")
    for number in range(3):
        bad(here, number)
    wrapper = here.wrapper(**GATE)
    wrapper.wait_for_event("cycle_finished", reason="revision_refused")
    before = len(wrapper.find_events("git_sync_said", message="starting up"))
    newest = bad(here, 4)

    wrapper.wait_for_event("revision_refused", revision=newest)
    wait_until(lambda: newest in str(wrapper.status()["problem"]), "all are refused")

    assert (
        before + 1
        == len(wrapper.find_events("git_sync_said", message="starting up"))
        > 2
    )


def test_fetches_the_history_if_the_server_refuses_commits_by_hash(
    here: GitSite,
) -> None:
    for number in range(22):
        accepted = good(here, number)
    for number in range(3):
        bad(here, number)
    here.repository.git("config", "uploadpack.allowAnySHA1InWant", "false")
    wrapper = here.wrapper(GITSYNC_GIT_CONFIG="protocol.version:0", **GATE)

    here.wait_until_shown(accepted, wrapper)
    wrapper.wait_until_ready()
    here.wait_until_shown(good(here, 2), wrapper)


def test_the_gate_gets_its_grammar_its_variables_and_its_time(here: GitSite) -> None:
    here.repository.commit({"dag.py": "type X = int\n"}, onto="")
    one_shot = here.wrapper(
        "--one-time",
        **GATE,
        GIT_SYNC_WRAPPER_GATE_GRAMMAR="3.11",
        GIT_SYNC_WRAPPER_LOG_LEVEL="error",
        GIT_SYNC_WRAPPER_ONE_SHOT_DEADLINE="2s",
    )
    assert 3 == one_shot.wait_for_exit().code
    assert {"error"} == {event["level"] for event in one_shot.events}
    assert "dag.py" in one_shot.find_events("sidecar_gave_up")[0]["error"]

    wrapper = here.publish(
        **command(here, '[ "$MOOD" != bad ] || exec sleep 60'),
        GIT_SYNC_WRAPPER_GATE_ENV="MOOD",
        GIT_SYNC_WRAPPER_GATE_TIMEOUT="1s",
    )
    wrapper.kill()
    wrapper.environment["MOOD"] = "bad"
    good(here)
    wrapper.start()

    assert (
        "1 s"
        in wrapper.wait_for_event("cycle_failed", reason="gate_undecided")["error"]
    )
