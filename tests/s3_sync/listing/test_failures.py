"""Which files fail again and again, and what waits for them."""

import pytest

from s3_sync.listing.failures import FAILED_CYCLES, NAMED_PATHS, Failures
from sidecar_runtime.errors import SidecarError
from tests.runtime.recording import Log

DENIED = SidecarError("object_denied", "may not read it")
WANTED = {"a.py", "b.py", "c.py"}


@pytest.fixture
def failures() -> Failures:
    return Failures()


def fail(failures: Failures, *paths: str, cycles: int = 1) -> None:
    for _ in range(cycles):
        failures.note(dict.fromkeys(paths, DENIED))


def test_nothing_has_failed_at_first(failures: Failures) -> None:
    assert [] == list(failures.paths) and set() == failures.given_up(WANTED)


def test_what_failed_last_is_known(failures: Failures) -> None:
    fail(failures, "a.py", "b.py")
    fail(failures, "b.py")

    assert {"b.py"} == set(failures.paths)


def test_what_fails_again_and_again_is_given_up(failures: Failures, log: Log) -> None:
    fail(failures, "a.py", cycles=FAILED_CYCLES - 1)
    assert set() == failures.given_up(WANTED)

    fail(failures, "a.py")

    assert {"a.py"} == failures.given_up(WANTED)


def test_one_success_in_between_starts_the_count_over(failures: Failures) -> None:
    fail(failures, "a.py", cycles=FAILED_CYCLES)
    fail(failures, "b.py")
    fail(failures, "a.py", cycles=FAILED_CYCLES - 1)

    assert set() == failures.given_up(WANTED)


def test_where_all_fail_nothing_is_given_up(failures: Failures) -> None:
    fail(failures, *WANTED, cycles=FAILED_CYCLES)

    assert set() == failures.given_up(WANTED)
    assert WANTED == failures.given_up({*WANTED, "d.py"})


def test_each_is_named_once_while_it_fails(failures: Failures, log: Log) -> None:
    fail(failures, "a.py", cycles=3)
    fail(failures, "a.py", "b.py")
    fail(failures)
    fail(failures, "a.py")

    assert ["a.py", "b.py", "a.py"] == [event["path"] for event in log.events("object_failed")]
    assert {"level": "warning", "reason": "object_denied", "error": "may not read it"}.items() <= (
        log.events("object_failed")[0].items()
    )


def test_not_more_are_named_than_anybody_reads(failures: Failures, log: Log) -> None:
    fail(failures, *(f"{number}.py" for number in range(NAMED_PATHS * 2)))

    assert NAMED_PATHS == len(log.events("object_failed"))
    assert NAMED_PATHS * 2 == len(failures.paths)
