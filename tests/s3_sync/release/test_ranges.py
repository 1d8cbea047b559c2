"""Choosing which parts of a bundle to request."""

from s3_sync.release.ranges import GAP_BYTES, join
from s3_sync.release.rows import File


def file(offset: int) -> File:
    return File(f"f{offset:09}", 10, 10, "0" * 64, "0644", offset)


def test_no_files_need_no_request() -> None:
    assert [] == join([])


def test_groups_neighbors_in_the_order_of_the_bundle() -> None:
    first, second, third = file(40), file(90), file(140 + GAP_BYTES // 2)

    assert [[first, second, third]] == join([third, first, second])


def test_requests_distant_files_separately() -> None:
    first = file(40)
    near, far = file(50 + GAP_BYTES), file(61 + 2 * GAP_BYTES)

    assert [[first, near], [far]] == join([first, near, far])
