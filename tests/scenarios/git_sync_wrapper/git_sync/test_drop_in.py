"""The wrapper does what consumers, hooks and the chart expect of git-sync."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

from tests.support.daemon import ask
from tests.support.git.git_server import credentials_of
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer, LoopbackServer, Request
from tests.support.program import own_port
from tests.support.scripts import script
from tests.support.waiting import wait_until


class Hooked(LoopbackServer):
    """The receiver of a webhook."""

    def good_answer(self, request: Request) -> Answer:
        return Answer(200)

    def hashes(self) -> list[str]:
        return [request.headers["gitsync-hash"] for request in self.seen()]


def test_hooks_run_after_the_link_is_swapped_and_at_every_start(here: GitSite) -> None:
    """
    As with git-sync, the first sync of a process runs the hooks even if nothing is new,
    and a hook that takes long then runs for the newest commit only.
    """
    log = here.folder / "log"
    go_on = here.folder / "go-on"
    told = f'echo "$GITSYNC_HASH $(pwd -P) $(readlink {here.link})" >> {log}'
    command = script(
        here.folder / "hook", f"{told}\nuntil [ -e {go_on} ]; do sleep 0.1; done"
    )
    with Hooked() as hooked:
        wrapper = here.publish(
            GITSYNC_EXECHOOK_COMMAND=command,
            GITSYNC_WEBHOOK_URL=hooked.endpoint.replace("//", "//me:p%40ss@"),
            GITSYNC_TOUCH_FILE="touched",
        )
        first = here.repository.head()
        wait_until(lambda: _lines(log), "the first hook")
        passed_over = here.commit_revision(2)
        hooked.wait_for(count=2)
        second = here.commit_revision(3)
        hooked.wait_for(count=3)
        go_on.touch()
        wait_until(lambda: len(_lines(log)) >= 2, f"two hooks:\n{wrapper.log()}")
        wrapper.kill()
        (here.root / "touched").unlink()
        os.mkfifo(here.root / "touched")  # without a reader
        wrapper.start()
        hooked.wait_for(count=4)
        wrapper.sync()
        lines = wait_until(
            lambda: _lines(log) if len(_lines(log)) >= 3 else [], wrapper.log()
        )

        assert [first, passed_over, second, second] == hooked.hashes()
        assert {("me", "p@ss")} == {
            credentials_of(request) for request in hooked.seen()
        }
        assert "p%40ss" not in wrapper.log()
    assert [first, second, second] == [line.split()[0] for line in lines]
    for line in lines:
        commit, folder, link = line.split()
        assert commit in folder and commit in link


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def test_a_one_shot_waits_until_the_remote_is_reachable(here: GitSite) -> None:
    here.server.stop()
    wrapper = here.wrapper(GIT_SYNC_WRAPPER_ONE_SHOT="true")
    wrapper.wait_for_event("cycle_failed")
    here.server.start()

    assert 0 == wrapper.wait_for_exit().code
    assert here.repository.head() == here.shown()


def test_http_port_and_error_file_match_those_of_git_sync(here: GitSite) -> None:
    address = ("127.0.0.1", own_port())
    file = here.root / "error.json"
    here.server.inject(answer_with(Answer(503)))
    wrapper = here.wrapper(
        GITSYNC_HTTP_BIND=f"127.0.0.1:{address[1]}",
        GITSYNC_HTTP_METRICS="true",
        GITSYNC_ERROR_FILE="error.json",
    )
    wrapper.wait_for_event("cycle_failed")
    assert 503 == ask(address, "/").status
    assert 503 == ask(address, "/any/path").status
    assert 200 == ask(address, "/metrics").status
    wait_until(file.exists, f"an error file:\n{wrapper.log()}")
    assert {"Msg", "Err", "Args"} <= set(json.loads(file.read_text()))
    here.server.heal()
    here.wait_until_shown(here.repository.head(), wrapper)

    wait_until(lambda: not file.exists(), f"no error file:\n{wrapper.log()}")
    wait_until(lambda: ask(address, "/").status == 200, "the port says ready")
    metrics = ask(address, "/metrics").body
    assert '\ngit_sync_count_total{status="success"} 1.0\n' in metrics
    assert re.search(r'\ngit_sync_count_total\{status="error"\} [1-9]', metrics)
    assert re.search(r"\ngit_fetch_count_total [1-9]", metrics)
    here.server.stop()
    shutil.rmtree(here.root / ".git-sync")
    (here.link / "odd1.py").write_text("damaged")
    wrapper.send_signal(signal.SIGHUP)
    wrapper.wait_for_event("damage_found")
    wrapper.wait_for_event("cycle_failed", after=len(wrapper.events))
    assert 200 == ask(address, "/").status, "no restart would repair it"


def test_sync_on_signal_triggers_a_cycle(here: GitSite) -> None:
    """Beside variables that git-sync itself would refuse."""
    wrapper = here.publish(
        GITSYNC_PERIOD="3600",
        GITSYNC_SYNC_ON_SIGNAL="SIGUSR1",
        GITSYNC_GROUP_WRITE="yes",
        GIT_SYNC_DEPTH="",
    )
    commit = here.commit_revision(2)
    wrapper.send_signal(signal.SIGUSR1)

    here.wait_until_shown(commit, wrapper)
