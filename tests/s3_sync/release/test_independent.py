"""Published releases, as the sidecar and a second implementation of the format read them."""

import random
import stat
from collections.abc import Mapping
from pathlib import Path

import pytest

from s3_sync.publisher.airflow.check import Passed
from s3_sync.publisher.rollback import roll_back
from s3_sync.release.facts import Origin
from tests.s3_sync.bucket import CHECKED, Bucket
from tests.s3_sync.process import Process
from tests.s3_sync.release.independent import Place, Reader, Release, Tree
from tests.support.s3_sync.publishing import PREFIX
from tests.support.s3_sync.shelf import RELEASE
from tests.support.s3_sync.signing import Key, write_keys

PLACE = Place("dags-bucket", PREFIX)
# Enough files for a manifest of several chunks.
FILES = 200
NAMES = (
    "é", "e\u0301", "ß", "SS", "ﬁ", "😀", "\U0010ffff", "\ufffd", "\u2028", "\u202e", "\ufeff",
    "İ", " ", "a b", "a\tb", "a\nb", "\x7f", "\\", '"', "'", "[", "{", ",", "%2e", "#", "~x", "A",
    "a", "a.", "a..", "...", ".airflowignore", ".S3-SYNC", "CON", "nul.py", "x" * 252, "ü" * 126,
    "NaN",
)  # fmt: skip

signed = pytest.mark.parametrize("key", [None, Key()], ids=["unsigned", "signed"])
seeds = pytest.mark.parametrize("seed", range(2))


def tree_of(chance: random.Random, files: int) -> Tree:
    """Return files that deflate well, not at all, or too well, with names of all kinds."""
    tree = {}
    for number in range(files):
        folders = chance.choices(NAMES, k=chance.choice((0, 1, 1, 2, 5)))
        tree["/".join([*folders, f"{number}{chance.choice(NAMES)[: 200 - number]}"])] = (
            chance.choice((b"", bytes(9_999), b"x = %d\n" % number * 99, chance.randbytes(99))),
            chance.choice(("0644", "0755")),
        )
    return tree


def altered(tree: Tree, chance: random.Random) -> Tree:
    """Return the next release: one file is removed, one added, one edited, one has another mode."""
    gone, new, edited, turned = chance.sample(sorted(tree), 4)
    rest = {path: file for path, file in tree.items() if path != gone}
    content, mode = tree[turned]
    more = {turned: (content, "0755" if mode == "0644" else "0644"), f"{new}.new": tree[new]}
    return {**rest, **more, edited: (b"edited", tree[edited][1])}


def bytes_of(tree: Tree) -> dict[str, bytes]:
    return {path: content for path, (content, _) in tree.items()}


def executable_of(tree: Tree) -> set[str]:
    return {path for path, (_, mode) in tree.items() if mode == "0755"}


def relative(bucket: Bucket) -> Mapping[str, bytes]:
    return {key.removeprefix(PREFIX): body for key, body in bucket.bodies().items()}


@signed
@seeds
def test_an_independent_reader_and_the_sidecar_read_the_same_release(
    bucket: Bucket, tmp_path: Path, key: Key | None, seed: int
) -> None:
    chance = random.Random(seed)
    reader = Reader(PLACE, [key.raw] if key else [])
    keys = {"S3_SYNC_TRUSTED_KEYS": str(write_keys(tmp_path / "keys", key))} if key else {}
    process = Process(bucket.server, tmp_path / "pod")
    process.start({"KEY_PATH": "dags", **RELEASE, **keys})
    if key:
        bucket.store.keys, bucket.store.signer = key.signer.keys, key.signer
    turns: list[tuple[str, int]] = []

    def publish(tree: Tree) -> str:
        return bucket.publish(bytes_of(tree), executable=executable_of(tree)).revision

    def check(revision: str, tree: Tree) -> Release:
        found = reader.current(relative(bucket))
        assert (tree, revision, tuple(turns)) == (found.tree, found.revision, found.history)
        assert not turns or found.sequence > turns[0][1]
        turns.insert(0, (found.revision, found.sequence))
        assert ("changed", revision) == (process.cycle().result, process.revision)
        assert bytes_of(tree) == process.shown
        modes = {path: (process.folder / "current" / path).stat().st_mode for path in tree}
        assert executable_of(tree) == {path for path in tree if modes[path] & stat.S_IXUSR}
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
    process.stop()
