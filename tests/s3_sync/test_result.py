"""What a cycle has done, and which failures are the endpoint's."""

from s3_sync.result import FAILURE_STREAK, CycleResult
from s3_sync.s3.refusals import ObjectError
from s3_sync.s3.wire import WireError
from sidecar_runtime.errors import SidecarError


def test_a_success_between_ends_a_streak() -> None:
    result = CycleResult()
    lost = WireError("connection_lost", "x")

    for number in range(3 * FAILURE_STREAK):
        result.fail(f"{number}", lost)
        if number % 5 == 4:
            result.succeed("a", is_published=True, is_healed=False, is_new=True)

    assert 3 * FAILURE_STREAK == len(result.failed)


def test_no_number_of_refused_objects_is_a_reason_not_to_try_the_next() -> None:
    result = CycleResult()

    for number in range(1000):
        result.fail(f"{number}", ObjectError("access_denied_get", "x"))

    assert 1000 == len(result.failed)


def test_work_besides_is_added() -> None:
    failure = SidecarError("x", "y")
    result = CycleResult(published=1, deleted=2, healed=3, blocked={"a"}, failed={"b": failure})

    more = CycleResult(published=10, deleted=20, healed=30, blocked={"c"}, failed={"d": failure})
    result.add(more)

    assert (11, 22, 33) == (result.published, result.deleted, result.healed)
    assert ({"a", "c"}, {"b", "d"}) == (result.blocked, set(result.failed))


def test_what_was_got_for_others_to_publish_is_not_counted_as_published() -> None:
    result = CycleResult(published=1, downloaded_bytes=5)
    more = CycleResult(published=10, adopted=10, deleted=10, healed=10)

    result.take_over(more)
    result.take_over(CycleResult(downloaded_bytes=7, blocked={"c"}))

    assert (1, 12, {"c"}) == (result.published, result.downloaded_bytes, result.blocked)
    assert (0, 0, 0) == (result.adopted, result.deleted, result.healed)
