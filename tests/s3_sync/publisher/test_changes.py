"""Comparing the files of two releases."""

from hypothesis import given
from hypothesis import strategies as st

from s3_sync.publisher.changes import ReleaseChanges, compare

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


def test_lists_changes_up_to_the_limit_and_counts_the_rest() -> None:
    changes = ReleaseChanges(("a", "b"), ("c",), ("d",))

    assert "2 added, 1 changed, 1 removed" == str(changes)
    assert ["  + a", "  + b", "  ~ c", "  - d"] == changes.lines()
    assert ["  + a", "  and 3 more"] == changes.lines(1)
