"""The result of a cycle, and which failures count against the endpoint."""

from s3_sync.result import FAILURE_STREAK, CycleResult
from s3_sync.s3.refusals import ObjectError
from s3_sync.s3.wire import WireError
from sidecar_runtime.errors import SidecarError


def test_a_success_ends_a_streak_of_failures() -> None:
    result = CycleResult()
    lost = WireError("connection_lost", "x")

    for number in range(3 * FAILURE_STREAK):
        result.fail(f"{number}", lost)
        if number % 5 == 4:
            result.succeed("a", is_published=True, is_healed=False, is_new=True)

    assert 3 * FAILURE_STREAK == len(result.failed)


def test_refused_objects_never_form_a_streak_of_failures() -> None:
    result = CycleResult()

    for number in range(1000):
        result.fail(f"{number}", ObjectError("access_denied_get", "x"))

    assert 1000 == len(result.failed)


def test_add_sums_two_results() -> None:
    failure = SidecarError("x", "y")
    result = CycleResult(published=1, deleted=2, healed=3, blocked={"a"}, failed={"b": failure})

    more = CycleResult(published=10, deleted=20, healed=30, blocked={"c"}, failed={"d": failure})
    result.add(more)

    assert (11, 22, 33) == (result.published, result.deleted, result.healed)
    assert ({"a", "c"}, {"b", "d"}) == (result.blocked, set(result.failed))


def test_take_over_counts_downloads_but_not_publishes() -> None:
    result = CycleResult(published=1, downloaded_bytes=5)
    more = CycleResult(published=10, adopted=10, deleted=10, healed=10)

    result.take_over(more)
    result.take_over(CycleResult(downloaded_bytes=7, blocked={"c"}))

    assert (1, 12, {"c"}) == (result.published, result.downloaded_bytes, result.blocked)
    assert (0, 0, 0) == (result.adopted, result.deleted, result.healed)
