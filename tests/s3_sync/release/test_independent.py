"""
What s3-sync publishes, whoever knows the page about the format can read; what they write, it reads.
"""

import json
import random
import stat
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.rollback import roll_back
from s3_sync.release.facts import Origin
from sidecar_runtime.errors import SidecarError
from tests.s3_sync.bucket import CHECKED, Bucket
from tests.s3_sync.process import Process
from tests.s3_sync.release.independent import Place, Reader, Refused, Release, Tree, Writer
from tests.support.fake_s3 import FakeS3
from tests.support.publishing import PREFIX
from tests.support.shelf import RELEASE, is_manifest
from tests.support.signing import Key, write_keys

PLACE = Place("dags-bucket", PREFIX)
AT = datetime(2026, 11, 20, 15, tzinfo=UTC)
HOUR = timedelta(hours=1)
# So many that the list of chunks has several; and that a reader takes only some of them.
FILES, MANY = 200, 600
NAMES = (
    "é", "e\u0301", "ß", "SS", "ﬁ", "😀", "\U0010ffff", "\ufffd", "\u2028", "\u202e", "\ufeff",
    "İ", " ", "a b", "a\tb", "a\nb", "\x7f", "\\", '"', "'", "[", "{", ",", "%2e", "#", "~x", "A",
    "a", "a.", "a..", "...", ".airflowignore", ".S3-SYNC", "CON", "nul.py", "x" * 252, "ü" * 126,
    "NaN",
)  # fmt: skip

signed = pytest.mark.parametrize("key", [None, Key()], ids=["unsigned", "signed"])
seeds = pytest.mark.parametrize("seed", range(2))


def tree_of(chance: random.Random, files: int) -> Tree:
    """Files of all sizes that deflate well, not at all, or too well, below names of all kinds."""
    tree = {}
    for number in range(files):
        folders = chance.choices(NAMES, k=chance.choice((0, 1, 1, 2, 5)))
        tree["/".join([*folders, f"{number}{chance.choice(NAMES)[: 200 - number]}"])] = (
            chance.choice((b"", bytes(9_999), b"x = %d\n" % number * 99, chance.randbytes(99))),
            chance.choice(("0644", "0755")),
        )
    return tree


def altered(tree: Tree, chance: random.Random) -> Tree:
    """The next release: of a few files there is more, less, another mode or another content."""
    few = {path: tree[path] for path in chance.sample(sorted(tree), 5)}
    gone, new, turned, *_ = few
    rest = {path: file for path, file in tree.items() if path != gone}
    content, mode = few[turned]
    more = {turned: (content, "0755" if mode == "0644" else "0644"), f"{new}.new": few[new]}
    return {**rest, **more}


def bytes_of(tree: Tree) -> dict[str, bytes]:
    return {path: content for path, (content, _) in tree.items()}


def relative(bucket: Bucket) -> Mapping[str, bytes]:
    return {key.removeprefix(PREFIX): body for key, body in bucket.bodies().items()}


@signed
@seeds
def test_what_is_published_can_be_read_by_whoever_knows_the_page(
    bucket: Bucket, key: Key | None, seed: int
) -> None:
    chance = random.Random(seed)
    reader = Reader(PLACE, [key.raw] if key else [])
    if key:
        bucket.store.keys, bucket.store.signer = key.signer.keys, key.signer
    turns: list[tuple[str, int]] = []

    def publish(tree: Tree) -> str:
        executable = {path for path, (_, mode) in tree.items() if mode == "0755"}
        return bucket.publish(bytes_of(tree), executable=executable).revision

    def check(revision: str, tree: Tree) -> Release:
        found = reader.current(relative(bucket))
        assert (tree, revision, tuple(turns)) == (found.tree, found.revision, found.history)
        assert not turns or found.sequence > turns[0][1]
        turns.insert(0, (found.revision, found.sequence))
        return found

    first = tree_of(chance, FILES)
    second, third = altered(first, chance), altered(first, chance)
    assert check(publish(first), first).verdict is None
    check(publish(second), second)
    check(roll_back(bucket.store, None, Origin(), is_dry=False).after.revision, first)
    bucket.passed = Passed(CHECKED, ())
    assert ["orders", "sales"] == (check(publish(third), third).verdict or {})["dag_ids"]
    check(publish(second), second)
    assert first == reader.pinned(relative(bucket), turns[-1][0]).tree


@pytest.mark.parametrize("seed", range(3))
def test_rollbacks_lead_where_the_page_says(bucket: Bucket, seed: int) -> None:
    chance = random.Random(seed)
    objects: dict[str, bytes] = {}
    writer = Writer(PLACE, objects)
    for step in range(20):
        if chance.random() < 0.4:
            tree = {"a.py": (b"%d" % chance.randrange(3), "0644")}
            bucket.publish(bytes_of(tree))
            writer.publish(tree, AT + step * HOUR)
        else:
            with suppress(SidecarError):
                roll_back(bucket.store, None, Origin(), is_dry=False)
            with suppress(Refused):
                writer.rollback(AT + step * HOUR)
        if objects:
            assert turns_of(objects) == turns_of(relative(bucket))


def turns_of(objects: Mapping[str, bytes]) -> list[object]:
    """
    All turns, the current one first: the revision, and the place of the turn that it restores.

    When they began does not count, nor their sequences, which are times.
    """
    pointer = json.loads(objects["current.json"])
    turns = (pointer, *pointer["history"])
    places = {turn["sequence"]: place for place, turn in enumerate(turns)}
    assert sorted(places, reverse=True) == list(places)
    return [(turn["revision"], places.get(turn.get("restores"))) for turn in turns]


@signed
@seeds
def test_what_others_write_by_the_page_appears(
    s3: FakeS3, process: Process, tmp_path: Path, key: Key | None, seed: int
) -> None:
    chance = random.Random(seed)
    objects: dict[str, bytes] = {}
    writer = Writer(PLACE, objects, key.private if key else None)
    keys = {"S3_SYNC_TRUSTED_KEYS": str(write_keys(tmp_path / "keys", key))} if key else {}
    process.start({"KEY_PATH": "dags", **RELEASE, **keys})
    now = AT

    def check(revision: str, tree: Tree) -> None:
        for name, body in objects.items():
            s3.put(f"{PREFIX}{name}", body)
        outcome = process.cycle()
        assert ("changed", revision) == (outcome.result, outcome.revision)
        assert bytes_of(tree) == process.shown
        assert {path for path, (_, mode) in tree.items() if mode == "0755"} == {
            path for path in tree if (process.folder / path).stat().st_mode & stat.S_IXUSR
        }

    first = tree_of(chance, MANY)
    second, third = altered(first, chance), altered(first, chance)
    check(writer.publish(first, now), first)
    s3.forget()
    check(writer.publish(second, now := now + HOUR), second)
    # Only the chunks that differ are read, so those of both writes are the same.
    assert all("range" in request.headers for request in s3.seen(is_manifest))
    check(writer.publish(third, now := now + HOUR), third)
    check(writer.rollback(now := now + HOUR), second)
    check(writer.rollback(now := now + HOUR), first)
    check(writer.publish(second, now + HOUR), second)
