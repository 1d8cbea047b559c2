"""
Commands that write releases, stopped at each of their requests.

They never report success, lose nothing, and complete the work when they run again.
"""

import itertools
import os
import signal
import threading
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.s3_sync.publish.place import Place
from tests.scenarios.s3_sync.publish.site import PRUNE, Site
from tests.support.aws.writable_s3 import is_write
from tests.support.forks import Command
from tests.support.http.faults import first
from tests.support.http.loopback import Exchange
from tests.support.s3_sync.publishing import write_files
from tests.support.s3_sync.releases import make_release

OLD = {"a.py": b"print('old')\n" * 50, "sql/b.sql": b"select 1;\n" * 500}
NEW = {"a.py": b"print('new')\n" * 50, "c.py": b"print('c')\n" * 400}
OTHER = {"other.py": b"print('other')\n"}
SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 128 + signal.SIGTERM}
# Each command, and the current release before and after it.
DEEDS = {
    "publish": (["{dags}"], OLD, NEW),
    "rollback": ([make_release(OLD).revision], NEW, OLD),
    "prune-releases": (["--keep-count", "0", "--keep-for", "0s"], OLD, OLD),
}


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", DEEDS)
def test_a_command_stopped_at_any_request_loses_nothing_and_can_be_repeated(
    site: Site, counts: Counts, name: str
) -> None:
    stop_at_each_request(site, counts.stops, name)


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", DEEDS)
def test_a_command_stopped_at_a_real_server_loses_nothing_and_can_be_repeated(
    gated: Place, name: str
) -> None:
    stop_at_each_request(gated, 2, name)


@pytest.mark.usefixtures("only_in_full")
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("step", [1, -1])
def test_what_is_published_beside_a_prune_is_there_or_the_prune_says_what_lacks(
    gated: Place, step: int
) -> None:
    """It would be removed; at each request of one command, the other one runs."""
    publish = ("publish", write_files(gated.dags, NEW))
    one, other = (publish, PRUNE)[::step]

    for number in itertools.count(1):
        gated.begin_with(NEW, OTHER, OLD)
        gated.s3.forget()
        gated.s3.inject(
            first(lambda: gated.told(*other)),
            lambda _: len(gated.s3.requests) == number,  # noqa: B023 - in this turn
            times=1,
        )
        ran = gated.told(*one)
        if len(gated.s3.requests) < number:
            break
        if ran.code:
            gated.succeed(*publish)
        assert NEW == gated.current()


def stop_at_each_request(site: Site | Place, stops: int, name: str) -> None:
    """
    Stop a command at each of its requests, in so many ways, and run it again.

    Before each write, all releases are complete, and one is current.
    """
    bucket = site.s3
    temporary = Path(site.environment["TMPDIR"])
    temporary.mkdir()
    arguments, before, after = DEEDS[name]
    dags = write_files(site.dags, NEW)
    site.begin_with(OLD, OTHER, before)

    def start() -> Command:
        return site.begin([name, *(word.format(dags=dags) for word in arguments)])

    def stopped(number: int, stopping: signal.Signals, is_done: bool) -> Command:
        """Stop the command at a request, done or not, whose answer is lost."""
        began = threading.Event()

        def stop(exchange: Exchange) -> None:
            began.wait(30)
            if is_done:
                exchange.good()
            os.kill(command.pid, stopping)
            exchange.reset()

        bucket.inject(stop, lambda _: len(bucket.requests) == number, times=1)
        command = start()
        began.set()
        return command

    bucket.forget()
    bucket.inject(first(site.current), is_write())
    assert 0 == (command := start()).wait(), command.err
    requests, keys = len(bucket.requests), site.bodies().keys()
    assert after == site.current()
    ways = list(itertools.product(SIGNALS, (False, True)))

    for number in range(1, requests + 1):
        for turn in range(stops):
            stopping, is_done = ways[(number + turn) % len(ways)]
            site.begin_with(OLD, OTHER, before)
            bucket.forget()
            command = stopped(number, stopping, is_done)
            at = f"{stopping.name} at request {number}, {is_done=}"
            assert SIGNALS[stopping] == command.wait(), f"{at}: {command.err}"
            assert "" == command.out, at
            assert [] == [*filter(Path.is_file, temporary.rglob("*"))], at
            assert site.current() in (before, after), at
            assert 0 == (command := start()).wait(), f"{at}: {command.err}"
            assert after == site.current(), at
            assert keys == site.bodies().keys(), at
