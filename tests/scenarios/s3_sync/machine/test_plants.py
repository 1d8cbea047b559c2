"""
Whatever a neighbor plants at the paths that s3-sync writes on its volume, it writes
nowhere else; what it cannot replace, an error names.
"""

import os
from pathlib import Path

import pytest

from tests import Bodies
from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.machine.plants import PLANTS, Canary, plant, remove
from tests.support.machine.users import as_user
from tests.support.s3_sync.scripted import new_content
from tests.support.s3_sync.shelf import RELEASE, Shelf
from tests.support.s3_sync.snapshots import consumed

ENV = Path("/usr/bin/env")
"""Runs the program of its arguments."""
# The names at each depth that s3-sync writes: {name} is what is shown, {next} what will
# be.
PLACES: dict[str, list[str]] = {
    "listing": [
        ".s3-sync",
        """.s3-sync/lock .s3-sync/staging .s3-sync/snapshots .s3-sync/managed
        .s3-sync/.managed.new .s3-sync/published.json .s3-sync/.published.json.new
        .s3-sync/.airflowignore .s3-sync/..airflowignore.new""",
    ],
    "release": [
        """current current.next-snapshot .s3-sync/lock .s3-sync/staging
        .s3-sync/snapshots .s3-sync/published.json""",
        """{store}/ask.sock {store}/{name} {store}/{name}.managed {store}/{name}.asked
        {store}/.{name}.managed.new {store}/{next} {store}/{next}.managed
        {store}/{next}.asked""",
    ],
}


def change(s3: FakeS3, source: str) -> tuple[str, Bodies]:
    """Change the source; return the name of a release, and the files."""
    files = {"a.py": new_content(), "pkg/b.py": new_content()}
    if source == "release":
        return Shelf(s3).publish(files).revision, files
    s3.put_all(files, "dags/")
    return "", files


def heal(daemon: Daemon, files: Bodies, planted: set[str]) -> None:
    """
    Run cycles until these files are shown, and remove what an error names, as its
    operator would.
    """
    for _ in range(len(planted) + 6):
        error = str(daemon.sync().get("error", ""))
        if (not error and daemon.is_ready()) and files == consumed(daemon.target):
            return
        named = [name for name in planted if os.path.basename(name) in error]
        if named:
            found = max(named, key=len)
            planted.remove(found)
            remove(daemon.target / found)
    raise AssertionError(f"{planted}\n{daemon.log()}")


@pytest.mark.sample(10)
@pytest.mark.parametrize("is_running", [True, False], ids=["running", "stopped"])
@pytest.mark.parametrize("kind", PLANTS)
@pytest.mark.parametrize("source", PLACES)
def test_what_is_planted_is_replaced_or_named_and_leads_nowhere(
    s3: FakeS3,
    start: StartDaemon,
    open_folder: Path,
    source: str,
    kind: str,
    is_running: bool,
) -> None:
    s3.objects.clear()
    canary = Canary(open_folder / "elsewhere")
    target = open_folder / "dags"
    target.mkdir()
    target.chmod(0o777)
    wrapper: tuple[str, ...] = ()
    if kind == "file of another uid":
        wrapper = (str(as_user(open_folder, ENV, 50000, 0)),)
    shown, _ = change(s3, source)
    daemon = start(
        RELEASE if source == "release" else {}, target=target, wrapper=wrapper
    ).until_synced()
    for names in PLACES[source]:
        coming, files = change(s3, source)
        if not is_running:
            daemon.kill()
        planted = {
            *names.format(store=".s3-sync/snapshots", name=shown, next=coming).split()
        }
        for name in sorted(planted):
            plant(kind, target / name, canary)
        if not is_running:
            daemon.start().wait_for_event(("cycle_finished", "cycle_failed"))

        heal(daemon, files, planted)

        canary.assert_untouched()
        shown = coming
    assert [] == daemon.find_events("cycle_failed", reason="bug")
