"""
A server that falls silent, or nearly so, under the deadlines that a user has: no setting is short.
"""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.weather import LAYOUTS, Scene
from tests.support.fake_s3 import is_get, is_list
from tests.support.fault_proxy import FaultProxy
from tests.support.faults import drip, hang
from tests.support.loopback import Fault, Match
from tests.support.servers import RcloneServer

SLOW = {
    "silence": (hang(), is_list),
    "silence in the object": (hang(after=3), is_get()),
    "listing that drips": (drip(1, 1), is_list),
    "object that drips": (drip(1, 1), is_get()),
}


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", SLOW)
def test_a_request_that_takes_too_long_is_named_long_before_the_cycle_is_abandoned(
    rclone: RcloneServer, tmp_path: Path, name: str, layout: str
) -> None:
    fault: Fault
    match: Match
    fault, match = SLOW[name]
    with FaultProxy(rclone) as proxy:
        scene = Scene(rclone, proxy, layout, tmp_path)
        with scene.daemon as daemon:
            scene.begin()
            before = scene.visible
            scene.change()
            proxy.inject(fault, match)
            after = len(daemon.events)
            daemon.sighup()

            failed = daemon.wait_for_event("cycle_failed", 120, after)

            assert failed["reason"] == "request_timeout"
            assert scene.wounds(before) == []
            assert daemon.get("/readyz").json()["reason"] == "request_timeout"
            proxy.heal()
            assert scene.is_in_step()
