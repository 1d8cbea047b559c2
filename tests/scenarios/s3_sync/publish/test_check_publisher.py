"""`check-publisher.sh`: whether a store and a role can publish, by doing it."""

from pathlib import Path

import pytest

from tests.scenarios.s3_sync.publish.place import Place
from tests.scenarios.s3_sync.publish.site import A, B, Site
from tests.support.aws.fake_s3 import error
from tests.support.aws.servers import RcloneServer
from tests.support.aws.writable_s3 import Conditions, is_write
from tests.support.http.loopback import Request
from tests.support.s3_sync.forked import ForkServer
from tests.support.s3_sync.publishing import Publishing, Ran, write_files

ROOT = Path(__file__).parents[4]
PROGRAM = ROOT / "charts-snippets/ci/check-publisher.sh"
CAN = "This store and role can publish to"


def check(publisher: Publishing) -> Ran:
    return publisher.run(publisher.url, program=PROGRAM)


def test_says_that_it_can_and_leaves_nothing_behind(place: Place) -> None:
    ran = check(place)

    assert 0 == ran.code, ran
    assert 3 == ran.out.count("ok    ") and CAN in ran.out, ran
    assert {} == place.bodies()
    place.publish(A)
    assert A == place.current()


@pytest.mark.parametrize(
    ("conditions", "step", "reason"),
    [
        ("ignored", "first release", "no conditional writes"),
        ("refused", "first release", "no conditional writes"),
        ("versioned", "first release", "no conditional writes"),
        ("unquoted", "", ""),
    ],
)
def test_says_which_condition_a_store_does_not_obey(
    site: Site, conditions: Conditions, step: str, reason: str
) -> None:
    site.s3.conditions = conditions

    ran = check(site)

    assert (3 if reason else 0) == ran.code, ran
    assert reason in ran.err and (CAN in ran.out) == (not reason), ran
    assert f"FAIL  a {step}" in ran.out or not step, ran


def test_names_the_next_release_if_only_that_is_refused(site: Site) -> None:
    """As by localbucket 1.2.1, which ignores If-Match."""

    def is_replaced(request: Request) -> bool:
        return "if-match" in request.headers

    site.s3.inject(error(412, "PreconditionFailed"), is_replaced)

    ran = check(site)

    assert 3 == ran.code, ran
    assert "ok    a first release" in ran.out and "FAIL  the next release" in ran.out
    assert "the store refuses" in ran.err and CAN not in ran.out


def test_a_role_that_may_not_delete_can_publish_beside_what_it_has_left(
    site: Site,
) -> None:
    """Pods never show it: the name is reserved."""
    site.s3.inject(error(403, "AccessDenied"), lambda one: one.method == "DELETE")

    ran = check(site)

    assert 0 == ran.code and "what was written stays" in ran.out, ran
    assert 5 == len(site.s3.objects)
    assert all("/.s3-sync/check-" in key for key in site.s3.objects)
    site.publish(B)
    assert B == site.current()


def test_names_what_the_role_may_not_do(site: Site) -> None:
    site.s3.inject(error(403, "AccessDenied"), is_write())

    ran = check(site)

    assert 3 == ran.code and "s3:PutObject" in ran.err, ran
    assert CAN not in ran.out


def test_rclone_cannot(tmp_path: Path, forks: ForkServer) -> None:
    """It ignores conditions."""
    with RcloneServer(tmp_path) as server:
        bucket = server.new_bucket("releases")
        publisher = Publishing(server, bucket, tmp_path / "home", forks=forks)

        ran = check(publisher)
        assert 3 == ran.code and "no conditional writes" in ran.err, ran
        dags = write_files(tmp_path / "dags", A)
        publisher.fails("store_unsupported", "publish", dags)
