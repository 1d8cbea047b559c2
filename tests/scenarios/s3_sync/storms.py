"""The storms: what a network, a server, a volume and a clock can do for hours on end."""

import os
import shutil
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import count
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.weather import Scene, Storm
from tests.support.clocks import libfaketime
from tests.support.fake_s3 import error, is_get, is_list, redirect
from tests.support.fault_proxy import arranged, crossed, is_skewed, stuck, twice
from tests.support.faults import drip, first, flip_first_bit, hang, replace_body, reset, truncate
from tests.support.loopback import Fault, Match
from tests.support.program import own_port
from tests.support.scripted import new_content
from tests.support.volumes import disk, fill_up, mount, small_volume

NOBODY = 50001


def fault(reason: str, fault: Fault, match: Match, **settings: str) -> Storm:
    """Every answer of this kind is spoilt."""
    return Storm(
        reason, lambda scene: scene.proxy.inject(fault, match), settings=lambda folder: settings
    )


def pages(fault: Callable[..., Fault]) -> Storm:
    """A listing of several pages that is spoilt."""

    def begin(scene: Scene) -> None:
        scene.proxy.page_size = 7
        scene.proxy.inject(fault(scene.proxy), is_list)

    return Storm("listing_invalid", begin)


def change_before_download(scene: Scene) -> None:
    """Upload an object again in each moment between its listing and its download."""
    change = first(lambda: scene.put("a.py", new_content()))
    scene.proxy.inject(change, is_get("dags/a.py"))


IMPATIENT = {"S3_SYNC_TIMEOUT": "2s"}
SLOW_DOWN = error(503, "SlowDown", "Please reduce your request rate.")

NETWORK = {
    "truncated listing": fault("connection_lost", truncate(after=100), is_list),
    "object altered": fault("object_corrupt", replace_body(flip_first_bit), is_get()),
    "reset in the object": fault("connection_lost", reset(after=3), is_get()),
    "silence": fault("cycle_timeout", hang(), is_list, **IMPATIENT),
    "object that drips": fault("cycle_timeout", drip(1, 0.2), is_get(), **IMPATIENT),
    "redirected listing": fault(
        "redirect_refused", redirect(f"http://127.0.0.1:{own_port()}/"), is_list
    ),
    "throttled object": fault("throttled", SLOW_DOWN, is_get()),
    "object that changes after the listing": Storm("object_changing", change_before_download),
    "pages that come twice": pages(lambda proxy: arranged(proxy, twice)),
    "the first page instead of each": pages(stuck),
    "the third page instead of the second": pages(crossed),
    "nobody there": Storm(
        "endpoint_unreachable", lambda scene: scene.proxy.stop(), lambda scene: scene.proxy.start()
    ),
}


def volume(size: str) -> Callable[[Path], AbstractContextManager[Path]]:
    """A small volume in memory."""
    return lambda folder: small_volume(folder / "volume", size)


def take_inodes(scene: Scene) -> None:
    """Make empty files until there is no inode left."""
    (scene.place / "many").mkdir()
    for number in count():
        try:
            (scene.place / "many" / str(number)).touch()
        except OSError:
            return


def restart_read_only(scene: Scene) -> None:
    """
    Restart the daemon on a volume that was mounted read-only meanwhile.

    It cannot be while the daemon runs: it has a file open for writing.
    """
    scene.daemon.terminate()
    assert mount("-o", "remount,ro", str(scene.place))
    scene.daemon.start().wait_for_event("cycle_failed")


def fail_disk(scene: Scene) -> None:
    """Let the file system find an error: it turns read-only under all who have files open."""
    os.sync()
    assert mount("-o", "remount,abort", str(scene.place))


def replace_disk(scene: Scene) -> None:
    """Mount a good volume with the same files over the one that failed, in one step."""
    fresh = scene.place.parent / "fresh"
    fresh.mkdir()
    assert mount("-t", "tmpfs", "-o", "size=8m", "tmpfs", str(fresh))
    subprocess.run(["cp", "--archive", f"{scene.place}/.", str(fresh)], check=True)
    assert mount("--bind", str(fresh), str(scene.place))
    subprocess.run(["umount", str(fresh)], check=True)


def restart_as_stranger(scene: Scene) -> None:
    """Restart the daemon as a user of another group."""
    scene.daemon.terminate()
    scene.daemon.wrapper = as_user(NOBODY, NOBODY)
    scene.daemon.start().wait_for_event("cycle_failed")


def give_away(scene: Scene) -> None:
    """Give the volume to the group of that user, as Kubernetes does for an `fsGroup`."""
    target = str(scene.daemon.target)
    subprocess.run(["chgrp", "--recursive", str(NOBODY), target], check=True)
    subprocess.run(["chmod", "--recursive", "g+rwX", target], check=True)


def as_user(uid: int, gid: int) -> tuple[str, ...]:
    """
    A command that runs another as this user, who may read everything: Python may be in root's home.
    """
    setpriv = shutil.which("setpriv")
    if os.getuid() != 0 or setpriv is None:
        pytest.skip("another user needs root")
    kept = "-all,+dac_read_search"
    capabilities = [f"--{kind}={kept}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return (setpriv, f"--reuid={uid}", f"--regid={gid}", "--clear-groups", *capabilities)


def clock_settings(folder: Path) -> dict[str, str]:
    """
    The settings of a daemon whose clock is set by `set_clock`; its monotonic clock is the real one.
    """
    set_clock(folder, "+0")
    return {
        "LD_PRELOAD": str(libfaketime()),
        "FAKETIME_TIMESTAMP_FILE": str(folder / "clock"),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "NO_FAKE_STAT": "1",
    }


def set_clock(folder: Path, offset: str) -> None:
    """
    Set the clock, at once.

    Args:
        offset: from the true time, such as `+2d` or `-56y`.
    """
    following = folder / "clock.new"
    following.write_text(f"{offset}\n")
    following.rename(folder / "clock")


def clock(offset: str) -> Storm:
    """The clock jumps, and S3 refuses what is dated more than 15 minutes off."""

    def begin(scene: Scene) -> None:
        refusal = error(403, "RequestTimeTooSkewed", "The difference is too large.")
        scene.proxy.inject(refusal, is_skewed)
        set_clock(scene.place, offset)

    def end(scene: Scene) -> None:
        set_clock(scene.place, "+0")

    return Storm("clock_skew", begin, end, settings=clock_settings)


MACHINE = {
    "no room": Storm(
        "target_full",
        lambda scene: fill_up(scene.place / "foreign.bin"),
        lambda scene: (scene.place / "foreign.bin").unlink(),
        volume=volume("2m"),
    ),
    "no inodes": Storm(
        "target_full",
        take_inodes,
        lambda scene: shutil.rmtree(scene.place / "many"),
        volume=volume("4m,nr_inodes=300"),
    ),
    "read-only volume": Storm(
        "target_denied",
        restart_read_only,
        lambda scene: mount("-o", "remount,rw", str(scene.place)),
        volume=volume("4m"),
    ),
    "failed disk": Storm("target_denied", fail_disk, replace_disk, volume=disk),
    "user of another group": Storm("target_denied", restart_as_stranger, give_away),
    "clock two days ahead": clock("+2d"),
    "clock in 1970": clock("-56y"),
}

STORMS = NETWORK | MACHINE
