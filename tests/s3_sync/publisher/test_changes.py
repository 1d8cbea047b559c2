"""Comparing the files of two releases."""

from hypothesis import given
from hypothesis import strategies as st

from s3_sync.publisher.changes import ReleaseChanges, compare, compare_dags
from s3_sync.release.facts import Checked
from tests.support.s3_sync.releases import AT

contents = st.dictionaries(st.sampled_from("abcdef"), st.sampled_from(["1", "2"]))


@given(contents, contents)
def test_changes_turn_before_into_after(before: dict[str, str], after: dict[str, str]) -> None:
    changes = compare(before, after)

    made = {path: text for path, text in before.items() if path not in changes.removed}
    made |= {path: after[path] for path in (*changes.added, *changes.changed)}
    assert after == made
    assert bool(changes) == (before != after)
    assert all(before[path] != after[path] for path in changes.changed)
    assert not set(changes.added) & before.keys()


NO_DAGS = Checked("3.3.2", AT, 0)
DAGS = Checked("3.3.2", AT, 2, ("orders", "sales"))
NOT_LOADED = Checked("3.3.2", AT, 0, files_not_loaded=1)
TOO_MANY = Checked("3.3.2", AT, 9_000)


def test_a_release_without_dags_adds_or_removes_all() -> None:
    removed, added = compare_dags(DAGS, NO_DAGS), compare_dags(NO_DAGS, DAGS)

    assert removed is not None and DAGS.dag_ids == removed.removed
    assert added is not None and DAGS.dag_ids == added.added


def test_changes_of_dags_are_unknown_unless_both_lists_are_complete() -> None:
    assert [None] * 4 == [
        compare_dags(*pair)
        for pair in ((DAGS, NOT_LOADED), (TOO_MANY, DAGS), (None, DAGS), (DAGS, None))
    ]


def test_lists_changes_up_to_the_limit_and_counts_the_rest() -> None:
    changes = ReleaseChanges(("a", "b"), ("c",), ("d",))

    assert "2 added, 1 changed, 1 removed" == str(changes)
    assert ["  + a", "  + b", "  ~ c", "  - d"] == changes.lines()
    assert ["  + a", "  and 3 more"] == changes.lines(1)
