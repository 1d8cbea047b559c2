"""
One cycle: what is asked, run, shown and announced, and what a failure means.

A shell script stands for git-sync, a list of answers for the remote; all else is real.
"""

import dataclasses
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from git_sync_wrapper.context import Context, GitSyncExitError, Past
from git_sync_wrapper.cycle import Session
from git_sync_wrapper.engine.engine import Engine
from git_sync_wrapper.error_file import ErrorFile
from git_sync_wrapper.flags.options import read_options
from git_sync_wrapper.hooks.runners import Hooks
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.metrics import WrapperMetrics
from git_sync_wrapper.settings import load_settings
from git_sync_wrapper.status import Status
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.gate.checks import command_check
from sidecar_runtime.gate.gate import LONGEST_REST_SECONDS, make_gate
from sidecar_runtime.health import Outcome
from sidecar_runtime.volume.lock import TargetLock
from tests.runtime.recording import Log
from tests.support.clocks import Clock
from tests.support.raising import raised
from tests.support.scripts import script
from tests.support.volumes import small_volume

ONE, TWO, THREE, FOUR = "1" * 40, "2" * 40, "3" * 40, "4" * 40
DOWN = SidecarError("remote_unreachable", "nobody there", "look")
# Checks out what the file `source` names, with a DAG that says its name; no file: it fails.
SCRIPT = """
echo run >> {folder}/runs
commit=$(cat {folder}/source 2>/dev/null) || {{ echo "Could not resolve host: x"; exit 1; }}
tree="$GITSYNC_ROOT/.worktrees/$commit"
mkdir -p "$tree"
cp {folder}/dag.py "$tree/dag.py" || {{ echo "No space left on device"; exit 1; }}
ln -sfn ".worktrees/$commit" "$GITSYNC_ROOT/candidate"
"""


class Remote:
    """What a poll says: what git-sync would find too, unless there is an error."""

    is_light = True

    def __init__(self, source: Path) -> None:
        self._source = source
        self.newer = ""
        self.error: SidecarError | None = None
        self.polls = 0

    def commit(self, fence: Fence) -> str:
        self.polls += 1
        if self.error:
            raise self.error
        return self.newer or self._source.read_text()

    def close(self) -> None:
        pass


class Wrapper:
    """One process: its context, and a session."""

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        self.root = folder / "root"
        self.is_stopped = False
        program = script(folder / "git-sync", SCRIPT.format(folder=folder))
        (folder / "dag.py").touch()
        environ = {
            "PATH": os.environ["PATH"],
            "GITSYNC_REPO": "https://git.example.com/dags.git",
            "GITSYNC_ROOT": str(self.root),
            "GITSYNC_LINK": "repo",
            "GIT_SYNC_WRAPPER_GIT_SYNC": program,
            **variables,
        }
        settings, _ = load_settings(environ)
        options = read_options([], environ)
        settings = dataclasses.replace(settings, one_shot=options.one_time)
        self.access = Access(settings, options, environ)
        self.access.start()
        self.metrics = WrapperMetrics("0", "0")
        self.remote = Remote(folder / "source")
        self.hooks = Hooks(
            options,
            environ,
            lambda commit: str(self.root / ".snapshots" / commit),
            self.metrics.git_sync.count_hook,
        )
        self.hooks.start()
        self.context = Context(
            settings=settings,
            options=options,
            environ=environ,
            engine=Engine(
                settings.git_sync, options, self.access, environ, root=f"{self.root}/.git-sync"
            ),
            poller=self.remote,
            gate=make_gate(settings, self.metrics.gate),
            hooks=self.hooks,
            metrics=self.metrics,
            status=Status(options.link, {}),
            report=ErrorFile(options.error_file),
            past=Past(TargetLock()),
        )
        self.session = Session(self.context)

    def commit(self, name: str, dag: str = "a = 1\n") -> None:
        (self.folder / "dag.py").write_text(dag)
        (self.folder / "source").write_text(name)

    def cycle(self, *, is_asked_for: bool = False) -> Outcome:
        return self.session.cycle(Fence(is_asked_for=is_asked_for))

    def failure(self) -> SidecarError:
        return raised(SidecarError, self.cycle)

    def runs(self) -> int:
        runs = self.folder / "runs"
        return len(runs.read_text().splitlines()) if runs.exists() else 0

    def shown(self) -> str:
        return os.path.basename(os.readlink(self.root / "repo"))

    def kept(self) -> set[str]:
        folder = self.root / ".snapshots"
        return {path.name for path in folder.iterdir() if path.is_dir()}

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0

    def stop(self) -> None:
        self.is_stopped = True
        self.session.close()
        self.hooks.stop()
        self.access.close()
        self.context.past.lock.release()


class Start:
    """Starts wrappers on one volume; all end with the test."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[Wrapper] = []

    def __call__(self, **variables: str) -> Wrapper:
        wrapper = Wrapper(self._folder, **variables)
        self._started.append(wrapper)
        return wrapper

    def published(self, **variables: str) -> Wrapper:
        """Start one that has shown its first commit."""
        wrapper = self(**variables)
        wrapper.commit(ONE)
        wrapper.cycle()
        return wrapper

    def stop(self) -> None:
        for wrapper in self._started:
            if not wrapper.is_stopped:
                wrapper.stop()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    start = Start(tmp_path)
    yield start
    start.stop()


def test_shows_the_first_commit_and_then_only_asks_but_for_a_person(start: Start) -> None:
    wrapper = start()
    wrapper.commit(ONE)

    assert [Outcome("changed", ONE), Outcome("unchanged", ONE), Outcome("unchanged", ONE)] == [
        wrapper.cycle() for _ in range(3)
    ]
    assert (ONE, 1, 3) == (wrapper.shown(), wrapper.runs(), wrapper.remote.polls)
    assert 1 == wrapper.count("git_sync_count_total", status="success")
    assert 2 == wrapper.count("git_sync_count_total", status="noop")
    assert 1 == wrapper.count("git_fetch_count_total")
    assert Outcome("unchanged", ONE) == wrapper.cycle(is_asked_for=True)
    assert 2 == wrapper.runs()


def test_follows_the_remote_forwards_and_back(start: Start) -> None:
    wrapper = start()
    shown = []
    for name in (ONE, TWO, ONE):
        wrapper.commit(name, f"name = {name!r}\n")
        wrapper.cycle()
        shown.append((wrapper.shown(), (wrapper.root / "repo/dag.py").read_text()))

    assert [(name, f"name = {name!r}\n") for name in (ONE, TWO, ONE)] == shown


def test_a_restart_runs_git_sync_only_for_something_new(start: Start) -> None:
    first = start.published()
    first.stop()

    second = start()

    assert Outcome("unchanged", ONE) == second.cycle()
    assert 1 == second.runs()
    second.commit(TWO)
    assert Outcome("changed", TWO) == second.cycle()


def test_a_failed_poll_is_git_syncs_to_judge(start: Start) -> None:
    wrapper = start.published()
    wrapper.remote.error = DOWN
    wrapper.commit(TWO)

    assert Outcome("changed", TWO) == wrapper.cycle()
    assert 1 == wrapper.count(
        "git_sync_wrapper_polls_total", sidecar="git-sync-wrapper", result="error"
    )


def test_a_fetch_that_is_behind_the_poll_is_made_again(start: Start) -> None:
    """A server of several replicas: one answers the poll, another git-sync's fetch."""
    wrapper = start.published()
    wrapper.remote.newer = TWO

    assert Outcome("unchanged", ONE) == wrapper.cycle()
    assert not wrapper.session.glance()
    wrapper.commit(TWO)
    assert Outcome("changed", TWO) == wrapper.cycle()
    assert wrapper.session.glance()


def test_a_published_commit_stays_when_all_fails_and_nothing_ends(start: Start) -> None:
    wrapper = start.published(GITSYNC_MAX_FAILURES="0", GITSYNC_ERROR_FILE="error")
    (wrapper.folder / "source").unlink()
    wrapper.remote.error = DOWN

    errors = [wrapper.failure() for _ in range(3)]
    assert not any(isinstance(error, GitSyncExitError) for error in errors)
    assert ["name_unresolved"] * 3 == [error.reason for error in errors]
    assert [None] * 3 == [error.retry_within_seconds for error in errors]
    assert (ONE, True) == (wrapper.shown(), wrapper.context.status.readiness.ready)
    assert 3 == json.loads((wrapper.root / "error").read_text())["Args"]["failCount"]
    wrapper.remote.error = None
    wrapper.commit(TWO)
    wrapper.cycle()
    assert not (wrapper.root / "error").exists()


@pytest.mark.parametrize(
    ("variables", "failures"),
    [
        ({}, 1),
        ({"GITSYNC_MAX_FAILURES": "3"}, 3),
        ({"GITSYNC_INIT_MAX_FAILURES": "2"}, 2),
        ({"GITSYNC_ONE_TIME": "true", "GITSYNC_MAX_FAILURES": "2"}, 2),
    ],
)
def test_before_anything_is_published_failures_end_it_as_git_sync(
    start: Start, variables: dict[str, str], failures: int
) -> None:
    wrapper = start(GITSYNC_INIT_PERIOD="3s", **variables)
    wrapper.remote.error = DOWN

    errors = [wrapper.failure() for _ in range(failures)]

    assert [3.0] * (failures - 1) == [error.retry_within_seconds for error in errors[:-1]]
    assert [False] * (failures - 1) + [True] == [
        isinstance(error, GitSyncExitError) for error in errors
    ]
    assert (1, "name_unresolved") == (errors[-1].exit_code, errors[-1].reason)


def test_a_one_shot_fails_though_an_older_commit_is_there(start: Start) -> None:
    first = start.published()
    first.stop()
    (first.folder / "source").unlink()

    second = start(GITSYNC_ONE_TIME="true")
    second.remote.error = DOWN

    assert isinstance(second.failure(), GitSyncExitError)


@pytest.mark.parametrize("is_first", [False, True])
def test_a_refused_commit_is_not_shown_nor_asked_for_again(
    start: Start, log: Log, monkeypatch: pytest.MonkeyPatch, is_first: bool
) -> None:
    # What is checked out here is in no repository that could tell.
    monkeypatch.setattr(Engine, "parent", lambda *_: "")
    wrapper = start(GIT_SYNC_WRAPPER_GATE="syntax")
    if not is_first:
        wrapper.commit(ONE)
        wrapper.cycle()
    wrapper.commit(TWO, "def\n")

    results = [wrapper.cycle().result for _ in range(3)]

    assert (["refused"] * 3, 1 if is_first else 2) == (results, wrapper.runs())
    assert (not is_first) == wrapper.context.status.readiness.ready
    assert is_first or ONE == wrapper.shown()
    assert 1 == len(log.events("revision_refused"))
    assert "refused" in wrapper.context.status.details()
    if not is_first:  # going back to what is published ends the refusal
        wrapper.commit(ONE)
        assert ["unchanged"] * 2 == [wrapper.cycle().result for _ in range(2)]
    wrapper.commit(THREE)
    assert Outcome("changed", THREE) == wrapper.cycle()
    assert "refused" not in wrapper.context.status.details()


def test_a_check_that_was_killed_once_holds_a_commit_up_for_one_cycle(
    start: Start, tmp_path: Path
) -> None:
    check = tmp_path / "check"
    check.write_text(f"#!/bin/sh\ntest -e {tmp_path}/twice && exit 0\nkill -KILL $$\n")
    check.chmod(0o755)
    (tmp_path / "twice").touch()
    wrapper = start.published(
        GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND=str(check)
    )
    (tmp_path / "twice").unlink()
    wrapper.commit(TWO)

    assert ("gate_undecided", ONE) == (wrapper.failure().reason, wrapper.shown())
    (tmp_path / "twice").touch()
    assert Outcome("changed", TWO) == wrapper.cycle()


@pytest.mark.parametrize("again", ["a person asks", "after a while"])
def test_what_a_command_refused_by_a_failure_of_its_own_is_asked_again(
    start: Start, again: str
) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND="true")
    gate = wrapper.context.gate
    assert gate is not None
    gate._clock = clock = Clock()
    gate._check = command_check(("false",))
    wrapper.commit(TWO)
    assert ["refused"] * 2 == [wrapper.cycle().result for _ in range(2)]
    gate._check = command_check(("true",))
    if again == "after a while":
        clock.seconds += LONGEST_REST_SECONDS

    assert Outcome("changed", TWO) == wrapper.cycle(is_asked_for=again == "a person asks")
    assert wrapper.context.status.readiness.ready


def test_whoever_asks_while_git_sync_fails_is_answered_once_it_is_back(start: Start) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_GATE="command", GIT_SYNC_WRAPPER_GATE_COMMAND="true")
    gate = wrapper.context.gate
    assert gate is not None
    gate._check = command_check(("false",))
    wrapper.commit(TWO)
    assert "refused" == wrapper.cycle().result
    gate._check = command_check(("true",))
    source, away = wrapper.folder / "source", wrapper.folder / "away"
    wrapper.remote.error = DOWN
    source.rename(away)
    raised(SidecarError, wrapper.session.cycle, Fence(is_asked_for=True))
    wrapper.remote.error = None
    away.rename(source)

    assert Outcome("changed", TWO) == wrapper.cycle()


def test_a_removed_link_is_turned_back_without_git_sync(start: Start, log: Log) -> None:
    wrapper = start.published()
    (wrapper.root / "repo").unlink()
    assert not wrapper.context.status.readiness.ready

    wrapper.cycle()

    assert (ONE, 1) == (wrapper.shown(), wrapper.runs())
    assert [ONE] == [event["revision"] for event in log.events("link_restored")]


def test_a_wiped_volume_is_filled_again(start: Start) -> None:
    wrapper = start.published()
    for path in (".snapshots", ".git-sync", "repo"):
        (wrapper.root / path).rename(wrapper.folder / f"gone{path}")

    assert Outcome("changed", ONE) == wrapper.cycle()
    assert ONE == wrapper.shown()


def test_other_settings_check_out_the_same_commit_again(start: Start) -> None:
    first = start()
    first.commit(ONE, "old = 1\n")
    first.cycle()
    first.stop()

    second = start(GITSYNC_SUBMODULES="off")
    second.commit(ONE, "new = 1\n")

    assert Outcome("changed", ONE) == second.cycle()
    assert (ONE, "new = 1\n") == (second.shown(), (second.root / "repo/dag.py").read_text())
    assert Outcome("unchanged", ONE) == second.cycle()


def test_a_second_wrapper_stands_by_and_knows_what_is_shown(start: Start, log: Log) -> None:
    first = start.published()
    second = start()

    outcome = second.cycle()

    assert "waiting" == outcome.result
    assert f"pid {os.getpid()} on" in str(outcome.counts["holder"])
    assert second.context.status.readiness.ready
    assert ONE == second.context.status.readiness.revision
    first.stop()
    assert Outcome("unchanged", ONE) == second.cycle()


@pytest.mark.parametrize("ref", ["main", ONE])
def test_a_one_shot_beside_a_holder_is_done_when_the_volume_shows_what_the_remote_has(
    start: Start, ref: str
) -> None:
    start.published()
    second = start(GITSYNC_ONE_TIME="true", GITSYNC_REF=ref)

    assert Outcome("unchanged", ONE) == second.cycle()
    assert (1, ONE) == (second.runs(), second.context.status.readiness.revision)


def test_a_one_shot_beside_a_holder_waits_for_the_newest_commit(start: Start) -> None:
    first = start.published()
    second = start(GITSYNC_ONE_TIME="true")
    second.remote.error = DOWN
    assert "waiting" == second.cycle().result
    second.remote.error = None
    second.commit(TWO)
    assert "waiting" == second.cycle().result

    first.cycle()

    assert Outcome("unchanged", TWO) == second.cycle()


def test_a_one_shot_beside_a_holder_with_a_fallback_is_done(start: Start) -> None:
    first = start.published()
    first.session.close()
    record = first.root / ".snapshots/published.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "fallback": TWO}))
    second = start(GITSYNC_ONE_TIME="true")
    second.commit(TWO)

    assert Outcome("unchanged", ONE) == second.cycle()


def test_a_full_commit_is_never_asked_for(start: Start) -> None:
    wrapper = start(GITSYNC_REF=ONE)
    wrapper.commit(ONE)

    assert ["changed", "unchanged"] == [wrapper.cycle().result for _ in range(2)]
    assert wrapper.session.glance()
    assert 0 == wrapper.remote.polls


def test_a_rehearsal_changes_nothing_turns_no_link_and_tells_no_hook(
    start: Start, tmp_path: Path, log: Log
) -> None:
    touched = tmp_path / "touched"
    settings = {"GIT_SYNC_WRAPPER_DRY_RUN": "true", "GITSYNC_TOUCH_FILE": str(touched)}
    empty = start(**settings)
    empty.commit(ONE)
    empty.cycle()
    assert (0, ONE) == (empty.runs(), log.events("plan_made")[0]["revision"])
    assert not os.path.lexists(empty.root / "repo")
    empty.stop()
    first = start.published()
    first.stop()

    assert Outcome("unchanged", ONE) == start(**settings).cycle()
    assert not touched.exists()
    (first.root / "repo").unlink()
    wrapper = start(**settings)
    wrapper.cycle()
    assert not os.path.lexists(wrapper.root / "repo")


def test_an_abandoned_cycle_is_no_failure(start: Start) -> None:
    wrapper = start(GITSYNC_ERROR_FILE="error")
    wrapper.commit(ONE)
    fence = Fence()
    fence.revoke()

    with pytest.raises(CycleAbandoned):
        wrapper.session.cycle(fence)

    assert 0 == wrapper.context.past.failures
    assert not (wrapper.root / "error").exists()


def test_a_one_shot_ends_with_its_hook(start: Start, tmp_path: Path, log: Log) -> None:
    wrapper = start(GITSYNC_ONE_TIME="true", GITSYNC_EXECHOOK_COMMAND="/bin/false")
    wrapper.commit(ONE)

    error = wrapper.failure()

    assert (1, "hook_failed", ONE) == (error.exit_code, error.reason, wrapper.shown())


def test_a_commit_that_the_hook_before_refuses_is_never_shown(start: Start, log: Log) -> None:
    wrapper = start(GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND="/bin/false", GITSYNC_MAX_FAILURES="-1")
    wrapper.commit(ONE)

    reasons = [wrapper.failure().reason for _ in range(2)]

    assert ["pre_publish_hook_failed"] * 2 == reasons
    assert not (wrapper.root / "repo").exists()


def test_a_glance_sees_what_a_cycle_would_find_to_do(start: Start) -> None:
    wrapper = start()
    wrapper.commit(ONE)
    assert not wrapper.session.glance()
    wrapper.cycle()

    assert wrapper.session.glance()
    assert 1 == wrapper.count("git_sync_count_total", status="noop")
    wrapper.remote.error = DOWN
    assert not wrapper.session.glance()
    wrapper.remote.error = None
    (wrapper.root / "repo").rename(wrapper.root / "other")
    assert not wrapper.session.glance()
    (wrapper.root / "other").rename(wrapper.root / "repo")
    assert wrapper.session.glance()
    (wrapper.root / ".snapshots").rename(wrapper.root / "gone")
    assert not wrapper.session.glance()
    (wrapper.root / "gone").rename(wrapper.root / ".snapshots")
    wrapper.commit(TWO)
    assert not wrapper.session.glance()


def test_an_old_commit_stays_for_as_long_as_git_sync_would_keep_it(start: Start) -> None:
    nothing_stays = {"GIT_SYNC_WRAPPER_RETAIN_COUNT": "0", "GIT_SYNC_WRAPPER_RETAIN_FOR": "0s"}
    wrapper = start(GITSYNC_STALE_WORKTREE_TIMEOUT="1h", **nothing_stays)
    for name in (ONE, TWO, TWO):
        wrapper.commit(name)
        wrapper.cycle()

    assert {ONE, TWO} <= set(os.listdir(wrapper.root / ".snapshots"))


@pytest.mark.parametrize("is_down", [False, True])
def test_an_old_commit_goes_when_its_time_has_come_though_nothing_is_new(
    start: Start, is_down: bool
) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_RETAIN_COUNT="0", GIT_SYNC_WRAPPER_RETAIN_FOR="10m")
    wrapper.commit(TWO)
    wrapper.cycle()
    assert {ONE, TWO} == wrapper.kept()
    os.utime(wrapper.root / ".snapshots" / ONE, (0, 0))
    if is_down:
        wrapper.remote.error = DOWN
        (wrapper.folder / "source").unlink()
        wrapper.failure()
    else:
        wrapper.cycle()

    assert {TWO} == wrapper.kept()


def test_while_nothing_is_shown_no_commit_goes(start: Start) -> None:
    wrapper = start.published(GIT_SYNC_WRAPPER_RETAIN_COUNT="0", GIT_SYNC_WRAPPER_RETAIN_FOR="0s")
    (wrapper.root / "repo").unlink()
    (wrapper.root / ".snapshots/published.json").unlink()
    (wrapper.folder / "source").unlink()
    wrapper.remote.error = DOWN

    wrapper.failure()

    assert {ONE} == wrapper.kept()


def test_room_is_made_before_git_sync_needs_it(start: Start, tmp_path: Path, log: Log) -> None:
    """The oldest goes first, and no more of them than must."""
    with small_volume(tmp_path / "root", "9m"):
        wrapper = start()
        for name in (ONE, TWO, THREE):
            wrapper.commit(name, name[0] * 2_000_000)
            wrapper.cycle()
        kept = wrapper.kept()
        wrapper.commit(FOUR, "4" * 2_000_000)
        assert Outcome("changed", FOUR) == wrapper.cycle()
        wrapper.stop()

        assert ({ONE, TWO, THREE}, {TWO, THREE, FOUR}) == (kept, wrapper.kept())
    assert [ONE] == [event["revision"] for event in log.events("snapshot_dropped")]


def test_a_commit_larger_than_all_before_finds_the_room_that_there_can_be(
    start: Start, tmp_path: Path, log: Log
) -> None:
    with small_volume(tmp_path / "root", "10m"):
        wrapper = start()
        for name, size in ((ONE, 1_000_000), (TWO, 1_000_000), (THREE, 7_500_000)):
            wrapper.commit(name, name[0] * size)
            assert Outcome("changed", name) == wrapper.cycle()
        wrapper.commit(FOUR, "4" * 11_000_000)
        assert "target_full" == wrapper.failure().reason
        assert THREE == wrapper.shown()
        wrapper.stop()

    assert [ONE, TWO] == [event["revision"] for event in log.events("snapshot_dropped")]


def test_a_volume_that_is_full_when_the_link_turns_gets_room_at_once(
    start: Start, tmp_path: Path, log: Log
) -> None:
    with small_volume(tmp_path / "root", "1m"):
        garbage, twice = tmp_path / "root/.git-sync/garbage", tmp_path / "twice"
        fill = f"test -e {twice} && exit; touch {twice}; cat /dev/zero > {garbage}; true"
        hook = script(tmp_path / "hook", fill)
        wrapper = start(GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND=hook)
        wrapper.commit(ONE)

        assert (Outcome("changed", ONE), 2) == (wrapper.cycle(), wrapper.runs())
        wrapper.stop()

    assert 1 == len(log.events("repository_thrown_away"))


def test_damage_that_git_cannot_repair_is_git_syncs_to_repair(start: Start, log: Log) -> None:
    """The script leaves no repository; nor is a commit asked for again once it is whole."""
    wrapper = start.published()
    (wrapper.root / "repo/dag.py").write_text("damaged")
    wrapper.remote.error = DOWN
    source = wrapper.folder / "source"
    source.rename(wrapper.folder / "away")
    asked = wrapper.session.cycle
    assert isinstance(raised(SidecarError, asked, Fence(is_asked_for=True)), SidecarError)
    assert not wrapper.context.status.readiness.ready
    assert not wrapper.session.glance()

    (wrapper.folder / "away").rename(source)
    wrapper.remote.error = None
    runs = wrapper.runs()
    assert ["unchanged"] * 2 == [wrapper.cycle().result for _ in range(2)]
    assert "a = 1\n" == (wrapper.root / "repo/dag.py").read_text()
    assert (True, runs + 1) == (wrapper.context.status.readiness.ready, wrapper.runs())
    assert 1 == len(log.events("damage_repaired"))
