"""
A post notices what its process should not do.
"""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from soak.post import Post
from tests.support.daemon import SidecarProcess
from tests.support.waiting import wait_until

FAKE = Path(__file__).with_name("fake_sidecar.py")


def post_with(fault: str, home: Path) -> Post:
    return Post("spared", SidecarProcess(FAKE, {"FAULT": fault}, home), is_spared=True)


def watch(post: Post) -> None:
    """
    Watch it for a while, and let it end.
    """
    with post:
        post.watch()
        wait_until(lambda: len(post.samples) >= 2 or post.flaws, "some looks", 60)
        post.stop()


def test_good_process_has_no_flaw(tmp_path: Path) -> None:
    post = post_with("none", tmp_path)

    watch(post)

    assert [] == post.flaws
    assert 7 == post.cycles
    assert post.probes >= 4
    assert {len(post.samples)} == {len({one.seconds for one in post.samples})}


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("/healthz answers 503", "/healthz answers 503"),
        ("/readyz answers 503", "/readyz answers 503"),
        ("ends", "it has ended by itself"),
        ("exit code 1", "SIGTERM ended it with code 1"),
        ("traceback", "stray lines in its log: ['Traceback"),
        ("bug", "a bug: "),
        ("chatter", "1001 lines of log"),
    ],
)
def test_each_fault_is_named(fault: str, said: str, tmp_path: Path) -> None:
    post = post_with(fault, tmp_path)

    watch(post)

    assert post.flaws
    assert all(said in flaw for flaw in post.flaws), post.flaws


def test_signals_are_no_flaw_and_what_was_said_before_a_kill_is_not_forgotten(
    tmp_path: Path,
) -> None:
    chance = Random(1)
    post = post_with("traceback", tmp_path)
    # A real sidecar takes it; this one would end.
    post.daemon.sighup = lambda: None  # type: ignore[method-assign]
    with post:
        post.watch()
        first = post.daemon.pid
        post.freeze(chance)
        assert first == post.daemon.pid
        post.kill(chance)
        second = post.daemon.pid
        post.terminate(chance)
        assert 3 == len({first, second, post.daemon.pid})
        post.stop()

    assert 3 == len(post.flaws)
    assert all("stray lines" in flaw for flaw in post.flaws)
