"""
Two processes, one target: the second stands by and takes over.
"""

from pathlib import Path

from tests.scenarios.s3_sync.histories import Bucket
from tests.scenarios.s3_sync.model import difference, expect, read_tree
from tests.support.daemon import Daemon
from tests.support.servers import MotoServer


def test_second_daemon_stands_by_alive_and_ready_and_takes_over_from_a_killed_one(
    moto: MotoServer, tmp_path: Path
) -> None:
    bucket = Bucket(moto)
    bucket.put("a.py", b"a")
    target = tmp_path / "target"
    with Daemon(moto, bucket.name, target) as first:
        first.wait_until_synced()
        with Daemon(moto, bucket.name, target, interval="0.2") as second:
            waiting = second.wait_for_event("target_waiting")
            second.wait_until_ready()
            alive = second.get("/healthz").status
            bucket.put("b.py", b"b")
            first.sync()
            published_by_second = second.find_events("cycle_finished")
            first.kill()
            second.wait_for_event("target_acquired")
            bucket.put("c.py", b"c")
            bucket.delete("a.py")
            second.sync()

    assert str(first.pid) in str(waiting["holder"])
    assert 200 == alive
    assert [] == [event for event in published_by_second if event["result"] != "waiting"]
    assert [] == difference(expect(bucket.objects).files, read_tree(target))
    assert 1 == len(second.find_events("target_waiting"))


def test_target_is_free_after_sigterm(moto: MotoServer, tmp_path: Path) -> None:
    bucket = Bucket(moto)
    bucket.put("a.py", b"a")
    target = tmp_path / "target"
    with Daemon(moto, bucket.name, target) as first:
        first.wait_until_synced()
        with Daemon(moto, bucket.name, target, interval="0.2") as second:
            second.wait_for_event("target_waiting")
            assert 0 == first.terminate().code
            second.wait_for_event("target_acquired")
            second.wait_for_event("cycle_finished", result="unchanged")


def test_one_shot_takes_over_within_its_deadline(moto: MotoServer, tmp_path: Path) -> None:
    bucket = Bucket(moto)
    bucket.put("a.py", b"a")
    target = tmp_path / "target"
    with Daemon(moto, bucket.name, target) as first:
        first.wait_until_synced()
        settings = _one_shot("60s")
        with Daemon(moto, bucket.name, target, interval="0.2", settings=settings) as second:
            second.wait_for_event("target_waiting")
            first.kill()

            assert 0 == second.wait_for_exit().code


def test_one_shot_gives_up_at_its_deadline_while_another_daemon_owns_the_target(
    moto: MotoServer, tmp_path: Path
) -> None:
    bucket = Bucket(moto)
    bucket.put("a.py", b"a")
    target = tmp_path / "target"
    with Daemon(moto, bucket.name, target) as first:
        first.wait_until_synced()
        settings = _one_shot("2s")
        with Daemon(moto, bucket.name, target, interval="0.2", settings=settings) as second:
            waiting = second.wait_for_event("target_waiting")

            assert 3 == second.wait_for_exit(30).code
            assert str(first.pid) in str(waiting["holder"])
            assert first.is_running()
            assert "cycle_finished" == first.sync()["event"]


def _one_shot(deadline: str) -> dict[str, str | None]:
    return {"S3_SYNC_ONE_SHOT": "true", "S3_SYNC_ONE_SHOT_DEADLINE": deadline}
