"""
A listing in pages of seven, and a bucket that changes while it is read, on real servers.
"""

from collections.abc import Iterator

import pytest

from tests.scenarios.s3_sync.weather import LAYOUTS, Scene
from tests.support.fake_s3 import is_get, is_list
from tests.support.fault_proxy import FaultProxy, arranged, backwards, crossed, stuck, twice
from tests.support.faults import first, reset
from tests.support.loopback import Request
from tests.support.scripted import new_content
from tests.support.servers import S3Server
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> S3Server:
    """
    One real server after the other.
    """
    server = request.getfixturevalue(request.param)
    assert isinstance(server, S3Server)
    return server


@pytest.fixture(scope="module", params=LAYOUTS)
def voyage(
    request: pytest.FixtureRequest, server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Scene]:
    """
    A daemon that reads its bucket in pages of seven.
    """
    with FaultProxy(server) as proxy:
        proxy.page_size = 7
        scene = Scene(server, proxy, request.param, tmp_path_factory.mktemp("pages"))
        with scene.daemon as daemon:
            daemon.wait_until_synced()
            yield scene


@pytest.fixture
def scene(voyage: Scene) -> Iterator[Scene]:
    """
    That daemon, in step with its bucket, which is as at first, before each test.
    """
    for path in [path for path in voyage.wanted if path not in voyage.at_first]:
        voyage.delete(path)
    for path, body in voyage.at_first.items():
        if voyage.wanted.get(path) != body:
            voyage.put(path, body)
    wait_until(voyage.is_in_step, "the bucket is there as at first")
    yield voyage
    voyage.proxy.heal()


def pages_of(scene: Scene) -> int:
    """
    How many pages of seven the bucket fills.
    """
    return -(-len(scene.wanted) // 7)


def test_pages_of_seven_are_read_to_the_end(scene: Scene) -> None:
    assert scene.visible == scene.wanted
    for number in range(0, 16, 3):
        scene.delete(f"kept/{number:02}.py")
        scene.put(f"kept/{number:02}-more.py", new_content())
    scene.put("zzz.py", new_content())
    scene.proxy.forget()

    ended = scene.daemon.sync()

    assert ended["files_published"] == 7 and ended["files_deleted"] == 6
    assert scene.visible == scene.wanted
    # Twice: a deletion is confirmed by a second look.
    assert len(scene.proxy.seen(is_list)) == 2 * pages_of(scene) > 4
    scene.proxy.forget()
    assert scene.daemon.sync()["result"] == "unchanged"
    assert len(scene.proxy.seen(is_list)) == pages_of(scene)


def test_pages_that_end_with_the_bucket_leave_nothing_out(scene: Scene) -> None:
    """
    7, 14 and 21 keys: the last page is full, or empty.
    """
    for size in (21, 14, 7):
        for path in sorted(scene.wanted)[size:]:
            scene.delete(path)
        for number in range(size - len(scene.wanted)):
            scene.put(f"fill/{number}.py", new_content())
        assert len(scene.wanted) == size

        assert scene.is_in_step()


def test_pages_in_another_order_lose_nothing(scene: Scene) -> None:
    """
    The same keys: what else should happen than nothing?
    """
    before = scene.visible
    scene.proxy.inject(arranged(scene.proxy, backwards), is_list)

    ended = scene.cycle()

    assert scene.visible == before
    assert ended["event"] == "cycle_finished" or ended["reason"] == "listing_invalid"
    assert ended.get("files_published", 0) == 0


@pytest.mark.parametrize("name", ["twice", "stuck", "crossed"])
def test_pages_that_do_not_belong_together_change_nothing(
    scene: Scene, server: S3Server, name: str
) -> None:
    if name == "crossed" and server.name == "moto":
        return  # does not say which page it answers: nobody can tell
    fault = {
        "twice": arranged(scene.proxy, twice),
        "stuck": stuck(scene.proxy),
        "crossed": crossed(scene.proxy),
    }[name]
    before = scene.visible
    scene.put("a.py", new_content())
    scene.proxy.inject(fault, is_list)

    ended = scene.cycle()

    assert scene.wounds(before) == []
    assert ended.get("reason") == "listing_invalid", ended


def test_a_page_that_never_comes_changes_nothing(scene: Scene) -> None:
    """
    The first pages look like a smaller bucket.
    """

    def is_late(request: Request) -> bool:
        return is_list(request) and "continuation-token" in request.query

    before = scene.visible
    scene.change()
    scene.proxy.inject(reset(), is_late)

    ended = scene.cycle()

    assert ended["reason"] == "connection_lost"
    assert scene.visible == before


def test_a_bucket_that_changes_between_two_pages_comes_to_rest(scene: Scene) -> None:
    """
    A key of a page that was read is gone, one of a page to come is new: the next cycle has it all.
    """
    before = scene.visible

    def change() -> None:
        scene.delete("kept/01.py")
        scene.put("zzz.py", new_content())

    def is_second(request: Request) -> bool:
        return "continuation-token" in request.query

    scene.proxy.inject(first(change), is_second, times=1)

    scene.cycle()

    assert "kept/01.py" not in scene.wanted
    assert before.keys() - scene.visible.keys() <= {"kept/01.py"}
    wait_until(scene.is_in_step, "the change is there")


def test_an_object_that_changes_after_the_listing_comes_with_the_next_cycle(scene: Scene) -> None:
    before = scene.visible
    scene.put("a.py", new_content())
    scene.put("other.py", new_content())
    change = first(lambda: scene.put("a.py", new_content()))
    scene.proxy.inject(change, is_get("dags/a.py"), times=1)

    scene.cycle()

    visible = scene.visible
    assert visible == scene.wanted or scene.wounds(before) == []
    assert visible["a.py"] in (before["a.py"], scene.wanted["a.py"])
    wait_until(scene.is_in_step, "the change is there")
