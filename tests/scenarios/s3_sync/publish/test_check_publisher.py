"""`check-publisher.sh`: whether a store and a role can publish, by doing it."""

from pathlib import Path

from tests.scenarios.s3_sync.publish.place import Place
from tests.scenarios.s3_sync.publish.site import B, Site
from tests.support.aws.fake_s3 import error
from tests.support.aws.servers import RcloneServer
from tests.support.s3_sync.forked import ForkServer
from tests.support.s3_sync.publishing import Publishing, Ran

ROOT = Path(__file__).parents[4]
PROGRAM = ROOT / "charts-snippets/ci/check-publisher.sh"


def check(publisher: Publishing) -> Ran:
    return publisher.run(publisher.url, program=PROGRAM)


def test_says_that_it_can_and_leaves_nothing_behind(place: Place) -> None:
    ran = check(place)

    assert 0 == ran.code and 3 == ran.out.count("ok    "), ran
    assert "This store and role can publish to" in ran.out
    assert {} == place.bodies()


def test_names_the_next_release_if_only_that_is_refused(site: Site) -> None:
    """As by localbucket 1.2.1, which ignores If-Match."""

    refused = error(412, "PreconditionFailed")
    site.s3.inject(refused, lambda one: "if-match" in one.headers)

    ran = check(site)

    assert 3 == ran.code and "the store refuses" in ran.err, ran
    assert "ok    a first release" in ran.out and "FAIL  the next release" in ran.out


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


def test_rclone_cannot(tmp_path: Path, forks: ForkServer) -> None:
    """It ignores conditions."""
    with RcloneServer(tmp_path) as server:
        ran = check(Place(server, tmp_path, forks))

    assert 3 == ran.code and "no conditional writes" in ran.err, ran
