"""The changes that each turn of the history made."""

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.catalog import read_current
from s3_sync.publisher.rollback import roll_back
from s3_sync.publisher.turns import TurnChanges, changes_of_turns
from s3_sync.release.facts import Origin
from s3_sync.release.names import manifest_key
from tests.s3_sync.bucket import CHECKED, Bucket
from tests.support.s3_sync.publishing import PREFIX

A = {"a.py": b"a = 1\n", "b.py": b"b = 1\n"}
B = {"a.py": b"a = 2\n", "c.py": b"c = 1\n"}


def turns_of(bucket: Bucket) -> list[TurnChanges]:
    current = read_current(bucket.store)
    assert current is not None and current.pointer is not None
    return list(changes_of_turns(bucket.store, current.pointer))


def test_reports_the_changes_of_each_turn_newest_first(bucket: Bucket) -> None:
    bucket.passed = Passed(CHECKED, ())
    first = bucket.publish(A).revision
    bucket.passed = Passed(CHECKED._replace(dag_ids=("sales",)), ())
    second = bucket.publish(B).revision
    roll_back(bucket.store, None, Origin(), is_dry=False)
    bucket.server.forget()

    back, published = (turn.facts() for turn in turns_of(bucket))

    assert (second, first, ("a.py",)) == (
        back["before"],
        back["revision"],
        back["changes"]["changed"],
    )
    assert {"added": ("c.py",), "changed": ("a.py",), "removed": ("b.py",)} == published["changes"]
    assert (("orders",), ("orders",)) == (back["dags"]["added"], published["dags"]["removed"])
    assert 4 == len(bucket.server.requests), "the pointer, and a manifest for each turn"


def test_the_changes_of_a_pruned_release_are_unknown(bucket: Bucket) -> None:
    first = bucket.publish(A).revision
    bucket.publish(B)
    bucket.server.delete(PREFIX + manifest_key(first))

    (turn,) = turns_of(bucket)

    assert turn.files is None and turn.facts()["changes"] is None
    assert "unknown: a release is gone" in str(turn)


def test_the_first_release_has_no_changes(bucket: Bucket) -> None:
    bucket.publish(A)

    assert [] == turns_of(bucket)
