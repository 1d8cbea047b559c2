"""
Readiness after a restart, if the published commit does not match the settings.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Readiness
from tests.git_sync_wrapper.cycling import DOWN, ONE, TWO, Start, Wrapper
from tests.support.scripts import script

REPO = "https://git.example.com/dags.git"
PINS_TWO = f"{{link}} shows {ONE}, but GITSYNC_REF pins {TWO}"
OTHER_SETTINGS = f"{ONE} was checked out with other git-sync settings"


class World(NamedTuple):
    """
    The settings before and after a restart, and the problem and shortfall that are reported until a
    cycle reaches the remote.
    """

    before: Mapping[str, str] = {}
    now: Mapping[str, str] = {}
    problem: str = ""
    shortfall: str = ""


WORLDS = {
    "the same": World(),
    "another pin": World(now={"GITSYNC_REF": TWO}, problem=PINS_TWO),
    "from pin to pin": World({"GITSYNC_REF": ONE}, {"GITSYNC_REF": TWO}, PINS_TWO),
    "the shown commit as pin": World(now={"GITSYNC_REF": ONE}),
    "a tag's own hash as pin": World({"GITSYNC_REF": TWO}, {"GITSYNC_REF": TWO}),
    "from pin to branch": World(
        {"GITSYNC_REF": ONE},
        {"GITSYNC_REF": "main"},
        shortfall=f"{ONE} was published for the ref {ONE}, but GITSYNC_REF is main",
    ),
    "another branch": World(
        {"GITSYNC_REF": "main"},
        {"GITSYNC_REF": "release"},
        shortfall=f"{ONE} was published for the ref main, but GITSYNC_REF is release",
    ),
    "another repository": World(
        now={"GITSYNC_REPO": "https://git.example.com/other.git"},
        problem=f"{{link}} shows {ONE} of {REPO}, but GITSYNC_REPO is another repository",
    ),
    "another server": World(
        now={"GITSYNC_REPO": "https://git.example.org/dags.git"},
        problem=f"{{link}} shows {ONE} of {REPO}, but GITSYNC_REPO is another repository",
    ),
    "the shown commit of another repository as pin": World(
        now={"GITSYNC_REPO": "https://git.example.org/dags.git", "GITSYNC_REF": ONE},
        shortfall=OTHER_SETTINGS,
    ),
    "other credentials": World(now={"GITSYNC_REPO": "https://me:token@git.example.com/dags.git"}),
    "no .git": World(
        now={"GITSYNC_REPO": "https://git.example.com/dags"}, shortfall=OTHER_SETTINGS
    ),
    "a slash at the end": World(
        now={"GITSYNC_REPO": "https://GIT.example.com/dags.git/"}, shortfall=OTHER_SETTINGS
    ),
    "another scheme": World(
        now={"GITSYNC_REPO": "ssh://git@git.example.com:2222/dags.git"}, shortfall=OTHER_SETTINGS
    ),
    "ssh, as scp writes it": World(
        now={"GITSYNC_REPO": "git@git.example.com:dags"}, shortfall=OTHER_SETTINGS
    ),
    "a token in the query": World(
        now={"GITSYNC_REPO": "https://git.example.com/dags.git?token=x"}, shortfall=OTHER_SETTINGS
    ),
    "submodules": World(now={"GITSYNC_SUBMODULES": "off"}, shortfall=OTHER_SETTINGS),
    "a part of the files": World(
        now={"GITSYNC_SPARSE_CHECKOUT_FILE": "/dev/null"}, shortfall=OTHER_SETTINGS
    ),
}


def restarted(start: Start, world: World, *, is_down: bool) -> Wrapper:
    start.published(**world.before).stop()
    wrapper = start(**world.now)
    if is_down:
        wrapper.lose_remote()
    return wrapper


def run(wrapper: Wrapper) -> Readiness:
    """Run a cycle, which may fail; return the readiness after it."""
    with suppress(SidecarError):
        wrapper.cycle()
    return wrapper.context.status.readiness


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_reports_how_the_published_commit_differs_from_settings(start: Start, world: World) -> None:
    wrapper = restarted(start, world, is_down=True)

    readiness = run(wrapper)

    problem = world.problem.format(link=wrapper.root / "repo")
    assert (problem, world.shortfall) == (readiness.problem, readiness.shortfall)
    assert (not problem, ONE) == (readiness.ready, readiness.revision)


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_the_first_successful_cycle_clears_the_difference(start: Start, world: World) -> None:
    wrapper = restarted(start, world, is_down=False)
    if world.problem and wrapper.context.options.is_pinned:
        wrapper.commit(TWO)

    assert (True, "") == (run(wrapper).ready, run(wrapper).shortfall)
    runs = wrapper.runs()
    wrapper.cycle()
    assert runs == wrapper.runs(), "the published commit is recorded with the new settings"
    wrapper.stop()
    again = start(**world.now)
    again.remote.error = DOWN
    assert (True, "") == (run(again).ready, run(again).shortfall)


def test_is_not_ready_if_the_restored_link_shows_another_commit_than_pinned(start: Start) -> None:
    wrapper = restarted(start, WORLDS["another pin"], is_down=True)
    (wrapper.root / "repo").unlink()

    assert [False, False] == [run(wrapper).ready for _ in range(2)]


@pytest.mark.parametrize("name", ["another pin", "another repository", "another branch"])
def test_a_standby_with_new_settings_is_ready_for_a_rolling_update(start: Start, name: str) -> None:
    """The lock holder ends only once the standby is ready; then the new settings apply."""
    world = WORLDS[name]
    first = start.published(**world.before)
    second = start(**world.now)

    readiness = run(second)

    said = (world.problem or world.shortfall).format(link=second.root / "repo")
    assert (True, said) == (readiness.ready, readiness.shortfall)
    first.stop()
    second.commit(TWO)
    assert (TWO, "") == (run(second).revision, run(second).shortfall)


def test_a_one_shot_does_not_accept_a_commit_of_another_repository(
    start: Start, tmp_path: Path
) -> None:
    """Not even if the gate refuses the new commit, which here has no parent."""
    world = WORLDS["another repository"]
    git = script(tmp_path / "git", '[ "$1" != cat-file ] || exec echo; exec git "$@"')
    one_shot = {"GITSYNC_ONE_TIME": "true", "GIT_SYNC_WRAPPER_GATE": "syntax", "GITSYNC_GIT": git}
    wrapper = restarted(start, world._replace(now={**world.now, **one_shot}), is_down=False)
    wrapper.commit(TWO, "def\n")

    outcome = wrapper.cycle()

    assert ("refused", "", False) == (outcome.result, outcome.revision, outcome.is_enough)
