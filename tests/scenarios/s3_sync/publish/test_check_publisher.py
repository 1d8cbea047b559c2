"""`s3-sync check-publisher`: whether a store and a role can publish, by doing it."""

from pathlib import Path

from tests.scenarios.s3_sync.publish.place import Place
from tests.scenarios.s3_sync.publish.site import B, Site
from tests.support.aws.fake_s3 import error
from tests.support.aws.servers import RcloneServer
from tests.support.aws.writable_s3 import is_delete


def test_says_that_it_can_and_leaves_nothing_behind(place: Place) -> None:
    place.publish(B)
    before = place.bodies()

    assert "possible" == place.succeed("check-publisher")["result"]
    assert before == place.bodies()


def test_names_the_next_release_if_only_that_is_refused(site: Site) -> None:
    """As by localbucket 1.2.1, which ignores If-Match."""

    site.s3.inject(
        error(412, "PreconditionFailed"), lambda one: "if-match" in one.headers
    )

    assert (
        "the next release (If-Match): the store refuses"
        in site.fails("condition_refused", "check-publisher").err
    )
    assert {} == site.s3.objects


def test_a_role_that_may_not_delete_can_publish_beside_what_it_has_left(
    site: Site,
) -> None:
    """Pods never show it: the name is reserved."""
    site.s3.inject(error(403, "AccessDenied"), is_delete)

    assert (
        "can publish. What the role may not delete stays: s3://"
        in site.run("check-publisher").out
    )
    assert 5 == len(site.s3.objects)
    assert all("/.s3-sync/check-" in key for key in site.s3.objects)
    site.publish(B)
    assert B == site.current()


def test_rclone_cannot(tmp_path: Path) -> None:
    """It ignores conditions."""
    with RcloneServer(tmp_path) as server:
        assert (
            "a first release (If-None-Match): the store"
            in Place(server, tmp_path).fails("store_unsupported", "check-publisher").err
        )
